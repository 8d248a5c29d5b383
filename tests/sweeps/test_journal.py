"""Lines, journals and what is left of them after a kill, a full disk or a flipped bit."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import signal
import time
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.exact_json import dumps, dumps_again, loads
from sweeps.journal import Entry, JournalWriter, StoreError, decode_line, encode_line
from sweeps.journal_reader import JournalReader
from sweeps.records import Records

SPAWN = multiprocessing.get_context("spawn")

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text().filter(lambda key: not key.startswith("$"))
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=10)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=50, deadline=None)
@given(values)
def test_json_gives_back_what_it_was_given(value: Any) -> None:
    assert _same(loads(dumps(value)), value)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(keys, values))
def test_a_record_that_was_read_is_written_as_it_would_be_by_name(record: dict[str, Any]) -> None:
    assert dumps_again(loads(dumps(record))) == dumps(record, by_name=True)


def test_infinity_is_written_as_json_that_others_can_read() -> None:
    assert json.loads(dumps({"decode.beta": math.inf})) == {"decode.beta": {"$float": "inf"}}


def test_fields_come_in_the_order_of_their_names_where_it_is_asked_for() -> None:
    value = {"b": {"d": 8.0, "c": None}, "a": math.inf}
    assert dumps(value, by_name=True) == '{"a":{"$float":"inf"},"b":{"c":null,"d":8.0}}'
    assert dumps(value) == '{"b":{"d":8.0,"c":null},"a":{"$float":"inf"}}'


def test_numpy_numbers_become_numbers_and_other_things_are_refused_by_name() -> None:
    numbers: dict[str, Any] = {"a": np.float32(0.5), "b": np.int64(3), "half": Fraction(1, 2)}
    assert loads(dumps(numbers)) == {"a": 0.5, "b": 3, "half": 0.5}
    with pytest.raises(TypeError, match="got a set in 'measures/seen'"):
        dumps({"measures": {"seen": {1, 2}}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"must not begin with '\$'"):
        dumps({"$float": "inf"})
    with pytest.raises(TypeError, match="keys must be strings, got 1 in 'a/0'"):
        dumps({"a": [{1: 2}]})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="NaN"):
        loads('{"score": NaN}')


def read(reader: JournalReader) -> list[Entry]:
    return [entry for entries in reader.read() for entry in entries]


def test_what_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(RecursionError):
        dumps({"a": value})


def test_a_line_is_json_of_its_own_with_the_crc_of_its_record() -> None:
    line = encode_line(4, 17, "evaluation", "é", '{"score":1.5}')
    record = b'{"line":4,"time":17,"kind":"evaluation","key":"\\u00e9","value":{"score":1.5}}'
    assert line == b'{"sum":"%08x","record":%s}\n' % (zlib.crc32(record), record)
    entry = decode_line(line[:-1], "w")
    assert (*entry[:3], entry.value) == ((17, "w", 4), "evaluation", "é", {"score": 1.5})


@pytest.mark.parametrize(
    "change", [(b'"key":"a"', b'"key":"\\u0061"'), (b"}}", b'},"since":2}'), (b'{"line"', b'{ "line"')]
)
def test_a_record_that_another_program_wrote_reads_the_same(change: tuple[bytes, bytes]) -> None:
    # Escapes, fields that we do not know, and spaces: whatever is the same JSON.
    line = encode_line(4, 17, "evaluation", "a", '{"score":1.5}')
    record = line[len('{"sum":"00000000","record":') : -2].replace(*change)
    entry = decode_line(b'{"sum":"%08x","record":%s}' % (zlib.crc32(record), record), "w")
    assert (*entry[:3], entry.value) == ((17, "w", 4), "evaluation", "a", {"score": 1.5})


def test_a_line_longer_than_what_is_read_at_once_is_whole(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, durable=False)
    texts = ["x" * length for length in (10, 200_000, 2**16, 3)]
    writer.append("evaluation", [(str(i), {"text": text}) for i, text in enumerate(texts)], 1)
    reader = JournalReader(tmp_path)
    assert [entry.value for entry in read(reader)] == [{"text": text} for text in texts]
    assert reader.problems() == []


def test_no_flipped_bit_and_no_cut_line_passes_for_a_record() -> None:
    line = encode_line(0, 1, "evaluation", "a", '{"score":1.5}')[:-1]
    for place in range(len(line)):
        for bit in range(8):
            flipped = line[:place] + bytes([line[place] ^ (1 << bit)]) + line[place + 1 :]
            with pytest.raises(ValueError, match="checksum"):
                decode_line(flipped, "w")
        with pytest.raises(ValueError, match="checksum"):
            decode_line(line[:place], "w")


def _written(folder: Path, count: int) -> Path:
    writer = JournalWriter(folder, durable=False)
    for i in range(count):
        writer.append("evaluation", [(f"k{i}", {"score": float(i)})], i)
    writer.close()
    (path,) = folder.iterdir()
    return path


def test_a_reader_reads_only_what_was_appended(tmp_path: Path) -> None:
    writer, reader = JournalWriter(tmp_path / "journals", durable=True), JournalReader(tmp_path / "journals")
    assert read(reader) == []
    writer.append("evaluation", [("a", {"score": 1.0}), ("b", {"score": 2.0})], 5)
    assert [(entry.key, entry.stamp.time_ns, entry.stamp.line) for entry in read(reader)] == [("a", 5, 0), ("b", 6, 1)]
    writer.append("evaluation", [("a", None)], 9)
    assert [(entry.key, entry.value, entry.stamp.line) for entry in read(reader)] == [("a", None, 2)]
    assert read(reader) == []
    assert reader.problems() == []


def test_a_torn_last_line_is_left_out_and_named_and_costs_no_other(tmp_path: Path) -> None:
    path = _written(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:-7])
    reader = JournalReader(tmp_path)
    assert [entry.key for entry in read(reader)] == ["k0", "k1"]
    assert reader.problems() == []  # it matters to nobody
    (note,) = reader.notes()
    assert "unfinished line" in note
    assert path.name in note


def test_a_torn_line_that_is_completed_later_counts_then(tmp_path: Path) -> None:
    path = _written(tmp_path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])  # what a reader on another machine may see of a line that is being written
    reader = JournalReader(tmp_path)
    assert [entry.key for entry in read(reader)] == ["k0"]
    path.write_bytes(whole)
    assert [entry.key for entry in read(reader)] == ["k1"]
    assert reader.problems() == reader.notes() == []


def raw_line(record: bytes) -> bytes:
    """A line that agrees with its checksum, whatever it says."""
    return b'{"sum":"%08x","record":%s}\n' % (zlib.crc32(record), record)


ODD = {
    "a list": b"[1]",
    "a number": b"3",
    "null": b"null",
    "no JSON": b"{",
    "nested too deep": b"[" * 100_000 + b"]" * 100_000,
    "a line that is a word": b'{"line":"a","time":1,"kind":"member","key":"x","value":{}}',
    "a time that is broken": b'{"line":0,"time":1.5,"kind":"member","key":"x","value":{}}',
    "a time before 1970": b'{"line":0,"time":-1,"kind":"member","key":"x","value":{}}',
    "a time of 5,000 digits": b'{"line":0,"time":' + b"9" * 5000 + b',"kind":"member","key":"x","value":{}}',
    "a time that is true": b'{"line":0,"time":true,"kind":"member","key":"x","value":{}}',
    "a kind that is a list": b'{"line":0,"time":1,"kind":[],"key":"x","value":{}}',
    "a key that is a number": b'{"line":0,"time":1,"kind":"member","key":3,"value":{}}',
    "no value": b'{"line":0,"time":1,"kind":"member","key":"x"}',
    "a key twice removed": b'{"line":0,"time":1,"kind":{"x":1},"key":"x","removed":true}',
}


@pytest.mark.parametrize("record", ODD.values(), ids=ODD)
def test_a_whole_line_that_is_none_of_ours_is_damaged(tmp_path: Path, record: bytes) -> None:
    path = _written(tmp_path, 2)
    path.write_bytes(raw_line(record) + path.read_bytes())
    reader = JournalReader(tmp_path)
    assert [entry.key for entry in read(reader)] == ["k0", "k1"]
    assert f"journal {path.name}: 1 damaged lines left out, first line 1" in reader.problems()


ODD_VALUES = {
    "a list": b"[1]",
    "null": b"null",
    "nested too deep": b"[" * 100_000 + b"]" * 100_000,
    "nested deeper than ours": b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
    "no JSON": b"{,}",
    "a bare NaN": b'{"score":NaN}',
    "a float of ours that is a list": b'{"score":{"$float":[1]}}',
    "under a number": b'{"under":5}',
    "under words": b'{"under":["a","b"]}',
    "under a term of none": b'{"under":["a",0]}',
}


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
@pytest.mark.parametrize("kind", ["evaluation", "lease"])
def test_a_value_that_is_none_of_ours_counts_no_more_than_none(tmp_path: Path, kind: str, value: bytes) -> None:
    records = Records(tmp_path, durable=False)
    records.put("evaluation", {"a": {"status": "finished"}}, ("lease", 1))
    line = raw_line(b'{"line":0,"time":%d,"kind":"%s","key":"a","value":%s}' % (2**62, kind.encode(), value))
    (tmp_path / "other-1-00000000.jsonl").write_bytes(line)
    assert [each["status"] for each in records.all("evaluation").values()] == ["finished"]
    (problem,) = Records(tmp_path, durable=False).problems()
    assert problem.startswith(f"record {kind} a ")
    assert problem.endswith("; left out (line 1 of other-1-00000000.jsonl)")


def test_what_is_left_out_matters_no_more_once_it_was_written_anew(tmp_path: Path) -> None:
    records = Records(tmp_path, durable=False)
    line = raw_line(b'{"line":0,"time":%d,"kind":"evaluation","key":"a","value":[1]}' % 2**62)
    (tmp_path / "other-1-00000000.jsonl").write_bytes(line)
    assert (records.get("evaluation", "a"), len(records.problems()), records.notes()) == (None, 1, [])
    records.put("evaluation", {"a": {"status": "finished"}})
    assert records.problems() == []
    assert records.notes() == [
        "record evaluation a must be an object, got [1]; left out (line 1 of other-1-00000000.jsonl); "
        "a later one stands in its place"
    ]


@pytest.mark.parametrize("claim", ["{}", '{"lease":"a"}', '{"lease":{"a":1},"term":2}', '{"lease":"a","term":"z"}'])
def test_a_claim_that_says_nothing_makes_nothing_stale(tmp_path: Path, claim: str) -> None:
    records = Records(tmp_path, durable=False)
    records.put("evaluation", {"a": {"status": "finished"}}, ("a", 1))
    (tmp_path / "other-1-00000000.jsonl").write_bytes(encode_line(0, 5, "lease", "a.2", claim))
    assert records.get("evaluation", "a") is not None
    assert records.term("a") == 0
    (problem,) = records.problems()
    assert problem.startswith("record lease a.2 must have a lease and its term, got ")


def test_a_line_without_an_end_is_not_kept_and_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.journal_reader.LONGEST_LINE", 2**18)
    path = _written(tmp_path, 2)
    sound = path.read_bytes()
    path.write_bytes(sound + b"x" * 2**20)
    reader = JournalReader(tmp_path)
    assert [entry.key for entry in read(reader)] == ["k0", "k1"]
    (problem,) = reader.problems()
    assert f"journal {path.name}: ends in {2**20} bytes without a line end" in problem
    reads, pread = list[int](), os.pread
    monkeypatch.setattr(os, "pread", lambda *given: reads.append(1) or pread(*given))  # type: ignore[func-returns-value]
    assert (read(reader), reads) == ([], [])
    with path.open("ab") as end:  # the line ends, and others follow it
        end.write(b"x\n" + encode_line(3, 9, "evaluation", "k3", "{}"))
    assert [entry.key for entry in read(reader)] == ["k3"]
    assert reader.problems() == [f"journal {path.name}: 1 damaged lines left out, first line 3"]


def test_what_is_no_journal_is_not_read_and_named(tmp_path: Path) -> None:
    _written(tmp_path, 1)
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("gone")
    (tmp_path / "zeros.jsonl").symlink_to("/dev/zero")
    (tmp_path / "x.txt").write_text("mine")
    reader = JournalReader(tmp_path)
    assert [entry.key for entry in read(reader)] == ["k0"]
    found = sorted(reader.problems())
    assert [line.split(":")[0] for line in found] == [
        "journals/folder.jsonl", "journals/link.jsonl", "journals/pipe.jsonl", "journals/x.txt", "journals/zeros.jsonl"
    ]  # fmt: skip
    assert all(line.endswith("and is not read; remove it") for line in found)


def test_a_line_that_stands_there_twice_is_named_and_counts_once(tmp_path: Path) -> None:
    path = _written(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[2]]))
    records = Records(tmp_path, durable=False)
    assert set(records.all("evaluation")) == {"k0", "k1", "k2"}
    assert records.problems() == []
    assert records.notes() == [f"journal {path.name}: 1 lines stand there twice, and count once"]


def test_what_no_reader_would_take_is_refused_when_it_is_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.journal.LONGEST_LINE", 2**10)
    records = Records(
        tmp_path, durable=False, flaw=lambda kind, value: None if isinstance(value["score"], float) else "has no score"
    )
    records.put("evaluation", {"a": {"score": np.float32(0.5)}})
    with pytest.raises(ValueError, match="the evaluation b has no score"):
        records.put("evaluation", {"b": {"score": "high"}})
    with pytest.raises(ValueError, match="must be shorter than 512 bytes"):
        records.put("evaluation", {"c": {"score": 1.0, "text": "x" * 600}})
    assert set(records.all("evaluation")) == {"a"}


def test_a_flipped_byte_costs_one_line_which_is_counted(tmp_path: Path) -> None:
    path = _written(tmp_path, 5)
    path.write_bytes(path.read_bytes().replace(b'"score":2.0', b'"score":7.0'))
    reader = JournalReader(tmp_path)
    assert [entry.key for entry in read(reader)] == ["k0", "k1", "k3", "k4"]
    assert reader.problems() == [f"journal {path.name}: 1 damaged lines left out, first line 3"]


def test_missing_lines_are_counted_and_a_vanished_journal_is_named(tmp_path: Path) -> None:
    path = _written(tmp_path, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[3] + lines[4])
    reader = JournalReader(tmp_path)
    assert [entry.key for entry in read(reader)] == ["k0", "k3", "k4"]
    assert reader.problems() == [f"journal {path.name}: 2 lines are missing"]
    path.unlink()
    assert read(reader) == []
    assert reader.problems()[-1] == f"journal {path.name}: became shorter or was deleted after it was read"


def _full_disk(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    """The next write takes `taken` bytes, the one after it fails, and then there is room again."""
    write, calls = os.write, iter(range(10))

    def fake(descriptor: int, data: Any) -> int:
        match next(calls):
            case 0 if taken:
                return write(descriptor, bytes(data)[:taken])
            case 0 | 1:
                monkeypatch.setattr(os, "write", write)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise AssertionError("written to after it failed")

    monkeypatch.setattr(os, "write", fake)


@pytest.mark.parametrize("taken", [0, 30])
@pytest.mark.parametrize("can_cut", [True, False])
def test_a_full_disk_is_one_line_and_later_appends_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int, can_cut: bool
) -> None:
    records = Records(tmp_path / "journals", durable=False)
    records.put("evaluation", {"a": {"score": 1.0}})
    if not can_cut:

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "no")

        monkeypatch.setattr(os, "ftruncate", fail)
    _full_disk(monkeypatch, taken)
    with pytest.raises(StoreError, match="could not be written: No space left on device") as caught:
        records.put("evaluation", {"b": {"score": 2.0}})
    assert "\n" not in str(caught.value)
    records.put("evaluation", {"c": {"score": 3.0}})
    assert set(Records(tmp_path / "journals", durable=False).all("evaluation")) == {"a", "c"}
    # Where the torn line could not be cut off, it is the last of a journal that nobody appends to any more.
    assert records.problems() == []
    assert len(records.notes()) == (1 if taken and not can_cut else 0)
    assert len(list((tmp_path / "journals").iterdir())) == (1 if can_cut else 2)


def test_whole_lines_of_a_write_that_failed_half_way_stay_and_are_numbered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(tmp_path, durable=False)
    records.put("member", {"before": {"x": 0}})  # which is known without being read
    one = len(encode_line(0, time.time_ns(), "member", "a", '{"x":1}'))
    for whole, torn in ("ab", "cd"):
        _full_disk(monkeypatch, one + 5)  # the first of two lines and five bytes of the second
        with pytest.raises(StoreError):
            records.put("member", {whole: {"x": 1}, torn: {"x": 2}})
    records.put("member", {"e": {"x": 3}})
    assert set(records.all("member")) == {"before", "a", "c", "e"}
    assert records.problems() == []  # no gap, no torn line


def test_after_a_failed_fsync_the_journal_is_trusted_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path, durable=True)
    records.put("member", {"a": {"x": 1}})
    fsync = os.fsync

    def fail(_: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        records.put("member", {"b": {"x": 2}})
    records.put("member", {"c": {"x": 3}})
    assert {"a", "c"} <= set(records.all("member"))
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    records = Records(tmp_path / "journals", durable=False)
    with pytest.raises(TypeError, match="must be a mapping, got a list"):
        records.put("member", {"a": []})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="got a PosixPath in 'x'"):
        records.put("member", {"a": {"x": 1}, "b": {"x": tmp_path}})  # type: ignore[dict-item]
    assert not (tmp_path / "journals").exists()


def test_a_finished_result_is_replaced_only_by_another(tmp_path: Path) -> None:
    records = Records(tmp_path, durable=False)
    for status, score in [("failed", None), ("finished", 1.0), ("failed", None), ("finished", 2.0), ("stopped", None)]:
        records.put("evaluation", {"a": {"status": status, "score": score}})
    assert records.get("evaluation", "a") == {"status": "finished", "score": 2.0}


def test_a_removal_ends_what_is_earlier_and_a_later_put_counts_again(tmp_path: Path) -> None:
    records = Records(tmp_path, durable=False)
    records.put("evaluation", {"a": {"status": "finished"}})
    records.remove("evaluation", ["a"])
    assert records.get("evaluation", "a") is None
    records.put("evaluation", {"a": {"status": "failed"}})
    assert Records(tmp_path, durable=False).all("evaluation") == {"a": {"status": "failed"}}


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 5))
def test_all_readers_agree_in_whatever_order_they_read(order: list[int], removed: int) -> None:
    # The records of six writers at times 0..5, one of them a removal, met in any order: the later finished one counts.
    from sweeps.journal import Stamp
    from sweeps.records import _Versions

    statuses = ["failed", "finished", "stopped", "finished", "failed", "failed"]
    values = [f'"value":{{"status":"{status}","i":{i}}}}}'.encode() for i, status in enumerate(statuses)]
    entries = [
        Entry(Stamp(i, f"w{i}", 0), "evaluation", "a", None if i == removed else value)
        for i, value in enumerate(values)
    ]
    versions = _Versions()
    for i in order:
        versions.add(entries[i].stamp, entries[i].value)
    later = [i for i in range(removed + 1, 6) if i != removed]
    finished = [i for i in later if statuses[i] == "finished"]
    expected = max(finished or later, default=None)
    found = versions.current({})
    assert (found and found[1]["i"]) == expected


def test_a_value_is_decoded_when_it_is_asked_for_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A worker reads what all the others have recorded, and asks for little of it.
    Records(tmp_path, durable=False).put("evaluation", {key: {"score": 1.0} for key in "abc"})
    decoded: list[bytes] = []

    def count(text: bytes) -> Any:
        decoded.append(text)
        return loads(text)

    monkeypatch.setattr("sweeps.journal.loads", count)
    records = Records(tmp_path, durable=False)
    assert records.get("evaluation", "d") is None
    assert len(decoded) == 0
    assert records.get("evaluation", "b") == records.get("evaluation", "b") == {"score": 1.0}
    assert len(decoded) == 1
    assert set(records.all("evaluation")) == set("abc")
    assert len(decoded) == 3


def test_what_was_read_can_be_replaced_by_a_writer_whose_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Records(tmp_path, durable=False), Records(tmp_path, durable=False)
    there.put("sweep", {"a": {"x": 1}})
    assert here.get("sweep", "a") == {"x": 1}
    monkeypatch.setattr(time, "time_ns", lambda: 12345)  # 1970
    here.put("sweep", {"a": {"x": 2}})
    assert there.get("sweep", "a") == {"x": 2}


def test_a_snapshot_is_left_alone_by_later_changes_and_shared_while_there_are_none(tmp_path: Path) -> None:
    records = Records(tmp_path, durable=False)
    records.put("sweep", {"a": {"x": 1}})
    before = records.all("sweep")
    assert records.all("sweep") is before
    records.put("sweep", {"b": {"x": 2}})
    assert (set(before), set(records.all("sweep"))) == ({"a"}, {"a", "b"})


def _put_many(folder: str, name: str, count: int) -> None:
    records = Records(Path(folder), durable=False)
    for i in range(count):
        records.put("evaluation", {f"{name}-{i}": {"score": float(i), "text": name * 50}, "shared": {"by": name}})


def test_four_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    writers = [SPAWN.Process(target=_put_many, args=(str(tmp_path), f"p{n}", 300)) for n in range(4)]
    for writer in writers:
        writer.start()
    reader = Records(tmp_path, durable=False)
    while any(writer.is_alive() for writer in writers):
        reader.all("evaluation")  # reading all the while must not disturb them
        time.sleep(0.01)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    afresh = Records(tmp_path, durable=False).all("evaluation")
    assert set(afresh) == {f"p{n}-{i}" for n in range(4) for i in range(300)} | {"shared"}
    assert reader.all("evaluation") == afresh
    assert reader.problems() == []


def _put_for_ever(folder: str) -> None:
    records = Records(Path(folder), durable=False)
    i = 0
    while True:
        records.put("evaluation", {f"k{i}": {"text": "x" * 20_000}})
        i += 1


def test_a_process_killed_while_it_puts_costs_at_most_its_last_line(tmp_path: Path) -> None:
    reader = Records(tmp_path, durable=False)
    for round_ in range(2):
        process = SPAWN.Process(target=_put_for_ever, args=(str(tmp_path),))
        process.start()
        enough = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) <= round_ or len(reader.all("evaluation")) < 20:
            assert time.monotonic() < enough
            time.sleep(0.01)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    found = Records(tmp_path, durable=False)
    seen = found.all("evaluation")
    assert set(reader.all("evaluation")) == set(seen)
    assert set(seen) == {f"k{i}" for i in range(len(seen))}  # each journal is whole up to where it ends
    assert found.problems() == []
    assert all("unfinished line" in note for note in found.notes())


def test_a_fork_begins_a_journal_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path, durable=False)
    records.put("sweep", {"a": {"x": 1}})
    monkeypatch.setattr(os, "getpid", lambda: 4242)  # what a forked child finds
    records.put("sweep", {"b": {"x": 1}})
    assert len(list(tmp_path.iterdir())) == 2
    assert set(records.all("sweep")) == {"a", "b"}
