"""Do values rank an expert's guess above another's? Asked of every trained critic of a Wordle sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.q_rank import Ranked, rank_section
from analysis.section import Section
from ilql.batch import TokenSequence, collate, tokenize
from ilql.dialogue import Dialogue
from ilql.prefix_tree import prefix_tree
from ilql.tasks.wordle.environment import WordleTask
from ilql.tasks.wordle.patterns import LENGTH
from ilql.tasks.wordle.q_rank import PLACES, pairs
from ilql.tokens import Tokenizer
from sweeps.spec import TrialSpec, probe_key
from sweeps.stages import canonical, load_module, load_task, load_tokenizer_stage, load_tokens
from sweeps.store import Store

VERSION = 3
"""Raised when the same weights would be compared otherwise; part of the key of every comparison."""

PAIRS, SEED = 1000, 0
"""Pairs in each place, and what draws them: the same for every training."""

SPLIT = "train"
"""Whose games the pairs are of: those that were learnt from, as published, so that the exact values are known, too."""

BATCH = 64
TOKENS = LENGTH + 1
POSITIONS = ("1st letter", "2nd letter", "3rd letter", "4th letter", "5th letter", "end")
PLACE_MEANINGS = {
    "start": "An expert's first guess, behind which most recorded games are lost, against a suboptimal player's first.",
    "branch": "An expert's third guess against that of the adversary, who only repeats the first two.",
}
RANKS_FILE = "ranks.npz"


def q_rank_section(store: Store, sweep: str) -> Section | None:
    """How every finished training with values for tokens ranks the pairs.

    None where the world has no pairs, or where words are not spelt in letters, as with a pretrained tokeniser.
    """
    ranked: list[Ranked] = []
    done: set[str] = set()
    exact: set[tuple[float, float]] = set()
    for member in store.members(sweep):
        spec = TrialSpec.from_json(str(member["spec"]))
        if spec.kind.values is None or spec.weights_id in done or not _can_be_compared(store, spec):
            continue
        done.add(spec.weights_id)
        task = load_task(store, spec.data.task, spec.evaluation.world)
        if not isinstance(task, WordleTask) or task.settings.world != "branching":
            return None
        if not _by_letter(load_tokenizer_stage(store, spec)):
            return None
        tau = getattr(spec.train, "tau", None)
        ranked += _read(_compared(store, spec, task), spec.method, tau, spec.seed)
        key = (float(canonical(spec)[1].tau), float(spec.train.gamma)) if spec.method in ("ilql", "sarsa") else None
        if key is not None and key not in exact:
            exact.add(key)
            folder = _exact(store, spec, task, tau=key[0], gamma=key[1])
            ranked += _read(folder, "exact", key[0], 0)
    return rank_section(ranked, positions=POSITIONS, places=PLACE_MEANINGS)


def _can_be_compared(store: Store, spec: TrialSpec) -> bool:
    """True if a training's weights are there, or what they make of the pairs was written before they were dropped."""
    return store.has("weights", spec.weights_id) or store.has("q_rank", _key(spec))


def _key(spec: TrialSpec) -> str:
    asked = {"world": spec.evaluation.world, "pairs": PAIRS, "seed": SEED}
    return probe_key("q_rank", VERSION, spec.weights_id, asked)


def _read(folder: Path, method: str, tau: float | None, seed: int) -> list[Ranked]:
    with np.load(folder / RANKS_FILE, allow_pickle=False) as found:
        parts = ("won", "tied", "better", "worse")
        return [Ranked(method, tau, seed, place, *(found[f"{place}_{part}"] for part in parts)) for place in PLACES]


def _by_letter(tokenizer: Tokenizer) -> bool:
    return all(len(tokenizer.encode(word)) == LENGTH for word in ("about", "crane", "zzzzz"))


Values = Callable[[list[TokenSequence]], NDArray[np.float64]]
"""Q of the last guess's tokens of some games, shape (P, 6)."""


def _compared(store: Store, spec: TrialSpec, task: WordleTask) -> Path:
    """The stage that holds how a training's Q compares the pairs."""

    def make(folder: Path) -> None:
        assert spec.kind.values is not None
        values, module = spec.kind.values, load_module(store, spec)
        pad = load_tokenizer_stage(store, spec).structural("pad")

        def q_of(games: list[TokenSequence]) -> NDArray[np.float64]:
            found = []
            for begin in range(0, len(games), BATCH):
                batch = collate(games[begin : begin + BATCH], pad=pad)
                last = batch.action_mask.sum(dim=1, keepdim=True) - TOKENS + torch.arange(TOKENS)
                found.append(values(module, batch).q.gather(1, last).double().numpy())
            return np.concatenate(found)

        _compare(store, spec, task, q_of, folder)

    return store.build("q_rank", _key(spec), make, {"weights": spec.weights_id})


def _exact(store: Store, spec: TrialSpec, task: WordleTask, *, tau: float, gamma: float) -> Path:
    """The stage that holds how ILQL's fixed point on the data compares the pairs."""

    def make(folder: Path) -> None:
        tree = prefix_tree(load_tokens(store, spec))
        _, q = tree.values(tau=tau, gamma=gamma)
        _compare(store, spec, task, lambda games: np.stack([q[tree.nodes(g)[-TOKENS:]] for g in games]), folder)

    asked = {"world": spec.evaluation.world, "pairs": PAIRS, "seed": SEED, "tau": tau, "gamma": gamma}
    key = probe_key("q_rank", VERSION, spec.tokens_key, asked)
    return store.build("q_rank", key, make, {"tokens": spec.tokens_key})


def _compare(store: Store, spec: TrialSpec, task: WordleTask, q_of: Values, folder: Path) -> None:
    """Write whether Q of the better guess's tokens is the higher, and where both agree so far, (P, 6) each.

    Beside them stands which guesses they are, (P,) each: what was said before a guess, and its word, decide its Q.
    """
    tokenizer, found = load_tokenizer_stage(store, spec), dict[str, NDArray[np.generic]]()
    drawn = pairs(task, PAIRS, SEED, SPLIT)
    for place in PLACES:
        own = list(dict.fromkeys(pair for pair in drawn if pair.place == place))  # a pair drawn twice says no more
        better = [tokenize(pair.better, tokenizer) for pair in own]
        worse = [tokenize(pair.worse, tokenizer) for pair in own]
        found[f"{place}_won"] = (q_of(better) > q_of(worse)).astype(np.float64)
        found[f"{place}_tied"] = np.cumprod(_last(better) == _last(worse), axis=1).astype(np.bool_)
        found[f"{place}_better"] = _numbered([pair.better for pair in own])
        found[f"{place}_worse"] = _numbered([pair.worse for pair in own])
    np.savez(folder / RANKS_FILE, **found)  # type: ignore[arg-type]


def _numbered(games: list[Dialogue]) -> NDArray[np.int64]:
    """A number for each game, equal where all that was said is, shape (P,)."""
    numbers: dict[tuple[str, ...], int] = {}
    return np.array([numbers.setdefault(tuple(turn.text for turn in game.turns), len(numbers)) for game in games])


def _last(games: list[TokenSequence]) -> NDArray[np.int64]:
    """The tokens of the last guesses, shape (P, 6)."""
    return np.stack([game.tokens[game.action_positions[-TOKENS:] + 1] for game in games])
