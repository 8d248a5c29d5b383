"""Rollouts and sixteen betas on a GPU, at GPT-2 small's size, with random weights.

`public_rollout` says how the other side acts. The sixteen betas are played beside four of them, spread over the
sixteen, on the same episodes.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks import rollouts_gpt2
from benchmarks.betas import BETAS, described
from benchmarks.measure import Benchmark, Line, alternately, seconds
from benchmarks.rollouts import Size, against
from ilql.evaluate import Player, play
from ilql.networks import ValueNetworks
from ilql.task import Task
from ilql.tokens import Tokenizer
from sweeps.spec import TrialSpec
from sweeps.store import Store

GPT2_SMALL = Size(layers=12, width=768, steps=1, ours=512, other=1, rounds=2)
EPISODES = 32
"""For each beta."""


def run(quick: bool) -> list[Line]:
    """Measure it; nothing where there is no GPU."""
    if not torch.cuda.is_available() and not quick:
        print("gpu_rollouts: skipped, it needs a GPU", file=sys.stderr)
        return []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size, episodes = (rollouts_gpt2.QUICK, 2) if quick else (GPT2_SMALL, EPISODES)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        spec = described(store, layers=size.layers, width=size.width, heads=size.width // 64 or 1, steps=1, quick=quick)
        world = rollouts_gpt2.prepared(store, spec)
        line = against(size, *world, device)
        return [
            dataclasses.replace(line, name=f"{line.name}, random weights, on a GPU"),
            betas(episodes, size.rounds, *world, device),
        ]


def betas(
    episodes: int,
    rounds: int,
    spec: TrialSpec,
    task: Task,
    tokenizer: Tokenizer,
    module: ValueNetworks,
    behaviour: nn.Module,
    device: torch.device,
) -> Line:
    """Seconds of sixteen betas, by those of four."""
    actor = spec.kind.actor(module, behaviour)

    def side(values: Sequence[float]) -> Callable[[], float]:
        decodes = [dataclasses.replace(spec.decode, beta=beta) for beta in values]
        players = [Player(each, spec.kind.manner(spec.train, each), spec.data.reward) for each in decodes]
        seeds = range(episodes)
        return lambda: seconds(
            lambda: play(task, spec.evaluation.split, actor, tokenizer, players, seeds, device=device)
        )

    ours, other = alternately(side(BETAS), side(BETAS[1::4]), rounds=rounds)
    return Line(
        name=f"16 betas on one checkpoint on a GPU, {episodes} episodes each, random weights",
        unit="s",
        ours=ours,
        other=other,
        other_is="4 of them",
        goal=1.3,
        at_least=False,
        more_is_better=False,
    )


BENCHMARK = Benchmark("gpu_rollouts", "How fast do we act on a GPU, and what do more betas cost?", run, long=True)
