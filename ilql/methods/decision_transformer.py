"""Decision transformer: clone every dialogue, told its return; then ask for a high one.

A return R is heard as one embedding, a linear map of the number, between the words: L = mean −log π(a | R, s). Two
forms, by `returns`:
- `trajectory`: one embedding before everything, of the whole dialogue's undiscounted return, never counted down. The
  baseline "DT" of Snell et al. 2022 (arXiv 2206.11871), as in its public implementation
  (Sea-Snell/Implicit-Language-Q-Learning, models/dt_model.py).
- `to_go`: before each of the agent's utterances, of what is still to come; while acting, the target less the rewards so
  far. Chen et al. 2021 (arXiv 2106.01345), with an utterance as the action.

Differences from the public implementation: the mean is over action tokens, as in `bc`. A dialogue that the embeddings
push out of the context loses its last actions instead of stopping the program.

Where it does badly: on recorded visual dialogue at the laptop preset what is asked for hardly matters (−14.0 to −15.7
for returns of −1 to −11; −11.5 for 0); on the generated world it does (−8.1 for −1, −17.8 for −11). Checked: another
return gives other words, and the return is heard where it should be (tests). Not tried: more steps; the scale of the
number that is embedded.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch
from ilql.fused import cloning_loss
from ilql.hyperparameters import Range, hyper
from ilql.language_model import context_length, gather, head_of, hidden_width, states_of, trunk_of
from ilql.losses import masked_mean
from ilql.method import Actor, Decoding, Loss, Manner, Method, Start, Training
from ilql.networks import Whole


@dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Cloning, and how returns are told."""

    returns: str = hyper(
        "trajectory",
        Range(choices=("trajectory", "to_go")),
        meaning="whether the return is told once, of the whole dialogue, or before every utterance, of what is to come",
    )


@dataclass(frozen=True, kw_only=True)
class Decode(Decoding):
    """Decoding, and what is asked for."""

    target_return: float = hyper(0.0, meaning="the return the policy is asked for")


class ReturnConditioned(nn.Module):
    """A language model that hears returns as embeddings."""

    def __init__(self, language_model: nn.Module, *, seed: int) -> None:
        super().__init__()
        self.language_model = language_model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.told = Whole(1, hidden_width(trunk_of(language_model)))

    def embed(self, returns: Tensor) -> Tensor:
        """The embeddings of returns, shape (..., D) from (...)."""
        embeddings: Tensor = self.told.to(returns.device)(returns.unsqueeze(-1))
        return embeddings


def build(start: Start, train: Train) -> nn.Module:
    """A copy of the pretrained language model, and a fresh map of returns."""
    return ReturnConditioned(copy.deepcopy(start.pretrained).requires_grad_(True), seed=start.seed)


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """Mean −log π(a_k | returns, what was said before) over the agent's tokens."""
    assert isinstance(module, ReturnConditioned)
    model = module.language_model
    trunk = trunk_of(model)
    layout = lay_out(batch, each_turn=train.returns == "to_go")
    length = min(context_length(model), layout.length)
    words = trunk.get_input_embeddings()(batch.tokens)  # type: ignore[operator]
    told = module.embed(layout.told)
    embeddings = words.new_zeros(len(words), length + 1, words.shape[-1])  # the last column takes what does not fit
    for what, where, real in ((words, layout.words_at, batch.attention_mask), (told, layout.told_at, layout.is_told)):
        column = torch.where(real & (where < length), where, length)
        embeddings = embeddings.scatter(1, column[..., None].expand_as(what), what)
    states = states_of(trunk, embeddings[:, :length])  # what is no word and no return stands behind all that is
    fits = (layout.predictors < length).float()  # what does not weighs nothing, and still counts in the mean
    chosen_at = gather(states, layout.predictors.clamp(max=length - 1))
    nll = cloning_loss(chosen_at, head_of(model), batch.actions, fits, weights)
    return Loss(nll, {"nll": nll.detach(), "return_mean": masked_mean(layout.told.expand_as(weights), weights)})


@dataclass(frozen=True)
class Layout:
    """Where words and returns stand once the returns are put between the words.

    Attributes:
        words_at: The new position of every token, shape (B, T).
        told: The returns, shape (B, N).
        told_at: Their positions, shape (B, N).
        is_told: Which of them there are, shape (B, N).
        predictors: The position from which every action is chosen, shape (B, K): what was heard just before it.
        length: Positions in all.
    """

    words_at: Tensor
    told: Tensor
    told_at: Tensor
    is_told: Tensor
    predictors: Tensor
    length: int


def lay_out(batch: TokenBatch, *, each_turn: bool) -> Layout:
    """Put one return before everything, or one before each of the agent's utterances.

    In the second form the return stands right behind the boundary position that the utterance is chosen from, and takes
    that part over.
    """
    positions = torch.arange(batch.tokens.shape[1], device=batch.tokens.device).expand_as(batch.tokens)
    if not each_turn:
        first = torch.zeros_like(batch.tokens[:, :1])
        told = batch.returns[:, None]
        predictors = batch.action_positions + 1
        return Layout(positions + 1, told, first, first == 0, predictors, positions.shape[1] + 1)
    within = batch.action_mask & ~batch.ends
    opens = batch.action_mask & ~torch.cat([torch.zeros_like(within[:, :1]), within[:, :-1]], dim=1)
    boundary = torch.zeros_like(batch.tokens).scatter_add(1, batch.action_positions, opens.long())
    words_at = positions + boundary.cumsum(1) - boundary
    at_actions = words_at.gather(1, batch.action_positions)
    rewards = batch.rewards * batch.action_mask
    to_go = rewards.flip(1).cumsum(1).flip(1) + batch.later[:, None]
    extra = int(opens.sum(1).max()) if opens.numel() else 0
    return Layout(words_at, to_go, at_actions + 1, opens, at_actions + opens.long(), positions.shape[1] + extra)


def actor(module: nn.Module, behaviour: nn.Module | None) -> Actor:
    """The cloned model acts alone, asked for a return."""
    assert isinstance(module, ReturnConditioned)
    return Actor(module.language_model, condition=module.embed)


def manner(train: Train, decode: Decode) -> Manner:
    """It is asked for the target return in the way it was told returns."""
    return Manner(target_return=decode.target_return, asked_each_turn=train.returns == "to_go")


METHOD = Method(
    name="decision_transformer",
    title="DT",
    version=1,
    losses=("nll",),
    train=Train,
    decode=Decode,
    build=build,
    loss=loss,
    actor=actor,
    manner=manner,
)
