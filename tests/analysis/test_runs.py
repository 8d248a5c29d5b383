from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analysis.cells import cells_of, varying
from analysis.runs import RunTable

Make = Callable[..., Any]


def test_a_missing_column_is_named(run: Make, make_frames: Make) -> None:
    runs, episodes = make_frames([run("bc", [1.0])])
    with pytest.raises(ValueError, match=r"runs must have the column 'weights_id', got sweep, origin"):
        RunTable(runs.drop("weights_id"), episodes)
    with pytest.raises(ValueError, match="episodes must have the column 'scene'"):
        RunTable(runs, episodes.drop("scene"))


def test_a_frame_without_columns_is_refused_in_words(make_frames: Make) -> None:
    with pytest.raises(ValueError, match="runs must have the column 'sweep', got no columns"):
        RunTable(pl.DataFrame(), make_frames([])[1])


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (pl.col("seed").cast(pl.String), "column 'seed' of runs must hold integer, got String"),
        (pl.lit(None, pl.String).alias("method"), "column 'method' of runs must have no nulls, got 1"),
        (pl.lit("done").alias("status"), "unknown status 'done' in runs; known: finished, failed, stopped"),
        (pl.lit("grid").alias("origin"), "unknown origin 'grid' in runs; known: design, refinement"),
        (pl.lit("failed").alias("status"), "only a finished run has a score"),
        (pl.col("score") + 1, "must be the mean return of its episodes 1.5, got 2.5"),
        (pl.lit(None, pl.Float64).alias("score"), "must be the mean return of its episodes 1.5, got None"),
        (pl.lit(3, pl.Int64).alias("episodes"), "must have 3 episodes of different seeds, got 2 of 2"),
    ],
)
def test_a_wrong_row_is_refused_in_one_line(run: Make, make_frames: Make, change: pl.Expr, wrong: str) -> None:
    runs, episodes = make_frames([run("bc", [1.0, 2.0])])
    with pytest.raises(ValueError, match=wrong):
        RunTable(runs.with_columns(change), episodes)


def test_an_episode_that_stands_twice_is_refused(run: Make, make_frames: Make) -> None:
    runs, episodes = make_frames([run("bc", [1.0, 1.0])])
    with pytest.raises(ValueError, match="must have 2 episodes of different seeds, got 2 of 1"):
        RunTable(runs, episodes.with_columns(pl.lit(0, pl.Int64).alias("episode_seed")))


def test_an_evaluation_that_a_sweep_holds_twice_is_refused(run: Make, make_table: Make) -> None:
    with pytest.raises(ValueError, match=r"a sweep must hold an evaluation once, got trial 'bc\(\)@0' twice"):
        make_table(run("bc", [1.0]), run("bc", [1.0]))


def test_views_keep_the_episodes_of_their_runs(run: Make, make_table: Make) -> None:
    table = make_table(
        run("bc", [1.0, 2.0]),
        run("ilql", [3.0], origin="refinement"),
        run("sarsa", status="failed", reason="loss is not finite"),
    )
    assert table.methods == ("ilql", "sarsa", "bc")
    assert table.finished().methods == ("ilql", "bc")
    assert table.design().methods == ("sarsa", "bc")
    assert table.select({"method": "bc"}).episodes["return"].to_list() == [1.0, 2.0]
    assert table.select({"method": "ilql"}).episodes["return"].to_list() == [3.0]


def test_selecting_by_an_unknown_column_names_the_known_ones(run: Make, make_table: Make) -> None:
    with pytest.raises(ValueError, match=r"runs have no column 'train.tua'; known: .*train.tau"):
        make_table(run("ilql", [1.0], {"train.tau": 0.7})).select({"train.tua": 0.7})


def test_training_is_paid_once_for_all_betas(run: Make, make_table: Make) -> None:
    table = make_table(*(run("ilql", [1.0], {"train.tau": 0.7, "decode.beta": beta}) for beta in (4.0, 8.0)))
    assert (table.train_seconds(), table.evaluate_seconds()) == (30.0, 10.0)  # 30 s a training, 5 s an evaluation


def test_an_evaluation_that_two_sweeps_share_counts_once_as_finished(run: Make, make_table: Make) -> None:
    table = make_table(run("bc", sweep="a", status="failed", reason="node lost"), run("bc", [1.0], sweep="b"))
    assert table.counts() == {"finished": 1, "failed": 0, "stopped": 0}
    assert table.failures() == ()


def test_failures_are_tallied_by_reason(run: Make, make_table: Make) -> None:
    lost = [run("bc", seed=seed, status="failed", reason="node lost") for seed in range(2)]
    table = make_table(*lost, run("bc", seed=2, status="failed"), run("ilql", status="stopped"))
    assert table.failures() == (("bc", "node lost", 2), ("bc", "no reason recorded", 1))


def test_runs_under_several_rewards_are_refused_with_the_way_out(run: Make, make_table: Make) -> None:
    table = make_table(run("bc", [1.0]), run("ilql", [1.0], columns={"evaluation.reward": "standard"}))
    with pytest.raises(
        ValueError, match=r"runs of one evaluation.reward, got 'standard', 'yn'; pick one with RunTable"
    ):
        cells_of(table)
    assert len(cells_of(table.select({"evaluation.reward": "yn"}))) == 1


def test_parquet_gives_the_same_table_without_the_transcripts(sweep: RunTable, tmp_path: Path) -> None:
    sweep.runs.write_parquet(tmp_path / "runs.parquet")
    parts = tmp_path / "episodes"
    parts.mkdir()
    spoken = sweep.episodes.with_columns(pl.lit("{}").alias("transcript"))
    spoken[:1000].write_parquet(parts / "a.parquet")
    spoken[1000:].write_parquet(parts / "b.parquet")
    read = RunTable.from_parquet(tmp_path)
    assert read.runs.equals(sweep.runs)
    assert read.episodes.sort("trial_id", "episode_seed").equals(sweep.episodes.sort("trial_id", "episode_seed"))


def test_parquet_tells_apart_what_a_question_does_twice_with_one_method(
    run: Make, make_table: Make, tmp_path: Path
) -> None:
    table = make_table(run("ilql", [1.0], {"decode.beta": 8.0}), run("ilql", [3.0], {"decode.beta": 4.0}))
    table.runs.with_columns(pl.Series("arm", ["ilql", "ilql_without_lm"])).write_parquet(tmp_path / "runs.parquet")
    table.episodes.write_parquet(tmp_path / "episodes.parquet")
    assert RunTable.from_parquet(tmp_path).methods == ("ilql", "ilql_without_lm")


def test_a_folder_without_rows_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a folder with runs\.parquet, got .* without one"):
        RunTable.from_parquet(tmp_path)


def test_an_empty_table_has_no_cells(make_table: Make) -> None:
    table = make_table()
    assert (cells_of(table), table.methods, table.train_seconds()) == ((), (), 0.0)
    assert table.finished().counts() == {"finished": 0, "failed": 0, "stopped": 0}


def test_a_cell_joins_its_seeds_and_counts_its_losses(run: Make, make_table: Make) -> None:
    cells = cells_of(
        make_table(
            run("ilql", [3.0, 5.0], {"train.tau": 0.7}, seed=1, tune_score=2.0, measures={"measure.rank": 4.0}),
            run("ilql", [1.0, 3.0], {"train.tau": 0.7}, seed=0, tune_score=3.0, measures={"measure.rank": 5.0}),
            run("ilql", setting={"train.tau": 0.7}, seed=2, status="failed", reason="node lost"),
        )
    )
    assert len(cells) == 1
    assert cells[0].seeds == (0, 1)
    assert cells[0].returns.tolist() == [[1.0, 3.0], [3.0, 5.0]]
    assert cells[0].seed_scores == (2.0, 4.0)
    assert (cells[0].tune_score, cells[0].measures, cells[0].failed) == (2.5, {"measure.rank": 4.5}, 1)


def test_a_cell_without_the_tune_score_of_a_seed_has_none(run: Make, make_table: Make) -> None:
    cells = cells_of(make_table(run("bc", [1.0], tune_score=2.0), run("bc", [1.0], seed=1)))
    assert cells[0].tune_score is None


def test_a_point_of_the_grid_that_the_search_proposes_again_stays_design(run: Make, make_table: Make) -> None:
    cells = cells_of(make_table(run("ilql", [1.0], origin="refinement"), run("ilql", [1.0])))
    assert [(cell.origin, cell.seeds) for cell in cells] == [("design", (0,))]


@pytest.mark.parametrize("finished_first", [True, False])
def test_the_finished_row_of_a_shared_evaluation_counts(run: Make, make_table: Make, finished_first: bool) -> None:
    rows = [run("bc", [1.0], sweep="a"), run("bc", sweep="b", status="failed", reason="node lost")]
    cell = cells_of(make_table(*(rows if finished_first else reversed(rows))))[0]
    assert (cell.seeds, cell.failed) == ((0,), 0)


def test_cells_do_not_depend_on_the_order_of_episodes(run: Make, make_frames: Make) -> None:
    # Scenes of one cell are others than those of the next, and each cell has its own.
    runs, episodes = make_frames(
        [run("bc", [1.0, 2.0, 4.0]), run("bc", [3.0, 5.0, 8.0], seed=1), run("sarsa", [7.0, 9.0], first_episode=5)]
    )
    sorted_ones = cells_of(RunTable(runs, episodes))
    assert [cell.scenes.tolist() for cell in sorted_ones] == [["scene 5", "scene 6"], ["scene 0", "scene 1", "scene 2"]]
    for order in ([7, 3, 0, 4, 6, 1, 5, 2], [0, 3, 1, 4, 2, 5, 6, 7], [2, 1, 0, 5, 4, 3, 7, 6]):
        for cell, other in zip(cells_of(RunTable(runs, episodes[order])), sorted_ones, strict=True):
            assert (cell.method, cell.returns.tolist()) == (other.method, other.returns.tolist())
            assert cell.episode_seeds.tolist() == other.episode_seeds.tolist()
            assert cell.scenes.tolist() == other.scenes.tolist()


def test_seeds_of_a_cell_that_played_different_episodes_are_refused(run: Make, make_table: Make) -> None:
    table = make_table(run("bc", [1.0, 2.0]), run("bc", [1.0, 2.0], seed=1, first_episode=1))
    with pytest.raises(ValueError, match=r"of cell 'bc\(\)', seeds 0 and 1 played different ones"):
        cells_of(table)


def test_only_what_varies_within_a_method_tells_cells_apart(run: Make, make_table: Make) -> None:
    common = {"train.steps": 100.0}
    table = make_table(
        run("ilql", [1.0], {**common, "train.tau": 0.9, "decode.beta": 8.0}),
        run("ilql", [1.0], {**common, "train.tau": 0.7, "decode.beta": 8.0}),
        run("sarsa", [1.0], {"train.steps": 200.0, "decode.beta": 8.0}),
    )
    cells = cells_of(table)
    assert varying(cells) == ("train.tau",)
    assert [cell.setting(varying(cells)) for cell in cells] == ["τ 0.7", "τ 0.9", ""]
