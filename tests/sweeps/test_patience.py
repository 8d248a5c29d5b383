"""Work that hangs, fails or is ended: nobody waits for it, and what fails in a row is complained of once."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from sweeps import patience
from sweeps.patience import Patience


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def patient(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Patience:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    return Patience(said.append)


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    """Give what hanging work waits for; after the test none waits any longer."""
    event = threading.Event()
    yield event
    event.set()


def test_what_hangs_is_left_behind_and_what_comes_next_waits_for_it_in_vain(
    patient: Patience, said: list[str], let_go: threading.Event
) -> None:
    done: list[str] = []
    begin = time.monotonic()

    def hangs() -> None:
        let_go.wait()
        done.append("first")

    assert not patient.supervise(hangs, math.inf)
    assert not patient.supervise(lambda: done.append("too early"), math.inf)
    assert 2.0 <= time.monotonic() - begin < 20
    assert said == ["it did not take everything within 1 s"]
    let_go.set()
    assert patient.supervise(lambda: done.append("after it"), math.inf)
    assert done == ["first", "after it"]


def test_what_moves_is_waited_for_up_to_its_limit(patient: Patience, said: list[str]) -> None:
    def moving(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.05)
            patient.moved()

    assert patient.supervise(lambda: moving(2.0), math.inf)
    assert said == []
    ends: list[type[BaseException]] = []

    def ended() -> None:
        try:
            moving(60.0)
        except TimeoutError as error:
            ends.append(type(error))
            raise

    assert not patient.supervise(ended, 0.5)
    assert patient.supervise(lambda: None, math.inf)  # once the one before has moved, and so ended
    assert ends == [TimeoutError]
    assert len(said) == 1


def test_what_is_halted_ends_where_it_moves_and_nobody_complains(patient: Patience, said: list[str]) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.05)
                patient.moved()
        finally:
            ended.set()

    waiting = threading.Thread(target=patient.supervise, args=(work, math.inf))
    waiting.start()
    assert begun.wait(10)
    patient.halt()
    assert ended.wait(10)
    waiting.join(10)
    assert not waiting.is_alive()
    assert said == []


def test_of_failures_in_a_row_the_first_is_told_and_after_a_success_the_next(
    patient: Patience, said: list[str]
) -> None:
    def fails(*words: str) -> bool:
        def work() -> None:
            raise ConnectionError(*words)

        return patient.supervise(work, math.inf)

    assert not fails("it is gone\nand here is why")
    assert not fails("it is still gone")
    assert patient.supervise(lambda: None, math.inf)
    assert not fails()
    assert said == ["it is gone", "ConnectionError"]


def test_a_signal_ends_the_work_that_is_waited_for(patient: Patience, said: list[str]) -> None:
    ended = threading.Event()

    def work() -> None:
        time.sleep(0.2)  # until it is waited for
        signal.raise_signal(signal.SIGUSR1)
        try:
            while True:
                time.sleep(0.05)
                patient.moved()
        finally:
            ended.set()

    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            patient.supervise(work, math.inf)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended.wait(10)
    assert said == []
