"""Workers that hold a part of the blocks each learn what one that holds all of them learns, and go on from each other.

Trainings run in processes of their own, several in each, for a process takes longer to begin than to train.
"""

from __future__ import annotations

import json
import math
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql import checkpoint
from ilql.batch import TokenSequence, collate, save_sequences
from ilql.checkpoint import CheckpointError, check_checkpoint, load_weights, resume, save_checkpoint
from ilql.method import Method, Start
from ilql.methods import known_methods
from ilql.sharding import idle_passes, shard
from ilql.train import Loop, mask_of, micro_batches

if TYPE_CHECKING:
    from conftest import Complete

TRAINEE = Path(__file__).with_name("sharded_trainee.py")
SCRIPT: dict[str, Any] = runpy.run_path(str(TRAINEE))
TRAININGS: dict[str, Any] = SCRIPT["TRAININGS"]
VOCABULARY: int = SCRIPT["VOCABULARY"]
STEPS: int = SCRIPT["STEPS"]
METHODS = known_methods()
ALIKE = ["bc", "ilql", "llama", "utterance_ilql", "clipped", "frozen", "shut", "lonely"]
TIMEOUT = 280


def made_up_sequences() -> list[TokenSequence]:
    """Give eleven dialogues of 2 to 12 actions, an utterance being three of them."""
    rng, made = np.random.default_rng(0), []
    for actions in range(2, 13):
        tokens = rng.integers(0, VOCABULARY - 1, size=actions + 4)
        positions = np.sort(rng.choice(actions + 3, size=actions, replace=False))
        rewards, ends = rng.normal(size=actions).astype(np.float32), np.arange(actions) % 3 == 2
        states = np.append(positions, actions + 3)
        made.append(TokenSequence(tokens, positions, states, rewards, ends, actions % 2 == 0, number=len(made)))
    return made


SEQUENCES = made_up_sequences()


def together(folder: Path, names: Sequence[str], *, workers: int, kill: dict[int, int] | None = None) -> list[int]:
    """Run trainings with so many workers; give how each of them ended."""
    save_sequences(SEQUENCES, folder / "train.npz")
    processes = [
        subprocess.Popen(
            [sys.executable, str(TRAINEE), str(folder), *map(str, (rank, workers, (kill or {}).get(rank, 0))), *names],
            cwd=TRAINEE.parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(workers)
    ]  # fmt: skip
    try:
        complaints = [process.communicate(timeout=TIMEOUT)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert kill or codes == [0] * workers, complaints
    return codes


def alone(name: str, folder: Path, **loop: Any) -> tuple[list[dict[str, float]], nn.Module]:
    """Train with one worker, and give the metrics of its steps and the module."""
    save_sequences(SEQUENCES, folder / "train.npz")
    module = SCRIPT["module_of"](TRAININGS[name])
    return SCRIPT["run"](TRAININGS[name], module, folder, **loop), module


def seen_by(folder: Path, workers: int) -> list[dict[str, Any]]:
    return [json.loads((folder / f"seen-{rank}.json").read_text(encoding="utf-8")) for rank in range(workers)]


def final(folder: Path, name: str) -> nn.Module:
    """Give a module with the weights that several workers wrote together at their end."""
    module: nn.Module = SCRIPT["module_of"]((TRAININGS | SCRIPT["RESUMED"])[name])
    load_weights(module, folder / name)
    return module


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((mine - yours).abs().max()) for mine, yours in pairs)


def only_step(source: Path, step: int, folder: Path) -> Path:
    """Copy the checkpoint of a step into a folder of its own."""
    shutil.copytree(source / f"step-{step:08d}", folder / f"step-{step:08d}")
    return folder


def assert_same_losses(histories: Sequence[Any], expected: Sequence[dict[str, float]]) -> None:
    for history in histories:
        for mine, theirs in zip(history, expected, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of an ILQL training by one worker, with the checkpoints of its steps 6 and 10."""
    folder = tmp_path_factory.mktemp("one")
    alone("ilql", folder, checkpoints=folder / "checkpoints")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, one: Path) -> Path:
    """Give the folder of all trainings by two workers, and of one that went on where one worker was."""
    folder = tmp_path_factory.mktemp("two")
    only_step(one / "checkpoints", 6, folder / "one")
    together(folder, [*ALIKE, "half", "half, all of it", "wide", "wide, all of it", "ilql from one"], workers=2)
    return folder


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, two: Path) -> Path:
    """Give the folder of all trainings by four workers, and of one that went on where two workers were."""
    folder = tmp_path_factory.mktemp("four")
    only_step(two / "ilql" / "checkpoints", 6, folder / "two")
    together(folder, [*ALIKE, "ilql from two"], workers=4)
    return folder


class TestLosses:
    @pytest.mark.parametrize("name", ALIKE)
    def test_two_workers_that_share_the_blocks_learn_as_one(self, two: Path, tmp_path: Path, name: str) -> None:
        expected, module = alone(name, tmp_path)
        assert len(expected) == STEPS
        assert_same_losses([seen[name]["metrics"] for seen in seen_by(two, 2)], expected)
        # Adam divides by a gradient's size: rounding moves what has hardly any by more than rounding.
        assert largest_difference(final(two, name), module) < 1e-4

    def test_two_that_hold_everything_end_in_the_same_bits(self, two: Path) -> None:
        # Each gradient is a sum of two numbers either way, and a wide block's parts are whole vectors: a processor
        # rounds otherwise what is left over, as in the narrow ones of the other trainings.
        for seen in seen_by(two, 2):
            assert seen["wide"]["metrics"] == seen["wide, all of it"]["metrics"]
        assert largest_difference(final(two, "wide"), final(two, "wide, all of it")) == 0

    def test_in_half_precision_they_learn_as_two_that_hold_everything(self, two: Path) -> None:
        # Not as one does: in half precision a product of other sizes is rounded otherwise.
        for seen in seen_by(two, 2):
            assert_same_losses([seen["half"]["metrics"]], seen["half, all of it"]["metrics"])
            blocks, whole = seen["half"]["held"]["blocks"], seen["half, all of it"]["held"]["blocks"]
            assert 2 * blocks[0] == blocks[1] == whole[0] == whole[1]

    @pytest.mark.long
    @pytest.mark.parametrize("name", ALIKE)
    def test_four_workers_that_share_the_blocks_learn_as_one(self, four: Path, tmp_path: Path, name: str) -> None:
        expected, module = alone(name, tmp_path)
        assert_same_losses([seen[name]["metrics"] for seen in seen_by(four, 4)], expected)
        assert largest_difference(final(four, name), module) < 1e-4

    def test_the_norm_is_reached_where_gradients_are_to_be_clipped(self, one: Path, tmp_path: Path) -> None:
        # Else the test above would say nothing of clipping: without it the same training ends elsewhere.
        _, module = alone("clipped", tmp_path)
        unclipped = SCRIPT["module_of"](TRAININGS["ilql"])
        assert resume(one / "checkpoints", unclipped, at_most=STEPS) is not None
        assert largest_difference(unclipped, module) > 1e-4


class TestMemory:
    @pytest.mark.parametrize("name", ["bc", "ilql", "frozen"])
    def test_each_of_two_workers_holds_half_of_every_block_and_of_its_gradient(self, two: Path, name: str) -> None:
        for seen in seen_by(two, 2):
            for part in ("blocks", "gradients"):
                here, everywhere = seen[name]["held"][part]
                assert here * 2 == everywhere > 0
            here, everywhere = seen[name]["held"]["rest"]
            assert here == everywhere > 0

    def test_the_frozen_policy_that_is_read_is_cut_too(self, two: Path) -> None:
        # Of psi's three trunks, online, target and the behaviour policy's, BC has one.
        seen = seen_by(two, 2)[0]
        assert seen["frozen"]["held"]["blocks"][0] == 3 * seen["bc"]["held"]["blocks"][0]

    @pytest.mark.long
    def test_four_workers_hold_six_rows_as_two_and_two_and_two_and_none(self, four: Path) -> None:
        held = [seen["bc"]["held"]["blocks"] for seen in seen_by(four, 4)]
        assert sum(here for here, _ in held) == held[0][1]
        assert held[3][0] < held[0][0] == held[1][0] == held[2][0]


class TestCheckpoints:
    def test_each_worker_writes_what_it_holds(self, two: Path) -> None:
        path = two / "ilql" / "checkpoints" / f"step-{STEPS:08d}"
        assert check_checkpoint(path) == STEPS
        first, second = (path / f"weights-{rank}-of-2.safetensors" for rank in range(2))
        numbers = seen_by(two, 2)[0]["ilql"]["held"]
        assert second.stat().st_size - header(second) == 4 * numbers["blocks"][0]
        # Without the target's, whose trunk is counted with the blocks, nothing is there twice.
        assert first.stat().st_size - header(first) == 4 * (numbers["blocks"][0] + numbers["rest"][0])

    def test_rows_are_found_whoever_wrote_them(self, tmp_path: Path) -> None:
        tensor, files = torch.arange(14.0).view(7, 2), [tmp_path / f"{number}" for number in range(4)]
        for rows, file in zip(tensor.split([3, 3, 1, 0]), files, strict=True):  # as four workers hold seven
            checkpoint._write_tensors({"w": rows}, file)
        stored = checkpoint._Stored(files)
        assert stored.shape("w") == (7, 2)
        assert torch.equal(stored.all("w"), tensor)
        for first in range(8):
            for count in range(8 - first):
                assert torch.equal(stored.rows("w", first, count), tensor[first : first + count])

    def test_of_two_workers_one_reads_the_same_bits(self, two: Path) -> None:
        module = SCRIPT["module_of"](TRAININGS["ilql"])
        found = resume(two / "ilql" / "checkpoints", module, at_most=STEPS)
        assert found is not None
        assert found.step == STEPS
        assert largest_difference(module, final(two, "ilql")) == 0

    def test_of_two_workers_one_goes_on(self, two: Path, one: Path, tmp_path: Path) -> None:
        checkpoints = only_step(two / "ilql" / "checkpoints", 6, tmp_path / "checkpoints")
        seen, module = alone("ilql", tmp_path, checkpoints=checkpoints)
        assert [metrics["step"] for metrics in seen] == [7, 8, 9, 10]
        expected, undisturbed = alone("ilql", one)
        assert_same_losses([seen], expected[6:])
        assert largest_difference(module, undisturbed) < 1e-4

    def test_of_one_worker_two_go_on(self, two: Path, tmp_path: Path) -> None:
        expected, module = alone("ilql", tmp_path)
        assert_same_losses([seen["ilql from one"]["metrics"] for seen in seen_by(two, 2)], expected[6:])
        assert largest_difference(final(two, "ilql from one"), module) < 1e-4

    @pytest.mark.long
    def test_of_two_workers_four_go_on_and_of_four_one(self, four: Path, tmp_path: Path) -> None:
        expected, module = alone("ilql", tmp_path)
        assert_same_losses([seen["ilql from two"]["metrics"] for seen in seen_by(four, 4)], expected[6:])
        assert largest_difference(final(four, "ilql from two"), module) < 1e-4
        checkpoints = only_step(four / "ilql" / "checkpoints", 6, tmp_path / "checkpoints")
        seen, resumed = alone("ilql", tmp_path, checkpoints=checkpoints)
        assert_same_losses([seen], expected[6:])
        assert largest_difference(resumed, module) < 1e-4

    @pytest.mark.parametrize("killed", [0, 1])
    def test_a_worker_killed_while_it_writes_leaves_the_checkpoint_before(self, tmp_path: Path, killed: int) -> None:
        codes = together(tmp_path, ["ilql"], workers=2, kill={killed: 2})
        assert codes[killed] == -signal.SIGKILL
        assert codes[1 - killed] != 0
        checkpoints = tmp_path / "ilql" / "checkpoints"
        assert [path.name for path in checkpoints.glob("step-*")] == ["step-00000006"]
        seen, module = alone("ilql", tmp_path, checkpoints=checkpoints)
        assert [metrics["step"] for metrics in seen] == [7, 8, 9, 10]
        _, undisturbed = alone("ilql", tmp_path)
        assert largest_difference(module, undisturbed) < 1e-4
        assert list(checkpoints.glob(".step-*")) == []

    @pytest.mark.parametrize("name", ["weights-1-of-2.safetensors", "optimiser-0-of-2.safetensors", "state.json"])
    def test_a_damaged_or_missing_part_is_found_out(self, two: Path, tmp_path: Path, name: str) -> None:
        path = only_step(two / "ilql" / "checkpoints", 6, tmp_path) / "step-00000006"
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[:-1])
        with pytest.raises(CheckpointError, match=r"truncated or altered|must hold a readable state\.json"):
            check_checkpoint(path)
        (path / name).unlink()
        with pytest.raises(CheckpointError):
            check_checkpoint(path)

    def test_a_state_that_names_not_all_parts_is_refused(self, two: Path, tmp_path: Path) -> None:
        path = only_step(two / "ilql" / "checkpoints", 6, tmp_path) / "step-00000006"
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        for name in ("weights-1-of-2.safetensors", "optimiser-1-of-2.safetensors"):
            del state["sha256"][name]
        unsigned = {name: state[name] for name in ("step", "sha256")}  # as before there was a sum over it
        (path / "state.json").write_text(json.dumps(unsigned), encoding="utf-8")
        with pytest.raises(CheckpointError, match="a digest of each file"):
            check_checkpoint(path)

    @pytest.mark.parametrize("full", [0, 1])
    def test_a_disk_that_is_full_for_one_worker_is_so_for_all_and_loses_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: int
    ) -> None:
        save_checkpoint(tmp_path, nn.Linear(2, 1), {}, step=1)
        real = checkpoint._write_tensors

        def write(tensors: dict[str, Tensor], file: Path) -> None:
            real(tensors, file)
            if f"weights-{full}-of" in file.name:
                raise OSError(28, "No space left on device", str(file))

        monkeypatch.setattr(checkpoint, "_write_tensors", write)
        raised = [error for error in as_workers(tmp_path, 2) if isinstance(error, OSError)]
        assert [error.errno for error in raised] == [28, 28]
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
        monkeypatch.undo()
        assert as_workers(tmp_path, 2) == [None, None]
        assert check_checkpoint(tmp_path / "step-00000002") == 2


def header(file: Path) -> int:
    """Give how many bytes of a safetensors file stand before its numbers."""
    return 8 + int.from_bytes(file.read_bytes()[:8], "little")


def as_workers(folder: Path, workers: int) -> list[BaseException | None]:
    """Write the checkpoint of step 2 as several workers, each a thread; give what each of them raised."""
    barrier, told = threading.Barrier(workers), [dict[str, Any]() for _ in range(workers)]
    raised: list[BaseException | None] = [None] * workers
    module = nn.Linear(2, 1)

    def meeting(rank: int) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
        def meet(own: dict[str, Any]) -> list[dict[str, Any]]:
            told[rank] = own
            barrier.wait(timeout=60)
            everyone = [dict(each) for each in told]
            barrier.wait(timeout=60)
            return everyone

        return meet

    def work(rank: int) -> None:
        try:
            save_checkpoint(folder, module, {}, step=2, rank=rank, workers=workers, meet=meeting(rank))
        except OSError as error:
            raised[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


class TestPasses:
    @pytest.mark.parametrize("dialogues", range(1, 8))
    @pytest.mark.parametrize("micro_batch", [0, 1, 2])
    @pytest.mark.parametrize("workers", [1, 2, 3])
    def test_every_worker_makes_as_many_passes(self, dialogues: int, micro_batch: int, workers: int) -> None:
        batch, passes = SEQUENCES[:dialogues], []
        for rank in range(workers):
            own = len(micro_batches(batch[rank::workers], micro_batch))
            passes.append(own + idle_passes(dialogues, workers=workers, micro_batch=micro_batch, own=own))
        assert passes == [len(micro_batches(batch[::workers], micro_batch))] * workers

    @pytest.mark.parametrize("name", METHODS)
    def test_a_pass_of_weight_0_gives_all_that_has_a_gradient_one_of_0(self, name: str, complete: Complete) -> None:
        method: Method = METHODS[name]
        model = SCRIPT["module_of"](TRAININGS["bc"])
        start = complete(method, Start(model, model, seed=0), SEQUENCES, width=6)
        settings, module = method.train(), method.build(start, method.train())
        learnt = []
        for weight in (1.0, 0.0):
            batch = collate(SEQUENCES[3:5], pad=VOCABULARY - 1)
            mask = weight * mask_of(method.counts(batch), settings.weighting)
            module.zero_grad(set_to_none=True)
            loss = method.loss(module, batch, mask, settings)
            (loss.total * weight).backward()  # type: ignore[no-untyped-call]
            assert all(math.isfinite(value.item()) for value in (loss.total, *loss.parts.values()))
            learnt.append({key: p.grad.clone() for key, p in module.named_parameters() if p.grad is not None})
        assert learnt[0].keys() == learnt[1].keys() != set()
        assert all(bool((gradient == 0).all()) for gradient in learnt[1].values())


class TestRefusals:
    def test_one_worker_has_nobody_to_share_with(self) -> None:
        with pytest.raises(ValueError, match="sharding needs at least 2 workers, got 1"):
            Loop(shard=True)

    def test_adapters_share_one_trunk_already(self, language_model: Callable[..., nn.Module]) -> None:
        adapters = pytest.importorskip("ilql.adapters")
        pytest.importorskip("peft")
        module = adapters.adapt(language_model(), rank=2, words=True, seed=0)
        with pytest.raises(ValueError, match="sharding needs networks without adapters"):
            shard(module, torch.device("cpu"))
