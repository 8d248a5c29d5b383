"""The digests under a report: of what it rests on as recorded, wherever it is rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps import provenance
from sweeps.digests import report_digests
from sweeps.store import Store

VERSIONS = {"python": "3.11.7", "torch": "2.13.0+cpu"}


def filled(folder: Path, *, backwards: bool = False, **changed: Any) -> Store:
    """A store with two cells of one training, written in either order."""
    store = Store(folder)
    records: list[tuple[str, str, dict[str, Any]]] = [("training", "w", {"status": "finished", "versions": VERSIONS})]
    for name, score in (("a", 1.0), ("b", changed.get("score", 2.0))):
        columns = {"data.world": "data0000data00000000", "evaluation.world": "data0000data00000000"}
        member: dict[str, Any] = {
            "sweep": "s",
            "trial_id": name,
            "weights_id": "w",
            "tune_trial_id": f"tune-{name}",
            "columns": columns,
        }
        member |= {"origin": "design", "method": "bc", "cell_id": name, "seed": 0}
        records.append(("member", f"s/{name}", member))
        versions = changed.get("versions", VERSIONS) if name == "b" else VERSIONS
        records.append(("evaluation", name, {"status": "finished", "score": score, "versions": versions}))
        tuned = changed.get("tune", 0.5)
        records.append(("evaluation", f"tune-{name}", {"status": "finished", "score": tuned, "versions": VERSIONS}))
    for kind, key, record in reversed(records) if backwards else records:
        store.put(kind, key, record)
    return store


def test_the_order_and_the_folder_of_records_do_not_count(tmp_path: Path) -> None:
    assert report_digests(filled(tmp_path / "a"), "s") == report_digests(filled(tmp_path / "b", backwards=True), "s")


@pytest.mark.parametrize("changed", [{"score": 2.5}, {"tune": 0.75}])
def test_another_score_is_another_store(tmp_path: Path, changed: dict[str, float]) -> None:
    one, other = report_digests(filled(tmp_path / "a"), "s"), report_digests(filled(tmp_path / "b", **changed), "s")
    assert one["store"] != other["store"]
    assert (one["data"], one["environment"]) == (other["data"], other["environment"])


def test_a_record_of_another_sweep_changes_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "a")
    before = report_digests(store, "s")
    store.put("evaluation", "of-another", {"status": "finished", "score": 9.0, "versions": {"python": "3.14"}})
    assert report_digests(store, "s") == before


def test_the_environment_is_the_recorded_one_and_not_that_of_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path / "a")
    before = report_digests(store, "s")
    monkeypatch.setattr(provenance, "library_versions", lambda: {"python": "9.9"})
    assert report_digests(store, "s") == before
    assert before["data"] == ("data0000data",)
    (environment,) = before["environment"]
    digest, _, said = environment.partition(" ")
    assert len(digest) == 12
    assert said == "(python 3.11.7, torch 2.13.0+cpu)"


def test_rows_of_two_environments_say_so(tmp_path: Path) -> None:
    found = report_digests(filled(tmp_path / "a", versions={"python": "3.12.0"}), "s")
    assert len(found["environment"]) == 2
    assert any(each.endswith("(python 3.12.0)") for each in found["environment"])
