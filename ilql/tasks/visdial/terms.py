"""Text as sparse vectors of its words: TF-IDF that knows how much of a text it has never seen.

Everything the recorded world compares, questions with questions and dialogues with scenes, is compared through these.
Axes: N texts, V known terms.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import sparse

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_ENDINGS = ("ing", "es", "ed", "s")
_STEM_LETTERS = 3
"""A word keeps at least so many letters when it loses its ending."""


def words(text: str) -> list[str]:
    """The words of `text` in lower case, each without a plural or verb ending ("Are trees standing?": ar, tre, stand).

    A curly apostrophe counts as a straight one.
    """
    return [_stem(word) for word in _WORD.findall(text.lower().replace("’", "'"))]


def words_and_pairs(text: str) -> list[str]:
    """The words of `text` and its pairs of neighbours, its two ends included: order counts, a word salad is odd."""
    single = words(text)
    bounded = ["<", *single, ">"]
    return single + [f"{left} {right}" for left, right in pairwise(bounded)]


@lru_cache(maxsize=100_000)  # half of the time goes into stems, and the same few thousand words come again and again
def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _STEM_LETTERS:
            return word[: -len(ending)]
    return word


@dataclass(frozen=True)
class Terms:
    """A vocabulary with weights: idf(t) = ln((1 + N) / (1 + n_t)) + 1, as scikit-learn's smoothed one.

    Attributes:
        names: The known terms, sorted; V of them.
        weights: The idf of each, positive.
        unknown_weight: The idf of a term that no text had, ln(1 + N) + 1. It lengthens a vector without pointing
            anywhere, so a text of unknown words is near nothing; 0 lets unknown terms vanish instead.
        split: What turns a text into terms.

    Raises:
        ValueError: There is no term, or not one weight for each.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    unknown_weight: float
    split: Callable[[str], list[str]]
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.weights):
            raise ValueError(
                f"a vocabulary must have one weight for each of at least one term, "
                f"got {len(self.weights)} for {len(self.names)}"
            )
        object.__setattr__(self, "_index", {name: place for place, name in enumerate(self.names)})

    def vectors(self, texts: Sequence[str], *, sublinear: bool = False) -> sparse.csr_matrix:
        """TF-IDF vectors of length one, shape (N, V); unknown terms make one shorter, and zero where there is no other.

        Each row is computed from its own text alone, in the order of the vocabulary.

        Args:
            texts: The texts.
            sublinear: Count a term 1 + ln(n) times instead of n times.
        """
        data: list[float] = []
        indices: list[int] = []
        indptr = [0]
        for text in texts:
            known: list[tuple[int, float]] = []
            unknown: list[float] = []
            for term, count in Counter(self.split(text)).items():
                times = 1.0 + math.log(count) if sublinear else float(count)
                place = self._index.get(term)
                if place is None:
                    unknown.append(times * self.unknown_weight)
                else:
                    known.append((place, times * self.weights[place]))
            known.sort()
            length = math.sqrt(math.fsum(weight * weight for _, weight in known) + math.fsum(w * w for w in unknown))
            indices.extend(place for place, _ in known)
            data.extend(weight / length for _, weight in known)
            indptr.append(len(indices))
        return sparse.csr_matrix(
            (np.array(data, dtype=np.float64), np.array(indices, dtype=np.int32), np.array(indptr, dtype=np.int32)),
            shape=(len(texts), len(self.names)),
        )


def fit_terms(
    texts: Iterable[str], *, split: Callable[[str], list[str]], least_texts: int = 1, count_unknown: bool = False
) -> Terms:
    """The vocabulary of `texts` and its weights.

    Args:
        texts: What to learn from.
        split: What turns a text into terms.
        least_texts: A term must stand in at least so many texts.
        count_unknown: Whether unknown terms lengthen a vector.

    Raises:
        ValueError: No term stands in enough texts.
    """
    found: Counter[str] = Counter()
    number = 0
    for text in texts:
        found.update(set(split(text)))
        number += 1
    names = tuple(sorted(term for term, count in found.items() if count >= least_texts))
    if not names:
        raise ValueError(f"the texts must share words, got {number} texts of which no {least_texts} have one in common")
    return Terms(
        names=names,
        weights=tuple(math.log((1 + number) / (1 + found[name])) + 1.0 for name in names),
        unknown_weight=math.log(1 + number) + 1.0 if count_unknown else 0.0,
        split=split,
    )
