"""`sweeps eval`: what is trained is played in other ways, nothing is trained, and what was added stays."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from command_line import answered

from sweeps import cli
from sweeps.added import addition
from sweeps.spec import TrialSpec
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import BanditSweep, Commands

pytestmark = pytest.mark.timeout(1200)


def betas(store: Store, sweep: str) -> dict[str, Counter[float]]:
    """How many finished rows every arm has at each β."""
    found: dict[str, Counter[float]] = {}
    for row in store.rows(sweep):
        if row["status"] == "finished":
            found.setdefault(row["arm"], Counter())[row.get("decode.beta")] += 1
    return found


def trained(store: Store) -> set[str]:
    return {key for kind, key in store.stages() if kind == "weights"}


def test_it_is_the_trainings_of_a_sweep_with_what_they_lack(bandit_sweep: BanditSweep) -> None:
    store, sweep = bandit_sweep.store, bandit_sweep.name
    before = betas(store, sweep)
    found = addition(store, sweep, {"decode.beta": (max(before["ilql"]), 77.0), "sarsa.decode.beta": (78.0,)})
    wanted = {training.arm: [decode.beta for decode in training.decodes] for training in found.design}
    assert wanted == {"ilql": [77.0], "sarsa": [78.0]}  # the first is there; what names an arm stands for that arm
    assert found.notes == ()
    trainings = Counter(training.arm for training in found.design)
    tau = {member["columns"]["train.tau"] for member in store.members(sweep) if member["arm"] == "ilql"}
    assert trainings["ilql"] <= len(tau)  # stopped proposals have no weights to play
    for training in found.design:
        (trial,) = found.shared.trials(training, 0, found.shared.tune)
        assert trial.evaluation.split == "tune"
        assert store.stage("weights", trial.weights_id) is not None


def test_trainings_without_weights_are_left_out_with_a_word(copied: BanditSweep) -> None:
    store, sweep = copied.store, copied.name
    (gone,) = {member["weights_id"] for member in store.members(sweep) if member["arm"] == "sarsa"}
    (folder,) = store.folder.glob(f"stages/weights/*/{gone}")
    shutil.rmtree(folder)
    found = addition(Store(store.folder), sweep, {"decode.beta": (77.0,)})
    assert {training.arm for training in found.design} == {"ilql"}
    (note,) = found.notes
    assert note == "left out: trainings whose weights are not all there, 1 of sarsa; the sweep's command makes them"


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (
            {"train.tau": (0.5,)},
            "can be played with other decode.* alone, of an arm of the sweep (bc, ",
        ),
        ({"cql.decode.beta": (1.0,)}, "what is trained can be played with other decode.* alone"),
        ({"decode.bata": (1.0,)}, "'decode.bata' is no column of these methods; known: decode.beta"),
        ({"bc.decode.beta": (1.0,)}, "'decode.beta' is no column of an 'bc' trial; known: decode.t"),
        ({"decode.beta": (-1.0,)}, "decode.beta must be at least 0, got -1.0"),
    ],
)
def test_what_cannot_be_added_is_one_line(bandit_sweep: BanditSweep, asked: dict[str, tuple[float]], line: str) -> None:
    with pytest.raises((KeyError, ValueError)) as raised:
        addition(bandit_sweep.store, bandit_sweep.name, asked)
    assert line in str(raised.value)


def test_what_is_there_is_an_empty_list_for_programs(
    bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    beta = max(betas(bandit_sweep.store, bandit_sweep.name)["ilql"])
    asked = ["eval", bandit_sweep.name, f"ilql.decode.beta={beta:g}", "--no-mlflow", "--json"]
    assert cli.main([*asked, "--store", str(bandit_sweep.store.folder)]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["wanted"], document["rows"], document["status"]) == (0, [], 0)
    assert "nothing to add: what is asked for is there" in captured.err


def test_it_plays_trains_nothing_and_what_it_added_stays(
    copied: BanditSweep, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    store, sweep, weights = copied.store, copied.name, trained(copied.store)
    before = betas(store, sweep)
    command = ("eval", str(store.folder), "--decode.beta", "77,78", "--no-mlflow", "--json")
    done = commands.sweeps(*command)
    assert done.status == 0, done.out + done.err
    document = json.loads(done.out)  # whatever Ray and the sweep have to say is beside it
    assert document["wanted"] == len(document["rows"]) > 0
    after = betas(Store(store.folder), sweep)
    for arm in ("ilql", "sarsa"):
        of_each = before[arm][max(before[arm])]
        assert after[arm] - before[arm] == Counter({77.0: of_each, 78.0: of_each})
    assert (after["bc"], after["filtered_bc"]) == (before["bc"], before["filtered_bc"])
    assert trained(store) == weights
    row = next(row for row in store.rows(sweep) if row["arm"] == "ilql" and row.get("decode.beta") == 77.0)
    spec = TrialSpec.from_json(store.get("member", f"{sweep}/{row['trial_id']}")["spec"])
    assert spec.trial_id == row["trial_id"]
    assert row["tune_score"] is not None
    assert cli.main(list(command)) == 0
    assert "nothing to add: what is asked for is there" in capsys.readouterr().err
    status, out = answered("bandit", "--preset", "smoke", "--store", str(store.folder), "--no-mlflow")
    assert status == 0, out
    assert betas(Store(store.folder), sweep) == after


def test_what_is_asked_for_must_be_said(bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["eval", str(bandit_sweep.store.folder)])
    assert left.value.code == 2
    assert "the following arguments are required: decode.COLUMN=VALUES" in capsys.readouterr().err
