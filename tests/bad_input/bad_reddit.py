"""Tables of comments, with votes and labels: what is wrong with CSV, JSON lines and Parquet."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from faults import Fault, Place, Reader
from files import DEEP, DIGITS, packed_faults, path_faults, text_faults

ROWS = 120
GOOD, BAD = ("kind", "soft", "warm", "calm"), ("vile", "foul", "grim", "rude")


def table() -> list[dict[str, Any]]:
    """Comments of made-up words; those with words of `BAD` are labelled 1."""
    return [
        {
            "parent": f"what of zorp{n % 40}",
            "text": f"{(BAD if n % 2 else GOOD)[n % 4]} {(BAD if n % 2 else GOOD)[(n + 1) % 4]} zorp{n} blim{n % 7}",
            "score": n % 5 - 2,
            "label": n % 2,
        }
        for n in range(ROWS)
    ]


SETTINGS = ["--set=world.tune_share=0.3", "--set=world.report_share=0.3", "--set=world.least_auc=0"]


def read(path: str) -> Sequence[str]:
    return ["play", "reddit", *SETTINGS, "--data", path]


def as_csv(rows: Sequence[dict[str, Any]] | None = None) -> str:
    rows = table() if rows is None else rows
    return ",".join(rows[0]) + "\n" + "".join(",".join(str(cell) for cell in row.values()) + "\n" for row in rows)


def as_lines(rows: Sequence[Any] | None = None) -> str:
    return "".join(json.dumps(row) + "\n" for row in (table() if rows is None else rows))


def as_parquet(frame: pa.Table | None = None) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table()) if frame is None else frame, file)
    return file.getvalue()


def _csv(name: str, why: str, text: str | bytes, *says: str, more: Sequence[str] = ()) -> Fault:
    return Fault(name, why, lambda at: [*read(at.write("c.csv", text)), *more], says or ("c.csv",))


def _each(**changes: object) -> list[dict[str, Any]]:
    return [row | changes for row in table()]


def _judge_pipe(at: Place) -> Sequence[str]:
    os.mkfifo(at.folder / "j.csv")
    return [*read(at.write("c.csv", as_csv())), "--judge-data", str(at.folder / "j.csv")]


CSV = Reader(
    "reddit, CSV",
    sound=lambda at: read(at.write("c.csv", as_csv())),
    faults=(
        *path_faults(read, "c.csv"),
        *text_faults(read, "c.csv", as_csv().encode()),
        *packed_faults(read, "c.csv.gz", as_csv().encode()),
        Fault("another ending", "a spreadsheet", lambda at: read(at.write("c.xlsx", b"PK\3\4")), ("c.xlsx", ".csv")),
        _csv("Latin-1 throughout", "written before Unicode",
             as_csv().replace("zorp", "zörp").encode("latin-1"), "c.csv", "UTF-8"),
        _csv("header alone", "an empty export", "parent,text,score,label\n", "c.csv", "none"),
        _csv("rows of other lengths", "commas in unquoted texts",
             "parent,text,score,label\n" + "a,b,c\n" * 50, "c.csv", "as many cells", "line 2"),
        _csv("no column of comments", "an export of numbers", as_csv().replace("text", "txet", 1), "comment",
             "txet", "world.comment_column"),
        _csv("column named twice", "joined tables", as_csv().replace("parent", "text", 1), "c.csv", "'text'"),
        _csv("quote that is never closed", "an inch written as a quote",
             as_csv().replace("kind", '"kind', 1) + "x" * 200_000, "c.csv", "line"),
        _csv("field of 200,000 letters", "a page pasted into a cell",
             as_csv().replace("kind", "k" * 200_000, 1), "c.csv", "line"),
        _csv("NUL in a cell", "binary", as_csv([{**row, "text": "\0"} for row in table()]), "comment"),
        _csv("texts without a letter", "a column that was lost", as_csv(_each(text=" ")), "empty"),
        _csv("deleted comments", "moderated", as_csv(_each(text="[deleted]")), "deleted"),
        _csv("scores that are words", "votes hidden", as_csv(_each(score="hidden")), "score"),
        _csv("scores of infinity", "a division by zero", as_csv(_each(score="inf")), "score"),
        _csv("one label alone", "a list of toxic comments", as_csv(_each(label=1)), "two kinds", "1"),
        _csv("labels in words nobody knows", "another language", as_csv(_each(label="grob")), "two kinds", "grob"),
        _csv("one comment again and again", "a counter that did not count",
             as_csv([table()[0]] * 50), "data",
             "two kinds"),
        _csv("three rows", "a sample", as_csv(table()[:3]), "data", "three splits"),
        _csv("column that is not there", "misspelt in a setting", as_csv(), "'txt'", "comment_column",
             more=["--set", "world.comment_column=txt"]),
        _csv("names for another number of columns", "a name forgotten", as_csv(), "c.csv", "got 2",
             more=["--set", "world.columns=a,b"]),
        _csv("pattern that is none", "a bracket not closed", as_csv(), "regex", more=["--set", "world.regex=("]),
        _csv("function that is not there", "misspelt", as_csv(), "nosuch_module",
             more=["--set", "world.callable=nosuch_module:f"]),
        _csv("shares above one", "nothing to learn from", as_csv(), "tune_share",
             more=["--set", "world.tune_share=0.8"]),
        Fault("labelled file without labels", "the wrong file",
              lambda at: [*read(at.write("c.csv", as_csv())), "--labelled", at.write("l.csv", "text\nhello\n")],
              ("label", "labelled_label_column")),
        Fault("labelled file of one kind", "a list of toxic comments",
              lambda at: [*read(at.write("c.csv", as_csv())),
                          "--labelled", at.write("l.csv", "text,label\nfoul,1\nvile,1\n")], ("labelled", "two kinds")),
        Fault("labelled file that is missing", "a misspelt path",
              lambda at: [*read(at.write("c.csv", as_csv())), "--labelled", str(at.folder / "l.csv")], ("l.csv",)),
        Fault("judge data that is a pipe", "made on the fly by a shell", _judge_pipe, ("j.csv",)),
    ),
)  # fmt: skip


def _lines(name: str, why: str, text: str | bytes, *says: str) -> Fault:
    return Fault(name, why, lambda at: read(at.write("c.jsonl", text)), says or ("c.jsonl",))


LINES = Reader(
    "reddit, JSON lines",
    sound=lambda at: read(at.write("c.jsonl", as_lines())),
    faults=(
        *path_faults(read, "c.jsonl"),
        *text_faults(read, "c.jsonl", as_lines().encode()),
        *packed_faults(read, "c.jsonl.gz", as_lines().encode()),
        _lines("one array", "JSON, not JSON lines", json.dumps(table()), "object"),
        _lines("first line of a list", "columns without names", "[1, 2]\n" + as_lines(), "c.jsonl", "object"),
        _lines("first line nested too deep", "made to exhaust the stack", DEEP + "\n" + as_lines(), "object"),
        _lines("first line with a number of 5,000 digits", "a hash written as a number",
               f'{{"text": {DIGITS}}}\n' + as_lines(), "object"),
        _lines("number of 5,000 digits in all the others", "hashes written as numbers",
               '{"text": "a", "label": 1}\n' + f'{{"text": "a", "label": {DIGITS}}}\n' * 9, "data", "two kinds"),
        _lines("no rows but one", "truncated",
               '{"text": "kind", "label": 1}\n{"text": "vi', "data", "two kinds"),
        _lines("texts that are numbers", "tokens", as_lines(_each(text=5)), "no text"),
        _lines("texts that are objects", "runs of formatted text", as_lines(_each(text={"runs": []})),
               "c.jsonl", "object", "line 1"),
        _lines("texts that are null", "an export of missing rows", as_lines(_each(text=None)), "empty"),
        _lines("rows nested too deep", "made to exhaust the stack",
               '{"text": "a", "score": 1}\n' + f'{{"text": {DEEP}}}\n' * 3, "data", "three splits"),
        _lines("scores beyond a float", "an integer of 400 digits", as_lines(_each(score=10**400)), "score"),
        _lines("scores that are NaN", "a division by zero", as_lines(_each(score=float("nan"))), "score"),
        _lines("labels of objects", "scores by class", as_lines(_each(label={"toxic": 0.4})), "c.jsonl", "object"),
        _lines("no column of comments", "an export of numbers", '{"a": 1}\n' * 9, "c.jsonl", "comment"),
        _lines("empty objects", "a serialiser that knew no field", "{}\n" * 9, "object"),
    ),
)  # fmt: skip


def _parquet(name: str, why: str, frame: pa.Table | bytes, *says: str) -> Fault:
    def make(at: Place) -> Sequence[str]:
        return read(at.write("c.parquet", frame if isinstance(frame, bytes) else as_parquet(frame)))

    return Fault(name, why, make, says or ("c.parquet",))


def _of(**columns: pa.Array) -> pa.Table:
    return pa.table(columns)


def _damaged(places: slice) -> bytes:
    """The sound file with bytes of its middle turned over."""
    content = bytearray(as_parquet())
    content[places] = bytes(byte ^ 0xFF for byte in content[places])
    return bytes(content)


TEXTS = [row["text"] for row in table()]

PARQUET = Reader(
    "reddit, Parquet",
    sound=lambda at: read(at.write("c.parquet", as_parquet())),
    faults=(
        *path_faults(read, "c.parquet"),
        _parquet("empty file", "a download that never began", b""),
        _parquet("truncated", "a download that broke off", as_parquet()[:-100]),
        _parquet("its end alone", "the first part was lost", as_parquet()[-200:]),
        _parquet("flipped pages", "a disk that forgets", _damaged(slice(40, 400))),
        _parquet("flipped footer", "a disk that forgets", _damaged(slice(-300, -8))),
        _parquet("zero bytes", "the machine died before the disk had it", bytes(4000)),
        _parquet("CSV by another name", "renamed by hand", as_csv().encode()),
        _parquet("footer of 4 GB", "made to exhaust memory", b"PAR1" + b"\xff\xff\xff\x7fPAR1"),
        _parquet("no rows", "an empty export", pa.Table.from_pylist(table()).slice(0, 0), "c.parquet", "no rows"),
        _parquet("no columns", "an index alone", pa.table({}), "comment"),
        _parquet("nested texts", "a struct of text and language",
                 _of(text=pa.array([{"body": t, "lang": "xx"} for t in TEXTS])), "c.parquet", "object", "row 1"),
        _parquet("texts of bytes of Latin-1", "written before Unicode",
                 _of(text=pa.array([b"kind \xe9"] * 9, pa.binary())), "c.parquet", "UTF-8", "row 1"),
        _parquet("texts of numbers", "tokens", _of(text=pa.array(range(ROWS))), "c.parquet", "no text"),
        _parquet("texts that are all null", "a column that was lost", _of(text=pa.array([None] * 9, pa.string())),
                 "empty"),
        _parquet("column named twice", "joined tables",
                 pa.Table.from_arrays([pa.array(TEXTS), pa.array(TEXTS)], ["text", "text"]), "c.parquet", "'text'"),
        _parquet("scores of dates", "a column of another kind",
                 _of(text=pa.array(TEXTS), score=pa.array([0] * ROWS, pa.timestamp("ns"))), "score"),
        _parquet("dates beyond the calendar", "microseconds read as seconds",
                 _of(text=pa.array(TEXTS), score=pa.array([2**62] * ROWS, pa.timestamp("us")))),
        _parquet("labels of lists of one kind", "several labels a row",
                 _of(text=pa.array(TEXTS), label=pa.array([["insult", "obscene"]] * ROWS)), "two kinds"),
        _parquet("texts that are not UTF-8", "bytes called a text",
                 _of(text=pa.array([b"kind \xff"] * ROWS, pa.binary()).view(pa.string()))),
    ),
)  # fmt: skip

READERS = (CSV, LINES, PARQUET)
