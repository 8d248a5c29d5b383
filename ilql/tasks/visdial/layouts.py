"""Human dialogues about images as people store them: three layouts, one corpus.

Understood are

1. *lines*: JSONL, one scene a line, with `image_id`, `caption`, `human` (a list of `[question, answer]`) and, in every
   line or in none, what a vision model added: `blip2_answers` (its answers to the human questions, in their order),
   `chatgpt_blip2`, `chatgpt_blind_blip2`, `flan_blip2` (lists of `[question, answer]`) and `plugir_description`;
2. *official*: the VisDial v1.0 JSON, `{"data": {"questions", "answers", "dialogs"}}`, whose rounds are indices;
3. *list*: the VisDial v0.5 JSON, a list of `{"caption", "dialog": [{"question", "answer"}]}`; a scene's name is its
   place in the list.

A file that is not one of these ends in one line that says where. A single dialogue with something missing is left out,
and the corpus says which and why.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ilql.files import FILE, FOLDER, NOTHING, NotJSONError, is_writable, kind_of, parse_json, user_path
from ilql.tasks.visdial.protocols import Exchange

SUFFIXES = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
"""How the name of a file of dialogues ends."""

HUMAN_COLUMNS = ("image_id", "caption", "human")
MACHINE_PAIRS = ("chatgpt_blip2", "chatgpt_blind_blip2", "flan_blip2")
MACHINE_COLUMNS = ("blip2_answers", *MACHINE_PAIRS, "plugir_description")


@dataclass(frozen=True)
class RecordedScene:
    """One image, by what was said about it.

    Attributes:
        id: Its name, unique in the corpus.
        caption: What opens every dialogue about it.
        human: The questions people asked and the answers people gave, in order; at least one.
        machine: Questions that a vision model answered, whoever asked them; empty if none did.
        description: What a model wrote about the image; "" if none did.
    """

    id: str
    caption: str
    human: tuple[Exchange, ...]
    machine: tuple[Exchange, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class Corpus:
    """A file of dialogues, read.

    Attributes:
        layout: `lines`, `official` or `list`.
        scenes: The scenes whose dialogues are whole, in the order of the file.
        skipped: Where each one that was left out stands, and why.

    Raises:
        ValueError: Some scenes have machine answers and others have not.
    """

    layout: str
    scenes: tuple[RecordedScene, ...]
    skipped: tuple[str, ...]

    def __post_init__(self) -> None:
        described = sum(bool(scene.description) for scene in self.scenes)
        if described not in (0, len(self.scenes)):
            raise ValueError(
                f"either all scenes or none must come with machine answers, got {described} of {len(self.scenes)}"
            )

    @property
    def has_machine_text(self) -> bool:
        """Whether a vision model answered and described, too."""
        return bool(self.scenes) and bool(self.scenes[0].description)


class _BadDialogueError(Exception):
    """A single dialogue cannot be used; the message says why."""


def find_dialogues(source: str | None) -> Path:
    """The file that `source` means: itself, or the only `visdial*.json[l][.gz]` of the directory it names.

    Raises:
        ValueError: There is no source, it does not exist, or the directory holds none or several such files.
    """
    if not source:
        raise ValueError("the recorded world needs a file or directory of dialogues, got none; name one with --data")
    path = user_path(source)
    kind = kind_of(path)
    if kind not in (FILE, FOLDER):
        got = source if kind == NOTHING else f"{kind}: {source}"
        raise ValueError(f"the data must be a file or directory that exists, got {got}")
    if kind == FILE:
        if not path.name.endswith(SUFFIXES):
            raise ValueError(f"a file of dialogues must end in one of {', '.join(SUFFIXES)}, got {path}")
        return path
    try:
        files = sorted(path.iterdir())
    except OSError as fault:
        raise ValueError(f"the data must be a directory that can be read, got {source}: {fault.strerror}") from None
    found = [file for file in files if file.name.startswith("visdial") and file.name.endswith(SUFFIXES)]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ValueError(
            f"a data directory must hold exactly one visdial*.json[l][.gz], got {names} in {path}; name the file"
        )
    return found[0]


def digest(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal.

    Raises:
        ValueError: The file cannot be read.
    """
    return hashlib.sha256(_bytes(path)).hexdigest()


def read_dialogues(path: Path) -> Corpus:
    """The corpus in `path`, whichever of the three layouts it has.

    Raises:
        ValueError: The file cannot be read, is cut off, is no JSON, or has none of the layouts; in one line with the
            file and, where there is one, the line number.
    """
    raw = _bytes(path)
    if ".gz" in path.suffixes:
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
            raise ValueError(f"{path} must be a whole gzip file, got one that is cut off or broken ({fault})") from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise ValueError(f"{path} must be UTF-8 text, got byte {raw[fault.start]:#04x} at {fault.start}") from None
    if ".jsonl" in path.suffixes:
        layout, entries = "lines", _line_entries(path, text)
    else:
        layout, entries = _json_entries(path, text)
    return _collect(path, layout, entries)


def _bytes(path: Path) -> bytes:
    try:
        if (kind := kind_of(path)) not in (FILE, NOTHING):
            raise ValueError(f"{path} must be a readable file, got {kind}")
        return path.read_bytes()
    except OSError as fault:
        raise ValueError(f"{path} must be a readable file, got {fault.strerror}") from None


_Entry = tuple[str, Callable[[], RecordedScene]]
"""Where a dialogue stands in its file, and what reads it or raises `_BadDialogueError`."""


def _collect(path: Path, layout: str, entries: Iterator[_Entry]) -> Corpus:
    scenes: dict[str, RecordedScene] = {}
    skipped = []
    for place, read in entries:
        try:
            scene = read()
        except _BadDialogueError as reason:
            skipped.append(f"{place}: {reason}")
            continue
        if scene.id in scenes:
            skipped.append(f"{place}: image_id {scene.id} was there before")
        else:
            scenes[scene.id] = scene
    if not scenes:
        why = f"; {skipped[0]}" if skipped else ""
        raise ValueError(f"{path} must hold at least one whole dialogue, got none{why}")
    try:
        return Corpus(layout=layout, scenes=tuple(scenes.values()), skipped=tuple(skipped))
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from None


def _line_entries(path: Path, text: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            row = parse_json(line)
        except NotJSONError as fault:
            raise ValueError(f"{path} line {number} must be whole JSON, got {fault}") from None
        machine = isinstance(row, dict) and any(column in row for column in MACHINE_COLUMNS)
        columns = _require(row, HUMAN_COLUMNS + (MACHINE_COLUMNS if machine else ()), f"{path} {place}")
        yield place, partial(_scene_of_line, columns, machine)


def _scene_of_line(row: Mapping[str, object], machine: bool) -> RecordedScene:
    human = _pairs(row["human"], "human")
    asked: tuple[Exchange, ...] = ()
    description = ""
    if machine:
        answers = row["blip2_answers"]
        if not isinstance(answers, list) or len(answers) != len(human):
            raise _BadDialogueError("blip2_answers are not as many as the human questions")
        asked = tuple(
            Exchange(question=exchange.question, answer=_text(answer, f"blip2_answers {place}"))
            for place, (exchange, answer) in enumerate(zip(human, answers, strict=True), start=1)
        )
        for column in MACHINE_PAIRS:
            asked += _pairs(row[column], column)
        description = _text(row["plugir_description"], "plugir_description")
    return RecordedScene(
        id=_identity(row["image_id"]),
        caption=_text(row["caption"], "caption"),
        human=_some(human),
        machine=asked,
        description=description,
    )


def _json_entries(path: Path, text: str) -> tuple[str, Iterator[_Entry]]:
    try:
        whole = parse_json(text)
    except NotJSONError as fault:
        where = f"{path} line {fault.line}" if fault.line else str(path)
        raise ValueError(f"{where} must be whole JSON, got {fault}") from None
    if isinstance(whole, list):
        return "list", _list_entries(path, whole)
    data = _require(_require(whole, ("data",), str(path))["data"], ("questions", "answers", "dialogs"), f"{path} data")
    texts: dict[str, list[object]] = {}
    for column in ("questions", "answers", "dialogs"):
        found = data[column]
        if not isinstance(found, list):
            raise ValueError(f"{path} data.{column} must be a list, got {type(found).__name__}")
        texts[column] = found
    return "official", _official_entries(path, texts["questions"], texts["answers"], texts["dialogs"])


def _list_entries(path: Path, dialogues: list[object]) -> Iterator[_Entry]:
    for number, row in enumerate(dialogues):
        place = f"dialogue {number}"
        columns = _require(row, ("caption", "dialog"), f"{path} {place}")
        yield place, partial(_scene_of_list, columns, number)


def _scene_of_list(row: Mapping[str, object], number: int) -> RecordedScene:
    human = tuple(
        Exchange(
            question=as_question(_text(entry.get("question"), f"question {place}")),
            answer=_text(entry.get("answer"), f"answer {place}"),
        )
        for place, entry in _rounds(row["dialog"])
    )
    return RecordedScene(id=str(number), caption=_text(row["caption"], "caption"), human=_some(human))


def _official_entries(
    path: Path, questions: list[object], answers: list[object], dialogues: list[object]
) -> Iterator[_Entry]:
    for number, row in enumerate(dialogues):
        place = f"dialogue {number}"
        columns = _require(row, ("image_id", "caption", "dialog"), f"{path} {place}")
        yield place, partial(_scene_of_official, columns, questions, answers)


def _scene_of_official(
    row: Mapping[str, object], questions: Sequence[object], answers: Sequence[object]
) -> RecordedScene:
    human = tuple(
        Exchange(
            question=as_question(_text(_at(questions, entry.get("question")), f"question {place}")),
            answer=_text(_at(answers, entry.get("answer")), f"answer {place}"),
        )
        for place, entry in _rounds(row["dialog"])
    )
    return RecordedScene(id=_identity(row["image_id"]), caption=_text(row["caption"], "caption"), human=_some(human))


def as_question(text: str) -> str:
    """`text` with a question mark at its end: people left it out, the agent's questions have one."""
    return text if text.endswith("?") else f"{text}?"


def _require(row: object, columns: Sequence[str], place: str) -> Mapping[str, object]:
    if not isinstance(row, dict):
        raise ValueError(f"{place} must be an object with {', '.join(columns)}, got a {type(row).__name__}")
    missing = [column for column in columns if column not in row]
    if missing:
        got = ", ".join(row) or "nothing"
        raise ValueError(f"{place} must have {', '.join(columns)}; missing {', '.join(missing)}, got {got}")
    return row


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _BadDialogueError(f"{name} is missing or empty")
    if not is_writable(value):
        raise _BadDialogueError(f"{name} holds half of a surrogate pair, {ascii(value)[:40]}")
    return value.strip()


def _identity(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise _BadDialogueError("image_id is no number or name")
    if not is_writable(str(value)):
        raise _BadDialogueError(f"image_id holds half of a surrogate pair, {ascii(value)[:40]}")
    return str(value)


def _pairs(value: object, column: str) -> tuple[Exchange, ...]:
    if not isinstance(value, list):
        raise _BadDialogueError(f"{column} is no list")
    exchanges = []
    for place, pair in enumerate(value, start=1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise _BadDialogueError(f"{column} {place} is no pair of question and answer")
        question = _text(pair[0], f"{column} question {place}")
        exchanges.append(Exchange(question=as_question(question), answer=_text(pair[1], f"{column} answer {place}")))
    return tuple(exchanges)


def _rounds(value: object) -> Iterator[tuple[int, Mapping[str, object]]]:
    if not isinstance(value, list):
        raise _BadDialogueError("dialog is no list")
    for place, entry in enumerate(value, start=1):
        if not isinstance(entry, dict):
            raise _BadDialogueError(f"round {place} is no question and answer")
        yield place, entry


def _at(texts: Sequence[object], index: object) -> object:
    if index is None:
        return None
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(texts):
        raise _BadDialogueError(f"index {index!r} is not in [0, {len(texts)})")
    return texts[index]


def _some(exchanges: tuple[Exchange, ...]) -> tuple[Exchange, ...]:
    if not exchanges:
        raise _BadDialogueError("it has no questions")
    return exchanges
