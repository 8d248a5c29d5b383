"""Utterance-level ILQL: Q and V of whole utterances; the policy draws candidates and says the one with the highest Q.

An action is a whole utterance, the discount is per utterance:
    L_V = mean |τ − 1(Q̄ − V < 0)| (Q̄ − V)²       V at the boundary the utterance is chosen from
    L_Q = Σ_i mean (r + γ (1 − terminal) V(s') − Q_i)²     Q at the utterance's `eoa`, which has read all of it
Q̄ is the smaller of the two target heads. There is no conservative term: candidates come from the behaviour policy.
Source: Snell et al. 2022 (arXiv 2206.11871), the baseline "utterance-level ILQL" of its visual-dialogue sweep, and its
public implementation (Sea-Snell/Implicit-Language-Q-Learning, models/utterance_iql_model.py).

Differences from the public implementation: those of `ilql`. Q at decoding is read at the utterance's end, where there
it is read at the last token that is not padding: the same unless an utterance was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch
from ilql.hyperparameters import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, UNIT, Range, Search, hyper
from ilql.language_model import gather, hidden_states, trunk_of
from ilql.losses import expectile_loss, masked_mean, td_loss, td_target
from ilql.method import (
    Actor,
    Decoding,
    Loss,
    Manner,
    Method,
    Start,
    Training,
    every_utterance,
    require,
)
from ilql.networks import QNetwork, ValueNetworks, renew_target


@dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Value training on utterances."""

    tau: float = hyper(
        0.7,
        Range(0.0, 1.0, open_low=True, open_high=True),
        meaning="expectile of the regression of V on Q",
        search=Search(0.5, 0.95),
    )
    gamma: float = hyper(0.99, UNIT, meaning="discount per utterance", search=Search(0.8, 1.0))
    polyak: float = hyper(0.005, SHARE, meaning="share of the online weights that the target takes when it is renewed")
    target_every: int = hyper(1, AT_LEAST_ONE, meaning="optimiser steps between renewals of the target")
    double_q: bool = hyper(True, meaning="two Q heads, of which the smaller counts")
    start: str = hyper(
        "behaviour",
        Range(choices=("behaviour", "pretrained")),
        meaning="whether the value trunk starts from the behaviour policy's weights or from the pretrained model's",
    )


@dataclass(frozen=True, kw_only=True)
class Decode(Decoding):
    """Drawing candidates, and ranking them."""

    greedy: bool = hyper(False, meaning="take the most probable token: all candidates are then the same one")
    candidates: int = hyper(
        8, AT_LEAST_ONE, meaning="utterances drawn, of which the one with the highest score is said"
    )
    log_prob_weight: float = hyper(
        0.0, NOT_NEGATIVE, meaning="weight of an utterance's log-probability beside its Q in the score"
    )


class UtteranceJudge(nn.Module):
    """Scores an utterance by the target network's Q at its end."""

    def __init__(self, target: QNetwork) -> None:
        super().__init__()
        self._target = target

    @property
    def trunk(self) -> nn.Module:
        """The target's own."""
        return self._target.trunk

    def score(self, last: Tensor, mean: Tensor) -> Tensor:
        """The smaller head's Q, shape (S,)."""
        return self._target.minimum(last).squeeze(-1)


def build(start: Start, train: Train) -> nn.Module:
    """ILQL's networks with heads of one output."""
    source = start.pretrained if train.start == "pretrained" else require(start.behaviour, "behaviour policy")
    return ValueNetworks(trunk_of(source), double_q=train.double_q, outputs=1, seed=start.seed)


@dataclass(frozen=True)
class Utterances:
    """Where the whole utterances of a batch are; U of them in all dialogues together, in order.

    Attributes:
        row: Their dialogues, shape (U,).
        end: Their last actions, shape (U,).
        first: Their first actions, shape (U,).
    """

    row: Tensor
    end: Tensor
    first: Tensor


def utterances(batch: TokenBatch) -> Utterances:
    """The utterances that were ended within what is kept of their dialogues."""
    row, end = batch.ends.nonzero(as_tuple=True)
    before = torch.cat([end.new_full((1,), -1), end[:-1]])
    same = torch.cat([row.new_zeros(1, dtype=torch.bool), row[1:] == row[:-1]])[: len(row)]
    return Utterances(row, end, torch.where(same, before[: len(row)] + 1, torch.zeros_like(end)))


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """L_Q + L_V of a batch; `weights` of shape (B, K) are positive at most where utterances end."""
    assert isinstance(module, ValueNetworks)
    u = utterances(batch)
    mask = weights[u.row, u.end]
    states = hidden_states(module.online.trunk, batch.tokens)
    values = module.v_head(gather(states, batch.state_positions)).squeeze(-1)
    now, after = values[u.row, u.first], values[u.row, u.end + 1]
    at_end = batch.action_positions[u.row, u.end] + 1  # the position of the `eoa` itself
    with torch.no_grad():
        frozen = hidden_states(module.target.trunk, batch.tokens)
        target_q = module.target.minimum(frozen[u.row, at_end]).squeeze(-1)
    q = [head.squeeze(-1) for head in module.online.heads_at(states[u.row, at_end])]
    rewards, terminal = batch.rewards[u.row, u.end], batch.terminal[u.row, u.end]
    td = td_loss(td_target(rewards, after, terminal, gamma=train.gamma), q, mask)
    expectile = expectile_loss(target_q, now, mask, tau=train.tau)
    parts = {
        "td": td,
        "expectile": expectile,
        "q_mean": masked_mean(q[0], mask),
        "v_mean": masked_mean(now, mask),
        "advantage_mean": masked_mean(target_q - now, mask),
    }
    return Loss(td + expectile, {name: part.detach() for name, part in parts.items()})


def actor(module: nn.Module, behaviour: nn.Module | None) -> Actor:
    """The behaviour policy proposes, the target network judges."""
    assert isinstance(module, ValueNetworks)
    return Actor(require(behaviour, "behaviour policy"), judge=UtteranceJudge(module.target))


def manner(train: Train, decode: Decode) -> Manner:
    """So many candidates, ranked."""
    return Manner(candidates=decode.candidates, log_prob_weight=decode.log_prob_weight)


METHOD = Method(
    name="utterance_ilql",
    title="Utterance ILQL",
    version=1,
    losses=("expectile", "td"),
    train=Train,
    decode=Decode,
    build=build,
    loss=loss,
    actor=actor,
    needs_behaviour=True,
    counts=every_utterance,
    after_step=renew_target,
    manner=manner,
)
