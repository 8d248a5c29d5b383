"""How often nominal 95 % intervals of statements 4 to 7 hold the truth, over simulated worlds: part of `make coverage`.

Each function draws worlds, makes the interval as a report does, and says of each kind of interval in what share of the
worlds in which it was given it held the truth, and in what share of worlds it was given. As a program, each line of the
file of results is one statement in one world; those that are there are not done again. Prints the tables of
docs/statistics.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from worlds import Floats, Sample, Tails, World, sample, standardised

from analysis import across as aggregates
from analysis.bounded import Bounded, hull_interval
from analysis.budget import Trained, rank_weights, tuning_curve
from analysis.honest import fold_share, leave_one_seed_out
from analysis.importance import _variances, anova
from analysis.landscape import Landscape, landscape
from analysis.selection import spearman
from analysis.sensitivity import phi_of

BASE = World(
    trainings=4,
    decodings=4,
    seeds=3,
    episodes=128,
    config_sd=0.7,
    decoding_sd=0.7,
    config_by_decoding_sd=0.3,
    cell_by_scene_sd=0.5,
)
"""A grid of four by four, whose seeds differ by .5 and whose interaction is smaller than that."""

GRIDS: Mapping[str, World] = {
    "base": BASE,
    "2 seeds": dataclasses.replace(BASE, seeds=2),
    "5 seeds": dataclasses.replace(BASE, seeds=5),
    "t₃": dataclasses.replace(BASE, tails="t3"),
    "skewed": dataclasses.replace(BASE, tails="skewed"),
    "seeds 1": dataclasses.replace(BASE, seed_sd=1.0),
    "seeds .1": dataclasses.replace(BASE, seed_sd=0.1),
    "12 × 4": dataclasses.replace(BASE, trainings=12),
    "flat": dataclasses.replace(BASE, config_sd=0.3, decoding_sd=0.3, config_by_decoding_sd=0.1),
}

TERMS = {("t",): "t", ("b",): "b", ("t", "b"): "t × b"}
"""What the terms of the analysis of variance are called: of trainings, of decodings, of both."""


@dataclass(frozen=True)
class Rate:
    """How often intervals of one kind held the truth.

    Attributes:
        held: In what share of the worlds in which one was given; None where it never was.
        given: In what share of all worlds.
    """

    held: float | None
    given: float


Rates: TypeAlias = Mapping[str, Rate]
Answers: TypeAlias = Mapping[str, bool | None]
"""Of one world, by kind of interval: whether it held the truth; None where none was given."""


def rates(answers: Iterable[Answers]) -> dict[str, Rate]:
    """Of each kind of interval, over worlds; a kind that a world does not name was not given there."""
    every = list(answers)
    found = {}
    for kind in dict.fromkeys(kind for each in every for kind in each):
        given = [each[kind] for each in every if each.get(kind) is not None]
        found[kind] = Rate(float(np.mean(given)) if given else None, len(given) / len(every))
    return found


def holds(found: Bounded, truth: float) -> bool | None:
    """Whether the interval holds the truth; None where there is no interval."""
    if found.low is None or found.high is None:
        return None
    return found.low - 1e-9 <= truth <= found.high + 1e-9


def scape_of(world: World, drawn: Sample) -> Landscape:
    seeds = [range(world.seeds)] * world.cells
    return landscape(list(drawn.returns), seeds, world.training_of.tolist(), world.scenes)


def shares(world: World, worlds: int) -> dict[str, Rate]:
    """Of the share of variance of each term of the analysis of variance."""
    rng = np.random.default_rng(0)
    levels = {"t": tuple(range(world.trainings)), "b": tuple(range(world.decodings))}

    def one() -> Answers:
        drawn = sample(world, rng)
        true = {u: float(v) for u, v in _variances(drawn.means, (world.trainings, world.decodings)).items()}
        named = {tuple("tb"[i] for i in u): v / sum(true.values()) for u, v in true.items()}
        terms = anova(scape_of(world, drawn), levels, "x", rng, draws=400).terms
        # Without an interval, noise alone would have made as much.
        return {TERMS[term.columns]: holds(term.share, named[term.columns]) for term in terms}

    return rates(one() for _ in range(worlds))


def spreads(world: World, worlds: int) -> dict[str, Rate]:
    """Of √V_u of each term, and of σ."""
    rng = np.random.default_rng(0)
    levels = {"t": tuple(range(world.trainings)), "b": tuple(range(world.decodings))}

    def one() -> Answers:
        drawn = sample(world, rng)
        true = _variances(drawn.means, (world.trainings, world.decodings))
        named = {tuple("tb"[i] for i in u): float(np.sqrt(v)) for u, v in true.items()}
        found = anova(scape_of(world, drawn), levels, "x", rng, draws=400)
        of_terms = {TERMS[term.columns]: holds(term.sd, named[term.columns]) for term in found.terms}
        return of_terms | {"σ": holds(found.sigma, float(drawn.means.std()))}

    return rates(one() for _ in range(worlds))


def phi(world: World, worlds: int, environments: int = 3) -> dict[str, Rate]:
    """Of Φ, on the scale of the worlds."""
    rng = np.random.default_rng(1)

    def one() -> Answers:
        samples = [sample(world, rng) for _ in range(environments)]
        scapes = [scape_of(world, each) for each in samples]
        if any(each.unclear for each in scapes):
            return {"Φ": None}
        value = float(phi_of(np.stack([each.means for each in scapes])))
        likely = np.maximum(0.0, phi_of(np.stack([each.likely_means(rng, 400) for each in scapes], axis=1)))
        low, high = hull_interval(value, likely)
        return {"Φ": low <= float(phi_of(np.stack([each.means for each in samples]))) <= high}

    return rates(one() for _ in range(worlds))


def bands(world: World, worlds: int) -> dict[str, Rate]:
    """Of whole tuning curves by their bands; the truth is the mean over 400 fresh training seeds."""
    rng = np.random.default_rng(3)
    quiet = {"scene_sd": 0.0, "cell_by_scene_sd": 0.0, "training_by_scene_sd": 0.0, "episode_sd": 0.0}
    fresh = dataclasses.replace(world, seeds=400, episodes=1, episodes_per_scene=1, **quiet)

    def one() -> Answers:
        drawn = sample(world, rng)
        tune = drawn.checkpoint_means + 0.2 * rng.standard_normal(drawn.checkpoint_means.shape)
        ones = np.ones(world.cells)
        returns = np.swapaxes(drawn.returns, 0, 1)
        trained = Trained("x", tune.T, returns, world.scenes, world.training_of, ones, ones)
        curve = tuning_curve(trained, rng, draws=1000)
        other = sample(fresh, rng)
        scores = drawn.means[:, None] + other.checkpoint_means - other.means[:, None]
        chosen = scores + 0.2 * rng.standard_normal(scores.shape)
        ranked = np.take_along_axis(scores, np.argsort(chosen, axis=0), axis=0)
        true = rank_weights(world.cells) @ ranked.mean(axis=1)
        return {"band": bool(((np.array(curve.low) <= true) & (true <= np.array(curve.high))).all())}

    return rates(one() for _ in range(worlds))


def across(runs: int, tasks: int, tails: Tails, worlds: int) -> dict[str, Rate]:
    """Of the IQM, the optimality gap and the probability of improvement, of methods with one cell."""
    rng = np.random.default_rng(4)
    means = np.linspace(0.0, 1.0, tasks)

    def draw(size: int) -> list[Floats]:
        return [mean + 0.15 * standardised(tails, rng, (size,)) for mean in means]

    many, others = draw(20_000), draw(20_000)
    wins = float(np.mean([(x - 0.1 < y).mean() for x, y in zip(many, others, strict=True)]))
    middle, gap = aggregates.iqm(many), aggregates.optimality_gap(many)

    def one() -> Answers:
        first = draw(runs)
        second = [each - 0.1 for each in draw(runs)]
        return {
            "IQM": holds(aggregates.iqm_interval(first, rng, draws=500), middle),
            "gap": holds(aggregates.gap_interval(first, rng, draws=500), gap),
            "improvement": holds(aggregates.improvement_interval(first, second, rng, draws=500), wins),
        }

    return rates(one() for _ in range(worlds))


SEED_SD = 0.2
THRESHOLDS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


def chosen(runs: int, tasks: int, cells: int, cell_sd: float, worlds: int) -> dict[str, Rate]:
    """The same where each run is of the cell that the other seeds choose; and the profile at its worst threshold.

    The truth is of all other seeds of the cells that were chosen: 500 quantiles stand for them.
    """
    rng, normal = np.random.default_rng(6), NormalDist()
    quantiles = np.array([normal.inv_cdf((place + 0.5) / 500) for place in range(500)])

    def side(shift: float) -> tuple[list[Floats], list[float], list[Floats]]:
        scores, fresh, pooled = [], [], 0.0
        for mean in np.linspace(0.3, 0.7, tasks) + shift:
            means = mean + cell_sd * rng.standard_normal((cells, 1))
            all_cells = means + SEED_SD * rng.standard_normal((cells, runs))
            tune = all_cells + 0.3 * SEED_SD * rng.standard_normal(all_cells.shape)
            kept = leave_one_seed_out(all_cells[..., None], tune)
            scores.append(kept.returns[:, 0])
            fresh.append((means[kept.chosen] + SEED_SD * quantiles).ravel())
            pooled += float(all_cells.var(axis=1, ddof=1).mean())
        more = max(1.0, pooled / sum(float(each.var(ddof=1)) for each in scores))
        return scores, [more * (1 / runs + (fold_share(runs) if cells > 1 else 0.0))] * tasks, fresh

    def one() -> Answers:
        scores, f, fresh = side(0.0)
        others, g, more = side(-0.1)
        wins = float(np.mean([_beats(x, y) for x, y in zip(fresh, more, strict=True)]))
        ends, true = aggregates.profile_interval(scores, THRESHOLDS), aggregates.profile(fresh, THRESHOLDS)
        improvement = aggregates.improvement_interval(scores, others, rng, first_shares=f, second_shares=g, draws=500)
        of_profile = {} if ends is None else {
            f"profile at {at}": bool(low <= share <= high)
            for at, low, high, share in zip(THRESHOLDS, *ends, true, strict=True)
        }  # fmt: skip
        return {
            "IQM": holds(aggregates.iqm_interval(scores, rng, shares=f, draws=500), aggregates.iqm(fresh)),
            "gap": holds(aggregates.gap_interval(scores, rng, shares=f, draws=500), aggregates.optimality_gap(fresh)),
            "improvement": holds(improvement, wins),
            "IQM without f": holds(aggregates.iqm_interval(scores, rng, draws=500), aggregates.iqm(fresh)),
            **of_profile,
        }

    return rates(one() for _ in range(worlds))


def _beats(first: Floats, second: Floats) -> float:
    """The share of pairs in which `first` is higher."""
    return float(np.searchsorted(np.sort(second), first).mean() / second.size)


def ranks(pairs: int, correlation: float, worlds: int) -> dict[str, Rate]:
    """Of Spearman's ρ of normal pairs, whose truth is 6/π · arcsin(r/2)."""
    rng = np.random.default_rng(5)
    true = 6 / np.pi * np.arcsin(correlation / 2)

    def one() -> Answers:
        x = rng.standard_normal(pairs)
        y = correlation * x + np.sqrt(1 - correlation**2) * rng.standard_normal(pairs)
        return {"ρ": holds(spearman(list(zip(x.tolist(), y.tolist(), strict=True))), float(true))}

    return rates(one() for _ in range(worlds))


@dataclass(frozen=True)
class Statement:
    """What is printed as one table.

    Attributes:
        worlds: How many are drawn of each kind.
        columns: The kinds of intervals, in the table's order.
        kinds: The worlds by what they are called, each as the measurement of a number of them.
    """

    worlds: int
    columns: Sequence[str]
    kinds: Mapping[str, Callable[[int], dict[str, Rate]]]


def _on_grids(measured: Callable[[World, int], dict[str, Rate]]) -> dict[str, Callable[[int], dict[str, Rate]]]:
    return {name: functools.partial(measured, world) for name, world in GRIDS.items()}


RUNS = (3, 5, 10)
TASKS = (2, 3, 8, 26)
TAILED: Mapping[str, Tails] = {"normal": "normal", "t₃": "t3", "skewed": "skewed"}
CHOSEN = ((3, 2), (3, 3), (3, 8), (5, 3), (10, 3))

STATEMENTS: Mapping[str, Statement] = {
    "share": Statement(1000, tuple(TERMS.values()), _on_grids(shares)),
    "sd": Statement(1000, (*TERMS.values(), "σ"), _on_grids(spreads)),
    "Φ": Statement(1000, ("Φ",), _on_grids(phi)),
    "band": Statement(600, ("band",), _on_grids(bands)),
    "rank": Statement(
        4000,
        ("ρ",),
        {
            f"{pairs} pairs, r {r:g}": functools.partial(ranks, pairs, r)
            for pairs in (8, 10, 12, 24, 48)
            for r in (0.0, 0.5, 0.8, 0.95)
        },
    ),
    "across": Statement(
        1000,
        ("IQM", "gap", "improvement"),
        {
            f"{runs} × {tasks}, {name}": functools.partial(across, runs, tasks, tails)
            for tasks in TASKS
            for runs in RUNS
            for name, tails in TAILED.items()
        },
    ),
    "across, chosen": Statement(
        2000,
        ("IQM", "gap", "improvement", "IQM without f", *(f"profile at {at}" for at in THRESHOLDS)),
        {
            f"{runs} × {tasks}, {cells}": functools.partial(chosen, runs, tasks, 12, sd)
            for runs, tasks in CHOSEN
            for cells, sd in (("equal", 0.0), ("sd .2", 0.2))
        },
    ),
}


def measure(statement: str, world: str, worlds: int) -> dict[str, object]:
    """A line of the file of results."""
    found = STATEMENTS[statement].kinds[world](worlds)
    rows = {kind: [rate.held, rate.given] for kind, rate in found.items()}
    return {"statement": statement, "world": world, "worlds": worlds, "rates": rows}


def table(statement: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Coverage in per cent, a line per world and a column per interval; in brackets where it was not always given."""
    columns = STATEMENTS[statement].columns
    counts = sorted({each["worlds"] for each in results})
    lines = [
        f"| {statement}, {' and '.join(map(str, counts))} worlds | " + " | ".join(columns) + " |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for each in results:
        cells = [_cell(*each["rates"].get(column, (None, 0.0))) for column in columns]
        lines.append(f"| {each['world']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(held: float | None, given: float) -> str:
    if held is None:
        return "refused"
    return f"{100 * held:.1f}" + (f" ({math.floor(100 * given)})" if given < 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file of results, one JSON object a line")
    parser.add_argument("--worlds", type=int, help="simulated worlds of each kind, in place of each statement's own")
    parser.add_argument("--only", nargs="+", choices=STATEMENTS, default=list(STATEMENTS), help="these statements")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(each["statement"], each["world"]) for each in results}
    for name in given.only:
        for world in STATEMENTS[name].kinds:
            if (name, world) not in done:
                results.append(measure(name, world, given.worlds or STATEMENTS[name].worlds))
                with given.out.open("a") as file:
                    file.write(json.dumps(results[-1], ensure_ascii=False) + "\n")
    for name in given.only:
        of = {each["world"]: each for each in results if each["statement"] == name}
        print(table(name, [of[world] for world in STATEMENTS[name].kinds]) + "\n")


if __name__ == "__main__":
    main()
