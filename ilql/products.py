"""Matrix products of linear layers on a CPU by oneDNN, which torch carries, instead of MKL.

MKL, which torch multiplies float32 with on a CPU, uses AVX-512 on Intel's processors alone: on others oneDNN is twice
as fast (measured in docs/log.md). torch offers it to opaque tensors, which cost a copy each, and to its own compiler,
through the operation that is used here. Where that does not apply (another device or type, no oneDNN, autocast) all of
this is torch's own linear layer.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

Model = TypeVar("Model", bound=nn.Module)

LEAST_WORK = 2**27
"""Multiplications from which on oneDNN is the faster one. It compiles its code for every new shape, in about a
millisecond, and batches of dialogues hardly ever have the same: below, that costs more than it gains."""
LEAST_WORK_INFERENCE = 2**20
"""The same under `torch.inference_mode`, where a policy acts: its passes have few shapes, which are compiled once."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """X Wᵀ + bias, shape (..., M) from x (..., D) and weight (M, D): `torch.nn.functional.linear`."""
    if not _by_onednn(x, weight):
        return functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return,no-untyped-call]
    return _onednn(x, weight, bias)


def product(a: Tensor, b: Tensor) -> Tensor:
    """A Bᵀ, shape (N, M) from (N, D) and (M, D), without a gradient. Either may be a transposed view."""
    return _onednn(a, b, None) if _by_onednn(a, b) else a @ b.T


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """gelu(X Wᵀ + bias), gelu by its approximation with a tanh; where a policy acts oneDNN makes both at once."""
    if torch.is_inference_mode_enabled() and _by_onednn(x, weight):
        return _onednn(x, weight, bias, gelu=True)
    return functional.gelu(linear(x, weight, bias), approximate="tanh")


def hasten(model: Model) -> Model:
    """The same model, its linear layers multiplying by `linear`; their weights and names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
        elif type(module) is Conv1D:
            module.__class__ = Transposed
        elif type(module).__name__ == "GPT2MLP":
            from ilql.gelu import hasten_mlp  # noqa: PLC0415  slow import; here a model has been built already

            hasten_mlp(module)
    return model


class Linear(nn.Linear):
    """A linear layer that multiplies by `linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - its name there
        """X Wᵀ + bias."""
        return linear(input, self.weight, self.bias)


class Transposed(Conv1D):
    """GPT-2's linear layer, whose weight is stored transposed, multiplying by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """X W + bias."""
        return linear(x, self.weight.T, self.bias)


class _Linear(torch.autograd.Function):
    """`linear` with gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The product."""
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Those of x, weight and bias that are needed."""
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        # Where all of a gradient is one number, as behind a sum, it is spread without memory; oneDNN crawls over that.
        rows, inputs = gradient.contiguous().flatten(0, -2), x.flatten(0, -2)
        of_weight = None
        if to_weight:
            # The first factor is copied into order: take the narrower one.
            narrow = rows.shape[1] <= inputs.shape[1]
            of_weight = product(rows.T, inputs.T) if narrow else product(inputs.T, rows.T).T
        return product(rows, weight.T).view(x.shape) if to_x else None, of_weight, rows.sum(0) if to_bias else None


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.shape[0] >= (LEAST_WORK_INFERENCE if torch.is_inference_mode_enabled() else LEAST_WORK)
        and _AVAILABLE
        and not torch.is_autocast_enabled("cpu")
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    after, how = ("gelu", "tanh") if gelu else ("none", "")
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], how)
    return result


_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
