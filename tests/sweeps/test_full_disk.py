"""A disk that is really full: nothing that was there is lost, one line says why, and with room again all goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
import torch
from torch import nn

from cluster.faults import classify
from ilql.checkpoint import resume, save_checkpoint
from sweeps.store import Store, StoreError
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench

PAGE = 4096
"""What a file takes at least."""


class Disk:
    """A file system of a few megabytes, and what fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._ballast = folder, folder / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Fill it but for so many bytes, to the page."""
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        os.truncate(self._ballast, self._ballast.stat().st_size - leave)

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root and the right to mount")
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(disk: Disk) -> None:
    module, folder = nn.Linear(200, 100), disk.folder / "checkpoints"  # 80 kB
    save_checkpoint(folder, module, {"step": torch.tensor(1.0)}, step=1)
    disk.fill(leave=4 * PAGE)
    with pytest.raises(OSError, match="No space left on device") as full:
        save_checkpoint(folder, module, {"step": torch.tensor(2.0)}, step=2)
    assert full.value.errno == errno.ENOSPC
    assert classify(full.value).owner == "machine"
    assert [path.name for path in folder.iterdir()] == ["step-00000001"]
    disk.make_room()
    found = resume(folder, module, at_most=9)
    assert found is not None
    assert found.step == 1
    assert save_checkpoint(folder, module, {"step": torch.tensor(2.0)}, step=2).name == "step-00000002"


def test_a_row_that_does_not_fit_loses_none(disk: Disk) -> None:
    store = Store(disk.folder / "store")
    store.put("evaluation", "a", {"status": "finished", "score": 1.0})
    disk.fill()
    long = {"status": "finished", "score": 1.0, "reason": "x" * 3 * PAGE}
    with pytest.raises(StoreError, match="could not be written: No space left on device") as full:
        store.put("evaluation", "b", long)
    assert classify(full.value).owner == "machine"
    assert set(Store(store.folder).all("evaluation")) == {"a"}
    disk.make_room()
    store.put("evaluation", "b", long)
    assert set(Store(store.folder).all("evaluation")) == {"a", "b"}
    assert Store(store.folder).problems() == []


def test_a_lease_that_does_not_fit_is_held_by_nobody(disk: Disk) -> None:
    store = Store(disk.folder / "store")
    with store.lease("bb1"):  # its folder is there
        pass
    disk.fill()
    with store.lease("bb3") as lease:  # it needs a name and no room
        lease.check()
        with pytest.raises(StoreError, match="could not be written: No space left on device"):
            store.try_lease("bb2")  # it needs a file of its own
    disk.make_room()
    assert list(store.leases()) == []  # not one without a word in it, that all wait a minute for
    with store.lease("bb2") as lease:
        lease.check()


@pytest.mark.parametrize("leave", [0, 2 * PAGE, 8 * PAGE, 30 * PAGE])
def test_a_stage_that_does_not_fit_is_not_there(disk: Disk, leave: int) -> None:
    store = Store(disk.folder / "store")
    frame = pl.DataFrame({"text": [os.urandom(30).hex() for _ in range(4000)]})  # some 200 kB

    def make(folder: Path) -> None:
        (folder / "note").write_bytes(bytes(PAGE))
        frame.write_parquet(folder / "episodes.parquet")

    disk.fill(leave=leave)
    with pytest.raises((StoreError, pl.exceptions.PolarsError), match="No space left on device") as full:
        store.build("evaluation", "key", make, {})
    assert classify(full.value).owner == "machine"
    assert store.stage("evaluation", "key") is None
    assert store.problems() == []
    disk.make_room()
    assert pl.read_parquet(store.build("evaluation", "key", make, {}) / "episodes.parquet").equals(frame)


def test_a_table_that_does_not_fit_leaves_the_one_before(disk: Disk) -> None:
    store = Store(disk.folder / "store")
    path = store.compact()
    before = path.read_bytes()
    store.put("sweep", "mine", {})
    disk.fill()
    with pytest.raises(StoreError, match=r"the table .* could not be written: .*No space left on device"):
        store.compact()
    assert path.read_bytes() == before
    disk.make_room()
    store.compact()
    assert [file.name for file in path.parent.iterdir()] == ["runs.parquet"]


def test_a_training_whose_checkpoint_does_not_fit_goes_on_from_the_one_before(
    bench: Bench, other_bench: Bench, disk: Disk
) -> None:
    """Checkpoints come every five of twenty steps; the disk is full from the report of step 8 on."""
    trial, folder = bench.trial(), disk.folder / "store"
    shutil.copytree(bench.store.folder, folder)
    store, steps = Store(folder), list[float]()
    job = bench.job(trial, trial)
    moved = type(job)(**vars(job) | {"store": str(folder)})

    def fill(numbers: Mapping[str, float]) -> None:
        if numbers.get("step", 0) >= 8:
            disk.fill()

    with pytest.raises((OSError, StoreError, RuntimeError), match="No space left on device") as full:
        run_job(moved, fill)
    assert classify(full.value).owner == "machine"
    assert store.get("training", trial.weights_id) is None  # tried again, not a row
    checkpoints = store.scratch_path("trajectory", trial.trajectory_id) / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000005"]
    disk.make_room()
    assert run_job(moved, lambda numbers: steps.append(numbers.get("step", 0))) == "finished"
    assert min(step for step in steps if step) > 5
    assert run_job(other_bench.job(trial, trial), lambda numbers: None) == "finished"
    weights = store.stage("weights", trial.weights_id)
    assert weights is not None
    assert (weights / "weights.safetensors").read_bytes() == other_bench.weights(trial)
