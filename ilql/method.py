"""What a learning method is: two bags of hyperparameters and a handful of functions.

There is no base class to inherit behaviour from. A file of `ilql.methods` writes its functions, puts them into one
frozen `Method` named `METHOD`, and is found. The shared conformance test then holds it to this page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ilql.batch import TokenBatch
from ilql.hyperparameters import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, UNIT, Range, check, hyper


@dataclass(frozen=True, kw_only=True)
class Training:
    """The training hyperparameters every method has; a method's `Train` adds its own fields to these."""

    steps: int = hyper(2048, AT_LEAST_ONE, meaning="optimiser steps")
    batch_size: int = hyper(64, AT_LEAST_ONE, meaning="dialogues per optimiser step, over all workers")
    learning_rate: float = hyper(1e-5, POSITIVE, meaning="AdamW's learning rate, constant")
    weight_decay: float = hyper(0.0, NOT_NEGATIVE, meaning="AdamW's decoupled weight decay")
    max_tokens: int = hyper(1024, AT_LEAST_ONE, meaning="dialogues are cut to their first so many tokens")
    weighting: str = hyper(
        "dialogue",
        Range(choices=("dialogue", "token")),
        meaning="whether a batch's mean counts every dialogue alike (as micro-batches of one do) or every action token",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The decoding hyperparameters every method has; a method's `Decode` adds its own fields to these."""

    greedy: bool = hyper(True, meaning="take the most probable token instead of drawing one")
    temperature: float = hyper(1.0, POSITIVE, meaning="softmax temperature of the language model, before any tilt")
    top_k: int = hyper(
        0, NOT_NEGATIVE, meaning="keep only the k most probable tokens of the language model; 0 keeps all"
    )
    top_p: float = hyper(1.0, UNIT, meaning="keep the smallest set of tokens whose probability exceeds p; 1 keeps all")
    max_new_tokens: int = hyper(40, AT_LEAST_ONE, meaning="longest utterance in tokens, its end token included")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Loss:
    """What one batch gives: the scalar to descend, and its parts for the curve.

    Attributes:
        total: Scalar with gradient.
        parts: Detached scalars by name, means over the same weights as `total`; `loss` is added by the trainer.
    """

    total: Tensor
    parts: Mapping[str, Tensor]


@dataclass(frozen=True)
class Start:
    """Where a training starts from.

    Attributes:
        pretrained: The backbone's language model, before any of our training. Copy what you train.
        behaviour: The behaviour policy, trained and frozen; None for methods that do not need one.
        seed: The training seed, for new weights such as the value heads'.
    """

    pretrained: nn.Module
    behaviour: nn.Module | None
    seed: int


@dataclass(frozen=True)
class Actor:
    """The networks that act: at most two transformers run, however many were trained.

    Attributes:
        language_model: Gives the base logits.
        critic: Trunk and heads that give Q over the vocabulary, or None where there is no advantage to add.
    """

    language_model: nn.Module
    critic: nn.Module | None


@dataclass(frozen=True)
class Method:
    """One method of offline learning.

    Attributes:
        name: Its name in tables, rows and on the command line.
        title: Its name in a paper's table.
        version: Raised when its training means something else; part of every key of its weights.
        losses: The names in `ilql.losses.VERSIONS` it is made of; their versions are part of the key, too.
        train: Dataclass of what shapes the weights; extends `Training`.
        decode: Dataclass of what only shapes the acting; extends `Decoding`.
        uses_rewards: False if its weights are the same under every reward.
        needs_behaviour: True if it trains or acts with the frozen behaviour policy.
        keep: Which dialogues it learns from. Takes the dialogues' returns, shape (N,), and `train`; returns indices.
        build: The module that is trained and saved, from where the training starts. Takes `Start` and `train`.
        loss: The loss of a batch. Takes the module, the batch, weights for its mean of shape (B, K), and `train`.
        after_step: Whatever follows each optimiser step, such as the target's Polyak average. Takes module and `train`.
        actor: The networks that act. Takes the module and the behaviour policy.
        tilt: β, the strength of the critic's tilt. Takes `decode`.
        advantages: Q̄(a) − V of every action of a batch, shape (B, K), for looking at; None where there is no such
            thing.
        canonical: The method and settings whose weights these really are; itself unless the method is a name for a
            special case of another.
    """

    name: str
    title: str
    version: int
    losses: tuple[str, ...]
    train: type[Any]
    decode: type[Any]
    uses_rewards: bool
    needs_behaviour: bool
    keep: Callable[[npt.NDArray[np.float64], Any], npt.NDArray[np.int64]]
    build: Callable[[Start, Any], nn.Module]
    loss: Callable[[nn.Module, TokenBatch, Tensor, Any], Loss]
    after_step: Callable[[nn.Module, Any], None]
    actor: Callable[[nn.Module, nn.Module | None], Actor]
    tilt: Callable[[Any], float]
    advantages: Callable[[nn.Module, TokenBatch], Tensor] | None
    canonical: Callable[[Any], tuple[str, Any]]


def keep_all(returns: npt.NDArray[np.float64], train: Training) -> npt.NDArray[np.int64]:
    """Every dialogue, in order."""
    return np.arange(len(returns), dtype=np.int64)


def nothing_after_step(module: nn.Module, train: Training) -> None:
    """No target network, no schedule: nothing to do."""


def no_tilt(decode: Decoding) -> float:
    """β = 0: the language model acts as it is."""
    return 0.0


def require(module: nn.Module | None, what: str) -> nn.Module:
    """The module, for callers that were promised one."""
    assert module is not None, f"a method that needs the {what} was built without it"
    return module
