"""SARSA, or single-step policy improvement: evaluate the data's policy, then improve on it once.

As published: ILQL at τ = ½, where V is the mean of Q under the data. Its weights *are* those of ILQL at τ = ½, and
carry the same key; so it has no expectile of its own to set.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor, nn

from ilql import token_values
from ilql.batch import TokenBatch
from ilql.method import Loss, Start
from ilql.methods import ilql


@dataclass(frozen=True, kw_only=True)
class Train(token_values.ValueTraining):
    """Value training at the expectile ½."""


def as_ilql(train: Train) -> ilql.Train:
    """The same training under its other name."""
    return ilql.Train(**{f.name: getattr(train, f.name) for f in dataclasses.fields(train)}, tau=0.5)


def build(start: Start, train: Train) -> nn.Module:
    """ILQL's networks."""
    return token_values.build(start, as_ilql(train))


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """ILQL's loss at τ = ½."""
    return ilql.loss(module, batch, weights, as_ilql(train))


METHOD = dataclasses.replace(
    ilql.METHOD,
    name="sarsa",
    title="SARSA",
    train=Train,
    build=build,
    loss=loss,
    canonical=lambda train: ("ilql", as_ilql(train)),
)
