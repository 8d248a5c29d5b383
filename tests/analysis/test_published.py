"""The paper's table beside ours."""

from __future__ import annotations

import dataclasses

import pytest

from analysis.ablation import AblationRow, AblationTable
from analysis.estimators import rank_correlation
from analysis.published import VISUAL_DIALOGUE_YN, beside_published


def row(method: str, score: float | None, sigma: float | None = 0.5) -> AblationRow:
    error = None if score is None else 0.1
    return AblationRow(method, score, error, sigma, 3, 3, 0, 0, 0, (1, 1), None)


def table(*rows: AblationRow) -> AblationTable:
    return AblationTable(rows, "default", "visdial", "yn", "yn", "report", 8, 9, 0, 0, ("c0de",), ())


OURS = table(row("ilql", -7.0, 0.1), row("sarsa", -8.0, 0.3), row("bc", -9.0, None), row("chai", -1.0))


def test_methods_of_both_tables_stand_side_by_side() -> None:
    text = beside_published(OURS)
    assert text is not None
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "| ILQL | −7.00 ± 0.10 | −5.69 ± 0.13 | 0.10 | 0.42 |" in lines
    assert "| BC | −9.00 ± 0.10 | −10.85 ± 0.27 | – | – |" in lines
    assert "CHAI" not in text


def test_the_rank_correlation_counts_the_methods_both_have() -> None:
    text = beside_published(OURS)
    assert text is not None
    assert "max score 1.00 over 3 methods" in text  # both: ILQL, SARSA, BC
    assert "; σ" not in text  # BC has no σ, and two values always agree or disagree


def test_equal_scores_have_no_rank_correlation_with_the_papers() -> None:
    text = beside_published(table(row("ilql", -7.0), row("sarsa", -7.0), row("bc", -7.0)))
    assert text is not None
    assert "max score – (all the same) over 3 methods" in text


@pytest.mark.parametrize(
    "change", [{"task": "bandit"}, {"evaluation_reward": "standard"}, {"train_reward": "standard"}]
)
def test_another_question_is_not_compared(change: dict[str, str]) -> None:
    assert beside_published(dataclasses.replace(OURS, **change)) is None


def test_two_methods_are_too_few() -> None:
    assert beside_published(table(row("ilql", -7.0), row("bc", -9.0), row("cql", None))) is None


def test_the_papers_order_is_its_own() -> None:
    by_score = sorted(VISUAL_DIALOGUE_YN, key=lambda method: -VISUAL_DIALOGUE_YN[method].score)
    assert by_score[:3] == ["ilql", "awr", "sarsa"]
    assert by_score[-1] == "bc"


def test_rank_correlation_by_hand() -> None:
    # Ranks 0, 1, 2, 3 and 1, 0, 2, 3: d = 1, 1, 0, 0; 1 - 6 * 2 / (4 * 15) = 0.8.
    assert rank_correlation([1.0, 2.0, 3.0, 4.0], [20.0, 10.0, 30.0, 40.0]) == pytest.approx(0.8)
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    # Ties share their mean rank: 0.5, 0.5, 2 against 0, 1, 2 is 1.5 / sqrt(1.5 * 2).
    assert rank_correlation([1.0, 1.0, 3.0], [1.0, 2.0, 3.0]) == pytest.approx(1.5 / 3.0**0.5)
    assert rank_correlation([1.0, 1.0], [1.0, 2.0]) is None  # nothing is ranked: 0 would say that they disagree


@pytest.mark.parametrize("pair", [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_too_few_or_unpaired_values_are_refused(pair: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="two equally long lists of at least 2"):
        rank_correlation(*pair)
