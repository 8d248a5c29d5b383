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
2. The target network does not drop out, unless `target_dropout` says so.
3. The policy is the frozen behaviour policy, trained once, unless `separate_policy` says otherwise; `start` says what
   the value trunk starts from: the pretrained model, as in the paper's runs, or the behaviour policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql import token_values
from ilql.batch import TokenBatch
from ilql.hyperparameters import Range, Search, hyper
from ilql.language_model import gather
from ilql.losses import expectile_loss, masked_mean, td_loss, td_target
from ilql.method import Loss
from ilql.networks import ValueNetworks


@dataclass(frozen=True, kw_only=True)
class Train(token_values.ValueTraining):
    """Value training with a free expectile."""

    tau: float = hyper(
        0.7,
        Range(0.0, 1.0, open_low=True, open_high=True),
        meaning="expectile of the regression of V on Q",
        search=Search(0.5, 0.95),
    )


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """L_Q + L_V + cql_weight · L_CQL of a batch; `weights` of shape (B, K) are the mask of every mean."""
    assert isinstance(module, ValueNetworks)
    run = token_values.forward(module, batch, weights, train)
    now, after = run.values[:, :-1], run.values[:, 1:]
    with torch.no_grad():
        target_q = module.target.minimum_of(gather(run.frozen, batch.action_positions), batch.actions)
    rewards, terminal = token_values.outcomes(module, batch, train)
    goal = td_target(rewards, after, terminal, gamma=train.gamma)
    parts = {
        "td": td_loss(goal, run.q_taken, weights),
        "expectile": expectile_loss(target_q, now, weights, tau=train.tau),
    }
    result = token_values.finish(parts, run, batch, weights, train)
    watched = {"v_mean": masked_mean(now, weights), "advantage_mean": masked_mean(target_q - now, weights)}
    return Loss(result.total, {**result.parts, **{name: part.detach() for name, part in watched.items()}})


METHOD = token_values.method("ilql", "ILQL", version=2, losses=("expectile", "td"), train=Train, loss=loss)
