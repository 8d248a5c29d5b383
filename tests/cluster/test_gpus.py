"""Counting GPUs by the driver's folder and what the environment shows of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.gpus import local_gpus


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 2), ("", 0), ("-1", 0), ("0", 1), ("0,1", 2), ("0,1,2", 2), ("1,-1,0", 1), ("GPU-ab, GPU-cd", 2)],
)
def test_gpus_present_are_counted_as_far_as_they_are_visible(tmp_path: Path, visible: str | None, count: int) -> None:
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert local_gpus(tmp_path, environment) == count


def test_a_machine_without_the_driver_has_none(tmp_path: Path) -> None:
    assert local_gpus(tmp_path / "absent", {}) == 0
