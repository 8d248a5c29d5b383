"""Weights and training state on disk: safetensors and JSON, written whole or not at all, checked when read.

Where a module is sharded, each worker writes what it holds into files of its own: `weights-1-of-2.safetensors`. The
first worker's have the tensors that all hold, too. Of a sharded tensor every file has some rows, in the workers' order:
one behind the other they are the tensor, whoever reads it, and in however many parts.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ilql.adapters import SharedParameter
from ilql.files import FILE, kind_of, sync
from ilql.sharding import is_sharded, own_part, own_rows, whole

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
        optimiser: The optimiser's tensors by name; this worker's rows of what belongs to a sharded parameter.
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


def save_gathered_weights(module: nn.Module, folder: Path, *, write: bool) -> None:
    """Write a sharded module's weights into a folder, whole, one tensor after the other: nobody holds two of them.

    All workers call it at once.

    Args:
        module: The sharded one.
        folder: Where to.
        write: Whether this worker writes; the others only give what they hold.
    """
    tensors = own_tensors(module)
    gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
    if write:
        _write_one_by_one(tensors, gathered, folder / WEIGHTS)
    else:
        for _ in gathered:
            pass


def load_weights(module: nn.Module, folder: Path) -> None:
    """Read weights into a module of the same shape, in place.

    Raises:
        CheckpointError: The file is missing, damaged, or of another network.
    """
    _load(module, _Stored([folder / WEIGHTS]))


def _load(module: nn.Module, stored: _Stored) -> None:
    _check_fits(module, stored)
    with torch.no_grad():
        for name, tensor in own_tensors(module).items():
            rows = stored.rows(name, *own_rows(tensor)) if is_sharded(tensor) else stored.all(name)
            own_part(tensor).copy_(rows)


def _check_fits(module: nn.Module, stored: _Stored) -> None:
    """Refuse weights of another network, before any is read."""
    own, file = own_tensors(module), stored.files[0]
    if stored.names() != own.keys():
        odd = sorted(stored.names() ^ own.keys())[0]
        raise CheckpointError(f"weights must be of the same network, got {file} that differs in {odd!r}")
    for name, tensor in own.items():
        shape = stored.shape(name)
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"{name} must have shape {tuple(tensor.shape)}, got {shape} in {file}")
        if _NAMES[tensor.dtype] != (got := stored.sort(name)):
            wanted, held = _sort(tensor.dtype), next((_sort(of) for of, called in _NAMES.items() if called == got), got)
            raise CheckpointError(f"{name} must be {wanted}, got {held} in {file}: a copy would round")


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


def _unheld() -> None:
    """Nobody else can be at it."""


@dataclass(frozen=True)
class Hold:
    """Whose a folder of checkpoints is.

    Attributes:
        name: What decides the training, such as a key: a checkpoint of another name is not gone on from.
        term: A number above that of whoever had the folder before: what they began goes, what a follower begins stays.
        check: Called before anything is written; raises if the folder is another's now.
    """

    name: str = ""
    term: int = 0
    check: Callable[[], None] = _unheld


UNHELD = Hold()


Meet = Callable[[dict[str, Any]], list[dict[str, Any]]]
"""What a worker tells the others, as JSON, and what all of them told, in their order."""


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    optimiser: Mapping[str, Tensor],
    *,
    step: int,
    hold: Hold = UNHELD,
    rank: int = 0,
    workers: int = 1,
    meet: Meet = lambda told: [told],
) -> Path:
    """Write a checkpoint `step-N` under `folder`, atomically, and remove the older ones; returns its path.

    All of it is on the disk before it has its name, and that before an older one goes: a power cut, too, leaves a sound
    one. What others began there, and were killed in, goes first.

    Args:
        folder: Where checkpoints are.
        module: What is saved of it: its weights. Of a sharded one by all workers, who call this at once.
        optimiser: Its tensors by name: a parameter's, a slash, and what it is of that.
        step: Optimiser steps done.
        hold: Whose the folder is. What its `check` raises is raised.
        rank: The number of this worker, if several write.
        workers: How many write.
        meet: How they tell each other.

    Raises:
        OSError: A disk did not take it, whoever's it was; all of them raise it.
    """
    final, partial = folder / _name(step), folder / f".{_name(step)}.{hold.term}.{os.getpid()}"
    weights, moments = own_tensors(module), dict(optimiser)
    if workers > 1:
        weights, moments = _held(weights, rank), _held(moments, rank)

    def begin() -> dict[str, Any]:
        if rank == 0:
            hold.check()
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".step-*"):
                if _term(left) <= hold.term:
                    shutil.rmtree(left, ignore_errors=True)
            partial.mkdir()
        return {"partial": partial.name}

    def write() -> dict[str, Any]:
        names = _files(rank, workers)
        for name, tensors in zip(names, (weights, moments), strict=True):
            _write_tensors(tensors, partial / name)
            sync(partial / name)
        return {name: file_digest(partial / name) for name in names}

    def end() -> dict[str, Any]:
        if rank == 0:
            state = {"step": step, "of": hold.name, "sha256": digests}
            (partial / STATE).write_text(json.dumps(state | {"sum": _sum(state)}), encoding="utf-8")
            for path in (partial / STATE, partial):
                sync(path)
            hold.check()
            if final.exists():
                shutil.rmtree(final)
            partial.rename(final)
            sync(folder)
        return {}

    try:
        partial = folder / _together(begin, meet)[0]["partial"]
        digests = {name: digest for told in _together(write, meet) for name, digest in told.items()}
        _together(end, meet)
    except BaseException:
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    if rank == 0:
        earlier = sorted(path for path in folder.glob("step-*") if path.name < final.name)
        for old in earlier[:-1]:  # one more is kept in case this one is damaged
            shutil.rmtree(old, ignore_errors=True)
    return final


def _term(partial: Path) -> int:
    """Of whoever began it."""
    parts = partial.name.split(".")
    return int(parts[2]) if len(parts) == 4 and parts[2].isdecimal() else 0


def _together(act: Callable[[], dict[str, Any]], meet: Meet) -> list[dict[str, Any]]:
    """What all workers give; if one of them fails all raise it, and nobody waits for one that is gone."""
    failed: Exception | None = None
    try:
        given = act()
    except OSError as error:
        failed, given = error, {"errno": error.errno, "file": str(error.filename)}
    except Exception as error:  # noqa: BLE001  raised below, when the others know
        failed, given = error, {"error": f"{type(error).__name__}: {error}"}
    told = meet(given)
    if failed is not None:
        raise failed
    for each in told:
        if "errno" in each:
            number = int(each["errno"] or 0)
            raise OSError(number, os.strerror(number), each["file"])
        if "error" in each:
            raise RuntimeError(each["error"])
    return told


def _held(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """What a worker writes of tensors: its rows of those that are sharded, and the first worker all of the others."""
    return {name: own_part(tensor) for name, tensor in tensors.items() if rank == 0 or is_sharded(tensor)}


def _files(rank: int, workers: int) -> tuple[str, str]:
    """A worker's files of a checkpoint: weights and optimiser."""
    if workers == 1:
        return WEIGHTS, OPTIMISER
    own = f"-{rank}-of-{workers}.safetensors"
    return WEIGHTS.replace(".safetensors", own), OPTIMISER.replace(".safetensors", own)


def resume(
    folder: Path,
    module: nn.Module,
    *,
    at_most: int,
    name: str = "",
    rank: int = 0,
    workers: int = 1,
    meet: Meet = lambda told: [told],
) -> Resumed | None:
    """Load the newest sound checkpoint under `folder` that is no later than step `at_most`; None if there is none.

    One that is damaged, of another training or of another network is named in a warning, and passed over for the one
    before it. Module and checkpoint may be sharded, or not, each by itself. Workers that train together call it at
    once, and go on from the same: each looks at some of the files, and what one of them finds unsound nobody uses.

    Args:
        folder: Where checkpoints are.
        module: Loaded in place.
        at_most: The last step that may be gone on from.
        name: What decides the training, see `Hold`; empty if anybody's will do.
        rank: The number of this worker, if several train together.
        workers: How many do.
        meet: How they tell each other.

    Raises:
        OSError: Workers see different checkpoints, as where a shared disk shows changes late.
    """
    paths = sorted((path for path in folder.glob("step-*") if path.name <= _name(at_most)), reverse=True)
    seen = [each["names"] for each in meet({"names": [path.name for path in paths]})]
    if any(names != seen[0] for names in seen):
        raise OSError(errno.ESTALE, f"workers must see the same checkpoints, got {seen}", str(folder))
    for path in paths:
        damage = None
        try:
            step, writers = _checked(path, name, rank, workers)
            files = zip(*(_files(writer, writers) for writer in range(writers)), strict=True)
            weights, optimiser = (_Stored([path / file for file in each]) for each in files)
            _check_fits(module, weights)
        except CheckpointError as error:
            damage = str(error)
        damages = [each["damage"] for each in meet({"damage": damage}) if each["damage"] is not None]
        if damages:
            if rank == 0:
                _log.warning("%s; the checkpoint before it is used", damages[0])
            continue
        _load(module, weights)
        return Resumed(step, _own_rows_of(optimiser, module))
    return None


def _own_rows_of(stored: _Stored, module: nn.Module) -> dict[str, Tensor]:
    """An optimiser's tensors; of those that have a sharded parameter's shape this worker's rows."""
    parameters, found = dict(module.named_parameters()), dict[str, Tensor]()
    for name in stored.names():
        parameter = parameters.get(name.rpartition("/")[0])
        if parameter is not None and is_sharded(parameter) and stored.shape(name) == tuple(parameter.shape):
            found[name] = stored.rows(name, *own_rows(parameter))
        else:
            found[name] = stored.all(name)
    return found


def check_checkpoint(path: Path) -> int:
    """The step of a checkpoint whose files are all there and unaltered.

    Raises:
        CheckpointError: They are not.
    """
    return _checked(path)[0]


def _checked(path: Path, name: str = "", rank: int = 0, workers: int = 1) -> tuple[int, int]:
    """Its step, and how many workers wrote it; of several that look each reads but its share of the files."""
    try:
        if (kind := kind_of(path / STATE)) != FILE:
            raise ValueError(kind)
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        step, digests, told = int(state["step"]), dict(state["sha256"]), state.pop("sum", None)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"a checkpoint must hold a readable {STATE}, got {path}: {error}") from error
    if path.name != _name(step):
        raise CheckpointError(f"a checkpoint must be of the step in its name, got {path} of step {step}")
    if state.keys() != {"step", "sha256"} and _sum(state) != told:  # those alone are of before there was a sum
        raise CheckpointError(f"{path / STATE} must match its own sum, it does not: altered")
    if name and state.get("of", name) != name:
        raise CheckpointError(f"a checkpoint must be of the training {name}, got {path} of {state['of']!r}")
    writers = max(1, len(digests) // 2)
    if digests.keys() != {file for writer in range(writers) for file in _files(writer, writers)}:
        raise CheckpointError(f"a checkpoint must have a digest of each file, got {path} with {sorted(digests)}")
    for file, digest in sorted(digests.items())[rank::workers]:
        if kind_of(path / file) != FILE or file_digest(path / file) != digest:
            raise CheckpointError(f"{path / file} must match its recorded digest, it does not: truncated or altered")
    return step, writers


def _sum(state: Mapping[str, Any]) -> str:
    """SHA-256 of what a checkpoint says of itself, in hexadecimal."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


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


def _sort(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_NAMES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.float16: "F16",
          torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}  # fmt: skip
"""Types of numbers as safetensors names them."""


def _write_one_by_one(described: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]], file: Path) -> None:
    """Write a safetensors file of tensors that come one after the other.

    Its format: the header's length in 8 bytes, the header as JSON, then the tensors' bytes one behind the other.

    Args:
        described: Their names, shapes and types, in their order.
        tensors: They.
        file: Where to.
    """
    header, end = dict[str, Any](), 0
    for name, tensor in described.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in tensors:
            stream.write(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)


class _Stored:
    """The tensors of a safetensors file, or of those that several workers wrote of one module.

    Args:
        files: In the workers' order.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self._open = [_opened(file) for file in files]
        self._holders: dict[str, list[Any]] = {}
        for opened in self._open:
            for name in opened.offset_keys():
                self._holders.setdefault(name, []).append(opened)

    def names(self) -> set[str]:
        """Of its tensors."""
        return set(self._holders)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's whole shape."""
        shapes = [tuple(holder.get_slice(name).get_shape()) for holder in self._holders[name]]
        return shapes[0] if len(shapes) == 1 else (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def sort(self, name: str) -> str:
        """The type of a tensor's numbers, as safetensors names it."""
        return str(self._holders[name][0].get_slice(name).get_dtype())

    def all(self, name: str) -> Tensor:
        """A tensor, whole."""
        parts = [holder.get_tensor(name) for holder in self._holders[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def rows(self, name: str, first: int, count: int) -> Tensor:
        """Some rows of a tensor; no others are read."""
        parts, begin = [], 0
        for holder in self._holders[name]:
            rows = holder.get_slice(name)
            here = rows.get_shape()[0]
            low, high = max(first - begin, 0), min(first + count - begin, here)
            if low < high:
                parts.append(rows[low:high])
            begin += here
        return torch.cat(parts) if parts else self._holders[name][0].get_slice(name)[0:0]


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"weights must be a whole safetensors file, got {file}: {error}") from error
