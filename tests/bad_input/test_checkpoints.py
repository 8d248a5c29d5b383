"""Checkpoints that are none, or another's: named, and passed over for the one before; nothing else comes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from files import DEEP, DIGITS
from safetensors.torch import load_file, save_file

from ilql.checkpoint import OPTIMISER, STATE, WEIGHTS, file_digest, resume, save_checkpoint

pytestmark = pytest.mark.timeout(20, func_only=True)

Spoil = Callable[[Path], object]


def _unsigned(path: Path) -> dict[str, Any]:
    """The state, without the sum over itself: as it was written before there was one."""
    state: dict[str, Any] = json.loads((path / STATE).read_text())
    return {name: state[name] for name in ("step", "sha256")}


def _state(**changes: object) -> Spoil:
    """The state with something else in it."""
    return lambda path: (path / STATE).write_text(json.dumps(_unsigned(path) | changes))


def _write(name: str, content: bytes) -> Spoil:
    return lambda path: (path / name).write_bytes(content)


def _flip(name: str) -> Spoil:
    def spoil(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[-1] ^= 1
        (path / name).write_bytes(bytes(content))

    return spoil


def _pipe(name: str) -> Spoil:
    def spoil(path: Path) -> None:
        (path / name).unlink()
        os.mkfifo(path / name)

    return spoil


def _whole(change: Callable[[dict[str, torch.Tensor]], object], name: str = WEIGHTS) -> Spoil:
    """Other tensors, in a checkpoint whose digests agree with them."""

    def spoil(path: Path) -> None:
        tensors = load_file(path / name)
        change(tensors)
        save_file(tensors, path / name)
        state = _unsigned(path)
        state["sha256"][name] = file_digest(path / name)
        (path / STATE).write_text(json.dumps(state))

    return spoil


PASSED_OVER: dict[str, Spoil] = {
    "no state: its writer was killed": lambda path: (path / STATE).unlink(),
    "state cut off": _write(STATE, b'{"step": 2, "sha'),
    "state of zeros": _write(STATE, bytes(80)),
    "state in UTF-16": _write(STATE, '{"step": 2}'.encode("utf-16")),
    "state that is a list": _write(STATE, b"[2]"),
    "state nested too deep": _write(STATE, DEEP.encode()),
    "state that is a pipe": _pipe(STATE),
    "step of 5,000 digits": _write(STATE, f'{{"step": {DIGITS}, "sha256": {{}}}}'.encode()),
    "step of infinity": _state(step=float("inf")),
    "step of another checkpoint": _state(step=7),
    "step that is a word": _state(step="two"),
    "negative step": _state(step=-2),
    "of another training, by a changed word": lambda path: (path / STATE).write_text(
        (path / STATE).read_text().replace('"of": ""', '"of": "x"')
    ),
    "no digests": _state(sha256={}),
    "digest of one file alone": lambda path: _state(sha256={WEIGHTS: file_digest(path / WEIGHTS)})(path),
    "digests that are a list": _state(sha256=["a"]),
    "digests that are numbers": _state(sha256={WEIGHTS: 1, OPTIMISER: 2}),
    "weights with a flipped byte": _flip(WEIGHTS),
    "optimiser with a flipped byte": _flip(OPTIMISER),
    "no weights": lambda path: (path / WEIGHTS).unlink(),
    "weights that are a pipe": _pipe(WEIGHTS),
    "weights of zeros": _write(WEIGHTS, bytes(300)),
}

UNLIKE: dict[str, tuple[Spoil, str]] = {
    "another shape": (_whole(lambda tensors: tensors.update(weight=torch.zeros(5, 3))), "weight must have shape"),
    "missing tensor": (_whole(lambda tensors: tensors.pop("bias")), "'bias'"),
    "extra tensor": (_whole(lambda tensors: tensors.update(more=torch.zeros(1))), "'more'"),
    "another type": (_whole(lambda tensors: tensors.update(bias=torch.zeros(2, dtype=torch.int32))), "int32"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 1 and 2 of a layer of three inputs and two outputs."""
    for step in (1, 2):
        module = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(module.weight, float(step))
        save_checkpoint(tmp_path, module, {"moment": torch.full((2,), float(step))}, step=step)
    return tmp_path


@pytest.mark.parametrize("name", PASSED_OVER)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(folder: Path, name: str) -> None:
    PASSED_OVER[name](folder / "step-00000002")
    module = torch.nn.Linear(3, 2)
    resumed = resume(folder, module, at_most=100)
    assert resumed is not None
    assert resumed.step == 1
    assert bool((module.weight == 1.0).all())
    assert resumed.optimiser["moment"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", UNLIKE)
def test_a_sound_one_of_another_network_is_named_and_passed_over(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, said = UNLIKE[name]
    spoil(folder / "step-00000002")
    module = torch.nn.Linear(3, 2)
    resumed = resume(folder, module, at_most=100)
    assert resumed is not None
    assert resumed.step == 1
    assert bool((module.weight == 1.0).all())
    assert said in caplog.text
