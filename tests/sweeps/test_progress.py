"""What a sweep says while it runs."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from sweeps.progress import Progress

if TYPE_CHECKING:
    from conftest import Bench


@pytest.fixture
def schedule() -> Any:
    """A sweep of four jobs, of which one runs."""
    return SimpleNamespace(finished_jobs=0, cached_jobs=0, wanted_jobs=4, running_names=["ilql-0a1b-0"])


def test_an_estimation_is_named_when_it_begins_and_once(bench: Bench, schedule: Any) -> None:
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    progress.told("ilql-0a1b-0", {"step": 3.0})  # the first line of all
    for _ in range(2):  # the tune and the report scenes, within ten seconds
        progress.told("ilql-0a1b-0", {"episodes": 8.0})
        progress.told("ilql-0a1b-0", {"estimating": 0.0})
    first, second = out.getvalue().splitlines()
    assert first.endswith("running ilql at step 3")
    assert second.endswith("running ilql being estimated from recorded dialogues")


def test_after_an_estimation_episodes_are_told_again(
    bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.progress.INTERVAL_SECONDS", 0.0)
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    progress.told("ilql-0a1b-0", {"estimating": 40.0})
    assert out.getvalue().splitlines()[-1].endswith("running ilql being estimated from recorded dialogues, step 40")
    progress.told("ilql-0a1b-0", {"episodes": 8.0})
    assert out.getvalue().splitlines()[-1].endswith("running ilql evaluating, 8 episodes")


def test_a_job_that_draws_candidates_says_so_until_it_trains(
    bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.progress.INTERVAL_SECONDS", 0.0)
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    progress.told("chai-0a1b-0", {"dialogues_drawn": 7.0})
    schedule.running_names = ["chai-0a1b-0"]
    progress.told("chai-0a1b-0", {"dialogues_drawn": 8.0})
    progress.told("chai-0a1b-0", {"step": 1.0})
    *_, drawing, training = out.getvalue().splitlines()
    assert drawing.endswith("running chai drawing candidates, 8 dialogues")
    assert training.endswith("running chai at step 1")


def test_a_job_of_which_nothing_is_heard_is_named(bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.progress.INTERVAL_SECONDS", 0.0)
    now = [1000.0]
    monkeypatch.setattr("sweeps.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    schedule.running_names = ["ilql-0a1b-0", "sarsa-0a1b-0"]
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    progress.told("ilql-0a1b-0", {"step": 3.0})
    now[0] += 720
    progress.told("sarsa-0a1b-0", {"step": 4.0})
    assert out.getvalue().splitlines()[-1].endswith("running ilql at step 3 (silent for 12 min), sarsa at step 4")


def test_where_no_job_says_anything_a_line_says_so_after_five_minutes_and_then_every_five(
    bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("sweeps.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    progress.told("ilql-0a1b-0", {"step": 3.0})
    printed = []
    for _ in range(130):  # every five seconds
        now[0] += 5
        before = len(out.getvalue().splitlines())
        progress.tick()
        printed += [now[0] - 1000] * (len(out.getvalue().splitlines()) - before)
    assert printed == [300, 600]
    assert out.getvalue().splitlines()[-1].endswith("running ilql at step 3 (silent for 10 min)")


def test_time_that_passes_while_jobs_are_heard_of_is_no_reason_for_a_line(
    bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("sweeps.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("sweeps.progress.INTERVAL_SECONDS", 1e9)
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    for _ in range(100):
        now[0] += 250
        progress.told("ilql-0a1b-0", {"step": 3.0})
        progress.tick()
    assert out.getvalue() == ""


def test_jobs_that_were_asked_to_stop_and_have_not_are_named_now_and_then(
    bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("sweeps.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    progress.told("ilql-0a1b-0", {"step": 3.0})
    out.truncate(0)
    for _ in range(10):  # every five seconds, from the signal on
        progress.tick(stopping=True)
        now[0] += 5
    assert [line.lstrip("\0") for line in out.getvalue().splitlines()] == [
        "stopping; still running: ilql at step 3 (weights 0a1b, seed 0, silent for 20 s); once more stops at once",
        "stopping; still running: ilql at step 3 (weights 0a1b, seed 0, silent for 40 s); once more stops at once",
    ]


def test_what_is_begun_again_is_not_silent_from_before(
    bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("sweeps.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    progress = Progress(bench.store, "mine", schedule, io.StringIO())
    progress.told("ilql-0a1b-0", {"step": 3.0}, "process 12 of here")
    now[0] += 600
    progress.lost("ilql-0a1b-0", "its process died", 300.0)
    assert progress.running() == "running: ilql (weights 0a1b, seed 0, silent for 0 s)"


def test_of_many_jobs_that_run_the_most_silent_are_named(
    bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("sweeps.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    schedule.running_names = [f"component-ilql-0a1b-{seed}" for seed in range(10)]
    progress = Progress(bench.store, "mine", schedule, io.StringIO())
    for name in schedule.running_names:
        progress.told(name, {"step": 3.0})
        now[0] += 60
    said = progress.running()
    assert said.startswith("running: component-ilql at step 3 (weights 0a1b, seed 0, silent for 10 min), ")
    assert said.endswith("(weights 0a1b, seed 7, silent for 3 min), 2 more")
    schedule.running_names = ["psi-0a1b-3-rung"]
    assert progress.running() == "running: psi (to its rung) (weights 0a1b, seed 3, silent for 0 s)"
    schedule.running_names = []
    assert progress.running() == "no job runs"


@pytest.mark.parametrize(
    ("wait", "then"), [(20.0, "it is begun again in 20 s"), (0.0, "it is begun again at once"), (None, "it has failed")]
)
def test_what_a_lost_job_waits_is_one_line(bench: Bench, schedule: Any, wait: float | None, then: str) -> None:
    out = io.StringIO()
    Progress(bench.store, "mine", schedule, out).lost("ilql-0123abcd-0", "its process died", wait)
    assert out.getvalue() == f"ilql: its process died; {then}\n"


def test_who_waits_for_another_driver_says_so_until_it_works(
    bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.progress.INTERVAL_SECONDS", 0.0)
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    progress.told("ilql-0a1b-0", {"waiting": 1.0})
    progress.told("ilql-0a1b-0", {"step": 5.0})
    first, second = out.getvalue().splitlines()
    assert first.endswith("running ilql waiting for another driver, which is at it")
    assert second.endswith("running ilql at step 5")


def test_what_fails_is_told_once_with_its_reason_and_what_had_failed_before_is_not(
    bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(trial: str, reason: str) -> dict[str, Any]:
        return {"trial_id": trial, "arm": "ilql", "status": "failed", "reason": reason, "score": None}

    rows = [failed("a", "of old")]
    monkeypatch.setattr(bench.store, "rows", lambda sweep: rows)
    monkeypatch.setattr("sweeps.progress.INTERVAL_SECONDS", 0.0)
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    rows += [failed("b", "ValueError: no\nwhere"), failed("c", "out of memory"), failed("d", "out of memory")]
    progress.told("ilql-0a1b-0", {"step": 3.0})
    progress.told("ilql-0a1b-0", {"step": 4.0})
    assert [line for line in out.getvalue().splitlines() if line.startswith("failed")] == [
        "failed: ilql, 2 runs: out of memory",
        "failed: ilql, 1 run: ValueError: no",
    ]


def test_what_fails_again_is_told_again(bench: Bench, schedule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(trial: str, at: str) -> dict[str, Any]:
        return {"trial_id": trial, "arm": "ilql", "status": "failed", "reason": "diverged", "finished_at": at}

    rows = [failed("a", "2026-11-25T09:00:00Z"), failed("b", "2026-11-25T09:00:01Z")]
    monkeypatch.setattr(bench.store, "rows", lambda sweep: rows)
    monkeypatch.setattr("sweeps.progress.INTERVAL_SECONDS", 0.0)
    out = io.StringIO()
    progress = Progress(bench.store, "mine", schedule, out)
    for _ in range(2):
        progress.told("ilql-0a1b-0", {"step": 3.0})
    assert "failed" not in out.getvalue()
    rows[0] = failed("a", "2026-11-25T10:00:00Z")
    for _ in range(2):
        progress.told("ilql-0a1b-0", {"step": 4.0})
    assert [line for line in out.getvalue().splitlines() if "failed" in line] == ["failed: ilql, 1 run: diverged"]
