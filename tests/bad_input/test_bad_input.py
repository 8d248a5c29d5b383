"""Every malformed input of the corpus: one clear line, status 2, no traceback, no hang, a store that is as it was."""

from __future__ import annotations

import pytest
from faults import Fault, Place, Reader, check, run, tree
from readers import READERS

pytestmark = pytest.mark.timeout(20)  # no hang

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
