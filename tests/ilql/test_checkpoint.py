"""Weights on disk are whole or refused."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ilql.checkpoint import (
    CheckpointError,
    Hold,
    Meet,
    check_checkpoint,
    load_weights,
    own_tensors,
    resume,
    save_checkpoint,
    save_weights,
)


def checkpoint(folder: Path, *, step: int, module: nn.Module | None = None) -> Path:
    optimiser = {"weight/step": torch.tensor(float(step))}
    return save_checkpoint(folder, module or nn.Linear(2, 1), optimiser, step=step)


def test_a_checkpoint_gives_back_weights_step_and_optimiser(tmp_path: Path) -> None:
    saved, loaded = nn.Linear(2, 1), nn.Linear(2, 1)
    checkpoint(tmp_path, step=7, module=saved)
    found = resume(tmp_path, loaded, at_most=7)
    assert found is not None
    assert found.step == 7
    assert found.optimiser["weight/step"].item() == 7
    assert torch.equal(loaded.weight, saved.weight)


def test_nothing_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert resume(tmp_path / "absent", nn.Linear(2, 1), at_most=9) is None


def test_a_later_checkpoint_than_asked_for_is_passed_over(tmp_path: Path) -> None:
    checkpoint(tmp_path, step=2)
    checkpoint(tmp_path, step=4)
    found = resume(tmp_path, nn.Linear(2, 1), at_most=3)
    assert found is not None
    assert found.step == 2


def test_later_ones_are_left_alone_beside_the_one_just_written(tmp_path: Path) -> None:
    for step in (30, 40, 20):
        path = checkpoint(tmp_path, step=step)
        assert check_checkpoint(path) == step
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000020", "step-00000030", "step-00000040"]


def test_an_unfinished_one_is_none(tmp_path: Path) -> None:
    (tmp_path / ".step-00000002.99").mkdir()
    (tmp_path / "step-00000003").mkdir()
    assert resume(tmp_path, nn.Linear(2, 1), at_most=9) is None


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "state.json"])
def test_a_damaged_file_is_found_out(tmp_path: Path, name: str) -> None:
    path = checkpoint(tmp_path, step=1)
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"truncated or altered|must hold a readable state\.json"):
        check_checkpoint(path)


REGIONS = (0.0, 0.05, 0.5, 0.95, 1.0)
"""Where a file is damaged, as shares of its length: the header's length, the header, tensors, the last byte."""


def flip(content: bytes, share: float) -> bytes:
    """One bit of it the other way round."""
    place = min(int(share * len(content)), len(content) - 1)
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def cut(content: bytes, share: float) -> bytes:
    """So much of its beginning, and never all."""
    return content[: min(int(share * len(content)), len(content) - 1)]


def of_another(content: bytes, share: float) -> bytes:
    """Some other file's bytes, as many."""
    return (b"\x80\x05pickled" * len(content))[: len(content)]


@pytest.mark.parametrize("damage", [flip, cut, of_another])
@pytest.mark.parametrize("share", REGIONS)
@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "state.json"])
def test_whatever_is_damaged_is_named_and_the_checkpoint_before_it_is_used(
    tmp_path: Path, name: str, share: float, damage: Callable[[bytes, float], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    earlier, loaded = nn.Linear(2, 1), nn.Linear(2, 1)
    checkpoint(tmp_path, step=1, module=earlier)
    path = checkpoint(tmp_path, step=2)
    (path / name).write_bytes(damage((path / name).read_bytes(), share))
    found = resume(tmp_path, loaded, at_most=9)
    assert found is not None
    assert (found.step, found.optimiser["weight/step"].item()) == (1, 1)
    assert torch.equal(loaded.weight, earlier.weight)
    (line,) = caplog.messages
    assert str(path) in line
    assert line.endswith("; the checkpoint before it is used")


def test_no_flipped_bit_of_any_file_passes_for_sound(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, step=2)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for place in range(len(content)):
            file.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
            with pytest.raises(CheckpointError, match=str(path)):
                check_checkpoint(path)
        file.write_bytes(content)
    assert check_checkpoint(path) == 2


def test_files_of_two_sound_checkpoints_make_no_third(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint(tmp_path, step=step)
    for name in ("weights.safetensors", "state.json"):
        (tmp_path / "step-00000002" / name).write_bytes((tmp_path / "step-00000001" / name).read_bytes())
    with pytest.raises(CheckpointError, match="step-00000002"):
        check_checkpoint(tmp_path / "step-00000002")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (nn.Linear(3, 1), "weight must have shape (1, 2), got (1, 3)"),
        (nn.Linear(2, 1).double(), "weight must be float32, got float64"),
        (nn.Sequential(nn.Linear(2, 1)), "differs in '0.bias'"),
    ],
)
def test_a_sound_checkpoint_of_another_network_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: nn.Module, why: str
) -> None:
    checkpoint(tmp_path, step=1)
    save_checkpoint(tmp_path, other, {}, step=2)
    found = resume(tmp_path, nn.Linear(2, 1), at_most=9)
    assert found is not None
    assert found.step == 1
    (record,) = caplog.records
    assert why in record.message


def test_a_checkpoint_of_before_there_were_sums_is_gone_on_from(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, step=2)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({"step": 2, "sha256": state["sha256"]}))
    found = resume(tmp_path, nn.Linear(2, 1), at_most=9, name="ours")
    assert found is not None
    assert found.step == 2


def test_nothing_is_read_of_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    # Its bias has the right shape, its weight not: half of it would be read.
    save_checkpoint(tmp_path, nn.Linear(3, 1), {}, step=2)
    module = nn.Linear(2, 1)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert resume(tmp_path, module, at_most=9) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_checkpoint_of_another_training_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Of the same shapes: nothing but its name tells it from one of ours.
    module = nn.Linear(2, 1)
    for step, of in ((1, "ours"), (2, "theirs")):
        save_checkpoint(tmp_path, module, {}, step=step, hold=Hold(of))
    found = resume(tmp_path, nn.Linear(2, 1), at_most=9, name="ours")
    assert found is not None
    assert found.step == 1
    (record,) = caplog.records
    assert "a checkpoint must be of the training ours" in record.message
    assert "of 'theirs'" in record.message


def test_a_damaged_checkpoint_is_not_what_is_kept_beside_a_new_one(tmp_path: Path) -> None:
    for step in (100, 150):
        checkpoint(tmp_path, step=step)
    damaged = tmp_path / "step-00000150" / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    checkpoint(tmp_path, step=120)
    assert check_checkpoint(tmp_path / "step-00000100") == 100


def test_who_was_followed_writes_no_checkpoint_and_leaves_its_followers_alone(tmp_path: Path) -> None:
    class FollowedError(Exception):
        pass

    def followed() -> None:
        raise FollowedError

    module = nn.Linear(2, 1)
    theirs, older = tmp_path / ".step-00000007.3.99", tmp_path / ".step-00000006.2.98"
    for begun in (theirs, older):
        begun.mkdir()
    with pytest.raises(FollowedError):
        save_checkpoint(tmp_path, module, {}, step=8, hold=Hold(term=2, check=followed))
    assert (theirs.exists(), older.exists()) == (True, True)
    save_checkpoint(tmp_path, module, {}, step=8, hold=Hold(term=2))  # was asleep between its look and this
    assert (theirs.exists(), older.exists()) == (True, False)


def test_workers_go_on_from_what_all_of_them_find_sound(tmp_path: Path) -> None:
    # Two workers look at a checkpoint of two files each; the second finds the newest one damaged.
    for step in (1, 2):
        checkpoint(tmp_path, step=step)
    damaged = tmp_path / "step-00000002" / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found = in_turn(2, lambda rank, meet: resume(tmp_path, nn.Linear(2, 1), at_most=9, rank=rank, workers=2, meet=meet))
    assert [each.step for each in found] == [1, 1]


def test_workers_that_see_different_checkpoints_go_on_from_none(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        checkpoint(tmp_path / folder, step=1)
    checkpoint(tmp_path / "a", step=2)

    def look(rank: int, meet: Meet) -> OSError:
        with pytest.raises(OSError, match="workers must see the same checkpoints") as raised:
            resume(tmp_path / "ab"[rank], nn.Linear(2, 1), at_most=9, rank=rank, workers=2, meet=meet)
        return raised.value

    assert [error.errno for error in in_turn(2, look)] == [errno.ESTALE] * 2


def in_turn(workers: int, act: Callable[[int, Meet], Any]) -> list[Any]:
    """What each of some workers gives that meet as those of a group do."""
    barrier, told = threading.Barrier(workers, timeout=30), dict[int, dict[str, Any]]()

    def meet(rank: int) -> Meet:
        def tell(own: dict[str, Any]) -> list[dict[str, Any]]:
            told[rank] = own
            barrier.wait()
            everybody = [told[each] for each in range(workers)]
            barrier.wait()  # nobody tells anew before all have heard
            return everybody

        return tell

    with ThreadPoolExecutor(workers) as threads:
        return [*threads.map(lambda rank: act(rank, meet(rank)), range(workers))]


def test_all_of_a_checkpoint_is_on_the_disk_before_the_one_before_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        checkpoint(tmp_path, step=step)
    synced: list[tuple[str, bool, bool]] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        named, first = tmp_path / "step-00000003", tmp_path / "step-00000001"
        synced.append((name, named.exists(), first.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    checkpoint(tmp_path, step=3)
    partial = f".step-00000003.0.{os.getpid()}"
    files = {(name, False, True) for name in ("weights.safetensors", "optimiser.safetensors", "state.json", partial)}
    assert set(synced[:-1]) == files  # under its passing name, all of it
    assert synced[-1] == (tmp_path.name, True, True)  # then its name, and only then the oldest goes
    assert not (tmp_path / "step-00000001").exists()


def test_what_a_killed_writer_left_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-00000002.99").mkdir()
    (tmp_path / ".step-00000002.99" / "weights.safetensors").write_bytes(b"half")
    checkpoint(tmp_path, step=3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_a_full_disk_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint(tmp_path, step=1)

    def full(tensors: dict[str, Tensor], file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ilql.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint(tmp_path, step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_shared_tensors_are_stored_once_and_stay_shared(
    language_model: Callable[..., nn.Module], tmp_path: Path
) -> None:
    saved, loaded = language_model(seed=0), language_model(seed=1)
    assert len(own_tensors(saved)) < len(saved.state_dict())  # the embedding is the head
    save_weights(saved, tmp_path)
    load_weights(loaded, tmp_path)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(saved(ids).logits, loaded(ids).logits)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights must be a whole safetensors file"):
        load_weights(nn.Linear(2, 1), tmp_path)
