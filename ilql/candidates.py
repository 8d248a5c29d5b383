"""Utterances that were drawn for every state of the data, as a judge reads them.

Axes: *N* dialogues, *U* whole utterances of all dialogues, *n* draws for each, *D* hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Candidates:
    """Features of what was said and of what might have been said instead, in the order of the data.

    A feature is the mean of a frozen language model's last hidden states over the whole conversation up to the `eoa`
    that ends the utterance.

    Attributes:
        taken: Of what was said, shape (U, D).
        drawn: Of what was drawn from the language model in the same state, shape (U, n, D).
        log_probability: The language model's, of the drawn utterances, shape (U, n).
        first: Number of each dialogue's first utterance, and U behind the last, shape (N + 1,).
    """

    taken: npt.NDArray[np.float32]
    drawn: npt.NDArray[np.float32]
    log_probability: npt.NDArray[np.float32]
    first: npt.NDArray[np.int64]

    def save(self, folder: Path) -> None:
        """Write them into a folder."""
        for name, values in vars(self).items():
            np.save(folder / f"{name}.npy", values, allow_pickle=False)


def load_candidates(folder: Path) -> Candidates:
    """Read what `Candidates.save` wrote; the features stay on disk until they are used."""
    parts = {
        name: np.load(folder / f"{name}.npy", allow_pickle=False, mmap_mode="r")
        for name in ("taken", "drawn", "log_probability", "first")
    }
    return Candidates(**parts)
