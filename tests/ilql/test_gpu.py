"""On a GPU as on a CPU: the same losses, gradients and words, and nobody waits for the device inside a training."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql import evaluate
from ilql.batch import TokenSequence, collate, dialogue_weights
from ilql.decode import Speaker, Utterance, Voice
from ilql.evaluate import CACHE_SHARE, DEVICE_SLOTS, ROW_SLOTS, SLOTS, slots_on
from ilql.method import Actor, Method, Start, every_action
from ilql.methods import known_methods
from ilql.slots import slot_bytes
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

if TYPE_CHECKING:
    from conftest import Complete

METHODS = known_methods()
CPU = torch.device("cpu")

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]


@pytest.fixture
def start(
    method: Method, language_model: Callable[..., nn.Module], pulls: list[TokenSequence], complete: Complete
) -> Start:
    return complete(method, Start(language_model(seed=1, spread=4.0), language_model(seed=2, spread=4.0), 3), pulls)


@pytest.fixture
def numbered(pulls: list[TokenSequence]) -> list[TokenSequence]:
    return [dataclasses.replace(pull, number=number) for number, pull in enumerate(pulls)]


def loss_and_gradients(
    method: Method,
    module: nn.Module,
    sequences: list[TokenSequence],
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[float, dict[str, Tensor]]:
    module = module.to(device)
    module.zero_grad()
    batch = collate(sequences, pad=0).to(device)
    # What a loss draws is drawn on its device; here all draws are alike.
    monkeypatch.setattr(torch, "rand", lambda *shape, **how: torch.full(tuple(shape[0]), 0.8, device=how.get("device")))
    loss = method.loss(module, batch, dialogue_weights(method.counts(batch)), method.train()).total
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), {n: p.grad.cpu().clone() for n, p in module.named_parameters() if p.grad is not None}


@on_a_gpu
class TestOnAGpu:
    GPU = torch.device("cuda")

    def test_loss_and_gradients_are_those_of_a_cpu(
        self, method: Method, start: Start, numbered: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = method.build(start, method.train())
        draw = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
        expected, theirs = loss_and_gradients(method, module, numbered, CPU, monkeypatch)
        found, ours = loss_and_gradients(method, module, numbered, self.GPU, monkeypatch)
        assert found == pytest.approx(expected, rel=1e-4)
        assert ours.keys() == theirs.keys()
        for name, gradient in theirs.items():
            scale = float(gradient.abs().max())
            assert torch.allclose(ours[name], gradient, rtol=1e-3, atol=1e-4 * max(scale, 1e-3)), name

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_a_training_learns_and_goes_on_from_its_checkpoint(
        self, method: Method, start: Start, numbered: list[TokenSequence], tmp_path: Path, precision: str
    ) -> None:
        settings = method.train(steps=10, batch_size=16, learning_rate=3e-3, precision=precision)

        def module_after(steps: int) -> tuple[nn.Module, list[float]]:
            module, losses = method.build(start, settings), []
            loop = Loop(device=self.GPU, log_every=1, checkpoint_every=2, checkpoints=tmp_path)
            for progress in train(method, module, numbered, settings, pad=0, seed=0, loop=loop):
                losses.append(progress.metrics["loss"])
                if progress.step == steps:
                    break
            return module, losses

        _, before = module_after(6)
        module, after = module_after(10)
        assert len(before) == 6
        assert len(after) == 4
        assert min(after) < before[0]
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        assert all(bool(p.isfinite().all()) for p in module.parameters())

    def test_no_step_but_those_that_log_waits_for_the_device(
        self, method: Method, start: Start, numbered: list[TokenSequence]
    ) -> None:
        if method.counts is not every_action:
            pytest.skip("how many utterances a batch has decides the shapes of their tensors")
        settings = method.train(steps=12, batch_size=16, precision="bfloat16")
        module = method.build(start, settings)
        training = train(method, module, numbered, settings, pad=0, seed=0, loop=Loop(device=self.GPU, log_every=6))
        next(training)  # what is done for the first time
        waited = []
        for _ in range(2):  # steps 2 to 6, and 7 to 12: the last of each logs
            torch.cuda.synchronize()
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                try:
                    next(training)
                finally:
                    torch.cuda.set_sync_debug_mode("default")
            waited.append([str(w.message) for w in seen if "called a synchroniz" in str(w.message)])
        assert len(waited[0]) <= 1, waited  # the numbers that are logged, together
        assert len(waited[1]) <= 1, waited

    def test_it_says_what_it_says_on_a_cpu(self, method: Method, start: Start, tokenizer: Tokenizer) -> None:
        module = method.build(start, method.train())
        actor = method.actor(module, start.behaviour)
        decode = method.decode(max_new_tokens=8)
        said = [self.said(actor, tokenizer, method, decode, device) for device in (CPU, self.GPU)]
        assert said[0] == said[1]

    @staticmethod
    def said(actor: Actor, tokenizer: Tokenizer, method: Method, decode: object, device: torch.device) -> list[str]:
        manner = method.manner(method.train(), decode)
        speaker = Speaker(actor, tokenizer, slots=3, device=device)
        voices = [Voice(slot, decode, manner, np.random.default_rng(slot)) for slot in range(3)]  # type: ignore[arg-type]
        for slot, text in enumerate(("pull", "two cats in the snow", "is it red ?")):
            if manner.target_return is not None:
                speaker.ask(slot, manner.target_return)
            speaker.hear(slot, [tokenizer.structural("bos"), *tokenizer.encode(text), tokenizer.structural("eos")])
        spoken: list[Utterance] = speaker.speak(voices)
        return [utterance.text for utterance in spoken]

    def test_many_episodes_get_many_slots(self, language_model: Callable[..., nn.Module]) -> None:
        actor = Actor(language_model())
        assert slots_on(self.GPU, actor, episodes=10**6) == DEVICE_SLOTS
        assert slots_on(self.GPU, actor, episodes=SLOTS + 1) == 2 * SLOTS


def test_a_cpu_has_the_same_slots_whatever_there_is_to_play(language_model: Callable[..., nn.Module]) -> None:
    assert {slots_on(CPU, Actor(language_model()), episodes=n) for n in (1, 64, 10**6)} == {max(ROW_SLOTS)}


@pytest.mark.parametrize(("room", "slots"), [(1, SLOTS), (127, SLOTS), (128, 128), (255, 128), (256, 256)])
def test_a_cpu_has_as_many_slots_as_their_caches_may_take(
    language_model: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch, room: int, slots: int
) -> None:
    actor = Actor(language_model())
    monkeypatch.setattr("ilql.evaluate.ROW_CACHE", room * slot_bytes(actor))
    assert slots_on(CPU, actor, episodes=10**6) == slots
    monkeypatch.setattr("ilql.slots.reads_by_rows", lambda trunk, device: False)
    assert slots_on(CPU, actor, episodes=10**6) == SLOTS


@pytest.mark.parametrize(("room", "slots"), [(10, SLOTS), (3 * SLOTS - 1, 2 * SLOTS), (10**6, DEVICE_SLOTS)])
def test_a_device_has_as_many_slots_as_its_free_memory_takes(
    language_model: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch, room: int, slots: int
) -> None:
    actor = Actor(language_model())
    free = round((room + 0.5) * slot_bytes(actor) / CACHE_SHARE)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    assert slots_on(torch.device("cuda"), actor, episodes=10**6) == slots


def test_a_slot_takes_its_keys_and_values(language_model: Callable[..., nn.Module]) -> None:
    # 2 layers × keys and values × 2 heads × 8 wide × (64 + 32) columns × 4 bytes
    assert slot_bytes(Actor(language_model())) == 2 * 2 * 2 * 8 * 96 * 4


@pytest.mark.parametrize(
    ("slots", "room", "most"), [(3, 0, 24), (SLOTS, 0, 8 * SLOTS), (256, 0, 512), (256, 1000, 1256), (256, 10**6, 2048)]
)
def test_those_who_wait_on_a_cpu_are_as_many_as_their_copies_may_take(
    language_model: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch, slots: int, room: int, most: int
) -> None:
    actor = Actor(language_model())
    monkeypatch.setattr(evaluate, "WAITING_CACHE", room * slot_bytes(actor))
    assert evaluate._open(CPU, actor, slots) == most
    assert evaluate._open(torch.device("cuda"), actor, slots) == 8 * slots
