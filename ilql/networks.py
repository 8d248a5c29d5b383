"""Value networks: heads on a language model's trunk, and their Polyak targets.

Axes: *B* dialogues, *T* positions, *K* actions, *V* vocabulary, *D* hidden width.

Only the bare trunk runs where no language-model logits are needed, and heads run at the positions that count: the full
(B, T, V) tensors of a straightforward implementation never exist.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ilql.fused import linear_taken
from ilql.language_model import Frozen, free_head, hidden_width, vocabulary_size, with_trunk
from ilql.products import Linear
from ilql.sharding import own_part


def taken(values: Tensor, actions: Tensor) -> Tensor:
    """values[b, k, actions[b, k]], shape (B, K) from (B, K, V)."""
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


class Whole(Linear):
    """A linear layer that multiplies in its weights' precision, also under autocast: what values are read from."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - its name there
        """X Wᵀ + bias."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


def head(width: int, out: int, *, multiple: int = 2, constant: float | None = None) -> nn.Sequential:
    """Linear(D, mD), ReLU, Linear(mD, out), PyTorch's initialisation: with m = 2 the paper's plain head.

    Args:
        width: D.
        out: Width of the output.
        multiple: m.
        constant: Begin with this value everywhere: a last layer of zeros, and this bias. None leaves it at random.
    """
    layers = nn.Sequential(Linear(width, multiple * width), nn.ReLU(), Whole(multiple * width, out))
    if constant is not None:
        last = layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, constant)
    return layers


def layers_of(q_head: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """What stands below a head's last layer, and that layer, the one over the vocabulary."""
    assert isinstance(q_head, nn.Sequential)
    last = q_head[-1]
    assert isinstance(last, nn.Linear)
    return q_head[:-1], last


class QNetwork(nn.Module):
    """A trunk with one or two Q heads over the vocabulary.

    Args:
        trunk: A language model's trunk, taken as it is.
        q_heads: One head, or two for double Q.
        value_range: What the smaller of the heads is clipped to.
    """

    def __init__(
        self, trunk: nn.Module, q_heads: Sequence[nn.Module], value_range: tuple[float, float] = (-math.inf, math.inf)
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.q_heads = nn.ModuleList(q_heads)
        self.value_range = value_range

    def heads_at(self, hidden: Tensor) -> list[Tensor]:
        """Q of every head at the given hidden states, each of shape (..., V)."""
        return [q(hidden) for q in self.q_heads]

    def minimum(self, hidden: Tensor) -> Tensor:
        """The smaller of the heads' Q, element by element, clipped, shape (..., V)."""
        return self._clipped(torch.stack(self.heads_at(hidden)).amin(dim=0))

    def minimum_of(self, hidden: Tensor, actions: Tensor) -> Tensor:
        """The smaller of the heads' Q at one action each, clipped, shape (B, K), without making (B, K, V)."""
        values = []
        for q in self.q_heads:
            before, last = layers_of(q)
            values.append(linear_taken(before(hidden), last, actions))
        return self._clipped(torch.stack(values).amin(dim=0))

    def _clipped(self, values: Tensor) -> Tensor:
        low, high = self.value_range
        return values if math.isinf(low) and math.isinf(high) else values.clamp(low, high)


class ValueNetworks(nn.Module):
    """What the value methods train: online Q and V heads on one trunk, and a lagging target of trunk and Q heads.

    The target gets no gradient, and drops out only where that is asked for.

    Args:
        trunk: What online and target trunk start from; copied.
        double_q: Two Q heads instead of one.
        target_trunk: Whether the target has a trunk of its own; else its heads read the online one.
        value_range: What the target's Q is clipped to.
        policy: A language model whose head is cloned on the online trunk, jointly; None where the policy is separate.
        outputs: Width of the Q heads: the vocabulary, or 1 for the value of an utterance.
        head_multiple: See `head`, as `head_constant`.
        head_constant: See `head`.
        target_dropout: Whether the target drops out while the online networks learn.
        returns: Mean and standard deviation of the data's returns, for losses that standardise them.
        seed: Seed of the heads' initial weights.

    Attributes:
        behaviour: The behaviour policy, for methods whose values are made with it; set by those.
        relative: Whether log π_β is to be added to the heads' values; set by those.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        double_q: bool,
        seed: int,
        target_trunk: bool = True,
        value_range: tuple[float, float] = (-math.inf, math.inf),
        policy: nn.Module | None = None,
        outputs: int | None = None,
        head_multiple: int = 2,
        head_constant: float | None = None,
        target_dropout: bool = False,
        returns: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        width, count = hidden_width(trunk), 2 if double_q else 1
        out = outputs or vocabulary_size(trunk)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # V first: it begins alike however many Q heads there are.
            self.v_head = head(width, 1, multiple=head_multiple, constant=head_constant)
            heads = [head(width, out, multiple=head_multiple, constant=head_constant) for _ in range(count)]
        self._target_dropout = target_dropout
        self.returns = returns
        self.online = QNetwork(copy.deepcopy(trunk), heads)
        below = copy.deepcopy(self.online.trunk) if target_trunk else self.online.trunk
        self.target = QNetwork(below, copy.deepcopy(heads), value_range).requires_grad_(False)
        self.online.requires_grad_(True)
        self.policy_head = None if policy is None else free_head(policy)
        self.behaviour: Frozen | None = None
        self.relative = False

    def train(self, mode: bool = True) -> ValueNetworks:
        """Training mode for the online networks, and for the target only if it is to drop out."""
        super().train(mode)
        self.target.train(mode and self._target_dropout)
        self.online.train(mode)  # after the target: they may share a trunk
        return self

    def joint_policy(self, like: nn.Module) -> nn.Module:
        """The joint policy as a language model of its own, built like the given one."""
        assert self.policy_head is not None
        model: Any = with_trunk(like, self.online.trunk)
        model.set_output_embeddings(copy.deepcopy(self.policy_head))
        result: nn.Module = model
        return result.eval()


class Lagging(Protocol):
    """A module that learns in `online`, and has a `target` of the same shape that follows it."""

    online: nn.Module
    target: nn.Module


class Renewal(Protocol):
    """The two hyperparameters that say how a target follows."""

    @property
    def polyak(self) -> float:
        """Share of the online weights that the target takes."""

    @property
    def target_every(self) -> int:
        """Optimiser steps between renewals."""


def renew_target(module: Any, train: Renewal, step: int) -> None:
    """Every `target_every` optimiser steps the target takes its share of the online weights.

    Args:
        module: A `Lagging` module.
        train: How its target follows.
        step: Optimiser steps done.
    """
    if step % train.target_every == 0:
        follow(module, train.polyak)


@torch.no_grad()
def follow(module: Lagging, polyak: float) -> None:
    """θ̄ ← polyak·θ + (1 − polyak)·θ̄ for every parameter of the target that is not the online network's own."""
    pairs = zip(module.target.parameters(), module.online.parameters(), strict=True)
    targets, sources = zip(*((own, other) for own, other in pairs if own is not other), strict=True)
    torch._foreach_lerp_([own_part(own) for own in targets], [own_part(other) for other in sources], polyak)
