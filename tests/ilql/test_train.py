"""A training ends in the same weights however it was run: at once, resumed, in parts, or by several workers."""

from __future__ import annotations

import dataclasses
import json
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ilql.batch import TokenSequence, collate, dialogue_weights, save_sequences
from ilql.checkpoint import load_weights
from ilql.losses import masked_mean
from ilql.method import Method, Start
from ilql.methods import bc, ilql
from ilql.train import Loop, Progress, mask_of, train

TRAINEE = Path(__file__).with_name("trainee.py")
SCRIPT: dict[str, Any] = runpy.run_path(str(TRAINEE))
VOCABULARY: int = SCRIPT["VOCABULARY"]
PAD = VOCABULARY - 1
STEPS: int = SCRIPT["STEPS"]
settings: Callable[..., ilql.Train] = SCRIPT["settings"]


def made_up_sequences() -> list[TokenSequence]:
    """Give eleven sequences of 2 to 12 actions; four of them are cut off."""
    rng = np.random.default_rng(0)
    made = []
    for actions in range(2, 13):
        tokens = rng.integers(0, PAD, size=actions + 4)
        positions = np.sort(rng.choice(actions + 3, size=actions, replace=False))
        rewards = rng.normal(size=actions).astype(np.float32)
        made.append(TokenSequence(tokens, positions, np.append(positions, actions + 3), rewards, actions % 3 != 0))
    return made


SEQUENCES = made_up_sequences()


def fresh(method: Method = ilql.METHOD, *, dropout: float = 0.2) -> nn.Module:
    model = SCRIPT["language_model"](dropout=dropout)
    return method.build(Start(model, model, seed=0), settings() if method is ilql.METHOD else method.train())


def run(
    module: nn.Module, *, until: int | None = None, steps: int = STEPS, method: Method = ilql.METHOD, **loop: Any
) -> list[Progress]:
    """Train, and walk away after step `until` as an interrupted process would."""
    seen = []
    hyperparameters = settings(steps=steps) if method is ilql.METHOD else bc.Train(steps=steps, batch_size=5)
    how = Loop(**{"log_every": 1, "checkpoint_every": 2, **loop})
    for progress in train(method, module, SEQUENCES, hyperparameters, pad=PAD, seed=5, loop=how):
        seen.append(progress)
        if progress.step == until:
            break
    return seen


def assert_equal_bits(one: nn.Module, other: nn.Module) -> None:
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    assert [name for (name, mine), yours in pairs if not torch.equal(mine, yours)] == []


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((mine - yours).abs().max()) for mine, yours in pairs)


@pytest.fixture(scope="module")
def undisturbed() -> nn.Module:
    module = fresh()
    run(module)
    return module


def start_process(folder: Path, *, rank: int = 0, workers: int = 1, kill_at: int = 0) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(TRAINEE), str(folder), *(str(n) for n in (rank, workers, kill_at))]
    root = str(TRAINEE.parents[2])
    return subprocess.Popen(arguments, cwd=root, stderr=subprocess.PIPE, text=True)


class TestResumption:
    @pytest.mark.parametrize("killed_at", range(1, STEPS + 1))
    def test_a_resumed_training_ends_in_the_same_bits(
        self, undisturbed: nn.Module, tmp_path: Path, killed_at: int
    ) -> None:
        run(fresh(), until=killed_at, checkpoints=tmp_path)
        resumed = fresh()
        seen = run(resumed, checkpoints=tmp_path)
        assert_equal_bits(resumed, undisturbed)
        saved = STEPS if killed_at == STEPS else killed_at - killed_at % 2
        assert [progress.step for progress in seen] == list(range(saved + 1, STEPS + 1))

    def test_a_process_killed_with_signal_9_goes_on_where_it_was(self, undisturbed: nn.Module, tmp_path: Path) -> None:
        save_sequences(SEQUENCES, tmp_path / "train.npz")
        process = start_process(tmp_path, kill_at=5)
        process.communicate(timeout=240)
        assert process.returncode == -signal.SIGKILL
        resumed = fresh()
        seen = run(resumed, checkpoints=tmp_path / "checkpoints")
        assert [progress.step for progress in seen] == [5, 6, 7]
        assert_equal_bits(resumed, undisturbed)

    def test_evaluating_in_between_does_not_change_the_weights(self, undisturbed: nn.Module) -> None:
        module = fresh()
        for _ in train(ilql.METHOD, module, SEQUENCES, settings(), pad=PAD, seed=5, loop=Loop(log_every=3)):
            module.eval()
            torch.manual_seed(0)
        assert_equal_bits(module, undisturbed)

    def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
        self, undisturbed: nn.Module, tmp_path: Path
    ) -> None:
        run(fresh(), until=6, checkpoints=tmp_path)
        with (tmp_path / "step-00000006" / "weights.safetensors").open("r+b") as file:
            file.seek(-3, 2)
            file.write(b"xyz")
        resumed = fresh()
        assert run(resumed, checkpoints=tmp_path)[0].step == 5
        assert_equal_bits(resumed, undisturbed)

    def test_a_finished_training_only_loads(self, undisturbed: nn.Module, tmp_path: Path) -> None:
        run(fresh(), checkpoints=tmp_path)
        loaded = fresh()
        assert run(loaded, checkpoints=tmp_path) == []
        assert_equal_bits(loaded, undisturbed)
        assert not loaded.training

    def test_two_checkpoints_are_kept(self, tmp_path: Path) -> None:
        run(fresh(), checkpoints=tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000006", "step-00000007"]


class TestBatches:
    def test_another_seed_trains_otherwise(self, undisturbed: nn.Module) -> None:
        module = fresh()
        for _ in train(ilql.METHOD, module, SEQUENCES, settings(), pad=PAD, seed=6, loop=Loop()):
            pass
        assert largest_difference(module, undisturbed) > 1e-5

    @pytest.mark.parametrize("micro_batch", [1, 2, 64])
    def test_micro_batches_give_the_same_weights_and_metrics(self, micro_batch: int) -> None:
        whole, parts = fresh(dropout=0.0), fresh(dropout=0.0)
        at_once = run(whole, steps=3)
        in_parts = run(parts, steps=3, micro_batch=micro_batch)
        for one, other in zip(at_once, in_parts, strict=True):
            assert dict(one.metrics) == pytest.approx(dict(other.metrics), abs=1e-5)
        # Adam divides by a gradient's size: rounding moves what has hardly any by more than rounding.
        assert largest_difference(whole, parts) < 1e-4

    def test_micro_batches_give_the_same_gradients(self) -> None:
        gradients = []
        for micro_batch in (0, 2):
            module = fresh(bc.METHOD, dropout=0.0)
            run(module, steps=1, method=bc.METHOD, micro_batch=micro_batch)
            gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
        assert torch.allclose(gradients[0], gradients[1], atol=1e-6)

    def test_metrics_are_means_over_the_batch(self) -> None:
        module, hyperparameters = fresh(dropout=0.0), dataclasses.replace(settings(steps=1), batch_size=11)
        batch = collate(SEQUENCES, pad=PAD)
        expected = ilql.loss(module, batch, dialogue_weights(batch.action_mask), hyperparameters)
        loop = Loop(micro_batch=3)
        (progress,) = train(ilql.METHOD, module, SEQUENCES, hyperparameters, pad=PAD, seed=0, loop=loop)
        parts = {"loss": expected.total, **expected.parts}
        assert dict(progress.metrics) == pytest.approx({name: value.item() for name, value in parts.items()}, abs=1e-5)

    def test_dialogues_or_tokens_count_alike(self) -> None:
        batch = collate([SEQUENCES[0], SEQUENCES[2]], pad=PAD)  # two actions and four
        values = torch.tensor([[3.0, 3.0, 0.0, 0.0], [0.0] * 4])
        assert masked_mean(values, mask_of(batch, "dialogue")).item() == pytest.approx(3 / 2)
        assert masked_mean(values, mask_of(batch, "token")).item() == pytest.approx(6 / 6)

    def test_it_reports_where_it_logs_and_at_the_ends(self) -> None:
        seen = run(fresh(), log_every=3)
        assert [progress.step for progress in seen] == [1, 3, 6, 7]
        assert all(progress.metrics["loss"] > 0 for progress in seen)


class TestFaults:
    def test_a_diverging_training_says_so(self) -> None:
        hyperparameters = dataclasses.replace(settings(), learning_rate=1e30)
        training = train(ilql.METHOD, fresh(), SEQUENCES, hyperparameters, pad=PAD, seed=0, loop=Loop(log_every=1))
        with pytest.raises(FloatingPointError, match=r"the training has diverged: \{'loss': (nan|inf)"):
            list(training)

    def test_nothing_to_learn_from_is_refused(self) -> None:
        with pytest.raises(ValueError, match="training needs at least one dialogue, got none"):
            list(train(ilql.METHOD, fresh(), [], settings(), pad=PAD, seed=0, loop=Loop()))


def test_two_workers_train_as_one(tmp_path: Path) -> None:
    save_sequences(SEQUENCES, tmp_path / "train.npz")
    processes = [start_process(tmp_path, rank=rank, workers=2) for rank in range(2)]
    complaints = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], complaints
    histories = [json.loads((tmp_path / f"metrics-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    alone = fresh(dropout=0.0)
    expected = [dict(progress.metrics) for progress in run(alone)]
    for history in histories:
        for mine, theirs in zip(history, expected, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
    together = fresh(dropout=0.0)
    load_weights(together, tmp_path)
    assert largest_difference(together, alone) < 1e-4
