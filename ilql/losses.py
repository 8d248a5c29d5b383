"""The mathematics of the losses: pure functions of tensors.

Axes: *B* dialogues, *T* positions, *K* agent's tokens (actions), *V* vocabulary.

Conventions, because the published implementations disagree: every mean is Σ m·x / Σ m with a boolean or non-negative
float mask m, and 0 where Σ m = 0; value heads are summed, not averaged; there are no factors of one half but Huber's.
Targets and weights are constants: no gradient flows through them. A float mask weighs: 1/K_b on each of the K_b actions
of dialogue b counts every dialogue alike, as the paper's micro-batches of one do.

Sources: Snell et al. 2022 (arXiv 2206.11871), sections 4 and 5; Kostrikov et al. 2021 (arXiv 2110.06169), equations
5-7; Kumar et al. 2020 (arXiv 2006.04779) for the conservative term.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

VERSIONS = {
    "expectile": 1, "td": 1, "conservative": 1, "nll": 1, "advantage_weights": 1, "monte_carlo": 1, "max_backup": 1,
    "soft_backup": 1, "psi": 1, "margin": 1, "probability_q": 1, "candidates": 1,
}  # fmt: skip
"""Raised when a loss's meaning changes: weights that were trained with it are then other weights."""


def _check_shape(name: str, value: Tensor, expected: Sequence[int]) -> None:
    """Broadcasting would hide a wrong shape; refuse it."""
    if tuple(value.shape) != tuple(expected):
        raise ValueError(f"{name} must have shape {tuple(expected)}, got {tuple(value.shape)}")


def _counted(values: Tensor, mask: Tensor) -> Tensor:
    """`values` with 0 under zeros of the mask, so that neither an infinite value there nor its gradient counts."""
    return torch.where(mask > 0, values, torch.zeros_like(values))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Σ m·x / Σ m, a scalar; 0 where Σ m = 0. A value under a zero of the mask does not count, even if infinite.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shape("mask", mask, values.shape)
    weights = mask.to(values.dtype)
    total = weights.sum()
    return (weights * _counted(values, weights)).sum() / torch.where(total > 0, total, torch.ones_like(total))


def expectile_loss(target: Tensor, prediction: Tensor, mask: Tensor, *, tau: float) -> Tensor:
    """The mean of |τ − 1(δ < 0)| · δ² with δ = target − prediction: the expectile regression of V on Q.

    A prediction below its target (δ ≥ 0) weighs τ, one above it 1 − τ; so τ > ½ pulls the prediction up, towards the
    best of what the data holds. At τ = ½ it is half the mean squared error.

    Args:
        target: Q of the action taken, shape (B, K); a constant.
        prediction: V of its state, shape (B, K).
        mask: What counts, shape (B, K).
        tau: The expectile, in (0, 1).

    Raises:
        ValueError: Shapes differ, or tau is out of range.
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau must be in (0, 1), got {tau}")
    _check_shape("prediction", prediction, target.shape)
    _check_shape("mask", mask, target.shape)
    error = _counted(target.detach() - prediction, mask)
    weight = torch.where(error >= 0, tau, 1 - tau)
    return masked_mean(weight * error.square(), mask)


def td_target(rewards: Tensor, next_values: Tensor, terminal: Tensor, *, gamma: float) -> Tensor:
    """R + γ (1 − terminal) · next, shape (B, K); a constant.

    Args:
        rewards: r_k, shape (B, K).
        next_values: V of the state after action k, shape (B, K).
        terminal: True if the episode ends after action k, shape (B, K). A recording that was cut off is not terminal:
            it bootstraps from its final state.
        gamma: The discount per action token, in [0, 1].

    Raises:
        ValueError: Shapes differ, or gamma is out of range.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    _check_shape("next_values", next_values, rewards.shape)
    _check_shape("terminal", terminal, rewards.shape)
    return rewards + gamma * torch.where(terminal.bool(), torch.zeros_like(next_values), next_values.detach())


def td_loss(target: Tensor, predictions: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Σ over heads of the mean of (target − Q)², each head of shape (B, K); the target is a constant.

    Raises:
        ValueError: Shapes differ, or there is no head.
    """
    errors = _errors("td_loss", target, predictions, mask)
    return torch.stack([masked_mean(error.square(), mask) for error in errors]).sum()


def _errors(loss: str, target: Tensor, predictions: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """How far each head is below the target, shape (B, K) each; 0 where the mask is. The target is a constant.

    Raises:
        ValueError: Shapes differ, or there is no head for the loss.
    """
    if not predictions:
        raise ValueError(f"{loss} needs at least one head, got none")
    _check_shape("mask", mask, target.shape)
    for prediction in predictions:
        _check_shape("a prediction", prediction, target.shape)
    constant = target.detach()
    return [_counted(constant - prediction, mask) for prediction in predictions]


def conservative_loss(q_values: Sequence[Tensor], actions: Tensor, mask: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Σ over heads of the mean of logsumexp_v(Q(v)/c) − Q(a)/c, c the temperature.

    That is the cross-entropy of softmax(Q/c) against the action a that was taken: the discrete conservative (CQL) term,
    which pushes the Q-values of tokens that the data does not hold below those it does.

    Args:
        q_values: Heads, each of shape (B, K, V).
        actions: The ids taken, shape (B, K).
        mask: What counts, shape (B, K).
        temperature: c, above 0.

    Raises:
        ValueError: Shapes differ, there is no head, or the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if not q_values:
        raise ValueError("conservative_loss needs at least one head, got none")
    terms = []
    for q in q_values:
        _check_shape("a head of q_values", q, (*actions.shape, q.shape[-1]))
        terms.append(masked_mean(_cross_entropy(q / temperature, actions, mask), mask))
    return torch.stack(terms).sum()


def _cross_entropy(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """−log softmax(logits)[token], shape (B, T) from logits (B, T, V), where the mask is above 0; a constant elsewhere.

    Raises:
        ValueError: The mask has another shape than the tokens.
    """
    _check_shape("mask", mask, tokens.shape)
    counted = _counted(logits, mask.unsqueeze(-1))
    return functional.cross_entropy(counted.flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)


def advantage_weights(target_q: Tensor, values: Tensor, *, awr_beta: float, clip: float | None = None) -> Tensor:
    """min(exp(awr_beta · (Q − V)), clip), shape (B, K); a constant. `clip=None` does not clip.

    Raises:
        ValueError: Shapes differ, awr_beta is negative, or the clip is not positive.
    """
    if awr_beta < 0:
        raise ValueError(f"awr_beta must be at least 0, got {awr_beta}")
    if clip is not None and clip <= 0:
        raise ValueError(f"clip must be above 0 or None, got {clip}")
    _check_shape("values", values, target_q.shape)
    weights = torch.exp(awr_beta * (target_q - values).detach())
    return weights if clip is None else weights.clamp(max=clip)


def weighted_nll(logits: Tensor, tokens: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Σ m·w·(−log softmax(logits)[token]) / Σ m: the mean is over the mask, not over the weights.

    Args:
        logits: Shape (B, T, V), already aligned: logits[:, t] predict tokens[:, t].
        tokens: Shape (B, T).
        weights: Shape (B, T); constants.
        mask: What counts, shape (B, T).

    Raises:
        ValueError: Shapes differ.
    """
    _check_shape("logits", logits, (*tokens.shape, logits.shape[-1]))
    _check_shape("weights", weights, tokens.shape)
    return masked_mean(weights.detach() * _cross_entropy(logits, tokens, mask), mask)


def monte_carlo_returns(rewards: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """G_k = Σ_{j ≥ k} γ^(j − k) m_j r_j, shape (B, K), where m_j is 1 on real actions and 0 elsewhere.

    Args:
        rewards: Shape (B, K).
        mask: Shape (B, K); real actions are those with a mask above 0. They stand first in each row.
        gamma: The discount per action token, in [0, 1].

    Raises:
        ValueError: Shapes differ, or gamma is out of range.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    _check_shape("mask", mask, rewards.shape)
    counted = _counted(rewards, mask)
    returns = torch.zeros_like(counted)
    following = torch.zeros(counted.shape[0], dtype=counted.dtype, device=counted.device)
    for k in reversed(range(counted.shape[1])):
        following = counted[:, k] + gamma * following
        returns[:, k] = following
    return returns


def max_backup(target_q: Tensor) -> Tensor:
    """max_v Q̄(v): the value of a state in which the best of all tokens follows, shape (B, K) from (B, K, V).

    Args:
        target_q: The target's Q, the minimum over its heads taken already, token by token; a constant.
    """
    return target_q.detach().amax(dim=-1)


def soft_backup(target_q: Tensor) -> Tensor:
    """Log Σ_v exp Q̄(v): the soft value of a state, shape (B, K) from (B, K, V).

    Args:
        target_q: The target's Q, the minimum over its heads taken already, token by token; a constant.
    """
    return target_q.detach().logsumexp(dim=-1)


def psi_loss(target: Tensor, predictions: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Σ over heads of the mean of Huber(target − Ψ): ½δ² where |δ| ≤ 1, |δ| − ½ beyond; each head of shape (B, K).

    Raises:
        ValueError: Shapes differ, or there is no head.
    """
    errors = _errors("psi_loss", target, predictions, mask)
    terms = [functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=1.0) for error in errors]
    return torch.stack([masked_mean(term, mask) for term in terms]).sum()


def margin_loss(q_values: Sequence[Tensor], actions: Tensor, mask: Tensor, *, margin: float) -> Tensor:
    """Σ over heads of the mean of Σ_v max(0, Q(v) − Q(a) + margin)²: tokens not taken keep below the one taken.

    The token taken adds margin² itself, as in the public implementation; that moves the number and no gradient.

    Args:
        q_values: Heads, each of shape (B, K, V).
        actions: The ids taken, shape (B, K).
        mask: What counts, shape (B, K).
        margin: By how much the others should keep below, at least 0.

    Raises:
        ValueError: Shapes differ, there is no head, or the margin is negative.
    """
    if margin < 0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    if not q_values:
        raise ValueError("margin_loss needs at least one head, got none")
    _check_shape("mask", mask, actions.shape)
    terms = []
    for q in q_values:
        _check_shape("a head of q_values", q, (*actions.shape, q.shape[-1]))
        counted = _counted(q, mask.unsqueeze(-1))
        taken = counted.gather(-1, actions.unsqueeze(-1))
        terms.append(masked_mean((counted - taken + margin).clamp(min=0).square().sum(-1), mask))
    return torch.stack(terms).sum()


def bounded_backup(target_ratio: Tensor) -> Tensor:
    """min(1, max_v ratio(v)): the best next token's Q on a scale of [0, 1], shape (B, K) from (B, K, V).

    Args:
        target_ratio: p̄(v) / π_β(v), the target's token probabilities over the behaviour policy's; a constant.
    """
    return target_ratio.detach().amax(dim=-1).clamp(max=1.0)


def probability_q_loss(logits: Tensor, actions: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """The mean of −[B log p(a) + (1 − B)/(V − 1) Σ_{v ≠ a} log p(v)]: cross-entropy that makes p(a) ∝ π_β(a) B(s, a).

    Q-learning as supervised fine-tuning: a token with the Bellman target B = 1 is cloned; one with B = 0 hands its
    probability to the others, evenly. Source: Hong et al. 2024 (arXiv 2411.05193), equation of the loss.

    Args:
        logits: Shape (B, K, V), of p.
        actions: The ids taken, shape (B, K).
        target: B, in [0, 1], shape (B, K); a constant.
        mask: What counts, shape (B, K).

    Raises:
        ValueError: Shapes differ.
    """
    _check_shape("logits", logits, (*actions.shape, logits.shape[-1]))
    _check_shape("target", target, actions.shape)
    _check_shape("mask", mask, actions.shape)
    weight = _counted(target.detach(), mask)
    log_p = _counted(logits, mask.unsqueeze(-1)).log_softmax(dim=-1)
    taken = log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    others = (log_p.sum(-1) - taken) / (logits.shape[-1] - 1)
    return -masked_mean(weight * taken + (1 - weight) * others, mask)


def candidate_loss(taken: Sequence[Tensor], proposed: Sequence[Tensor], log_density: Tensor, mask: Tensor) -> Tensor:
    """Σ over heads of the mean of log[(1/n) Σ_j exp(Q(s, ã_j) − log p(ã_j))] − Q(s, a): a conservative term by samples.

    The importance-sampled form of the conservative term, for actions too many to sum over. Source: Kumar et al. 2020
    (arXiv 2006.04779), appendix F.

    Args:
        taken: Heads' Q of the action taken, each of shape (N,).
        proposed: Heads' Q of n sampled actions, each of shape (N, n).
        log_density: log p(ã_j) under what each was drawn from, shape (N, n); a constant.
        mask: What counts, shape (N,).

    Raises:
        ValueError: Shapes differ, or there is no head.
    """
    if not taken or len(taken) != len(proposed):
        raise ValueError(f"candidate_loss needs the same heads twice, got {len(taken)} and {len(proposed)}")
    _check_shape("log_density", log_density, (*mask.shape, log_density.shape[-1]))
    terms = []
    for data, samples in zip(taken, proposed, strict=True):
        _check_shape("a head of taken", data, mask.shape)
        _check_shape("a head of proposed", samples, log_density.shape)
        soft = (_counted(samples - log_density.detach(), mask.unsqueeze(-1))).logsumexp(-1)
        terms.append(masked_mean(soft - math.log(samples.shape[-1]) - data, mask))
    return torch.stack(terms).sum()
