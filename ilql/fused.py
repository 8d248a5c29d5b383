"""A linear layer over the vocabulary and the losses above it in one pass, without its output ever existing whole.

Axes: *N* rows (positions that count), *V* vocabulary, *D* width of the layer's input; B and K as in `ilql.losses`.

The losses need few numbers of each row of z = hidden Wᵀ + bias: z at the token taken, and logsumexp_v z. So z is made
for some rows at a time, and while they are there their share of all gradients is made, too: what multiplies a row is
known beforehand. That is three matrix products, as of the plain layer and its gradients, but neither z, nor softmax,
nor their gradients are ever kept. Rows of weight 0 are left out.

Why not `torch.nn.functional.linear_cross_entropy`, which does the same for plain means: its rows cannot be weighed but
with `reduction="none"`, which makes the logits twice; and it gives no z at the token taken, so that the TD loss would
need the layer's weights once more, with a second dense gradient of shape (V, D). Measured in docs/log.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ilql.losses import weighted_nll
from ilql.products import linear, product

CHUNK_ELEMENTS = 2**23
"""How many numbers of z are made at a time, 32 MiB of float32: rows enough for matrix products to be fast."""
DEVICE_CHUNK_ELEMENTS = 2**28
"""The same on a device, 1 GiB: few rows leave most of it idle, and each time all weights' gradients are added up."""
CHUNK_ROWS = 64
"""Rows made at a time at the least: below, matrix products wait for the layer's weights."""
BLOCK = 2048
"""Tokens whose gradients are made at a time on a CPU, so that they are added up in its cache."""


@dataclass(frozen=True)
class Rows:
    """The positions of a (B, K) grid that count, one after the other.

    Attributes:
        index: Their places in the grid's B · K positions, shape (N,).
        weights: Their shares of the mean, m / Σ m, shape (N,); all 0 where Σ m = 0.
        shape: (B, K).
    """

    index: Tensor
    weights: Tensor
    shape: tuple[int, ...]

    def of(self, grid: Tensor) -> Tensor:
        """Their rows of a grid, shape (N, ...) from (B, K, ...)."""
        return grid.flatten(0, 1).index_select(0, self.index)

    def spread(self, values: Tensor) -> Tensor:
        """A grid with their values, and 0 elsewhere, shape (B, K) from (N,)."""
        grid = values.new_zeros(self.shape[0] * self.shape[1])
        return grid.index_copy(0, self.index, values).view(self.shape)


def counted(mask: Tensor) -> Rows:
    """The rows whose mask is above 0; on a device all of them, for counting them would wait for it.

    Args:
        mask: Shape (B, K), boolean or not negative.
    """
    flat = mask.flatten()
    here = mask.device.type == "cpu"
    index = flat.nonzero().squeeze(1) if here else torch.arange(len(flat), device=mask.device)
    weights = flat.float() if flat.dtype == torch.bool else flat
    total = weights.sum()
    shares = weights / torch.where(total > 0, total, torch.ones_like(total))
    return Rows(index, shares.index_select(0, index), tuple(mask.shape))


def linear_cross_entropy(
    hidden: Tensor, layer: nn.Linear, tokens: Tensor, weights: Tensor, *, temperature: float = 1.0, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    """Σ_n w_n (logsumexp_v(z_n(v)/c) − z_n(a_n)/c), a scalar, and z_n(a_n), shape (N,), of z = hidden Wᵀ + bias.

    Gradients flow through both results, once: they are made with the value, and given away. What stands in a row of
    weight 0 does not count, even if infinite, and its z_n(a_n) is 0.

    Under autocast, or where `hidden` is in half precision, the matrix products are; both results, all that is summed
    over the vocabulary and the gradients of the weights are in single precision. z_n(a_n), which a TD loss compares
    with targets, is then made from `hidden` by itself: a half-precision product's output has three decimal digits.

    Args:
        hidden: The layer's input, shape (N, D).
        layer: The layer, with or without a bias. Of it only the weights are used: its hooks do not run.
        tokens: a, the ids taken, shape (N,).
        weights: w, not negative, shape (N,); constants. Shares of a mean give that mean.
        temperature: c, above 0.
        chunk: Rows at a time; 0 leaves it to the sizes.

    Raises:
        ValueError: Shapes differ, or the temperature is not positive.
        RuntimeError: Gradients are asked for twice.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if tokens.shape != hidden.shape[:1] or weights.shape != hidden.shape[:1]:
        came = f"{tuple(tokens.shape)} and {tuple(weights.shape)}"
        raise ValueError(f"tokens and weights must have shape {tuple(hidden.shape[:1])}, got {came}")
    device = hidden.device.type
    elements = CHUNK_ELEMENTS if device == "cpu" else DEVICE_CHUNK_ELEMENTS
    chunk = chunk or max(CHUNK_ROWS, elements // layer.out_features)
    learns = torch.is_grad_enabled()
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    return _LinearCrossEntropy.apply(  # type: ignore[no-any-return,no-untyped-call]
        hidden, layer.weight, layer.bias, tokens, weights.detach(), temperature, chunk, learns
    )


def linear_taken(hidden: Tensor, layer: nn.Linear, tokens: Tensor) -> Tensor:
    """z(a) of z = hidden Wᵀ + bias, shape (...), from hidden (..., D) and tokens (...), without making (..., V)."""
    return _taken(hidden, layer.weight, layer.bias, tokens)


def cloning_loss(hidden: Tensor, head: nn.Module, tokens: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Σ m·w·(−log softmax(z)[token]) / Σ m, a scalar: `losses.weighted_nll` of a head's logits that are never made.

    They are made where the head is more than a linear layer.

    Args:
        hidden: The head's input, shape (B, K, D), already aligned: hidden[:, k] predict tokens[:, k].
        head: The language model's.
        tokens: Shape (B, K).
        weights: w, shape (B, K); constants.
        mask: What counts, shape (B, K).
    """
    if not isinstance(head, nn.Linear):
        return weighted_nll(head(hidden), tokens, weights, mask)
    rows = counted(mask)
    factors = rows.of(weights.detach()) * rows.weights
    loss, _ = linear_cross_entropy(rows.of(hidden), head, rows.of(tokens), factors)
    return loss


def _taken(hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor) -> Tensor:
    values = (hidden * nn.functional.embedding(tokens, weight)).sum(-1)
    return values if bias is None else values + bias[tokens]


class _LinearCrossEntropy(torch.autograd.Function):
    """What `linear_cross_entropy` promises."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        weights: Tensor,
        temperature: float,
        chunk: int,
        learns: bool,
    ) -> tuple[Tensor, Tensor]:
        """Loss and z taken; the loss's gradients are made along the way."""
        ctx.set_materialize_grads(False)
        half = hidden.dtype in (torch.float16, torch.bfloat16)
        wide = torch.float32 if half else hidden.dtype  # of what is summed over the vocabulary
        counts = weights > 0
        hidden = torch.where(counts.unsqueeze(1), hidden, torch.zeros_like(hidden))
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        taken = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        of_hidden, of_weight, of_bias = (learns and needed for needed in ctx.needs_input_grad[:3])
        grad_hidden = torch.zeros_like(hidden) if of_hidden else None
        grad_weight = torch.zeros_like(weight) if of_weight else None
        grad_bias = torch.zeros(weight.shape[0], dtype=wide, device=hidden.device) if of_bias else None
        width = BLOCK if hidden.device.type == "cpu" else len(weight)
        with torch.autocast(hidden.device.type, enabled=False):  # what is to be in half precision was made so
            factor, shift = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
            for first in range(0, len(hidden), chunk):
                here = slice(first, first + chunk)
                x, a, w = hidden[here], tokens[here].unsqueeze(1), weights[here].to(wide).unsqueeze(1)
                z = linear(x, factor, shift).to(wide)
                at_token = z.gather(1, a)
                taken[here] = _taken(x, weight, bias, tokens[here]) if half else at_token.squeeze(1)
                if temperature != 1:
                    z.div_(temperature)
                    at_token = at_token / temperature
                peak = z.amax(1, keepdim=True)
                total = z.sub_(peak).exp_().sum(1, keepdim=True)
                loss += (w * (total.log() + peak - at_token)).sum()
                if not (of_hidden or of_weight or of_bias):
                    continue
                # From here on z is the loss's gradient in it: w/c (softmax − one at the token).
                w = w / temperature
                z.mul_(w / total).scatter_add_(1, a, -w)
                if grad_bias is not None:
                    grad_bias += z.sum(0)
                z = z.to(hidden.dtype)
                for block in range(0, len(weight), width):
                    there = slice(block, block + width)
                    if grad_hidden is not None:
                        grad_hidden[here] += product(z[:, there], factor[there].T)
                    if grad_weight is not None:
                        grad_weight[there] += product(z[:, there].T, x.T)
        taken = torch.where(counts, taken, torch.zeros_like(taken))
        ctx.save_for_backward(hidden, weight, tokens, counts)
        ctx.made = (grad_hidden, grad_weight, None if grad_bias is None else grad_bias.to(weight.dtype))
        return loss, taken

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_loss: Tensor | None, by_taken: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradients that are there, by the loss's own; and what z taken adds at the tokens' rows."""
        hidden, weight, tokens, counts = ctx.saved_tensors
        if ctx.made is None:
            raise RuntimeError("gradients of linear_cross_entropy can be had once, got a second call")
        # In place, and kept nowhere: autograd then takes the tensors as they are, and copies none.
        (grad_hidden, grad_weight, grad_bias), ctx.made = ctx.made, None
        for grad in (grad_hidden, grad_weight, grad_bias):
            if grad is not None:
                grad.mul_(by_loss) if by_loss is not None else grad.zero_()
        if by_taken is not None:
            by_taken = torch.where(counts, by_taken, torch.zeros_like(by_taken))
            if grad_hidden is not None:
                rows = weight.index_select(0, tokens).to(grad_hidden.dtype)
                grad_hidden.addcmul_(by_taken.to(grad_hidden.dtype).unsqueeze(1), rows)
            if grad_weight is not None:
                grad_weight.index_add_(0, tokens, (by_taken.unsqueeze(1) * hidden).to(grad_weight.dtype))
            if grad_bias is not None:
                grad_bias.index_add_(0, tokens, by_taken.to(grad_bias.dtype))
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None
