"""The recorded world's guesser: from the dialogue so far to a low-dimensional scene feature, and from there to a rank.

Like the paper's, which regresses image features and ranks a pool by the distance to them. Images are not at hand, so a
scene's feature is a latent semantic analysis of what a vision model said about it.
Axes: B dialogues, S scenes of the pool, F features, V terms, K regressions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse
from scipy.sparse.linalg import svds

from ilql.tasks.visdial.protocols import Exchange, Scene
from ilql.tasks.visdial.terms import Terms, words

Floats = npt.NDArray[np.float64]


DECIMALS = 6
"""Fitted numbers are kept to so many decimals: solvers differ in the sixteenth with the number of threads."""


def rounded(numbers: Floats) -> Floats:
    """`numbers` to `DECIMALS` decimals, without negative zeros: the same on one thread and on many."""
    kept: Floats = np.round(numbers, DECIMALS) + 0.0
    return kept


def transcript(caption: str, history: Sequence[Exchange]) -> str:
    """What the guesser reads: the caption and the exchanges, one after the other."""
    return " ".join([caption, *(f"{exchange.question} {exchange.answer}" for exchange in history)])


def latent_axes(vectors: sparse.csr_matrix, *, features: int) -> Floats:
    """The first right singular vectors of `vectors`, strongest first, shape (V, features).

    Each axis points where its largest component is positive, so equal input gives equal signs.

    Raises:
        ValueError: There are not more texts and terms than features.
    """
    if min(vectors.shape) <= features:
        raise ValueError(f"{features} features need more than {features} scenes and terms, got shape {vectors.shape}")
    start = np.ones(min(vectors.shape))  # a fixed first vector: the solver would draw a random one
    _, strength, axes = svds(vectors, k=features, v0=start, solver="arpack")
    axes = axes[np.argsort(-strength)]
    largest = np.abs(axes).argmax(axis=1)
    signed: Floats = (axes * np.sign(axes[np.arange(features), largest])[:, None]).T
    return np.ascontiguousarray(signed)


@dataclass(frozen=True)
class Regression:
    """A ridge regression whose intercept is the mean target: feature = vector · weights + mean.

    Attributes:
        weights: Shape (V, F).
        mean: Shape (F,).
    """

    weights: Floats
    mean: Floats


def fit_regression(vectors: sparse.csr_matrix, targets: Floats, *, ridge: float) -> Regression:
    """The weights W that minimise |X W - (Y - mean Y)|² + ridge · |W|², by Cholesky.

    Args:
        vectors: X, one dialogue a row, shape (N, V).
        targets: Y, the feature of its scene, shape (N, F).
        ridge: Strength of the penalty, positive.
    """
    mean = targets.mean(axis=0)
    gram = np.asarray((vectors.T @ vectors).todense())
    gram[np.diag_indices_from(gram)] += ridge
    weights = linalg.solve(gram, vectors.T @ (targets - mean), assume_a="pos", overwrite_a=True)
    return Regression(weights=rounded(np.ascontiguousarray(weights)), mean=rounded(mean))


@dataclass(frozen=True)
class RidgeGuesser:
    """Ranks the scenes of a pool by the distance of their features to the one that a dialogue predicts.

    Attributes:
        scene_ids: The pool; S names.
        captions: The caption of each.
        features: The feature of each, shape (S, F).
        fold: Which regression guesses the scene: one that was not fitted on it; in [0, K), shape (S,).
        regressions: K regressions.
        terms: What vectors of dialogues are made of.
    """

    scene_ids: tuple[str, ...]
    captions: tuple[str, ...]
    features: Floats
    fold: npt.NDArray[np.int64]
    regressions: tuple[Regression, ...]
    terms: Terms
    _place: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", {name: place for place, name in enumerate(self.scene_ids)})

    @property
    def pool(self) -> int:
        """S, the number of scenes that are ranked."""
        return len(self.scene_ids)

    def ranks(self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]]) -> Floats:
        """The rank of the true scene in each row, in [1, pool], shape (B,): see `protocols.Guesser`."""
        if not scene_ids:
            return np.zeros(0)
        places = np.array([self._place[name] for name in scene_ids])
        texts = [transcript(self.captions[place], history) for place, history in zip(places, histories, strict=True)]
        vectors = self.terms.vectors(texts, sublinear=True)
        predicted = np.empty((len(texts), self.features.shape[1]))
        for number, regression in enumerate(self.regressions):
            rows = np.flatnonzero(self.fold[places] == number)
            # A sparse product goes row by row: what a row gets does not depend on how many others there are.
            predicted[rows] = vectors[rows] @ regression.weights + regression.mean
        distances = np.zeros((len(texts), self.pool))
        for axis in range(self.features.shape[1]):  # elementwise sums, not a matrix product, for the same reason
            distances += np.square(predicted[:, axis, None] - self.features[None, :, axis])
        true = distances[np.arange(len(texts)), places][:, None]
        better = (distances < true).sum(axis=1)
        equal = (distances == true).sum(axis=1) - 1
        ranks: Floats = 1.0 + better + 0.5 * equal
        return ranks


def save_guessers(folder: Path, guessers: Mapping[str, RidgeGuesser]) -> None:
    """Write the guesser of each split into `folder`; they share a vocabulary. Names and captions stand elsewhere."""
    for split, guesser in guessers.items():
        np.savez(
            folder / f"{split}_guesser.npz",
            features=guesser.features,
            fold=guesser.fold,
            weights=np.stack([regression.weights for regression in guesser.regressions]),
            mean=np.stack([regression.mean for regression in guesser.regressions]),
        )
        vocabulary = {"names": guesser.terms.names, "weights": guesser.terms.weights}
        (folder / "guesser_terms.json").write_text(json.dumps(vocabulary), encoding="utf-8")


def load_guessers(folder: Path, scenes: Mapping[str, Sequence[Scene]]) -> dict[str, RidgeGuesser]:
    """The guessers that `save_guessers` wrote, equal to the last bit; `scenes` of each split, as they were."""
    vocabulary = json.loads((folder / "guesser_terms.json").read_text(encoding="utf-8"))
    terms = Terms(
        names=tuple(vocabulary["names"]), weights=tuple(vocabulary["weights"]), unknown_weight=0.0, split=words
    )
    guessers = {}
    for split, pool in scenes.items():
        with np.load(folder / f"{split}_guesser.npz", allow_pickle=False) as numbers:
            guessers[split] = RidgeGuesser(
                scene_ids=tuple(scene.id for scene in pool),
                captions=tuple(scene.caption for scene in pool),
                features=numbers["features"],
                fold=numbers["fold"],
                regressions=tuple(
                    Regression(weights=weights, mean=mean)
                    for weights, mean in zip(numbers["weights"], numbers["mean"], strict=True)
                ),
                terms=terms,
            )
    return guessers
