"""GPT-2's two layers with a GELU between them, made with the first product where a policy acts.

In a file of its own, since GPT-2's own takes seconds to load and whoever multiplies need not know it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUTanh, NewGELUActivation
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from ilql.products import Transposed, linear_gelu


class MLP(GPT2MLP):
    """W₂ gelu(W₁ x + b₁) + b₂, gelu by its approximation with a tanh."""

    def forward(self, hidden_states: Any) -> Tensor:
        """The same as its parent's, to rounding."""
        first = self.c_fc
        # An adapter stands in the place of the layer that it adds to.
        if torch.is_inference_mode_enabled() and not self.training and type(first) is Transposed:
            second: Tensor = self.c_proj(linear_gelu(hidden_states, first.weight.T, first.bias))
        else:
            second = super().forward(hidden_states)
        return second


def hasten_mlp(module: nn.Module) -> None:
    """Let a `GPT2MLP` be an `MLP`, if that is its activation; weights and names stay."""
    if type(module) is GPT2MLP and isinstance(module.act, GELUTanh | NewGELUActivation):
        module.__class__ = MLP
