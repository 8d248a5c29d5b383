from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from worlds import TAILS, Sample, Tails, World, sample, sample_many, standardised

QUIET = World(
    trainings=2, decodings=3, seeds=4, episodes=6, config_sd=0.0, seed_sd=0.0, scene_sd=0.0, episode_sd=0.0, mean=5.0
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_without_effects_every_return_is_the_mean() -> None:
    drawn = sample(QUIET, rng())
    assert drawn.returns.shape == (6, 4, 6)
    assert (drawn.returns == 5.0).all()
    assert (drawn.means.shape, drawn.checkpoint_means.shape, drawn.finished.shape) == ((6,), (6, 4), (6, 4))


@pytest.mark.parametrize(
    ("effect", "alike"),  # over which of cell (t, b), seed, episode a single effect is the same
    [
        ("config_sd", "b s e"),
        ("decoding_sd", "t s e"),
        ("config_by_decoding_sd", "s e"),
        ("seed_sd", "b e"),
        ("seed_common_sd", "t b e"),
        ("seed_by_decoding_sd", "e"),
        ("scene_sd", "t b s"),
        ("cell_by_scene_sd", "s"),
        ("training_by_scene_sd", "b"),
        ("episode_sd", ""),
    ],
)
def test_each_effect_lies_on_its_axes_alone(effect: str, alike: str) -> None:
    returns = sample(dataclasses.replace(QUIET, **{effect: 1.0}), rng()).returns.reshape(2, 3, 4, 6)
    for axis, name in enumerate("tbse"):
        assert (np.ptp(returns, axis=axis) == 0).all() == (name in alike.split()), name


@pytest.mark.parametrize("tails", TAILS)
def test_noise_has_mean_0_and_variance_1_whatever_its_tails(tails: Tails) -> None:
    draws = standardised(tails, rng(), (400_000,))
    assert draws.mean() == pytest.approx(0.0, abs=0.01)  # s.e. 1/√400,000 = 0.0016
    assert draws.var() == pytest.approx(1.0, rel=0.15 if tails == "t3" else 0.02)  # t₃ has no fourth moment


def test_skewed_noise_has_its_tail_to_the_left() -> None:
    assert (standardised("skewed", rng(), (200_000,)) ** 3).mean() == pytest.approx(-2.0, rel=0.1)  # an exponential's 2


def test_the_variance_of_a_cell_mean_is_what_its_effects_add_up_to() -> None:
    # Around a cell's truth: seeds 1/4 + common 4/4 + scenes 9/3 + cell by scene 1/3 + episodes 16/(4·6) = 5.25.
    world = World(
        trainings=2, seeds=4, episodes=6, episodes_per_scene=2, config_sd=7.0, seed_sd=1.0, seed_common_sd=2.0,
        scene_sd=3.0, cell_by_scene_sd=1.0, episode_sd=4.0,
    )  # fmt: skip
    drawn = sample_many(world, rng(), 40_000)
    errors = drawn.returns.mean(axis=(2, 3)) - drawn.means
    assert errors.var() == pytest.approx(5.25, rel=0.03)
    # Between two cells, what is common cancels: 2·(1/4 + 1/3 + 16/24) = 2.5.
    assert (errors[:, 0] - errors[:, 1]).var() == pytest.approx(2.5, rel=0.03)


def test_the_truth_of_a_checkpoint_is_its_cell_and_its_seed() -> None:
    drawn = sample(dataclasses.replace(QUIET, config_sd=1.0, seed_sd=1.0), rng())  # nothing else: scores are the truth
    assert drawn.scores == pytest.approx(drawn.checkpoint_means)
    assert drawn.checkpoint_means.mean(axis=1) != pytest.approx(drawn.means)


def test_seed_noise_may_differ_between_trainings_at_the_same_mean_square() -> None:
    world = World(trainings=2, seeds=200, episodes=1, seed_sd_varies=0.5, config_sd=0.0, scene_sd=0.0, episode_sd=0.0)
    spread = sample_many(world, rng(), 2000).scores.std(axis=-1)  # shape (W, 2), about f · 0.5 each
    assert np.square(spread).mean() == pytest.approx(0.25, rel=0.1)  # E f² = 1; f² has variance e − 1: s.e. 2 %
    assert np.log(spread).std() == pytest.approx(0.5, rel=0.05)


def test_the_true_sigmas_are_those_of_the_true_means() -> None:
    means = np.array([2.0, 3.0, 1.0, 6.0])  # two trainings with two decodings each
    drawn = Sample(np.empty((4, 1, 1)), means, means[:, None], np.ones((4, 1), bool))
    assert drawn.best == 6.0
    assert drawn.sigma == pytest.approx(math.sqrt(3.5))  # mean 3: 1, 0, 4, 9, together 14, over 4
    assert drawn.sigma_train(2) == pytest.approx(1.5)  # the best of each training, 3 and 6
    assert drawn.sigma_decode(2) == pytest.approx(2.5)  # 1 and 6, of the training that has the 6


def test_a_failed_training_fails_at_all_its_decodings() -> None:
    drawn = sample_many(dataclasses.replace(QUIET, failures=0.25), rng(), 2000)
    finished = drawn.finished.reshape(2000, 2, 3, 4)
    assert (finished == finished[:, :, :1]).all()
    assert finished.mean() == pytest.approx(0.75, abs=0.015)  # 16,000 trainings: s.e. 0.0034
    assert np.array_equal(np.isnan(drawn.returns).all(axis=-1), ~drawn.finished)


def test_episodes_of_one_scene_share_its_effect() -> None:
    returns = sample(dataclasses.replace(QUIET, scene_sd=1.0, episodes_per_scene=3), rng()).returns[0, 0]
    assert returns[:3].tolist() == [returns[0]] * 3
    assert returns[3:].tolist() == [returns[3]] * 3
    assert returns[0] != returns[3]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": 0}, "at least 1"),
        ({"episodes": 5, "episodes_per_scene": 2}, "scenes whole"),
        ({"seed_sd": -1.0}, "not negative"),
        ({"tails": "cauchy"}, "unknown tails 'cauchy'"),
        ({"failures": 1.0}, "probability below 1"),
    ],
)
def test_a_world_refuses_to_be_wrong(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        World(**wrong)  # type: ignore[arg-type]
