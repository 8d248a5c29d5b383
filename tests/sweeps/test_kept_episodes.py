"""An evaluation that is interrupted goes on with the episodes that had ended, and ends in the same scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
import torch

from ilql.dialogue import Dialogue, Turn
from ilql.evaluate import Episode
from ilql.task import Environment, Reply, TaskFault
from ilql.tasks.bandit import Bandit
from sweeps import kept_episodes
from sweeps.exact_json import Record
from sweeps.kept_episodes import KeptEpisodes
from sweeps.spec import TrialSpec
from sweeps.stages import load_task
from sweeps.stopping import JobStopped
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench

CPU = torch.device("cpu")
BETAS = (0.0, 1.0, 2.0, 4.0, 8.0)
EPISODES = 60


class Killed(BaseException):
    """Ends a job as a kill does: nothing of ours answers it."""


def silently(numbers: Mapping[str, float]) -> None:
    pass


@pytest.fixture(autouse=True)
def _noted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_episodes, "NOTED_SECONDS", 0.0)


@pytest.fixture
def trials(bench: Bench) -> list[TrialSpec]:
    """One training, finished, and how it is to be played."""
    made = [bench.trial(decode={"beta": beta}, evaluation={"episodes": EPISODES}) for beta in BETAS]
    assert run_job(bench.job(made[0]), silently) == "finished"
    return made


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the episodes that are begun, one after the other."""
    seeds: list[int] = []
    environment = Bandit.environment

    def begin(task: Bandit, seed: int, split: str) -> Environment:
        seeds.append(seed)
        return environment(task, seed, split)

    monkeypatch.setattr(Bandit, "environment", begin)
    return seeds


def interrupt(bench: Bench, trials: Sequence[TrialSpec], *, keep_trajectory: bool = False) -> int:
    """Let an evaluation be killed when half of its episodes have ended; says how many had."""
    ended: list[float] = []

    def tell(numbers: Mapping[str, float]) -> None:
        ended.append(numbers.get("episodes", 0.0))
        if ended[-1] >= len(trials) * EPISODES / 2:
            raise Killed

    with pytest.raises(Killed):
        run_job(bench.job(trials[0], *trials, keep_trajectory=keep_trajectory), tell)
    return int(ended[-1])


def folder(bench: Bench, trial: TrialSpec) -> Path:
    return bench.store.scratch_path("trajectory", trial.trajectory_id) / "episodes"


def outcome(bench: Bench, trial: TrialSpec) -> tuple[pl.DataFrame, Record]:
    """An evaluation's episodes, and its record without what differs between two of the same."""
    record = bench.store.get("evaluation", trial.trial_id)
    assert record is not None
    timed = ("evaluate_seconds", "started_at", "finished_at", "under")
    return bench.store.episodes([trial.trial_id]), {name: v for name, v in record.items() if name not in timed}


def assert_equal(bench: Bench, other: Bench, trials: Sequence[TrialSpec]) -> None:
    for trial in trials:
        (episodes, record), (expected, wanted) = outcome(bench, trial), outcome(other, trial)
        assert record == wanted
        assert (episodes.schema, episodes.equals(expected)) == (expected.schema, True)


def test_what_had_ended_is_not_played_again_and_the_scores_are_the_same(
    bench: Bench, other_bench: Bench, trials: list[TrialSpec], begun: list[int]
) -> None:
    run_job(other_bench.job(trials[0], *trials), silently)
    assert len(begun) == len(BETAS) * EPISODES
    ended = interrupt(bench, trials)
    assert 0 < ended < len(BETAS) * EPISODES
    begun.clear()
    told: list[float] = []
    run_job(bench.job(trials[0], *trials), lambda numbers: told.append(numbers.get("episodes", 0.0)))
    assert len(begun) == len(BETAS) * EPISODES - ended
    assert told[0] > ended  # progress goes on from there
    assert_equal(bench, other_bench, trials)
    assert not folder(bench, trials[0]).exists()


def test_what_an_evaluation_took_is_summed_over_its_attempts(
    bench: Bench, trials: list[TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(bench, trials)
    (kept,) = [KeptEpisodes(bench.store, trials, CPU).seconds]
    assert all(seconds > 0 for seconds in kept)
    run_job(bench.job(trials[0], *trials), silently)
    for trial, seconds in zip(trials, kept, strict=True):
        record = bench.store.get("evaluation", trial.trial_id)
        assert record is not None
        assert record["evaluate_seconds"] > seconds


def test_a_request_to_stop_keeps_all_that_have_ended(
    bench: Bench, trials: list[TrialSpec], begun: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_episodes, "NOTED_SECONDS", math.inf)
    monkeypatch.setattr("sweeps.stopping.LOOK_SECONDS", 0.0)
    ended: list[float] = []

    def tell(numbers: Mapping[str, float]) -> None:
        ended.append(numbers["episodes"])
        (tmp_path / "stop").touch()  # at the end of the first round: the second is the last

    job = dataclasses.replace(bench.job(trials[0], *trials), stop=str(tmp_path / "stop"))
    with pytest.raises(JobStopped):
        run_job(job, tell)
    kept = KeptEpisodes(bench.store, trials, CPU).played
    assert len(kept) > ended[-1]
    begun.clear()
    run_job(bench.job(trials[0], *trials), silently)
    assert len(begun) == len(BETAS) * EPISODES - len(kept)


def test_evaluations_that_take_seconds_write_nothing(
    bench: Bench, trials: list[TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_episodes, "NOTED_SECONDS", 1000.0)
    interrupt(bench, trials)
    assert not folder(bench, trials[0]).exists()


@pytest.mark.parametrize("what", ["code_digest", "library_versions", "device"])
def test_what_another_program_or_device_played_does_not_count(
    bench: Bench, trials: list[TrialSpec], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    interrupt(bench, trials)
    assert KeptEpisodes(bench.store, trials, CPU).played
    if what != "device":
        monkeypatch.setattr(kept_episodes, what, lambda: "another")
    assert KeptEpisodes(bench.store, trials, torch.device("cuda" if what == "device" else "cpu")).played == {}


def test_other_trials_of_the_training_find_nothing_of_it(bench: Bench, trials: list[TrialSpec]) -> None:
    ended = interrupt(bench, trials)
    tune = [dataclasses.replace(t, evaluation=dataclasses.replace(t.evaluation, split="tune")) for t in trials]
    assert KeptEpisodes(bench.store, tune, CPU).played == {}
    backwards = KeptEpisodes(bench.store, trials[::-1], CPU).played  # by their own numbers, whatever those are now
    forwards = KeptEpisodes(bench.store, trials, CPU).played
    assert len(forwards) == ended
    assert {(len(trials) - 1 - p, s): episode for (p, s), episode in backwards.items()} == forwards


def test_what_was_torn_or_changed_is_played_again(
    bench: Bench, other_bench: Bench, trials: list[TrialSpec], begun: list[int]
) -> None:
    ended = interrupt(bench, trials)
    (journal,) = folder(bench, trials[0]).iterdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == ended
    lines[3] = lines[3].replace(b'"turns":1', b'"turns":2')
    journal.write_bytes(b"".join(lines)[:-20])
    begun.clear()
    run_job(bench.job(trials[0], *trials), silently)
    assert len(begun) == len(BETAS) * EPISODES - (ended - 2)
    run_job(other_bench.job(trials[0], *trials), silently)
    assert_equal(bench, other_bench, trials)


def test_what_is_whole_and_none_of_ours_is_played_again(bench: Bench, trials: list[TrialSpec]) -> None:
    kept = KeptEpisodes(bench.store, trials, CPU)
    odd: list[Record] = [{"scene": "x"}, {"seconds": 1.0, "said": 3}, {}]
    kept._records.put("episode", {kept._key((0, place)): value for place, value in enumerate(odd)})
    assert KeptEpisodes(bench.store, trials, CPU).played == {}


def test_of_a_world_that_fails_nothing_is_kept(
    bench: Bench, trials: list[TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = []
    step = Bandit.step

    def fail(task: Bandit, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        rounds.append(len(environments))
        if len(rounds) > 3:
            raise TaskFault("the server must answer with text, got nothing")
        return step(task, environments, utterances)

    monkeypatch.setattr(Bandit, "step", fail)
    run_job(bench.job(trials[0], *trials, keep_trajectory=True), silently)
    assert sum(rounds[:3]) > 0
    assert outcome_status(bench, trials[0]) == "failed"
    assert not folder(bench, trials[0]).exists()


def outcome_status(bench: Bench, trial: TrialSpec) -> object:
    record = bench.store.get("evaluation", trial.trial_id)
    return None if record is None else record["status"]


def test_when_all_is_recorded_nothing_is_kept_though_checkpoints_are(bench: Bench, trials: list[TrialSpec]) -> None:
    interrupt(bench, trials, keep_trajectory=True)
    assert folder(bench, trials[0]).exists()
    run_job(bench.job(trials[0], *trials, keep_trajectory=True), silently)
    assert outcome_status(bench, trials[-1]) == "finished"
    assert not folder(bench, trials[0]).exists()


def test_a_killed_fit_plays_no_episode_again(bench: Bench, begun: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_episodes, "NOTED_SECONDS", math.inf)

    def load(*args: object) -> object:
        return dataclasses.replace(load_task(*args), playable=False)  # type: ignore[arg-type, type-var]

    monkeypatch.setattr("sweeps.evaluate_cells.load_task", load)
    trial = bench.trial(evaluation={"by": "fitted_q"})

    def tell(numbers: Mapping[str, float]) -> None:
        if numbers.get("estimating") == 3:
            raise Killed

    with pytest.raises(Killed):
        run_job(bench.job(trial, trial), tell)
    begun.clear()
    run_job(bench.job(trial, trial), silently)
    assert begun == []
    assert outcome_status(bench, trial) == "finished"


def test_an_episode_comes_back_as_it_was_and_numpys_numbers_are_not_kept(bench: Bench, trials: list[TrialSpec]) -> None:
    import numpy as np

    said = Dialogue((Turn("", by_agent=False), Turn("caf\u00e9 \ud800 \U0001f600", by_agent=True)), ended=True)
    odd = Episode(0, "scene", {"$r": 0.1 + 0.2, "s": -0.0}, 1, said, 1e-300, 0, 1, 1, {"m": math.inf, "whole": 3})
    kept = KeptEpisodes(bench.store, trials, CPU)
    kept.end((1, 0), odd)
    kept.end((1, 1), dataclasses.replace(odd, seed=1, measures={"m": np.float32(0.1)}))  # type: ignore[dict-item]
    kept.note()
    ((which, again),) = KeptEpisodes(bench.store, trials, CPU).played.items()
    assert (which, again) == ((1, 0), odd)
    assert [type(value) for value in again.measures.values()] == [float, int]
    assert math.copysign(1, again.returns["s"]) == -1
