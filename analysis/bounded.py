"""A number with its 95 % interval, or with the reason why it has none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.estimators import Floats
from analysis.text import number

TOO_FEW_SEEDS = "too few seeds"
TOO_MUCH_NOISE = "too much noise"
TOO_FEW_CELLS = "too few cells"
NO_SPREAD = "too little spread"


@dataclass(frozen=True)
class Bounded:
    """An estimate.

    Attributes:
        value: Its value; finite.
        low, high: The ends of its 95 % interval; both None where it would not cover.
        why: Why there is none, in a few words; empty where there is one.

    Raises:
        ValueError: The value is not finite, one end is missing, the ends are in the wrong order, or an interval and a
            reason for having none are given together, or neither.
    """

    value: float
    low: float | None = None
    high: float | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"an estimate must be finite, got {self.value}")
        if (self.low is None) != (self.high is None) or (self.low is None) != bool(self.why):
            raise ValueError(f"an estimate has an interval or a reason for none, got {self}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"an interval must have its ends in order, got {self.low} and {self.high}")

    def text(self, decimals: int = 2) -> str:
        """`0.61 [0.48, 0.72]`, or `0.61 (too few seeds for an interval)`."""
        if self.low is None or self.high is None:
            return f"{number(self.value, decimals)} ({self.why} for an interval)"
        return f"{number(self.value, decimals)} [{number(self.low, decimals)}, {number(self.high, decimals)}]"


def hull_interval(value: float, draws: Floats) -> tuple[float, float]:
    """The hull of the percentile interval and of the same draws moved by twice their bias, mean(draws) − value.

    For what noise moves to one side, as it does a maximum: `value` carries that bias once and draws around it twice. In
    simulated worlds either interval alone covered less than 95 %, on opposite sides.
    """
    low, high = percentile_interval(draws)
    bias = 2 * (float(np.nanmean(draws)) - value)
    return min(low, low - bias), max(high, high - bias)


def percentile_interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """The interval that leaves out (1 − level)/2 of the draws on either side, shape (B,); NaN are left out."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def t_factor(freedom: int) -> float:
    """How many times as far out as the normal's the 97.5 % point of Student's t is, on `freedom` degrees, 3 or more.

    t = z + (z³ + z)/4f + (5z⁵ + 16z³ + 3z)/96f² + (3z⁷ + 19z⁵ + 17z³ − 15z)/384f³ (Fisher and Cornish 1960), which is
    2.774 for 4 degrees, where 2.776 is right.

    Raises:
        ValueError: There are fewer than 3 degrees of freedom.
    """
    if freedom < 3:
        raise ValueError(f"the expansion holds from 3 degrees of freedom on, got {freedom}")
    z = 1.959963984540054
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return (z + first / freedom + second / freedom**2 + third / freedom**3) / z
