"""ILQL (AWR): a policy extracted from ILQL's critic by advantage-weighted regression, which then acts alone.

L = mean min(exp(awr_beta · (Q̄(a) − V)), awr_clip) · (−log π(a | s)), with Q̄ and V of a critic that is trained before
and frozen: ILQL at the `tau` named here, with all of ILQL's other settings, which stand here too. It is the same
training as ILQL's own cell of those settings, and done once for both. `steps`, `batch_size` and `learning_rate` hold
for the critic and for the policy.
Source: Snell et al. 2022 (arXiv 2206.11871), the row "ILQL (AWR)" of its visual-dialogue table; Peng et al. 2019
(arXiv 1910.00177); the public implementation's policy loss (Sea-Snell/Implicit-Language-Q-Learning,
models/iql_model.py).

Differences from the public implementation:
1. The critic is finished before the policy begins; there both are trained at once, so its early weights are noise.
2. Weights are clipped at `awr_clip`; there nothing clips them by default, and exp(16 · A) overflows.
3. The mean is over action tokens; there it is over all tokens, which scales the loss by the agent's share.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql import token_values
from ilql.batch import TokenBatch
from ilql.fused import cloning_loss
from ilql.hyperparameters import NOT_NEGATIVE, POSITIVE, Range, Search, hyper
from ilql.language_model import gather, head_of, hidden_states, placed, trunk_of
from ilql.losses import advantage_weights, masked_mean
from ilql.method import Actor, Decoding, Loss, Method, Start, require
from ilql.methods import ilql
from ilql.networks import ValueNetworks


@dataclass(frozen=True, kw_only=True)
class Train(ilql.Train):
    """The critic's settings, and how the policy follows it."""

    awr_beta: float = hyper(
        4.0,
        NOT_NEGATIVE,
        meaning="strength of the advantage in the policy's weights",
        search=Search(0.5, 32.0, log=True),
    )
    awr_clip: float = hyper(100.0, POSITIVE, meaning="largest weight of an action")
    policy_start: str = hyper(
        "behaviour",
        Range(choices=("behaviour", "pretrained")),
        meaning="whether the policy starts from the behaviour policy's weights or from the pretrained model's",
    )


@dataclass(frozen=True, kw_only=True)
class Decode(Decoding):
    """Plain decoding: the tilt is in the weights."""


class Extraction(nn.Module):
    """A language model, and the critic that weighs what it clones."""

    def __init__(self, policy: nn.Module, critic: ValueNetworks) -> None:
        super().__init__()
        self.policy = policy
        self.critic = (critic.eval().requires_grad_(False),)  # in a tuple: neither trained nor saved with the policy


def critic(train: Train) -> tuple[str, ilql.Train]:
    """ILQL with the settings that stand here."""
    names = [item.name for item in dataclasses.fields(ilql.Train)]
    return "ilql", ilql.Train(**{name: getattr(train, name) for name in names})


def build(start: Start, train: Train) -> nn.Module:
    """The policy to begin with, and the finished critic."""
    values = require(start.critic, "critic")
    assert isinstance(values, ValueNetworks)
    source = start.pretrained if train.policy_start == "pretrained" else require(start.behaviour, "behaviour policy")
    return Extraction(copy.deepcopy(source).requires_grad_(True), values)


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """The weighted cloning loss of a batch; `weights` of shape (B, K) are the mask of its mean."""
    assert isinstance(module, Extraction)
    policy = module.policy
    with torch.no_grad():
        values = token_values.action_values(placed(module.critic[0], batch.tokens.device), batch)
        factors = advantage_weights(values.q, values.v, awr_beta=train.awr_beta, clip=train.awr_clip)
    states = gather(hidden_states(trunk_of(policy), batch.tokens), batch.action_positions)
    total = cloning_loss(states, head_of(policy), batch.actions, factors, weights)
    parts = {
        "weighted_nll": total.detach(),
        "weight_mean": masked_mean(factors, weights),
        "clipped_share": masked_mean((factors >= train.awr_clip).float(), weights),
        "advantage_mean": masked_mean(values.advantage, weights),
    }
    return Loss(total, parts)


def actor(module: nn.Module, behaviour: nn.Module | None) -> Actor:
    """The extracted policy."""
    assert isinstance(module, Extraction)
    return Actor(module.policy)


METHOD = Method(
    name="awr",
    title="ILQL (AWR)",
    version=1,
    losses=("advantage_weights", "nll"),
    train=Train,
    decode=Decode,
    build=build,
    loss=loss,
    actor=actor,
    needs_behaviour=True,
    critic=critic,
)
