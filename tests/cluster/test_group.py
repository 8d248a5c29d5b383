"""The same training loop, alone in this process; and what ranks make of their metrics together."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.group import Group, GroupResult, Report, check_metrics, combine, run_here


def count_to(last: int, group: Group) -> None:
    """Count on from the restored number, and store each one."""
    restored = group.restore_folder()
    first = 1 if restored is None else int((restored / "count").read_text()) + 1
    scratch = Path(SCRATCH[0])
    for number in range(first, last + 1):
        (scratch / "count").write_text(str(number))
        group.report({"count": number}, scratch)


SCRATCH: list[str] = []


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> None:
    SCRATCH[:] = [str(tmp_path_factory.mktemp("scratch"))]


def test_a_loop_run_here_resumes_from_the_last_folder_and_keeps_only_that(tmp_path: Path) -> None:
    heard: list[Report] = []
    run_here(count_to, 2, storage=tmp_path, name="counting")
    result = run_here(count_to, 4, storage=tmp_path, name="counting", on_report=heard.append)
    assert [report.metrics["count"] for report in heard] == [3.0, 4.0]
    assert result.status == "finished"
    assert result.folder is not None
    assert (result.folder / "count").read_text() == "4"
    assert list((tmp_path / "counting").iterdir()) == [result.folder]


def test_a_copy_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    run_here(count_to, 2, storage=tmp_path, name="counting")
    (tmp_path / "counting" / "unfinished").mkdir()
    result = run_here(count_to, 3, storage=tmp_path, name="counting")
    assert result.folder is not None
    assert (result.folder / "count").read_text() == "3"


def test_the_loops_error_is_a_fault_and_the_callers_error_its_own(tmp_path: Path) -> None:
    def fail(config: None, group: Group) -> None:
        group.report({"loss": 1.0})
        raise ZeroDivisionError("no batch")

    def refuse(report: Report) -> None:
        raise LookupError("no such study")

    result = run_here(fail, None, storage=tmp_path, name="failing")
    assert str(result.fault) == "program: ZeroDivisionError: no batch"
    assert result.metrics == {"loss": 1.0}
    with pytest.raises(LookupError, match="no such study"):
        run_here(fail, None, storage=tmp_path, name="failing", on_report=refuse)


def test_metrics_are_averaged_over_ranks_and_equal_ones_keep_every_digit() -> None:
    assert combine([{"loss": 1.0, "step": 7.0}, {"loss": 2.0, "step": 7.0}]) == {"loss": 1.5, "step": 7.0}
    assert combine([{"loss": 0.1}] * 3) == {"loss": 0.1}


def test_ranks_must_report_the_same_names() -> None:
    with pytest.raises(ValueError, match=r"got \['accuracy'\] on rank 1 and \['loss'\] on rank 0"):
        combine([{"loss": 1.0}, {"accuracy": 1.0}])


@pytest.mark.parametrize("value", [True, "0.5", None, [1.0]])
def test_only_plain_numbers_are_metrics(value: object) -> None:
    with pytest.raises(TypeError, match="a metric must be a plain float, got loss of type"):
        check_metrics({"loss": value})  # type: ignore[dict-item]


def test_a_result_cannot_finish_with_a_fault_nor_fail_without_one() -> None:
    with pytest.raises(ValueError, match="has a fault exactly if it failed"):
        GroupResult("failed", {}, None, None, (), 1.0)
