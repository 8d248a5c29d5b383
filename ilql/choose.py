"""One token for every slot: the tilt, the filters, the draw, as pure functions of tensors.

Axes: *S* slots, *V* vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ilql.method import Decoding, Manner, TokenCritic


@dataclass(frozen=True)
class Knobs:
    """Decoding settings as tensors, one entry per slot, shape (S,) each.

    Attributes:
        after: True where temperature and filters act on the tilted scores; None is nowhere.
        filters: False if it is known that no slot has a top-k or a top-p, so that no device has to be asked.
        draws: False if it is known that every slot is greedy, so that no distribution function is needed.
    """

    beta: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    greedy: Tensor
    after: Tensor | None = None
    filters: bool = True
    draws: bool = True

    @classmethod
    def of(cls, decodes: Sequence[Decoding], manners: Sequence[Manner], device: torch.device) -> Knobs:
        """Settings as tensors, one slot for each pair.

        Raises:
            ValueError: A beta is below 0, or no number.
        """
        for manner in manners:
            if math.isnan(manner.beta) or manner.beta < 0:
                raise ValueError(f"beta must be at least 0, got {manner.beta}")
        after = [manner.filter_after for manner in manners]
        return cls(
            torch.tensor([manner.beta for manner in manners], dtype=torch.float32, device=device),
            torch.tensor([decode.temperature for decode in decodes], dtype=torch.float32, device=device),
            torch.tensor([decode.top_k for decode in decodes], device=device),
            torch.tensor([decode.top_p for decode in decodes], dtype=torch.float32, device=device),
            torch.tensor([decode.greedy for decode in decodes], device=device),
            torch.tensor(after, device=device) if any(after) else None,
            filters=any(decode.top_k > 0 or decode.top_p < 1 for decode in decodes),
            draws=not all(decode.greedy for decode in decodes),
        )

    def at(self, rows: Tensor) -> Knobs:
        """The settings of some of the slots, in that order."""
        return Knobs(
            self.beta[rows],
            self.temperature[rows],
            self.top_k[rows],
            self.top_p[rows],
            self.greedy[rows],
            None if self.after is None else self.after[rows],
            self.filters,
            self.draws,
        )


def choose(
    logits: Tensor, q: Tensor | None, writable: Tensor, knobs: Knobs, uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The next token of every slot, its log π − log π_β, and its log π_β.

    π(v) ∝ exp(ℓ(v) + β Q(v)), where ℓ are the language model's log-probabilities after temperature, top-k and top-p.
    Where the knobs say `after`, temperature, top-k and top-p act on log π_β(v) + β Q(v) instead.
    With β = ∞ the language model is left out: the token with the highest Q. There, and where a slot is greedy, one
    token is certain: log π = 0. Only writable tokens are chosen, and π_β is the language model among those.

    Args:
        logits: The language model's, shape (S, V).
        q: The critic's Q, shape (S, V), or None for no tilt.
        writable: Shape (V,), true for tokens a policy may choose.
        knobs: Settings per slot.
        uniform: Shape (S,), float64 in [0, 1): the draw of slots that sample, by inverting the distribution function.

    Returns:
        Tokens, log-ratios and log-probabilities, shape (S,) each.
    """
    base, score = scores(logits, q, writable, knobs)
    tokens = score.argmax(dim=-1)
    if not knobs.draws:
        log_base = base.gather(1, tokens[:, None]).squeeze(1)
        return tokens, -log_base, log_base
    certain = knobs.greedy | torch.isinf(knobs.beta)
    log_policy = score.log_softmax(dim=-1)
    cumulative = log_policy.double().exp().cumsum(dim=-1)
    drawn = (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(dim=-1).clamp(max=score.shape[-1] - 1)
    tokens = torch.where(certain, tokens, drawn)
    picked = tokens[:, None]
    log_pi = torch.where(certain, 0.0, log_policy.gather(1, picked).squeeze(1))
    log_base = base.gather(1, picked).squeeze(1)
    return tokens, log_pi - log_base, log_base


def policy_inputs(
    head: Callable[[Tensor], Tensor],
    critic: TokenCritic | None,
    states: Tensor,
    critic_states: Tensor | None,
    *,
    relative: bool,
) -> tuple[Tensor, Tensor | None]:
    """A policy's logits and the Q that tilts them, or None, shape (S, V) each, from its networks' hidden states.

    Args:
        head: The language model's.
        critic: What tilts.
        states: The language model's, shape (S, D).
        critic_states: The critic's, shape (S, D').
        relative: Whether the critic's values are what is added to the language model's log-probabilities.
    """
    logits = head(states).float()
    if critic is None or critic_states is None:
        return logits, None
    q = critic.minimum(critic_states).float()
    return logits, q + logits.log_softmax(dim=-1) if relative else q


def probabilities(logits: Tensor, q: Tensor | None, writable: Tensor, knobs: Knobs) -> Tensor:
    """How likely `choose` takes each token, shape (S, V): one token for certain where it is greedy, or β = ∞."""
    _, score = scores(logits, q, writable, knobs)
    certain = torch.zeros_like(score).scatter_(1, score.argmax(dim=-1, keepdim=True), 1.0)
    return torch.where((knobs.greedy | torch.isinf(knobs.beta))[:, None], certain, score.softmax(dim=-1))


def scores(logits: Tensor, q: Tensor | None, writable: Tensor, knobs: Knobs) -> tuple[Tensor, Tensor]:
    """Log π_β, and the scores that are sampled from by their softmax or by their maximum, shape (S, V) each.

    What is said in `choose` of the tilt, the filters and β = ∞ is done here.
    """
    base = torch.where(writable, logits, -torch.inf).log_softmax(dim=-1)
    score = _filtered(base / knobs.temperature[:, None], knobs)
    without_model = torch.isinf(knobs.beta)
    if q is not None:
        finite = torch.where(without_model, torch.zeros_like(knobs.beta), knobs.beta)
        tilt = finite[:, None] * q
        score = score + tilt
        if knobs.after is not None:
            late = _filtered((base + tilt) / knobs.temperature[:, None], knobs)
            score = torch.where(knobs.after[:, None], late, score)
        score = torch.where(without_model[:, None], q, score)
        score = torch.where(writable, score, -torch.inf)
    return base, score


def filtered(logits: Tensor, *, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Logits with all but the top k, and all but the smallest set of probability above p, at −∞; per row, shape (S, V).

    The token that crosses p is kept. k = 0 and p = 1 keep everything. Equal logits are ranked by id.
    """
    if not ((top_k > 0) | (top_p < 1)).any():
        return logits
    order = logits.argsort(dim=-1, descending=True, stable=True)
    ranked = logits.gather(1, order)
    probability = ranked.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability
    rank = torch.arange(logits.shape[-1], device=logits.device)
    outside_k = (top_k[:, None] > 0) & (rank >= top_k[:, None])
    outside_p = (top_p[:, None] < 1) & (before > top_p[:, None])
    ranked = ranked.masked_fill(outside_k | outside_p, -torch.inf)
    return torch.empty_like(logits).scatter_(1, order, ranked)


def _filtered(logits: Tensor, knobs: Knobs) -> Tensor:
    return filtered(logits, top_k=knobs.top_k, top_p=knobs.top_p) if knobs.filters else logits
