"""A file of dialogues, read line by line: the dialogues in it, and every problem with its line number."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from ilql.files import FILE, FOLDER, NOTHING, kind_of, user_path
from ilql.tasks.dialogues.schema import Problem, RecordedDialogue, count, read_dialogue, shorten, show
from ilql.tasks.dialogues.settings import Settings

GZIP = b"\x1f\x8b"
EXAMPLE = '{"turns": [{"role": "user", "text": "hello"}, {"role": "agent", "text": "good morning", "reward": 1}]}'


@dataclass(frozen=True)
class Recordings:
    """What a file holds.

    Attributes:
        dialogues: Its good lines.
        problems: All that is wrong, in the order of the file.
        lines: How many lines have something on them.
        remarks: What was odd, and read all the same.
    """

    dialogues: tuple[RecordedDialogue, ...]
    problems: tuple[Problem, ...]
    lines: int
    remarks: tuple[str, ...]

    @property
    def bad_lines(self) -> int:
        """How many lines have a problem."""
        return len({problem.line for problem in self.problems if problem.line})

    @property
    def refused(self) -> Problem | None:
        """What is wrong with the file as a whole, so that no line of it can be read; None where nothing is."""
        return next((problem for problem in self.problems if not problem.line), None)


def read_bytes(path: str) -> bytes:
    """The file's bytes, unpacked where it is a gzip file, whatever its name is.

    Raises:
        ValueError: There is no such file, or it cannot be read; one line.
    """
    file = user_path(path)
    kind = kind_of(file)
    if kind == FOLDER:
        inside = sorted(item.name for item in file.iterdir() if item.name.endswith((".jsonl", ".jsonl.gz")))
        names = f"; in it: {', '.join(inside[:5])}" if inside else ""
        raise ValueError(f"the data must be a file of one dialogue a line, got the directory {path}{names}")
    if kind != FILE:
        got = path if kind == NOTHING else f"{kind}: {path}"
        raise ValueError(f"the data must be a file that exists, got {got}")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ValueError(f"the data must be a file that can be read, got {path}: {error.strerror}") from None
    if not data.startswith(GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"a gzip file must be whole, got {path}: {error}") from None


def digest(path: str) -> str:
    """SHA-256 of the file's lines, in hexadecimal: packing them changes nothing.

    Raises:
        ValueError: The file cannot be read.
    """
    return hashlib.sha256(read_bytes(path)).hexdigest()


def read_file(path: str, settings: Settings) -> Recordings:
    """Everything in a file; whatever is wrong with it is among the problems, and nothing is raised."""
    try:
        data = read_bytes(path)
    except ValueError as error:
        return Recordings((), (Problem(0, str(error)),), 0, ())
    return read_lines(data, settings)


def read_sound(path: str, settings: Settings) -> Recordings:
    """Everything in a file from which something is to be made.

    Raises:
        ValueError: It cannot be read, or has problems and `skip_bad_lines` is off; one line.
    """
    recordings = read_file(path, settings)
    refused = recordings.refused
    if refused is not None:
        raise ValueError(f"{path}: {refused}" if path not in refused.message else str(refused))
    if recordings.problems and not settings.skip_bad_lines:
        wrong, lines = count(len(recordings.problems), "problem"), count(recordings.lines, "line")
        raise ValueError(
            f"{path}, {recordings.problems[0]} (of {wrong} on {recordings.bad_lines} of {lines}; list them with "
            f"`sweeps validate {path}`, skip the lines with --set world.skip_bad_lines=true)"
        )
    return recordings


def read_lines(data: bytes, settings: Settings) -> Recordings:
    """The dialogues of a file's bytes, and its problems."""
    remarks = []
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Recordings((), (Problem(0, "the file must be UTF-8, got UTF-16; save it as UTF-8"),), 0, ())
    if data.startswith(codecs.BOM_UTF8):
        data = data.removeprefix(codecs.BOM_UTF8)
        remarks.append("line 1 begins with a byte-order mark, which is not needed; read without it")
    raw = data.split(b"\n")
    if any(line.endswith(b"\r") for line in raw):
        number = next(number for number, line in enumerate(raw, start=1) if line.endswith(b"\r"))
        ending = sum(line.endswith(b"\r") for line in raw)
        which = f"line {number} ends" if ending == 1 else f"{ending} lines, the first of them line {number}, end"
        remarks.append(f"{which} as on Windows (CR LF); read as the others")
    filled = [(number, line) for number, line in enumerate(raw, start=1) if line.strip()]
    if not filled:
        empty = f"the file must have one dialogue a line, got an empty file; a line looks like {EXAMPLE}"
        return Recordings((), (Problem(0, empty),), 0, tuple(remarks))
    whole = _not_lines(data, filled[0][1])
    if whole is not None:
        return Recordings((), (Problem(0, whole),), 0, tuple(remarks))
    blank = filled[-1][0] - len(filled)
    if blank:
        remarks.append(f"{count(blank, 'blank line')} between others; passed over")
    dialogues: list[RecordedDialogue] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for number, line in filled:
        value, message = _parse(line)
        if message is not None:
            problems.append(Problem(number, message))
            continue
        dialogue, found = read_dialogue(value, number, settings)
        problems += found
        if dialogue is None:
            continue
        if dialogue.id is not None and (first := seen.setdefault(dialogue.id, number)) != number:
            twice = f"an id must stand once in a file, got {show(dialogue.id)}, which is also on line {first}"
            problems.append(Problem(number, twice))
            continue
        dialogues.append(dialogue)
    return Recordings(tuple(dialogues), tuple(problems), len(filled), tuple(remarks))


def _not_lines(data: bytes, first: bytes) -> str | None:
    """What the whole file is if it is no file of lines: a JSON array, or an object spread over several lines."""
    start = first.strip()
    advice = "write every dialogue as one line"
    if start.startswith(b"["):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return f"the file must have one JSON object a line, got a line 1 that begins with '['; {advice}"
        if isinstance(value, list):
            return f"the file must have one JSON object a line, got a JSON array of {len(value)}; {advice}"
    if start == b"{":
        return f"the file must have one JSON object a line, got one that is spread over several lines; {advice}"
    return None


class _DuplicateKeyError(ValueError):
    """A JSON object has a key twice, of which Python would keep the last and say nothing."""


def _parse(raw: bytes) -> tuple[object, str | None]:
    """A line as JSON, or what is wrong with it."""
    try:
        line = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        return None, f"text must be UTF-8, got the byte 0x{byte:02x} at byte {error.start + 1}; save the file as UTF-8"
    try:
        return json.loads(line, object_pairs_hook=_pairs), None
    except _DuplicateKeyError as error:
        return None, str(error)
    except json.JSONDecodeError as error:
        return None, _not_json(line, error)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits; brackets in thousands
        return None, f"a line must be JSON, got {shorten(line)}: {shorten(str(error))}"


def _not_json(line: str, error: json.JSONDecodeError) -> str:
    """What is wrong with a line that is no JSON; names the commonest mistakes."""
    if line.endswith(",") and error.msg == "Extra data" and error.pos == len(line) - 1:
        return "a line must be one JSON object, got a comma behind it; leave the comma out"
    where = f"at character {error.pos + 1}"
    # Python 3.11 stops at the bracket behind a comma, 3.13 at the comma.
    comma = line.rfind(",", 0, error.pos + 1)
    if comma >= 0 and re.match(r",\s*[}\]]", line[comma:]) and not line[comma + 1 : error.pos].strip():
        return f"a line must be JSON, got a comma before the closing bracket {where}; leave the comma out"
    if line[error.pos : error.pos + 1] == "'":
        return f'a line must be JSON, got a single quote {where}; texts and keys take double ones: "..."'
    if error.msg == "Extra data":
        return f"a line must be one JSON object, got more behind it {where}: {show(line[error.pos : error.pos + 20])}"
    if error.pos >= len(line):
        return f"a line must be one whole JSON object, got one that breaks off {where}: {show(line[-20:])}"
    return f"a line must be JSON, got {show(line[error.pos : error.pos + 20])} {where}: {error.msg}"


def _pairs(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _DuplicateKeyError(f"a JSON object must have every key once, got {show(twice)} twice")
    return value
