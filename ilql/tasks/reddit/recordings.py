"""Recorded comments and what they earn, on disk: one JSON line a comment, one array a reward."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ilql.task import SPLITS
from ilql.tasks.reddit.comments import Comment


@dataclass(frozen=True)
class Recording:
    """The comments of one split.

    Attributes:
        texts: What was written.
        parents: What each answers, None where it opens.
        values: What each earns under every reward, without label noise, by the reward's name.

    Raises:
        ValueError: Parents or values are not as many as the texts.
    """

    texts: tuple[str, ...]
    parents: tuple[str | None, ...]
    values: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        lengths = {len(self.texts), len(self.parents), *map(len, self.values.values())}
        if len(lengths) != 1:
            raise ValueError(f"a recording must have a parent and a value for each text, got lengths {sorted(lengths)}")


def write_recordings(
    folder: Path, splits: Mapping[str, Sequence[Comment]], values: Mapping[str, Mapping[str, Sequence[float]]]
) -> None:
    """Write `SPLIT_comments.jsonl` and `SPLIT_values.npz` into `folder`."""
    for split in SPLITS:
        lines = [json.dumps({"parent": comment.parent, "text": comment.text}) for comment in splits[split]]
        (folder / f"{split}_comments.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        arrays = {name: np.array(found, dtype=np.float64) for name, found in values[split].items()}
        np.savez_compressed(folder / f"{split}_values.npz", allow_pickle=False, **arrays)


def read_recordings(folder: Path) -> dict[str, Recording]:
    """The splits that `write_recordings` wrote, equal to the last bit."""
    recordings = {}
    for split in SPLITS:
        with (folder / f"{split}_comments.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        with np.load(folder / f"{split}_values.npz", allow_pickle=False) as stored:
            values = {name: tuple(stored[name].tolist()) for name in stored.files}
        recordings[split] = Recording(tuple(row["text"] for row in rows), tuple(row["parent"] for row in rows), values)
    return recordings
