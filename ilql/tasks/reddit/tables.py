"""Rows of a file as people store them: CSV, TSV, JSON lines or Parquet, one reader for all.

A cell is text, a number or nothing. Truths become 1 and 0, a list becomes its entries with commas between. A row that
cannot be read is skipped and counted; a file that cannot ends in one line.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ilql.files import FILE, NOTHING, kind_of, user_path

if TYPE_CHECKING:
    from _csv import Reader

Cell = str | float | None

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")
"""How the name of a table ends."""

_BATCH_ROWS = 8192
_STRAY_BYTES = re.compile("[\udc80-\udcff]")
"""What bytes that are no UTF-8 are read as."""


@dataclass
class Skipped:
    """Rows that were left out, or kept without something, by reason, each with the place where it was met first.

    Attributes:
        counts: Rows by reason.
        first: A place, such as `line 12`, by reason.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        """Count one row."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, place)

    def notes(self, of: str, *, done: str = "skipped") -> list[str]:
        """A line for each reason, the commonest first; `done` says what became of the rows."""
        ordered = sorted(self.counts, key=lambda reason: (-self.counts[reason], reason))
        return [
            f"{done} {self.counts[reason]} rows of {of}: {reason} (first: {self.first[reason]})" for reason in ordered
        ]


@dataclass(frozen=True)
class Table:
    """A file that was opened once to see its columns.

    Attributes:
        path: The file.
        source: What the user calls it, such as `data`, for messages.
        columns: The names of its columns, in order.
        named: Whether the user named the columns, so that the first line holds values.
        quoted: Whether cells may stand in double quotes.
    """

    path: Path
    source: str
    columns: tuple[str, ...]
    named: bool
    quoted: bool

    def rows(self, wanted: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, list[Cell]]]:
        """Each row's place in the file and its cells of the `wanted` columns.

        Raises:
            ValueError: The file cannot be read; one line.
        """
        kind = _format(self.path)
        try:
            if kind == "parquet":
                rows = self._parquet_rows(wanted, skipped)
            elif kind == "jsonl":
                rows = self._json_rows(wanted, skipped)
            else:
                rows = self._csv_rows(wanted, skipped)
            for place, cells in rows:
                if any(isinstance(cell, str) and _STRAY_BYTES.search(cell) for cell in cells):
                    skipped.add("it is not UTF-8", place)
                else:
                    yield place, cells
        except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError, OverflowError) as error:
            raise ValueError(_unreadable(self.path, error)) from error

    def _csv_rows(self, wanted: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, list[Cell]]]:
        places = [self.columns.index(name) for name in wanted]
        with _open_text(self.path) as lines:
            reader = _csv_reader(self.path, lines, quoted=self.quoted)
            try:
                for number, cells in enumerate(reader):
                    if not cells or (number == 0 and not self.named):
                        continue
                    place = f"line {reader.line_num}"
                    if len(cells) != len(self.columns):
                        skipped.add("it has not as many cells as there are columns", place)
                    else:
                        yield place, [cells[i] for i in places]
            except csv.Error as error:
                raise ValueError(
                    f"{self.path} must be a {'quoted' if self.quoted else 'plain'} table, got at line "
                    f"{reader.line_num}: {error}; a quote may be open: see --set world.quotes"
                ) from error

    def _json_rows(self, wanted: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, list[Cell]]]:
        with _open_text(self.path) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = _json_row(line)
                if row is None:
                    skipped.add("it is no JSON object", f"line {number}")
                    continue
                try:
                    yield f"line {number}", [_cell(row.get(name)) for name in wanted]
                except _NoCellError as error:
                    skipped.add(str(error), f"line {number}")

    def _parquet_rows(self, wanted: Sequence[str], skipped: Skipped) -> Iterator[tuple[str, list[Cell]]]:
        number = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(dict.fromkeys(wanted))):
                columns = [batch.column(batch.schema.get_field_index(name)).to_pylist() for name in wanted]
                for cells in zip(*columns, strict=True):
                    number += 1
                    try:
                        yield f"row {number}", [_cell(value) for value in cells]
                    except _NoCellError as error:
                        skipped.add(str(error), f"row {number}")


def open_table(source: str, name: str, *, columns: Sequence[str] = (), quotes: str = "auto") -> Table:
    """The table of the file `name`, its columns known.

    Args:
        source: What the user calls it, such as `data`, for messages.
        name: The file.
        columns: Names for the columns of a file without a header.
        quotes: `yes`, `no` or `auto`, as in `Settings`.

    Raises:
        ValueError: There is no such file, it is none of the formats, it is empty or cannot be read, a column has no
            name or two have one, or `columns` are not as many as the file has; one line.
    """
    path = find_file(source, name)
    quoted = quotes == "yes" or (quotes == "auto" and _format(path) != "tsv")
    try:
        found = _columns(path, quoted=quoted)
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        raise ValueError(_unreadable(path, error)) from error
    if columns:
        if _format(path) not in ("csv", "tsv"):
            raise ValueError(f"only a CSV or TSV file takes names for its columns, got them for {path}")
        if len(columns) != len(found):
            raise ValueError(
                f"each column of {path} must get one name, got {len(columns)} ({', '.join(columns)}) for {len(found)}"
            )
        found = list(columns)
    twice = sorted({repr(column) for column in found if found.count(column) > 1})
    if twice:
        raise ValueError(f"each column of {path} must have a name of its own, got twice {', '.join(twice)}")
    return Table(path, source, tuple(found), named=bool(columns), quoted=quoted)


def find_file(source: str, name: str) -> Path:
    """The path of a table that exists.

    Raises:
        ValueError: It does not, or its name does not end like a table's.
    """
    path = user_path(name)
    kind = kind_of(path)
    if kind == NOTHING:
        raise ValueError(f"--{source.replace('_', '-')} must be a file that exists, got {name}")
    if kind != FILE or not path.name.endswith(SUFFIXES):
        raise ValueError(f"{source} must be a file ending in one of {', '.join(SUFFIXES)}, got {kind}: {name}")
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from error


def _format(path: Path) -> str:
    """`csv`, `tsv`, `jsonl` or `parquet`."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[1]


def _columns(path: Path, *, quoted: bool) -> list[str]:
    """The names of a file's columns; of a CSV or TSV file the cells of its first line."""
    if _format(path) == "parquet":
        return list(pq.read_schema(path).names)
    with _open_text(path) as lines:
        if _format(path) == "jsonl":
            first = next((line for line in lines if line.strip()), None)
            if first is None:
                raise ValueError(f"{path} must hold rows, got an empty file")
            row = _json_row(first)
            if not row:
                raise ValueError(f"the first line of {path} must be a JSON object with columns, got {first[:60]!r}")
            return list(row)
        cells = next(_csv_reader(path, lines, quoted=quoted), None)
        if not cells:
            raise ValueError(f"{path} must hold a header and rows, got an empty {'file' if cells is None else 'line'}")
        if odd := next((cell for cell in cells if "\0" in cell or _STRAY_BYTES.search(cell)), None):
            raise ValueError(f"the header of {path} must be UTF-8 text, got {odd[:20]!a}; save the file as UTF-8")
        return cells


def _json_row(line: str) -> dict[str, object] | None:
    """The object of a line, or None where it is none that can be read."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # of ValueErrors also the one of an integer of thousands of digits
        return None
    return row if isinstance(row, dict) else None


def _csv_reader(path: Path, lines: IO[str], *, quoted: bool) -> Reader:
    return csv.reader(
        lines,
        delimiter="\t" if _format(path) == "tsv" else ",",
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )


def _open_text(path: Path) -> IO[str]:
    """The file as text; bytes that are not UTF-8 become lone surrogates, which a reader finds."""
    raw = gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # noqa: SIM115  TextIOWrapper closes it
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


class _NoCellError(Exception):
    """A value is neither text nor number nor a list of those; the message says so."""


def _cell(value: object) -> Cell:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, bool | int | float):
        try:
            return float(value)
        except OverflowError:  # an integer of hundreds of digits
            return math.inf if value > 0 else -math.inf
    if isinstance(value, dict):
        raise _NoCellError("it holds an object where a text or a number should be")
    if isinstance(value, list | tuple):
        return ",".join(plain(entry) for entry in map(_cell, value) if entry is not None)
    return str(value)


def plain(cell: str | float) -> str:
    """A cell as a person writes it: 2 and not 2.0."""
    return cell if isinstance(cell, str) else f"{cell:g}"


def _unreadable(path: Path, error: BaseException) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{path} cannot be read: {reason}"
