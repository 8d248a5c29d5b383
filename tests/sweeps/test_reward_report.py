"""The report across rewards: what it reads from a store, and where it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sweeps.frames import EPISODES_FILE
from sweeps.reward_report import joined_name, write_reward_report
from sweeps.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def add(
    store: Store,
    sweep: str,
    reward: str,
    name: str,
    returns: Mapping[str, Sequence[float]] | None,
    *,
    method: str = "ilql",
    arm: str | None = None,
    tune: float | None = None,
    **columns: float,
) -> None:
    """Put one cell of a sweep into the store: finished with these returns by reward, or failed for None."""
    store.put("sweep", sweep, {"task": "visdial", "created_at": "2026-01-02T03:04:05Z"})
    block = {"task": "visdial", "data.reward": reward, "evaluation.reward": reward, "evaluation.split": "report"}
    trial = f"{name}-{reward}"
    member: dict[str, Any] = {
        "sweep": sweep,
        "trial_id": trial,
        "weights_id": f"w-{trial}",
        "cell_id": trial,
        "method": method,
        "origin": "design",
        "seed": 0,
        "split": "report",
        "columns": {**block, "evaluation.episodes": 2, **columns},
        "tune_trial_id": f"{trial}-tune",
    }
    store.put("member", f"{sweep}/{trial}", member | ({} if arm is None else {"arm": arm}))
    if tune is not None:
        store.put("evaluation", f"{trial}-tune", {"status": "finished", "score": tune, "episodes": 2})
    if returns is None:
        store.put("evaluation", trial, {"status": "failed", "reason": "lost"})
        return
    own = list(returns[reward])
    score = sum(own) / len(own)
    store.put("evaluation", trial, {"status": "finished", "reason": None, "score": score, "episodes": len(own)})
    episodes = pl.DataFrame(
        {
            "episode_seed": list(range(len(own))),
            "scene": [f"scene {index}" for index in range(len(own))],
            "return": own,
            "turns": [3] * len(own),
            "transcript": ["[]"] * len(own),
            **{f"return.{other}": list(values) for other, values in returns.items()},
        }
    )
    store.build("evaluation", trial, lambda folder: episodes.write_parquet(folder / EPISODES_FILE), {})


@pytest.fixture
def filled(store: Store) -> Store:
    """Two rewards, ILQL at two τ and once without the language model under yn, and once under standard."""
    add(store, "v-yn", "yn", "a", {"yn": [-3.0, -5.0], "standard": [-4.0, -4.0]}, tune=-9.0, **{"train.tau": 0.7})
    add(store, "v-yn", "yn", "b", {"yn": [-6.0, -8.0], "standard": [-1.0, -3.0]}, tune=-5.0, **{"train.tau": 0.8})
    add(store, "v-yn", "yn", "c", {"yn": [-8.0, -8.0], "standard": [-9.0, -9.0]}, arm="ilql_without_lm", tune=-7.0)
    add(store, "v-standard", "standard", "a", {"yn": [-7.0, -9.0], "standard": [-2.0, -4.0]}, tune=-3.0)
    add(store, "v-standard", "standard", "b", None, method="bc")
    return store


SWEEPS = {"yn": "v-yn", "standard": "v-standard"}


def test_the_files_and_the_lines_hold_both_tables(filled: Store) -> None:
    paths, lines = write_reward_report(filled, SWEEPS, transfer=True)
    folder = filled.folder / "reports" / "v-yn+standard"
    assert [path.relative_to(folder).as_posix() for path in paths] == [
        *("rewards.md", "rewards.tex", "rewards.csv", "rewards.json"),
        *("transfer.md", "transfer.tex", "transfer.csv", "transfer.json"),
    ]
    text = "\n".join(lines)
    assert paths[0].read_text(encoding="utf-8") in text
    assert "the best method of each training reward, judged by every reward" in text
    assert "Transfer of ILQL on" not in text  # every method's own table is in the file alone
    assert "Transfer of ILQL on visdial" in paths[4].read_text(encoding="utf-8")


def test_returns_under_every_reward_come_from_the_episodes_that_were_played(filled: Store) -> None:
    paths, _ = write_reward_report(filled, SWEEPS, transfer=True)
    tables = {table["name"]: table for table in json.loads(paths[-1].read_text(encoding="utf-8"))["tables"]}
    assert list(tables) == ["best", "ilql", "bc", "ilql_without_lm"]
    scores = [[field["score"] for field in row["fields"]] for row in tables["ilql"]["rows"]]
    assert scores == [[-7.0, -2.0], [-8.0, -3.0]]  # under yn: τ .8, which the tune scenes chose
    assert tables["ilql"]["rows"][0]["fields"][1]["sigma"] == 1.0  # −4 and −2 under standard


def test_a_variant_has_a_row_of_its_own_and_leaves_sigma_alone(filled: Store) -> None:
    paths, _ = write_reward_report(filled, SWEEPS, transfer=False)
    document = json.loads(paths[3].read_text(encoding="utf-8"))
    rows = {row["label"]: row["fields"][0] for row in document["tables"][0]["rows"]}
    assert list(rows) == ["ILQL", "BC", "ILQL without LM"]
    assert (rows["ILQL"]["sigma"], rows["ILQL without LM"]["score"], rows["ILQL without LM"]["sigma"]) == (
        1.5,
        -8.0,
        None,
    )
    assert any("counted once, so σ is a dash" in note for note in document["footnotes"])


def test_without_transfer_no_transfer_is_written(filled: Store) -> None:
    paths, lines = write_reward_report(filled, SWEEPS, transfer=False)
    assert [path.name for path in paths] == ["rewards.md", "rewards.tex", "rewards.csv", "rewards.json"]
    assert not any("Transfer" in line for line in lines)


def test_a_sweep_without_finished_rows_gives_dashes(filled: Store) -> None:
    filled.put("sweep", "v-strict", {"task": "visdial"})
    add(filled, "v-cautious", "cautious", "a", None)
    sweeps = {"yn": "v-yn", "strict": "v-strict", "cautious": "v-cautious"}
    paths, _ = write_reward_report(filled, sweeps, transfer=True)
    line = next(line for line in paths[0].read_text(encoding="utf-8").splitlines() if line.startswith("| ILQL  "))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("ILQL", "−4.00 ± 1.00", "1.50", "–", "–", "–", "–")
    ]
    assert "ILQL under strict" in paths[4].read_text(encoding="utf-8")


def test_nothing_finished_anywhere_is_a_report_of_dashes(store: Store) -> None:
    store.put("sweep", "v-yn", {"task": "visdial"})
    paths, _ = write_reward_report(store, {"yn": "v-yn"}, transfer=True)
    assert "yn 0 finished, 0 failed, 0 stopped" in paths[0].read_text(encoding="utf-8")
    assert paths[0].parent.name == "v-yn"


def test_a_sweep_that_is_not_there_is_named(filled: Store) -> None:
    with pytest.raises(ValueError, match="'v-ny' is no sweep of this store; known: v-yn"):
        write_reward_report(filled, {"yn": "v-ny"}, transfer=False)
    with pytest.raises(ValueError, match="at least one sweep"):
        write_reward_report(filled, {}, transfer=False)


def test_a_sweep_of_another_reward_is_refused_before_anything_is_written(filled: Store) -> None:
    with pytest.raises(ValueError, match="reward 'standard' must be trained on it and judged by it, got 'yn'"):
        write_reward_report(filled, {"standard": "v-yn"}, transfer=True)
    assert not (filled.folder / "reports").exists()


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (["v-laptop-yn", "v-laptop-standard"], "v-laptop-yn+standard"),
        (["v-laptop-yn-1a2b", "v-laptop-standard-1a2b"], "v-laptop-yn-1a2b+standard-1a2b"),
        (["v-yn", "v-yn"], "v-yn"),
        (["v", "v-yn"], "v+v-yn"),
        (["one", "two"], "one+two"),
    ],
)
def test_a_joined_name_says_what_is_alike_once(names: list[str], joined: str) -> None:
    assert joined_name(names) == joined
