"""A whole optimiser step of ILQL on a GPU, at GPT-2 small's size, against the public implementation's.

Both sides multiply in bfloat16 under autocast, with weights in float32; their losses must be equal in float32 before
anything is measured. `public_step` says how the other side does it. A step's share of the device's rate (model FLOP
utilisation) counts the operations that cannot be left out, against a large product of bfloat16 matrices measured here.
That nothing waits for the device within a training is shown by a profile: between two logged steps the runtime is asked
to synchronise as often whether few or many steps lie between them.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Callable, Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import public_step
from benchmarks.measure import Benchmark, Line, seconds
from benchmarks.training_step import operations
from ilql.train import Loop

STEPS = 8
"""Steps between two that log."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        sizes: Of the networks, and of the batch that both sides take.
        full: Dialogues in the batch that fills the device; ours alone.
        rounds: How often everything is measured.
        product: Side of the square matrices by which the device's rate is measured.
    """

    sizes: public_step.Sizes
    full: int
    rounds: int
    product: int


WHOLE = Scale(
    sizes=dataclasses.replace(public_step.GPT2_SMALL, dialogues=64),
    full=256,
    rounds=3,
    product=8192,
)
SMALLEST = Scale(sizes=public_step.QUICK, full=4, rounds=1, product=128)


def run(quick: bool) -> list[Line]:
    """Measure it; nothing where there is no GPU."""
    if not torch.cuda.is_available() and not quick:
        print("gpu_step: skipped, it needs a GPU", file=sys.stderr)
        return []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scale = SMALLEST if quick else WHOLE
    check(dataclasses.replace(scale.sizes, dialogues=8), device)
    return steps(scale, device)


def check(sizes: public_step.Sizes, device: torch.device) -> None:
    """Compare a step's losses on equal weights, in float32, the whole vocabulary on both sides."""
    module, sequences = public_step.networks(sizes), public_step.dialogues(sizes)
    other = public_step.PublicStep(module, public_step.settings("token")).to(device)
    ours = public_step.our_steps(module, sequences, public_step.settings("token"), Loop(device=device, log_every=1))
    public_step.check_equal(
        next(ours), other.step([batch.to(device) for batch in public_step.micro_batches(sequences, len(sequences))])
    )


def steps(scale: Scale, device: torch.device) -> list[Line]:
    """Speed of the step with the vocabulary cut and whole, and its memory."""
    sizes, rate = scale.sizes, product_rate(scale.product, device)
    cut = dataclasses.replace(sizes, vocabulary=sizes.used)
    full = dataclasses.replace(cut, dialogues=scale.full)
    goals = {cut: {1: 4.0}, sizes: {1: 2.0, sizes.dialogues: 2.0}}
    others = {count: PublicSide(sizes, count, device) for count in (1, sizes.dialogues)}
    theirs = {count: [side() for _ in range(scale.rounds)] for count, side in others.items()}
    peaks = {count: peak_bytes(side, device) for count, side in others.items()}
    del others
    lines, memory = [], []
    for own, wanted in goals.items():
        side = OurSide(own, device)
        rates = [side() for _ in range(scale.rounds)]
        used = peak_bytes(side, device)
        note = f"the loss of each side is measured with its own half precision; {side.note(rates, rate)}"
        waits = synchronisations(side, device)
        del side
        if own == cut:
            filling = OurSide(full, device)
            alone = [filling() for _ in range(scale.rounds)]
            note += f". A batch of {full.dialogues}: {filling.note(alone, rate)}"
            del filling
            note += (
                f". Asked to wait for the device: {waits[0]} times in {STEPS} steps of which one logs, "
                f"{waits[1]} times in {2 * STEPS}"
            )
        what = "whole vocabulary" if own == sizes else f"our vocabulary cut to {own.vocabulary:,}"
        for count, goal in wanted.items():
            rounds = "micro-batches of one" if count == 1 else f"one batch of {count}"
            lines.append(
                Line(
                    name=f"ILQL's step on a GPU, bfloat16, {sizes.layers} layers of {sizes.width}: {what}",
                    unit="tokens/s",
                    ours=tuple(rates),
                    other=tuple(theirs[count]),
                    other_is=f"public implementation's step, bfloat16, {rounds}",
                    goal=goal,
                    note=note,
                    details={"product_flops": rate, "synchronisations": list(waits)},
                )
            )
        memory.append(
            Line(
                name=f"peak memory of that step: {what}",
                unit="GiB",
                ours=(used / 2**30,),
                other=(peaks[sizes.dialogues] / 2**30,),
                other_is=f"public implementation's step, one batch of {sizes.dialogues}",
                goal=0.5,
                at_least=False,
                more_is_better=False,
                note=f"in micro-batches of one the other side takes {peaks[1] / 2**30:.1f} GiB",
            )
        )
    return [*lines, *memory]


class OurSide:
    """Our steps on one batch, `STEPS` at a time; says how many tokens a second that was.

    Args:
        sizes: Of networks and batch.
        device: Where.
        every: Steps at a time.
    """

    def __init__(self, sizes: public_step.Sizes, device: torch.device, *, every: int = STEPS) -> None:
        self.sizes, self.every, self._sequences = sizes, every, public_step.dialogues(sizes)
        half = dataclasses.replace(public_step.settings("dialogue"), precision="bfloat16")
        loop = Loop(device=device, log_every=every)
        self._steps = public_step.our_steps(public_step.networks(sizes), self._sequences, half, loop)
        next(self._steps)  # the first logs
        self()  # up to where the next one does, so that all that follow are as long

    def __call__(self) -> float:
        """Tokens a second: the last step's numbers are read, so all are done."""
        return self.every * self.sizes.dialogues * self.sizes.tokens / seconds(lambda: next(self._steps))

    def note(self, rates: Sequence[float], rate: float) -> str:
        """How near it is to what the device multiplies."""
        needed = operations(self.sizes, sum(len(s.action_positions) for s in self._sequences))
        step = self.sizes.dialogues * self.sizes.tokens / statistics.median(rates)
        return (
            f"a step of {1e3 * step:.1f} ms does {needed / 1e12:.2f} TFLOP that cannot be left out, "
            f"{100 * needed / step / rate:.0f} % of the {rate / 1e12:.0f} TFLOP/s of a large bfloat16 product here"
        )


class PublicSide:
    """The public implementation's steps in micro-batches; says how many tokens a second that was."""

    def __init__(self, sizes: public_step.Sizes, micro_batch: int, device: torch.device) -> None:
        sequences = public_step.dialogues(sizes)
        self._tokens, self._device = sizes.dialogues * sizes.tokens, device
        self._step = public_step.PublicStep(public_step.networks(sizes), public_step.settings("dialogue")).to(device)
        self._batches = [batch.to(device) for batch in public_step.micro_batches(sequences, micro_batch)]
        self()

    def __call__(self) -> float:
        """Tokens a second; the losses it logs are read at every step."""

        def step() -> None:
            with torch.autocast(self._device.type, dtype=torch.bfloat16):
                self._step.step(self._batches)
            wait(self._device)

        return self._tokens / seconds(step)


def wait(device: torch.device) -> None:
    """Until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most the device held during some work, weights included; 1 on a CPU, where that is not counted."""
    if device.type != "cuda":
        work()
        return 1
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return int(torch.cuda.max_memory_allocated(device))


def product_rate(size: int, device: torch.device) -> float:
    """Operations a second of a product of bfloat16 matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(10):
            a @ b
        wait(device)

    products()
    return 10 * 2 * size**3 / min(seconds(products) for _ in range(3))


def synchronisations(side: OurSide, device: torch.device) -> tuple[int, int]:
    """How often the runtime is asked to wait between two logged steps, with `STEPS` and twice as many between them."""
    twice = OurSide(side.sizes, device, every=2 * STEPS)
    return waits_of(side), waits_of(twice)


def waits_of(side: Callable[[], object]) -> int:
    """Calls of the runtime that wait for the device."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        side()
    waiting = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")
    # A profile waits for the device itself at its end.
    return sum(event.count for event in seen.key_averages() if event.key in waiting)


BENCHMARK = Benchmark("gpu_step", "How many tokens a second does a step of ILQL take on a GPU?", run, long=True)
