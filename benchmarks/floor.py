"""What rollouts take at least: the operations and bytes that no way of playing leaves out, at this machine's own rates.

Counted are the products of both transformers at every token of an episode once, causal attention, the heads at every
token that is chosen, and one reading of a conversation's keys and values for every such token, since it is chosen after
all before it. Weights are read once for many conversations, and count as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from benchmarks.measure import seconds
from benchmarks.training_step import rates
from ilql.batch import TokenSequence
from ilql.language_model import context_length, text_config, trunk_of
from ilql.method import Actor
from ilql.networks import QNetwork
from ilql.slot_cache import columns_for
from ilql.slots import slot_bytes


@dataclass(frozen=True)
class Machine:
    """What one thread can.

    Attributes:
        products: Floating-point operations a second in products of large float32 matrices.
        reading: Bytes a second of memory that is summed up.
    """

    products: float
    reading: float

    @classmethod
    def measured(cls, *, quick: bool) -> Machine:
        """This machine, the best of four tries each."""
        size = 512 if quick else 2048
        much = torch.ones(2**20 if quick else 2**26)
        return cls(rates(size).best, much.nbytes / min(seconds(much.sum) for _ in range(4)))


@dataclass(frozen=True)
class Work:
    """What cannot be left out.

    Attributes:
        operations: Floating-point operations.
        read: Bytes of keys and values.
    """

    operations: float
    read: float

    def seconds_on(self, machine: Machine) -> float:
        """One after the other, on one thread."""
        return self.operations / machine.products + self.read / machine.reading


def least_work(actor: Actor, conversations: Sequence[TokenSequence]) -> Work:
    """Of playing these conversations with an actor whose critic, if it has one, is a `QNetwork`."""
    critic = actor.critic
    assert critic is None or isinstance(critic, QNetwork)
    trunks = [trunk_of(actor.language_model), *([] if critic is None else [critic.trunk])]
    heads = [actor.language_model.get_output_embeddings(), *([] if critic is None else critic.q_heads)]  # type: ignore[operator]
    tokens = sum(len(each.tokens) for each in conversations)
    chosen = sum(len(each.action_positions) for each in conversations)
    pairs = sum(len(each.tokens) ** 2 / 2 for each in conversations)
    before = sum(int(each.action_positions.sum()) for each in conversations)
    attention = 4 * pairs * sum(each.num_hidden_layers * each.hidden_size for each in map(text_config, trunks))
    operations = 2 * tokens * sum(map(_weights, trunks)) + attention + 2 * chosen * sum(map(_weights, heads))
    column = slot_bytes(actor) / columns_for(context_length(actor.language_model))
    return Work(float(operations), before * column)


def _weights(module: nn.Module) -> int:
    """How many numbers its linear layers multiply by."""
    return sum(each.weight.numel() for each in module.modules() if isinstance(each, nn.Linear | Conv1D))
