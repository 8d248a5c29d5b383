"""Q-SFT: Q-learning as supervised fine-tuning. No new heads: token probabilities are the Q-values.

A language model p is fine-tuned with a cross-entropy whose weights are Bellman targets on a scale of [0, 1]:
    L = −mean [B log p(a | s) + (1 − B)/(V − 1) Σ_{v ≠ a} log p(v | s)]
    B = clip(1 + r/R + γ (1 − terminal) (max_v p̄(v | s')/π_β(v | s') − 1), 0, 1)
p̄ is the target, a lagging average of p. Where p = π_β · Q on the data, p/π_β is Q; the best next token is looked for
among those the behaviour policy holds likely, since a ratio of two tiny numbers is noise. Rewards here are negative and
sum to at least −R, so Q on [0, 1] is 1 + Q/R: the target above is that map applied to r + γ Q(s'), exactly.
The policy that acts is softmax(log π_β + β p̄).
Source: Hong et al. 2024 (arXiv 2411.05193).

What is ours, where the paper leaves it open: the map to [0, 1], the support of the maximum, the clip of the ratio at 1,
and that the target p̄ tilts, as it does for the other methods here, where the paper writes p.

Where it does badly: on visual dialogue at the laptop preset it is below cloning on the generated world (−11.5 to −12.4
against −10.1) and about one above it on the recorded one. Checked: its fixed points on small tables are right (tests).
Seen: the mean target is .92 at R = 10 and .97 at R = 30, so the loss is nearly cloning's and p̄ stays near π_β; since p̄
is π_β · Q, a tilt by exp(β p̄) can hardly raise a token that π_β holds unlikely. Not tried: a tilt by p̄/π_β.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch
from ilql.hyperparameters import (
    AT_LEAST_ONE,
    NOT_NEGATIVE_OR_INFINITE,
    POSITIVE,
    SHARE,
    UNIT,
    Range,
    Search,
    hyper,
)
from ilql.language_model import Frozen, gather, hidden_states, trunk_of
from ilql.losses import bounded_backup, masked_mean, probability_q_loss
from ilql.method import Actor, Decoding, Loss, Manner, Method, Start, Training, require
from ilql.networks import renew_target


@dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Fine-tuning on Bellman targets."""

    gamma: float = hyper(0.99, UNIT, meaning="discount per action token", search=Search(0.9, 1.0))
    return_range: float = hyper(
        30.0,
        POSITIVE,
        meaning="R: returns lie in [−R, 0]; lower ones count as −R",
        search=Search(5.0, 50.0, log=True),
    )
    support: float = hyper(
        0.01, SHARE, meaning="the best next token is one of at least so much of the likeliest one's probability"
    )
    polyak: float = hyper(0.005, SHARE, meaning="share of the online weights that the target takes when it is renewed")
    target_every: int = hyper(1, AT_LEAST_ONE, meaning="optimiser steps between renewals of the target")
    start: str = hyper(
        "behaviour",
        Range(choices=("behaviour", "pretrained")),
        meaning="whether the model starts from the behaviour policy's weights or from the pretrained model's",
    )


@dataclass(frozen=True, kw_only=True)
class Decode(Decoding):
    """Decoding with the tilt."""

    beta: float = hyper(
        8.0,
        NOT_NEGATIVE_OR_INFINITE,
        meaning="strength of the probabilities-as-values at decoding; infinity leaves the behaviour policy out",
    )


class ProbabilityQ(nn.Module):
    """A language model whose token probabilities are Q-values."""

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model

    @property
    def trunk(self) -> nn.Module:
        """Its transformer."""
        return trunk_of(self.language_model)

    def logits(self, hidden: Tensor) -> Tensor:
        """Of shape (..., V)."""
        logits: Tensor = self.language_model.get_output_embeddings()(hidden)  # type: ignore[operator]
        return logits

    def minimum(self, hidden: Tensor) -> Tensor:
        """Q of every token, in [0, 1], shape (..., V)."""
        return self.logits(hidden).float().softmax(dim=-1)


class FineTuned(nn.Module):
    """The model, its target, and the behaviour policy both are measured against."""

    def __init__(self, language_model: nn.Module, behaviour: nn.Module) -> None:
        super().__init__()
        self.online = ProbabilityQ(copy.deepcopy(language_model).requires_grad_(True))
        self.target = ProbabilityQ(copy.deepcopy(language_model).requires_grad_(False))
        self.behaviour = Frozen(behaviour)

    def train(self, mode: bool = True) -> FineTuned:
        """Training mode for the online model only."""
        super().train(mode)
        self.target.eval()
        return self


def build(start: Start, train: Train) -> nn.Module:
    """Model and target on copies of the language model that `train.start` names."""
    behaviour = require(start.behaviour, "behaviour policy")
    return FineTuned(start.pretrained if train.start == "pretrained" else behaviour, behaviour)


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """The Bellman-weighted cross-entropy of a batch; `weights` of shape (B, K) are the mask of its mean."""
    assert isinstance(module, FineTuned)
    with torch.no_grad():
        states = hidden_states(module.target.trunk, batch.tokens)
        after = batch.state_positions[:, 1:]
        log_p = module.target.logits(gather(states, after)).float().log_softmax(dim=-1)
        log_pi = module.behaviour.log_probabilities(batch.tokens, after)
        best = bounded_backup(supported_ratio(log_p, log_pi, support=train.support))
        target = bellman_target(batch.rewards, best, batch.terminal, gamma=train.gamma, return_range=train.return_range)
    hidden = hidden_states(module.online.trunk, batch.tokens)
    logits = module.online.logits(gather(hidden, batch.action_positions))
    total = probability_q_loss(logits, batch.actions, target, weights)
    parts = {
        "probability_q": total.detach(),
        "target_mean": masked_mean(target, weights),
        "clipped_share": masked_mean((target <= 0).float(), weights),
    }
    return Loss(total, parts)


def supported_ratio(log_p: Tensor, log_pi: Tensor, *, support: float) -> Tensor:
    """p̄/π_β where π_β is at least `support` times its largest, 0 elsewhere, shape (B, K, V)."""
    likely = log_pi >= log_pi.amax(dim=-1, keepdim=True) + torch.tensor(support).log()
    return torch.where(likely, (log_p - log_pi).exp(), torch.zeros_like(log_p))


def bellman_target(rewards: Tensor, best: Tensor, terminal: Tensor, *, gamma: float, return_range: float) -> Tensor:
    """B = clip(1 + r/R + γ (1 − terminal)(best − 1), 0, 1), shape (B, K): r + γ Q' where −R counts as 0 and 0 as 1."""
    following = torch.where(terminal.bool(), torch.zeros_like(best), best - 1)
    return (1 + rewards / return_range + gamma * following).clamp(0, 1)


def actor(module: nn.Module, behaviour: nn.Module | None) -> Actor:
    """The behaviour policy, tilted by the target's probabilities."""
    assert isinstance(module, FineTuned)
    return Actor(require(behaviour, "behaviour policy"), module.target)


def manner(train: Train, decode: Decode) -> Manner:
    """Every token is tilted by exp(β p̄)."""
    return Manner(beta=decode.beta)


METHOD = Method(
    name="qsft",
    title="Q-SFT",
    version=1,
    losses=("probability_q",),
    train=Train,
    decode=Decode,
    build=build,
    loss=loss,
    actor=actor,
    needs_behaviour=True,
    after_step=renew_target,
    manner=manner,
)
