"""The same training loop, alone in this process; and what ranks make of their metrics together."""

from __future__ import annotations

import pytest

from cluster.group import Group, Report, check_metrics, combine, run_here


def test_a_loop_run_here_is_heard_as_a_group_is() -> None:
    def count(last: int, group: Group) -> None:
        for number in range(1, last + 1):
            group.report({"count": number, "rank": group.rank})

    heard: list[Report] = []
    result = run_here(count, 2, on_report=heard.append)
    assert [report.metrics for report in heard] == [{"count": 1.0, "rank": 0.0}, {"count": 2.0, "rank": 0.0}]
    assert (result.metrics, result.fault) == ({"count": 2.0, "rank": 0.0}, None)


def test_the_loops_error_is_a_fault_and_the_callers_error_its_own() -> None:
    def fail(config: None, group: Group) -> None:
        group.report({"loss": 1.0})
        raise ZeroDivisionError("no batch")

    def refuse(report: Report) -> None:
        raise LookupError("no such study")

    result = run_here(fail, None)
    assert str(result.fault) == "program: ZeroDivisionError: no batch"
    assert result.metrics == {"loss": 1.0}
    with pytest.raises(LookupError, match="no such study"):
        run_here(fail, None, on_report=refuse)


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
