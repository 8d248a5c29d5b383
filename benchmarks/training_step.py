"""Tokens a second of a whole optimiser step of ILQL at GPT-2 small's size, against the public implementation's.

Networks of 12 layers, width 768 and 12 heads, 8 dialogues of 128 tokens of which half are the agent's, one thread.
`public_step` says how the other side does it. Both sides start from equal weights, and their losses must be equal to
1e-5 before anything is measured: at two steps, in micro-batches and in one batch, where both sides' vocabulary is cut;
at one step where it is whole. To compare speed the other side is not cut: the public implementation cuts nothing.

On a processor that is not Intel's a good part of the ratio is that torch's own products use half of it (see
`ilql.products`); each line's note has both rates.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks import public_step
from benchmarks.measure import Benchmark, Line, seconds
from ilql.products import linear


def run(quick: bool) -> list[Line]:
    """The cut vocabulary against micro-batches of one; the whole one against those, and against one batch of all."""
    sizes = public_step.QUICK if quick else public_step.GPT2_SMALL
    cut = dataclasses.replace(sizes, vocabulary=sizes.used)
    rate = rates(512 if quick else 2048)
    check(cut, 1)
    check(cut, cut.dialogues)
    goals = {(cut, 1): 4.0, (sizes, 1): 2.0, (sizes, sizes.dialogues): 2.0}
    return against(sizes, goals, rate, rounds=1 if quick else 3)


@dataclass(frozen=True)
class Rates:
    """Floating-point operations a second of one thread in products of float32 matrices.

    Attributes:
        torch: As torch multiplies, and so the other side.
        ours: As `ilql.products` does.
    """

    torch: float
    ours: float

    @property
    def best(self) -> float:
        """What the machine can."""
        return max(self.torch, self.ours)


def rates(size: int) -> Rates:
    """Measure both on square matrices."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return Rates(
        *(2 * size**3 / min(seconds(work) for _ in range(4)) for work in (lambda: a @ b.T, lambda: linear(a, b)))
    )


def check(sizes: public_step.Sizes, micro_batch: int) -> None:
    """Compare two steps' losses on equal weights.

    Args:
        sizes: Of both sides.
        micro_batch: The other side's dialogues in a forward pass; one weighs dialogues alike, all weigh tokens alike.
    """
    weighting = "dialogue" if micro_batch == 1 else "token"
    module, sequences = public_step.networks(sizes), public_step.dialogues(sizes)
    other = public_step.PublicStep(module, public_step.settings(weighting))
    ours = public_step.our_steps(module, sequences, public_step.settings(weighting))
    for _ in range(2):
        public_step.check_equal(next(ours), other.step(public_step.micro_batches(sequences, micro_batch)))


def against(
    sizes: public_step.Sizes, goals: Mapping[tuple[public_step.Sizes, int], float], rate: Rates, *, rounds: int
) -> list[Line]:
    """Measure ours, always one batch, and the other side, all of them in turn; a line for each pair that has a goal.

    Args:
        sizes: The other side's.
        goals: What the ratio is to reach, by our sizes and the dialogues of the other side's micro-batches.
        rate: How fast the machine multiplies.
        rounds: How often all are measured.
    """
    settings, whole = public_step.settings("dialogue"), public_step.networks(sizes)
    other = public_step.PublicStep(whole, settings)
    tokens = {own: public_step.dialogues(own) for own, _ in goals}
    modules = {own: whole if own == sizes else public_step.networks(own) for own in tokens}
    ours = {own: public_step.our_steps(modules[own], tokens[own], settings) for own in tokens}
    sizes_of_other = dict.fromkeys(size for _, size in goals)

    def step_of_other(micro_batch: int) -> float:
        return other.step(public_step.micro_batches(tokens[sizes], micro_batch))

    steps: dict[public_step.Sizes | int, Callable[[], float]] = {
        **{own: partial(next, ours[own]) for own in ours},
        **{size: partial(step_of_other, size) for size in sizes_of_other},
    }
    first = {name: step() for name, step in steps.items()}  # this warms up, too
    public_step.check_equal(first[sizes], first[min(sizes_of_other)])
    count = sizes.dialogues * sizes.tokens
    measured: dict[public_step.Sizes | int, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in list(steps)[:: 1 if turn % 2 == 0 else -1]:
            measured[name].append(count / seconds(steps[name]))
    lines = []
    for (own, micro_batch), goal in goals.items():
        needed = operations(own, sum(len(s.action_positions) for s in tokens[own]))
        share = needed / rate.best / (count / statistics.median(measured[own]))
        what = "whole vocabulary" if own == sizes else f"our vocabulary cut to the {own.vocabulary:,} ids that occur"
        line = Line(
            name=f"ILQL's optimiser step, {sizes.layers} layers of {sizes.width}: {what}, "
            + ("ours one batch" if micro_batch == 1 else "both one batch"),
            unit="tokens/s",
            ours=tuple(measured[own]),
            other=tuple(measured[micro_batch]),
            other_is="public implementation's step, "
            + ("micro-batches of one" if micro_batch == 1 else f"one batch of {micro_batch}"),
            goal=goal,
            note=f"our step's matrix products alone are {needed / 1e9:,.0f} GFLOP, {needed / rate.best:.2f} s at the "
            f"{rate.best / 1e9:.0f} GFLOP/s this machine multiplies with: {100 * share:.0f} % of the time it took. "
            f"torch's own product, which the other side uses, reaches {rate.torch / 1e9:.0f} GFLOP/s here",
            details={"operations": needed, "rates": dataclasses.asdict(rate), "share_of_floor": share},
        )
        lines.append(line)
    return lines


def operations(sizes: public_step.Sizes, actions: int) -> float:
    """Floating-point operations of a step's matrix products that cannot be left out, on all dialogues.

    Forth once and back twice: the online trunk at every token, two Q heads and V at every action; forth once: the
    target's trunk, and its heads' first layers.
    """
    tokens, width = sizes.dialogues * sizes.tokens, sizes.width
    linear_layers = 2 * tokens * sizes.layers * 12 * width**2
    attention = 2 * tokens * sizes.layers * 2 * width * (sizes.tokens / 2)  # causal: half of all pairs
    inner, outer = 2 * actions * 2 * width**2, 2 * actions * 2 * width * sizes.vocabulary
    return 4 * (linear_layers + attention) + 3 * (2 * (inner + outer) + inner) + 2 * inner


BENCHMARK = Benchmark(
    name="training_step",
    question="How many tokens a second does a whole optimiser step of ILQL take, beside the public implementation's?",
    run=run,
)
