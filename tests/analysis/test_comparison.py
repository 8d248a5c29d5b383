from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from analysis.cells import cells_of
from analysis.comparison import cell_at, chosen_on_tune, compare, compare_chosen, compare_fixed, comparison_markdown
from analysis.runs import RunTable

Make = Callable[..., Any]


def test_the_cell_is_chosen_on_the_tune_scenes_not_on_the_report_scenes(run: Make, make_table: Make) -> None:
    table = make_table(
        run("ilql", [-9.0], {"train.tau": 0.7}, tune_score=-1.0),
        run("ilql", [-1.0], {"train.tau": 0.8}, tune_score=-2.0),
    )
    assert chosen_on_tune(cells_of(table), "ilql").hyperparameters == {"train.tau": 0.7}


def test_tune_scores_are_averaged_over_seeds_before_choosing(run: Make, make_table: Make) -> None:
    scores = {0.7: (-1.0, -9.0), 0.8: (-3.0, -3.0)}  # means −5 and −3
    runs = [
        run("ilql", [0.0], {"train.tau": t}, seed=s, tune_score=x) for t, xs in scores.items() for s, x in enumerate(xs)
    ]
    assert chosen_on_tune(cells_of(make_table(*runs)), "ilql").hyperparameters == {"train.tau": 0.8}


def test_a_single_lucky_seed_does_not_win_against_means(run: Make, make_table: Make) -> None:
    runs = [run("ilql", [0.0], {"train.tau": 0.7}, seed=seed, tune_score=-3.0) for seed in (0, 1)]
    lucky = run("ilql", [0.0], {"train.tau": 0.8}, tune_score=-1.0, origin="refinement")
    assert chosen_on_tune(cells_of(make_table(*runs, lucky)), "ilql").hyperparameters == {"train.tau": 0.7}


def test_choosing_without_tune_scores_is_refused(run: Make, make_table: Make) -> None:
    with pytest.raises(ValueError, match="choosing a cell of 'bc' needs tune scores"):
        chosen_on_tune(cells_of(make_table(run("bc", [1.0]))), "bc")


def test_a_method_without_finished_runs_is_refused(run: Make, make_table: Make) -> None:
    cells = cells_of(make_table(run("bc", [1.0]), run("ilql", status="failed")))
    with pytest.raises(ValueError, match="needs a finished run of 'ilql'; finished: bc"):
        chosen_on_tune(cells, "ilql")


def test_a_fixed_cell_is_found_by_its_values_design_first(run: Make, make_table: Make) -> None:
    setting = {"train.tau": 0.8, "decode.beta": 8.0}
    table = make_table(
        run("ilql", [1.0], {**setting, "train.gamma": 0.99}),
        run("ilql", [2.0], {**setting, "train.gamma": 0.98}, origin="refinement"),
        run("ilql", [3.0], {**setting, "decode.beta": 4.0, "train.gamma": 0.99}),
    )
    assert cell_at(cells_of(table), "ilql", {"train.tau": 0.8, "decode.beta": 8}).seed_scores == (1.0,)
    with pytest.raises(ValueError, match=r"must have τ|must have train.tau = 0.8, got 2"):
        cell_at(cells_of(table), "ilql", {"train.tau": 0.8})


def test_a_difference_is_paired_on_the_episodes_both_have_played(run: Make, make_table: Make) -> None:
    # First on episodes 0-3, second on 1-4. Common 1, 2, 3: differences 3−1, 5−2, 6−3 = 2, 3, 3.
    # Mean 8/3, sample variance 1/3, s.e. √(1/9) = 1/3, ratio 8.
    table = make_table(run("ilql", [0.0, 3.0, 5.0, 6.0]), run("bc", [1.0, 2.0, 3.0, 9.0], first_episode=1))
    cells = cells_of(table)
    found = compare(cells, cells[0], cells[1])
    assert found.score.value == pytest.approx(8 / 3)
    assert found.score.over_episodes == pytest.approx(1 / 3)
    assert found.ratio == pytest.approx(8.0)
    assert found.ratio_with_seeds is None  # one seed
    assert found.first.score.value == pytest.approx(14 / 3)  # its mean over the common episodes, not over all


def test_a_difference_over_seeds_has_the_larger_error(run: Make, make_table: Make) -> None:
    # Seed variance 2 on each side as in test_estimators, differences 1 and 3: value 2, s.e. 1, with seeds √5.
    table = make_table(
        *(run("ilql", returns, seed=seed) for seed, returns in enumerate(([0.0, 2.0], [4.0, 4.0]))),
        *(run("bc", returns, seed=seed) for seed, returns in enumerate(([-1.0, -1.0], [3.0, 1.0]))),
    )
    cells = cells_of(table)
    found = compare(cells, cells[0], cells[1])
    assert found.ratio == pytest.approx(2.0)
    assert found.ratio_with_seeds == pytest.approx(2 / math.sqrt(5))


def test_lengths_and_diagnostics_stand_beside_the_score(run: Make, make_table: Make) -> None:
    table = make_table(
        run("ilql", [1.0, 2.0], turns=[2, 4], measures={"measure.broken_share": 0.06, "measure.final_rank": 12.0}),
        run("bc", [0.0, 0.0], turns=[6, 6], measures={"measure.broken_share": 0.01, "measure.final_rank": 30.0}),
    )
    cells = cells_of(table)
    found = compare(cells, cells[0], cells[1])
    assert (found.first.turns.value, found.turns.value) == (3.0, -3.0)
    assert found.turns.over_episodes == pytest.approx(1.0)
    text = comparison_markdown(found)
    assert "| 3.00 ± 1.00 | 6.00 ± 0.00 | −3.00 ± 1.00 |" in " ".join(text.split())
    assert "| broken utterances | 6.0 % | 1.0 % | 5.0 points |" in " ".join(text.split())
    assert "| final rank of the true scene | 12.00 | 30.00 | −18.00 |" in " ".join(text.split())


def test_the_sentence_has_interval_runs_and_failures(run: Make, make_table: Make) -> None:
    # Differences 1 and 3: mean 2, s.e. 1.
    table = make_table(run("ilql", [1.0, 3.0]), run("bc", [0.0, 0.0]), run("bc", seed=1, status="failed"))
    cells = cells_of(table)
    assert compare(cells, cells[0], cells[1]).sentence == (
        "ILQL minus BC: +2.00 (± 1.00 s.e. over 2 scenes; 2.0 times the standard error), paired on 2 episodes, 2 runs; "
        "of the two methods' runs 1 failed and 0 stopped."
    )


def test_other_scenes_under_equal_seeds_are_refused(run: Make, make_table: Make) -> None:
    cells = cells_of(make_table(run("ilql", [1.0], scenes=["a"]), run("bc", [0.0], scenes=["b"])))
    with pytest.raises(ValueError, match="equal episode seeds must mean equal scenes"):
        compare(cells, cells[0], cells[1])


def test_cells_without_common_episodes_are_refused(run: Make, make_table: Make) -> None:
    cells = cells_of(make_table(run("ilql", [1.0]), run("bc", [0.0], first_episode=5)))
    with pytest.raises(ValueError, match="needs common episodes"):
        compare(cells, cells[0], cells[1])


def test_a_cell_is_not_compared_with_itself(run: Make, make_table: Make) -> None:
    cells = cells_of(make_table(run("ilql", [1.0])))
    with pytest.raises(ValueError, match="between two cells"):
        compare(cells, cells[0], cells[0])


def test_methods_are_compared_at_the_chosen_and_at_the_fixed_cell(sweep: RunTable) -> None:
    cells = cells_of(sweep)
    chosen = compare_chosen(cells, "ilql", "bc")
    fixed = compare_fixed(cells, "ilql", "bc", {"train.tau": 0.7, "decode.beta": 4.0})
    assert (chosen.first.chosen, chosen.second.chosen) == ("best on the tune scenes",) * 2
    assert (fixed.first.chosen, fixed.first.setting) == ("fixed beforehand", "τ 0.7, γ 0.99, β 4")
    assert fixed.second.chosen == "best on the tune scenes"  # cloning has no τ that could be fixed
    assert chosen.ratio_with_seeds is None  # ILQL's cell was chosen with the seeds that are compared
    assert fixed.ratio_with_seeds is not None
    assert fixed.ratio_with_seeds > 2
    assert len(chosen.first.seeds) == 3


class TestFixedBaselines:
    """ILQL is held against CQL, each of which has cells at β 4 and at β 8."""

    @pytest.fixture
    def runs(self, run: Make) -> dict[tuple[str, float], Any]:
        scores = {("ilql", 4.0): 3.0, ("ilql", 8.0): 2.0, ("cql", 4.0): 1.0, ("cql", 8.0): 1.5}
        return {
            (method, beta): run(method, [score, score], {"decode.beta": beta})
            for (method, beta), score in scores.items()
        }

    def test_both_stand_at_the_same_values(self, runs: dict[Any, Any], make_table: Make) -> None:
        cells = cells_of(make_table(*runs.values()))
        assert compare_fixed(cells, "ilql", "cql", {"decode.beta": 4.0}).score.value == pytest.approx(3.0 - 1.0)

    def test_the_baseline_may_be_fixed_elsewhere(self, runs: dict[Any, Any], make_table: Make) -> None:
        cells = cells_of(make_table(*runs.values()))
        found = compare_fixed(cells, "ilql", "cql", {"decode.beta": 4.0}, baseline_fixed={"decode.beta": 8.0})
        assert found.score.value == pytest.approx(3.0 - 1.5)
        assert found.second.chosen == "fixed beforehand"

    def test_a_baseline_that_failed_there_is_not_replaced(
        self, runs: dict[Any, Any], run: Make, make_table: Make
    ) -> None:
        runs["cql", 4.0] = run("cql", setting={"decode.beta": 4.0}, status="failed")
        cells = cells_of(make_table(*runs.values()))
        with pytest.raises(ValueError, match=r"exactly one finished cell of 'cql' must have decode\.beta = 4, got 0"):
            compare_fixed(cells, "ilql", "cql", {"decode.beta": 4.0})
