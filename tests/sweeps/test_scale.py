"""What the pretended sweep of `benchmarks/scale.py` says of the store's growth: all of it, and by the job."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale
from sweeps.spec import TrialSpec


def lines() -> Mapping[str, Any]:
    """The lines of the smallest sizes, by the first word of their names."""
    return {line.name.split()[0]: line for line in scale.run(True)}


def test_what_jobs_add_and_planning_wrote_is_all_that_is_there(tmp_path: Path) -> None:
    found = scale.simulate(tmp_path / "store", 4, 40, random.Random(0))
    assert {method: len(added) for method, added in found.added.items()} == {"bc": 1, "ilql": 8, "awr": 5}
    files = [*tmp_path.glob("store/journals/*"), *tmp_path.glob("store/stages/weights/*/*/*")]
    assert found.planned + sum(map(sum, found.added.values())) == sum(file.stat().st_size for file in files)


def test_tenths_are_of_the_first_and_the_last_jobs() -> None:
    assert scale.tenths([10, 20, *[0] * 16, 40, 60]) == (15, 50)
    assert scale.tenths([3, 0, 4]) == (3, 4)


def test_a_store_whose_records_are_of_one_size_meets_the_goal() -> None:
    line = lines()["store's"]
    assert line.met
    assert line.ratio == pytest.approx(1, abs=0.01)


def test_records_that_grow_with_the_jobs_before_them_miss_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Half a kilobyte more with every training: of all bytes by all cells, which planning rules, the share would fall.
    record, written = scale.training_record, list[TrialSpec]()

    def grown(spec: TrialSpec) -> Any:
        written.append(spec)
        return record(spec) | {"reason": "x" * 512 * len(written)}

    monkeypatch.setattr(scale, "training_record", grown)
    assert not lines()["store's"].met
