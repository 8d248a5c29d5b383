from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from analysis.ablation import AblationRow, AblationTable, ablation_table
from analysis.ablation_render import to_csv, to_json, to_latex, to_markdown
from analysis.cells import cells_of
from analysis.figure_data import beta_curves, heat_map, score_by_cell
from analysis.runs import RunTable

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]


def row(table: AblationTable, method: str) -> AblationRow:
    return next(row for row in table.rows if row.method == method)


@pytest.fixture
def small(run: Make, make_table: MakeTable) -> RunTable:
    """Two ILQL design cells with means −4 and −6, one refinement cell with −3, SARSA at −8, BC at −9."""
    return make_table(
        run("ilql", [-3.0, -5.0], {"train.tau": 0.7, "decode.beta": 4.0}, tune_score=-4.5),
        run("ilql", [-5.0, -7.0], {"train.tau": 0.7, "decode.beta": math.inf}),
        run("ilql", [-2.0, -4.0], {"train.tau": 0.75, "decode.beta": 4.0}, origin="refinement"),
        run("ilql", setting={"train.tau": 0.8, "decode.beta": 4.0}, origin="refinement", status="stopped"),
        run("ilql", setting={"train.tau": 0.9, "decode.beta": 4.0}, status="failed", reason="loss is not finite"),
        run("sarsa", [-8.0, -8.0], {"decode.beta": 4.0}),
        run("bc", [-8.0, -10.0]),
    )


def test_the_max_may_come_from_the_refinement_and_says_so(small: RunTable) -> None:
    ilql = row(ablation_table(small), "ilql")
    assert ilql.score == -3.0
    assert ilql.standard_error == pytest.approx(1.0)  # returns −2, −4: sd √2, over √2
    assert ilql.best is not None
    assert (ilql.best.origin, ilql.best.setting) == ("refinement", "τ 0.75, β 4")


def test_sigma_is_over_design_cells_only(small: RunTable) -> None:
    # Design means −4 and −6: population sd 1. With the refinement's −3 it would be 1.25.
    assert row(ablation_table(small), "ilql").sigma == pytest.approx(1.0)


def test_lost_runs_are_counted(small: RunTable) -> None:
    table = ablation_table(small)
    ilql = row(table, "ilql")
    assert (ilql.failed, ilql.stopped) == (1, 1)
    assert (ilql.design_cells, ilql.design_cells_wanted, ilql.refinement_cells) == (2, 3, 1)
    assert (table.finished, table.failed, table.stopped) == (5, 1, 1)
    assert "Failed and stopped runs are counted, and left out of max score and σ." in table.footnotes
    assert (
        "Design cells with a finished run: ILQL 2 of 3; the others are missing from max score and σ." in table.footnotes
    )


def test_replicates_of_a_cell_are_averaged_before_sigma_and_max(run: Make, make_table: MakeTable) -> None:
    keeps = [(0.1, 0, -1.0), (0.1, 1, -5.0), (0.2, 0, -4.0), (0.2, 1, -6.0)]  # cell means −3 and −5
    table = ablation_table(make_table(*(run("filtered_bc", [r], {"train.keep": k}, seed=s) for k, s, r in keeps)))
    assert (table.rows[0].score, table.rows[0].sigma, table.rows[0].seeds) == (-3.0, 1.0, (2, 2))
    assert table.rows[0].best is not None
    assert (table.rows[0].best.setting, table.rows[0].best.seeds) == ("kept 10 %", (0, 1))


def test_rows_stand_in_the_order_of_the_paper(small: RunTable) -> None:
    assert [row.method for row in ablation_table(small).rows] == ["ilql", "sarsa", "bc"]


def test_paper_style_counts_sarsa_as_ilql_and_keeps_its_row(small: RunTable) -> None:
    table = ablation_table(small, style="paper")
    # Means −4, −6, −8: mean −6, population variance 8/3.
    assert row(table, "ilql").sigma == pytest.approx(math.sqrt(8 / 3))
    assert (row(table, "ilql").design_cells, row(table, "sarsa").design_cells) == (3, 1)
    assert any(note.startswith("Paper style: SARSA is ILQL at τ = 0.5") for note in table.footnotes)
    assert "SARSA is ILQL at τ = 0.5; its cells count in its own row only." in ablation_table(small).footnotes


def test_ilql_without_the_language_model_is_one_cell_and_says_so(run: Make, make_table: MakeTable) -> None:
    setting = {"train.tau": 0.7, "decode.beta": math.inf}
    table = ablation_table(make_table(run("ilql_without_lm", [-4.0, -6.0], setting), run("bc", [-9.0])))
    assert (row(table, "ilql_without_lm").design_cells, row(table, "ilql_without_lm").sigma) == (1, None)
    assert (
        "ILQL without LM takes the token of highest Q, which β cannot change: the paper's three cells (β = 4, 8, 16) "
        "are replicas of one. Here they are one cell, counted once, so σ is a dash."
    ) in table.footnotes


def test_nothing_is_said_of_a_variant_without_a_row(small: RunTable) -> None:
    assert not any("without LM" in note for note in ablation_table(small).footnotes)


def test_paper_style_can_take_the_max_from_sarsa(run: Make, make_table: MakeTable) -> None:
    table = ablation_table(make_table(run("ilql", [-4.0]), run("sarsa", [-2.0])), style="paper")
    best = row(table, "ilql").best
    assert best is not None
    assert (row(table, "ilql").score, best.method) == (-2.0, "sarsa")


def test_an_empty_table_renders_with_dashes_and_says_so(make_table: MakeTable) -> None:
    text = to_markdown(ablation_table(make_table(), methods=["bc", "ilql"]))
    assert "Nothing has finished yet" in text
    assert re.search(r"\| ILQL +\| +– \| +– \| – +\| – ", text)


def test_an_estimate_that_is_not_believed_is_behind_all_that_are_and_marked_where_there_is_no_other(
    run: Make, make_table: MakeTable
) -> None:
    why = {"doubt": "0.0 dialogues bear on it"}
    runs = [
        run("ilql", [-1.0], {"decode.beta": 4.0}, columns=why),
        run("ilql", [-3.0], {"decode.beta": 8.0}, columns={"doubt": None}),
        run("filtered_bc", [0.0], {"train.keep": 0.1}, columns=why),
        run("filtered_bc", [-2.0], {"train.keep": 0.2}, columns=why),
    ]
    table = ablation_table(make_table(*runs))
    assert [(each.score, each.doubt, each.doubted) for each in table.rows] == [(-3.0, None, 1), (0.0, why["doubt"], 2)]
    scores = [line.split("|")[2].strip() for line in to_markdown(table).splitlines() if line.startswith(("| I", "| %"))]
    assert scores == ["−3.00 ± –", "0.00 ± – †"]
    assert ("† not believed, and the method has no cell that is: %BC (0.0 dialogues bear on it).") in table.footnotes
    assert any(note.endswith("however high: ILQL 1 of 2, %BC 2 of 2.") for note in table.footnotes)
    assert r"\dag{}" in to_latex(table)
    data = score_by_cell(cells_of(make_table(*runs)))
    assert [point.believed for point in data.points] == [False, True, False, False]
    assert "Hollow: an estimate that is not believed." in data.caption
    grid = cells_of(make_table(*(run("sarsa", [-1.0], {"decode.beta": b}, columns=why) for b in (4.0, 8.0))))
    assert beta_curves(grid).curves[0].believed == (False, False)
    assert "Hollow: an estimate" in beta_curves(grid).caption
    assert heat_map(grid).text[0][0].endswith(" †")
    assert "†: an estimate" in heat_map(grid).caption


def test_captions_and_times_of_estimates_speak_of_no_play(run: Make, make_table: MakeTable) -> None:
    setting = {"train.tau": 0.7, "decode.beta": 4.0}
    table = make_table(run("ilql", [-1.0], setting, columns={"evaluation.by": "fitted_q"}))
    cells = cells_of(table)
    drawn = [make(cells, estimated=True).caption for make in (score_by_cell, beta_curves, heat_map)]
    assert all(caption.startswith("Mean estimate ") for caption in drawn)
    assert "faint dots" not in drawn[0]  # of one seed there are none
    assert "Estimating took 5 s" in table.took()


def test_of_equal_cells_the_first_is_the_best(run: Make, make_table: MakeTable) -> None:
    runs = [run("ilql", [-1.0], {"decode.beta": beta}) for beta in (16.0, 4.0, 8.0)]
    best = ablation_table(make_table(*runs)).rows[0].best
    assert best is not None
    assert best.setting == "β 4"


def test_a_method_with_failures_only_keeps_its_row(run: Make, make_table: MakeTable) -> None:
    table = ablation_table(make_table(run("bc", status="failed", reason="node lost")))
    assert (table.rows[0].score, table.rows[0].failed, table.rows[0].best) == (None, 1, None)
    assert json.loads(to_json(table))["rows"][0]["best"] is None
    # What has failed is not still to come.
    assert table.footnotes[0] == "Nothing has finished: a dash stands where there is no number."


def test_cells_that_cannot_be_chosen_are_counted(run: Make, make_table: MakeTable) -> None:
    runs = [run("ilql", [1.0], {"decode.beta": b}, tune_score=t) for b, t in ((4.0, None), (8.0, 2.0), (16.0, 3.0))]
    said = [note for note in ablation_table(make_table(*runs)).footnotes if "tune scenes" in note]
    assert len(said) == 1
    assert ": 1 finished cell." in said[0]
    assert not any("tune scenes" in note for note in ablation_table(make_table(*runs[1:])).footnotes)


def test_footnotes_tell_what_a_reader_must_know(run: Make, make_table: MakeTable) -> None:
    table = make_table(
        run("ilql", [1.0, 2.0], {"train.tau": 0.7}, scenes=["a", "a"]),
        run("ilql", [1.0, 2.0], {"train.tau": 0.7}, seed=1, scenes=["a", "a"], columns={"code_digest": "beef"}),
        run("ilql", [1.0, 2.0], {"train.tau": 0.8}, scenes=["a", "a"]),
    ).select({"evaluation.split": "report"})
    notes = " ".join(ablation_table(table).footnotes)
    assert "over 2 episodes of the report scenes" in notes
    assert "The 2 episodes are of 1 scene;" in notes
    assert (
        "The max over k cells on the same episodes is optimistic, the more so the larger k is; here k = ILQL 2."
        in notes
    )
    assert "1 to 2 training seeds per cell" in notes
    assert "Mixed code: the runs were made by 2 versions of the code (beef, c0de)." in notes


def test_one_seed_per_cell_is_said(small: RunTable) -> None:
    assert any(note.startswith("One training seed per cell: σ contains") for note in ablation_table(small).footnotes)


def test_scores_from_the_tune_scenes_are_called_that(run: Make, make_table: MakeTable) -> None:
    table = ablation_table(make_table(run("bc", [1.0], columns={"evaluation.split": "tune"})))
    assert "The scores are from the tune scenes, not from the report scenes that a table should use." in table.footnotes


def test_markdown_shows_one_format_of_numbers(small: RunTable) -> None:
    text = to_markdown(ablation_table(small))
    line = next(line for line in text.splitlines() if line.startswith("| ILQL"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("ILQL", "−3.00 ± 1.00", "1.00", "τ 0.75, β 4", "refinement", "2 of 3", "1", "1", "1", "1")
    ]
    table, failures = text.split("What failed:")
    for part in (table, failures):
        assert len({len(line) for line in part.splitlines() if line.startswith("|")}) == 1  # the columns line up


def test_scores_with_small_errors_show_more_decimals(run: Make, make_table: MakeTable) -> None:
    # Returns .5 and .508: mean .504, sd .00566, s.e. .004, which two decimals would print as 0.00.
    assert "0.504 ± 0.004" in to_markdown(ablation_table(make_table(run("bc", [0.5, 0.508]))))


def test_latex_is_booktabs_and_escapes_what_latex_misreads(run: Make, make_table: MakeTable) -> None:
    text = to_latex(ablation_table(make_table(run("filtered_bc", [-1.0], {"train.keep": 0.1}), run("a_b&c", [1.0]))))
    assert r"\toprule" in text
    assert r"\%BC & $-$1.00 $\pm$ -- &" in text
    assert r"a\_b\&c &" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:-1]
    assert [line.replace(r"\&", "").count("&") for line in body] == [9, 9]


def test_csv_has_full_precision_and_plain_names(small: RunTable) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(ablation_table(small)))))
    assert [line["method"] for line in lines] == ["ilql", "sarsa", "bc"]
    assert (float(lines[0]["max_score"]), float(lines[0]["sigma"]), lines[2]["sigma"]) == (-3.0, 1.0, "")
    assert lines[0]["best_setting"] == "train.tau=0.75; decode.beta=4.0"


def test_json_writes_infinity_as_a_string(run: Make, make_table: MakeTable) -> None:
    document = json.loads(to_json(ablation_table(make_table(run("ilql", [1.0], {"decode.beta": math.inf})))))
    assert document["rows"][0]["best"]["hyperparameters"] == {"decode.beta": "inf"}
    assert document["runs"] == {"finished": 1, "failed": 0, "stopped": 0}
    assert document["footnotes"]


def test_the_order_of_rows_in_the_store_does_not_matter(sweep: RunTable) -> None:
    shuffled = RunTable(sweep.runs.sample(fraction=1.0, shuffle=True, seed=1), sweep.episodes.reverse())
    assert to_json(ablation_table(shuffled)) == to_json(ablation_table(sweep))


def test_others_stand_behind_the_methods_and_count_as_no_run(small: RunTable) -> None:
    table = ablation_table(small, references={"optimal": [-1.0, -3.0]})
    last = table.rows[-1]
    assert (last.method, last.score, last.standard_error) == ("optimal", -2.0, 1.0)  # sd √2, over √2
    assert (last.sigma, last.best, last.design_cells) == (None, None, 0)
    assert table.finished == ablation_table(small).finished
    assert "Optimal (scripted) is no run of this sweep: for comparison, the mean over 2 episodes." in table.footnotes
    assert "| Optimal (scripted) | −2.00 ± 1.00 |" in to_markdown(table)


def test_a_table_of_estimates_calls_them_so(run: Make, make_table: MakeTable) -> None:
    by = {"evaluation.by": "fitted_q"}
    table = ablation_table(make_table(run("bc", [1.0, 2.0], columns=by), run("ilql", [3.0, 4.0], columns=by)))
    assert "scored by" not in table.caption
    assert "estimated under reward yn" in table.caption
    assert table.footnotes[0].startswith("Max estimate: the highest mean estimate of a cell")
    for text in (to_markdown(table), to_latex(table)):
        assert "Max estimate" in text
        assert "Max score" not in text
    assert json.loads(to_json(table))["estimated"] is True
    played = ablation_table(make_table(run("bc", [1.0, 2.0])))
    assert "Max score" in to_markdown(played)
