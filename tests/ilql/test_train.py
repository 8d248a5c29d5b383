"""A training ends in the same weights however it was run: at once, resumed, in parts, or by several workers."""

from __future__ import annotations

import dataclasses
import functools
import json
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql import networks
from ilql.batch import TokenBatch, TokenSequence, collate, dialogue_weights, save_sequences
from ilql.candidates import Candidates
from ilql.checkpoint import load_weights
from ilql.held_out import loss_on
from ilql.losses import masked_mean
from ilql.method import Loss, Method, Start, Training, every_utterance
from ilql.methods import bc, chai, decision_transformer, ilql, utterance_ilql
from ilql.train import Loop, Progress, Signals, mask_of, micro_batches, train

TRAINEE = Path(__file__).with_name("trainee.py")
SCRIPT: dict[str, Any] = runpy.run_path(str(TRAINEE))
VOCABULARY: int = SCRIPT["VOCABULARY"]
PAD = VOCABULARY - 1
STEPS: int = SCRIPT["STEPS"]
settings: Callable[..., ilql.Train] = SCRIPT["settings"]


def made_up_sequences() -> list[TokenSequence]:
    """Give eleven sequences of 2 to 12 actions, an utterance being three of them.

    Four are cut off: one before anything was said to its end, one inside an utterance, two right behind one.
    """
    rng = np.random.default_rng(0)
    made = []
    for actions in range(2, 13):
        tokens = rng.integers(0, PAD, size=actions + 4)
        positions = np.sort(rng.choice(actions + 3, size=actions, replace=False))
        rewards = rng.normal(size=actions).astype(np.float32)
        ended, ends = actions % 3 != 0, np.arange(actions) % 3 == 2
        ends[-1] = ended or actions in (6, 12)
        states = np.append(positions, actions + 3)
        made.append(TokenSequence(tokens, positions, states, rewards, ends, ended, number=len(made)))
    return made


def made_up_candidates(sequences: Sequence[TokenSequence]) -> Candidates:
    """Give two proposals for every utterance of the sequences, of features of three numbers."""
    rng = np.random.default_rng(1)
    first = np.cumsum([0, *(int(sequence.ends.sum()) for sequence in sequences)])
    features = rng.normal(size=(first[-1], 3, 3)).astype(np.float32)
    log_probability = -rng.exponential(size=(first[-1], 2)).astype(np.float32)
    return Candidates(features[:, 0], features[:, 1:], log_probability, first)


TO_GO = dataclasses.replace(
    decision_transformer.METHOD, train=functools.partial(decision_transformer.Train, returns="to_go")
)
SEQUENCES = made_up_sequences()
CANDIDATES = made_up_candidates(SEQUENCES)


def fresh(method: Method = ilql.METHOD, *, dropout: float = 0.2) -> nn.Module:
    model = SCRIPT["language_model"](dropout=dropout)
    start = Start(model, model, seed=0, candidates=CANDIDATES)
    return method.build(start, settings() if method is ilql.METHOD else method.train())


def run(
    module: nn.Module, *, until: int | None = None, steps: int = STEPS, method: Method = ilql.METHOD, **loop: Any
) -> list[Progress]:
    """Train, and walk away after step `until` as an interrupted process would."""
    seen = []
    hyperparameters = settings(steps=steps) if method is ilql.METHOD else method.train(steps=steps, batch_size=5)
    how = Loop(**{"log_every": 1, "checkpoint_every": 2, **loop})
    for progress in train(method, module, SEQUENCES, hyperparameters, pad=PAD, seed=5, loop=how):
        seen.append(progress)
        if progress.step == until:
            break
    return seen


def utterances(ends: list[bool], *, rewards: list[float] | None = None, ended: bool = True) -> TokenSequence:
    """Give a dialogue that is nothing but the agent's tokens."""
    count = len(ends)
    paid = np.zeros(count, np.float32) if rewards is None else np.asarray(rewards, np.float32)
    positions = np.arange(count)
    return TokenSequence(np.arange(count + 1), positions, np.arange(count + 1), paid, np.asarray(ends), ended)


def mean_reward(module: nn.Module, batch: TokenBatch, weights: Tensor, train: Training) -> Loss:
    """Give the mean reward as a loss, with no gradient to speak of."""
    mean = masked_mean(batch.rewards, weights)
    return Loss(mean + 0 * next(module.parameters()).sum(), {"reward": mean})


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


def start_process(
    folder: Path, *, rank: int = 0, workers: int = 1, kill_at: int = 0, ask_at: int = 0, beats: int = 0
) -> subprocess.Popen[str]:
    numbers = (rank, workers, kill_at, ask_at, beats)
    arguments = [sys.executable, str(TRAINEE), str(folder), *map(str, numbers)]
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


class TestHeldOut:
    """The loss on dialogues that are not learnt from."""

    @pytest.mark.parametrize("method", [bc.METHOD, ilql.METHOD, utterance_ilql.METHOD, TO_GO], ids=lambda m: m.title)
    def test_it_is_what_a_batch_of_them_would_log(self, method: Method) -> None:
        module = fresh(method, dropout=0.2).train()  # as a training leaves it; there is no dropout when it is asked
        how = settings() if method is ilql.METHOD else method.train()
        found = loss_on(method, module, SEQUENCES, how, pad=PAD, device=torch.device("cpu"), at_once=4)
        batch = collate(SEQUENCES, pad=PAD)
        weights = mask_of(method.counts(batch), how.weighting)
        assert found == pytest.approx(
            method.loss(fresh(method, dropout=0.0), batch, weights, how).total.item(), abs=1e-5
        )
        assert all(p.grad is None for p in module.parameters())

    def test_a_training_that_is_asked_ends_in_the_same_bits(self, undisturbed: nn.Module) -> None:
        module = fresh()
        for _ in train(ilql.METHOD, module, SEQUENCES, settings(), pad=PAD, seed=5, loop=Loop(log_every=1)):
            loss_on(ilql.METHOD, module, SEQUENCES[:3], settings(), pad=PAD, device=torch.device("cpu"))
        assert_equal_bits(module, undisturbed)

    def test_where_no_action_counts_there_is_none(self) -> None:
        silent = utterances([False, False], ended=False)  # no utterance of them has an end
        module = fresh(utterance_ilql.METHOD)
        how = utterance_ilql.METHOD.train()
        assert loss_on(utterance_ilql.METHOD, module, [silent], how, pad=PAD, device=torch.device("cpu")) is None


class TestBatches:
    def test_another_seed_trains_otherwise(self, undisturbed: nn.Module) -> None:
        module = fresh()
        for _ in train(ilql.METHOD, module, SEQUENCES, settings(), pad=PAD, seed=6, loop=Loop()):
            pass
        assert largest_difference(module, undisturbed) > 1e-5

    @pytest.mark.parametrize("method", [ilql.METHOD, utterance_ilql.METHOD, chai.METHOD, TO_GO], ids=lambda m: m.title)
    @pytest.mark.parametrize("micro_batch", [1, 2, 64])
    def test_micro_batches_give_the_same_weights_and_metrics(self, micro_batch: int, method: Method) -> None:
        whole, parts = fresh(method, dropout=0.0), fresh(method, dropout=0.0)
        at_once = run(whole, steps=3, method=method)
        in_parts = run(parts, steps=3, method=method, micro_batch=micro_batch)
        for one, other in zip(at_once, in_parts, strict=True):
            assert dict(one.metrics) == pytest.approx(dict(other.metrics), abs=1e-5)
        # Adam divides by a gradient's size: rounding moves what has hardly any by more than rounding.
        assert largest_difference(whole, parts) < 1e-4

    @pytest.mark.parametrize("method", [bc.METHOD, utterance_ilql.METHOD, chai.METHOD], ids=lambda m: m.name)
    def test_micro_batches_give_the_same_gradients(self, method: Method) -> None:
        gradients = []
        for micro_batch in (0, 2):
            module = fresh(method, dropout=0.0)
            run(module, steps=1, method=method, micro_batch=micro_batch)
            gradients.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
        assert torch.allclose(gradients[0], gradients[1], atol=1e-6)

    def test_micro_batches_hold_dialogues_alike_in_length(self) -> None:
        mixed = [SEQUENCES[i] for i in (7, 0, 4, 2, 9)]  # of 13, 6, 10, 8 and 15 tokens
        assert [[len(s.tokens) for s in part] for part in micro_batches(mixed, 2)] == [[6, 8], [10, 13], [15]]
        assert [[len(s.tokens) for s in part] for part in micro_batches(mixed, 0)] == [[6, 8, 10, 13, 15]]
        assert micro_batches([], 2) == micro_batches([], 0) == []

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
        counted = ilql.METHOD.counts(batch)
        assert masked_mean(values, mask_of(counted, "dialogue")).item() == pytest.approx(3 / 2)
        assert masked_mean(values, mask_of(counted, "token")).item() == pytest.approx(6 / 6)

    @pytest.mark.parametrize("micro_batch", [0, 1])
    @pytest.mark.parametrize(("weighting", "mean"), [("dialogue", (6 + 0) / 2), ("token", (6 + 0 + 0 + 0) / 4)])
    def test_dialogues_or_utterances_count_alike_where_utterances_count(
        self, weighting: str, mean: float, micro_batch: int
    ) -> None:
        # One utterance of two actions with a 6 at its end, three of one action with a 0, and 99 where none ends.
        one = utterances([False, True], rewards=[99.0, 6.0])
        three = utterances([True, True, True], rewards=[0.0, 0.0, 0.0])
        method = dataclasses.replace(bc.METHOD, counts=every_utterance, loss=mean_reward)
        hyperparameters = bc.Train(steps=1, batch_size=2, weighting=weighting)
        module, loop = fresh(bc.METHOD), Loop(micro_batch=micro_batch)
        (progress,) = train(method, module, [one, three], hyperparameters, pad=PAD, seed=0, loop=loop)
        assert progress.metrics == {"loss": pytest.approx(mean), "reward": pytest.approx(mean)}

    def test_chai_counts_an_utterance_whose_next_state_is_known(self) -> None:
        # Cut off behind its second utterance, which has then no next state; ended with its only one; nothing said.
        cut, ended = utterances([False, True, True], ended=False), utterances([False, True])
        batch = collate([cut, ended, utterances([False], ended=False)], pad=PAD)
        assert chai.METHOD.counts(batch).tolist() == [[False, True, False], [False, True, False], [False] * 3]
        assert utterance_ilql.METHOD.counts(batch).tolist() == batch.ends.tolist()

    def test_it_reports_where_it_logs_and_at_the_ends(self) -> None:
        seen = run(fresh(), log_every=3)
        assert [progress.step for progress in seen] == [1, 3, 6, 7]
        assert all(progress.metrics["loss"] > 0 for progress in seen)

    def test_late_steps_are_told_and_neither_weights_nor_what_is_logged_change(self, undisturbed: nn.Module) -> None:
        module = fresh()
        seen = run(module, log_every=3, heartbeat_seconds=0.0)
        assert [progress.step for progress in seen] == list(range(1, STEPS + 1))
        logged = [progress for progress in seen if progress.metrics]
        assert logged == run(fresh(), log_every=3)
        assert_equal_bits(module, undisturbed)

    def test_steps_are_told_no_more_often_than_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = iter(range(0, 1000, 10))  # each look at the clock is ten seconds later than the one before
        monkeypatch.setattr("ilql.train.time", SimpleNamespace(monotonic=lambda: float(next(now))))
        # It looks when it begins, after each step and when it tells: step 1 is logged; 2 is 10 s later, 3 is 20 s.
        seen = run(fresh(), log_every=100, heartbeat_seconds=20.0)
        assert [progress.step for progress in seen] == [1, 3, 5, 7]


def renewals(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give a list in which every renewal of a target leaves its share."""
    seen: list[float] = []
    real = networks.follow

    def counting(module: networks.Lagging, polyak: float) -> None:
        seen.append(polyak)
        real(module, polyak)

    monkeypatch.setattr(networks, "follow", counting)
    return seen


class TestAfterSteps:
    def test_it_is_told_the_number_of_the_step_after_each(self, tmp_path: Path) -> None:
        told: list[int] = []
        method = dataclasses.replace(ilql.METHOD, after_step=lambda module, train, step: told.append(step))
        for until in (4, None):  # and it goes on counting where an interrupted training was
            training = train(
                method, fresh(), SEQUENCES, settings(), pad=PAD, seed=5,
                loop=Loop(log_every=1, checkpoint_every=2, checkpoints=tmp_path, micro_batch=2),
            )  # fmt: skip
            for progress in training:
                if progress.step == until:
                    break
        assert told == [1, 2, 3, 4, 5, 6, 7]

    @pytest.mark.parametrize("micro_batch", [0, 1])
    @pytest.mark.parametrize(("steps", "every", "expected"), [(7, 1, 7), (7, 2, 3), (6, 3, 2), (7, 3, 2), (2, 3, 0)])
    def test_n_optimiser_steps_with_a_renewal_every_k_give_n_over_k_renewals(
        self, monkeypatch: pytest.MonkeyPatch, steps: int, every: int, expected: int, micro_batch: int
    ) -> None:
        seen = renewals(monkeypatch)
        hyperparameters = dataclasses.replace(settings(steps=steps), target_every=every)
        list(train(
            ilql.METHOD, fresh(), SEQUENCES, hyperparameters, pad=PAD, seed=5, loop=Loop(micro_batch=micro_batch)
        ))  # fmt: skip
        assert seen == [hyperparameters.polyak] * expected

    def test_a_hard_copy_every_third_step_is_the_network_after_the_last_such_step(self) -> None:
        modules = []
        for steps in (6, 7):
            hyperparameters = dataclasses.replace(settings(steps=steps), target_every=3, polyak=1.0)
            modules.append(fresh())
            list(train(ilql.METHOD, modules[-1], SEQUENCES, hyperparameters, pad=PAD, seed=5, loop=Loop()))
        after_six, after_seven = modules
        assert_equal_bits(after_seven.get_submodule("target"), after_six.get_submodule("online"))
        assert largest_difference(after_seven.get_submodule("target"), after_seven.get_submodule("online")) > 1e-5


class TestMeans:
    """Precision, clipping and what is kept in memory."""

    def test_activations_made_again_end_in_the_same_bits(self, undisturbed: nn.Module) -> None:
        module, calls = fresh(), list[int]()
        module.online.trunk.h[0].attn.register_forward_pre_hook(lambda *_: calls.append(1))  # type: ignore[union-attr,index]
        run(module, recompute=True)
        assert len(calls) == 2 * STEPS  # forth, and once more on the way back
        assert_equal_bits(module, undisturbed)

    def test_half_precision_learns_nearly_the_same_and_keeps_whole_weights(self) -> None:
        module, rough = fresh(dropout=0.0), fresh(dropout=0.0)
        found = [run_with(m, precision=p) for m, p in ((module, "float32"), (rough, "bfloat16"))]
        assert {p.dtype for p in rough.parameters()} == {torch.float32}
        assert 0 < largest_difference(rough, module) < 0.02
        assert found[0] != found[1]
        for one, other in zip(*found, strict=True):
            assert other == pytest.approx(one, rel=0.05, abs=0.02)

    def test_a_gradient_is_scaled_down_to_the_norm_and_never_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        norms: list[float] = []
        step = torch.optim.AdamW.step

        def watched(self: torch.optim.AdamW, *args: Any) -> Any:
            norms.append(float(nn.utils.get_total_norm([p.grad for p in self.param_groups[0]["params"]])))
            return step(self, *args)

        monkeypatch.setattr(torch.optim.AdamW, "step", watched)
        run_with(fresh(dropout=0.0))
        free, largest = norms[:], max(norms)
        norms.clear()
        run_with(fresh(dropout=0.0), clip_norm=2 * largest)
        assert norms == free
        norms.clear()
        run_with(fresh(dropout=0.0), clip_norm=0.1 * min(free))
        assert norms == pytest.approx([0.1 * min(free)] * STEPS, rel=1e-3)


def run_with(module: nn.Module, **changed: Any) -> list[dict[str, float]]:
    hyperparameters = dataclasses.replace(settings(), **changed)
    seen = train(ilql.METHOD, module, SEQUENCES, hyperparameters, pad=PAD, seed=5, loop=Loop(log_every=1))
    return [dict(progress.metrics) for progress in seen]


class TestFaults:
    def test_a_diverging_training_says_so(self) -> None:
        hyperparameters = dataclasses.replace(settings(), learning_rate=1e30)
        training = train(ilql.METHOD, fresh(), SEQUENCES, hyperparameters, pad=PAD, seed=0, loop=Loop(log_every=1))
        with pytest.raises(FloatingPointError, match=r"the training has diverged: \{'loss': (nan|inf)"):
            list(training)

    def test_nothing_to_learn_from_is_refused(self) -> None:
        with pytest.raises(ValueError, match="training needs at least one dialogue, got none"):
            list(train(ilql.METHOD, fresh(), [], settings(), pad=PAD, seed=0, loop=Loop()))


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.long)])
def test_several_workers_train_as_one(tmp_path: Path, workers: int) -> None:
    save_sequences(SEQUENCES, tmp_path / "train.npz")
    processes = [start_process(tmp_path, rank=rank, workers=workers) for rank in range(workers)]
    complaints = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * workers, complaints
    files = [tmp_path / f"metrics-{rank}.json" for rank in range(workers)]
    histories = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    alone = fresh(dropout=0.0)
    expected = [dict(progress.metrics) for progress in run(alone)]
    for history in histories:
        for mine, theirs in zip(history, expected, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
    together = fresh(dropout=0.0)
    load_weights(together, tmp_path)
    assert largest_difference(together, alone) < 1e-4


def test_workers_tell_together_of_steps_that_one_finds_late(tmp_path: Path) -> None:
    # Logged are the first step and the last; what the first worker finds late in a step all tell after the next.
    save_sequences(SEQUENCES, tmp_path / "train.npz")
    processes = [start_process(tmp_path, rank=rank, workers=2, beats=1) for rank in range(2)]
    complaints = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], complaints
    for rank in range(2):
        told = json.loads((tmp_path / f"metrics-{rank}.json").read_text(encoding="utf-8"))
        assert [bool(metrics) for metrics in told] == [True, *[False] * (STEPS - 2), True]


def test_workers_stop_together_soon_after_one_was_asked(tmp_path: Path) -> None:
    # They log nothing and write no checkpoint in between: what one was asked all hear with the next step's weight.
    save_sequences(SEQUENCES, tmp_path / "train.npz")
    processes = [start_process(tmp_path, rank=rank, workers=2, ask_at=3) for rank in range(2)]
    complaints = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], complaints
    said = [(tmp_path / f"stopped-{rank}").read_text(encoding="utf-8") for rank in range(2)]
    assert said == [f"asked to stop, at step 4 of {STEPS}"] * 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


class TestSignals:
    """Whether to stop and whether a sign of life is due, as one worker and as several agree on it."""

    def test_one_worker_offers_nothing_and_hears_itself_at_once(self) -> None:
        signals = Signals(Loop(stop=lambda: True, heartbeat_seconds=0.0))
        assert signals.offer() == (False, False)
        assert signals.take(None) == (True, True)

    def test_several_hear_in_a_step_what_was_offered_in_the_one_before(self) -> None:
        signals = Signals(Loop(workers=2, rank=1))
        assert signals.take(torch.tensor([1.0, 0.0])) == (False, False)
        assert signals.take(torch.tensor([0.0, 1.0])) == (True, False)
        assert signals.take(torch.tensor([0.0, 0.0])) == (False, True)

    @pytest.mark.parametrize(("rank", "late"), [(0, True), (1, False)])
    def test_the_first_workers_clock_alone_counts(self, rank: int, late: bool) -> None:
        assert Signals(Loop(workers=2, rank=rank, heartbeat_seconds=0.0)).offer() == (False, late)

    def test_a_sign_of_life_is_offered_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        monkeypatch.setattr("ilql.train.time.monotonic", lambda: now[0])
        signals = Signals(Loop(workers=2, heartbeat_seconds=20.0))
        now[0] = 20.0
        assert (signals.offer(), signals.offer()) == ((False, True), (False, False))
        now[0] = 39.0
        signals.lived()
        now[0] = 58.0
        assert signals.offer() == (False, False)
