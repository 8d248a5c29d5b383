"""Filtered behaviour cloning (%BC): clone only the dialogues with the highest returns.

Differences from the public implementation (Sea-Snell/Implicit-Language-Q-Learning, visdial/visdial_dataset.py):
1. Ties at the boundary are broken by order of recording, the earlier kept first; there it depends on the internals of
   a sort. Returns are few distinct numbers here, so ties are the rule and not the exception.
2. As in `bc`, the mean is over action tokens.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ilql.hyperparameters import SHARE, Search, hyper
from ilql.method import Training
from ilql.methods import bc


@dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Cloning, and how much of the data."""

    keep: float = hyper(
        0.2,
        SHARE,
        meaning="share of dialogues kept, those with the highest returns",
        search=Search(0.03, 1.0, log=True),
    )


def keep_best(returns: npt.NDArray[np.float64], train: Train) -> npt.NDArray[np.int64]:
    """The int(N · keep) dialogues with the highest returns (at least one), ties to the earlier, in recorded order."""
    count = max(1, int(len(returns) * train.keep + 1e-9))
    best = np.argsort(-returns, kind="stable")[:count]
    return np.sort(best).astype(np.int64)


METHOD = dataclasses.replace(
    bc.METHOD,
    name="filtered_bc",
    title="%BC",
    train=Train,
    uses_rewards=True,
    keep=keep_best,
)
