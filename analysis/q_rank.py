"""How often a critic values the better of two actions more, token by token: the paper's figure on Wordle.

Axes: *P* pairs of actions, *T* token positions of an action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.figure_data import RankCurve
from analysis.figures import draw_q_rank
from analysis.labels import in_order, method_label, value_label
from analysis.section import Section, TextTable
from analysis.text import count, number


@dataclass(frozen=True, eq=False)
class Ranked:
    """What one training made of the pairs of one place.

    Attributes:
        method: Its method.
        tau: Its expectile; None for a method without one.
        seed: Its training seed.
        place: Where the pairs are.
        won: Shape (P, T): 1 where Q of the better action's token is the higher, 0 where it is not, as where both are
            one token and Q is the same.
        tied: Shape (P, T): true where the actions agree up to this token, so that no critic could tell them apart.
        better: Shape (P,): the number of each pair's better action. Pairs of equal numbers share the action and what
            went before it, and so its Q.
        worse: Shape (P,): that of its worse action.

    Raises:
        ValueError: The shapes differ.
    """

    method: str
    tau: float | None
    seed: int
    place: str
    won: NDArray[np.float64]
    tied: NDArray[np.bool_]
    better: NDArray[np.int64]
    worse: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.won.shape != self.tied.shape:
            raise ValueError(f"won and tied must have one shape, got {self.won.shape} and {self.tied.shape}")
        if not len(self.better) == len(self.worse) == len(self.won):
            raise ValueError(
                f"each pair must have a better and a worse action, got {len(self.better)} and {len(self.worse)} for "
                f"{len(self.won)}"
            )


def independent_pairs(won: NDArray[np.float64], better: NDArray[np.int64], worse: NDArray[np.int64]) -> float:
    """How many independent pairs would leave as much doubt about the share that is won; from 1 to P.

    Q of an action decides all of its pairs, so 1,000 pairs of 28 actions with 600 others are no 1,000 trials. The
    variance of the share is that of sums over the better actions, plus that over the worse ones, less that over pairs
    alike in both, which the two have counted twice (Cameron, Gelbach, Miller 2011, equation 2.11; each with its factor
    G / (G − 1) for G sums), and at least that of either side. With share s it is that of s (1 − s) / variance pairs.
    Where all pairs are won, or none, no variance can be seen: as many as the side with fewer actions has.

    Args:
        won: Shape (P,), P above 0, in [0, 1].
        better: Shape (P,), the number of each pair's better action.
        worse: Shape (P,), that of its worse one.
    """
    share = float(won.mean())

    def variance(of: NDArray[np.int64]) -> float:
        sums = np.bincount(np.unique(of, axis=0, return_inverse=True)[1].ravel(), won - share)
        return float((sums**2).sum()) / len(won) ** 2 * len(sums) / max(1, len(sums) - 1)

    sides = variance(better), variance(worse)
    spread = max(*sides, sum(sides) - variance(np.stack([better, worse], axis=1)))
    if spread <= 0.0:
        return float(min(len(np.unique(better)), len(np.unique(worse))))
    return min(float(len(won)), max(1.0, share * (1.0 - share) / spread))


def wilson(share: float, of: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share, in [0, 1] at both ends also where the share is 0 or 1 (Wilson 1927).

    `of` how many it is the share; a variance that is larger or smaller than theirs may make that no whole number.

    Raises:
        ValueError: There is nothing to have a share of.
    """
    if of < 1:
        raise ValueError(f"a share must be of at least one, got {of}")
    middle = (share + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * math.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def rank_curves(ranked: Sequence[Ranked]) -> tuple[RankCurve, ...]:
    """A curve per place, method and expectile, over all training seeds.

    A pair counts at a token from where its actions differ; the seeds of a curve saw the same pairs, so the interval is
    over pairs, of which those that share an action go together.
    """
    curves = []
    places = list(dict.fromkeys(each.place for each in ranked))
    for place in places:
        own = [each for each in ranked if each.place == place]
        for method in in_order(each.method for each in own):
            for tau in sorted(
                {each.tau for each in own if each.method == method}, key=lambda t: -1.0 if t is None else t
            ):
                curves.append(_curve([each for each in own if (each.method, each.tau) == (method, tau)]))
    return tuple(curves)


def rank_section(ranked: Sequence[Ranked], *, positions: Sequence[str], places: dict[str, str]) -> Section | None:
    """The section of a report.

    Args:
        ranked: What every training made of the pairs.
        positions: What the T tokens are, `1st letter`.
        places: What is compared in each place, a sentence each.

    Returns:
        None where nothing was compared.
    """
    curves = rank_curves(ranked)
    if not curves:
        return None
    figures, tables = {}, []
    for place, meaning in places.items():
        own = [curve for curve in curves if curve.place == place]
        if not own:
            continue
        pairs = next(each for each in ranked if each.place == place)
        caption = (
            f"{meaning} Shown is the share of pairs in which Q of the better action's token is the higher, with "
            "Wilson's 95 % interval of as many independent pairs as leave as much doubt: pairs that share an action on "
            f"either side go together. {_sizes(pairs)} A pair counts from the token on where its actions differ. "
            "Exact: the fixed point on the data where every recorded prefix is known by heart and nothing generalises."
        )
        figures[f"q_rank_{place}"] = (draw_q_rank(own, positions), caption)
        tables.append(_table(own, positions, meaning))
    return Section(
        name="q_rank", title="Which action has the higher Q", tables=tuple(tables), figures=figures, printed=True
    )


def _sizes(pairs: Ranked) -> str:
    better, worse = len(np.unique(pairs.better)), len(np.unique(pairs.worse))
    return f"{count(len(pairs.won), 'pair')} of {better:,} better and {count(worse, 'worse action')}."


def _curve(trainings: Sequence[Ranked]) -> RankCurve:
    first = trainings[0]
    won, differ = np.mean([each.won for each in trainings], axis=0), ~first.tied
    pairs = tuple(int(each) for each in differ.sum(axis=0))
    shares: list[float | None] = []
    low: list[float | None] = []
    high: list[float | None] = []
    for token, of in enumerate(pairs):
        here = differ[:, token]
        share = float(won[here, token].mean()) if of else None
        ends: tuple[float | None, float | None] = (None, None)
        if share is not None:
            ends = wilson(share, independent_pairs(won[here, token], first.better[here], first.worse[here]))
        shares.append(share)
        low.append(ends[0])
        high.append(ends[1])
    label = method_label(first.method)
    return RankCurve(
        method=first.method,
        label=label if first.tau is None else f"{label}, τ {value_label(first.tau)}",
        place=first.place,
        shares=tuple(shares),
        low=tuple(low),
        high=tuple(high),
        pairs=pairs,
        seeds=len(trainings),
    )


def _table(curves: Sequence[RankCurve], positions: Sequence[str], meaning: str) -> TextTable:
    rows = []
    for curve in curves:
        cells = [
            f"{number(share)} [{number(low)}, {number(high)}]"
            for share, low, high in zip(curve.shares, curve.low, curve.high, strict=True)
        ]
        rows.append((curve.label, *cells, str(curve.seeds)))
    pairs = curves[0].pairs
    header = ("", *(f"{name} ({of:,})" for name, of in zip(positions, pairs, strict=True)), "Seeds")
    return TextTable(meaning.rstrip("."), header, tuple(rows), (False, *([True] * (len(header) - 1))))
