from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from analysis.cells import Cell, cells_of
from analysis.runs import RunTable
from analysis.sensitivity import effective_dimension, phi_of, sensitivity

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def world(run: Make, make_table: MakeTable) -> Callable[..., Sequence[Cell]]:
    def make(means: dict[tuple[float, float], float], failed: Sequence[tuple[float, float]] = ()) -> Sequence[Cell]:
        runs = [
            run("ilql", [m + 0.01 * s - 1, m + 0.01 * s + 1], {"train.tau": t, "train.gamma": g}, seed=s)
            for (t, g), m in means.items()
            for s in range(3)
        ]
        runs += [
            run("ilql", setting={"train.tau": t, "train.gamma": g}, seed=s, status="failed")
            for t, g in failed
            for s in range(3)
        ]
        return cells_of(make_table(*runs, run("bc", [0.0, 0.0]), run("bc", [10.0, 10.0], {"train.keep": 0.5})))

    return make


def test_phi_is_what_tuning_for_each_environment_gains() -> None:
    # Best apart: 1 and 1. Best in common: the middle setting, .7 on average.
    assert phi_of(np.array([[1.0, 0.7, 0.0], [0.0, 0.7, 1.0]])) == pytest.approx(0.3)


def test_the_dimension_counts_what_must_be_tuned() -> None:
    levels = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    same = np.array([[1.0, 0.0, 0.0, 0.0]] * 2)
    assert effective_dimension(same, levels) == 0
    first = np.array([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.98, 0.4]])  # both want level 0 of the second, not of the first
    assert effective_dimension(first, levels) == 1
    both = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert effective_dimension(both, levels) == 2


def test_one_environment_says_nothing(world: Callable[..., Sequence[Cell]]) -> None:
    with pytest.raises(ValueError, match="needs two, got 1"):
        sensitivity([world({(0.5, 1.0): 1.0, (0.9, 1.0): 2.0})], "ilql", rng())


def test_a_failed_setting_is_left_out_or_counted_by_policy(world: Callable[..., Sequence[Cell]]) -> None:
    means = {(0.5, 0.9): 2.0, (0.5, 1.0): 4.0, (0.9, 0.9): 6.0}
    here, there = world({**means, (0.9, 1.0): 9.0}), world(means, failed=[(0.9, 1.0)])
    left_out = sensitivity([here, there], "ilql", rng())
    assert (left_out.settings, left_out.excluded, left_out.failed) == (3, 1, 3)
    worst = sensitivity([here, there], "ilql", rng(), policy="worst")
    assert (worst.settings, worst.excluded) == (4, 0)
    assert worst.phi.value > left_out.phi.value + 0.05  # the best setting of one world is the worst of the other


def test_the_scale_runs_from_the_fifth_to_the_ninety_fifth_percentile(world: Callable[..., Sequence[Cell]]) -> None:
    means = {(0.5, 0.9): 0.0, (0.5, 1.0): 5.0, (0.9, 0.9): 10.0}
    found = sensitivity([world(means), world(means)], "ilql", rng())
    # Scores 0, 0, 5.01, 10.01, 10: p5 = 0, p95 ≈ 10.01; the best is near 1 in both worlds and the same: Φ ≈ 0.
    assert found.tuned.value == pytest.approx(1.0, abs=0.05)
    assert found.phi.value == pytest.approx(0.0, abs=0.01)
    assert found.dimension == 0


def test_a_floor_needs_its_scores(world: Callable[..., Sequence[Cell]]) -> None:
    cells = world({(0.5, 0.9): 2.0, (0.9, 0.9): 6.0})
    with pytest.raises(ValueError, match="needs a floor for each of 2 environments"):
        sensitivity([cells, cells], "ilql", rng(), policy="floor")


def drawn(*, seeds: int, apart: float) -> list[Cell]:
    """Three trainings with three values of β, means `apart`, seeds that differ by .3 and 400 episodes by 1."""
    noise, cells = np.random.default_rng(0), []
    scenes = np.array([f"s{index:03d}" for index in range(400)])
    for place, (tau, beta) in enumerate(itertools.product((0.7, 0.8, 0.9), (1.0, 2.0, 4.0))):
        returns = apart * place + noise.normal(0, 0.3, (seeds, 1)) + noise.normal(0, 1, (seeds, 400))
        setting = {"train.tau": tau, "decode.beta": beta}
        row = (tuple(range(seeds)), returns, np.ones((seeds, 400)), np.arange(400), scenes, 0.0, {}, 0, 0)
        cells.append(Cell("ilql", f"{tau}-{beta}", "design", setting, *row))
    return cells


def test_one_seed_says_neither_phi_nor_how_many_to_tune() -> None:
    found = sensitivity([drawn(seeds=1, apart=1.0)] * 2, "ilql", rng())
    assert found.phi.why == "too few seeds"
    assert found.dimension_text == "– (too few seeds)"
    assert found.dimension_sentence.startswith("How many hyperparameters must be tuned for 95 % of it is not said")


def test_noise_is_named_where_it_and_no_lack_of_seeds_forbids_an_interval() -> None:
    found = sensitivity([drawn(seeds=10, apart=0.0)] * 2, "ilql", rng())
    assert found.phi.why == found.tuned.why == "too much noise"
    assert found.dimension_text == "– (too much noise)"


def test_with_seeds_enough_the_dimension_has_its_probabilities() -> None:
    found = sensitivity([drawn(seeds=5, apart=1.0)] * 2, "ilql", rng())
    assert found.dimension_text == "0 (0: 100 %)"  # the same setting is far the best in both
    assert found.dimension_sentence == "0 hyperparameters must be tuned for 95 % of it."
