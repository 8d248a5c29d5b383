from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.cells import cells_of
from analysis.honest_render import HEADER, to_csv, to_json, to_latex, to_markdown
from analysis.honest_table import HonestRow, HonestTable, Ranged, honest_table
from analysis.runs import RunTable
from analysis.styles import Policy

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]
E = 20  # episodes, each of its own scene: the fewest that have an interval


@pytest.fixture
def honest(make_table: MakeTable) -> Callable[..., HonestTable]:
    def made(*runs: Any, policy: Policy = "exclude", floor: float | None = None) -> HonestTable:
        cells = cells_of(make_table(*runs))
        return honest_table(cells, np.random.default_rng(0), policy=policy, floor=floor)

    return made


def flat(run: Make, method: str, setting: dict[str, float], *scores: float, **more: Any) -> list[Any]:
    """A cell without noise of episodes: one score per seed; NaN for a seed that failed."""
    return [
        run(method, setting=setting, seed=seed, status="failed", reason="not finite", **more)
        if math.isnan(score)
        else run(method, [score] * E, setting, seed=seed, **more)
        for seed, score in enumerate(scores)
    ]


def row(table: HonestTable, method: str = "ilql") -> HonestRow:
    return next(row for row in table.rows if row.method == method)


def lucky(run: Make) -> list[Any]:
    """One lucky seed in the first training, of mean 3; the second has mean 7/3. Cross-fitted: 0, 2, 0."""
    return [
        *flat(run, "ilql", {"train.tau": 0.7}, 0.0, 9.0, 0.0),
        *flat(run, "ilql", {"train.tau": 0.8}, 2.0, 2.0, 3.0),
    ]


def test_a_tuned_score_stands_beside_the_papers(run: Make, honest: Callable[..., HonestTable]) -> None:
    found = row(honest(*lucky(run)))
    assert (found.paper_max, found.tuned.value, found.optimism.value) == pytest.approx((3.0, 2 / 3, 7 / 3))
    assert found.tuned.low is not None
    assert found.tuned.low < 2 / 3
    assert (found.cells, found.design_cells, found.seeds) == (2, 2, 3)
    # The best trained model is the lucky one, on every fifth of the scenes, and has no noise of scenes.
    assert found.checkpoint == Ranged(9.0, 9.0, 9.0)


def test_what_is_tuned_is_chosen_on_the_tune_scenes(run: Make, honest: Callable[..., HonestTable]) -> None:
    # On the report scenes the first cell is the better one at every seed; the tune scenes prefer the second at seeds 1
    # and 2. Without seed 0 these choose: the second, 2. Without 1: tune means 6 against 1, the first, 9. Without 2: 6
    # against 1, the first, 9.
    runs = [
        *flat(run, "ilql", {"train.tau": 0.7}, 9.0, 9.0, 9.0),
        *flat(run, "ilql", {"train.tau": 0.8}, 2.0, 2.0, 2.0),
    ]
    tune = (12.0, 0.0, 0.0), (0.0, 2.0, 2.0)
    scored = [
        dataclasses.replace(each, tune_score=score) for each, score in zip(runs, (*tune[0], *tune[1]), strict=True)
    ]
    found = honest(*scored)
    assert row(found).tuned.value == pytest.approx((2 + 9 + 9) / 3)
    assert row(found).chosen_on_tune
    blind = honest(*scored[:-1], dataclasses.replace(scored[-1], tune_score=None))
    assert row(blind).tuned.value == pytest.approx(9.0)
    note = "Chosen on the report scenes themselves, for want of a tune score of every run"
    assert any(each.startswith(note) and each.endswith("another: ILQL.") for each in blind.footnotes)
    assert not any(each.startswith(note) for each in found.footnotes)


def test_decodings_of_one_training_are_no_further_seeds(run: Make, honest: Callable[..., HonestTable]) -> None:
    # Two cells of one training and two of two, with the same scores: M alike, f = 1/2 + .6; t at one degree and at two.
    def half(column: str) -> float:
        runs = [flat(run, "ilql", {"train.tau": 0.7} | {column: value}, m, m + 2) for value, m in ((0.8, 0), (0.9, 1))]
        tuned = row(honest(*runs[0], *runs[1])).tuned
        assert tuned.low is not None
        assert tuned.high is not None
        return (tuned.high - tuned.low) / 2

    assert half("decode.beta") / half("train.tau") == pytest.approx(12.70620474 / 4.302652730)


def test_sigma_stands_beside_the_papers_with_the_noise_taken_out(run: Make, honest: Callable[..., HonestTable]) -> None:
    # Cells 0, 2, 4, 10 at either seed, ±1 in turn: means 0, 2, 4, 10, mean 4: 16 + 4 + 0 + 36 = 56 over 4.
    # What seeds leave beside cells and a common part: cell ±1 against a mean of 0: M = Σ_s Σ_k 1/(3·1) = 8/3.
    cells = [
        flat(run, "ilql", {"train.tau": t}, m - s, m + s)
        for t, m, s in ((0.6, 0, 1), (0.7, 2, -1), (0.8, 4, 1), (0.9, 10, -1))
    ]
    found = row(honest(*[each for cell in cells for each in cell]))
    assert found.paper_sigma == pytest.approx(math.sqrt(14))
    assert found.sigma.value == pytest.approx(math.sqrt((56 - 3 * (8 / 3) / 2) / 4))


def test_sigma_after_beta_is_tuned_is_over_trainings(run: Make, honest: Callable[..., HonestTable]) -> None:
    # Best decodings 3 and 4: σ 1/2 over trainings. Decodings of the better training: 4 and 0, σ 2. All: 1, 3, 4, 0.
    scores = {(0.7, 4.0): 1.0, (0.7, 8.0): 3.0, (0.8, 4.0): 4.0, (0.8, 8.0): 0.0}
    runs = [flat(run, "ilql", {"train.tau": t, "decode.beta": b}, m, m) for (t, b), m in scores.items()]
    found = row(honest(*[each for cell in runs for each in cell]))
    assert (found.sigma_train.value, found.sigma_train.high) == pytest.approx((0.5, 0.5))
    assert (found.sigma_decode.value, found.sigma_decode.high) == pytest.approx((2.0, 2.0))
    assert found.sigma.value == pytest.approx(math.sqrt(10 / 4))  # mean 2: 1 + 1 + 4 + 4


def test_one_seed_is_refused_in_words(run: Make, honest: Callable[..., HonestTable]) -> None:
    table = honest(*flat(run, "ilql", {"train.tau": 0.7}, 1.0), *flat(run, "ilql", {"train.tau": 0.8}, 2.0))
    found = row(table)
    assert (found.tuned.value, found.sigma.value, found.optimism.value) == (None, None, None)
    assert found.checkpoint == Ranged(2.0, 2.0, 2.0)  # other scenes can say how good this one is
    assert not table.possible
    why = "No number, too few seeds: with one, luck and merit are the same number: ILQL (Tuned, Optimism)."
    assert why in table.footnotes


def test_optimism_has_the_ends_of_tuned_mirrored_at_the_papers_max(
    run: Make, honest: Callable[..., HonestTable]
) -> None:
    found = row(honest(*lucky(run)))
    assert found.tuned.low is not None
    assert found.tuned.high is not None
    ends = (found.optimism.low, found.optimism.high)
    assert ends == pytest.approx((3.0 - found.tuned.high, 3.0 - found.tuned.low))


def test_every_dash_has_its_reason_in_words(run: Make, honest: Callable[..., HonestTable]) -> None:
    grid = {4.0: 1.0, 8.0: 3.0}
    table = honest(
        *(each for b, m in grid.items() for each in flat(run, "sarsa", {"decode.beta": b}, m, m)),
        *(each for k in (0.1, 0.2) for each in flat(run, "filtered_bc", {"train.keep": k}, k, k)),
        *flat(run, "bc", {}, 1.0, 2.0),
    )
    assert "No number, fewer than two trainings: SARSA (σ, β tuned)." in table.footnotes
    said = (
        "No number, no training has several decodings: %BC (σ, β tuned, σ of decoding), BC (σ, β tuned, σ of decoding)."
    )
    assert said in table.footnotes
    assert "No number, fewer than two cells: BC (σ)." in table.footnotes
    assert "No interval, too few seeds: one cell alone needs 3: BC (Tuned, Optimism)." in table.footnotes


def test_one_cell_alone_needs_three_seeds(run: Make, honest: Callable[..., HonestTable]) -> None:
    two = row(honest(*flat(run, "bc", {}, 1.0, 3.0)), "bc").tuned
    assert two == Ranged(2.0, refused="too few seeds: one cell alone needs 3")
    assert row(honest(*flat(run, "bc", {}, 1.0, 2.0, 3.0)), "bc").tuned.low is not None


def test_without_any_spread_tuned_has_no_interval(run: Make, honest: Callable[..., HonestTable]) -> None:
    alike = [*flat(run, "ilql", {"train.tau": 0.7}, 0.0, 0.0), *flat(run, "ilql", {"train.tau": 0.8}, 0.1, 0.1)]
    assert row(honest(*alike)).tuned == Ranged(0.1, refused="seeds and scenes without any spread to measure it by")


def test_few_scenes_get_no_interval(run: Make, honest: Callable[..., HonestTable]) -> None:
    runs = [run("bc", [1.0] * E, seed=seed, scenes=["a", "b"] * 10) for seed in range(3)]
    found = row(honest(*runs), "bc")
    assert found.tuned == Ranged(1.0, refused="too few scenes: fewer than 20")
    assert found.checkpoint.refused == "too few scenes: fewer than 20"


def test_cells_of_a_search_may_be_tuned_and_never_widen_sigma(run: Make, honest: Callable[..., HonestTable]) -> None:
    proposed = flat(run, "ilql", {"train.tau": 0.75}, 20.0, 20.0, 20.0, origin="refinement")
    plain, more = honest(*lucky(run)), honest(*lucky(run), *proposed)
    assert row(more).sigma == row(plain).sigma
    assert (row(more).tuned.value, row(more).cells, row(more).design_cells) == (20.0, 3, 2)
    assert any("a search crowds near its optimum: ILQL 1 cell." in note for note in more.footnotes)


def test_what_a_rung_let_through_is_not_tuned(run: Make, honest: Callable[..., HonestTable]) -> None:
    survivor = flat(run, "ilql", {"train.tau": 0.75}, 20.0, 20.0, 20.0, origin="refinement")
    stopped = run("ilql", (), {"train.tau": 0.6}, origin="refinement", status="stopped")
    table = honest(*lucky(run), *survivor, stopped)
    found = row(table)
    assert (found.tuned.value, found.paper_max, found.cells) == (pytest.approx(2 / 3), 3.0, 2)
    assert found.checkpoint.value == 20.0  # a trained model is as good as it is, whoever chose it
    assert "Tuned does not choose what a rung let through: ILQL 1 cell." in " ".join(table.footnotes)
    assert "left out" not in " ".join(table.footnotes[:-1])
    alone = row(honest(*survivor, stopped)).tuned
    assert alone.refused == "no cells but those that a rung let through by their first seed"


def test_a_cell_without_every_seed_is_left_out_and_named(run: Make, honest: Callable[..., HonestTable]) -> None:
    table = honest(*lucky(run), *flat(run, "ilql", {"train.tau": 0.9}, 50.0))
    assert (row(table).cells, row(table).paper_max) == (2, 3.0)
    assert "ILQL: 1 cell without all 3 training seeds left out." in table.footnotes
    assert "ILQL: its highest mean, 50.00, is of a cell that is left out." in table.footnotes


def test_cells_that_finished_at_different_seeds_have_no_numbers_and_a_reason(
    run: Make, honest: Callable[..., HonestTable]
) -> None:
    scores = np.where(np.eye(3, dtype=bool), 1.0, math.nan).tolist()  # each cell at one seed, none at that of another
    runs = [flat(run, "ilql", {"train.tau": t}, *own) for t, own in zip((0.7, 0.8, 0.9), scores, strict=True)]
    table = honest(*[each for cell in runs for each in cell])
    assert row(table).tuned == Ranged(None, refused="no cell has finished at every seed")
    assert (row(table).cells, row(table).seeds) == (0, 0)


def test_a_failed_run_leaves_counts_as_the_worst_or_as_the_floor(run: Make, honest: Callable[..., HonestTable]) -> None:
    runs = [
        *flat(run, "ilql", {"train.tau": 0.7}, 4.0, 4.0),
        *flat(run, "ilql", {"train.tau": 0.8}, 6.0, 6.0),
        *flat(run, "ilql", {"train.tau": 0.9}, math.nan, math.nan),
    ]
    out, worst, floor = honest(*runs), honest(*runs, policy="worst"), honest(*runs, policy="floor", floor=-1.0)
    assert (row(out).sigma.value, row(out).cells) == (pytest.approx(1.0), 2)
    assert row(worst).sigma.value == pytest.approx(math.sqrt(8 / 9))  # 4, 6 and 4: mean 14/3, (4 + 16 + 4)/9/3
    assert row(floor).sigma.value == pytest.approx(math.sqrt(26 / 3))  # 4, 6, −1: mean 3: 1 + 9 + 16
    assert "Failed runs leave with their cell." in out.footnotes
    assert "Failed runs count as the lowest return, −1.00." in floor.footnotes
    assert "ILQL, 2 failed runs: σ 1.00 without them, 0.94 as bad as the method's worst run." in (out.footnotes)
    assert "ILQL, 2 failed runs: σ 1.00 without them, 2.94 at −1.00." in floor.footnotes


def test_where_failed_runs_count_sigma_has_no_interval(run: Make, honest: Callable[..., HonestTable]) -> None:
    runs = [
        *flat(run, "ilql", {"train.tau": 0.7, "decode.beta": 4.0}, 4.0, 5.0, math.nan),
        *flat(run, "ilql", {"train.tau": 0.7, "decode.beta": 8.0}, 5.0, 5.0, math.nan),
        *flat(run, "ilql", {"train.tau": 0.8, "decode.beta": 4.0}, 6.0, 6.0, 7.0),
        *flat(run, "ilql", {"train.tau": 0.8, "decode.beta": 8.0}, 7.0, 6.0, 7.0),
    ]
    out, worst = row(honest(*runs)), row(honest(*runs, policy="worst"))
    assert out.sigma.low is not None
    for each in (worst.sigma, worst.sigma_train):
        assert each.value is not None
        assert each.refused == "failed runs count at a value that nobody played, whose noise is not known"
    assert worst.sigma_decode.low is not None  # of τ .8, whose runs have all finished
    assert out.sigma_bounds is not None
    assert [each.low is not None for each in out.sigma_bounds] == [True, False]


def test_too_many_failed_runs_leave_tuned_without_an_interval(run: Make, honest: Callable[..., HonestTable]) -> None:
    def of(*lost: int) -> Ranged:
        """Four cells at four seeds, a few of which fail in each."""
        cells = [
            flat(
                run,
                "ilql",
                {"train.tau": 0.6 + k / 10},
                *[math.nan if (s + k) % 4 < n else k + s % 2 for s in range(4)],
            )
            for k, n in enumerate(lost)
        ]
        return row(honest(*[each for cell in cells for each in cell], policy="floor", floor=-9.0)).tuned

    assert of(0, 1, 1, 1).low is not None  # 3 of 16
    assert of(0, 0, 2, 2).refused == "too many failed runs: more than 20 %"
    assert of(0, 0, 0, 4).low is not None  # a cell that never finishes is known: it is not one that may fail or not


def test_a_floor_must_be_known(run: Make, honest: Callable[..., HonestTable]) -> None:
    with pytest.raises(ValueError, match="the policy 'floor' needs the task's lowest return, got none"):
        honest(*lucky(run), policy="floor")
    with pytest.raises(ValueError, match="unknown policy 'best'; known: exclude, worst, floor"):
        honest(*lucky(run), policy="best")


def test_every_format_says_the_same(run: Make, honest: Callable[..., HonestTable]) -> None:
    table = honest(*lucky(run))
    found = row(table)
    text = to_markdown(table)
    assert text.splitlines()[2].count("|") == len(HEADER) + 1
    assert "| ILQL   |       3.00 | 0.67 [" in text
    line = next(csv.DictReader(io.StringIO(to_csv(table))))
    assert float(line["tuned"]) == found.tuned.value
    assert float(line["sigma_high"]) == found.sigma.high
    assert (float(line["optimism"]), float(line["optimism_low"])) == (found.optimism.value, found.optimism.low)
    assert line["sigma_train"] == ""
    document = json.loads(to_json(table))
    assert document["rows"][0]["tuned"]["low"] == found.tuned.low
    assert document["rows"][0]["sigma_train"]["refused"] == "no training has several decodings"
    assert r"\toprule" in to_latex(table)
    assert r"$\sigma$, $\beta$ tuned" in to_latex(table)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((math.nan, None, None, "x"), "must be finite"),
        ((1.0, 0.0, None, None), "two ends or a reason"),
        ((1.0, None, None, None), "two ends or a reason"),
        ((1.0, 2.0, 0.0, None), "must end where it begins"),
    ],
)
def test_a_ranged_number_refuses_to_be_wrong(wrong: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Ranged(*wrong)
