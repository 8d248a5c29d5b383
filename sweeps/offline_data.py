"""Dialogues that a model wrote, as a stage: paid by a reward function, as `docs/your_dialogues.md` has them.

dialogues.jsonl   what `--data` and `sweeps validate` take
refused.jsonl     what is no dialogue that was asked for: its name, the reason, the text; failures are data
reward/           the reward function's file, where it is one
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.text import count
from ilql.tasks.dialogues import functions
from ilql.tasks.dialogues.payment import RewardFunction, Said
from ilql.tasks.dialogues.read import read_lines
from ilql.tasks.dialogues.settings import LARGEST_REWARD, Settings
from sweeps.exact_json import Record
from sweeps.provenance import code_digest, library_versions
from sweeps.store import Store

DATA_FILE, REFUSED_FILE = "dialogues.jsonl", "refused.jsonl"


@dataclass(frozen=True)
class Reward:
    """A user's reward function, `reward(dialogue, turn)`.

    Attributes:
        given: Where it is: FILE.py:NAME or MODULE:NAME.
        settings: Say what a turn may be paid.

    Raises:
        ValueError: There is no such file, module or function.
    """

    given: str
    settings: Settings
    location: functions.Location = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", functions.locate("reward", self.given))
        assert self._function is not None

    @property
    def record(self) -> Record:
        """What of it decides what is paid."""
        low, high = self._bounds
        return {"function": self.location.digest, "lowest": low, "highest": high}

    @property
    def _bounds(self) -> tuple[float, float]:
        low, high = self.settings.lowest_reward, self.settings.highest_reward
        return -LARGEST_REWARD if low is None else low, LARGEST_REWARD if high is None else high

    @cached_property
    def _function(self) -> RewardFunction:
        where = self.location
        file = None if where.module is not None or where.file is None else str(where.file.absolute())
        kept = {"function": where.function, "module": where.module, "file": file}
        return RewardFunction(functions.load("reward", kept, Path()), *self._bounds)

    def pay(self, turns: Sequence[Said], by_agent: Sequence[bool], name: str) -> list[dict[str, Any]]:
        """The turns as a line of the file has them, the agent's with their rewards.

        Raises:
            ValueError: The function raised something, or gave no number in its range; one line.
        """
        paid: list[dict[str, Any]] = []
        for place, ((role, text), agents) in enumerate(zip(turns, by_agent, strict=True)):
            paid.append({"role": role, "text": text})
            if agents:
                paid[-1]["reward"] = self._function.pay(turns, place, name)
        return paid


@dataclass(frozen=True)
class Refused:
    """Something a model wrote that is not what it was asked for.

    Attributes:
        name: Which request's reply.
        reason: Why, in one of few ways.
        text: What it wrote; None where nothing came.
    """

    name: str
    reason: str
    text: str | None


@dataclass(frozen=True)
class Outcome:
    """What such a stage holds.

    Attributes:
        key: Its key.
        folder: Where it lies.
        dialogues: Number of dialogues.
        refused: Number of refusals by reason, the commonest first.
        reproducible: Whether the same could be drawn again.
        notes: What there is to say besides, a line each.
    """

    key: str
    folder: Path
    dialogues: int
    refused: Mapping[str, int]
    reproducible: bool
    notes: tuple[str, ...]

    @property
    def data(self) -> Path:
        """The file of dialogues."""
        return self.folder / DATA_FILE

    @property
    def refused_file(self) -> Path:
        """The file of refusals."""
        return self.folder / REFUSED_FILE

    def lines(self) -> list[str]:
        """All of that for a reader."""
        total = sum(self.refused.values())
        said = [f"{count(total, 'reply', 'replies')} refused, all in {self.refused_file}"] if total else []
        said += [f"  {number} × {reason}" for reason, number in self.refused.items()]
        if not self.reproducible:
            said.append("an endpoint's answers cannot be drawn again: this stage is the record of them")
        return [*said, *self.notes]


def build(
    store: Store,
    kind: str,
    key: str,
    about: Record,
    *,
    lines: Sequence[Mapping[str, Any]],
    refused: Sequence[Refused],
    reward: Reward,
    reproducible: bool,
    notes: Sequence[str],
) -> None:
    """Write the stage.

    Args:
        store: Where.
        kind: The stage's kind.
        key: Its key.
        about: What decided it.
        lines: The dialogues, paid.
        refused: What was refused.
        reward: What paid them; its file is kept.
        reproducible: Whether the same could be drawn again.
        notes: What there is to say.
    """

    def make(folder: Path) -> Record:
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        assert not lines or not read_lines(content, reward.settings).problems
        (folder / DATA_FILE).write_bytes(content)
        rows = [{"name": each.name, "reason": each.reason, "text": each.text} for each in refused]
        (folder / REFUSED_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        functions.keep(reward.location, folder)
        return {
            "dialogues": len(lines),
            "refused": dict(Counter(each.reason for each in refused).most_common()),
            "reproducible": reproducible,
            "notes": list(notes),
            "code": code_digest(),
            "libraries": library_versions(),
        }

    store.build(kind, key, make, about)


def outcome(store: Store, kind: str, key: str) -> Outcome | None:
    """What a stage holds, or None if there is none."""
    folder, about = store.stage(kind, key), store.about(kind, key)
    if folder is None or about is None:
        return None
    told = about["notes"]
    return Outcome(key, folder, told["dialogues"], told["refused"], told["reproducible"], tuple(told["notes"]))
