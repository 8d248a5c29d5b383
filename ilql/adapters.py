"""One frozen trunk for all networks of a training, each with low-rank adapters of its own.

Every linear layer W of the blocks becomes W + 2 B A with A of shape (r, in) and B (out, r), B = 0 to begin with (LoRA,
Hu et al. 2021, arXiv 2106.09685, α = 2 r); W, the norms and the biases are frozen. A copy of such a network copies its
adapters and shares the rest: so behaviour policy, online and target networks are as before for all methods, and hold
one trunk instead of three. Targets follow by a Polyak average of the adapters, and checkpoints hold nothing else.

New structural tokens have rows that nobody has trained: embeddings and language-model head are then learnt whole, and
each network has its own. Where a chat template writes dialogues there are no new tokens, and they are frozen too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ilql.products import hasten

VERSION = 1
"""Raised when the same adapters would learn otherwise; part of the key of weights that have any."""

NAME = "default"


class SharedParameter(nn.Parameter):
    """A frozen parameter that copies share, and `requires_grad_` leaves frozen. Moved, it moves for all of them."""

    def __new__(cls, data: Tensor) -> SharedParameter:
        """Of the same memory as `data`."""
        return torch.Tensor._make_subclass(cls, data.detach(), False)

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedParameter:
        """Itself."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> SharedParameter:
        """Itself, as frozen as before."""
        return self


def adapt(language_model: nn.Module, *, rank: int, words: bool, seed: int) -> nn.Module:
    """The language model, in place, with adapters on its blocks; at first it says what it said.

    Args:
        language_model: As loaded.
        rank: r, at least 1.
        words: Whether embeddings and head are learnt, too.
        seed: Of A.

    Raises:
        ValueError: The package peft is not there.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  slow import, needed only here
    except ImportError as error:
        raise ValueError("adapters need the package peft, which is not installed; the extra adapters has it") from error
    model: Any = language_model
    learnt = {id(part.weight) for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's weights are transposed
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=NAME)
    shared: dict[int, SharedParameter] = {}
    for where, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in learnt and words:
                parameter.requires_grad_(True)
            elif ".lora_" not in f".{where}":
                shared.setdefault(id(parameter), SharedParameter(parameter))
                setattr(module, name, shared[id(parameter)])
    result: nn.Module = hasten(model)
    return result.eval()


def merge(adapted: nn.Module, plain: nn.Module) -> nn.Module:
    """A plain model, changed in place, that says what the adapted one says: W + 2 B A in the place of W.

    Args:
        adapted: What became of `adapt`.
        plain: A model built like the one it was made of.
    """
    layers = {name: layer for name, layer in adapted.named_modules() if hasattr(layer, "get_delta_weight")}
    own = dict(adapted.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, parameter in plain.named_parameters(remove_duplicate=False):
            where, _, kind = name.rpartition(".")
            if where not in layers:
                parameter.copy_(own[name])
                continue
            layer: Any = layers[where]
            parameter.copy_(getattr(layer.get_base_layer(), kind))
            if kind == "weight":
                parameter.add_(layer.get_delta_weight(NAME))
    return plain


def is_adapted(language_model: nn.Module) -> bool:
    """Whether the model has adapters."""
    return any(isinstance(parameter, SharedParameter) for parameter in language_model.parameters())
