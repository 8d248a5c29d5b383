"""Behaviour cloning: the language model learns to say what the agent's side of the recorded dialogues said.

Differences from the public implementation (Sea-Snell/Implicit-Language-Q-Learning, models/bc_lm.py):
1. The mean is over action tokens, not over all tokens, so the loss does not shrink with the share of world text.

The policy that every value method acts with is one such training, done once and frozen.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch
from ilql.fused import cloning_loss
from ilql.language_model import gather, head_of, hidden_states, trunk_of
from ilql.method import Actor, Decoding, Loss, Method, Start, Training


@dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Nothing beyond what every training has."""


@dataclass(frozen=True, kw_only=True)
class Decode(Decoding):
    """Nothing beyond what every decoding has."""


def build(start: Start, train: Training) -> nn.Module:
    """A copy of the pretrained language model, all of it trainable."""
    return copy.deepcopy(start.pretrained).requires_grad_(True)


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Training) -> Loss:
    """Mean −log π(a_k | what was said before) over the agent's tokens."""
    hidden = hidden_states(trunk_of(module), batch.tokens)
    at_actions = gather(hidden, batch.action_positions)
    nll = cloning_loss(at_actions, head_of(module), batch.actions, torch.ones_like(weights), weights)
    return Loss(nll, {"nll": nll.detach()})


def actor(module: nn.Module, behaviour: nn.Module | None) -> Actor:
    """The cloned model acts alone."""
    return Actor(module, None)


METHOD = Method(
    name="bc",
    title="BC",
    version=1,
    losses=("nll",),
    train=Train,
    decode=Decode,
    build=build,
    loss=loss,
    actor=actor,
    uses_rewards=False,
)
