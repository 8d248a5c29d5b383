"""As `benchmarks/rollouts.py`, at GPT-2 small's size: 12 layers of 768, the model of the paper's visual dialogue.

Weights are random, which costs the same as trained ones but for how long utterances are: both sides say the same, and
what they say mostly fills its 20 tokens. The generated world's own vocabulary is used.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks.betas import described
from benchmarks.measure import Benchmark, Line
from benchmarks.rollouts import Size, against
from ilql.method import Start
from ilql.methods import ilql
from ilql.networks import ValueNetworks
from ilql.task import Task
from ilql.tokens import Tokenizer
from sweeps import stages
from sweeps.spec import TrialSpec
from sweeps.store import Store

GPT2_SMALL = Size(layers=12, width=768, steps=1, ours=64, other=1, rounds=3)
QUICK = Size(layers=2, width=96, steps=1, ours=8, other=1, rounds=1)


def run(quick: bool) -> list[Line]:
    """Measure it; raises `AssertionError` if the sides do not say the same."""
    size = QUICK if quick else GPT2_SMALL
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        spec = described(store, layers=size.layers, width=size.width, heads=size.width // 64 or 1, steps=1, quick=quick)
        line = against(size, *prepared(store, spec))
    return [dataclasses.replace(line, name=f"{line.name}, random weights")]


def prepared(store: Store, spec: TrialSpec) -> tuple[TrialSpec, Task, Tokenizer, ValueNetworks, nn.Module]:
    """A trial's world, tokeniser, value networks and behaviour policy, with random weights that tell tokens apart."""
    stages.ensure_start(store, spec, None)
    language_model = stages.load_backbone(store, spec).requires_grad_(False)
    module = ilql.METHOD.build(Start(language_model, language_model, 0), spec.train)
    assert isinstance(module, ValueNetworks)
    with torch.no_grad():  # values that tell tokens apart, as trained ones do
        for head in (*module.online.q_heads, *module.target.q_heads):
            for parameter in head.parameters():
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    task = stages.load_task(store, spec.data.task, spec.data.world)
    return spec, task, stages.load_tokenizer_stage(store, spec), module.eval(), language_model


BENCHMARK = Benchmark(
    "rollouts_gpt2", "How many episodes a second does GPT-2 small play, ours and the public way?", run, long=True
)
