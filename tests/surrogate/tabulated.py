"""What trainings and evaluations once gave, by their keys, as small text: enough to write all of it again.

A line of the file is one JSON object: first what the records of each kind have in common, then a training each with its
curve, then an evaluation each with its episodes. Episodes that are alike but for seed and scene are written once: of a
tiny world there are few kinds of them, and an evaluation is a word in an alphabet of kinds.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sweeps.advantages import ADVANTAGES_FILE
from sweeps.exact_json import Record, dumps, loads
from sweeps.exhibits import read_curve
from sweeps.frames import EPISODES_FILE
from sweeps.store import Store

SIGNS = string.digits + string.ascii_letters
"""One for each kind of episode."""

OWN = ("episode_seed", "scene")
"""The columns of an episode that follow from its world and seed."""


@dataclass(frozen=True)
class Word:
    """A sequence of few distinct things.

    Attributes:
        kinds: They.
        signs: One of `SIGNS` for each place of the sequence.
    """

    kinds: tuple[Record, ...]
    signs: str

    @staticmethod
    def of(things: Sequence[Record]) -> Word:
        """The word of a sequence.

        Raises:
            ValueError: There are more kinds than signs.
        """
        kinds = {dumps(thing): thing for thing in things}
        if len(kinds) > len(SIGNS):
            raise ValueError(f"an evaluation must have at most {len(SIGNS)} kinds of episodes, got {len(kinds)}")
        signs = dict(zip(kinds, SIGNS, strict=False))
        return Word(tuple(kinds.values()), "".join(signs[dumps(thing)] for thing in things))

    @property
    def things(self) -> list[Record]:
        """The sequence."""
        return [self.kinds[SIGNS.index(sign)] for sign in self.signs]


@dataclass(frozen=True)
class Trained:
    """A training.

    Attributes:
        record: Its record in a store.
        curve: The points of its loss curve; none of one that failed.
    """

    record: Record
    curve: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Played:
    """An evaluation.

    Attributes:
        record: Its record in a store.
        episodes: All columns of its episodes but `OWN`; none of one that failed.
        spoken: Tokens and advantages of its first episodes, if the method has values.
    """

    record: Record
    episodes: Word = Word((), "")
    spoken: Word = Word((), "")


@dataclass(frozen=True)
class Table:
    """What was recorded.

    Attributes:
        trainings: By weights id.
        evaluations: By trial id.
    """

    trainings: Mapping[str, Trained]
    evaluations: Mapping[str, Played]

    @staticmethod
    def of(store: Store) -> Table:
        """All that workers have recorded in a store."""
        trainings = {key: _trained(store, key, record) for key, record in _by_workers(store, "training")}
        evaluations = {key: _played(store, key, record) for key, record in _by_workers(store, "evaluation")}
        return Table(trainings, evaluations)

    def write(self, file: Path) -> None:
        """Write it as `read` reads it."""
        kinds: dict[str, Mapping[str, Trained | Played]] = {
            "training": self.trainings, "evaluation": self.evaluations
        }  # fmt: skip
        common = {name: _common([each.record for each in entries.values()]) for name, entries in kinds.items()}
        lines = [dumps({"common": common})]
        for name, entries in kinds.items():
            for key, each in entries.items():
                own: Record = {field: value for field, value in each.record.items() if field not in common[name]}
                lines.append(dumps({name: key, "record": own, **_rest(each)}))
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    @staticmethod
    def read(file: Path) -> Table:
        """The table of a file."""
        first, *lines = map(loads, file.read_text(encoding="utf-8").splitlines())
        common = first["common"]
        trainings, evaluations = dict[str, Trained](), dict[str, Played]()
        for line in lines:
            if "training" in line:
                record = common["training"] | line["record"]
                trainings[line["training"]] = Trained(record, tuple(line["curve"]))
            else:
                record = common["evaluation"] | line["record"]
                words = (Word(tuple(line[name]["kinds"]), line[name]["signs"]) for name in ("episodes", "spoken"))
                evaluations[line["evaluation"]] = Played(record, *words)
        return Table(trainings, evaluations)


def _by_workers(store: Store, kind: str) -> Iterator[tuple[str, Record]]:
    """The records that say what made them: others are a schedule's, of what nobody could begin."""
    for key, record in sorted(store.all(kind).items()):
        if "code_digest" in record:
            yield key, {name: value for name, value in record.items() if name != "under"}  # whose lease: said anew


def _common(records: Sequence[Record]) -> Record:
    """The fields that all records have, with one value."""
    first, *others = records
    return {name: value for name, value in first.items() if all(each.get(name, ...) == value for each in others)}


def _rest(entry: Trained | Played) -> Record:
    if isinstance(entry, Trained):
        return {"curve": entry.curve}
    return {name: vars(getattr(entry, name)) for name in ("episodes", "spoken")}


def _trained(store: Store, key: str, record: Record) -> Trained:
    path = store.curve(key)
    points = () if path is None or record["status"] != "finished" else read_curve(path, 0, -1)[0]
    return Trained(record, tuple({"step": point.step, **point.values} for point in points))


def _played(store: Store, key: str, record: Record) -> Played:
    folder = store.stage("evaluation", key)
    if folder is None:
        return Played(record)
    episodes = pl.read_parquet(folder / EPISODES_FILE).drop(OWN).to_dicts()
    file = folder / ADVANTAGES_FILE
    said: list[dict[str, Any]] = []
    if file.is_file():
        said = [loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return Played(
        record,
        Word.of(episodes),
        Word.of([{name: each[name] for name in ("tokens", "advantages")} for each in said]),
    )
