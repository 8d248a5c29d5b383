from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from analysis.cells import cells_of
from analysis.landscape import weights_key
from analysis.runs import RunTable
from analysis.selection import RungPair, constant_signals, correlations, scores_by_training, spearman
from analysis.selection_section import selection_section

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]


def test_the_interval_is_fishers_with_the_error_of_ranks() -> None:
    # Ranks 1 … 8 against 2 1 4 3 6 5 8 7: Σ d² = 8, ρ = 1 − 6·8/(8·63) = .905. z = 1.498, s.e. = √(1.409/5) = .531.
    pairs = [(float(i), float(j)) for i, j in zip(range(1, 9), (2, 1, 4, 3, 6, 5, 8, 7), strict=True)]
    found = spearman(pairs)
    assert found.value == pytest.approx(1 - 48 / 504)
    z, half = math.atanh(found.value), 1.959964 * math.sqrt((1 + found.value**2 / 2) / 5)
    assert (found.low, found.high) == (pytest.approx(math.tanh(z - half)), pytest.approx(math.tanh(z + half)))


def test_few_trainings_have_no_interval() -> None:
    assert spearman([(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]).why == "too few cells"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_is_no_certainty(sign: int) -> None:
    found = spearman([(float(i), float(sign * i)) for i in range(8)])
    assert found.value == pytest.approx(sign)
    assert found.low is not None
    assert found.high is not None
    inner = found.low if sign > 0 else -found.high
    assert 0.5 < inner < 1.0
    assert max(abs(found.low), abs(found.high)) == pytest.approx(1.0)


def test_a_training_is_scored_at_the_decoding_its_tune_scenes_choose(run: Make, make_table: MakeTable) -> None:
    table = make_table(
        run("ilql", [1.0, 1.0], {"train.tau": 0.7, "decode.beta": 1.0}, tune_score=5.0),
        run("ilql", [9.0, 9.0], {"train.tau": 0.7, "decode.beta": 2.0}, tune_score=4.0),
        run("ilql", [3.0, 3.0], {"train.tau": 0.9, "decode.beta": 1.0}, tune_score=1.0),
    )
    assert sorted(scores_by_training(cells_of(table), "ilql").values()) == [1.0, 3.0]


def test_a_signal_is_held_against_scores_training_by_training(run: Make, make_table: MakeTable) -> None:
    taus = [0.1 * i for i in range(1, 10)]
    cells = cells_of(make_table(*(run("ilql", [t, t], {"train.tau": t}) for t in taus)))
    falling = {weights_key(cell): -float(cell.hyperparameters["train.tau"]) for cell in cells}
    broken = falling | {weights_key(cells[0]): math.nan}
    found = correlations(cells, "ilql", {("loss", 1.0): falling, ("td", 1.0): broken})
    assert [(each.signal, round(each.correlation.value, 6), len(each.pairs)) for each in found] == [
        ("loss", -1.0, 9),
        ("td", -1.0, 8),
    ]
    assert found[0].decides


def test_what_is_the_same_everywhere_has_no_rank_correlation() -> None:
    with pytest.raises(ValueError, match=r"of values that differ, got 8 times 1\.0"):
        spearman([(1.0, float(i)) for i in range(8)])


def test_a_constant_signal_is_named_and_has_no_number(run: Make, make_table: MakeTable) -> None:
    cells = cells_of(make_table(*(run("ilql", [t, t], {"train.tau": t}) for t in map(float, range(1, 10)))))
    rising = {weights_key(cell): float(cell.hyperparameters["train.tau"]) for cell in cells}
    signals = {("loss", 1.0): rising, ("clipped", 0.5): dict.fromkeys(rising, 0.0)}
    assert [each.signal for each in correlations(cells, "ilql", signals)] == ["loss"]
    assert constant_signals(cells, "ilql", signals) == (("clipped", 0.5),)
    section = selection_section(cells, signals, ())
    assert section is not None
    assert (
        "No rank correlation, since the signal or the score is the same in all trainings: ILQL clipped, at 50 %."
        in section.text
    )
    assert any("taken for independent draws" in line for line in section.text)


def test_of_few_trainings_no_signal_is_called_the_strongest(run: Make, make_table: MakeTable) -> None:
    cells = cells_of(make_table(*(run("ilql", [t, t], {"train.tau": t}) for t in (1.0, 2.0, 3.0))))
    rising = {weights_key(cell): float(cell.hyperparameters["train.tau"]) for cell in cells}
    section = selection_section(cells, {("loss", 1.0): rising}, ())
    assert section is not None
    assert section.text[0] == (
        "Can a policy be chosen without playing it? This sweep cannot say: a rank correlation is read where a method "
        "has at least 8 trainings that differ in more than their seed, and the most that a method has here is 3. So "
        "few are ranked rightly by luck, by one or another of 1 signal."
    )
    assert not section.figures


def test_equal_scores_at_the_rung_are_refused_in_words() -> None:
    section = selection_section((), {}, [RungPair("ilql", 10, 1.0, float(i)) for i in range(9)])
    assert section is not None
    assert "– (all of them the same at the rung or at the end)" in section.text[0]
