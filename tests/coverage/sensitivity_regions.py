"""How often the intervals of statements 4 to 7 hold the truth of simulated worlds; as a program, a table of regions.

Each function draws worlds, makes the interval as a report does, and says in what share of them it held the truth; where
intervals may be withheld, also in what share of worlds one was given.
"""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
from worlds import Sample, Tails, World, sample, standardised

from analysis import across as aggregates
from analysis.bounded import hull_interval
from analysis.budget import Trained, expected_best, tuning_curve
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


def scape_of(world: World, drawn: Sample) -> Landscape:
    seeds = [range(world.seeds)] * world.cells
    return landscape(list(drawn.returns), seeds, world.training_of.tolist(), world.scenes)


def shares(world: World, worlds: int) -> dict[tuple[str, ...], float]:
    """Of each term of the analysis of variance."""
    rng = np.random.default_rng(0)
    levels = {"t": tuple(range(world.trainings)), "b": tuple(range(world.decodings))}
    held: dict[tuple[str, ...], list[bool]] = {}
    for _ in range(worlds):
        drawn = sample(world, rng)
        true = {u: float(v) for u, v in _variances(drawn.means, (world.trainings, world.decodings)).items()}
        named = {tuple("tb"[i] for i in u): v / sum(true.values()) for u, v in true.items()}
        for term in anova(scape_of(world, drawn), levels, "x", rng, draws=400).terms:
            if term.share.low is None or term.share.high is None:  # noise alone would have made as much
                continue
            inside = term.share.low - 1e-9 <= named[term.columns] <= term.share.high + 1e-9
            held.setdefault(term.columns, []).append(inside)
    return {term: float(np.mean(each)) for term, each in held.items()}


def spreads(world: World, worlds: int) -> dict[tuple[str, ...], float]:
    """Of √V_u of each term, and of σ under the name `("sigma",)`."""
    rng = np.random.default_rng(0)
    levels = {"t": tuple(range(world.trainings)), "b": tuple(range(world.decodings))}
    held: dict[tuple[str, ...], list[bool]] = {}
    for _ in range(worlds):
        drawn = sample(world, rng)
        true = _variances(drawn.means, (world.trainings, world.decodings))
        named = {tuple("tb"[i] for i in u): float(np.sqrt(v)) for u, v in true.items()}
        named["sigma",] = float(drawn.means.std())
        found = anova(scape_of(world, drawn), levels, "x", rng, draws=400)
        for columns, sd in [*((term.columns, term.sd) for term in found.terms), (("sigma",), found.sigma)]:
            assert sd.low is not None
            assert sd.high is not None
            held.setdefault(columns, []).append(sd.low - 1e-9 <= named[columns] <= sd.high + 1e-9)
    return {term: float(np.mean(each)) for term, each in held.items()}


def phi(world: World, worlds: int, environments: int = 3) -> tuple[float, float]:
    """Of Φ, on the scale of the worlds; and in what share of worlds it is given."""
    rng = np.random.default_rng(1)
    held, given = [], 0
    for _ in range(worlds):
        samples = [sample(world, rng) for _ in range(environments)]
        scapes = [scape_of(world, each) for each in samples]
        if any(each.unclear for each in scapes):
            continue
        given += 1
        value = float(phi_of(np.stack([each.means for each in scapes])))
        likely = np.maximum(0.0, phi_of(np.stack([each.likely_means(rng, 400) for each in scapes], axis=1)))
        low, high = hull_interval(value, likely)
        held.append(low <= float(phi_of(np.stack([each.means for each in samples]))) <= high)
    return float(np.mean(held)) if held else 1.0, given / worlds


def bands(world: World, worlds: int) -> float:
    """Of whole tuning curves by their bands; the truth is the mean over 400 fresh training seeds."""
    rng = np.random.default_rng(3)
    quiet = {"scene_sd": 0.0, "cell_by_scene_sd": 0.0, "training_by_scene_sd": 0.0, "episode_sd": 0.0}
    fresh = dataclasses.replace(world, seeds=400, episodes=1, episodes_per_scene=1, **quiet)
    held = []
    for _ in range(worlds):
        drawn = sample(world, rng)
        tune = drawn.checkpoint_means + 0.2 * rng.standard_normal(drawn.checkpoint_means.shape)
        ones = np.ones(world.cells)
        returns = np.swapaxes(drawn.returns, 0, 1)
        trained = Trained("x", tune.T, returns, world.scenes, world.training_of, ones, ones)
        curve = tuning_curve(trained, rng, draws=1000)
        other = sample(fresh, rng)
        scores = drawn.means[:, None] + other.checkpoint_means - other.means[:, None]
        chosen = scores + 0.2 * rng.standard_normal(scores.shape)
        true = np.mean([expected_best(chosen[:, s], scores[:, s]) for s in range(400)], axis=0)
        held.append(bool(((np.array(curve.low) <= true) & (true <= np.array(curve.high))).all()))
    return float(np.mean(held))


def across(runs: int, tasks: int, tails: Tails, worlds: int) -> dict[str, float]:
    """Of the IQM, the optimality gap and the probability of improvement."""
    rng = np.random.default_rng(4)
    means = np.linspace(0.0, 1.0, tasks)

    def draw(size: int) -> list[np.ndarray]:
        return [mean + 0.15 * standardised(tails, rng, (size,)) for mean in means]

    many, others = draw(20_000), draw(20_000)
    wins = float(np.mean([(x - 0.1 < y).mean() for x, y in zip(many, others, strict=True)]))
    true = {"iqm": aggregates.iqm(many), "gap": aggregates.optimality_gap(many), "improvement": wins}
    held: dict[str, list[bool]] = {name: [] for name in true}
    for _ in range(worlds):
        first = draw(runs)
        second = [each - 0.1 for each in draw(runs)]
        found = {
            "iqm": aggregates.iqm_interval(first, rng, draws=500),
            "gap": aggregates.gap_interval(first, rng, draws=500),
            "improvement": aggregates.improvement_interval(first, second, rng, draws=500),
        }
        for name, each in found.items():
            assert each.low is not None
            assert each.high is not None
            held[name].append(each.low <= true[name] <= each.high)
    return {name: float(np.mean(each)) for name, each in held.items()}


def ranks(pairs: int, correlation: float, worlds: int) -> float:
    """Of Spearman's ρ of normal pairs, whose truth is 6/π · arcsin(r/2)."""
    rng = np.random.default_rng(5)
    true = 6 / np.pi * np.arcsin(correlation / 2)
    held = []
    for _ in range(worlds):
        x = rng.standard_normal(pairs)
        y = correlation * x + np.sqrt(1 - correlation**2) * rng.standard_normal(pairs)
        found = spearman(list(zip(x.tolist(), y.tolist(), strict=True)))
        held.append(found.low is not None and found.high is not None and found.low <= true <= found.high)
    return float(np.mean(held))


def main() -> None:
    """Print the regions."""
    say = sys.stdout.write
    change = dataclasses.replace
    worlds = {
        "base": BASE,
        "2 seeds": change(BASE, seeds=2),
        "5 seeds": change(BASE, seeds=5),
        "t3": change(BASE, tails="t3"),
        "skewed": change(BASE, tails="skewed"),
        "seeds 1.0": change(BASE, seed_sd=1.0),
        "seeds 0.1": change(BASE, seed_sd=0.1),
        "12 × 4": change(BASE, trainings=12),
        "flat": change(BASE, config_sd=0.3, decoding_sd=0.3, config_by_decoding_sd=0.1),
    }
    say("world        shares (t, b, t × b)   their sd, and σ               Φ (given)     band\n")
    for name, world in worlds.items():
        found = shares(world, 600)
        terms = " ".join(f"{found[term]:.3f}" for term in (("t",), ("b",), ("t", "b")))
        spread = spreads(world, 600)
        terms += "  " + " ".join(f"{spread[term]:.3f}" for term in (("t",), ("b",), ("t", "b"), ("sigma",)))
        covered, given = phi(world, 400)
        say(f"{name:12} {terms}        {covered:.3f} ({given:.2f})  {bands(world, 300):.3f}\n")
        sys.stdout.flush()
    for runs in (3, 5, 10):
        for tasks in (3, 8, 26):
            for tails in ("normal", "t3", "skewed"):
                row = " ".join(f"{name} {value:.3f}" for name, value in across(runs, tasks, tails, 600).items())
                say(f"{runs} runs × {tasks} tasks, {tails}: {row}\n")
                sys.stdout.flush()
    for pairs in (8, 12, 24, 48):
        say(f"{pairs} pairs: " + " ".join(f"{ranks(pairs, r, 4000):.3f}" for r in (0.0, 0.5, 0.8, 0.95)) + "\n")


if __name__ == "__main__":
    main()
