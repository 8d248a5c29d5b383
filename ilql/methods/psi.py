"""ψ-learning: a soft backup towards the behaviour policy, so that softmax(Ψ) itself is the improved policy.

L = Σ_i mean Huber(r / reward_scale + log π_β(a | s) + γ (1 − terminal) log Σ_v exp Ψ̄(s', v) − Ψ_i(a)), with Ψ̄ the
smaller of the two target heads, token by token. The state's value is log Σ_v exp Ψ̄(s, v), so there is no V head, and
Ψ̄(a) − log Σ_v exp Ψ̄(v) is the log-probability of a under the improved policy. The larger `reward_scale` is, the less
rewards count beside the behaviour policy: at its infinity Ψ = log π_β + a constant.
Ψ = log π_β + G begins as the behaviour policy, and the heads learn G (`begin="policy"`); then log π_β(a) cancels in the
loss, and the backup log Σ_v π_β(v | s') exp Ḡ(s', v) is an average over what the policy says.
The policy that acts is softmax(log π_β + β Ψ̄), or softmax(Ψ̄)'s best token at β = ∞.
Source: Jaques et al. 2019 (arXiv 1907.00456), ψ-learning, whose networks all begin as the prior; as the baseline "ψ" of
Snell et al. 2022 (arXiv 2206.11871), and its public implementation (Sea-Snell/Implicit-Language-Q-Learning,
models/bcq_model.py), where r is divided by `r_scale`.

Differences from the public implementation:
1. Those of `ilql`. A recording that was cut off bootstraps from its final state, where the public implementation takes
   log V, the logsumexp of nothing but zeros.
2. No V head is trained along: it has no part in the target, and the soft value is at hand.
3. There the heads are Ψ and begin at random (`begin="random"`), all near 0, so that every state is worth log V too much
   to begin with: each token said in one state raises that token in all others, nothing lowers it there, and every
   backup adds about log V again. docs/log.md has what came of it: of three rates of the target only one so slow that
   values hardly move keeps it from saying one word for ever; so do a conservative term, and beginning as the policy.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql import token_values
from ilql.batch import TokenBatch
from ilql.hyperparameters import NOT_NEGATIVE, POSITIVE, Range, Search, hyper
from ilql.language_model import Frozen, gather, hidden_states
from ilql.losses import masked_mean, psi_loss, soft_backup, td_target
from ilql.method import ActionValues, Actor, Loss, Start, require
from ilql.networks import ValueNetworks, taken


@dataclass(frozen=True, kw_only=True)
class Train(token_values.ValueTraining):
    """Value training with a soft backup."""

    reward_scale: float = hyper(
        1.0, POSITIVE, meaning="what rewards are divided by, beside log π_β", search=Search(0.05, 20.0, log=True)
    )
    cql_weight: float = hyper(0.0, NOT_NEGATIVE, meaning="weight of the conservative term; log π_β stands in for it")
    begin: str = hyper(
        "policy",
        Range(choices=("policy", "random")),
        meaning="whether Ψ begins as log π_β, to which the heads add, or is what the heads begin with at random",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.separate_policy:
            raise ValueError("separate_policy must be true: its values are relative to the frozen policy, got False")


def build(start: Start, train: Train) -> nn.Module:
    """ILQL's networks without a V that is trained, reading the behaviour policy."""
    networks = token_values.build(start, train)
    assert isinstance(networks, ValueNetworks)
    networks.v_head.requires_grad_(False)
    networks.behaviour = Frozen(require(start.behaviour, "behaviour policy"))
    networks.relative = train.begin == "policy"
    return networks


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """The Huber loss of a batch; `weights` of shape (B, K) are the mask of its mean."""
    assert isinstance(module, ValueNetworks)
    assert module.behaviour is not None
    run = token_values.forward(module, batch, weights, train)
    with torch.no_grad():
        log_pi = module.behaviour.log_probabilities(batch.tokens, batch.state_positions)
        target_psi = module.target.minimum(gather(run.frozen, batch.state_positions))  # (B, K + 1, V)
        soft = soft_backup(target_psi + log_pi if module.relative else target_psi)
        log_pi_taken = taken(log_pi[:, :-1], batch.actions)
    rewards, terminal = token_values.outcomes(module, batch, train)
    goal = td_target(rewards / train.reward_scale + log_pi_taken, soft[:, 1:], terminal, gamma=train.gamma)
    psi = [q + log_pi_taken for q in run.q_taken] if module.relative else run.q_taken
    result = token_values.finish({"psi": psi_loss(goal, psi, weights)}, run, batch, weights, train)
    return Loss(result.total, {**result.parts, "soft_value_mean": masked_mean(soft[:, :-1], weights)})


def actor(module: nn.Module, behaviour: nn.Module | None) -> Actor:
    """The behaviour policy, tilted by the target's Ψ."""
    assert isinstance(module, ValueNetworks)
    return dataclasses.replace(token_values.actor(module, behaviour), relative=module.relative)


@torch.no_grad()
def action_values(module: nn.Module, batch: TokenBatch) -> ActionValues:
    """Ψ̄(a) and log Σ_v exp Ψ̄(v) at every action: their difference is its log-probability under the improved policy."""
    assert isinstance(module, ValueNetworks)
    assert module.behaviour is not None
    frozen = hidden_states(module.target.trunk, batch.tokens)
    psi = module.target.minimum(gather(frozen, batch.action_positions))
    if module.relative:
        psi = psi + module.behaviour.log_probabilities(batch.tokens, batch.action_positions)
    return ActionValues(taken(psi, batch.actions), soft_backup(psi))


METHOD = token_values.method(
    "psi",
    "ψ",
    version=2,
    losses=("soft_backup", "psi", "td"),
    train=Train,
    loss=loss,
    build=build,
    actor=actor,
    values=action_values,
    valued=None,  # Ψ sums log π_β beside the rewards
)
