"""What a learning method is: two bags of hyperparameters and a handful of functions.

There is no base class to inherit behaviour from. A file of `ilql.methods` writes its functions, puts them into one
frozen `Method` named `METHOD`, and is found. The shared conformance test then holds it to this page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ilql.batch import TokenBatch
from ilql.candidates import Candidates
from ilql.hyperparameters import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, UNIT, Range, check, hyper


@dataclass(frozen=True, kw_only=True)
class Training:
    """The training hyperparameters every method has; a method's `Train` adds its own fields to these."""

    steps: int = hyper(2048, AT_LEAST_ONE, meaning="optimiser steps")
    batch_size: int = hyper(64, AT_LEAST_ONE, meaning="dialogues per optimiser step, over all workers")
    learning_rate: float = hyper(1e-5, POSITIVE, meaning="AdamW's learning rate, constant")
    weight_decay: float = hyper(0.0, NOT_NEGATIVE, meaning="AdamW's decoupled weight decay")
    max_tokens: int = hyper(
        1024, AT_LEAST_ONE, meaning="tokens that are read at once; longer dialogues are cut into windows, or end there"
    )
    weighting: str = hyper(
        "dialogue",
        Range(choices=("dialogue", "token")),
        meaning="whether a batch's mean counts every dialogue alike (as micro-batches of one do) or every action token",
    )
    clip_norm: float | None = hyper(
        None, POSITIVE, meaning="the gradient is scaled down to this norm where it is longer; none never scales it"
    )
    precision: str = hyper(
        "float32",
        Range(choices=("float32", "bfloat16")),
        meaning="what networks multiply in while they learn; weights, their moments, losses and values are float32",
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


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a policy acts on top of its language model; the defaults add nothing.

    Attributes:
        beta: Strength of the critic's tilt of every token, in [0, ∞]; infinity leaves the language model out.
        candidates: Utterances drawn from the language model, of which the judge's favourite is said; 0 has no judge.
        filter_after: Apply temperature, top-k and top-p to the tilted scores, and not to the language model before it.
        online_critic: Tilt with the online network's Q, and not with its lagging target's.
        log_prob_weight: Weight of a candidate's log-probability beside the judge's score.
        target_return: The return the policy is asked for; None asks for nothing.
        asked_each_turn: Ask for what is left of it before every utterance; else once, before everything.
    """

    beta: float = 0.0
    candidates: int = 0
    filter_after: bool = False
    online_critic: bool = False
    log_prob_weight: float = 0.0
    target_return: float | None = None
    asked_each_turn: bool = False


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
        returns: Mean and population standard deviation of the returns of the dialogues it learns from.
        critic: The trained module of the method's critic; None for methods that have none.
        candidates: Utterances drawn for every state of the data; None for methods that need none.
    """

    pretrained: nn.Module
    behaviour: nn.Module | None
    seed: int
    returns: tuple[float, float] = (0.0, 1.0)
    critic: nn.Module | None = None
    candidates: Candidates | None = None


@dataclass(frozen=True)
class Proposals:
    """Utterances to draw from the behaviour policy in every state of the data.

    Attributes:
        count: How many in each state.
        max_new_tokens: The longest, in tokens, its end token included.
    """

    count: int
    max_new_tokens: int


class TokenCritic(Protocol):
    """What tilts every token: a transformer and Q over the vocabulary at its hidden states."""

    @property
    def trunk(self) -> nn.Module:
        """The transformer it reads with."""

    def minimum(self, hidden: Tensor) -> Tensor:
        """Q, the smaller of its heads if it has two, shape (..., V) at hidden states (..., D)."""


class Judge(Protocol):
    """What ranks whole utterances."""

    @property
    def trunk(self) -> nn.Module | None:
        """The transformer it reads with; None if it reads the language model's own hidden states."""

    def score(self, last: Tensor, mean: Tensor) -> Tensor:
        """Q of an utterance, shape (S,).

        Args:
            last: Hidden state of its `eoa`, shape (S, D).
            mean: Mean of the hidden states of the whole conversation up to that `eoa`, shape (S, D).
        """


@dataclass(frozen=True)
class Actor:
    """The networks that act: at most two transformers run, however many were trained.

    Attributes:
        language_model: Gives the base logits.
        critic: Tilts every token; None where there is no advantage to add.
        online: Tilts in the critic's place where a manner asks for the network that does not lag.
        judge: Ranks whole utterances; None where nothing is ranked.
        relative: Whether the critic's values are what is added to the language model's log-probabilities.
        condition: The embeddings, shape (..., D), that stand for the returns, shape (...), a policy is asked for; None
            where it is asked for none.
    """

    language_model: nn.Module
    critic: TokenCritic | None = None
    online: TokenCritic | None = None
    judge: Judge | None = None
    relative: bool = False
    condition: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class ActionValues:
    """What a method thinks of the actions of a batch.

    Attributes:
        q: Of the action that was taken, by the network that acts, shape (B, K).
        v: Of the state it was taken in, shape (B, K).
    """

    q: Tensor
    v: Tensor

    @property
    def advantage(self) -> Tensor:
        """Q − V, shape (B, K)."""
        return self.q - self.v


def keep_all(returns: npt.NDArray[np.float64], train: Training) -> npt.NDArray[np.int64]:
    """Every dialogue, in order."""
    return np.arange(len(returns), dtype=np.int64)


def every_action(batch: TokenBatch) -> Tensor:
    """Means count every token the agent chose."""
    return batch.action_mask


def every_utterance(batch: TokenBatch) -> Tensor:
    """Means count every whole utterance, at the action that ends it."""
    return batch.ends


def nothing_after_step(module: nn.Module, train: Training, step: int) -> None:
    """No target network, no schedule: nothing to do."""


def no_critic(train: Training) -> None:
    """It learns from no other training but, perhaps, the behaviour policy."""


def no_proposals(train: Training) -> None:
    """It learns from what was said, and from nothing drawn."""


def plainly(train: Training, decode: Decoding) -> Manner:
    """The language model acts as it is."""
    return Manner()


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method of offline learning.

    Attributes:
        name: Its name in tables, rows and on the command line.
        title: Its name in a paper's table.
        version: Raised when its training means something else; part of every key of its weights. Several where it is
            made of parts that have versions of their own.
        losses: The names in `ilql.losses.VERSIONS` it is made of; their versions are part of the key, too.
        train: Dataclass of what shapes the weights; extends `Training`.
        decode: Dataclass of what only shapes the acting; extends `Decoding`.
        uses_rewards: False if its weights are the same under every reward.
        needs_behaviour: True if it trains or acts with the frozen behaviour policy.
        critic: The method and settings of the critic it learns from, or None. Takes `train`.
        proposals: Which utterances are drawn in every state of the data before training, or None. Takes `train`.
        keep: Which dialogues it learns from. Takes the dialogues' returns, shape (N,), and `train`; returns indices.
        build: The module that is trained and saved, from where the training starts. Takes `Start` and `train`.
        counts: Which actions of a batch its means count, shape (B, K): all, or those that end an utterance.
        loss: The loss of a batch. Takes the module, the batch, weights for its mean of shape (B, K), and `train`.
        after_step: Whatever follows each optimiser step, such as the target's Polyak average. Takes module, `train` and
            the number of steps done.
        actor: The networks that act. Takes the module and the behaviour policy.
        manner: How they act. Takes `train` and `decode`.
        values: Q and V of every action of a batch, for looking at; None where tokens have no values. Takes the module
            and the batch.
        valued: The rewards that such a Q sums up, discounted, as its training takes them, shape (B, K), of the same
            batches; None where tokens have no values, or Q is made of more than rewards. Takes module, batch, `train`.
        canonical: The method and settings whose weights these really are, for a name of a special case of another.
            Takes `train`.
    """

    name: str
    title: str
    version: int | tuple[int, ...]
    losses: tuple[str, ...]
    train: type[Any]
    decode: type[Any]
    build: Callable[[Start, Any], nn.Module]
    loss: Callable[[nn.Module, TokenBatch, Tensor, Any], Loss]
    actor: Callable[[nn.Module, nn.Module | None], Actor]
    uses_rewards: bool = True
    needs_behaviour: bool = False
    critic: Callable[[Any], tuple[str, Any] | None] = no_critic
    proposals: Callable[[Any], Proposals | None] = no_proposals
    keep: Callable[[npt.NDArray[np.float64], Any], npt.NDArray[np.int64]] = keep_all
    counts: Callable[[TokenBatch], Tensor] = every_action
    after_step: Callable[[nn.Module, Any, int], None] = nothing_after_step
    manner: Callable[[Any, Any], Manner] = plainly
    values: Callable[[nn.Module, TokenBatch], ActionValues] | None = None
    valued: Callable[[nn.Module, TokenBatch, Any], Tensor] | None = None
    canonical: Callable[[Any], tuple[str, Any]] | None = None

    def trained_as(self, train: Any) -> tuple[str, Any]:
        """The method and settings whose weights these really are."""
        return (self.name, train) if self.canonical is None else self.canonical(train)


def require(module: nn.Module | None, what: str) -> nn.Module:
    """The module, for callers that were promised one."""
    assert module is not None, f"a method that needs the {what} was built without it"
    return module
