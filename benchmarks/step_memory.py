"""The most memory a whole optimiser step of ILQL takes at GPT-2 small's size, against the public implementation's.

Each side runs in a process of its own: `python -m benchmarks.step_memory SIDE SIZES DIALOGUES`. It builds its networks,
does one step, so that the optimiser's state is there, and then one while another thread reads the resident memory every
few milliseconds. What is counted is the most it reads, less what the process had before there were networks. Where both
sides take all dialogues in one batch, the losses of both steps must be equal.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import public_step
from benchmarks.measure import Benchmark, Line
from ilql.language_model import Architecture, build_language_model

TINY = Architecture(layers=1, width=2, heads=1, context=2)

ALL_SIZES = {"quick": public_step.QUICK, "small": public_step.GPT2_SMALL}
ALL_SIZES |= {f"{name}_cut": dataclasses.replace(sizes, vocabulary=sizes.used) for name, sizes in ALL_SIZES.items()}


def resident_bytes() -> int:
    """What this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(work: Callable[[], object]) -> int:
    """The most this process had in memory during some work, looked at every 2 milliseconds."""
    seen, done = [resident_bytes()], threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(resident_bytes())
            time.sleep(0.002)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(seen)


def measure_here(side: str, sizes: public_step.Sizes, micro_batch: int) -> tuple[int, list[float]]:
    """The bytes one side takes, and its losses at two steps."""
    build_language_model(TINY, vocabulary=2, seed=0)  # what torch and Transformers load at first is nobody's
    before = resident_bytes()
    weighting = "dialogue" if micro_batch == 1 else "token"
    torch.set_num_threads(os.cpu_count() or 1)  # what is measured is memory: let it be soon over
    module, sequences = public_step.networks(sizes), public_step.dialogues(sizes)
    if side == "ours":
        ours = public_step.our_steps(module, sequences, public_step.settings(weighting))

        def step() -> float:
            return next(ours)
    else:
        other = public_step.PublicStep(module, public_step.settings(weighting))
        del module

        def step() -> float:
            return other.step(public_step.micro_batches(sequences, micro_batch))

    losses = [step()]
    gc.collect()
    most = peak_bytes(lambda: losses.append(step()))
    return most - before, losses


def measure(side: str, sizes: str, micro_batch: int) -> tuple[int, list[float]]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.step_memory", side, sizes, str(micro_batch)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    most, *losses = done.stdout.split()
    return int(most), [float(loss) for loss in losses]


def run(quick: bool) -> list[Line]:
    """The cut vocabulary and the whole one against micro-batches of one, and the whole one against one batch of all."""
    name = "quick" if quick else "small"
    sizes, cut = ALL_SIZES[name], f"{name}_cut"
    ours = {own: measure("ours", own, sizes.dialogues) for own in (cut, name)}
    other = {micro_batch: measure("other", name, micro_batch) for micro_batch in (1, sizes.dialogues)}
    for pair in zip(ours[name][1], other[sizes.dialogues][1], strict=True):
        public_step.check_equal(*pair)
    return [
        line(sizes, ALL_SIZES[own], ours[own][0], other[micro_batch][0], micro_batch)
        for own, micro_batch in ((cut, 1), (name, 1), (name, sizes.dialogues))
    ]


def line(sizes: public_step.Sizes, own: public_step.Sizes, ours: int, other: int, micro_batch: int) -> Line:
    """One line, of bytes on both sides."""
    held = held_bytes(own)
    what = "whole vocabulary" if own == sizes else f"our vocabulary cut to the {own.vocabulary:,} ids that occur"
    return Line(
        name=f"peak memory of ILQL's optimiser step, {sizes.layers} layers of {sizes.width}: {what}",
        unit="GiB",
        ours=(ours / 2**30,),
        other=(other / 2**30,),
        other_is="public implementation's step, "
        + ("micro-batches of one" if micro_batch == 1 else f"one batch of {micro_batch}"),
        goal=0.5,
        at_least=False,
        more_is_better=False,
        note=f"weights, targets, gradients and AdamW's two moments alone are {held / 2**30:.2f} GiB of ours, "
        f"{100 * held / ours:.0f} %; ours is one batch of {sizes.dialogues}",
        details={"held_bytes": held},
    )


def held_bytes(sizes: public_step.Sizes) -> int:
    """What a training of ILQL holds whatever it does: five numbers for each weight, of which one is the target's."""
    trunk = (sizes.vocabulary + 1024) * sizes.width + sizes.layers * 12 * sizes.width**2
    q_head = 2 * sizes.width**2 + 2 * sizes.width * sizes.vocabulary
    v_head = 2 * sizes.width**2
    return 4 * (5 * (trunk + 2 * q_head) + 4 * v_head)


BENCHMARK = Benchmark(
    name="step_memory",
    question="How much memory does a whole optimiser step of ILQL take, beside the public implementation's?",
    run=run,
)


if __name__ == "__main__":
    taken, losses_here = measure_here(sys.argv[1], ALL_SIZES[sys.argv[2]], int(sys.argv[3]))
    print(taken, *losses_here)
