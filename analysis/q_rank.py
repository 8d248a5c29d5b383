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

    Raises:
        ValueError: The shapes differ.
    """

    method: str
    tau: float | None
    seed: int
    place: str
    won: NDArray[np.float64]
    tied: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.won.shape != self.tied.shape:
            raise ValueError(f"won and tied must have one shape, got {self.won.shape} and {self.tied.shape}")


def wilson(share: float, of: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share, in [0, 1] at both ends also where the share is 0 or 1 (Wilson 1927).

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
    over pairs.
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
        most = max(max(curve.pairs) for curve in own)
        caption = (
            f"{meaning} Shown is the share of pairs in which Q of the better action's token is the higher, with "
            f"Wilson's 95 % interval; {count(most, 'pair')}. A pair counts from the token on where its actions differ. "
            "Exact: the fixed point on the data where every recorded prefix is known by heart and nothing generalises."
        )
        figures[f"q_rank_{place}"] = (draw_q_rank(own, positions), caption)
        tables.append(_table(own, positions, meaning))
    return Section(
        name="q_rank", title="Which action has the higher Q", tables=tuple(tables), figures=figures, printed=True
    )


def _curve(trainings: Sequence[Ranked]) -> RankCurve:
    first = trainings[0]
    won, differ = np.mean([each.won for each in trainings], axis=0), ~first.tied
    pairs = tuple(int(each) for each in differ.sum(axis=0))
    shares: list[float | None] = []
    low: list[float | None] = []
    high: list[float | None] = []
    for token, of in enumerate(pairs):
        share = float(won[differ[:, token], token].mean()) if of else None
        ends = (None, None) if share is None else wilson(share, of)
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
