"""One's own dialogues: what is wrong with files of them, in training's eyes and in those of `validate`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from typing import Any

from faults import Fault, Place, Reader
from files import DEEP, DIGITS, path_faults, text_faults


def rows() -> list[dict[str, Any]]:
    """Dialogues of two turns."""
    return [
        {
            "id": f"call-{number}",
            "turns": [
                {"role": "user", "text": f"is zorp {number} there"},
                {"role": "agent", "text": f"zorp {number} is here", "reward": number % 3},
            ],
        }
        for number in range(12)
    ]


def as_lines(values: Sequence[Any] | None = None) -> str:
    return "".join(json.dumps(value) + "\n" for value in (rows() if values is None else values))


def read(path: str) -> Sequence[str]:
    return ["play", "dialogues", "--data", path]


def validate(path: str) -> Sequence[str]:
    return ["validate", path]


Edit = Callable[[dict[str, Any]], object]


def _with(edit: Edit) -> str:
    """The file with the third dialogue changed."""
    values = rows()
    edit(values[2])
    return as_lines(values)


def _line(name: str, why: str, edit: Edit, *says: str) -> tuple[str, str, str | bytes, tuple[str, ...]]:
    return name, why, _with(edit), ("line 3", *says)


def _raw(name: str, why: str, bad: str | bytes, *says: str) -> tuple[str, str, str | bytes, tuple[str, ...]]:
    """The file with another third line."""
    lines = as_lines().encode().splitlines()
    lines[2] = bad if isinstance(bad, bytes) else bad.encode()
    return name, why, b"\n".join(lines) + b"\n", ("line 3", *says)


def _agent(key: str, value: object) -> Edit:
    return lambda row: row["turns"][1].__setitem__(key, value)


def _world(key: str, value: object) -> Edit:
    return lambda row: row["turns"][0].__setitem__(key, value)


CONTENTS = (
    _raw("truncated line", "the writer died", '{"turns": [{"role": "user", "te', "character 29"),
    _raw("single quotes", "printed by Python instead of written as JSON", "{'turns': []}", "single quote"),
    _raw("comma behind the line", "cut out of an array", json.dumps(rows()[2]) + ",", "comma"),
    _raw("two objects on a line", "a line end was lost", json.dumps(rows()[2]) * 2, "more behind it"),
    _raw("nested too deep", "made to exhaust the stack", f'{{"turns": {DEEP}}}'),
    _raw("number of 5,000 digits", "a hash written as a number", f'{{"id": {DIGITS}}}'),
    _raw("key twice", "two versions merged", '{"turns": [], "turns": []}', "'turns'".replace("'", '"'), "twice"),
    _raw("byte of Latin-1", "written before Unicode", b'{"turns": "caf\xe9"}', "UTF-8", "0xe9"),
    _raw("encoded surrogates", "UTF-16 put into bytes one by one", b'{"turns": "\xed\xa0\xbd"}', "UTF-8"),
    _raw("row that is a list", "a chat without its object", '[{"role": "user"}]', "object"),
    _raw("row that is null", "an export of missing rows", "null", "object"),
    _raw("control character", "binary in a text", '{"turns": "a\x01b"}', "line 3"),
    _line("misspelt key", "typed by hand", lambda row: row.__setitem__("turn", row.pop("turns")), "'turn'", "'turns'"),
    _line("no turns", "dialogues that never began", lambda row: row.__setitem__("turns", []), "turns"),
    _line(
        "turns by number",
        "an object where a list should be",
        lambda row: row.__setitem__("turns", {"0": "hello"}),
        "turns",
        "list",
    ),
    _line(
        "turn that is a text", "speakers were left out", lambda row: row["turns"].__setitem__(1, "hello"), "turns[1]"
    ),
    _line("unknown role", "a name instead of a role", _agent("role", "agnet"), "turns[1].role", "agent"),
    _line("role of a number", "sides by number", _agent("role", 1), "turns[1].role"),
    _line("text of a list", "tokens", _agent("text", ["hello"]), "turns[1].text"),
    _line("no text", "audio alone", lambda row: row["turns"][1].pop("text"), "turns[1].text"),
    _line("world that says nothing", "a click", _world("text", " "), "turns[0].text"),
    _line("reward of the world's", "credit on the wrong turn", _world("reward", 2), "turns[0]", "user"),
    _line("reward in quotes", "numbers as texts", _agent("reward", "1.5"), "reward", "quotes"),
    _line("reward of NaN", "a division by zero", _agent("reward", float("nan")), "reward", "nan"),
    _line("reward of infinity", "an overflow", _agent("reward", float("-inf")), "reward", "inf"),
    _line("reward of 400 digits", "an integer without bounds", _agent("reward", 10**400), "reward", "401 digits"),
    _line("reward that is a truth", "thumbs up", _agent("reward", True), "reward", "true"),
    _line("rewards that are a list", "names were left out", _agent("rewards", [1, 2]), "rewards"),
    _line("reward named in spaces", "a sentence for a name", _agent("rewards", {"was it good?": 1}), "rewards"),
    _line("agent that never speaks", "an unanswered call", lambda row: row["turns"].pop(1), "agent"),
    _line("half a surrogate pair", "cut inside an emoji", _agent("text", "hello \ud83d"), "surrogate"),
    _line("id of a number", "a key of a table", lambda row: row.__setitem__("id", 7), "id"),
    _line("id of another line", "two exports in one", lambda row: row.__setitem__("id", "call-0"), "call-0", "line 1"),
    _line("split that is none", "named as elsewhere", lambda row: row.__setitem__("split", "trian"), "split", "train"),
    _line("ended that is a word", "written by hand", lambda row: row.__setitem__("ended", "yes"), "ended"),
)

WHOLE: tuple[tuple[str, str, str | bytes, tuple[str, ...]], ...] = (
    ("JSON array", "JSON, not JSON lines", json.dumps(rows()), ("array",)),
    ("one object over several lines", "printed to be read", json.dumps(rows()[0], indent=1), ("several lines",)),
    ("array nested too deep", "made to exhaust the stack", DEEP, ("'['",)),
    ("two dialogues", "a sample", as_lines(rows()[:2]), ("at least 3",)),
    ("one dialogue again and again", "a counter that did not count",
     as_lines([{"turns": rows()[0]["turns"]}] * 9), ("at least 3",)),
    ("truncated gzip", "a download that broke off", gzip.compress(as_lines().encode(), mtime=0)[:60], ("gzip",)),
    ("gzip that is none", "another file's first bytes", b"\x1f\x8bhello", ("gzip",)),
)  # fmt: skip


def _faults(command: Callable[[str], Sequence[str]]) -> tuple[Fault, ...]:
    """Every fault of a content, as a command is given it."""

    def of(content: str | bytes) -> Callable[[Place], Sequence[str]]:
        return lambda at: command(at.write("d.jsonl", content))

    return tuple(Fault(name, why, of(text), ("d.jsonl", *says)) for name, why, text, says in (*CONTENTS, *WHOLE))


def _with_code(code: str, option: str, name: str) -> Callable[[Place], Sequence[str]]:
    return lambda at: [*read(at.write("d.jsonl", as_lines())), option, f"{at.write('mine.py', code)}:{name}"]


DATA = Reader(
    "dialogues, training",
    sound=lambda at: read(at.write("d.jsonl", as_lines())),
    faults=(
        *path_faults(read, "d.jsonl"),
        *text_faults(read, "d.jsonl", as_lines().encode()),
        *_faults(read),
        Fault("environment without a name", "the factory was forgotten",
              lambda at: [*read(at.write("d.jsonl", as_lines())), "--environment", at.write("mine.py", "x = 1")],
              ("--environment", "mine.py")),
        Fault("environment that is missing", "a misspelt path",
              lambda at: [*read(at.write("d.jsonl", as_lines())), "--environment", str(at.folder / "gone.py:make")],
              ("--environment", "gone.py")),
        Fault("environment of nothing", "a file of another program", _with_code("x = (", "--environment", "make"),
              ("--environment", "mine.py", "SyntaxError")),
        Fault("environment with NUL", "binary", _with_code("x = 1\0", "--environment", "make"),
              ("--environment", "mine.py")),
        Fault("environment that leaves", "a script that ends itself",
              _with_code("raise SystemExit(3)", "--environment", "make"), ("--environment", "SystemExit")),
        Fault("factory that is not there", "misspelt", _with_code("def make(): ...", "--environment", "mkae"),
              ("--environment", "'mkae'", "make")),
        Fault("factory that is a number", "a constant was named", _with_code("make = 3", "--environment", "make"),
              ("--environment", "make")),
        Fault("factory that raises", "a fault of its own",
              _with_code("def make(seed, split):\n    raise KeyError('day')", "--environment", "make"),
              ("--environment", "KeyError", "line 2")),
        Fault("reward function that gives a text", "printed instead of returned",
              _with_code("def pay(*a, **k):\n    return 'much'", "--reward", "pay"), ("much",)),
        Fault("reward function that recurses", "it calls itself",
              _with_code("def pay(*a, **k):\n    return pay(*a, **k)", "--reward", "pay"), ("RecursionError",)),
        Fault("environment without dialogues", "nothing to learn from",
              lambda at: ["play", "dialogues", "--environment", f"{at.write('mine.py', 'make = 3')}:make"],
              ("--data",)),
        Fault("template without the text", "a field misspelt",
              lambda at: [*read(at.write("d.jsonl", as_lines())), "--set", "world.template={role}: {txet}"],
              ("template", "{txet}")),
        Fault("role of both sides", "settings that contradict each other",
              lambda at: [*read(at.write("d.jsonl", as_lines())), "--set", "world.world_roles=user,agent"],
              ("role", "agent")),
    ),
)  # fmt: skip

VALIDATE = Reader(
    "dialogues, validate",
    sound=lambda at: validate(at.write("d.jsonl", as_lines())),
    faults=(
        *path_faults(validate, "d.jsonl"),
        *text_faults(validate, "d.jsonl", as_lines().encode()),
        *_faults(validate),
        Fault("setting that is none", "misspelt",
              lambda at: [*validate(at.write("d.jsonl", as_lines())), "--set", "world.world_rules=buyer"],
              ("world.world_rules", "world.world_roles")),
        Fault("column of training", "an option of another command",
              lambda at: [*validate(at.write("d.jsonl", as_lines())), "--set", "train.steps=4"], ("train.steps",)),
    ),
)  # fmt: skip

READERS = (DATA, VALIDATE)
