"""Recorded visual dialogue: what is wrong with files of its three layouts, and with the source of the remote world."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable, Sequence
from typing import Any

from faults import Fault, Place, Reader
from files import DEEP, DIGITS, packed_faults, path_faults, text_faults

SCENES = 24
THINGS = ("kettle", "lantern", "barrel", "ladder", "anchor", "saddle")
COLOURS = ("red", "green", "blue", "grey")

Change = Callable[[Any], None]


def _rounds(number: int) -> list[tuple[str, str]]:
    """Two questions about a scene and their answers."""
    thing, colour = THINGS[number % len(THINGS)], COLOURS[number % len(COLOURS)]
    return [(f"is there a {thing}", "yes"), (f"what colour is the {thing}", colour)]


def _caption(number: int) -> str:
    return f"a {COLOURS[number % 4]} {THINGS[number % 6]} number {number}"


def lines() -> list[dict[str, Any]]:
    """Rows of the layout *lines*, without machine's columns."""
    return [
        {"image_id": number, "caption": _caption(number), "human": [list(pair) for pair in _rounds(number)]}
        for number in range(SCENES)
    ]


def official() -> dict[str, Any]:
    """The layout *official*."""
    questions, answers = sorted({q for n in range(SCENES) for q, _ in _rounds(n)}), ["yes", *COLOURS]
    return {
        "data": {
            "questions": questions,
            "answers": answers,
            "dialogs": [
                {
                    "image_id": number,
                    "caption": _caption(number),
                    "dialog": [
                        {"question": questions.index(asked), "answer": answers.index(said)}
                        for asked, said in _rounds(number)
                    ],
                }
                for number in range(SCENES)
            ],
        }
    }


def listed() -> list[dict[str, Any]]:
    """The layout *list*."""
    return [
        {"caption": _caption(number), "dialog": [{"question": q, "answer": a} for q, a in _rounds(number)]}
        for number in range(SCENES)
    ]


def remote() -> dict[str, Any]:
    """The source of the remote world; its percentiles are there, so no server is asked for them."""
    dialogues = [row | {"percentiles": [0.1, 0.2, 0.3]} for row in listed()]
    return {"servers": ["http://127.0.0.1:1"], "dialogues": dialogues}


def read(path: str) -> Sequence[str]:
    """Building the world is all that `play` does where nobody types."""
    return ["play", "visdial", "--data", path]


def read_remote(path: str) -> Sequence[str]:
    return ["play", "visdial", "--world", "remote", "--data", path]


def as_lines(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _changed(make: Callable[[], Any], change: Change) -> Any:
    value = copy.deepcopy(make())
    change(value)
    return value


def _line_fault(name: str, why: str, change: Change, *says: str) -> Fault:
    """A fault of the rows of the layout *lines*."""
    return Fault(name, why, lambda at: read(at.write("d.jsonl", as_lines(_changed(lines, change)))), ("d.jsonl", *says))


def _raw_line(name: str, why: str, bad: str, *says: str) -> Fault:
    """A fault of the text of line 3."""

    def make(at: Place) -> Sequence[str]:
        rows = as_lines(lines()).splitlines()
        return read(at.write("d.jsonl", "\n".join([*rows[:2], bad, *rows[3:]]) + "\n"))

    return Fault(name, why, make, ("d.jsonl", "line 3", *says))


def _json_fault(whole: Callable[[], Any], name: str, why: str, change: Change, *says: str) -> Fault:
    return Fault(name, why, lambda at: read(at.write("d.json", json.dumps(_changed(whole, change)))), ("d.json", *says))


def _of_all(key: str, value: object) -> Change:
    """Sets a key of every row."""

    def change(rows: Any) -> None:
        for row in rows:
            row[key] = value

    return change


def _raw_json(whole: Callable[[], Any], name: str, why: str, edit: Callable[[str], str], *says: str) -> Fault:
    return Fault(name, why, lambda at: read(at.write("d.json", edit(json.dumps(whole())))), ("d.json", *says))


def _drop(key: str, place: int = 2) -> Change:
    return lambda rows: rows[place].pop(key)


def _set(place: int, value: object) -> Change:
    return lambda rows: rows.__setitem__(place, value)


def _machine_in_one(rows: Any) -> None:
    more = {"chatgpt_blip2": [], "chatgpt_blind_blip2": [], "flan_blip2": [], "plugir_description": "a thing"}
    rows[2] |= {"blip2_answers": ["no", "no"], **more}


LINES = Reader(
    "visdial, layout lines",
    sound=lambda at: read(at.write("d.jsonl", as_lines(lines()))),
    faults=(
        *path_faults(read, "d.jsonl"),
        *text_faults(read, "d.jsonl", as_lines(lines()).encode()),
        *packed_faults(read, "d.jsonl.gz", as_lines(lines()).encode()),
        Fault(
            "another ending", "a table of another program",
            lambda at: read(at.write("d.csv", as_lines(lines()))), ("d.csv", ".jsonl"),
        ),
        Fault(
            "no data file in the folder", "the folder above was named",
            lambda at: [at.write("notes.txt", "x"), *read(str(at.folder))][1:], ("input", "visdial*"),
        ),
        Fault(
            "two data files in the folder", "an old file lies beside the new one",
            lambda at: [at.write("visdial_1.json", "[]"), at.write("visdial_2.json", "[]"), *read(str(at.folder))][2:],
            ("visdial_1.json", "visdial_2.json"),
        ),
        Fault(
            "byte of Latin-1", "written by a program of before 1996",
            lambda at: read(at.write("d.jsonl", as_lines(lines()).encode() + b'{"caption": "caf\xe9"}\n')),
            ("d.jsonl", "UTF-8", "0xe9"),
        ),
        _raw_line("truncated line", "the writer died", '{"image_id": 2, "capt'),
        _raw_line("no JSON", "a comment among the rows", "# from here on checked"),
        _raw_line("single quotes", "printed by Python instead of written as JSON", "{'image_id': 2}"),
        _raw_line("nested too deep", "made to exhaust the stack", DEEP),
        _raw_line("number of 5,000 digits", "a hash written as a number", f'{{"image_id": {DIGITS}}}'),
        _raw_line("key twice", "two versions merged", '{"image_id": 2, "caption": "a", "caption": "b", "human": []}',
                  "caption"),
        _raw_line("row that is a list", "columns without names", '[2, "a red kettle", []]', "object"),
        _raw_line("row that is null", "an export of missing rows", "null", "object"),
        _line_fault("missing column", "an export without captions", _drop("caption"), "line 3", "caption"),
        _line_fault("misspelt column", "renamed by hand",
                    lambda rows: rows[2].__setitem__("humans", rows[2].pop("human")), "line 3", "human", "humans"),
        _line_fault("machine text in one row", "only some rows were described", _machine_in_one, "1 of 24"),
        _line_fault("rounds of one text", "questions and answers joined", _of_all("human", "yes no"), "human"),
        _line_fault("rounds of three", "speakers named in each pair", _of_all("human", [["a", "b", "c"]]), "human 1"),
        _line_fault("numbers for answers", "answers by their index", _of_all("human", [["is it", 3]]), "answer 1"),
        _line_fault("no rounds", "dialogues that never began", _of_all("human", []), "no questions"),
        _line_fault("empty captions", "a column that was lost", _of_all("caption", "  "), "caption"),
        _line_fault("one name for all", "a counter that did not count", _of_all("image_id", 7), "at least 20"),
        _line_fault("names that are no names", "truths for numbers", _of_all("image_id", True), "image_id"),
        _line_fault("too few dialogues", "a sample for looking at", lambda rows: rows.__delitem__(slice(5, None)),
                    "at least 20", "5"),
        _line_fault("half a surrogate pair", "a caption cut inside an emoji",
                    _of_all("caption", "a kettle \ud83d"), "caption"),
    ),
)  # fmt: skip

OFFICIAL = Reader(
    "visdial, layout official",
    sound=lambda at: read(at.write("d.json", json.dumps(official()))),
    faults=(
        *text_faults(read, "d.json", json.dumps(official()).encode()),
        *packed_faults(read, "d.json.gz", json.dumps(official()).encode()),
        Fault("packed, named as if not", "a download that kept its packing",
              lambda at: read(at.write("d.json", gzip.compress(json.dumps(official()).encode()))),
              ("d.json", "UTF-8")),
        _raw_json(official, "truncated", "a download that broke off", lambda text: text[:-30]),
        _raw_json(official, "nested too deep", "made to exhaust the stack",
                  lambda text: text.replace('"answers": [', f'"answers": [{DEEP}, ', 1)),
        _raw_json(official, "number of 5,000 digits", "a hash written as a number",
                  lambda text: text.replace('"image_id": 2,', f'"image_id": {DIGITS},', 1)),
        _raw_json(official, "key twice", "two versions merged",
                  lambda text: text.replace('"answers": [', '"answers": [], "answers": [', 1), "answers"),
        _raw_json(official, "two values", "two files in one", lambda text: text + text),
        _raw_json(official, "bare number", "another file's content", lambda text: "17", "object"),
        _json_fault(official, "no data", "the inner object alone", lambda w: w.__setitem__("date", w.pop("data")),
                    "data", "date"),
        _json_fault(official, "no answers", "a test split, whose answers are held back",
                    lambda w: w["data"].pop("answers"), "answers"),
        _json_fault(official, "answers by name", "an object where a list should be",
                    lambda w: w["data"].__setitem__("answers", {"0": "yes"}), "data.answers", "list"),
        _json_fault(official, "data that is a list", "the list of another version",
                    lambda w: w.__setitem__("data", []), "data", "object"),
        _json_fault(official, "dialogue without a name", "an export without its key",
                    lambda w: w["data"]["dialogs"][4].pop("image_id"), "dialogue 4", "image_id"),
        _json_fault(official, "index beyond the texts", "texts of another split",
                    lambda w: w["data"].__setitem__("answers", ["yes"]), "dialogue 0", "index 1", "[0, 1)"),
        _json_fault(official, "negative indices", "missing values written as -1",
                    lambda w: _rounds_of(w, {"question": -1, "answer": 0}), "-1"),
        _json_fault(official, "indices that are broken numbers", "a table that made floats of them",
                    lambda w: _rounds_of(w, {"question": 1.5, "answer": 0}), "1.5"),
        _json_fault(official, "indices that are NaN", "a table that has no missing whole numbers",
                    lambda w: _rounds_of(w, {"question": float("nan"), "answer": 0}), "nan"),
        _json_fault(official, "indices that are truths", "a column of another kind",
                    lambda w: _rounds_of(w, {"question": True, "answer": 0}), "True"),
        _json_fault(official, "questions that are lists", "tokens instead of texts",
                    lambda w: w["data"].__setitem__("questions", [["is", "it"]] * 12), "question 1"),
        _json_fault(official, "no dialogues", "an empty split", lambda w: w["data"].__setitem__("dialogs", []),
                    "none"),
    ),
)  # fmt: skip


def _rounds_of(whole: Any, entry: object) -> None:
    """Every dialogue of the official layout has this one round."""
    for row in whole["data"]["dialogs"]:
        row["dialog"] = [entry]


LIST = Reader(
    "visdial, layout list",
    sound=lambda at: read(at.write("d.json", json.dumps(listed()))),
    faults=(
        *packed_faults(read, "d.json.gz", json.dumps(listed()).encode()),
        _raw_json(listed, "truncated", "a download that broke off", lambda text: text[:-10]),
        _raw_json(listed, "byte order mark", "saved on Windows", lambda text: "\ufeff" + text, "BOM"),
        _raw_json(listed, "comma before the end", "written by hand", lambda text: text[:-1] + ",]"),
        _raw_json(listed, "nested too deep", "made to exhaust the stack", lambda text: f"[{DEEP}]"),
        _raw_json(listed, "key twice", "two versions merged",
                  lambda text: text.replace('"caption":', '"caption": "x", "caption":', 1), "caption"),
        _raw_json(listed, "control character", "binary in a text", lambda text: text.replace("red", "r\x01d", 1)),
        _json_fault(listed, "empty list", "an empty split", lambda rows: rows.clear(), "none"),
        _json_fault(listed, "row that is a text", "captions alone", _set(3, "a red kettle"), "dialogue 3", "object"),
        _json_fault(listed, "no caption", "an export without captions", _drop("caption", 5), "dialogue 5", "caption"),
        _json_fault(listed, "no dialogue", "captions alone", _drop("dialog", 6), "dialogue 6", "dialog"),
        _json_fault(listed, "dialogues that are texts", "turns joined", _of_all("dialog", "is it? yes"), "dialog"),
        _json_fault(listed, "rounds that are texts", "turns in one list", _of_all("dialog", ["is it", "yes"]),
                    "round 1"),
        _json_fault(listed, "rounds without answers", "a test split", _of_all("dialog", [{"question": "is it"}]),
                    "answer 1"),
        _json_fault(listed, "captions of numbers", "indices of captions", _of_all("caption", 12), "caption"),
        _json_fault(listed, "half a surrogate pair", "an answer cut inside an emoji",
                    _of_all("dialog", [{"question": "is it", "answer": "\udc00"}]), "answer 1"),
        _json_fault(listed, "too few dialogues", "a sample for looking at",
                    lambda rows: rows.__delitem__(slice(19, None)), "at least 20", "19"),
    ),
)  # fmt: skip


def _remote_fault(name: str, why: str, change: Change, *says: str) -> Fault:
    return Fault(
        name, why, lambda at: read_remote(at.write("r.json", json.dumps(_changed(remote, change)))), ("r.json", *says)
    )


def _of_third(key: str, value: object) -> Change:
    return lambda whole: whole["dialogues"][2].__setitem__(key, value)


REMOTE = Reader(
    "visdial, source of the remote world",
    sound=lambda at: ["play", "visdial", "--data", at.write("d.jsonl", as_lines(lines()))],
    faults=(
        *path_faults(read_remote, "r.json"),
        *text_faults(read_remote, "r.json", json.dumps(remote()).encode()),
        Fault("nested too deep", "made to exhaust the stack", lambda at: read_remote(at.write("r.json", DEEP)),
              ("r.json",)),
        _remote_fault("no dialogues", "addresses alone", lambda w: w.pop("dialogues"), "dialogues"),
        _remote_fault("addresses that are numbers", "ports alone", lambda w: w.__setitem__("servers", [5000]), "5000"),
        _remote_fault("address without a scheme", "a host and a port",
                      lambda w: w.__setitem__("servers", ["localhost:5000"]), "localhost:5000"),
        _remote_fault("no address", "copied from a template", lambda w: w.__setitem__("servers", []), "server"),
        _remote_fault("row that is a list", "columns without names", lambda w: w["dialogues"].__setitem__(2, [1]),
                      "dialogue 2"),
        _remote_fault("row without a caption", "an export without captions", lambda w: w["dialogues"][2].pop("caption"),
                      "dialogue 2", "caption"),
        _remote_fault("features that are texts", "numbers in quotes", _of_third("img_features", ["a"]), "dialogue 2"),
        _remote_fault("features of infinity", "a division by zero", _of_third("img_features", [float("inf")]),
                      "dialogue 2"),
        _remote_fault("features beyond a float", "an integer of 400 digits", _of_third("img_features", [10**400]),
                      "dialogue 2"),
        _remote_fault("percentile above one", "percents for shares", _of_third("percentiles", [10.0, 20.0, 30.0]),
                      "dialogue 2"),
        _remote_fault("too few percentiles", "one for each answer, and none before", _of_third("percentiles", [0.1]),
                      "dialogue 2"),
        _remote_fault("percentile of NaN", "a division by zero", _of_third("percentiles", [0.1, float("nan"), 0.3]),
                      "dialogue 2"),
        _remote_fault("one scene in two forms", "captions were corrected in one place",
                      lambda w: [row.__setitem__("id", "same") for row in w["dialogues"]], "same"),
        _remote_fault("two scenes", "a sample for looking at",
                      lambda w: w["dialogues"].__delitem__(slice(2, None)), "at least 3"),
        _remote_fault("half a surrogate pair", "a caption cut inside an emoji", _of_third("caption", "a \ud83d"),
                      "dialogue 2"),
    ),
)  # fmt: skip

READERS = (LINES, OFFICIAL, LIST, REMOTE)
