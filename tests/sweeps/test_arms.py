"""Arms: rows of a table that are methods or variants of one, from the question to the rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ilql.hyperparameters import Search
from sweeps import bandit_ablation, visdial_ablation
from sweeps.asked import options_of
from sweeps.definite import make_sweep
from sweeps.options import Options
from sweeps.presets import Preset
from sweeps.question import Question, Sweep
from sweeps.refinement import Refinement
from sweeps.sizing import chosen_preset
from sweeps.space import Between, Grid
from sweeps.spec import TrialSpec
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import MakeSweep, MakeTrainings, PretendedSweep

BETAS = {"decode.beta": (4.0, 8.0)}
WITHOUT_LM = {"decode.beta": (math.inf,)}
TAU = (Between("train.tau", Search(0.5, 0.95)),)
GAMMA = (Between("train.gamma", Search(0.9, 1.0)),)

# In a sweep


@pytest.fixture
def two_arms(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> PretendedSweep:
    """ILQL at one expectile, and a variant that acts on the same weights without the language model."""
    design = [
        *make_trainings("ilql", {"train.tau": (0.7,), **BETAS}),
        *make_trainings("ilql", {"train.tau": (0.7,), **WITHOUT_LM}, variant="ilql_without_lm"),
    ]
    return make_sweep(design)


def test_a_variants_rows_carry_its_arm_and_its_method(two_arms: PretendedSweep) -> None:
    two_arms.worker().drive(two_arms.schedule())
    rows = two_arms.store.rows("sweep")
    assert sorted((row["arm"], row["method"], row["decode.beta"]) for row in rows) == [
        ("ilql", "ilql", 4.0), ("ilql", "ilql", 8.0), ("ilql_without_lm", "ilql", math.inf),
    ]  # fmt: skip
    assert two_arms.store.runs("sweep")["arm"].to_list() == [row["arm"] for row in rows]


def test_of_two_arms_on_the_same_weights_the_second_waits_until_they_are_trained(two_arms: PretendedSweep) -> None:
    worker, schedule = two_arms.worker(), two_arms.schedule()
    for expected in ("bc", "ilql", "ilql_without_lm"):
        found = schedule.next_job()
        assert found is not None
        name, job = found
        assert name.startswith(f"{expected}-")
        assert schedule.next_job() is None  # whatever comes next waits for this one
        worker.work(job)
        schedule.job_ended(name, None)
    first, second = (TrialSpec.from_json(job.training) for job in worker.done[1:])
    assert first.weights_id == second.weights_id
    assert schedule.is_over


def test_a_record_of_before_there_were_arms_is_a_row_of_its_method(two_arms: PretendedSweep) -> None:
    two_arms.worker().drive(two_arms.schedule())
    for member in two_arms.store.members("sweep"):
        old = {name: value for name, value in member.items() if name != "arm"}
        two_arms.store.put("member", f"sweep/{member['trial_id']}", old)
    assert {row["arm"] for row in two_arms.store.rows("sweep")} == {"ilql"}


# Proposals for several arms


@pytest.fixture
def refined(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> PretendedSweep:
    """ILQL, CQL and a variant of ILQL without conservative term; what each arm's proposals vary."""
    design = [
        *make_trainings("ilql", BETAS),
        *make_trainings("cql", BETAS),
        *make_trainings("ilql", BETAS, variant="ilql_without_cql", switch={"train.cql_weight": 0.0}),
    ]
    return make_sweep(design, ilql=TAU, cql=GAMMA, ilql_without_cql=TAU)


def proposed(sweep: PretendedSweep) -> list[str]:
    """The arms of the study's proposals, in order."""
    trials = sweep.read_study().trials
    return [trial.user_attrs["arm"] for trial in trials if trial.user_attrs["origin"] == "refinement"]


def test_every_arm_gets_as_many_proposals(refined: PretendedSweep) -> None:
    refinement = refined.proposals(3)
    assert refinement.total == 9
    schedule = refined.schedule(refinement=refinement)
    refined.worker().drive(schedule)
    assert sorted(proposed(refined)) == sorted(["ilql", "cql", "ilql_without_cql"] * 3)
    assert schedule.wanted_jobs == schedule.finished_jobs == 1 + 3 + 9  # the behaviour policy, the design, proposals


@pytest.mark.parametrize("rung", [1.0, 0.5])
def test_no_arm_waits_for_a_round_of_another(refined: PretendedSweep, rung: float) -> None:
    schedule, worker = refined.schedule(refinement=refined.proposals(2, rung=rung)), refined.worker()
    for _ in range(4):  # the behaviour policy and the design
        name, job = schedule.next_job() or pytest.fail("the design is not done")
        worker.work(job)
        schedule.job_ended(name, None)
    running = [schedule.next_job() for _ in range(6)]
    assert all(running)
    assert sorted(proposed(refined)) == sorted(["ilql", "cql", "ilql_without_cql"] * 2)


@pytest.mark.parametrize("rung", [1.0, 0.5])
def test_proposals_of_several_arms_do_not_depend_on_who_ends_first(
    refined: PretendedSweep, tmp_path: Path, rung: float
) -> None:
    found = []
    for places, pick in ((1, 0), (6, 0), (6, -1), (3, -1)):
        folder = tmp_path / f"{places}{pick}"
        one = dataclasses.replace(refined, store=Store(folder / "store", durable=False), folder=folder)
        one.worker().drive(one.schedule(refinement=one.proposals(5, rung=rung)), places=places, pick=pick)
        found.append({row["trial_id"]: row["status"] for row in one.store.rows("sweep")})
    assert found[0] == found[1] == found[2] == found[3]


def test_a_proposal_is_a_row_of_its_arm_and_keeps_what_makes_it_one(refined: PretendedSweep) -> None:
    refined.worker().drive(refined.schedule(refinement=refined.proposals(2)))
    rows = [row for row in refined.store.rows("sweep") if row["origin"] == "refinement"]
    assert len(rows) == 3 * 2 * 2  # arms, proposals, betas
    variant = [row for row in rows if row["arm"] == "ilql_without_cql"]
    assert {(row["method"], row["train.cql_weight"]) for row in variant} == {("ilql", 0.0)}
    assert {row["train.cql_weight"] for row in rows if row["arm"] == "ilql"} == {1.0}
    assert all(0.9 <= row["train.gamma"] <= 1.0 for row in rows if row["arm"] == "cql")


def test_the_study_holds_every_arms_trials(refined: PretendedSweep) -> None:
    refined.worker().drive(refined.schedule(refinement=refined.proposals(2)))
    trials = refined.read_study().trials
    assert [trial.user_attrs["arm"] for trial in trials[:3]] == ["ilql", "cql", "ilql_without_cql"]
    assert len(trials) == 3 + 6
    for trial in trials:
        assert trial.value is not None
        assert {name.split()[0] for name in trial.params} == {trial.user_attrs["arm"]}


def test_what_one_arm_scores_changes_no_proposal_of_another(refined: PretendedSweep, tmp_path: Path) -> None:
    found = []
    for number, bonus in enumerate((0.0, 100.0)):
        folder = tmp_path / str(number)
        one = dataclasses.replace(refined, store=Store(folder / "store", durable=False), folder=folder)
        worker = one.worker()
        plainly = worker.score
        worker.score = lambda trial, plainly=plainly, bonus=bonus: (
            plainly(trial) + bonus * (trial.method == "cql") * trial.train.gamma
        )
        worker.drive(one.schedule(refinement=one.proposals(6)))
        rows = [row for row in one.store.rows("sweep") if row["origin"] == "refinement"]
        found.append({row["trial_id"] for row in rows if row["method"] == "ilql"})
    assert len(found[0]) == 2 * 6 * 2
    assert found[0] == found[1]


def test_a_sweep_of_several_arms_stopped_and_begun_again_ends_with_the_same_rows(
    refined: PretendedSweep, tmp_path: Path
) -> None:
    undisturbed = refined.worker()
    undisturbed.drive(refined.schedule(refinement=refined.proposals(3, rung=0.5)))
    other = dataclasses.replace(refined, store=Store(tmp_path / "other", durable=False), folder=tmp_path / "studies")
    worker = other.worker()
    for jobs in (2, 5, 9):  # killed after so many jobs
        schedule = other.schedule(refinement=other.proposals(3, rung=0.5))
        for _ in range(jobs):
            found = schedule.next_job()
            assert found is not None
            worker.work(found[1])
            schedule.job_ended(found[0], None)
    worker.drive(other.schedule(refinement=other.proposals(3, rung=0.5)))
    assert rows_of(other) == rows_of(refined)
    assert len(worker.done) == len(undisturbed.done)  # nothing was done twice


def rows_of(sweep: PretendedSweep) -> dict[str, tuple[Any, ...]]:
    """What must not depend on how a sweep came about, by trial."""
    names = ("arm", "origin", "status", "reason", "score", "tune_score")
    return {row["trial_id"]: tuple(row.get(name) for name in names) for row in sweep.store.rows("sweep")}


def test_more_proposals_later_change_no_row_of_any_arm(refined: PretendedSweep) -> None:
    refined.worker().drive(refined.schedule(refinement=refined.proposals(1)))
    before = rows_of(refined)
    refined.worker().drive(refined.schedule(refinement=refined.proposals(3)))
    after = rows_of(refined)
    assert len(after) == len(before) + 3 * 2 * 2
    assert {trial: after[trial] for trial in before} == before


def test_an_arm_more_changes_no_row_of_the_others(refined: PretendedSweep) -> None:
    fewer = dataclasses.replace(
        refined, design=[t for t in refined.design if t.arm != "cql"], space={"ilql": TAU, "ilql_without_cql": TAU}
    )
    fewer.worker().drive(fewer.schedule(refinement=fewer.proposals(3)))
    before = rows_of(fewer)
    refined.worker().drive(refined.schedule(refinement=refined.proposals(3)))
    after = rows_of(refined)
    assert {trial: after[trial] for trial in before} == before


def test_an_arm_is_refined_once(refined: PretendedSweep) -> None:
    base = refined.design[0]
    with pytest.raises(ValueError, match="an arm is refined once, got ilql, ilql"):
        Refinement(bases=(base, base), proposals=1)


# In a question


def small(name: str = "tiny", **changes: Any) -> Preset:
    """The bandit's preset with little in it."""
    return dataclasses.replace(bandit_ablation.SMOKE, name=name, **changes)


QUESTION = dataclasses.replace(
    bandit_ablation.QUESTION,
    presets={"smoke": small(proposals=2), "own": small(methods={"cql": {"train.steps": 7}})},
    grids=(
        Grid("bc", {}),
        Grid("sarsa", {"decode.beta": (1.0,)}),
        Grid("ilql", {"train.tau": (0.7, 0.9), "decode.beta": (1.0, 2.0)}),
        Grid("cql", {"decode.beta": (1.0,)}),
        Grid("ilql", {"train.tau": (0.7,), **WITHOUT_LM}, variant="ilql_without_lm"),
        Grid("ilql", {"train.tau": (0.7,)}, variant="single", switch={"train.double_q": False, "train.gamma": 0.9}),
    ),
    main=("bc", "ilql", "cql"),
    refine=("ilql", "cql"),
    held=("train.gamma",),
)
"""Six arms on the bandit: three are run unless others are named, two of them refined."""


def options(*arguments: str, store: Path | None = None, question: Question = QUESTION) -> Options:
    where = () if store is None else ("--store", str(store))
    return options_of(question, "sweeps/bandit_ablation.py", ("--preset", "smoke", *arguments, *where))


def definite(store: Path, *arguments: str, question: Question = QUESTION) -> Sweep:
    """The sweep that a command line names."""
    asked = options(*arguments, store=store, question=question)
    preset = chosen_preset(question, asked)
    return make_sweep(question, preset, asked, Store(store, durable=False), lambda line: None)


@pytest.mark.parametrize(
    ("arguments", "arms"),
    [
        ((), ["bc", "ilql", "cql"]),
        (("--methods", "all"), ["bc", "sarsa", "ilql", "cql", "ilql_without_lm", "single"]),
        (("--methods", "single,bc"), ["bc", "single"]),  # in the design's order
        (("--methods", "sarsa,all"), ["bc", "sarsa", "ilql", "cql", "ilql_without_lm", "single"]),
    ],
)
def test_the_arms_that_are_run_are_the_main_ones_or_those_named(arguments: tuple[str, ...], arms: list[str]) -> None:
    assert [grid.arm for grid in QUESTION.chosen(options(*arguments))] == arms


def test_a_question_without_main_arms_runs_them_all() -> None:
    question = dataclasses.replace(QUESTION, main=())
    assert [grid.arm for grid in question.chosen(options())] == question.arms


@pytest.mark.parametrize(
    ("arguments", "arms"),
    [
        ((), ["ilql", "cql"]),
        (("--methods", "ilql,sarsa"), ["ilql"]),
        (("--methods", "bc,sarsa"), []),
        (("--refine", "cql"), ["cql"]),
        (("--methods", "all", "--refine", "sarsa,single"), ["sarsa", "single"]),
    ],
)
def test_the_arms_that_are_refined_are_the_questions_or_those_named(
    tmp_path: Path, arguments: tuple[str, ...], arms: list[str]
) -> None:
    assert [grid.arm for grid in QUESTION.refined(options(*arguments))] == arms
    refinement = definite(tmp_path / "store", *arguments).refinement
    assert [base.arm for base in refinement.bases] == arms if refinement is not None else arms == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "bc,ilqll"), r"'ilqll' is no method of a bandit sweep; known: ilql, .*all"),
        (("--refine", "ilqll"), r"'ilqll' is no method of a bandit sweep; known: ilql, "),
        (("--refine", "sarsa"), r"--refine must name arms that are run, got 'sarsa'; --methods names them"),
        (("--refine", "bc"), r"a method that is refined must declare where to search, 'bc' declares nothing"),
    ],
)
def test_arms_that_cannot_be_run_or_refined_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises((KeyError, ValueError), match=message) as caught:
        chosen_preset(QUESTION, options(*arguments))
    assert "\n" not in str(caught.value.args[0])


def test_an_arm_that_decides_all_there_is_cannot_be_refined() -> None:
    whole = {"train.tau": 0.7, "train.cql_weight": 0.0}
    question = dataclasses.replace(
        QUESTION, grids=(*QUESTION.grids, Grid("ilql", {}, variant="whole", switch=whole)), main=("whole",)
    )
    with pytest.raises(ValueError, match="must leave something to vary, 'whole' decides all there is"):
        question.refined(options("--refine", "whole"))


@pytest.mark.parametrize("wrong", [{"main": ("nosuch",)}, {"refine": ("nosuch",)}])
def test_a_question_names_arms_that_it_has(wrong: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match="'nosuch' is no method of a bandit sweep"):
        dataclasses.replace(QUESTION, **wrong)


def test_a_question_refines_nothing_that_has_no_search() -> None:
    with pytest.raises(ValueError, match="'bc' declares nothing"):
        dataclasses.replace(QUESTION, refine=("bc",))


def test_a_sweeps_design_is_its_arms_cells(tmp_path: Path) -> None:
    sweep = definite(tmp_path / "store", "--methods", "all")
    assert [(training.arm, len(training.decodes)) for training in sweep.design] == [
        ("bc", 1), ("sarsa", 1), ("ilql", 2), ("ilql", 2), ("cql", 1), ("ilql_without_lm", 1), ("single", 1),
    ]  # fmt: skip
    assert sweep.design[-1].train.double_q is False


def test_one_cell_under_two_arms_is_refused(tmp_path: Path) -> None:
    twice = Grid("ilql", {"train.tau": (0.7,), "decode.beta": (2.0,)}, variant="again")
    question = dataclasses.replace(QUESTION, grids=(*QUESTION.grids, twice))
    with pytest.raises(ValueError, match="a design must hold a cell once"):
        definite(tmp_path / "store", "--methods", "all", question=question)


# Columns


def steps(sweep: Sweep) -> dict[str, int]:
    return {training.arm: training.train.steps for training in sweep.design}


def test_a_presets_columns_for_one_method_are_that_methods_alone(tmp_path: Path) -> None:
    assert steps(definite(tmp_path / "store", "--preset", "own")) == {"bc": 100, "ilql": 300, "cql": 7}


def test_a_column_the_user_fixes_goes_before_the_presets_for_one_method(tmp_path: Path) -> None:
    sweep = definite(tmp_path / "store", "--preset", "own", "--set", "train.steps=5")
    assert steps(sweep) == {"bc": 100, "ilql": 5, "cql": 5}


def test_proposals_start_from_the_presets_columns_for_their_method(tmp_path: Path) -> None:
    refinement = definite(tmp_path / "store", "--preset", "own").refinement
    assert refinement is not None
    assert {base.arm: base.train.steps for base in refinement.bases} == {"ilql": 300, "cql": 7}


def test_columns_for_one_method_hold_with_data_too() -> None:
    preset = small(methods={"cql": {"train.steps": 7}}, with_data={"train.steps": 9, "vocabulary": 80})
    given = preset.for_data()
    assert (given.vocabulary, given.base["train.steps"], given.methods, given.with_data) == (
        80, 9, {"cql": {"train.steps": 7}}, {},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--methods", "single", "--set", "train.double_q=true"),
            r"single is what it is by its train\.double_q, which cannot vary, got \[True\]",
        ),
        (("--set", "train.cql_weight=3"), "a column that proposals vary may not be fixed, got train.cql_weight; "),
    ],
)
def test_what_makes_an_arm_or_the_proposals_vary_cannot_be_set(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_preset(QUESTION, options(*arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--methods", "sarsa,cql", "--set", "train.polyak=0.6", "--trials", "0"),  # no arm that is run varies it
        ("--trials", "0", "--set", "train.cql_weight=3"),
        ("--methods", "sarsa", "--set", "train.cql_weight=3"),  # nothing is refined
        ("--set", "train.double_q=false"),
        ("--set", "train.tau=0.6"),  # the design's own then has this one value
    ],
)
def test_the_rest_can_be_set(arguments: tuple[str, ...]) -> None:
    chosen_preset(QUESTION, options(*arguments))


@pytest.mark.parametrize("column", ["train.tau=0.6", "decode.candidates=3", "train.returns=to_go"])
def test_a_column_that_no_method_which_is_run_has_cannot_be_set(column: str) -> None:
    question = dataclasses.replace(
        QUESTION, grids=(*QUESTION.grids, Grid("decision_transformer", {}), Grid("chai", {"decode.candidates": (2,)}))
    )
    arguments = options("--methods", "bc,sarsa", "--trials", "0", "--set", column, question=question)
    with pytest.raises(
        ValueError, match=rf"a method which is run takes .*, got {column.partition('=')[0]} with bc, sarsa"
    ):
        chosen_preset(question, arguments)


def test_a_convention_is_for_the_methods_it_is_about_and_set_goes_before_it(tmp_path: Path) -> None:
    arguments = ("--methods", "sarsa,cql", "--trials", "0", "--convention", "trlx", "--set", "train.polyak=0.5")
    question = dataclasses.replace(QUESTION, grids=(*QUESTION.grids, Grid("qsft", {})))
    by_method = {t.method: t.train for t in definite(tmp_path / "store", *arguments, question=question).design}
    assert by_method["sarsa"].cql_weight == 0.1  # trlx's
    assert by_method["sarsa"].polyak == 0.5  # set
    assert by_method["sarsa"].target_every == by_method["cql"].target_every == 5
    others = definite(
        tmp_path / "store", "--methods", "qsft,sarsa", "--trials", "0", "--convention", "trlx", question=question
    )
    assert {t.train.target_every for t in others.design if t.method == "qsft"} == {1}


def test_a_column_of_a_method_that_only_clones_can_be_set(tmp_path: Path) -> None:
    question = dataclasses.replace(QUESTION, grids=(*QUESTION.grids, Grid("decision_transformer", {})))
    arguments = ("--methods", "decision_transformer", "--set", "train.returns=to_go")
    (training,) = definite(tmp_path / "store", *arguments, question=question).design
    assert training.train.returns == "to_go"
    assert training.train.steps == 100  # the rest is the cloning's


def test_a_column_that_cloning_shares_is_set_as_the_behaviour_policys() -> None:
    with pytest.raises(ValueError, match=r"got train\.steps with bc; .* set with behaviour"):
        chosen_preset(QUESTION, options("--methods", "bc", "--set", "train.steps=5"))


# The questions of the folder


def test_the_visual_dialogue_question_has_an_arm_of_every_method() -> None:
    from ilql.methods import known_methods

    assert {grid.method for grid in visdial_ablation.QUESTION.grids} == set(known_methods())


def test_the_arms_that_are_run_unless_others_are_named_are_rows_of_the_papers_table() -> None:
    rows = {"bc", "filtered_bc", "sarsa", "ilql", "cql", "psi", "awr", "decision_transformer"}
    main = {grid.arm for grid in visdial_ablation.QUESTION.chosen(options())}
    assert {"ilql", "bc"} <= main <= rows


def cells() -> Iterator[tuple[str, int]]:
    for grid in visdial_ablation.QUESTION.grids:
        yield grid.arm, sum(len(training.decodes) for training in grid.trainings({}))


def test_the_whole_grid_has_the_papers_cells() -> None:
    # Per arm: values of what is trained times values of what is decoded (the table).
    assert dict(cells()) == {
        "bc": 1, "filtered_bc": 3, "sarsa": 3, "ilql": 9, "cql": 12, "psi": 12, "awr": 3, "decision_transformer": 12,
        "utterance_ilql": 12, "ilql_without_lm": 1, "chai": 9, "mc_returns": 3, "qsft": 6,
    }  # fmt: skip


def test_refining_all_refines_whatever_can_be_refined() -> None:
    options = options_of(
        visdial_ablation.QUESTION, "program", ["--preset", "smoke", "--methods", "all", "--refine", "all"]
    )
    refined = [grid.arm for grid in visdial_ablation.QUESTION.refined(options)]
    assert "bc" not in refined  # it has nothing to search
    assert {"filtered_bc", "ilql", "cql", "awr", "chai"} <= set(refined)
