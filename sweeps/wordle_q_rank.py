"""Do values rank an expert's guess above another's? Asked of every trained critic of a Wordle sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.q_rank import Ranked, rank_section
from analysis.section import Section
from ilql.batch import collate, tokenize
from ilql.tasks.wordle.environment import WordleTask
from ilql.tasks.wordle.patterns import LENGTH
from ilql.tasks.wordle.q_rank import PLACES, Pair, pairs
from ilql.tokens import Tokenizer
from sweeps.spec import TrialSpec, probe_key
from sweeps.stages import load_module, load_task, load_tokenizer_stage
from sweeps.store import Store

VERSION = 1
"""Raised when the same weights would be compared otherwise; part of the key of every comparison."""

PAIRS, SEED = 1000, 0
"""Pairs in each place, and what draws them: the same for every training."""

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
    for member in store.members(sweep):
        spec = TrialSpec.from_json(str(member["spec"]))
        if spec.kind.values is None or spec.weights_id in done or store.stage("weights", spec.weights_id) is None:
            continue
        done.add(spec.weights_id)
        task = load_task(store, spec.data.task, spec.evaluation.world)
        if not isinstance(task, WordleTask) or task.settings.world != "branching":
            return None
        if not _by_letter(load_tokenizer_stage(store, spec)):
            return None
        with np.load(_compared(store, spec, task) / RANKS_FILE, allow_pickle=False) as found:
            tau = getattr(spec.train, "tau", None)
            for place in PLACES:
                won, tied = found[f"{place}_won"], found[f"{place}_tied"]
                ranked.append(Ranked(spec.method, tau, spec.seed, place, won, tied))
    return rank_section(ranked, positions=POSITIONS, places=PLACE_MEANINGS)


def _by_letter(tokenizer: Tokenizer) -> bool:
    return all(len(tokenizer.encode(word)) == LENGTH for word in ("about", "crane", "zzzzz"))


def _compared(store: Store, spec: TrialSpec, task: WordleTask) -> Path:
    """The stage that holds how a training's Q compares the pairs."""

    def make(folder: Path) -> None:
        found: dict[str, NDArray[np.float64] | NDArray[np.bool_]] = {}
        drawn = pairs(task, PAIRS, SEED)
        for place in PLACES:
            own = list(dict.fromkeys(pair for pair in drawn if pair.place == place))  # a pair drawn twice says no more
            found[f"{place}_won"], found[f"{place}_tied"] = compare(store, spec, own)
        np.savez(folder / RANKS_FILE, **found)  # type: ignore[arg-type]

    asked = {"world": spec.evaluation.world, "pairs": PAIRS, "seed": SEED}
    key = probe_key("q_rank", VERSION, spec.weights_id, asked)
    return store.build("q_rank", key, make, {"weights": spec.weights_id})


def compare(store: Store, spec: TrialSpec, drawn: list[Pair]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Whether Q of the better guess's tokens is the higher, and where both guesses agree so far, shape (P, 6) each."""
    assert spec.kind.values is not None
    module, tokenizer = load_module(store, spec), load_tokenizer_stage(store, spec)
    q: list[list[torch.Tensor]] = [[], []]
    tokens: list[list[torch.Tensor]] = [[], []]
    for begin in range(0, len(drawn), BATCH):
        block = drawn[begin : begin + BATCH]
        for side, dialogues in enumerate(([p.better for p in block], [p.worse for p in block])):
            batch = collate([tokenize(d, tokenizer) for d in dialogues], pad=tokenizer.structural("pad"))
            values = spec.kind.values(module, batch).q
            last = batch.action_mask.sum(dim=1, keepdim=True) - TOKENS + torch.arange(TOKENS)
            q[side].append(values.gather(1, last))
            tokens[side].append(batch.actions.gather(1, last))
    better, worse = (torch.cat(parts) for parts in q)
    said, other = (torch.cat(parts) for parts in tokens)
    agree = (said == other).long().cumprod(dim=1).bool()
    won: NDArray[np.float64] = (better > worse).double().numpy()
    return won, agree.numpy()
