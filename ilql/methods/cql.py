"""Conservative Q-learning, token by token: a max backup over the target network, held down by the conservative term.

L = L_Q + L_V + cql_weight · L_CQL, with Q̄ the smaller of the two target heads, token by token:
    L_Q = Σ_i mean (r + γ (1 − terminal) max_v Q̄(s', v) − Q_i(a))²
    L_V = mean ½ (Q̄ − V)²            (the expectile ½)
V takes no part in the backup; it is there for the advantage Q̄ − V that one looks at. The policy that acts is
softmax(log π_β + β Q̄).
Source: Snell et al. 2022 (arXiv 2206.11871), the baseline "CQL" of its visual-dialogue table, and its public
implementation (Sea-Snell/Implicit-Language-Q-Learning, models/cql_model.py); Kumar et al. 2020 (arXiv 2006.04779).

Differences from the public implementation: those of `ilql`. A recording that was cut off bootstraps from the best token
at its final state, where the public implementation takes 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql import token_values
from ilql.batch import TokenBatch
from ilql.language_model import gather
from ilql.losses import expectile_loss, masked_mean, max_backup, td_loss, td_target
from ilql.method import Loss
from ilql.networks import ValueNetworks, taken


@dataclass(frozen=True, kw_only=True)
class Train(token_values.ValueTraining):
    """Value training with a max backup."""


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """L_Q + L_V + cql_weight · L_CQL of a batch; `weights` of shape (B, K) are the mask of every mean."""
    assert isinstance(module, ValueNetworks)
    run = token_values.forward(module, batch, weights, train)
    now = run.values[:, :-1]
    with torch.no_grad():
        target_q = module.target.minimum(gather(run.frozen, batch.state_positions))  # (B, K + 1, V)
        best = max_backup(target_q[:, 1:])
        q_taken = taken(target_q[:, :-1], batch.actions)
    rewards, terminal = token_values.outcomes(module, batch, train)
    goal = td_target(rewards, best, terminal, gamma=train.gamma)
    parts = {"td": td_loss(goal, run.q_taken, weights), "expectile": expectile_loss(q_taken, now, weights, tau=0.5)}
    result = token_values.finish(parts, run, batch, weights, train)
    watched = {
        "v_mean": masked_mean(now, weights).detach(),
        "best_mean": masked_mean(best, weights),
        "advantage_mean": masked_mean(q_taken - now, weights).detach(),
    }
    return Loss(result.total, {**result.parts, **watched})


METHOD = token_values.method("cql", "CQL", version=1, losses=("max_backup", "expectile", "td"), train=Train, loss=loss)
