"""Who says how likely a comment is toxic or voted up: trained here, brought along, or a lexicon; on disk and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ilql.tasks.reddit.classifier import LinearClassifier, load_classifier
from ilql.tasks.reddit.generated import lexicon_probability
from ilql.tasks.reddit.packaged import PACKAGED_NAME, PackagedClassifier, load_packaged, packaged_digest
from ilql.tasks.reddit.texts import text_key
from ilql.tasks.reddit.transformer import TransformerClassifier, find_transformer, load_transformer, transformer_digest

_KIND_FILE = "judge.json"

BroughtClassifier = TransformerClassifier | PackagedClassifier
"""What `--classifier` can name."""


class Judge(Protocol):
    """A function of texts."""

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """Of each text, in [0, 1]; what stands beside a text moves nothing."""
        ...


class LexiconJudge:
    """The generated world's own words."""

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """See `generated.lexicon_probability`."""
        return [lexicon_probability(text) for text in texts]


class Remembered:
    """A judge that is asked once about each text, whoever asks."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._known: dict[bytes, float] = {}

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """As the judge says."""
        names = [text_name(text) for text in texts]
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in self._known}
        if new:
            self._known.update(zip(new, self._judge.probabilities(list(new.values())), strict=True))
        return [self._known[name] for name in names]


class OutOfFold:
    """A judge of recorded comments: of a text that it learnt from it says what it would not having learnt from it.

    So recorded comments are paid by a function that knows them as little as those of an agent: else the training split
    would be paid by its own labels, which at play nobody knows.

    Args:
        judge: Says how probable all other texts are.
        learnt: Probabilities of the texts it learnt from, by `text_key`.
    """

    def __init__(self, judge: Judge, learnt: Mapping[str, float]) -> None:
        self._judge, self._learnt = judge, learnt

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """See above."""
        found = [self._learnt.get(text_key(text)) for text in texts]
        new = [text for text, known in zip(texts, found, strict=True) if known is None]
        others = iter(self._judge.probabilities(new))
        return [next(others) if known is None else known for known in found]


def text_name(text: str) -> bytes:
    """What a text is remembered by: 16 bytes of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def brought_classifier(name: str, *, label: str) -> BroughtClassifier:
    """The classifier that `--classifier` names: the package by its reserved name, else that of a folder.

    Args:
        name: The reserved name, or a folder.
        label: The toxic label of a folder's classifier; empty where the usual words decide.

    Raises:
        ValueError: It cannot be had, or has no such label; one line.
    """
    if name != PACKAGED_NAME:
        return TransformerClassifier(find_transformer(name), label=label)
    if label:
        raise ValueError(
            f"classifier_label must be empty with --classifier {PACKAGED_NAME}, which names no labels, got {label!r}"
        )
    return PackagedClassifier()


def brought_digest(name: str) -> str:
    """A digest of the classifier that `--classifier` names.

    Raises:
        ValueError: It cannot be had; one line.
    """
    return packaged_digest() if name == PACKAGED_NAME else transformer_digest(name)


def save_judge(judge: LinearClassifier | BroughtClassifier | LexiconJudge, folder: Path) -> None:
    """Write a judge into a folder that is made."""
    folder.mkdir()
    if not isinstance(judge, LexiconJudge):
        judge.save(folder)
    kind = {
        LinearClassifier: "linear",
        TransformerClassifier: "transformer",
        PackagedClassifier: "packaged",
        LexiconJudge: "lexicon",
    }[type(judge)]
    (folder / _KIND_FILE).write_text(json.dumps(kind), encoding="utf-8")


def _the_lexicon(folder: Path) -> LexiconJudge:
    del folder  # its words stand in the code
    return LexiconJudge()


def load_judge(folder: Path) -> Remembered:
    """The judge that `save_judge` wrote."""
    kind = json.loads((folder / _KIND_FILE).read_text(encoding="utf-8"))
    loaders: dict[str, Callable[[Path], Judge]] = {
        "linear": load_classifier,
        "transformer": load_transformer,
        "packaged": load_packaged,
        "lexicon": _the_lexicon,
    }
    return Remembered(loaders[kind](folder))
