"""Journals that are kept open while they grow: what is appended is seen at once, and another file of the name, too."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps import journal_reader
from sweeps.journal import Entry, JournalWriter, encode_line
from sweeps.journal_reader import JournalReader


def line(number: int) -> bytes:
    return encode_line(number, 1, "member", str(number), "{}")


def read(reader: JournalReader) -> list[Entry]:
    return [entry for entries in reader.read() for entry in entries]


class Followed:
    """A journal, which has grown while its reader looked."""

    def __init__(self, folder: Path, reader: JournalReader | None = None) -> None:
        self.writer, self.lines = JournalWriter(folder, durable=False), 0
        self.reader = reader or JournalReader(folder)
        for _ in range(2):
            self.append()
            assert self.read() == [self.lines - 1]
        path = self.writer.path
        assert path is not None
        self.path = path

    def append(self) -> None:
        self.writer.append("member", [(str(self.lines), {})], 1)
        self.lines += 1

    def read(self) -> list[int]:
        """The numbers of the lines that are new."""
        return [entry.stamp.line for entry in read(self.reader)]


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def open_files(folder: Path) -> int:
    """How many descriptors of this process are of files in a folder."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that by which they are listed
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(name.startswith(f"{folder}/") for name in found)


def test_a_journal_that_grows_is_opened_once(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_reader, "_KEPT_SECONDS", 600.0)
    followed.append()
    followed.read()
    opened, open_ = list[Any](), os.open
    monkeypatch.setattr(os, "open", lambda *given: opened.append(given) or open_(*given))  # type: ignore[func-returns-value]
    for _ in range(3):
        followed.append()
        followed.append()
        assert followed.read() == [followed.lines - 2, followed.lines - 1]
        assert followed.read() == []
    assert opened == []


def test_a_torn_line_counts_once_it_is_whole(followed: Followed) -> None:
    with followed.path.open("ab") as end:
        end.write(line(2)[:9])
        end.flush()
        assert followed.read() == []
        assert len(followed.reader.notes()) == 1
        end.write(line(2)[9:] + line(3))
    assert followed.read() == [2, 3]
    assert followed.reader.problems() == followed.reader.notes() == []


def test_another_file_that_takes_the_name_is_read_at_once(followed: Followed) -> None:
    """As a copy that is put back does: whole beside it, then renamed."""
    other = followed.path.with_suffix(".new")
    other.write_bytes(followed.path.read_bytes() + line(2))
    other.rename(followed.path)
    assert followed.read() == [2]
    with followed.path.open("ab") as end:
        end.write(line(3))
    assert followed.read() == [3]
    assert followed.reader.problems() == []


class _Unnumbered:
    """An entry of a folder whose file system gives every file the same number."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name, self.stat = entry.name, entry.stat

    def inode(self) -> int:
        return 0


@contextlib.contextmanager
def _unnumbered(folder: Path) -> Iterator[Iterator[_Unnumbered]]:
    with SCANDIR(folder) as found:
        yield map(_Unnumbered, found)


SCANDIR = os.scandir


def test_where_files_have_no_numbers_another_is_read_after_a_while(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", _unnumbered)
    now = 1_000.0
    monkeypatch.setattr("sweeps.journal_reader.time.monotonic", lambda: now)
    followed.append()
    assert followed.read() == [2]
    other = followed.path.with_suffix(".new")
    other.write_bytes(followed.path.read_bytes() + line(3))
    other.rename(followed.path)
    now += journal_reader._KEPT_SECONDS / 2
    assert followed.read() == []
    now += journal_reader._KEPT_SECONDS
    assert followed.read() == [3]


def test_a_descriptor_that_is_no_good_any_more_is_replaced(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_reader, "_KEPT_SECONDS", 600.0)
    followed.append()
    followed.read()
    followed.append()
    pread, faults = os.pread, [OSError(errno.ESTALE, os.strerror(errno.ESTALE))]

    def fail_once(*given: Any) -> bytes:
        if faults:
            raise faults.pop()
        return pread(*given)

    monkeypatch.setattr(os, "pread", fail_once)
    assert followed.read() == [3]
    assert faults == []
    assert followed.read() == []


def test_a_journal_that_became_shorter_is_named(followed: Followed) -> None:
    os.truncate(followed.path, 10)
    assert followed.read() == []
    (problem,) = followed.reader.problems()
    assert problem == f"journal {followed.path.name}: became shorter or was deleted after it was read"


def test_a_journal_that_was_deleted_is_named_and_kept_open_no_more(followed: Followed, tmp_path: Path) -> None:
    assert open_files(tmp_path) == 2  # its writer's and its reader's
    followed.path.unlink()
    assert followed.read() == []
    assert [each.endswith("deleted after it was read") for each in followed.reader.problems()] == [True]
    followed.writer.close()
    assert open_files(tmp_path) == 0


def test_only_some_are_kept_open_and_all_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_reader, "_KEPT", 2)
    reader = JournalReader(tmp_path)
    journals = []
    for _ in range(5):
        journals.append(Followed(tmp_path, reader))
    assert open_files(tmp_path) == 5 + 2
    for _ in range(3):
        for each in journals:
            each.append()
        assert len(read(reader)) == 5
    assert open_files(tmp_path) == 5 + 2
    del reader
    for each in journals:
        each.writer.close()
    journals.clear()
    del each
    gc.collect()
    assert open_files(tmp_path) == 0


def test_journals_that_do_not_grow_are_not_kept_open(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"w-{number}-00000000.jsonl").write_bytes(line(0))
    reader = JournalReader(tmp_path)
    assert len(read(reader)) == 3
    assert read(reader) == []
    assert open_files(tmp_path) == 0


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_a_reader_was_interrupted_in_is_given_again(tmp_path: Path, is_kept: bool) -> None:
    followed = Followed(tmp_path)
    reader = followed.reader if is_kept else JournalReader(tmp_path)
    for _ in range(3):
        followed.append()

    def interrupted() -> None:
        for _ in reader.read():
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    assert [entry.stamp.line for entry in read(reader)] == [2, 3, 4] if is_kept else [0, 1, 2, 3, 4]
    assert reader.problems() == reader.notes() == []


def test_damaged_lines_are_counted_once_though_they_were_met_twice(followed: Followed) -> None:
    with followed.path.open("ab") as end:
        end.write(b"no line of ours\n" + line(3))
    for _ in followed.reader.read():
        break
    assert followed.read() == [3]
    assert followed.reader.problems() == [f"journal {followed.path.name}: 1 damaged lines left out, first line 3"]


@pytest.mark.parametrize("more", [0, 7])
def test_more_than_is_asked_for_at_once_is_read_in_one_look(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(journal_reader, "_LITTLE", 2 * len(line(2)) + more)
    with followed.path.open("ab") as end:
        end.write(b"".join(map(line, range(2, 9))))
    assert followed.read() == list(range(2, 9))
    assert followed.read() == []
