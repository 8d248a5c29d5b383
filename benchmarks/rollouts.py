"""Episodes a second: an evaluation as a sweep plays it, against the public implementation's way to act.

Both sides play visual dialogue greedily with the same weights, β, scenes and environment. Ours plays all its slots, as
an evaluation does; the other side (`benchmarks.public_rollout`) plays the first few of the same episodes one by one.
They must say the same: transcripts are compared, and where one differs, the first token that does must have been a
near-tie, which rounds one way or the other. Beside the ratio stands how near our side is to `benchmarks.floor`.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks.betas import checkpoint
from benchmarks.floor import Machine, least_work
from benchmarks.measure import Benchmark, Line, alternately, per_second
from benchmarks.public_rollout import Played, PublicPolicy, Said, episode
from ilql.batch import tokenize
from ilql.evaluate import Episode, Player, play
from ilql.networks import ValueNetworks
from ilql.task import Task
from ilql.tokens import Tokenizer
from sweeps import stages
from sweeps.spec import TrialSpec
from sweeps.store import Store

CPU = torch.device("cpu")

BETA = 4.0

LEAST_EQUAL = 0.95
"""Share of transcripts that must be equal."""

NEAR_TIE = 1e-4
"""Two scores that are no further apart may change places by rounding."""


@dataclasses.dataclass(frozen=True)
class Size:
    """What is measured with: a model, how long it was trained, and how many episodes each side plays a round."""

    layers: int
    width: int
    steps: int
    ours: int
    other: int
    rounds: int


SIZES = (
    Size(layers=2, width=96, steps=120, ours=256, other=6, rounds=5),
    Size(layers=4, width=256, steps=40, ours=128, other=6, rounds=3),
)
QUICK = (Size(layers=2, width=96, steps=8, ours=8, other=1, rounds=1),)


def tokens_of(utterances: Sequence[Said]) -> int:
    """How many tokens were chosen."""
    return sum(len(said.tokens) for said in utterances)


def equal(ours: Episode, other: Played, tokenizer: Tokenizer) -> bool:
    """Whether both sides said the same; raises `AssertionError` if they part at more than a near-tie."""
    own = [(turn.by_agent, turn.text) for turn in ours.transcript.turns]
    transcript = other.transcript
    if own == transcript:
        return True
    # The first turn that differs is the agent's: the world answers the same to the same.
    place = next(n for n, pair in enumerate(zip(own, transcript, strict=False)) if pair[0] != pair[1])
    assert own[place][0], f"the world answered differently in episode {ours.seed}: {own[place]}, {transcript[place]}"
    tokens, gaps = other.said[place // 2].tokens, other.said[place // 2].gaps
    # The first token after which the text is none that ours could begin with; else the last.
    first = next((n for n in range(len(tokens)) if not own[place][1].startswith(tokenizer.decode(tokens[: n + 1]))), -1)
    assert gaps[first] < NEAR_TIE, f"episode {ours.seed} parts at scores {gaps[first]} apart: {own[place]}"
    return False


def measured(size: Size, folder: Path, *, quick: bool) -> Line:
    """Train at one size, let both sides play in turn, and compare what they said."""
    store = Store(folder)
    spec = checkpoint(store, layers=size.layers, width=size.width, steps=size.steps, quick=quick)
    task, tokenizer = stages.load_task(store, spec.data.task, spec.data.world), stages.load_tokenizer_stage(store, spec)
    module, behaviour = stages.load_module(store, spec), stages.load_behaviour(store, spec)
    assert isinstance(module, ValueNetworks)
    return against(size, spec, task, tokenizer, module, behaviour)


def against(
    size: Size,
    spec: TrialSpec,
    task: Task,
    tokenizer: Tokenizer,
    module: ValueNetworks,
    behaviour: nn.Module,
    device: torch.device = CPU,
) -> Line:
    """Let both sides play in turn with these networks, and compare what they said."""
    decode = dataclasses.replace(spec.decode, beta=BETA)
    player = Player(decode, spec.kind.manner(spec.train, decode), spec.data.reward)
    actor, public = spec.kind.actor(module, behaviour), PublicPolicy(module, behaviour, tokenizer, device)
    split = spec.evaluation.split
    played: list[Episode] = []
    heard: dict[int, Played] = {}
    turn = iter(range(10**9))

    def ours() -> None:
        played[:] = play(task, split, actor, tokenizer, [player], range(size.ours), device=device)[0]

    def other() -> None:
        begin = next(turn) * size.other % size.ours
        for seed in range(begin, min(begin + size.other, size.ours)):
            heard[seed] = episode(public, task, split, player, seed)

    rates = alternately(per_second(size.ours, ours), per_second(size.other, other), rounds=size.rounds)
    same = [equal(played[seed], each, tokenizer) for seed, each in heard.items()]
    assert sum(same) >= LEAST_EQUAL * len(same), f"{sum(same)} of {len(same)} transcripts are equal"
    chosen = sum(tokens_of(each.said) for each in heard.values()) / len(heard)
    note, floor = "", {}
    if device == CPU:
        machine = Machine.measured(quick=size.rounds == 1)
        work = least_work(actor, [tokenize(each.transcript, tokenizer) for each in played])
        least = work.seconds_on(machine) / size.ours
        share = least * statistics.median(rates[0])
        note = (
            f"an episode's {work.operations / size.ours / 1e9:.2f} GFLOP, and {work.read / size.ours / 1e9:.2f} GB of "
            f"keys and values to read, take {least:.4f} s at this machine's {machine.products / 1e9:.0f} GFLOP/s and "
            f"{machine.reading / 1e9:.0f} GB/s: {100 * share:.0f} % of what it took"
        )
        floor = {**dataclasses.asdict(work), **dataclasses.asdict(machine), "share_of_floor": share}
    return Line(
        name=f"visual dialogue, {size.layers} layers of {size.width}, vocabulary {tokenizer.size}",
        unit="episodes/s",
        ours=rates[0],
        other=rates[1],
        other_is="the public way to act: one episode at a time, three trunks a token, no cache across turns",
        goal=25.0,
        note=note,
        details={
            **floor,
            "episodes_compared": len(same),
            "transcripts_equal": sum(same),
            "tokens_chosen_per_episode": chosen,
            "beta": BETA,
        },
    )


def run(quick: bool) -> list[Line]:
    """Measure every size; raises `AssertionError` if the sides do not say the same."""
    lines = []
    for size in QUICK if quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(measured(size, Path(folder), quick=quick))
    return lines


BENCHMARK = Benchmark("rollouts", "How many episodes a second does an evaluation play, and the public way to act?", run)
