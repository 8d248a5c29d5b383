"""What a policy would get where it cannot be played: fitted-Q evaluation on recorded dialogues.

The value of a policy π is learnt from dialogues that others led, by regression on its own Bellman equation:
    Q(s, a) ← r + (1 − terminal) Σ_v π(v | s') Q̄(s', v)       V(s) = Σ_v π(v | s) Q(s, v)
token by token and undiscounted, so that V of a dialogue's first state estimates the sum of rewards the score is made
of. Q is heads on a trunk of their own, which begins as the acting language model's: its frozen states will not do,
since they forget what no next word depends on. Q̄ follows Q. The heads each see the dialogues with Poisson(1) weights
of their own, an online bootstrap (Oza 2005): their spread says how much of an estimate is the data's luck, as far as
one trunk leaves them free. Source: Le, Voloshin, Yue 2019 (arXiv 1903.08738), algorithm 3, with a decaying target in
place of iterations to convergence.

What it can tell: it ranks policies near the data. What it cannot: a token that the data never shows in a state has a
made-up value, and a policy that seeks such tokens looks better than it is; the log-ratio beside the score says how far
a policy is from the data.

Axes: *B* dialogues of a batch, *K* actions, *M* states, *E* members, *D* hidden width, *V* vocabulary, *N* dialogues.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch, TokenSequence, batch_order, collate, dialogue_numbers
from ilql.choose import Knobs, policy_inputs, probabilities
from ilql.hyperparameters import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, check, hyper
from ilql.language_model import gather, hidden_states, hidden_width, trunk_of
from ilql.method import Actor, Decoding, Manner, TokenCritic
from ilql.networks import head
from ilql.tokens import Tokenizer

VERSION = 1
"""Raised when the same settings would give other estimates; part of every estimate's key."""

READ_TOGETHER = 16
"""Dialogues per forward pass. A constant: the shape of a matrix product can decide its last bit."""


LEARN_TOGETHER = 4
"""Dialogues per pass that learns, for memory: a batch's gradient is the sum over such parts of it."""

RANKS, ASKED = "ranks whole utterances", "is asked for a return"
"""What some policies do, whose tokens have no probabilities of their own."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How Q is fitted."""

    steps: int = hyper(400, AT_LEAST_ONE, meaning="optimiser steps")
    batch_size: int = hyper(16, AT_LEAST_ONE, meaning="dialogues per step")
    learning_rate: float = hyper(1e-3, POSITIVE, meaning="AdamW's learning rate")
    polyak: float = hyper(0.2, SHARE, meaning="share of Q that Q̄ takes per step")
    members: int = hyper(3, AT_LEAST_ONE, meaning="heads of the ensemble")
    dialogues: int = hyper(4000, AT_LEAST_ONE, meaning="dialogues it is fitted on, the first of the data")
    seed: int = hyper(0, NOT_NEGATIVE, meaning="decides initial weights, batches and bootstrap weights")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class States:
    """States of conversations, as the networks that act see them.

    Attributes:
        language: The language model's hidden states, shape (M, D).
        critic: The critic's, shape (M, D'); None where there is no critic.
    """

    language: Tensor
    critic: Tensor | None


def without_probabilities(manner: Manner) -> str | None:
    """What leaves a policy's tokens without probabilities of their own, in words that follow 'it'; None if nothing."""
    if manner.candidates:
        return RANKS
    return None if manner.target_return is None else ASKED


@dataclass(frozen=True)
class Acting:
    """A policy whose tokens have probabilities.

    Attributes:
        actor: Its networks; no judge and no return that is asked for.
        decode: How tokens are chosen.
        manner: What is added to the language model.
        tokenizer: Its tokeniser.

    Raises:
        ValueError: It ranks whole utterances, or is asked for a return: its tokens have no probabilities of their own.
    """

    actor: Actor
    decode: Decoding
    manner: Manner
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        if self.actor.judge is not None or self.actor.condition is not None:
            what = RANKS if self.actor.judge is not None else ASKED
            raise ValueError(f"fitted-Q evaluation needs a policy whose tokens have probabilities, got one that {what}")

    def probabilities(self, states: States) -> Tensor:
        """How likely each token is in each state, shape (M, V)."""
        head_ = self.actor.language_model.get_output_embeddings()  # type: ignore[operator]
        logits, q = policy_inputs(head_, self.critic, states.language, states.critic, relative=self.actor.relative)
        writable = torch.from_numpy(self.tokenizer.writable()).to(logits.device)
        every_state = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        knobs = Knobs.of([self.decode], [self.manner], logits.device).at(every_state)
        return probabilities(logits, q, writable, knobs)

    @property
    def critic(self) -> TokenCritic | None:
        """The network that tilts."""
        return self.actor.online if self.manner.online_critic else self.actor.critic


class FittedQ(nn.Module):
    """An ensemble of Q heads on one trunk.

    Args:
        trunk: What its trunk begins as; copied.
        vocabulary: V.
        members: E.
        start: What every head says before it is fitted.
        seed: Decides the initial weights.
    """

    def __init__(self, trunk: nn.Module, vocabulary: int, *, members: int, start: float, seed: int) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(trunk).requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleList([head(hidden_width(trunk), vocabulary, constant=start) for _ in range(members)])

    @torch.no_grad()
    def values(
        self,
        acting: Acting,
        sequences: Sequence[TokenSequence],
        device: torch.device,
        on_pass: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """V of the first state of each dialogue under the policy, by every member, shape (E, N).

        `on_pass` is called after each pass, of `READ_TOGETHER` dialogues at the most.
        """
        values = []
        pad = acting.tokenizer.structural("pad")
        for begin in range(0, len(sequences), READ_TOGETHER):
            block = sequences[begin : begin + READ_TOGETHER]
            batch = collate(block, pad=pad).to(device)
            first = batch.state_positions[:, :1]
            own = gather(hidden_states(self.trunk, batch.tokens), first).squeeze(1)
            language, critic = _seen(acting, batch, first)
            pi = acting.probabilities(States(language.squeeze(1), None if critic is None else critic.squeeze(1)))
            values.append(torch.stack([(pi * q(own)).sum(dim=-1) for q in self.heads]))
            on_pass()
        return torch.cat(values, dim=1)


def fit(
    acting: Acting,
    sequences: Sequence[TokenSequence],
    settings: Fit,
    device: torch.device,
    on_step: Callable[[int], None] = lambda step: None,
) -> FittedQ:
    """Q of a policy, fitted on recorded dialogues.

    Args:
        acting: The policy.
        sequences: The dialogues in the data's order, with the rewards that are to be summed.
        settings: How.
        device: Where the networks are.
        on_step: Called after each step with its number, from 1 on. What it raises ends the fit.

    Raises:
        ValueError: There is nothing to learn from.
        FloatingPointError: The fit has diverged.
    """
    numbered = [
        (number, sequence)
        for number, sequence in zip(dialogue_numbers(sequences).tolist(), sequences, strict=True)
        if number < settings.dialogues and len(sequence.action_positions)
    ]
    kept = [sequence for _, sequence in numbered]
    if not kept:
        raise ValueError("fitted-Q evaluation needs dialogues in which the agent speaks, got none")
    start = float(np.concatenate([rewards_to_go(sequence.rewards) + sequence.later for sequence in kept]).mean())
    trunk = trunk_of(acting.actor.language_model)
    made = FittedQ(trunk, acting.tokenizer.size, members=settings.members, start=start, seed=settings.seed).to(device)
    target = copy.deepcopy(made).requires_grad_(False).eval()
    optimiser = torch.optim.AdamW(made.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    _, own = np.unique([number for number, _ in numbered], return_inverse=True)  # a dialogue's windows have one luck
    luck = np.random.default_rng(settings.seed).poisson(1.0, (settings.members, int(own.max()) + 1))[:, own]
    pad = acting.tokenizer.structural("pad")
    batches = batch_order(len(kept), batch_size=settings.batch_size, seed=settings.seed)
    for step, chosen in enumerate(itertools.islice(batches, settings.steps), start=1):
        total = sum(len(kept[number].action_positions) for number in chosen)
        optimiser.zero_grad(set_to_none=True)
        for begin in range(0, len(chosen), LEARN_TOGETHER):
            part = chosen[begin : begin + LEARN_TOGETHER]
            batch = collate([kept[number] for number in part], pad=pad).to(device)
            weight = torch.from_numpy(luck[:, part]).to(device, torch.float32)
            loss = _squared_errors(acting, made, target, batch, weight) / total
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(target.parameters()), list(made.parameters()), settings.polyak)
        on_step(step)
    if not all(bool(parameter.isfinite().all()) for parameter in made.parameters()):
        raise FloatingPointError("fitted-Q evaluation has diverged: its weights are not finite")
    return made.requires_grad_(False).eval()


def _squared_errors(acting: Acting, made: FittedQ, target: FittedQ, batch: TokenBatch, luck: Tensor) -> Tensor:
    """The sum of weighted squared errors over a batch's actions and the members; `luck` has shape (E, B)."""
    goal, mask = _goal(acting, target, batch), batch.action_mask
    hidden = hidden_states(made.trunk, batch.tokens)
    now, action = gather(hidden, batch.action_positions)[mask], batch.actions[mask]
    q = torch.stack([_taken(head_, now, action) for head_ in made.heads])
    weight = luck[:, mask.nonzero()[:, 0]]
    return (weight * (goal - q).square()).sum()


@torch.no_grad()
def _goal(acting: Acting, target: FittedQ, batch: TokenBatch) -> Tensor:
    """What Q of every action of a batch is to be, r + (1 − terminal) Σ_v π(v | s') Q̄(s', v), shape (E, actions)."""
    after, mask = batch.state_positions[:, 1:], batch.action_mask
    language, critic = _seen(acting, batch, after)
    pi = acting.probabilities(States(language[mask], None if critic is None else critic[mask]))
    own = gather(hidden_states(target.trunk, batch.tokens), after)[mask]
    following = torch.stack([(pi * q(own)).sum(dim=-1) for q in target.heads])
    return batch.rewards[mask] + torch.where(batch.terminal[mask], 0.0, following)


def _seen(acting: Acting, batch: TokenBatch, positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """The hidden states of the language model that acts, and of its critic if it has one, at positions (B, K)."""

    def seen(trunk: nn.Module) -> Tensor:
        hidden = hidden_states(trunk.to(batch.tokens.device).eval(), batch.tokens)
        return gather(hidden, positions).float()

    critic = acting.critic
    return seen(trunk_of(acting.actor.language_model)), None if critic is None else seen(critic.trunk)


def _taken(head_: nn.Module, hidden: Tensor, actions: Tensor) -> Tensor:
    """Q of one action in each state, shape (actions,), from states (actions, D)."""
    q: Tensor = head_(hidden)
    return q.gather(1, actions[:, None]).squeeze(1)


def rewards_to_go(rewards: npt.NDArray[np.float32], *, gamma: float = 1.0) -> npt.NDArray[np.float64]:
    """Σ_k γ^k r of the rewards from each action of a dialogue on, shape (K,)."""
    sums = np.zeros(len(rewards) + 1)
    for place in range(len(rewards) - 1, -1, -1):
        sums[place] = rewards[place] + gamma * sums[place + 1]
    return sums[:-1]


@torch.no_grad()
def negative_log_likelihood(
    acting: Acting,
    sequences: Sequence[TokenSequence],
    device: torch.device,
    on_pass: Callable[[], None] = lambda: None,
) -> float:
    """Mean −log π of the tokens that the agent chose in some dialogues; infinite where π leaves one of them out.

    `on_pass` is called after each pass, of `READ_TOGETHER` dialogues at the most.
    """
    total, tokens = 0.0, 0
    for begin in range(0, len(sequences), READ_TOGETHER):
        block = sequences[begin : begin + READ_TOGETHER]
        batch = collate(block, pad=acting.tokenizer.structural("pad")).to(device)
        mask = batch.action_mask
        language, critic = _seen(acting, batch, batch.action_positions)
        pi = acting.probabilities(States(language[mask], None if critic is None else critic[mask]))
        total -= float(pi.gather(1, batch.actions[mask][:, None]).log().double().sum())
        tokens += int(mask.sum())
        on_pass()
    return total / tokens
