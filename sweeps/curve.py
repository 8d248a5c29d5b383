"""A training's curve on disk while it grows; `sweeps.exhibits.read_curve` reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

HELD_OUT_LOSS = "held_out_loss"
"""The loss on dialogues of the tune split, at some steps. It stops nothing: it is shown, and held against scores."""


class Curve:
    """A training's curve, one line of JSON for each logged step, in two files that are read while they grow.

    A point is appended to both: what it costs does not grow with the curve. A line that a kill left unfinished stays
    the last of its file: the next attempt at the training begins by writing both anew.

    Args:
        kept: The file that lies with the checkpoints, and has the points that a resumed training does not make again.
        live: The file that is shown while the training goes on.
    """

    def __init__(self, kept: Path, *, live: Path) -> None:
        self._kept, self._live = kept, live
        self._lines: list[str] = []

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a point; the first one is put behind the earlier points of smaller steps, and in place of the rest."""
        line = json.dumps({"step": step, **metrics}) + "\n"
        begun = bool(self._lines)
        self._lines = self._lines or _earlier_lines(self._kept, before=step)
        self._lines.append(line)
        for file in (self._live, self._kept):
            if not (begun and _append(file, line)):
                self.save(file)

    def save(self, file: Path) -> None:
        """Write all points to a file, in place of what it has; those of `kept` if none was added here."""
        file.parent.mkdir(parents=True, exist_ok=True)  # another sweep may have dropped a trajectory that both share
        file.write_text("".join(self._lines or _earlier_lines(self._kept, before=None)), encoding="utf-8")

    def last(self) -> dict[str, float]:
        """The last point there is, with its step."""
        lines = self._lines or _earlier_lines(self._kept, before=None)
        point: dict[str, float] = json.loads(lines[-1])
        return {name: float(value) for name, value in point.items()}


def _earlier_lines(file: Path, *, before: int | None) -> list[str]:
    """The lines of a curve's steps before one, or of all, by step. Of two for one step, the later."""
    if not file.is_file():
        return []
    lines: dict[int, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            step = json.loads(line)["step"]
        except json.JSONDecodeError:
            continue  # the line its writer was killed in
        if before is None or step < before:
            lines[step] = line + "\n"
    return [lines[step] for step in sorted(lines)]


def _append(file: Path, line: str) -> bool:
    """Append a line to a file that is there; False if it is not, and never an empty one begun in its place."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        return False
    with open(descriptor, "ab") as end:
        end.write(line.encode())
    return True
