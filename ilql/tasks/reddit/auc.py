"""How well scores tell one kind of comment from the other: the area under the ROC curve, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054
"""Quantile of the normal distribution that leaves 2.5 % above it: intervals are of 95 %."""


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve, measured.

    Attributes:
        value: The probability that a positive comment scores above a negative one, ties counting half; in [0, 1].
        low: Lower end of its 95 % interval.
        high: Upper end.
        positives: Number of positive comments it was measured on: toxic ones, or voted up.
        negatives: Number of the others.
    """

    value: float
    low: float
    high: float
    positives: int
    negatives: int

    def __str__(self) -> str:
        """The number, its interval and its size."""
        return (
            f"ROC-AUC {self.value:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.positives + self.negatives} comments"
        )


def measure_auc(scores: Sequence[float], positive: Sequence[bool]) -> Auc:
    """The area for some scores and what is true of each, shape (N,) both.

    Raises:
        ValueError: The lengths differ, or there are none of one kind.
    """
    if len(scores) != len(positive):
        raise ValueError(f"each score must have its truth, got {len(scores)} scores and {len(positive)} truths")
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.bool_)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        raise ValueError(
            f"an area must be measured on both kinds, got {positives} positive and {negatives} negative comments"
        )
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[places]  # ranks from 1, ties share their mean
    area = float((ranks[truth].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))
    return Auc(area, *interval(area, positives, negatives), positives, negatives)


def interval(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """The 95 % interval: all areas A for which |A − area| is at most Z standard errors *at A*.

    The variance is Hanley and McNeil's (1982, equation 2); that it is taken at A and not at the estimate is Newcombe's
    (2006) advice, and keeps the interval inside [0, 1] and of some width even at 1.
    """

    def excess(a: float) -> float:
        spread = 1.0 + (positives - 1) * (1.0 - a) / (2.0 - a) + (negatives - 1) * a / (1.0 + a)
        return (a - area) ** 2 - Z * Z * a * (1.0 - a) * spread / (positives * negatives)

    # Near the estimate the excess is negative, at 0 and 1 not: bisect towards either side.
    ends = []
    for outside in (0.0, 1.0):
        inside, beyond = area, outside
        if excess(beyond) <= 0.0:
            ends.append(outside)
            continue
        for _ in range(60):
            middle = (inside + beyond) / 2.0
            if excess(middle) <= 0.0:
                inside = middle
            else:
                beyond = middle
        ends.append(inside)
    low, high = ends
    assert math.isfinite(low)
    return low, high
