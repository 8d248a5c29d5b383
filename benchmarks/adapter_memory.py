"""The most memory an optimiser step of ILQL takes with adapters on one frozen trunk, against trunks learnt whole.

Both sides are ours, at GPT-2 small's size with the vocabulary cut, each in a process of its own:
`python -m benchmarks.adapter_memory RANK SIZES`, rank 0 without adapters. A process holds what a training does whose
policy is at hand: the behaviour policy, the online and the target network. Embeddings and the language model's head
are learnt whole on both sides, as without a chat template. What is counted is as in `step_memory`.
"""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys

import torch

from benchmarks import public_step
from benchmarks.measure import Benchmark, Line
from benchmarks.step_memory import ALL_SIZES, TINY, peak_bytes, resident_bytes
from ilql import token_values
from ilql.adapters import adapt
from ilql.language_model import build_language_model
from ilql.method import Start
from ilql.networks import ValueNetworks

RANK = 16
GOAL = 0.5


def measure_here(rank: int, sizes: public_step.Sizes) -> tuple[int, int]:
    """The bytes a step takes, and the bytes of the numbers that the networks hold, each counted once."""
    first = build_language_model(TINY, vocabulary=2, seed=0)  # what torch and Transformers load at first is nobody's
    if rank:
        adapt(first, rank=1, words=True, seed=0)  # nor is what PEFT does
    before = resident_bytes()
    torch.set_num_threads(os.cpu_count() or 1)
    behaviour = build_language_model(sizes.architecture(), vocabulary=sizes.vocabulary, seed=0)
    if rank:
        behaviour = adapt(behaviour, rank=rank, words=True, seed=0)
    settings = public_step.settings("token")
    module = token_values.build(Start(copy.deepcopy(behaviour), behaviour, seed=0), settings)
    assert isinstance(module, ValueNetworks)
    steps = public_step.our_steps(module, public_step.dialogues(sizes), settings)
    next(steps)  # the optimiser's state is there from here on
    gc.collect()
    most = peak_bytes(lambda: next(steps))
    held = {
        parameter.data_ptr(): parameter.numel() * parameter.element_size()
        for network in (behaviour, module)
        for parameter in network.parameters()
    }
    return most - before, sum(held.values())


def measure(rank: int, sizes: str) -> tuple[int, int]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.adapter_memory", str(rank), sizes]
    most, held = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return int(most), int(held)


def run(quick: bool) -> list[Line]:
    """One line: with adapters, without."""
    name = "quick_cut" if quick else "small_cut"
    sizes = ALL_SIZES[name]
    (ours, held), (other, whole) = measure(RANK, name), measure(0, name)
    return [
        Line(
            name=f"peak memory of ILQL's optimiser step with adapters of rank {RANK}, {sizes.layers} layers of "
            f"{sizes.width}, vocabulary of {sizes.vocabulary:,}",
            unit="GiB",
            ours=(ours / 2**30,),
            other=(other / 2**30,),
            other_is="the same without adapters: behaviour policy, online and target network each have a trunk",
            goal=GOAL,
            at_least=False,
            more_is_better=False,
            note=f"the networks' numbers alone take {held / 2**30:.2f} GiB and {whole / 2**30:.2f} GiB; the rest is "
            f"gradients, moments and activations",
            details={"held_bytes": held, "held_bytes_without": whole},
        )
    ]


BENCHMARK = Benchmark(
    name="adapter_memory",
    question="How much memory do adapters on one frozen trunk save in a step of ILQL?",
    run=run,
)


if __name__ == "__main__":
    print(*measure_here(int(sys.argv[1]), ALL_SIZES[sys.argv[2]]))
