"""The watchdog, without a cluster: it only needs time to pass."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time

import pytest

from cluster.watchdog import StuckError, Watchdog

pytestmark = pytest.mark.timeout(150)


def test_silence_ends_the_block_and_names_what_is_stuck() -> None:
    start = time.monotonic()
    with (
        pytest.raises(StuckError, match="nothing was reported for 0 s: 1 x task train"),
        Watchdog(0.2, lambda: "1 x task train", check_seconds=0.05),
    ):
        time.sleep(90)
    assert time.monotonic() - start < 80  # it did not sleep to its end, however slow the machine is


def test_silence_is_an_error_even_where_the_interrupt_was_swallowed() -> None:
    with (
        pytest.raises(StuckError),
        Watchdog(0.2, lambda: "", check_seconds=0.05),
        contextlib.suppress(KeyboardInterrupt),  # as Ray Tune's fit does
    ):
        time.sleep(20)


def test_a_handler_that_takes_the_first_interrupt_for_itself_is_asked_again() -> None:
    def swallow(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGINT, swallow)
    start = time.monotonic()
    try:
        with pytest.raises(StuckError), Watchdog(0.2, lambda: "", check_seconds=0.05):
            time.sleep(90)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 80


def test_a_program_that_ignores_interrupts_is_interrupted_all_the_same() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does with what it starts in the background
    start = time.monotonic()
    try:
        with pytest.raises(StuckError), Watchdog(0.2, lambda: "", check_seconds=0.05):
            time.sleep(90)
        assert time.monotonic() - start < 80
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_progress_keeps_it_quiet() -> None:
    with Watchdog(0.6, lambda: "stuck", check_seconds=0.05) as watchdog:
        for _ in range(10):
            time.sleep(0.1)
            watchdog.progress()


def test_it_tends_while_it_watches_and_survives_errors_of_what_it_calls() -> None:
    tended = []

    def tend() -> None:
        tended.append(1)
        raise OSError("the cluster does not answer")

    def describe() -> str:
        raise OSError("nor now")

    with pytest.raises(StuckError, match="OSError: nor now"), Watchdog(0.2, describe, tend=tend, check_seconds=0.05):
        time.sleep(20)
    assert len(tended) > 1


def test_what_is_hopeless_ends_long_before_the_time_is_up() -> None:
    with (
        pytest.raises(StuckError, match=r"^no node is alive$"),
        Watchdog(300, lambda: "", hopeless=lambda: "no node is alive", hopeless_seconds=0.2, check_seconds=0.05),
    ):
        time.sleep(60)


def test_what_was_hopeless_for_a_moment_goes_on() -> None:
    answers = itertools.cycle(["no node is alive", "no node is alive", None])
    with Watchdog(300, lambda: "", hopeless=lambda: next(answers), hopeless_seconds=0.3, check_seconds=0.02):
        time.sleep(0.8)


def test_a_block_that_ends_while_it_is_being_described_was_not_stuck() -> None:
    asked = threading.Event()

    def describe() -> str:
        asked.set()
        time.sleep(0.5)
        return "stuck"

    with Watchdog(0.1, describe, check_seconds=0.05):
        assert asked.wait(10)


def test_the_blocks_own_error_is_not_replaced() -> None:
    with pytest.raises(ZeroDivisionError), Watchdog(5, lambda: "stuck"):
        raise ZeroDivisionError


def test_only_the_main_thread_can_be_watched() -> None:
    caught = []

    def enter() -> None:
        with pytest.raises(RuntimeError, match="must be entered in the main thread") as refused:
            Watchdog(1, lambda: "").__enter__()
        caught.append(refused)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_times_must_be_positive() -> None:
    with pytest.raises(ValueError, match="times must be positive, got 0 s"):
        Watchdog(0, lambda: "")
