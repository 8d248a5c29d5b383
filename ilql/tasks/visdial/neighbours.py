"""The recorded world's answerer: it repeats what somebody said when nearly the same was asked of nearly the same scene.

A question is answered by the first of these that is near enough:

1. the scene's *own* pairs: what people and the vision model answered about this very image, people preferred;
2. *borrowed* pairs: what people answered about similar images of the training split;
3. nothing fits: what people say most often when they cannot tell.

Axes: B questions, P pairs, S scenes, D lending scenes, V terms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ilql.tasks.visdial.protocols import Answer, Exchange, Scene
from ilql.tasks.visdial.terms import Terms, words_and_pairs

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Nearness:
    """When a recorded question is near enough to a new one; similarities are cosines.

    Attributes:
        own: An own pair must be at least so similar.
        human_bonus: How much less similar an own answer of a person may be and still go before the vision model's.
        borrowed: A borrowed pair must be at least so similar.
        scene: The image it is borrowed from must be at least so similar.
        scene_weight: How much the similarity of the images counts among borrowed pairs, that of the questions being 1.
        sensible: A question less similar to every recorded one makes no sense.

    Raises:
        ValueError: A similarity is outside [0, 1], or a weight is negative.
    """

    own: float
    human_bonus: float
    borrowed: float
    scene: float
    scene_weight: float
    sensible: float

    def __post_init__(self) -> None:
        for name in ("own", "borrowed", "scene", "sensible"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("human_bonus", "scene_weight"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class Pairs:
    """Recorded answers with the vectors of their questions, those of one scene side by side.

    Attributes:
        vectors: Shape (P, V).
        answers: P answers.
        human: Whether a person gave it, shape (P,).
        starts: Those of scene s are at starts[s] to starts[s + 1], shape (S + 1,).

    Raises:
        ValueError: The lengths do not agree.
    """

    vectors: sparse.csr_matrix
    answers: tuple[str, ...]
    human: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {self.vectors.shape[0], len(self.answers), len(self.human), int(self.starts[-1])}
        if len(lengths) != 1:
            raise ValueError(
                f"pairs must have one vector, answer, source and scene each, got {sorted(lengths)} of them"
            )


def collect_pairs(terms: Terms, human: Sequence[Sequence[Exchange]], machine: Sequence[Sequence[Exchange]]) -> Pairs:
    """The pairs of S scenes, people's before the vision model's, each in the order in which it was asked."""
    kept = [
        (exchange, by_human)
        for people, model in zip(human, machine, strict=True)
        for exchanges, by_human in ((people, True), (model, False))
        for exchange in exchanges
    ]
    counts = [len(people) + len(model) for people, model in zip(human, machine, strict=True)]
    return Pairs(
        vectors=terms.vectors([exchange.question for exchange, _ in kept]),
        answers=tuple(exchange.answer for exchange, _ in kept),
        human=np.array([by_human for _, by_human in kept], dtype=np.bool_),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


@dataclass(frozen=True)
class NeighbourAnswerer:
    """Answers by nearest neighbour among recorded pairs; it has no memory, so the history changes nothing.

    Attributes:
        scene_ids: The S scenes it answers about.
        own: Their pairs.
        lent: People's pairs about the D training scenes.
        likeness: Cosine of each scene with each lending scene, shape (S, D); -1 where both are the same.
        nearness: What is near enough.
        nothing_fits: What is answered if nothing is.
        terms: What vectors of questions are made of.
    """

    scene_ids: tuple[str, ...]
    own: Pairs
    lent: Pairs
    likeness: Floats
    nearness: Nearness
    nothing_fits: str
    terms: Terms
    _place: dict[str, int] = field(init=False, repr=False, compare=False)
    _by_term: sparse.csr_matrix = field(init=False, repr=False, compare=False)
    _lender: npt.NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", {name: place for place, name in enumerate(self.scene_ids)})
        object.__setattr__(self, "_by_term", self.lent.vectors.T.tocsr())
        object.__setattr__(self, "_lender", np.repeat(np.arange(len(self.lent.starts) - 1), np.diff(self.lent.starts)))

    def answer(
        self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]], questions: Sequence[str]
    ) -> list[Answer]:
        """One answer for each row, from its own scene and question alone: see `protocols.Answerer`."""
        vectors = self.terms.vectors(questions)
        # Sparse times sparse goes row by row: what a row gets does not depend on how many others there are.
        lent = vectors @ self._by_term
        answers = []
        for row, name in enumerate(scene_ids):
            place = self._place[name]
            question = slice(vectors.indptr[row], vectors.indptr[row + 1])
            near = slice(lent.indptr[row], lent.indptr[row + 1])
            answers.append(
                self._answer(
                    place,
                    self._own_similarities(place, vectors.indices[question], vectors.data[question]),
                    lent.indices[near],
                    lent.data[near],
                )
            )
        return answers

    def _own_similarities(self, place: int, terms: npt.NDArray[np.int32], weights: Floats) -> Floats:
        """The cosine of the question with each own pair of the scene."""
        first, last = int(self.own.starts[place]), int(self.own.starts[place + 1])
        bounds = self.own.vectors.indptr[first : last + 1]
        part = slice(bounds[0], bounds[-1])
        question = np.zeros(self.own.vectors.shape[1])
        question[terms] = weights
        products = self.own.vectors.data[part] * question[self.own.vectors.indices[part]]
        pair = np.repeat(np.arange(last - first), np.diff(bounds))
        return np.bincount(pair, products, minlength=last - first).astype(np.float64)

    def _answer(self, place: int, own: Floats, lent: npt.NDArray[np.int32], similarities: Floats) -> Answer:
        first = int(self.own.starts[place])
        rule = self.nearness
        preference = own + rule.human_bonus * self.own.human[first : first + len(own)]
        preference[own < rule.own] = -1.0
        if preference.max() >= 0.0:
            return Answer(text=self.own.answers[first + int(preference.argmax())], understood=True)
        understood = bool(max(own.max(), similarities.max(initial=0.0)) >= rule.sensible)
        likeness = self.likeness[place, self._lender[lent]]
        fits = (similarities >= rule.borrowed) & (likeness >= rule.scene)
        if not fits.any():
            return Answer(text=self.nothing_fits, understood=understood)
        score = similarities[fits] + rule.scene_weight * likeness[fits]
        best = lent[fits][score == score.max()].min()  # of equals the first one that was recorded
        return Answer(text=self.lent.answers[int(best)], understood=True)


def save_answerers(folder: Path, answerers: Mapping[str, NeighbourAnswerer]) -> None:
    """Write the answerer of each split into `folder`; all but their own pairs and likenesses is common to them."""
    for split, answerer in answerers.items():
        _save_pairs(folder / f"{split}_pairs", answerer.own)
        np.save(folder / f"{split}_likeness.npy", answerer.likeness)
    common = next(iter(answerers.values()))
    _save_pairs(folder / "lent_pairs", common.lent)
    about = {
        "names": common.terms.names,
        "weights": common.terms.weights,
        "unknown_weight": common.terms.unknown_weight,
        "nothing_fits": common.nothing_fits,
        "nearness": asdict(common.nearness),
    }
    (folder / "answerer.json").write_text(json.dumps(about), encoding="utf-8")


def load_answerers(folder: Path, scenes: Mapping[str, Sequence[Scene]]) -> dict[str, NeighbourAnswerer]:
    """The answerers that `save_answerers` wrote, equal to the last bit; `scenes` of each split, as they were."""
    about = json.loads((folder / "answerer.json").read_text(encoding="utf-8"))
    terms = Terms(
        names=tuple(about["names"]),
        weights=tuple(about["weights"]),
        unknown_weight=about["unknown_weight"],
        split=words_and_pairs,
    )
    lent = _load_pairs(folder / "lent_pairs", len(terms.names))
    return {
        split: NeighbourAnswerer(
            scene_ids=tuple(scene.id for scene in described),
            own=_load_pairs(folder / f"{split}_pairs", len(terms.names)),
            lent=lent,
            likeness=np.load(folder / f"{split}_likeness.npy", allow_pickle=False),
            nearness=Nearness(**about["nearness"]),
            nothing_fits=about["nothing_fits"],
            terms=terms,
        )
        for split, described in scenes.items()
    }


def _save_pairs(stem: Path, pairs: Pairs) -> None:
    np.savez(
        stem.with_suffix(".npz"),
        data=pairs.vectors.data,
        indices=pairs.vectors.indices,
        indptr=pairs.vectors.indptr,
        human=pairs.human,
        starts=pairs.starts,
    )
    stem.with_suffix(".json").write_text(json.dumps(pairs.answers), encoding="utf-8")


def _load_pairs(stem: Path, terms: int) -> Pairs:
    answers = tuple(json.loads(stem.with_suffix(".json").read_text(encoding="utf-8")))
    with np.load(stem.with_suffix(".npz"), allow_pickle=False) as numbers:
        vectors = sparse.csr_matrix(
            (numbers["data"], numbers["indices"], numbers["indptr"]), shape=(len(answers), terms)
        )
        return Pairs(vectors=vectors, answers=answers, human=numbers["human"], starts=numbers["starts"])
