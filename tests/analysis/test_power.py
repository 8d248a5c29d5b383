from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from worlds import World, sample

from analysis.cells import cells_of
from analysis.power import (
    Components,
    Cost,
    cheapest_for,
    components_of,
    one_of_each,
    power_lines,
    smallest_detectable,
)
from analysis.runs import RunTable

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]
SEEDS_ONLY = Components(seed=1.0, scene=0.0, episode=0.0, cells=2, seeds=3, episodes=20)
MIXED = Components(seed=0.25, scene=1.0, episode=9.0, cells=2, seeds=3, episodes=20)


def test_the_smallest_difference_is_that_of_a_t() -> None:
    # V = 2·1/2 = 1 at 2 degrees: t.975 = 4.30265, t.8 = 1.06066.
    assert smallest_detectable(SEEDS_ONLY, 2, 100) == pytest.approx(4.30265 + 1.06066, rel=1e-5)


def test_more_episodes_of_the_same_scenes_do_what_more_seeds_cannot() -> None:
    # σ_g² = 1 at 100 episodes: V ≥ 2/100 however many seeds.
    scenes = Components(seed=0.0, scene=1.0, episode=0.0, cells=2, seeds=3, episodes=20)
    assert smallest_detectable(scenes, 2, 100) == smallest_detectable(scenes, 30, 100)
    assert smallest_detectable(scenes, 2, 400) == pytest.approx(smallest_detectable(scenes, 2, 100) / 2, rel=0.02)


def test_where_seeds_are_the_noise_the_cheapest_split_buys_seeds() -> None:
    split = cheapest_for(SEEDS_ONLY, Cost(training=10.0, episode=1.0), 2.0)
    assert split is not None
    assert split.episodes == 2
    assert smallest_detectable(SEEDS_ONLY, split.seeds, 2) <= 2.0 < smallest_detectable(SEEDS_ONLY, split.seeds - 1, 2)
    assert split.seconds == split.seeds * 12.0


def test_no_other_split_that_finds_the_difference_is_cheaper() -> None:
    cost = Cost(training=30.0, episode=0.1)
    split = cheapest_for(MIXED, cost, 1.5)
    assert split is not None
    tried = [
        cost.of_cell(seeds, episodes)
        for seeds in range(2, 31)
        for episodes in range(2, 400)
        if smallest_detectable(MIXED, seeds, episodes) <= 1.5
    ]
    assert split.seconds == pytest.approx(min(tried))


def test_out_of_reach_is_said() -> None:
    assert cheapest_for(SEEDS_ONLY, Cost(1.0, 1.0), 0.1) is None
    with pytest.raises(ValueError, match="a wanted difference must be positive, got 0"):
        cheapest_for(SEEDS_ONLY, Cost(1.0, 1.0), 0.0)
    with pytest.raises(ValueError, match="at least two seeds and two episodes, got 1 and 5"):
        smallest_detectable(SEEDS_ONLY, 1, 5)


def test_the_components_are_those_of_the_world(run: Make, make_table: MakeTable) -> None:
    # 40 cells, 5 seeds, 40 scenes: the s.e. of σ_a² is about .25·√(2/156) = 3 % and that of noise within it.
    world = World(
        trainings=40, seeds=5, episodes=40, seed_sd=0.5, seed_common_sd=3.0, scene_sd=5.0, cell_by_scene_sd=1.0,
        episode_sd=1.0,
    )  # fmt: skip
    returns = sample(world, np.random.default_rng(0)).returns
    runs = [
        run("ilql", returns[k, s].tolist(), {"train.tau": 0.5 + k / 100}, seed=s) for k in range(40) for s in range(5)
    ]
    found = components_of(cells_of(make_table(*runs)))
    assert found is not None
    assert (found.seed, found.scene, found.episode) == pytest.approx((0.25, 1.0, 1.0), rel=0.25)
    assert (found.cells, found.seeds, found.episodes) == (40, 5, 40)


def test_what_decodings_share_counts_once(run: Make, make_table: MakeTable) -> None:
    # The world above at four decodings of each training, with a little of the seed's that is each one's own: a cell's
    # σ_a² is .25 + .04. Contrasts of sums over decodings would say 4·.25 + .04, and be two times too large as sds.
    world = World(
        trainings=40, decodings=4, seeds=5, episodes=40, seed_sd=0.5, seed_by_decoding_sd=0.2, cell_by_scene_sd=1.0,
        episode_sd=1.0,
    )  # fmt: skip
    returns = sample(world, np.random.default_rng(1)).returns
    settings = [{"train.tau": 0.5 + t / 100, "decode.beta": float(d)} for t in range(40) for d in range(4)]
    runs = [run("ilql", returns[k, s].tolist(), settings[k], seed=s) for k in range(160) for s in range(5)]
    found = components_of(cells_of(make_table(*runs)))
    assert found is not None
    assert (found.seed, found.scene, found.episode) == pytest.approx((0.29, 1.0, 1.0), rel=0.2)
    assert found.cells == 160


def test_one_of_each_training_is_taken_as_often_as_the_most_decoded_has_some() -> None:
    assert one_of_each(np.array(["a", "b", "a", "a"])).tolist() == [[0, 1], [2, 1], [3, 1]]


def test_nothing_is_said_before_two_trainings_have_two_seeds(run: Make, make_table: MakeTable) -> None:
    one = [run("bc", [1.0] * 20, seed=s) for s in range(2)]
    single = [run("ilql", [2.0] * 20)]
    assert components_of(cells_of(make_table(*one, *single))) is None
    two = [run("ilql", [2.0] * 20, seed=s) for s in range(2)]
    assert components_of(cells_of(make_table(*one, *two))) is not None


def test_the_lines_name_the_options_that_buy_it() -> None:
    lines = power_lines(MIXED, Cost(training=30.0, episode=0.1), seeds=3, episodes=100)
    now = smallest_detectable(MIXED, 3, 100)
    assert lines[1].startswith(f"two cells of 3 seeds and 100 episodes must differ by {now:.3g} to be told apart")
    split = cheapest_for(MIXED, Cost(30.0, 0.1), now / 2)
    assert split is not None
    assert f"--seeds {split.seeds} --episodes {split.episodes}" in lines[3]
    assert power_lines(MIXED, None, seeds=1, episodes=100)[1].startswith("with one training seed no difference")


@pytest.mark.parametrize("wrong", [(-1.0, 0.0, 0.0), (0.0, math.nan, 0.0)])
def test_components_are_variances(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="variances must be finite and not negative"):
        Components(*wrong, cells=2, seeds=2, episodes=2)
