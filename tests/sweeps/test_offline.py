"""Where nothing can be played a row's score is an estimate, its measures are of held-out dialogues, and it says so."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from command_line import one_line

from ilql.batch import tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.task import Task
from ilql.tasks.dialogues.payment import RewardFunction
from ilql.tokens import symbol_tokenizer
from ilql.windows import cut
from sweeps import cli, doubts, evaluate_cells
from sweeps.commands.run import run_command
from sweeps.commands.validate import READ
from sweeps.dialogue_ablation import QUESTION
from sweeps.dialogue_presets import PRESETS
from sweeps.doubts import Recorded, doubt, effective_dialogues, recorded_of
from sweeps.offline import (
    HELD_OUT,
    calibration,
    distinct_episodes,
    estimated_alone,
    held_out_notes,
    to_their_ends,
    what_followed,
)
from sweeps.offline_clone import beyond_its_model, clone_in, clones_all
from sweeps.play import invitation
from sweeps.progress import Progress
from sweeps.samples import best_rows
from sweeps.space import Grid, PlannedTraining
from sweeps.stages import load_task, load_tokenizer_stage
from sweeps.stopping import JobStopped
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, MakeTrial


ESTIMATED: dict[str, Any] = {"evaluation": {"by": "fitted_q"}}


def silently(numbers: Mapping[str, float]) -> None:
    """Hear nothing."""


@pytest.fixture
def unplayable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The bandit, as if nobody paid: what was recorded is all there is."""

    def load(*args: object) -> Task:
        task = load_task(*args)  # type: ignore[arg-type]
        return dataclasses.replace(task, playable=False)  # type: ignore[type-var]

    monkeypatch.setattr(evaluate_cells, "load_task", load)
    return bench


def test_a_score_is_the_mean_of_estimates_and_the_worlds_own_pay_is_none(unplayable: Bench) -> None:
    trial = unplayable.trial(**ESTIMATED)
    assert run_job(unplayable.job(trial, trial), silently) == "finished"
    record = unplayable.store.get("evaluation", trial.trial_id)
    folder = unplayable.store.stage("evaluation", trial.trial_id)
    assert record is not None
    assert folder is not None
    episodes = pl.read_parquet(folder / "episodes.parquet")
    assert record["score"] == pytest.approx(episodes["return"].mean())
    assert len(set(episodes["return"].to_list())) == 1  # every pull begins alike: paid, they would be 0 and 1
    assert episodes["return"][0] not in (0.0, 1.0)
    assert 0 < record["measures"]["held_out_nll"] < 5
    assert {"q_bias", "member_sd"} <= set(record["measures"])


def test_tune_and_report_scenes_share_one_fit(unplayable: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = unplayable.trial(**ESTIMATED)
    tune = dataclasses.replace(trial, evaluation=dataclasses.replace(trial.evaluation, split="tune"))
    assert run_job(unplayable.job(trial, trial, tune), silently) == "finished"
    assert len(list(unplayable.store.folder.glob("stages/fitted_q/*/*"))) == 1


def test_every_step_of_a_fit_and_every_pass_behind_it_is_a_sign_of_life(unplayable: Bench) -> None:
    trial = unplayable.trial(**ESTIMATED)
    told: list[Mapping[str, float]] = []
    run_job(unplayable.job(trial, trial), told.append)
    steps = [numbers["estimating"] for numbers in told if "estimating" in numbers]
    # 12 steps as its behaviour policy had; then a pass each for V, for the loss and for Q of at most 16 dialogues.
    assert steps == [*range(13), 12, 12, 12]


def test_a_fit_that_is_asked_to_stop_ends_with_its_step_and_leaves_nothing(
    unplayable: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.stopping.LOOK_SECONDS", 0.0)
    trial, told = unplayable.trial(**ESTIMATED), list[float]()
    job = dataclasses.replace(unplayable.job(trial, trial), stop=str(tmp_path / "stop"))

    def tell(numbers: Mapping[str, float]) -> None:
        told.append(numbers.get("estimating", 0.0))
        if numbers.get("estimating") == 3:
            (tmp_path / "stop").touch()

    with pytest.raises(JobStopped):
        run_job(job, tell)
    assert told[-1] == 3
    assert unplayable.store.get("evaluation", trial.trial_id) is None
    assert [kind for kind, _ in unplayable.store.stages() if kind == "fitted_q"] == []


def test_what_ranks_whole_utterances_is_a_failed_row_that_says_why(unplayable: Bench) -> None:
    trial = unplayable.trial("utterance_ilql", **ESTIMATED)
    run_job(unplayable.job(trial, trial), silently)
    record = unplayable.store.get("evaluation", trial.trial_id)
    assert record is not None
    assert record["status"] == "failed"
    assert record["reason"].startswith(
        "ValueError: fitted-Q evaluation needs a policy whose tokens have probabilities, got one that"
    )


class TestWhatIsEstimated:
    """Cloning can be estimated; a decision transformer is asked for a return."""

    DESIGN = tuple(grid.trainings({})[0] for grid in (Grid("bc", {}), Grid("decision_transformer", {})))

    def test_what_cannot_be_is_left_out_and_said(self) -> None:
        said: list[str] = []
        assert estimated_alone(self.DESIGN, ("all",), said.append) == self.DESIGN[:1]
        assert said == [
            "without an environment only a policy whose tokens have probabilities can be judged; left out: "
            "decision_transformer, which is asked for a return"
        ]

    def test_where_all_can_be_nothing_is_said(self) -> None:
        said: list[str] = []
        assert estimated_alone(self.DESIGN[:1], (), said.append) == self.DESIGN[:1]
        assert said == []

    @pytest.mark.parametrize(("design", "named"), [(DESIGN, ("bc", "decision_transformer")), (DESIGN[1:], ("all",))])
    def test_what_is_named_or_all_there_is_is_refused(
        self, design: Sequence[PlannedTraining], named: Sequence[str]
    ) -> None:
        with pytest.raises(ValueError, match="got decision_transformer, which is asked for a return; give --env"):
            estimated_alone(design, named, lambda line: None)


def test_who_asks_for_what_cannot_be_judged_is_told_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": "user", "text": "hello"}, {"role": "agent", "text": "good morning", "reward": 1}]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"id": f"d{n}", "turns": turns}) + "\n" for n in range(9)), encoding="utf-8")
    words = ["--methods", "bc,chai", "--preset", "smoke", "--data", str(file), "--store", str(tmp_path / "store")]
    assert run_command(QUESTION, "sweeps/dialogue_ablation.py", [*words, "--plan"]) == 2
    assert one_line(capsys).endswith(
        "can be judged, got chai, which ranks whole utterances; give --environment, or other --methods"
    )


def test_every_cell_is_fitted_as_its_behaviour_policy_was_trained(bench: Bench) -> None:
    one, other = bench.trial(), bench.trial(train={"steps": 7})
    assert one.fit == other.fit
    assert one.fit.steps == one.backbone.behaviour.steps


def test_how_returns_are_estimated_is_part_of_an_estimates_key_and_of_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> tuple[str, str]:
        return bench.trial("bc").trial_id, bench.trial("bc", **ESTIMATED).trial_id

    played, estimated = keys()
    assert played != estimated
    monkeypatch.setattr("ilql.fitted_q.VERSION", 99)
    assert keys()[0] == played
    assert keys()[1] != estimated


def test_values_of_standardised_returns_are_measured_against_standardised_returns(unplayable: Bench) -> None:
    # Q is 0 everywhere and hardly learns. Half the pulls return 0 and half 1, so their standardised mean is 0.
    knows_nothing = {"head_constant": 0.0, "learning_rate": 1e-9, "gamma": 1.0}
    biases = []
    for rewards in ("recorded", "standardised"):
        trial = unplayable.trial(train={**knows_nothing, "rewards": rewards}, **ESTIMATED)
        run_job(unplayable.job(trial, trial), silently)
        record = unplayable.store.get("evaluation", trial.trial_id)
        assert record is not None
        biases.append(record["measures"]["q_bias"])
    assert biases == pytest.approx([-0.5, 0.0], abs=1e-5)


def test_nothing_that_followed_is_in_the_unit_of_psi(unplayable: Bench) -> None:
    trial = unplayable.trial("psi", **ESTIMATED)
    run_job(unplayable.job(trial, trial), silently)
    record = unplayable.store.get("evaluation", trial.trial_id)
    assert record is not None
    assert "held_out_nll" in record["measures"]
    assert not {"q_bias", "q_correlation"} & set(record["measures"])


def test_calibration_by_hand() -> None:
    # Q 1, 2, 3 where 0, 2, 1 followed: bias (1 + 0 + 2)/3, correlation Σ(−1·−1, 0·1, 1·0)/√(2·2) = 1/2
    assert calibration(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 1.0])) == {
        "q_bias": pytest.approx(1.0), "q_correlation": pytest.approx(0.5)
    }  # fmt: skip
    assert calibration(np.array([1.0, 1.0]), np.array([0.0, 2.0])) == {"q_bias": 0.0}  # no line through one value


def test_what_followed_in_later_windows_followed() -> None:
    tokenizer = symbol_tokenizer("a")
    turns = [Turn("a", by_agent=True, reward=reward) for reward in (1.0, 0.0, 8.0)]
    ended, cut_off = (Dialogue(tuple(turns), ended=ended) for ended in (True, False))
    windows = [w for each in (cut_off, ended) for w in cut(each, tokenizer, max_tokens=4).sequences]
    # boa a eoa a eoa a eoa eod: γ = 1/2 halves at every token. The first dialogue's end is not known.
    known = to_their_ends(windows)
    assert known == windows[-3:]
    rewards = np.concatenate([window.rewards for window in known])
    assert what_followed([*known, *known], np.tile(rewards, 2), 0.5).tolist() == [0.75, 1.5, 1.0, 2.0, 4.0, 8.0] * 2


def test_as_many_dialogues_bear_on_an_estimate_as_its_log_ratio_leaves() -> None:
    # A policy that always says what one dialogue in four says: w = 4 there, so a quarter of them bear on it.
    assert effective_dialogues(40, math.log(4)) == pytest.approx(10.0)
    assert effective_dialogues(40, -0.1) == 40.0  # never more than there are


RECORDED = Recorded(dialogues=30, returns=(-5.0, 5.0), apart=8.0)


@pytest.mark.parametrize(
    ("score", "q_bias", "bearing", "why"),
    [
        (-0.5, 2.0, 5.0, None),
        (5.0, None, None, None),  # what nobody knows is not held against it
        (-0.23, 7.0, 0.04, "0.0 dialogues bear on it"),
        (-5.745, None, 30.0, "−5.75 is outside of the recorded returns, −5.00 to 5.00"),
        (0.0, -8.1, 30.0, "Q − followed is −8.10, where what followed lies at most 8.00 apart"),
        (6.0, 0.0, 1.0, "1.0 dialogues bear on it, 6.00 is outside of the recorded returns, −5.00 to 5.00"),
    ],
)
def test_an_estimate_is_held_against_what_was_recorded(
    score: float, q_bias: float | None, bearing: float | None, why: str | None
) -> None:
    assert doubt(score, q_bias, bearing, RECORDED) == why


def test_what_was_recorded_is_of_dialogues_that_were_recorded_to_their_ends(bench: Bench) -> None:
    def said(*rewards: float, ended: bool = True) -> Dialogue:
        return Dialogue(tuple(Turn("a", by_agent=True, reward=reward) for reward in rewards), ended=ended)

    class Few:
        def dialogues(self, split: str, reward: str) -> list[Dialogue]:
            return [said(-1.0, 5.0), said(-3.0, -1.0), said(-90.0, ended=False)]

    recorded = recorded_of(Few(), bench.trial())  # type: ignore[arg-type]
    # They return 4 and −4. What followed a turn: 4, 5, −4, −1.
    assert recorded == Recorded(dialogues=3, returns=(-4.0, 4.0), apart=9.0)


def test_what_is_not_believed_is_best_nowhere_while_another_is(
    unplayable: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    store = unplayable.store
    trials = [unplayable.trial(method, **ESTIMATED) for method in ("bc", "ilql")]
    for trial in trials:
        assert run_job(unplayable.job(trial, trial), silently) == "finished"
        member = unplayable.member(trial)
        store.put("member", f"s/{trial.trial_id}", member)
    low, high = sorted(trials, key=lambda trial: store.get("evaluation", trial.trial_id)["score"])  # type: ignore[index]
    task = dataclasses.replace(load_task(store, "bandit", unplayable.world), playable=False)  # type: ignore[type-var]
    far = {low.trial_id: 0.0, high.trial_id: 500.0}

    def heard() -> tuple[str, str, list[str]]:
        for trial, log_ratio in far.items():
            record = store.get("evaluation", trial)
            assert record is not None
            store.put("evaluation", trial, record | {"measures": {"log_ratio": log_ratio}})
        out = io.StringIO()
        schedule = SimpleNamespace(finished_jobs=0, cached_jobs=2, wanted_jobs=2, running_names=[])
        Progress(store, "s", schedule, out).changed()  # type: ignore[arg-type]
        marked = [arm for arm, row in best_rows(store, "s").items() if row["doubt"] is not None]
        return invitation(store, "s", task) or "", out.getvalue(), marked

    invited, told, marked = heard()
    assert invited.startswith(f"the policy with the highest estimate that is believed, {low.method}, speaks with: ")
    assert f"best so far {low.method} " in told
    assert marked == [high.method]
    assert cli.main(["status", "s", "--store", str(store.folder)]) == 0
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert lines[high.method].endswith("not believed: 0.0 dialogues bear on it")
    assert "† " in lines[high.method]
    assert "†" not in lines[low.method]
    assert cli.main(["status", "s", "--json", "--store", str(store.folder)]) == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert (rows[high.method]["doubt"], "doubt" in rows[low.method]) == ("0.0 dialogues bear on it", False)
    far[low.trial_id] = 500.0
    invited, told, _ = heard()
    assert invited.startswith(f"no estimate is to be believed; the policy with the highest one, {high.method}, speaks")
    assert f"best so far {high.method} " in told
    assert "not believed: 0.0 dialogues bear on it" in told


def test_what_cloned_a_part_is_measured_from_a_clone_of_all(unplayable: Bench) -> None:
    # Uniform data of rewards 0 and 1, of which %BC keeps the half that pays: it pulls the good arm, which the other
    # clone pulls every second time, so that it is about log 2 from the data, though it never leaves its own model.
    store = unplayable.store
    part = unplayable.trial("filtered_bc", train={"keep": 0.4, "steps": 60}, **ESTIMATED)
    whole = unplayable.trial("bc", train={"steps": 60}, **ESTIMATED)
    assert (clones_all(part), clones_all(whole), clones_all(unplayable.trial())) == (False, True, True)
    run_job(unplayable.job(part, part), silently)
    run_job(unplayable.job(whole, whole), silently)
    record = store.get("evaluation", part.trial_id)
    assert record is not None
    assert record["measures"]["log_ratio"] == pytest.approx(0.0, abs=1e-4)
    clone = clone_in(store, [part, whole])
    assert clone == part.behaviour  # its weights are there; of a sweep without one it is the trial of `bc`
    beyond = beyond_its_model(store, part, whole)
    assert beyond == pytest.approx(math.log(2), abs=0.25)
    store.drop("weights", whole.weights_id)
    assert beyond_its_model(store, part, whole) == beyond  # kept
    store.drop("weights", part.behaviour.weights_id)
    assert clone_in(store, [part, whole]) is None
    assert beyond_its_model(store, part, dataclasses.replace(whole, seed=1)) is None


def test_held_out_dialogues_that_are_cut_are_counted(bench: Bench) -> None:
    task, trial = load_task(bench.store, "bandit", bench.world), bench.trial()
    tokenizer = load_tokenizer_stage(bench.store, trial)
    lengths = {len(tokenize(each, tokenizer).tokens) for each in task.dialogues("tune", "standard")}
    assert len(lengths) == 1  # every pull is as long as any other
    (longest,) = lengths
    asked = (dataclasses.replace(trial.evaluation, split="tune"),)
    assert held_out_notes(task, tokenizer, longest, asked, in_windows=False) == []
    (line,) = held_out_notes(task, tokenizer, longest - 1, asked, in_windows=False)
    number = len(task.dialogues("tune", "standard")[:HELD_OUT])
    assert line.startswith(
        f"{number:,} of {number:,} tune dialogues are longer than train.max_tokens={longest - 1} and"
    )
    assert line.endswith(f"({1 / longest:.1%} of all tokens are left out)")
    (line,) = held_out_notes(task, tokenizer, longest - 1, asked, in_windows=True)
    assert line.endswith(f"and are cut into {2 * number} windows that bootstrap: no reward is lost")


def test_an_opening_that_leaves_no_room_for_an_answer_is_refused_before_anything_is_learnt(bench: Bench) -> None:
    task, trial = load_task(bench.store, "bandit", bench.world), bench.trial()
    tokenizer = load_tokenizer_stage(bench.store, trial)
    opening = len(tokenize(Dialogue((Turn("pull", by_agent=False),), ended=False), tokenizer).tokens)
    asked = (dataclasses.replace(trial.evaluation, split="tune"),)
    assert held_out_notes(task, tokenizer, opening + 1, asked, in_windows=False)
    with pytest.raises(ValueError, match=rf"max_tokens={opening}, got {opening} tokens in pull-\d+ of the tune") as e:
        held_out_notes(task, tokenizer, opening, asked, in_windows=False)
    assert "\n" not in str(e.value)


def test_validating_says_which_presets_cannot_read_dialogues_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {name: preset.base["train.max_tokens"] for name, preset in PRESETS.items()} == READ
    lines = [
        {"turns": [{"role": "user", "text": "so " * heard}, {"role": "agent", "text": "so " * said, "reward": 1}]}
        for heard, said in ((1, 9), (2, 9), (3, 300), (300, 300))
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    shares = ["--set", "world.train_share=0.5", "--set", "world.tune_share=0.25"]
    assert cli.main(["validate", str(file), *shares]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("at least")]
    assert said == [
        "at least 2 of 4 dialogues are longer than the 256 tokens that smoke reads at once: "
        "they are cut into windows, and no reward is lost",
        "at least 1 turn of the world is longer than that: smoke reads the last 192 tokens of one at most",
        "at least 1 of 4 dialogues are longer than the 512 tokens that laptop reads at once: "
        "they are cut into windows, and no reward is lost",
    ]


def test_episodes_end_where_a_scene_comes_again(bench: Bench) -> None:
    task = load_task(bench.store, "bandit", bench.world)
    assert distinct_episodes(task, "tune", 5) == 5

    class Two:
        def environment(self, seed: int, split: str) -> object:
            return type("E", (), {"scene": str(seed % 2)})()

    assert distinct_episodes(Two(), "tune", 5) == 2  # type: ignore[arg-type]


def test_validating_says_once_that_there_is_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", str(tmp_path / "none.jsonl")]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("must be a file that exists")) == ("", 1)


def test_a_role_that_is_not_known_says_that_named_ones_replace_the_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"turns": [{"role": "customer", "text": "so"}, {"role": "agent", "text": "so"}]}))
    assert cli.main(["validate", str(file)]) == 2
    assert "--set world.agent_roles=… and world.world_roles=…: all there are, for they replace the known ones" in (
        capsys.readouterr().out
    )


def test_a_function_that_gives_no_finite_number_is_told_so() -> None:
    function = RewardFunction(lambda dialogue, turn: math.nan, -1.0, 1.0)
    with pytest.raises(ValueError, match=r"must give a finite number for turn 0 \(from 0\) of dialogue 'a', got"):
        function.pay([("agent", "so")], 0, "a")


def test_standardised_values_are_not_held_against_recorded_rewards(make_trial: MakeTrial) -> None:
    standardised = make_trial("ilql", train={"rewards": "standardised"})
    assert not doubts._in_units_of_rewards(standardised)
    assert all(doubts._in_units_of_rewards(make_trial(method)) for method in ("ilql", "bc"))
