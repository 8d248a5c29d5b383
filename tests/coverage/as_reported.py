"""Simulated sweeps as cells of a report, and how often what a report makes of these holds the truth.

Estimators are asked through the functions that a report calls, which choose, pool and refuse by themselves. Each gives
1 where its interval held the truth, 0 where it did not, and NaN where it said why there is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from worlds import Floats, Sample, World, population_sd, sample, tune_scores

from analysis.budget import Trained, by_rank, crossings, rank_weights
from analysis.budget_section import bar_of
from analysis.cells import Cell
from analysis.dose import BETA, dose_responses, near_best
from analysis.honest import leave_one_seed_out
from analysis.honest_table import Ranged, _Block, _complete, _sigma, _tuned
from analysis.styles import Policy

Held: TypeAlias = NDArray[np.float64]

SLOW = 5
"""One world in so many of those that are asked for is drawn, for estimators that take long."""

FLOOR = -4.0
"""The lowest return, where failed runs count as that: four standard deviations of cells below their mean."""

TUNE_SD = 0.2
"""Of what the tune scenes add to the score of a trained model."""


def cells_of(world: World, drawn: Sample, cells: Sequence[int], method: str, tune: Floats | None = None) -> list[Cell]:
    """Some of a sample's cells, by their numbers; decoding b is β = 2^b. Failed runs are none of a cell's seeds."""
    made = []
    for cell in cells:
        training, decoding = divmod(cell, world.decodings)
        seeds = np.flatnonzero(drawn.finished[cell])
        returns = drawn.returns[cell][seeds] if seeds.size else np.empty((0, 0))
        made.append(
            Cell(
                method=method,
                cell_id=str(cell),
                origin="design",
                hyperparameters={"train.tau": float(training), BETA: 2.0**decoding},
                seeds=tuple(seeds.tolist()),
                returns=returns,
                turns=np.ones_like(returns),
                episode_seeds=np.arange(returns.shape[1]),
                scenes=world.scenes[: returns.shape[1]].astype(np.str_),
                tune_scores=None if tune is None else tuple(tune[cell][seeds].tolist()),
                measures={},
                failed=world.seeds - seeds.size,
                stopped=0,
            )
        )
    return made


# β as a dose


def width(world: World, rng: np.random.Generator, worlds: int) -> Held:
    """The width of the near-best range of every training, at the tolerance that the report takes."""
    held = []
    doses = np.arange(float(world.decodings))
    for drawn in _samples(world, rng, worlds // SLOW):
        means = drawn.means.reshape(world.trainings, world.decodings)
        found = dose_responses(cells_of(world, drawn, range(world.cells), "ilql"), rng, draws=500)
        for each, own in zip(found, means, strict=True):
            low, high = near_best(doses, own, each.tolerance)
            held.append(np.nan if each.width.why else _held(each.width.low, each.width.high, float(high - low)))
    return np.array(held)


# How many evaluations until a method beats cloning


def crossing(probability: float) -> Callable[[World, np.random.Generator, int], Held]:
    """The budget at which what is kept is better than cloning with that probability.

    Cloning is one more training, of one decoding. Better is who has the higher true score, a trained model's own
    against cloning's over all seeds; the truth is of 400 other training seeds.
    """

    def of(world: World, rng: np.random.Generator, worlds: int) -> Held:
        both = dataclasses.replace(world, trainings=world.trainings + 1)
        few = dataclasses.replace(both, seeds=400, episodes=1, episodes_per_scene=1)
        fresh = dataclasses.replace(few, scene_sd=0, cell_by_scene_sd=0, training_by_scene_sd=0, episode_sd=0)
        own, weights, ones = range(world.cells), rank_weights(world.cells), np.ones(world.cells)
        held = []
        for drawn in _samples(both, rng, worlds // SLOW):
            tune = drawn.checkpoint_means + TUNE_SD * rng.standard_normal(drawn.checkpoint_means.shape)
            bar = bar_of(cells_of(both, drawn, [world.cells], "bc", tune))
            assert bar is not None
            returns = np.swapaxes(drawn.returns[: world.cells], 0, 1)
            trained = Trained("ilql", tune[: world.cells].T, returns, world.scenes, world.training_of, ones, ones)
            (found,) = crossings(trained, bar, (probability,))
            other = sample(fresh, rng)
            scores = (drawn.means[:, None] + other.checkpoint_means - other.means[:, None])[: world.cells]
            chosen = scores + TUNE_SD * rng.standard_normal(scores.shape)
            better = (scores > drawn.means[world.cells]).astype(np.float64)
            reached = (
                np.mean([weights @ by_rank(chosen[:, s], better[:, s]) for s in range(400)], axis=0) >= probability
            )
            never = len(own) + 1.0
            truth = float(np.flatnonzero(reached)[0]) + 1 if reached.any() else never
            held.append(np.nan if found.why else _held(found.low or never, found.high or never, truth))
        return np.array(held)

    return of


# Where runs fail


def sigma_failing(policy: Policy) -> Callable[[World, np.random.Generator, int], Held]:
    """σ over the cells that the policy keeps, where a failed run counts as it says."""
    return _failing(policy, lambda block, rng: _sigma(block, rng, "cells"), lambda block, means: population_sd(means))


def sigma_counted(policy: Policy) -> Callable[[World, np.random.Generator, int], Held]:
    """The interval that the report withholds where failed runs count."""

    def made(block: _Block, rng: np.random.Generator) -> Ranged:
        return _sigma(dataclasses.replace(block, counted=np.zeros_like(block.counted)), rng, "cells")

    return _failing(policy, made, lambda block, means: population_sd(means))


def tuned_failing(policy: Policy) -> Callable[[World, np.random.Generator, int], Held]:
    """The score when tuned: the mean true score of the cells that the other seeds choose."""

    def truth(block: _Block, means: Floats) -> Floats:
        return np.asarray(means[leave_one_seed_out(block.returns, block.chosen_by).chosen].mean())

    return _failing(policy, lambda block, rng: _tuned(block), truth)


def _failing(
    policy: Policy,
    estimate: Callable[[_Block, np.random.Generator], Ranged],
    truth: Callable[[_Block, Floats], Floats],
) -> Callable[[World, np.random.Generator, int], Held]:
    """Of worlds in which some runs have failed and some have not.

    A cell's true score is its mean where failed runs are left out; where they count, (1 − p) of that and p of what they
    count as, p its probability to fail.
    """

    def of(world: World, rng: np.random.Generator, worlds: int) -> Held:
        held = []
        for drawn in _samples(world, rng, worlds):
            if drawn.finished.all() or not drawn.finished.any():
                continue
            cells = cells_of(world, drawn, range(world.cells), "ilql", tune_scores(world, drawn, rng))
            block = _complete(cells, policy, FLOOR if policy == "floor" else None)
            kept = _kept(cells, world.seeds, policy)
            assert len(kept) == len(block.returns)
            if len(kept) < 2:
                continue
            lost = FLOOR if policy == "floor" else float(np.nanmin(drawn.scores))
            fails = np.zeros(world.cells) if policy == "exclude" else world.fails
            means = ((1 - fails) * drawn.means + fails * lost)[kept]
            found = estimate(block, rng)
            held.append(np.nan if found.low is None else _held(found.low, found.high, float(truth(block, means))))
        return np.array(held)

    return of


def _kept(cells: Sequence[Cell], seeds: int, policy: Policy) -> list[int]:
    """The numbers of the cells that count: all, or those with every seed that half of the finished ones have."""
    finished = [cell for cell in cells if cell.seeds]
    wanted = {seed for seed in range(seeds) if 2 * sum(seed in cell.seeds for cell in finished) >= len(finished)}
    return [int(cell.cell_id) for cell in cells if wanted and (policy != "exclude" or wanted <= set(cell.seeds))]


def _samples(world: World, rng: np.random.Generator, worlds: int) -> Iterator[Sample]:
    for _ in range(worlds):
        yield sample(world, rng)


def _held(low: float | None, high: float | None, truth: float) -> float:
    """Whether an interval, which there is, holds the truth."""
    assert low is not None
    assert high is not None
    return float(low - 1e-9 <= truth <= high + 1e-9)
