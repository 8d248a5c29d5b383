"""An installed package as the judge of toxicity: alt-profanity-check, a linear model of English words.

It is an extra that nothing but `--classifier profanity-check` asks for. Its model is a pickle, which is code: it lies
in the package that the user installed, and the package alone reads it. Our store holds a name and a version.
Probabilities are rounded to four digits: what stands beside a text moves nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import InconsistentVersionWarning

PACKAGED_NAME = "profanity-check"
"""Reserved for `--classifier`; a folder of that name is given as ./profanity-check."""
PACKAGE = "alt-profanity-check"
LEARNT_FROM = "Davidson's tweets and Jigsaw's Wikipedia comments"
"""By the package's own account; an area that is measured on either is too good."""

_DIGITS = 4
_FILE = "package.json"


class PackagedClassifier:
    """The probability of being offensive, by the package that is installed.

    Attributes:
        version: The package's.

    Raises:
        ValueError: The package is not installed, or cannot read its model; one line.
    """

    def __init__(self) -> None:
        self.version = _installed()
        self._predict = _load(self.version)

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """Of each text, in [0, 1]."""
        if not texts:
            return []  # scikit-learn refuses to count no texts
        return [round(float(value), _DIGITS) for value in self._predict(list(texts))]

    def save(self, folder: Path) -> None:
        """Write the package's name and version."""
        about = {"package": PACKAGE, "version": self.version}
        (folder / _FILE).write_text(json.dumps(about), encoding="utf-8")


def load_packaged(folder: Path) -> PackagedClassifier:
    """The classifier that `save` wrote.

    Raises:
        ValueError: Another version is installed, or none, or it cannot read its model; one line.
    """
    version = json.loads((folder / _FILE).read_text(encoding="utf-8"))["version"]
    found = _version()
    if found != version:
        raise ValueError(
            f"a task that was built with {PACKAGE} {version} must be judged by that version, got {found or 'none'} "
            f"installed; pip install {PACKAGE}=={version} installs it"
        )
    return PackagedClassifier()


def packaged_digest() -> str:
    """Name and version, which stand for a release's files.

    Raises:
        ValueError: The package is not installed; one line.
    """
    return f"{PACKAGE}=={_installed()}"


def _version() -> str | None:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed() -> str:
    found = _version()
    if found is None:
        raise ValueError(
            f"--classifier {PACKAGED_NAME} must find the package {PACKAGE}, got none installed; "
            "pip install -c constraints.txt -e '.[profanity]' installs it"
        )
    return found


def _load(version: str) -> Callable[[list[str]], npt.NDArray[np.float64]]:
    """The package's function. Under another scikit-learn its model may say anything, with a warning: that is refused.

    Raises:
        ValueError: It cannot be imported, or would read its model with another scikit-learn; one line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            from profanity_check import predict_prob  # noqa: PLC0415  an extra, and it reads its model when imported
    except (ImportError, AttributeError, InconsistentVersionWarning) as error:
        reason = str(error).partition(". ")[0]  # scikit-learn goes on with advice and an address
        raise ValueError(
            f"{PACKAGE} {version} must load, with the scikit-learn that it was made for, got {reason}; "
            f"pip install {PACKAGE}=={version} brings what it needs"
        ) from error
    predict: Callable[[list[str]], npt.NDArray[np.float64]] = predict_prob
    return predict
