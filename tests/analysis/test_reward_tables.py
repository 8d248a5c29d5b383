from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
import pytest

from analysis.ablation import ablation_table
from analysis.reward_render import rewards_csv, rewards_json, rewards_latex, rewards_markdown
from analysis.reward_tables import RewardField, RewardTable, RewardTables, method_by_reward
from analysis.runs import RunTable
from analysis.transfer import judged_by, transfer_tables

Make = Callable[..., Any]
MakeFrames = Callable[..., tuple[pl.DataFrame, pl.DataFrame]]
Returns = Mapping[str, Sequence[float]]
MakeTrained = Callable[..., RunTable]


@pytest.fixture
def trained(make_frames: MakeFrames) -> MakeTrained:
    """Runs of one training reward; `returns` holds an episode's returns under other rewards, by cell and reward."""

    def make(reward: str, runs: Sequence[Any], returns: Mapping[str, Returns] | None = None) -> RunTable:
        frame, episodes = make_frames(runs)
        frame = frame.with_columns(pl.lit(reward).alias("data.reward"), pl.lit(reward).alias("evaluation.reward"))
        others = sorted({name for carried in (returns or {}).values() for name in carried})
        ordered = [run for run in {run.trial_id: run for run in runs}.values() if run.status == "finished"]
        columns = {
            f"return.{name}": [value for run in ordered for value in (returns or {})[run.cell_id][name]]
            for name in others
        }
        own = pl.col("return").alias(f"return.{reward}")
        return RunTable(
            frame, episodes.with_columns(own, **{k: pl.Series(v, dtype=pl.Float64) for k, v in columns.items()})
        )

    return make


@pytest.fixture
def yn(run: Make, trained: MakeTrained) -> RunTable:
    """Trained on yn. τ .7 is better on the report scenes, τ .8 on the tune scenes; under `standard` they swap."""
    seven, eight = {"train.tau": 0.7}, {"train.tau": 0.8}
    runs = [
        run("ilql", [-3.0, -5.0], seven, tune_score=-9.0),
        run("ilql", [-6.0, -8.0], eight, tune_score=-5.0),
        run("bc", [-9.0, -9.0], tune_score=-8.0),
    ]
    standard = {"ilql(train.tau=0.7)": [-4.0, -4.0], "ilql(train.tau=0.8)": [-1.0, -3.0], "bc()": [-5.0, -7.0]}
    return trained("yn", runs, {cell: {"standard": values} for cell, values in standard.items()})


@pytest.fixture
def standard(run: Make, trained: MakeTrained) -> RunTable:
    """Trained on standard, where BC does best; ILQL's only cell failed."""
    runs = [
        run("ilql", setting={"train.tau": 0.7}, status="failed", reason="lost"),
        run("bc", [-5.0, -7.0], tune_score=-6.0),
    ]
    return trained("standard", runs, {"bc()": {"yn": [-9.0, -11.0]}})


def field(table: RewardTable, row: int, column: int) -> RewardField:
    return table.rows[row].fields[column]


def named(tables: RewardTables, name: str) -> RewardTable:
    return next(table for table in tables.tables if table.name == name)


# Methods by reward


def test_each_reward_keeps_its_own_max_error_and_sigma(yn: RunTable, standard: RunTable) -> None:
    tables = method_by_reward({"yn": ablation_table(yn), "standard": ablation_table(standard)})
    (table,) = tables.tables
    assert [row.stubs for row in table.rows] == [("ILQL",), ("BC",)]
    ilql = field(table, 0, 0)
    # Means −4 and −7: max −4 with s.e. √2/√2 = 1, population sd 1.5.
    assert (ilql.score, ilql.standard_error, ilql.sigma) == (-4.0, pytest.approx(1.0), 1.5)
    assert ilql.cell is not None
    assert ilql.cell.setting == "τ 0.7"
    assert (field(table, 0, 1).score, field(table, 0, 1).failed) == (None, 1)
    assert (field(table, 1, 1).score, field(table, 1, 1).sigma) == (-6.0, None)


def test_a_reward_without_rows_and_a_method_without_rows_are_dashes(yn: RunTable, make_table: Make) -> None:
    given = {"yn": ablation_table(yn), "standard": ablation_table(make_table())}
    text = rewards_markdown(method_by_reward(given, methods=["ilql", "qsft"]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["Method", "max, yn", "σ", "max, standard", "σ"]
    assert cells[2:] == [["ILQL", "−4.00 ± 1.00", "1.50", "–", "–"], ["Q-SFT", "–", "–", "–", "–"]]


def test_nothing_at_all_is_a_table_of_dashes(make_table: Make) -> None:
    text = rewards_markdown(method_by_reward({"yn": ablation_table(make_table(), methods=["bc"])}))
    assert "| BC     |       – |   – |" in text
    assert "yn 0 finished, 0 failed, 0 stopped" in text


def test_the_footnotes_count_what_was_lost_by_reward(yn: RunTable, standard: RunTable) -> None:
    notes = method_by_reward({"yn": ablation_table(yn), "standard": ablation_table(standard)}).footnotes
    assert (
        "Runs, by training reward: yn 3 finished, 0 failed, 0 stopped; standard 1 finished, 1 failed, 0 stopped. "
        "Failed and stopped runs are counted, and in no number."
    ) in notes
    assert "Design cells with a finished run: ILQL under standard 0 of 1; the others are in no number." in notes
    assert "2 episodes per run." in notes
    assert "One training seed per cell: σ contains the noise of seeds, and ± does not." in notes


def test_footnotes_name_differing_episodes_and_mixed_code(run: Make, trained: MakeTrained) -> None:
    given = {
        "yn": ablation_table(trained("yn", [run("bc", [1.0, 2.0])])),
        "standard": ablation_table(trained("standard", [run("bc", [1.0], columns={"code_digest": "beef"})])),
    }
    notes = method_by_reward(given).footnotes
    assert "Episodes per run: yn 2, standard 1." in notes
    assert "Mixed code: the runs were made by 2 versions of the code (beef, c0de)." in notes


def test_a_table_of_another_reward_or_task_is_refused(yn: RunTable, run: Make, trained: MakeTrained) -> None:
    with pytest.raises(ValueError, match="reward 'standard' must be trained on it and judged by it, got 'yn'"):
        method_by_reward({"standard": ablation_table(yn)})
    other = trained("standard", [run("bc", [1.0], columns={"task": "bandit"})])
    with pytest.raises(ValueError, match="must have one task, got 'visdial', 'bandit'"):
        method_by_reward({"yn": ablation_table(yn), "standard": ablation_table(other)})
    with pytest.raises(ValueError, match="must have one style, got honest, paper"):
        method_by_reward(
            {"yn": ablation_table(yn), "standard": ablation_table(yn.select({"method": "no"}), style="paper")}
        )


# Transfer


def test_a_row_is_chosen_on_the_tune_scenes_under_its_own_reward(yn: RunTable, standard: RunTable) -> None:
    ilql = named(transfer_tables({"yn": yn, "standard": standard}), "ilql")
    # τ .7 has the better report scores, τ .8 the better tune scores; under standard, too, the cell is τ .8's.
    assert ilql.rows[0].stubs == ("yn", "τ 0.8")
    own, other = ilql.rows[0].fields
    assert (own.evaluation_reward, own.score, own.standard_error) == ("yn", -7.0, pytest.approx(1.0))
    assert (other.evaluation_reward, other.score, other.standard_error) == ("standard", -2.0, pytest.approx(1.0))


def test_sigma_is_over_the_design_cells_under_the_reward_of_the_column(yn: RunTable, standard: RunTable) -> None:
    own, other = named(transfer_tables({"yn": yn, "standard": standard}), "ilql").rows[0].fields
    assert (own.sigma, other.sigma) == (1.5, 1.0)  # means −4, −7 under yn; −4, −2 under standard


def test_a_refinement_may_be_chosen_and_is_not_in_sigma(run: Make, trained: MakeTrained) -> None:
    runs = [run("ilql", [x], {"train.tau": t}, tune_score=x, origin=o) for t, x, o in (
        (0.7, -4.0, "design"), (0.8, -6.0, "design"), (0.9, -1.0, "refinement")
    )]  # fmt: skip
    table = named(transfer_tables({"yn": trained("yn", runs)}), "ilql")
    assert (table.rows[0].stubs[1], field(table, 0, 0).score, field(table, 0, 0).sigma) == ("τ 0.9", -1.0, 1.0)


def test_the_best_method_is_that_of_the_highest_tune_score(yn: RunTable, standard: RunTable) -> None:
    tables = transfer_tables({"yn": yn, "standard": standard})
    best = tables.tables[0]
    assert best.name == "best"
    assert [row.stubs for row in best.rows] == [("yn", "ILQL (τ 0.8)"), ("standard", "BC")]
    assert [field.score for row in best.rows for field in row.fields] == [-7.0, -2.0, -10.0, -6.0]


def test_training_seeds_are_averaged_per_episode_under_every_reward(run: Make, make_frames: MakeFrames) -> None:
    frame, episodes = make_frames([run("bc", [-2.0, -4.0], seed=seed, tune_score=-3.0) for seed in (0, 1)])
    episodes = episodes.with_columns(
        pl.col("return").alias("return.yn"), pl.Series("return.standard", [0.0, -2.0, -4.0, -6.0])
    )
    (_, bc) = transfer_tables({"yn": RunTable(frame, episodes)}).tables
    # Seeds (0, −2) and (−4, −6): per episode −2 and −4, mean −3, sd √2, over √2.
    assert (field(bc, 0, 1).score, field(bc, 0, 1).standard_error) == (-3.0, pytest.approx(1.0))


def test_rewards_that_nothing_was_trained_on_judge_too_and_stand_last(run: Make, trained: MakeTrained) -> None:
    table = trained("yn", [run("bc", [1.0], tune_score=0.0)], {"bc()": {"standard": [2.0], "conservative": [3.0]}})
    tables = transfer_tables({"yn": table})
    assert tables.tables[0].rewards == ("yn", "conservative", "standard")
    assert [field.score for field in tables.tables[0].rows[0].fields] == [1.0, 3.0, 2.0]


def test_what_could_not_be_chosen_or_scored_is_a_dash_and_a_reason(
    yn: RunTable, standard: RunTable, run: Make, trained: MakeTrained
) -> None:
    untuned = trained("strict", [run("bc", [-1.0])])
    tables = transfer_tables({"yn": yn, "standard": standard, "strict": untuned})
    assert [field.score for row in named(tables, "bc").rows[2:] for field in row.fields] == [None, None, None]
    assert "No cell could be chosen, without a score on the tune scenes: BC under strict." in tables.footnotes
    assert (
        "No cell could be chosen, without a finished run: ILQL under standard, ILQL under strict." in tables.footnotes
    )
    assert (
        "Not scored, since the episodes do not carry that return: of yn under strict, of standard under strict, "
        "of strict under yn, of strict under standard."
    ) in tables.footnotes


def test_a_transfer_of_nothing_is_dashes(make_table: Make) -> None:
    tables = transfer_tables({"yn": make_table(), "standard": make_table()}, methods=["ilql"])
    assert [[row.stubs for row in table.rows] for table in tables.tables] == [[("yn", "–"), ("standard", "–")]] * 2
    assert "| yn         | –    |" in rewards_markdown(tables)


def test_a_transfer_table_of_another_reward_is_refused(yn: RunTable) -> None:
    with pytest.raises(ValueError, match="reward 'standard' must be trained on it and judged by it, got 'yn'"):
        transfer_tables({"standard": yn})


def test_another_judge_changes_scores_and_forgets_tune_scores(yn: RunTable) -> None:
    judged = judged_by(yn, "standard")
    assert judged.runs["score"].to_list() == [-4.0, -2.0, -6.0]
    assert judged.runs["evaluation.reward"].unique().to_list() == ["standard"]
    assert judged.runs["tune_score"].to_list() == [None, None, None]
    assert yn.runs["score"].to_list() == [-4.0, -7.0, -9.0]


def test_a_return_that_some_episodes_lack_is_refused(yn: RunTable) -> None:
    with pytest.raises(ValueError, match=r"every episode must have 'return\.strict', got 6 episodes without it"):
        judged_by(yn, "strict")
    some = pl.when(pl.col("trial_id") == "bc()@0").then(None).otherwise(pl.col("return")).alias("return.strict")
    partly = RunTable(yn.runs, yn.episodes.with_columns(some))
    with pytest.raises(ValueError, match="got 2 episodes without it"):
        transfer_tables({"yn": partly})


# Formats


def test_csv_has_a_line_per_field_at_full_precision(yn: RunTable, standard: RunTable) -> None:
    lines = list(csv.DictReader(io.StringIO(rewards_csv(transfer_tables({"yn": yn, "standard": standard})))))
    assert len(lines) == 3 * 4  # best, ILQL, BC; two rewards by two
    assert [lines[1][name] for name in ("table", "method", "train_reward", "evaluation_reward", "score", "sigma")] == [
        *("best", "ilql", "yn", "standard", "-2.0", "1.0")
    ]
    assert (lines[1]["cell_setting"], lines[1]["cell_tune_score"]) == ("train.tau=0.8", "-5.0")
    failed = next(line for line in lines if line["table"] == "ilql" and line["train_reward"] == "standard")
    assert (failed["score"], failed["failed"], failed["design_cells_wanted"]) == ("", "1", "1")


def test_json_is_standard_and_holds_every_number(run: Make, trained: MakeTrained) -> None:
    table = trained("yn", [run("ilql", [1.0, 2.0], {"decode.beta": math.inf}, tune_score=0.5)])
    document = json.loads(rewards_json(transfer_tables({"yn": table})), parse_constant=pytest.fail)
    cell = document["tables"][0]["rows"][0]["fields"][0]
    assert (cell["score"], cell["cell"]["hyperparameters"]) == (1.5, {"decode.beta": "inf"})
    assert document["tables"][0]["rows"][0]["label"] == "yn"


def test_latex_puts_each_reward_over_its_two_columns(yn: RunTable, standard: RunTable) -> None:
    text = rewards_latex(transfer_tables({"yn": yn, "standard": standard}))
    assert text.count(r"\begin{table}") == 3
    assert text.count(r"\footnotesize") == 1
    assert r" &  & \multicolumn{2}{c}{yn} & \multicolumn{2}{c}{standard} \\" in text
    assert r"\cmidrule(lr){3-4} \cmidrule(lr){5-6}" in text
    assert r"yn & ILQL ($\tau$ 0.8) & $-$7.00 $\pm$ 1.00 & 1.50 & $-$2.00 $\pm$ 1.00 & 1.00 \\" in text


def test_all_numbers_under_one_reward_have_the_same_decimals(run: Make, trained: MakeTrained) -> None:
    runs = [run("ilql", [0.5, 0.508], tune_score=0.5), run("bc", [0.0, 2.0], tune_score=0.5)]
    text = rewards_markdown(method_by_reward({"yn": ablation_table(trained("yn", runs))}))
    assert "0.504 ± 0.004" in text  # sd .00566 over √2
    assert "1.000 ± 1.000" in text
