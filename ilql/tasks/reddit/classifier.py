"""Text classifiers that train in seconds: linear in counts of words and characters, their probabilities calibrated.

Two kinds, so that one can check the other: `logistic` is logistic regression on TF-IDF of words, pairs of words and
character 2- to 4-grams; `bayes` is multinomial naive Bayes on which character 3- to 5-grams occur (Wang and Manning
2012 binarise likewise). Both end in one weight for each term, and a text's sum of them becomes a probability by Platt's
(1999) scaling, fitted to sums that each third of the training texts gets from the others, never to held-out texts.
The same sums say how probable a text is to a classifier that had not seen it: what it learnt, it knows too well
(Wikipedia's talk pages, 8,000 rows: ROC-AUC .989 on what it had learnt, .76 on other comments).

Unlike the textbook's, the sum of `bayes` is a mean over the text's terms: else a long text is sure of something,
whatever it says, and a judge that learnt from tweets is lost on longer comments (1,921 of Wikipedia's talk pages:
ROC-AUC .500 by sums, .556 by means; held-out tweets .965 and .966).

On disk: terms as JSON, numbers as npz. Axes: N texts, V terms.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from ilql.tasks.reddit.texts import text_key

KINDS = ("logistic", "bayes")
FEWEST = 5
"""So many different comments of either kind a classifier must have to learn from, and as many to be measured on."""

_FOLDS = 3
_INVERSE_RIDGE = 1.0
"""scikit-learn's C. Values from 1 to 4 differ by .002 in ROC-AUC on Wikipedia's talk pages."""
_SMOOTHING = 1.0
_MOST_STEPS = 200
_ENOUGH = 1e-10

Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """Terms of one sort and how they are counted.

    Attributes:
        analyzer: `word` or `char_wb` (characters inside words), as in scikit-learn.
        lengths: Shortest and longest n-gram.
        terms: The terms, in the order of their weights.
        idf: Weight of each term's TF-IDF, shape (V,); empty where only its occurrence counts.
    """

    analyzer: str
    lengths: tuple[int, int]
    terms: tuple[str, ...]
    idf: Floats


@dataclass(frozen=True)
class Fitted:
    """A classifier and what it says of its training texts without having seen them.

    Attributes:
        classifier: Learnt from all N texts.
        out_of_fold: Shape (N,), each text's probability by weights from the folds without it; no other fold holds an
            equal text. Terms and their idf are those of all texts, since they know no label.
    """

    classifier: LinearClassifier
    out_of_fold: Floats


class LinearClassifier:
    """P(positive | text) = 1 / (1 + exp(−(slope · s + offset))), where s = x · weights and x are the text's terms.

    Where terms only occur or not, without idf, s is divided by their number.

    Raises:
        ValueError: There is not one weight for each term.
    """

    def __init__(self, blocks: Sequence[Block], weights: Floats, *, slope: float, offset: float) -> None:
        if weights.shape != (sum(len(block.terms) for block in blocks),):
            raise ValueError(f"each term must have one weight, got weights of shape {weights.shape}")
        self.blocks, self.weights, self.slope, self.offset = tuple(blocks), weights, slope, offset
        self._vectorizers = [_vectorizer(block) for block in blocks]

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """Of each text, in (0, 1); a text's own terms alone decide, whatever stands beside it."""
        if not texts:
            return []
        terms = sparse.hstack([each.transform(texts) for each in self._vectorizers], format="csr")
        sums = _sums(terms, self.weights, mean=not any(len(block.idf) for block in self.blocks))
        return [float(value) for value in _sigmoid(self.slope * sums + self.offset)]

    def save(self, folder: Path) -> None:
        """Write `classifier.json` and `classifier.npz`."""
        about = [{"analyzer": b.analyzer, "lengths": list(b.lengths), "terms": list(b.terms)} for b in self.blocks]
        (folder / "classifier.json").write_text(json.dumps(about), encoding="utf-8")
        np.savez_compressed(
            folder / "classifier.npz",
            weights=self.weights,
            idf=np.concatenate([block.idf for block in self.blocks]),
            idf_counts=np.array([len(block.idf) for block in self.blocks]),
            slope=np.float64(self.slope),
            offset=np.float64(self.offset),
        )


def load_classifier(folder: Path) -> LinearClassifier:
    """The classifier that `save` wrote, equal to the last bit."""
    about = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
    with np.load(folder / "classifier.npz", allow_pickle=False) as stored:
        ends = list(pairwise(accumulate(stored["idf_counts"].tolist(), initial=0)))
        blocks = [
            Block(
                one["analyzer"], (one["lengths"][0], one["lengths"][1]), tuple(one["terms"]), stored["idf"][start:end]
            )
            for one, (start, end) in zip(about, ends, strict=True)
        ]
        return LinearClassifier(blocks, stored["weights"], slope=float(stored["slope"]), offset=float(stored["offset"]))


def fit_classifier(
    texts: Sequence[str], positive: Sequence[bool], *, kind: str, most_terms: int, balanced: bool
) -> Fitted:
    """A classifier of `kind`, trained on N texts; equal arguments give an equal one.

    Args:
        texts: The texts.
        positive: Whether each is of the kind that is looked for.
        kind: `logistic` or `bayes`.
        most_terms: Terms of each sort, the most frequent ones.
        balanced: Whether probabilities are those among as many positive texts as others, or at the rate of `positive`.

    Raises:
        ValueError: There are fewer than `FEWEST` different ones of one kind; one line.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    truth = np.array(positive, dtype=np.bool_)
    some, others = count_kinds(texts, positive)
    if min(some, others) < FEWEST:
        raise ValueError(
            f"a classifier must learn from at least {FEWEST} different comments of either kind, got {some} positive "
            f"and {others} negative ones"
        )
    vectorizers = _logistic_vectorizers(most_terms) if kind == "logistic" else _bayes_vectorizers(most_terms)
    terms = sparse.hstack([vectorizer.fit_transform(texts) for vectorizer in vectorizers], format="csr")
    fold = _folds(texts, positive)
    sums = np.empty(len(truth), dtype=np.float64)
    for number in range(_FOLDS):
        out = fold == number
        weights = _weights(kind, terms[~out], truth[~out], balanced=balanced)
        sums[out] = _sums(terms[out], weights, mean=kind == "bayes")
    slope, offset = fit_platt(sums, truth, balanced=balanced)
    weights = _weights(kind, terms, truth, balanced=balanced)
    classifier = LinearClassifier([_block(each) for each in vectorizers], weights, slope=slope, offset=offset)
    return Fitted(classifier, _sigmoid(slope * sums + offset))


def count_kinds(texts: Sequence[str], positive: Sequence[bool]) -> tuple[int, int]:
    """How many different texts are positive and how many are not; one that is both counts as what it was first."""
    kinds: dict[str, bool] = {}
    for text, truth in zip(texts, positive, strict=True):
        kinds.setdefault(text_key(text), bool(truth))
    some = sum(kinds.values())
    return some, len(kinds) - some


def _folds(texts: Sequence[str], positive: Sequence[bool]) -> npt.NDArray[np.int64]:
    """The fold of each text, shape (N,): equal texts share one, and every fold has the same share of positive ones."""
    folds: dict[str, int] = {}
    met = {True: 0, False: 0}
    for text, truth in zip(texts, positive, strict=True):
        if (key := text_key(text)) not in folds:
            folds[key] = met[bool(truth)] % _FOLDS
            met[bool(truth)] += 1
    return np.array([folds[text_key(text)] for text in texts], dtype=np.int64)


def fit_platt(sums: Floats, truth: Truths, *, balanced: bool) -> tuple[float, float]:
    """Slope a and offset b of P = 1 / (1 + exp(−(a s + b))) that fit sums s to truths, by Newton's method.

    As in Platt (1999), targets are (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2) instead of 1 and 0, so that even separable
    sums have a finite slope. `balanced` gives both kinds the same total weight.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    share = np.where(truth, 0.5 / positives, 0.5 / negatives) if balanced else np.full(len(truth), 1.0 / len(truth))
    scale = float(np.std(sums)) or 1.0
    design = np.stack([sums / scale, np.ones_like(sums)], axis=1)

    def loss(at: Floats) -> float:
        z = design @ at
        return float(np.sum(share * (np.logaddexp(0.0, z) - target * z)))

    point = np.zeros(2)
    for _ in range(_MOST_STEPS):
        p = _sigmoid(design @ point)
        gradient = design.T @ (share * (p - target))
        hessian = (design * (share * p * (1.0 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while loss(point - length * step) > loss(point) and length > _ENOUGH:
            length /= 2.0
        point = point - length * step
        if float(np.abs(length * step).max()) < _ENOUGH:
            break
    return float(point[0] / scale), float(point[1])


def _sums(terms: sparse.csr_matrix, weights: Floats, *, mean: bool) -> Floats:
    """The weighted sum of each text's terms, shape (N,), or its mean over the text's terms."""
    sums: Floats = terms @ weights
    return sums / np.maximum(1.0, np.asarray(terms.sum(axis=1)).ravel()) if mean else sums


def _weights(kind: str, terms: sparse.csr_matrix, truth: Truths, *, balanced: bool) -> Floats:
    """One weight for each term; what is constant in all sums is left to Platt's offset."""
    if kind == "logistic":
        model = LogisticRegression(
            C=_INVERSE_RIDGE, class_weight="balanced" if balanced else None, solver="liblinear", max_iter=1000
        )
        weights: Floats = model.fit(terms, truth).coef_[0].astype(np.float64)
        return weights
    counts = [np.asarray(terms[side].sum(axis=0)).ravel() + _SMOOTHING for side in (truth, ~truth)]
    positive, negative = (np.log(count / count.sum()) for count in counts)
    difference: Floats = positive - negative
    return difference


def _logistic_vectorizers(most_terms: int) -> list[CountVectorizer]:
    return [
        TfidfVectorizer(
            analyzer=analyzer,
            ngram_range=lengths,
            max_features=most_terms,
            sublinear_tf=True,
            token_pattern=_pattern(analyzer),
        )
        for analyzer, lengths in (("word", (1, 2)), ("char_wb", (2, 4)))
    ]


def _bayes_vectorizers(most_terms: int) -> list[CountVectorizer]:
    return [CountVectorizer(analyzer="char_wb", ngram_range=(3, 5), max_features=most_terms, binary=True, dtype=float)]


def _pattern(analyzer: str) -> str | None:
    """Words and single signs; scikit-learn wants none of it for characters."""
    return r"(?u)\w+|[^\w\s]" if analyzer == "word" else None


def _block(vectorizer: CountVectorizer) -> Block:
    terms = tuple(str(term) for term in vectorizer.get_feature_names_out())
    idf = np.array(vectorizer.idf_) if isinstance(vectorizer, TfidfVectorizer) else np.zeros(0)
    return Block(vectorizer.analyzer, vectorizer.ngram_range, terms, idf)


def _vectorizer(block: Block) -> CountVectorizer:
    """scikit-learn's object, made again from what was stored."""
    common = {"analyzer": block.analyzer, "ngram_range": block.lengths, "vocabulary": list(block.terms)}
    if not len(block.idf):
        return CountVectorizer(**common, binary=True, dtype=float)
    made = TfidfVectorizer(**common, sublinear_tf=True, token_pattern=_pattern(block.analyzer))
    made.idf_ = block.idf
    return made


def _sigmoid(values: Floats) -> Floats:
    half: Floats = 0.5 * (1.0 + np.tanh(0.5 * values))  # no overflow at either end
    return half
