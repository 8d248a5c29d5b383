"""Weights and training state on disk: safetensors and JSON, written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ilql.adapters import SharedParameter
from ilql.files import FILE, kind_of, sync

WEIGHTS = "weights.safetensors"
OPTIMISER = "optimiser.safetensors"
STATE = "state.json"

_log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint is not what it says: truncated, altered, of another network, or none."""


@dataclass(frozen=True)
class Resumed:
    """Where a training goes on from.

    Attributes:
        step: Optimiser steps done.
        optimiser: The optimiser's tensors by name.
    """

    step: int
    optimiser: Mapping[str, Tensor]


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; tensors that are shared, such as tied embeddings, once.

    A frozen trunk's, under adapters, are not among them: they are the backbone's.
    """
    state = module.state_dict(keep_vars=True)
    seen: set[int] = set()
    kept: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if id(tensor) not in seen and not isinstance(tensor, SharedParameter):
            seen.add(id(tensor))
            kept[name] = tensor.detach()
    return kept


def save_weights(module: nn.Module, folder: Path) -> None:
    """Write a module's weights into a folder."""
    _write_tensors(own_tensors(module), folder / WEIGHTS)


def load_weights(module: nn.Module, folder: Path) -> None:
    """Read weights into a module of the same shape, in place.

    Raises:
        CheckpointError: The file is missing, damaged, or of another network.
    """
    stored = _read_tensors(folder / WEIGHTS)
    own = own_tensors(module)
    if stored.keys() != own.keys():
        odd = sorted(stored.keys() ^ own.keys())[0]
        raise CheckpointError(f"weights must be of the same network, got {folder / WEIGHTS} that differs in {odd!r}")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != stored[name].shape:
                raise CheckpointError(
                    f"{name} must have shape {tuple(tensor.shape)}, "
                    f"got {tuple(stored[name].shape)} in {folder / WEIGHTS}"
                )
            if tensor.dtype != stored[name].dtype:
                wanted, got = _sort(tensor), _sort(stored[name])
                raise CheckpointError(f"{name} must be {wanted}, got {got} in {folder / WEIGHTS}: a copy would round")
            tensor.copy_(stored[name])


def check_finite(module: nn.Module, folder: str) -> None:
    """Refuse a network that can say nothing.

    Args:
        module: Whose parameters are looked at.
        folder: Where they were read from, for the message.

    Raises:
        CheckpointError: A parameter holds NaN or an infinity.
    """
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise CheckpointError(f"weights must be finite numbers, got others in {name} of {folder}/{WEIGHTS}")


def save_checkpoint(folder: Path, module: nn.Module, optimiser: Mapping[str, Tensor], *, step: int) -> Path:
    """Write a checkpoint `step-N` under `folder`, atomically, and remove the older ones; returns its path.

    All of it is on the disk before it has its name, and that before an older one goes: a power cut, too, leaves a sound
    one. Nobody else writes into `folder` meanwhile: what others began there, and were killed in, goes first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, partial = folder / _name(step), folder / f".{_name(step)}.{os.getpid()}"
    for left in folder.glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    try:
        save_weights(module, partial)
        _write_tensors(optimiser, partial / OPTIMISER)
        digests = {name: file_digest(partial / name) for name in (WEIGHTS, OPTIMISER)}
        (partial / STATE).write_text(json.dumps({"step": step, "sha256": digests}), encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            sync(path)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        sync(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    others = sorted(path for path in folder.glob("step-*") if path != final)
    for old in others[:-1]:  # one more is kept in case this one is damaged
        shutil.rmtree(old, ignore_errors=True)
    return final


def resume(folder: Path, module: nn.Module, *, at_most: int) -> Resumed | None:
    """Load the newest sound checkpoint under `folder` that is no later than step `at_most`; None if there is none.

    A damaged one is named in a warning, and passed over for the one before it.

    Raises:
        CheckpointError: A sound one is of another network: the folder belongs to another training.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            step = check_checkpoint(path)
        except CheckpointError as damage:
            _log.warning("%s; the checkpoint before it is used", damage)
            continue
        if step <= at_most:
            load_weights(module, path)
            return Resumed(step, _read_tensors(path / OPTIMISER))
    return None


def check_checkpoint(path: Path) -> int:
    """The step of a checkpoint whose files are all there and unaltered.

    Raises:
        CheckpointError: They are not.
    """
    try:
        if (kind := kind_of(path / STATE)) != FILE:
            raise ValueError(kind)
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        step, digests = int(state["step"]), dict(state["sha256"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"a checkpoint must hold a readable {STATE}, got {path}: {error}") from error
    if path.name != _name(step):
        raise CheckpointError(f"a checkpoint must be of the step in its name, got {path} of step {step}")
    if digests.keys() != {WEIGHTS, OPTIMISER}:
        raise CheckpointError(f"a checkpoint must have a digest of each file, got {path} with {sorted(digests)}")
    for name, digest in digests.items():
        if kind_of(path / name) != FILE or file_digest(path / name) != digest:
            raise CheckpointError(f"{path / name} must match its recorded digest, it does not: truncated or altered")
    return step


def _name(step: int) -> str:
    return f"step-{step:08d}"


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors; a disk that does not take them is an OSError, as with any file."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def _sort(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"weights must be a whole safetensors file, got {file}: {error}") from error
