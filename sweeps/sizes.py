"""How large the networks of a training are, what memory a step takes of them, and how many operations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ilql.candidates import Candidates
from ilql.language_model import held_beside, hidden_width, trunk_of
from ilql.method import Start
from ilql.sharding import block_parameters
from sweeps.spec import TrialSpec
from sweeps.stages import canonical

FLOAT = 4
"""Bytes of a number: we train in float32."""


@dataclass(frozen=True)
class Networks:
    """The networks of one training, as numbers.

    Attributes:
        trained: Parameters that are learnt.
        frozen: Parameters that are held beside them: targets, a behaviour policy, a critic.
        read: Those of the frozen ones that are not stored with it: the behaviour policy's, the critic's.
        products: Weights that every token is multiplied with, learnt ones; an embedding is looked up, not multiplied.
        frozen_products: The same of what is held beside.
        in_blocks: Those of the trained ones that stand in transformer blocks, which may be shared out.
        frozen_in_blocks: The same of what is held beside.
        layers: Transformer blocks of the trained trunk; 0 if it has none.
        width: Their width.
        heads: Attention heads of each.
    """

    trained: int
    frozen: int
    read: int
    products: int
    frozen_products: int
    in_blocks: int
    frozen_in_blocks: int
    layers: int
    width: int
    heads: int

    def on_each_of(self, workers: int) -> Networks:
        """What each worker holds all along where blocks are shared out, each rounded up."""
        away, frozen_away = (held - math.ceil(held / workers) for held in (self.in_blocks, self.frozen_in_blocks))
        return dataclasses.replace(
            self,
            trained=self.trained - away,
            frozen=self.frozen - frozen_away,
            in_blocks=self.in_blocks - away,
            frozen_in_blocks=self.frozen_in_blocks - frozen_away,
        )

    def running_blocks_bytes(self) -> int:
        """What a worker takes beside its share while shared-out blocks run: two of them whole, and one's gradients."""
        return FLOAT * 3 * math.ceil(self.in_blocks / max(1, self.layers))

    def memory_bytes(self, *, dialogues: int, tokens: int, recompute: bool = False) -> int:
        """The most a step takes, in float32.

        Held all along: 16 bytes for each trained parameter (weight, gradient, AdamW's two moments), 4 for each other.
        Activations: 16 numbers of the trunk's width for each token and layer (two norms' inputs and outputs' 4, query,
        key and value 3, attention's output 1, the MLP's hidden layer before and after its function 2 × 4), and the
        (T, T) weights of each head, which a CPU keeps and a GPU's kernels need not; the vocabulary's logits never are.
        Where they are made again, each layer keeps its input, and one layer at a time has all of them.

        Args:
            dialogues: In a forward pass: the micro-batch.
            tokens: Of the longest of them.
            recompute: Whether activations are made again in the backward pass.
        """
        held = FLOAT * (4 * self.trained + self.frozen)
        of_a_token = 16 * self.width + self.heads * tokens
        if recompute and self.layers:
            return held + FLOAT * dialogues * tokens * (self.layers * self.width + of_a_token)
        return held + FLOAT * dialogues * tokens * self.layers * of_a_token

    def stored_bytes(self) -> int:
        """Of its weights on disk."""
        return FLOAT * (self.trained + self.frozen - self.read)

    def step_flops(self, *, dialogues: int, tokens: float) -> float:
        """Operations of an optimiser step, a multiplication and an addition being two.

        For each token: 6 for each trained weight (2 forwards, 4 backwards), 2 for each frozen one, and attention's own,
        12 × layers × width × tokens. Heads are counted at every token, though they run at actions only.
        """
        attention = 12 * self.layers * self.width * tokens
        return dialogues * tokens * (6 * self.products + 2 * self.frozen_products + attention)

    def token_flops(self) -> float:
        """Operations for one more token of a conversation."""
        return 2.0 * (self.products + self.frozen_products)


def networks_of(spec: TrialSpec, language_model: nn.Module) -> Networks:
    """The networks of a training, built without storage.

    Args:
        spec: Any trial of it.
        language_model: The one it starts from, on torch's `meta` device.
    """
    language_model.tie_weights()  # type: ignore[operator]  # moving it between devices has untied them
    with torch.device("meta"):
        module = _built(spec, language_model)
        beside = held_beside(module)
    config: Any = language_model.config
    own = [p for p in module.parameters() if p.requires_grad]
    rest = [p for p in module.parameters() if not p.requires_grad]
    has_trunk = any(p.numel() >= config.hidden_size**2 for p in own) and spec.kind.proposals(spec.train) is None
    read = sum(p.numel() for other in beside for p in other.parameters())
    blocks = block_parameters(module)
    return Networks(
        trained=sum(p.numel() for p in own),
        frozen=sum(p.numel() for p in rest) + read,
        read=read,
        products=_products([module], trained=True),
        frozen_products=_products([module], trained=False) + sum(_products([other]) for other in beside),
        in_blocks=sum(p.numel() for p in blocks if p.requires_grad),
        frozen_in_blocks=sum(p.numel() for p in blocks if not p.requires_grad),
        layers=config.num_hidden_layers if has_trunk else 0,
        width=config.hidden_size,
        heads=config.num_attention_heads,
    )


def _built(spec: TrialSpec, model: nn.Module) -> nn.Module:
    """A training's module."""
    method, train = canonical(spec)
    critic = None if spec.critic is None else _built(spec.critic, model)
    none = np.zeros((0, 1, hidden_width(trunk_of(model))), np.float32)
    drawn = Candidates(none[:, 0], none, none[:, :, 0], np.zeros(1, np.int64))
    candidates = None if method.proposals(train) is None else drawn
    start = Start(model, model, 0, returns=(0.0, 1.0), critic=critic, candidates=candidates)
    return method.build(start, train)


def _products(modules: Sequence[nn.Module], *, trained: bool | None = None) -> int:
    """Weights that tokens are multiplied with."""
    found = 0
    for module in modules:
        for part in module.modules():
            weight = part._parameters.get("weight")
            if weight is None or weight.dim() < 2 or isinstance(part, nn.Embedding):
                continue
            if trained is None or weight.requires_grad == trained:
                found += weight.numel()
    return found
