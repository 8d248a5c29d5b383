"""CHAI: small Q heads on a frozen language model's features rank utterances that the model proposed.

A feature φ(s, a) is the mean of the language model's last hidden states over the conversation up to the end of
utterance a. With ã_j the n utterances drawn from the model in each state, once, before training:
    L_Q   = Σ_i mean (r + γ (1 − terminal) max_j min_i Q̄_i(s', ã_j) − Q_i(s, a))²
    L_CQL = Σ_i mean (log[(1/n) Σ_j exp(Q_i(s, ã_j) − log p(ã_j))] − Q_i(s, a))
with p the model's probability of an utterance. The policy says the proposal with the highest Q̄.
Source: Verma et al. 2022 (arXiv 2204.08426); as the baseline "CHAI" of Snell et al. 2022 (arXiv 2206.11871), and its
public implementation (Sea-Snell/Implicit-Language-Q-Learning, models/chai_model.py).

Differences from the public implementation:
1. While acting, features are means, as in training; there they are sums, a hundred times larger.
2. The conservative term is over the proposals. There, n features drawn uniformly from [−1, 1]^D are added to them
   (`uniform_points`), with a density over features beside probabilities of utterances, as −log 2D; and the division by
   2n is inside the exponent. With the true density, −D log 2, they carry all of the term's gradient but 1e-16 at
   D = 96, so that it would lower values of features that nobody says, and none that is ranked.
3. Where a recording was cut off, its last utterance has no known next state and is left out; there it counts as an end.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch, last_actions
from ilql.candidates import Candidates
from ilql.hyperparameters import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, UNIT, Search, hyper
from ilql.losses import candidate_loss, masked_mean, td_loss, td_target
from ilql.method import (
    Actor,
    Decoding,
    Loss,
    Manner,
    Method,
    Proposals,
    Start,
    Training,
    require,
)
from ilql.networks import head, renew_target


@dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Training of the heads."""

    gamma: float = hyper(0.99, UNIT, meaning="discount per utterance", search=Search(0.8, 1.0))
    cql_weight: float = hyper(
        0.1, NOT_NEGATIVE, meaning="weight of the conservative term", search=Search(0.01, 10.0, log=True)
    )
    proposals: int = hyper(5, AT_LEAST_ONE, meaning="utterances drawn in every state of the data before training")
    proposal_tokens: int = hyper(40, AT_LEAST_ONE, meaning="longest utterance drawn, in tokens, its end token included")
    uniform_points: bool = hyper(
        False, meaning="whether the conservative term is also over as many features drawn uniformly"
    )
    polyak: float = hyper(0.005, SHARE, meaning="share of the online weights that the target takes when it is renewed")
    target_every: int = hyper(1, AT_LEAST_ONE, meaning="optimiser steps between renewals of the target")


@dataclass(frozen=True, kw_only=True)
class Decode(Decoding):
    """Drawing candidates, and ranking them."""

    greedy: bool = hyper(False, meaning="take the most probable token: all candidates are then the same one")
    candidates: int = hyper(8, AT_LEAST_ONE, meaning="utterances drawn, of which the one with the highest Q is said")


class FeatureJudge(nn.Module):
    """Scores an utterance by the target heads' Q of its feature."""

    trunk = None

    def __init__(self, heads: nn.ModuleList) -> None:
        super().__init__()
        self._heads = heads

    def score(self, last: Tensor, mean: Tensor) -> Tensor:
        """The smaller head's Q, shape (S,)."""
        return minimum(self._heads, mean)


class FeatureHeads(nn.Module):
    """Two Q heads and their target on features that were made before."""

    def __init__(self, candidates: Candidates, *, seed: int) -> None:
        super().__init__()
        width = candidates.taken.shape[-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.online = nn.ModuleList([head(width, 1) for _ in range(2)])
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.candidates = candidates


def minimum(heads: nn.ModuleList, features: Tensor) -> Tensor:
    """The smaller head's Q of features (..., D), shape (...)."""
    return torch.stack([q(features).squeeze(-1) for q in heads]).amin(dim=0)


def build(start: Start, train: Train) -> nn.Module:
    """Fresh heads; the language model itself is in the features."""
    assert start.candidates is not None, "a method that needs candidates was built without them"
    return FeatureHeads(start.candidates, seed=start.seed)


def known_utterances(batch: TokenBatch) -> Tensor:
    """Means count every whole utterance whose next state is known: it ended the episode, or another one follows."""
    others = batch.ends.long().flip(1).cumsum(1).flip(1) - batch.ends.long()
    return batch.ends & (batch.terminal | (others > 0) | _followed(batch))


def _followed(batch: TokenBatch) -> Tensor:
    """True on actions, shape (B, K), behind which the next window of their dialogue begins."""
    return last_actions(batch.action_mask) & batch.goes_on[:, None]


def loss(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Train) -> Loss:
    """L_Q + cql_weight · L_CQL of a batch; `weights` of shape (B, K) are those of its `known_utterances`."""
    assert isinstance(module, FeatureHeads)
    stored, device = module.candidates, batch.tokens.device
    row, end = batch.ends.nonzero(as_tuple=True)
    place = batch.ends.long().cumsum(1)[row, end] - 1  # which of its dialogue's utterances
    number = torch.from_numpy(np.asarray(stored.first[batch.numbers.cpu().numpy()])).to(device)[row] + place
    terminal = batch.terminal[row, end]
    has_next = torch.cat([row[1:] == row[:-1], row.new_zeros(1, dtype=torch.bool)])[: len(row)]
    has_next = has_next | _followed(batch)[row, end]  # whose utterances have the next numbers
    mask = weights[row, end] * (has_next | terminal)

    def take(values: object, which: Tensor) -> Tensor:
        return torch.as_tensor(values[which.cpu().numpy()]).to(device, torch.float32)  # type: ignore[index]

    taken, drawn = take(stored.taken, number), take(stored.drawn, number)
    log_probability = take(stored.log_probability, number)
    with torch.no_grad():
        following = torch.where(has_next, number + 1, number)
        best = minimum(module.target, take(stored.drawn, following)).amax(dim=-1)
        goal = td_target(batch.rewards[row, end], best, terminal, gamma=train.gamma)
    q = [head_(taken).squeeze(-1) for head_ in module.online]
    td = td_loss(goal, q, mask)
    parts = {"td": td, "q_mean": masked_mean(q[0], mask)}
    total = td
    if train.cql_weight > 0:
        points, density = drawn, log_probability
        if train.uniform_points:
            uniform = torch.rand(drawn.shape, device=device) * 2 - 1
            log_uniform = torch.full_like(log_probability, -drawn.shape[-1] * math.log(2))
            points, density = torch.cat([drawn, uniform], dim=1), torch.cat([log_probability, log_uniform], dim=1)
        proposed = [head_(points).squeeze(-1) for head_ in module.online]
        parts["conservative"] = candidate_loss(q, proposed, density, mask)
        total = total + train.cql_weight * parts["conservative"]
    return Loss(total, {name: part.detach() for name, part in parts.items()})


def actor(module: nn.Module, behaviour: nn.Module | None) -> Actor:
    """The behaviour policy proposes, the target heads judge what it made of it."""
    assert isinstance(module, FeatureHeads)
    return Actor(require(behaviour, "behaviour policy"), judge=FeatureJudge(module.target))


def manner(train: Train, decode: Decode) -> Manner:
    """So many candidates, ranked."""
    return Manner(candidates=decode.candidates)


def proposals(train: Train) -> Proposals:
    """What is drawn before training."""
    return Proposals(train.proposals, train.proposal_tokens)


METHOD = Method(
    name="chai",
    title="CHAI",
    version=2,
    losses=("td", "candidates"),
    train=Train,
    decode=Decode,
    build=build,
    loss=loss,
    actor=actor,
    needs_behaviour=True,
    proposals=proposals,
    counts=known_utterances,
    after_step=renew_target,
    manner=manner,
)
