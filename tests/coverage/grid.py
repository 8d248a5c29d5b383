"""How often nominal 95 % intervals hold the truth, over simulated worlds: `make coverage`.

Each line of the file of results is one estimator in one world; those that are there are not done again. Prints the
region of each estimator and, with --all, every world. Where an estimator refuses, `given` says how often it did not.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from as_reported import crossing, sigma_counted, sigma_failing, tuned_failing, width
from numpy.typing import NDArray
from worlds import World, population_sd, sample_many, tune_scores

from analysis import honest
from analysis.estimators import mean_over_episodes
from analysis.honest import best_checkpoint, leave_one_seed_out, scene_folds, tuned_decodings, tuned_max
from analysis.paired import bootstrap_difference, paired_t, tuned_difference
from analysis.student import t_quantile
from analysis.variance import sigma

Covered: TypeAlias = NDArray[np.bool_] | NDArray[np.float64]
"""Whether each interval held the truth; NaN for one that was refused."""
Estimator: TypeAlias = Callable[[World, np.random.Generator, int], Covered]

SEEDS = (2, 3, 5, 10)
BASE = World(episodes=64)

DOSES = dataclasses.replace(
    BASE, trainings=4, decodings=6, episodes=128, config_sd=0.7, seed_by_decoding_sd=0.2, cell_by_scene_sd=0.5
)
"""Four trainings at six β, to which scores answer with a peak."""

SHAPES: Mapping[str, World] = {
    "12 cells": BASE,
    "12 cells, σ 0.2": dataclasses.replace(BASE, config_sd=0.2),
    "12 cells, σ 0": dataclasses.replace(BASE, config_sd=0.0),
    "48 cells, σ 0.2": dataclasses.replace(BASE, trainings=48, config_sd=0.2),
    "4 cells": dataclasses.replace(BASE, trainings=4),
    "2 cells, σ 0.5": dataclasses.replace(BASE, trainings=2, config_sd=0.5),
    "3 × 4 cells": dataclasses.replace(
        BASE, trainings=3, decodings=4, decoding_sd=0.5, config_by_decoding_sd=0.3, seed_by_decoding_sd=0.2
    ),
    "3 × 4 cells, σ 0.3": dataclasses.replace(
        BASE, trainings=3, decodings=4, config_sd=0.2, decoding_sd=0.2, seed_by_decoding_sd=0.1
    ),
    "2 × 6 cells, seeds 1": dataclasses.replace(
        BASE, trainings=2, decodings=6, config_sd=0.2, decoding_sd=0.2, seed_sd=1.0
    ),
    "1 × 12 cells": dataclasses.replace(
        BASE, trainings=1, decodings=12, config_sd=0.0, decoding_sd=0.3, seed_sd=1.0, cell_by_scene_sd=0.5
    ),
    "1 × 3 cells": dataclasses.replace(BASE, trainings=1, decodings=3, config_sd=0.0, decoding_sd=0.3, seed_sd=1.0),
    "1 × 12 cells, alike": dataclasses.replace(BASE, trainings=1, decodings=12, config_sd=0.0, seed_sd=1.0),
    "12 cells, alike, scenes by cell": dataclasses.replace(
        BASE, config_sd=0.0, seed_sd=0.1, cell_by_scene_sd=4.0, episode_sd=2.0
    ),
    "no seed noise": dataclasses.replace(BASE, seed_sd=0.0),
    "seeds 2": dataclasses.replace(BASE, seed_sd=2.0),
    "seeds 2, t₃": dataclasses.replace(BASE, seed_sd=2.0, tails="t3"),
    "seeds 2, skewed": dataclasses.replace(BASE, seed_sd=2.0, tails="skewed"),
    "seeds uneven": dataclasses.replace(BASE, seed_sd_varies=0.5),
    "seeds 2, uneven": dataclasses.replace(BASE, seed_sd=2.0, seed_sd_varies=0.5),
    "seeds in common": dataclasses.replace(BASE, seed_common_sd=1.0, config_sd=0.5),
    "scenes by cell": dataclasses.replace(BASE, cell_by_scene_sd=2.0, config_sd=0.2),
    "4 episodes a scene": dataclasses.replace(BASE, episodes=128, episodes_per_scene=4, cell_by_scene_sd=1.0),
    "12 × 4 cells, decodings apart": dataclasses.replace(
        BASE, decodings=4, config_sd=0.3, decoding_sd=0.3, config_by_decoding_sd=0.1, seed_by_decoding_sd=0.5
    ),
    "6 β, steep": dataclasses.replace(DOSES, curvature=1.0),
    "6 β": dataclasses.replace(DOSES, curvature=0.3),
    "6 β, flat": dataclasses.replace(DOSES, curvature=0.05),
    "6 β, a plateau": dataclasses.replace(DOSES, curvature=0.5, plateau=1.0),
    "6 β, all alike": DOSES,
    "6 β, any": dataclasses.replace(DOSES, decoding_sd=0.7, config_by_decoding_sd=0.3),
    "6 β, seeds 1": dataclasses.replace(DOSES, curvature=0.3, seed_sd=1.0, seed_by_decoding_sd=0.4),
    "6 β, t₃": dataclasses.replace(DOSES, curvature=0.3, seed_by_decoding_sd=0.4, tails="t3"),
    "6 β, skewed": dataclasses.replace(DOSES, curvature=0.3, seed_by_decoding_sd=0.4, tails="skewed"),
    "a tenth fails": dataclasses.replace(BASE, failures=0.1),
    "a fifth fails": dataclasses.replace(BASE, failures=0.2),
    "three tenths fail": dataclasses.replace(BASE, failures=0.3),
    "a quarter is hopeless": dataclasses.replace(BASE, hopeless=3),
    "4 cells, a fifth fails": dataclasses.replace(BASE, trainings=4, failures=0.2),
    "σ 0.2, a tenth fails": dataclasses.replace(BASE, config_sd=0.2, failures=0.1),
}


def tuned(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """The score when tuned, chosen on other scenes and training seeds: the mean true score of the cells chosen."""
    drawn = sample_many(world, rng, worlds)
    tune = tune_scores(world, drawn, rng)
    value, half = tuned_max(drawn.returns, world.scenes, tune, world.trainings)
    truth = np.take_along_axis(drawn.means, leave_one_seed_out(drawn.returns, tune).chosen, axis=1).mean(axis=-1)
    return np.abs(value - truth) <= half


def alone(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """The same of a method with one cell."""
    return tuned(dataclasses.replace(world, trainings=1, decodings=1), rng, worlds)


def paper_max(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """The paper's max ± 1.96 standard errors over episodes, against the true score of the cell it names."""
    drawn = sample_many(world, rng, worlds)
    covered = np.empty(worlds, dtype=bool)
    for index, (returns, means) in enumerate(zip(drawn.returns, drawn.means, strict=True)):
        best = int(returns.mean(axis=(1, 2)).argmax())
        score = mean_over_episodes(returns[best])
        covered[index] = abs(score.value - means[best]) <= 1.96 * (score.standard_error or 0.0)
    return covered


def checkpoint(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """The best trained model, chosen on other scenes: the mean true score of the models chosen."""
    drawn = sample_many(world, rng, worlds)
    returns = drawn.returns.reshape(worlds, -1, world.episodes)
    models = drawn.checkpoint_means.reshape(worlds, -1)
    (value, half), folds = best_checkpoint(returns, world.scenes), scene_folds(world.scenes)
    truth = np.zeros(worlds)
    for fold in np.unique(folds):
        best = returns[..., folds != fold].mean(axis=-1).argmax(axis=-1)
        truth += (folds == fold).mean() * np.take_along_axis(models, best[:, None], axis=1)[:, 0]
    return np.abs(value - truth) <= half


def sigma_all(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """σ over all cells."""
    drawn = sample_many(world, rng, worlds)
    _, low, high = sigma(drawn.returns, world.training_of, world.scenes, rng, draws=1000)
    return (low <= drawn.sigma + 1e-9) & (drawn.sigma <= high)


def sigma_train(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """σ over trainings, each model at its best decoding on other scenes; the truth is that of 200 other seeds."""
    few = min(worlds, 20)
    drawn = sample_many(world, rng, few)
    returns = tuned_decodings(drawn.returns, world.training_of, world.scenes)
    _, low, high = sigma(returns, np.arange(world.trainings), world.scenes, rng, draws=1000)
    truth = np.empty(few)
    for index, means in enumerate(drawn.means):
        fixed = dataclasses.replace(world, config_sd=0.0, decoding_sd=0.0, config_by_decoding_sd=0.0, seeds=200)
        again = sample_many(fixed, rng, 1).returns[0] + means[:, None, None]
        truth[index] = population_sd(tuned_decodings(again, world.training_of, world.scenes).mean(axis=(1, 2)))
    return (low <= truth + 1e-9) & (truth <= high)


def sigma_decode(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """σ over the decodings of the training that is best by the scores of `sigma_train`: of that one's true means."""
    drawn = sample_many(world, rng, worlds)
    trainings, decodings = world.trainings, world.decodings
    tuned = tuned_decodings(drawn.returns, world.training_of, world.scenes)
    best = np.arange(worlds), tuned.mean(axis=(-1, -2)).argmax(axis=-1)
    own = drawn.returns.reshape(worlds, trainings, decodings, world.seeds, world.episodes)[best]
    _, low, high = sigma(own, np.zeros(decodings), world.scenes, rng, draws=1000)
    truth = population_sd(drawn.means.reshape(worlds, trainings, decodings)[best])
    return (low <= truth + 1e-9) & (truth <= high + 1e-9)


def difference(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """The difference of two cells, by a t."""
    drawn, one = sample_many(_pair(world), rng, worlds), world.decodings > 1
    value, error, degrees = paired_t(drawn.returns[:, 0], drawn.returns[:, 1], world.scenes, one_training=one)
    return np.abs(value - (drawn.means[:, 0] - drawn.means[:, 1])) <= t_quantile(0.975, degrees) * error


def difference_tuned(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """The difference of a method, tuned by the tune scores of other seeds, and of one with a single cell.

    The tune scores are those of the same trained models on as many other scenes.
    """
    both = dataclasses.replace(world, trainings=world.trainings + 1)
    drawn = sample_many(both, rng, worlds)
    own = drawn.returns[:, : world.cells], tune_scores(both, drawn, rng)[:, : world.cells]
    first = honest.tuned(own[0], world.scenes, own[1], world.trainings)
    second = honest.tuned(drawn.returns[:, world.cells : world.cells + 1], world.scenes)
    value, error, degrees = tuned_difference(first, second, world.scenes)
    chosen = leave_one_seed_out(*own).chosen
    truth = np.take_along_axis(drawn.means, chosen, axis=1).mean(axis=-1) - drawn.means[:, world.cells]
    return np.abs(value - truth) <= t_quantile(0.975, degrees) * error


def bootstrap(world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """The same by the percentiles of the hierarchical bootstrap."""
    few = min(worlds, 50)
    drawn, one = sample_many(_pair(world), rng, few), world.decodings > 1
    covered = np.empty(few, dtype=bool)
    for index, (returns, means) in enumerate(zip(drawn.returns, drawn.means, strict=True)):
        low, high = bootstrap_difference(returns[0], returns[1], world.scenes, rng, one_training=one, replicates=1000)
        covered[index] = low <= means[0] - means[1] <= high
    return covered


def _pair(world: World) -> World:
    """Two cells: two decodings of one training where there are several, else two trainings."""
    return dataclasses.replace(world, trainings=1 if world.decodings > 1 else 2, decodings=min(2, world.decodings))


ESTIMATORS: Mapping[str, Estimator] = {
    "max, paper": paper_max,
    "tuned": tuned,
    "tuned, one cell": alone,
    "checkpoint": checkpoint,
    "σ": sigma_all,
    "σ, β tuned": sigma_train,
    "σ of decoding": sigma_decode,
    "difference, t": difference,
    "difference, tuned": difference_tuned,
    "difference, bootstrap": bootstrap,
    "width of β": width,
    "evaluations until BC is beaten, P ½": crossing(0.5),
    "evaluations until BC is beaten, P .9": crossing(0.9),
}

FAILING: Mapping[str, Estimator] = {
    "σ, failed runs left out": sigma_failing("exclude"),
    "σ, failed runs as the worst (refused)": sigma_counted("worst"),
    "σ, failed runs at the floor (refused)": sigma_counted("floor"),
    "tuned, failed runs left out": tuned_failing("exclude"),
    "tuned, failed runs as the worst": tuned_failing("worst"),
    "tuned, failed runs at the floor": tuned_failing("floor"),
}
"""Of worlds with failures, as a report deals with them."""

EVERY: Mapping[str, Estimator] = {**ESTIMATORS, **FAILING}

CROSSED = (
    "12 cells", "12 cells, σ 0.2", "4 cells", "3 × 4 cells", "2 × 6 cells, seeds 1", "seeds 2", "seeds 2, t₃",
    "seeds 2, skewed", "6 β", "6 β, seeds 1",
)  # fmt: skip
"""The worlds that crossings are tried in, which take long."""


def applies(estimator: str, shape: str) -> bool:
    """Whether a world says something about an estimator. Failures are about complete cells, so they have their own."""
    world = SHAPES[shape]
    fails = world.failures > 0 or world.hopeless > 0
    if estimator in FAILING:
        return fails
    if fails:
        return estimator in {"tuned", "σ"} and shape == "a tenth fails"
    if estimator.startswith("evaluations"):
        return shape in CROSSED
    if shape.startswith("6 β"):
        return estimator in {"width of β", "σ of decoding"}
    if "decodings apart" in shape:
        return estimator == "σ of decoding"
    if world.trainings == 1:
        return estimator in {"tuned", "difference, tuned", "checkpoint", "σ of decoding"}
    if estimator == "width of β":
        return world.decodings > 2
    if estimator in {"σ, β tuned", "σ of decoding"}:
        return world.decodings > 1
    return not (estimator == "tuned, one cell" and (world.decodings > 1 or ("cells" in shape and shape != "12 cells")))


def measure(estimator: str, shape: str, seeds: int, worlds: int) -> dict[str, object]:
    """The share of intervals that hold the truth, seeded by what is asked."""
    world = dataclasses.replace(SHAPES[shape], seeds=seeds)
    rng = np.random.default_rng(zlib.crc32(f"{estimator}|{shape}|{seeds}".encode()))
    of, size = EVERY[estimator], 100
    own = of if estimator in FAILING else functools.partial(_complete, of)
    covered = np.concatenate([own(world, rng, size) for _ in range(max(1, worlds // size))]).astype(np.float64)
    given = covered[~np.isnan(covered)]
    return {
        "estimator": estimator, "world": shape, "seeds": seeds, "worlds": covered.size,
        "share": float(given.mean()) if given.size else None, "given": given.size / max(1, covered.size),
    }  # fmt: skip


def _complete(of: Estimator, world: World, rng: np.random.Generator, worlds: int) -> Covered:
    """Coverage where failed cells are left out: each world has as many cells as have finished at every seed."""
    if not world.failures:
        return of(world, rng, worlds)
    kept = rng.binomial(world.trainings, (1 - world.failures) ** world.seeds, size=worlds)
    found = [
        of(dataclasses.replace(world, trainings=int(cells), failures=0.0), rng, int((kept == cells).sum()))
        for cells in np.unique(kept[kept > 1])
    ]
    return np.concatenate(found)


def region(results: list[dict[str, object]]) -> str:
    """Lowest and highest coverage over the worlds, in per cent: a line per estimator, a column per number of seeds.

    In brackets, the lowest share of worlds in which there was an interval, where that was not in all.
    """
    lines = [
        "| estimator | " + " | ".join(f"{seeds} seeds" for seeds in SEEDS) + " |",
        "| --- |" + " ---: |" * len(SEEDS),
    ]
    for estimator in EVERY:
        cells = []
        for seeds in SEEDS:
            own = [r for r in results if (r["estimator"], r["seeds"]) == (estimator, seeds)]
            shares = [100 * float(str(r["share"])) for r in own if r["share"] is not None]
            least = min((float(str(r.get("given", 1.0))) for r in own), default=1.0)
            text = f"{min(shares):.0f}–{max(shares):.0f}" if shares else "refused" if own else "–"
            cells.append(text + (f" ({100 * least:.0f})" if shares and least < 1 else ""))
        lines.append(f"| {estimator} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_world(results: list[dict[str, object]], seeds: int) -> str:
    """Coverage in per cent at one number of seeds, a line per world and a column per estimator."""
    share = {(r["estimator"], r["world"]): r["share"] for r in results if r["seeds"] == seeds}
    lines = [f"| {seeds} seeds | " + " | ".join(EVERY) + " |", "| --- |" + " ---: |" * len(EVERY)]
    for shape in SHAPES:
        of = [share.get((estimator, shape)) for estimator in EVERY]
        cells = ["–" if each is None else f"{100 * float(str(each)):.1f}" for each in of]
        lines.append(f"| {shape} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file of results, one JSON object a line")
    parser.add_argument("--worlds", type=int, default=2000, help="simulated sweeps of each kind")
    parser.add_argument("--all", action="store_true", help="print every world, too")
    parser.add_argument("--only", nargs="+", choices=EVERY, default=list(EVERY), help="these estimators")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(r["estimator"], r["world"], r["seeds"]) for r in results}
    wanted = [(e, w, s) for s in SEEDS for e in given.only for w in SHAPES if applies(e, w)]
    for asked in wanted:
        if asked not in done:
            results.append(measure(*asked, given.worlds))
            with given.out.open("a") as file:
                file.write(json.dumps(results[-1], ensure_ascii=False) + "\n")
    print(region(results))
    if given.all:
        print("\n" + "\n\n".join(by_world(results, seeds) for seeds in SEEDS))


if __name__ == "__main__":
    main()
