"""Implicit language Q-learning: an expectile of Q as V, one-step targets through V, a conservative term, two Q heads.

L = L_Q + L_V + cql_weight · L_CQL, with Q̄ the smaller of the two target heads at the action taken:
    L_V   = mean |τ − 1(Q̄ − V < 0)| (Q̄ − V)²
    L_Q   = Σ_i mean (r + γ (1 − terminal) V(s') − Q_i(a))²
    L_CQL = Σ_i mean (logsumexp_v Q_i(v) − Q_i(a))
The policy that acts is softmax(log π_β + β (Q̄ − V)); V cancels in the softmax.
Source: Snell et al. 2022 (arXiv 2206.11871), section 5, and its public implementation
(Sea-Snell/Implicit-Language-Q-Learning, models/iql_model.py).

Differences from the public implementation:
1. Masks are stored, so a recording that was cut off has no phantom transition, and bootstraps from its final state.
2. The target network never drops out.
3. The policy is the frozen behaviour policy, trained once; `start` says what the value trunk starts from: the
   pretrained model, as in the paper's runs, or the behaviour policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch
from ilql.hyperparameters import NOT_NEGATIVE, NOT_NEGATIVE_OR_INFINITE, POSITIVE, SHARE, UNIT, Range, hyper
from ilql.losses import conservative_loss, expectile_loss, masked_mean, td_loss, td_target
from ilql.method import Actor, Decoding, Loss, Method, Start, Training, keep_all, require
from ilql.networks import ValueNetworks, gather, hidden_states, trunk_of


@dataclass(frozen=True, kw_only=True)
class ValueTraining(Training):
    """What every training of token-level value networks has, whatever its expectile."""

    gamma: float = hyper(0.99, UNIT, meaning="discount per action token")
    cql_weight: float = hyper(1.0, NOT_NEGATIVE, meaning="weight of the conservative term")
    cql_temperature: float = hyper(1.0, POSITIVE, meaning="softmax temperature inside the conservative term")
    polyak: float = hyper(0.005, SHARE, meaning="share of the online weights taken into the target per optimiser step")
    double_q: bool = hyper(True, meaning="two Q heads, of which the smaller counts")
    start: str = hyper(
        "behaviour",
        Range(choices=("behaviour", "pretrained")),
        meaning="whether the value trunk starts from the behaviour policy's weights or from the pretrained model's",
    )


@dataclass(frozen=True, kw_only=True)
class Train(ValueTraining):
    """Value training with a free expectile."""

    tau: float = hyper(
        0.7, Range(0.0, 1.0, open_low=True, open_high=True), meaning="expectile of the regression of V on Q"
    )


@dataclass(frozen=True, kw_only=True)
class Decode(Decoding):
    """Decoding with the tilt."""

    beta: float = hyper(
        8.0,
        NOT_NEGATIVE_OR_INFINITE,
        meaning="strength of the advantage at decoding; infinity leaves the language model out",
    )


def build(start: Start, train: Train) -> nn.Module:
    """Online and target networks on a copy of the trunk that `train.start` names."""
    source = start.pretrained if train.start == "pretrained" else require(start.behaviour, "behaviour policy")
    return ValueNetworks(trunk_of(source), double_q=train.double_q, seed=start.seed)


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """L_Q + L_V + cql_weight · L_CQL of a batch; `weights` of shape (B, K) are the mask of every mean."""
    assert isinstance(module, ValueNetworks)
    online, target = module.online, module.target
    states = hidden_states(online.trunk, batch.tokens, batch.attention_mask)
    values = module.v_head(gather(states, batch.state_positions)).squeeze(-1)
    now, after = values[:, :-1], values[:, 1:]
    at_actions = gather(states, batch.action_positions)
    with torch.no_grad():
        frozen = hidden_states(target.trunk, batch.tokens, batch.attention_mask)
        target_q = target.minimum_of(gather(frozen, batch.action_positions), batch.actions)
    q_all = online.heads_at(at_actions)
    q_taken = [q.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1) for q in q_all]
    goal = td_target(batch.rewards, after, batch.terminal, gamma=train.gamma)
    td = td_loss(goal, q_taken, weights)
    expectile = expectile_loss(target_q, now, weights, tau=train.tau)
    total = td + expectile
    parts = {"td": td, "expectile": expectile}
    if train.cql_weight > 0:
        conservative = conservative_loss(q_all, batch.actions, weights, temperature=train.cql_temperature)
        total = total + train.cql_weight * conservative
        parts["conservative"] = conservative
    parts |= {
        "q_mean": masked_mean(q_taken[0], weights),
        "v_mean": masked_mean(now, weights),
        "advantage_mean": masked_mean(target_q - now, weights),
    }
    return Loss(total, {name: part.detach() for name, part in parts.items()})


def after_step(module: nn.Module, train: Train) -> None:
    """The target takes its share of the online weights."""
    assert isinstance(module, ValueNetworks)
    module.update_target(train.polyak)


def actor(module: nn.Module, behaviour: nn.Module | None) -> Actor:
    """The behaviour policy, tilted by the target network's Q."""
    assert isinstance(module, ValueNetworks)
    return Actor(require(behaviour, "behaviour policy"), module.target)


@torch.no_grad()
def advantages(module: nn.Module, batch: TokenBatch) -> Tensor:
    """Q̄(a) − V at every action, shape (B, K): Q̄ of the target network, V of the online one."""
    assert isinstance(module, ValueNetworks)
    online = gather(hidden_states(module.online.trunk, batch.tokens, batch.attention_mask), batch.action_positions)
    frozen = gather(hidden_states(module.target.trunk, batch.tokens, batch.attention_mask), batch.action_positions)
    values: Tensor = module.v_head(online).squeeze(-1)
    return module.target.minimum_of(frozen, batch.actions) - values


METHOD = Method(
    name="ilql",
    title="ILQL",
    version=1,
    losses=("expectile", "td", "conservative"),
    train=Train,
    decode=Decode,
    uses_rewards=True,
    needs_behaviour=True,
    keep=keep_all,
    build=build,
    loss=loss,
    after_step=after_step,
    actor=actor,
    tilt=lambda decode: float(decode.beta),
    advantages=advantages,
    canonical=lambda train: ("ilql", train),
)
