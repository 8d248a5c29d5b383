"""What methods with a value for every token share: networks on two trunks, options, and everything but the backup.

ILQL, SARSA, CQL, ψ-learning and Monte-Carlo returns differ in what a value is regressed on. Here is the rest: the
hyperparameters, one pass through the networks, rewards as an option takes them, the terms beside the values' own, and
how they act. A method is `method(...)` with a `Train` and a `loss` of its own, and whatever else differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch, last_actions
from ilql.fused import cloning_loss, counted, linear_cross_entropy, linear_taken
from ilql.hyperparameters import (
    AT_LEAST_ONE,
    NOT_NEGATIVE,
    NOT_NEGATIVE_OR_INFINITE,
    POSITIVE,
    SHARE,
    UNIT,
    Range,
    Search,
    hyper,
)
from ilql.language_model import gather, hidden_states, trunk_of
from ilql.losses import conservative_loss, margin_loss, masked_mean
from ilql.method import ActionValues, Actor, Decoding, Loss, Manner, Method, Start, Training, require
from ilql.networks import ValueNetworks, layers_of, renew_target, taken

VERSION = 2
"""Raised when what is here trains or acts otherwise; part of the key of all weights of these methods."""


@dataclass(frozen=True, kw_only=True)
class ValueTraining(Training):
    """What every training of token-level value networks has, whatever its target.

    Several fields take a component out, so that what it is worth can be measured: `cql_weight=0`, `double_q=False`,
    `polyak=1` (a copy every `target_every` steps; with `target_every=1` there is no lagging target at all),
    `target_trunk=False`, `separate_policy=False`, `q_into_trunk=False`, `v_into_trunk=False`, and the clip.
    """

    gamma: float = hyper(0.99, UNIT, meaning="discount per action token", search=Search(0.9, 1.0))
    cql_weight: float = hyper(
        1.0, NOT_NEGATIVE, meaning="weight of the conservative term", search=Search(0.01, 10.0, log=True)
    )
    cql_temperature: float = hyper(1.0, POSITIVE, meaning="softmax temperature inside the conservative term")
    margin_weight: float = hyper(0.0, NOT_NEGATIVE, meaning="weight of the margin term")
    margin: float = hyper(
        0.0, NOT_NEGATIVE, meaning="by how much the margin term keeps other tokens' Q below the taken one's"
    )
    polyak: float = hyper(0.005, SHARE, meaning="share of the online weights that the target takes when it is renewed")
    target_every: int = hyper(1, AT_LEAST_ONE, meaning="optimiser steps between renewals of the target")
    target_trunk: bool = hyper(
        True, meaning="whether the target has a trunk of its own; else its heads read the online one"
    )
    double_q: bool = hyper(True, meaning="two Q heads, of which the smaller counts")
    separate_policy: bool = hyper(
        True, meaning="whether the frozen behaviour policy acts; else a policy is cloned on the value trunk, jointly"
    )
    q_into_trunk: bool = hyper(True, meaning="whether the Q heads' gradients reach the trunk")
    v_into_trunk: bool = hyper(True, meaning="whether the V head's gradients reach the trunk")
    value_low: float = hyper(-math.inf, Range(), meaning="the target's Q is clipped from below at this")
    value_high: float = hyper(math.inf, Range(), meaning="the target's Q is clipped from above at this")
    td_scale: float = hyper(1.0, POSITIVE, meaning="factor on the TD and the V term, beside the conservative one")
    head_multiple: int = hyper(2, AT_LEAST_ONE, meaning="width of the heads' hidden layer, in widths of the trunk")
    head_constant: float | None = hyper(None, meaning="value that all heads begin with; none lets them begin at random")
    target_dropout: bool = hyper(False, meaning="whether the target network drops out while the online one learns")
    truncation: str = hyper(
        "bootstrap",
        Range(choices=("bootstrap", "end")),
        meaning="whether a recording that was cut off bootstraps from its final state, or counts as ended there",
    )
    rewards: str = hyper(
        "recorded",
        Range(choices=("recorded", "standardised")),
        meaning="whether rewards are as recorded, or the dialogue's standardised return, all at its last action",
    )
    start: str = hyper(
        "behaviour",
        Range(choices=("behaviour", "pretrained")),
        meaning="whether the value trunk starts from the behaviour policy's weights or from the pretrained model's",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value_low >= self.value_high:
            raise ValueError(f"value_low must be below value_high ({self.value_high}), got {self.value_low}")


@dataclass(frozen=True, kw_only=True)
class Decode(Decoding):
    """Decoding with the tilt."""

    beta: float = hyper(
        8.0,
        NOT_NEGATIVE_OR_INFINITE,
        meaning="strength of the advantage at decoding; infinity leaves the language model out",
    )
    filter_after: bool = hyper(
        False, meaning="whether temperature, top-k and top-p act on the tilted scores, and not on the language model"
    )
    online_critic: bool = hyper(False, meaning="whether the online network's Q tilts; else its lagging target's")


def build(start: Start, train: ValueTraining) -> nn.Module:
    """Online and target networks on a copy of the trunk that `train.start` names."""
    source = start.pretrained if train.start == "pretrained" else require(start.behaviour, "behaviour policy")
    return ValueNetworks(
        trunk_of(source),
        double_q=train.double_q,
        target_trunk=train.target_trunk,
        value_range=(train.value_low, train.value_high),
        policy=None if train.separate_policy else source,
        head_multiple=train.head_multiple,
        head_constant=train.head_constant,
        target_dropout=train.target_dropout,
        returns=start.returns,
        seed=start.seed,
    )


@dataclass(frozen=True)
class Forward:
    """What a value loss is made of.

    Attributes:
        values: V of every state, the final one last, shape (B, K + 1); constant behind `v_into_trunk=False`'s trunk.
        q_taken: Q of every head at the actions taken, each of shape (B, K); 0 where the weight is.
        conservative: The conservative term, a scalar; None where its weight is 0.
        margin: The margin term, a scalar; None where its weight is 0.
        frozen: The target trunk's hidden states, shape (B, T, D); constants. The online one's where they are the same,
            or where no target was asked for.
        cloning: The joint policy's cloning loss, a scalar; None where the frozen behaviour policy acts.
    """

    values: Tensor
    q_taken: list[Tensor]
    conservative: Tensor | None
    margin: Tensor | None
    frozen: Tensor
    cloning: Tensor | None


def forward(
    module: ValueNetworks, batch: TokenBatch, weights: Tensor, train: ValueTraining, *, target: bool = True
) -> Forward:
    """Run the trunks once each, the target's unless it is not needed, and the heads where they count."""
    states = hidden_states(module.online.trunk, batch.tokens)
    with torch.no_grad():
        frozen = states
        if target and train.target_trunk:
            frozen = hidden_states(module.target.trunk, batch.tokens)
    at_actions = gather(states, batch.action_positions)
    q_taken, conservative, margin = _heads(
        module, at_actions if train.q_into_trunk else at_actions.detach(), batch.actions, weights, train
    )
    at_states = gather(states, batch.state_positions)
    values = module.v_head(at_states if train.v_into_trunk else at_states.detach()).squeeze(-1)
    cloning = None
    if not train.separate_policy:
        assert module.policy_head is not None
        cloning = cloning_loss(at_actions, module.policy_head, batch.actions, torch.ones_like(weights), weights)
    return Forward(values, q_taken, conservative, margin, frozen.detach(), cloning)


def _heads(
    module: ValueNetworks, hidden: Tensor, actions: Tensor, weights: Tensor, train: ValueTraining
) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
    """Q of the online heads at the actions taken, and the terms that look at other tokens, if they count.

    Only the margin term needs Q of every token at once; without it, no tensor of shape (B, K, V) is made.
    """
    if train.margin_weight > 0:
        q_all = module.online.heads_at(hidden)
        conservative = None
        if train.cql_weight > 0:
            conservative = conservative_loss(q_all, actions, weights, temperature=train.cql_temperature)
        margin = margin_loss(q_all, actions, weights, margin=train.margin)
        counts = weights > 0
        return [torch.where(counts, taken(q, actions), 0.0) for q in q_all], conservative, margin
    rows = counted(weights)
    at_rows, tokens = rows.of(hidden), rows.of(actions)
    q_taken, terms = [], []
    for head in module.online.q_heads:
        before, last = layers_of(head)
        if train.cql_weight > 0:
            term, q = linear_cross_entropy(
                before(at_rows), last, tokens, rows.weights, temperature=train.cql_temperature
            )
            terms.append(term)
        else:
            q = linear_taken(before(at_rows), last, tokens)
        q_taken.append(rows.spread(q))
    return q_taken, torch.stack(terms).sum() if terms else None, None


def outcomes(module: ValueNetworks, batch: TokenBatch, train: ValueTraining) -> tuple[Tensor, Tensor]:
    """Rewards and terminal marks of every action, shape (B, K) each, as `train` takes them.

    A window that goes on in another is not what `train.truncation` is about: it bootstraps, and has no last action.
    """
    last = last_actions(batch.action_mask) & ~batch.goes_on[:, None]
    rewards, terminal = batch.rewards, batch.terminal
    if train.rewards == "standardised":
        mean, deviation = module.returns
        standardised = ((batch.returns - mean) / (deviation + 1e-8))[:, None]
        rewards = torch.where(last, standardised, torch.zeros_like(rewards))
    return rewards, terminal | last if train.truncation == "end" else terminal


def valued(module: nn.Module, batch: TokenBatch, train: ValueTraining) -> Tensor:
    """The rewards that Q sums up, as `train` takes them, shape (B, K)."""
    assert isinstance(module, ValueNetworks)
    return outcomes(module, batch, train)[0]


def finish(parts: dict[str, Tensor], run: Forward, batch: TokenBatch, weights: Tensor, train: ValueTraining) -> Loss:
    """Scale the terms of values, and add those that do not depend on how values are bootstrapped.

    Those are the conservative one, the margin's and the joint policy's.
    """
    total = train.td_scale * torch.stack(list(parts.values())).sum()
    if run.conservative is not None:
        parts["conservative"] = run.conservative
        total = total + train.cql_weight * run.conservative
    if run.margin is not None:
        parts["margin"] = run.margin
        total = total + train.margin_weight * run.margin
    if run.cloning is not None:
        parts["cloning"] = run.cloning
        total = total + run.cloning
    parts["q_mean"] = masked_mean(run.q_taken[0], weights)
    return Loss(total, {name: part.detach() for name, part in parts.items()})


def actor(module: nn.Module, behaviour: nn.Module | None) -> Actor:
    """The behaviour policy, or the joint one, tilted by the target network's Q."""
    assert isinstance(module, ValueNetworks)
    acting = require(behaviour, "behaviour policy")
    policy = acting if module.policy_head is None else module.joint_policy(acting)
    return Actor(policy, module.target, online=module.online)


def manner(train: ValueTraining, decode: Decode) -> Manner:
    """Every token is tilted by exp(β Q)."""
    return Manner(beta=decode.beta, filter_after=decode.filter_after, online_critic=decode.online_critic)


@torch.no_grad()
def action_values(module: nn.Module, batch: TokenBatch) -> ActionValues:
    """Q̄(a) of the target network and V of the online one at every action."""
    assert isinstance(module, ValueNetworks)
    online = gather(hidden_states(module.online.trunk, batch.tokens), batch.action_positions)
    frozen = gather(hidden_states(module.target.trunk, batch.tokens), batch.action_positions)
    return ActionValues(module.target.minimum_of(frozen, batch.actions), module.v_head(online).squeeze(-1))


def method(
    name: str,
    title: str,
    *,
    version: int,
    losses: tuple[str, ...],
    train: type[ValueTraining],
    loss: Callable[[nn.Module, TokenBatch, Tensor, Any], Loss],
    **other: Any,
) -> Method:
    """A method of this kind; what is not named is as in this file.

    Args:
        name: See `Method`, as all others.
        title: Its name in a paper's table.
        version: Raised when its own file trains otherwise.
        losses: The names of its own losses; those of this file are added.
        train: Its hyperparameters.
        loss: Its loss.
        other: Any field of `Method` that is otherwise than here.
    """
    shared: dict[str, Any] = {
        "decode": Decode,
        "build": build,
        "actor": actor,
        "needs_behaviour": True,
        "after_step": renew_target,
        "manner": manner,
        "values": action_values,
        "valued": valued,
    }
    return Method(
        name=name,
        title=title,
        version=(VERSION, version),
        losses=(*losses, "conservative", "margin", "nll"),
        train=train,
        loss=loss,
        **{**shared, **other},
    )
