"""Every malformed input of the corpus: one clear line, status 2, no traceback, no hang, a store that is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import bad_dialogues
import bad_imagining
import bad_reddit
import bad_visdial
import bad_wordle
import pytest
from faults import WRONG, Fault, Outcome, Place, Reader, assert_one_line, check, run, tree
from readers import READERS

pytestmark = pytest.mark.timeout(20, func_only=True)  # no hang

ROOT = Path(__file__).resolve().parents[2]

CASES = [(reader, fault) for reader in READERS for fault in reader.faults]


@pytest.mark.parametrize(("reader", "fault"), CASES, ids=[f"{r.name}: {f.name}" for r, f in CASES])
def test_a_fault_is_one_clear_line_and_touches_nothing(
    reader: Reader, fault: Fault, request: pytest.FixtureRequest
) -> None:
    place: Place = request.getfixturevalue("own_place" if reader.spoils_store else "place")
    arguments = fault.make(place)
    before = tree(place.store)
    check(fault, run(arguments))
    assert tree(place.store) == before


def test_the_corpus_is_as_large_as_it_is_said_to_be() -> None:
    for reader in READERS:
        classes = {fault.name for fault in reader.faults}
        assert len(classes) == len(reader.faults), f"{reader.name} has a class twice"
        assert len(classes) >= 10, f"{reader.name} has {len(classes)} classes"
        assert all(fault.says for fault in reader.faults), reader.name
    assert sum(len(reader.faults) for reader in READERS) >= 200


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_what_is_sound_is_taken(reader: Reader, own_place: Place) -> None:
    outcome = run(reader.sound(own_place))
    assert (outcome.status, outcome.err) == (0, "")


HANDFUL = (
    ("visdial, layout lines", "pipe"),
    ("dialogues, validate", "two dialogues"),
    ("words of the commands", "bytes that are no text in the store's name"),
    ("weights", "another shape"),
    ("the store", "flipped byte in a journal"),
)
"""Readers and faults that are given to a process of its own as well."""


def in_process(arguments: list[str], store: Path) -> Outcome:
    """`sweeps` in a process of its own, with a terminal's strict encoding."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from sweeps.cli import main; sys.exit(main())"
    environment = os.environ | {"SWEEPS_STORE": str(store), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(os.fsencode, arguments)],
        env=environment, cwd=store.parent, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=200,
    )  # fmt: skip
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("reader", "fault"), HANDFUL)
def test_a_process_of_its_own_says_the_same(reader: str, fault: str, own_place: Place) -> None:
    (found,) = [each for r in READERS if r.name == reader for each in r.faults if each.name == fault]
    arguments = list(found.make(own_place))
    before = tree(own_place.store)
    check(found, in_process(arguments, own_place.store))
    assert tree(own_place.store) == before


@pytest.mark.timeout(240)
def test_a_path_that_is_no_text_is_printed(own_place: Place) -> None:
    folder = own_place.store.with_name("\udcffstore")  # the byte 255
    own_place.store.rename(folder)
    outcome = in_process(["list", "--store", str(folder)], folder)
    assert (outcome.status, outcome.err) == (0, "")
    assert "\\udcffstore: 1 sweep" in outcome.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("d.jsonl", bad_visdial.read),
        ("r.json", bad_visdial.read_remote),
        ("w.txt", bad_wordle.read_words),
        ("c.csv", bad_reddit.read),
        ("c.parquet", bad_reddit.read),
        ("o.jsonl", bad_dialogues.read),
        ("o.jsonl", bad_dialogues.validate),
        ("t.txt", bad_imagining.imagine),
        ("o.jsonl", bad_imagining.hindsight),
    ],
)
def test_a_file_that_may_not_be_read_is_one_line(name: str, read: Callable[[str], Sequence[str]], place: Place) -> None:
    path = Path(place.write(name, "x"))
    path.chmod(0)
    outcome = run(read(str(path)))
    assert outcome.status == WRONG
    assert_one_line(outcome.err)
    assert name in outcome.err
