"""Student's t distribution: quantiles and two-sided tail probabilities, for any degrees of freedom from 1 on.

With x = √ν·tan(θ), P(|T| ≤ x) = c ∫₀^θ cos^{ν−1}(u) du, c = 2 Γ((ν+1)/2) / (√π Γ(ν/2)): a smooth integrand, summed
here by Gauss and Legendre's rule. This package leans on numpy alone, which has no such function; a test holds both to
scipy's to eight digits.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(256)
_LARGE = 1e4
"""From here on ν counts as this: the quantile at .975 is 1.9602 and the normal one 1.9600."""


def t_quantile(probability: float, degrees: ArrayLike) -> Floats:
    """The x with P(T ≤ x) = `probability`, in [.5, .9999], for each ν of `degrees`, at least 1."""
    nu = _checked(degrees)
    if not 0.5 <= probability <= 0.9999:
        raise ValueError(f"probability must be in [.5, .9999], got {probability}")
    # Newton's steps on θ climb from the normal quantile, which lies below, and never pass the goal: P is concave there.
    theta = np.arctan(NormalDist().inv_cdf(probability) / np.sqrt(nu))
    for _ in range(30):
        step = (2 * probability - 1 - _integral(np.zeros_like(nu), theta, nu)) / _density(theta, nu)
        theta = theta + step
        if (np.abs(step) <= 1e-13).all():
            break
    return np.sqrt(nu) * np.tan(theta)


def t_two_sided(ratio: ArrayLike, degrees: ArrayLike) -> Floats:
    """P(|T| ≥ |ratio|): what a difference of so many standard errors has as its p-value at ν degrees of freedom."""
    nu, t = np.broadcast_arrays(_checked(degrees), np.abs(np.asarray(ratio, dtype=np.float64)))
    far = np.where(nu < 100, math.pi / 2, np.arctan((t + 40) / np.sqrt(nu)))  # beyond it there is nothing, and no node
    return np.clip(_integral(np.arctan(t / np.sqrt(nu)), far, nu), 0.0, 1.0)


def _checked(degrees: ArrayLike) -> Floats:
    nu = np.asarray(degrees, dtype=np.float64)
    if not (nu >= 1).all():
        raise ValueError(f"degrees of freedom must be at least 1, got {nu.min()}")
    return np.minimum(nu, _LARGE)


def _integral(low: Floats, high: Floats, nu: Floats) -> Floats:
    half = (high - low) / 2
    angles = (low + half)[..., None] + half[..., None] * _NODES
    total: Floats = half * (_density(angles, nu[..., None]) @ _WEIGHTS)
    return total


def _density(angles: Floats, nu: Floats) -> Floats:
    gammas = np.vectorize(lambda n: math.lgamma((n + 1) / 2) - math.lgamma(n / 2), otypes=[np.float64])(nu)
    density: Floats = 2 / math.sqrt(math.pi) * np.exp(gammas + (nu - 1) * np.log(np.cos(angles)))
    return density
