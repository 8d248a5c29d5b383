"""The training loop, as a generator of Progress.

A step is one optimiser step, never a micro-batch. Everything random in step s follows from the seed and s alone (the
batch, dropout), so a training that is killed and resumed ends in the very same bits on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ilql.batch import TokenBatch, TokenSequence, batch_order, collate, dialogue_weights
from ilql.checkpoint import UNHELD, Hold, resume, save_checkpoint
from ilql.language_model import recompute_layers
from ilql.method import Method
from ilql.sharding import (
    clip_gradients,
    idle_passes,
    is_sharded,
    own_part,
    shard,
    sharded_like,
)

VERSION = 5
"""Raised when the same settings would be trained otherwise; part of the key of all weights."""


class TrainingInterrupted(Exception):  # noqa: N818  no error: what was asked for
    """A training was asked to stop; it has finished its step and written a checkpoint."""


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        step: Optimiser steps done.
        metrics: Means over the batch of this step, over all workers: `loss` and its parts. Empty unless logged: whoever
            records nothing else records the same however long steps take.
    """

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How a training is run; none of it decides the weights beyond rounding, unless the networks drop out.

    Attributes:
        device: Where the networks are.
        log_every: Steps between logged metrics; the first and the last are logged, too.
        checkpoint_every: Steps between checkpoints; the last step writes one, too.
        checkpoints: Folder of the checkpoints, found again on resumption; None writes none.
        hold: Whose that folder is.
        micro_batch: Dialogues per forward pass of a worker, for memory, and for less padding: a micro-batch holds
            dialogues alike in length. 0 takes the batch whole.
        recompute: Whether trunks keep the input of each layer alone for the backward pass, and make the rest again:
            less memory for a third more work.
        shard: Whether each worker holds but its rows of the trunks' blocks, for memory; see `ilql.sharding`.
        rank: This worker's number.
        workers: Number of workers. Above one, `torch.distributed` must be initialised.
        stop: Asked at every step; once it says True of one worker, all stop, after that step or the next.
        heartbeat_seconds: There is Progress after a step that ends so long after the last one, or after the next step,
            by the first worker's clock: a sign of life where steps take long.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    log_every: int = 10
    checkpoint_every: int = 200
    checkpoints: Path | None = None
    hold: Hold = UNHELD
    micro_batch: int = 0
    recompute: bool = False
    shard: bool = False
    rank: int = 0
    workers: int = 1
    stop: Callable[[], bool] = lambda: False
    heartbeat_seconds: float = math.inf

    def __post_init__(self) -> None:
        if self.shard and self.workers < 2:
            raise ValueError(f"sharding needs at least 2 workers, got {self.workers}")


class Signals:
    """Whether a training is to stop, and whether a sign of life is due: on all workers at the same steps.

    One worker asks and hears itself, after each step. Several offer what they have before a step, whose first sum adds
    that up, and take what all offered before the last step: a device has answered that by now, and need not be waited
    for.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._summed: Tensor | None = None
        self._lived = time.monotonic()

    def offer(self) -> tuple[bool, bool]:
        """Before a step: what this worker of several has to say of the two, a sign of life once, for all will hear."""
        if self._loop.workers == 1:
            return False, False
        offered = self._loop.stop(), self._loop.rank == 0 and self._is_late()
        if offered[1]:
            self.lived()
        return offered

    def take(self, summed: Tensor | None) -> tuple[bool, bool]:
        """After a step: the two as they hold for all.

        Args:
            summed: How many workers offered each in this step, shape (2,); None of one worker.
        """
        if self._loop.workers == 1:
            return self._loop.stop(), self._is_late()
        before, self._summed = self._summed, summed
        if before is None:
            return False, False
        stopped, late = (before > 0).tolist()
        return stopped, late

    def lived(self) -> None:
        """Note a sign of life."""
        self._lived = time.monotonic()

    def _is_late(self) -> bool:
        return time.monotonic() - self._lived >= self._loop.heartbeat_seconds


def train(
    method: Method,
    module: nn.Module,
    sequences: Sequence[TokenSequence],
    settings: Any,
    *,
    pad: int,
    seed: int,
    loop: Loop,
) -> Iterator[Progress]:
    """Train `module` in place for `settings.steps` steps, resuming from checkpoints that are there.

    Args:
        method: What is learnt.
        module: Its freshly built module, equal on all workers.
        sequences: The dialogues it learns from, selected already.
        settings: The method's training hyperparameters.
        pad: The padding id.
        seed: The training seed.
        loop: How it is run.

    Yields:
        Progress after each step that logs or writes a checkpoint, after the last, and now and then where those are far
        apart in time.

    Raises:
        FloatingPointError: The loss is not finite: the training has diverged.
        TrainingInterrupted: It was asked to stop before its last step; the checkpoint of its last one is written.
        ValueError: There is no dialogue to learn from.
    """
    last = settings.steps
    if loop.shard:
        shard(module, loop.device)  # before anyone has its parameters, which become others
    trained = [p for p in module.parameters() if p.requires_grad]
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    # Sharded ones in a group of their own: no operation takes both sorts at once.
    groups = [[p for p in trained if is_sharded(p) == sharded] for sharded in (False, True)]
    optimiser = torch.optim.AdamW(
        [{"params": group} for group in groups if group],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=loop.device.type in ("cpu", "cuda"),
    )
    module.to(loop.device)
    if loop.recompute:
        recompute_layers(module)

    def meet(told: dict[str, Any]) -> list[dict[str, Any]]:
        return _gather(told, loop) if loop.workers > 1 else [told]

    done = 0
    if loop.checkpoints is not None:
        found = resume(
            loop.checkpoints,
            module,
            at_most=last,
            name=loop.hold.name,
            rank=loop.rank,
            workers=loop.workers,
            meet=meet,
        )
        if found is not None:
            done = found.step
            _restore_optimiser(optimiser, names, trained, found.optimiser)
    signals = Signals(loop)
    batches = batch_order(len(sequences), batch_size=settings.batch_size, seed=seed, start=done)
    for step in range(done + 1, last + 1):
        module.train()  # at every step: whoever was given Progress may have evaluated
        torch.manual_seed(_step_seed(seed, step, loop.rank))
        batch = [sequences[i] for i in next(batches)]
        cut = micro_batches(batch[loop.rank :: loop.workers], loop.micro_batch)
        idle = idle_passes(len(batch), workers=loop.workers, micro_batch=loop.micro_batch, own=len(cut))
        cut += [[min(batch, key=lambda sequence: len(sequence.tokens))]] * idle
        parts = [collate(part, pad=pad).to(loop.device) for part in cut]
        logged = step == 1 or step % loop.log_every == 0 or step == last
        offered = signals.offer()
        metrics, asked = _step(
            method, module, parts, settings, trained, optimiser, loop, idle=idle, logged=logged, offered=offered
        )
        method.after_step(module, settings, step)
        due = loop.checkpoints is not None and (step % loop.checkpoint_every == 0 or step == last)
        stopped, late = signals.take(asked)
        stopped = stopped and step < last
        due = due or (stopped and loop.checkpoints is not None)
        if loop.checkpoints is not None and due and (loop.shard or loop.rank == 0):
            save_checkpoint(
                loop.checkpoints,
                module,
                _optimiser_tensors(optimiser, names, trained),
                step=step,
                hold=loop.hold,
                rank=loop.rank,
                workers=loop.workers if loop.shard else 1,
                meet=meet if loop.shard else lambda told: [told],
            )
        if logged or due or late:  # at the same steps on every worker, so that they may meet there
            signals.lived()
            yield Progress(step, metrics)
        if stopped:
            raise TrainingInterrupted(f"asked to stop, at step {step} of {last}")
    module.eval()


def mask_of(counted: Tensor, weighting: str) -> Tensor:
    """The mask of every mean, shape (B, K): each dialogue alike, or each action that counts alike."""
    return dialogue_weights(counted) if weighting == "dialogue" else counted.float()


def micro_batches(sequences: Sequence[TokenSequence], size: int) -> list[list[TokenSequence]]:
    """Cut a batch into micro-batches of at most `size`, the shortest dialogues first, so that there is little padding.

    Args:
        sequences: The dialogues of a batch, perhaps none.
        size: Dialogues in a micro-batch; 0 leaves the batch whole, in the same order as if it were cut.
    """
    by_length = sorted(sequences, key=lambda sequence: len(sequence.tokens))
    size = size or max(1, len(by_length))
    return [by_length[first : first + size] for first in range(0, len(by_length), size)]


def _step(
    method: Method,
    module: nn.Module,
    parts: Sequence[TokenBatch],
    settings: Any,
    trained: Sequence[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    loop: Loop,
    *,
    idle: int,
    logged: bool,
    offered: tuple[bool, bool],
) -> tuple[dict[str, float], Tensor | None]:
    """One optimiser step on one worker's micro-batches.

    Returns:
        The whole batch's metrics, if logged; and of several workers how many `offered` each of the two, shape (2,).

    The losses are means Σ m·x / Σ m. A share's mean counts with Σ m of the share over Σ m of the batch, so the sum over
    micro-batches and workers is the mean over the batch, however it was cut. The last `idle` micro-batches count
    nothing: passes that are made because other workers make them.
    """
    optimiser.zero_grad(set_to_none=True)
    masks = [mask_of(method.counts(part), settings.weighting) for part in parts]
    masks = [mask if number < len(parts) - idle else torch.zeros_like(mask) for number, mask in enumerate(masks)]
    total_weight = torch.stack([torch.zeros((), device=loop.device), *(mask.sum() for mask in masks)]).sum()
    asked = None
    if loop.workers > 1:
        counts = torch.stack([total_weight, *(torch.full_like(total_weight, each) for each in offered)])
        torch.distributed.all_reduce(counts)
        total_weight, asked = counts[0], counts[1:]
    whole = total_weight.clamp(min=torch.finfo(torch.float32).tiny)
    sums: dict[str, Tensor] = {}
    for part, mask in zip(parts, masks, strict=True):
        half = settings.precision == "bfloat16"
        # Its cache would keep every block's weights in half precision until the pass is over.
        with torch.autocast(loop.device.type, dtype=torch.bfloat16, enabled=half, cache_enabled=not loop.shard):
            loss = method.loss(module, part, mask, settings)
        share = mask.sum() / whole
        (loss.total * share).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value * share
    if loop.workers > 1:
        _sum_gradients(trained)
    if settings.clip_norm is not None:
        clip_gradients(trained, settings.clip_norm)
    optimiser.step()
    if not logged:
        return {}, asked
    if loop.workers > 1:
        sums = _sum_metrics(sums, loop)
    # One tensor, so that a device is waited for once.
    numbers = torch.stack([value.double() for value in sums.values()]).tolist()
    metrics = dict(zip(sums, numbers, strict=True))
    if not all(map(math.isfinite, numbers)):
        raise FloatingPointError(f"the training has diverged: {metrics}")
    return metrics, asked


def _sum_gradients(trained: Sequence[nn.Parameter]) -> None:
    """Add up the workers' gradients, in one message, of whatever is not sharded, whose gradients are added up already.

    All workers have made passes, so what has no gradient on one has none on any.
    """
    gradients = [p.grad for p in trained if p.grad is not None and not is_sharded(p)]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def _sum_metrics(sums: Mapping[str, Tensor], loop: Loop) -> dict[str, Tensor]:
    """Add up the workers' shares of every metric."""
    gathered = _gather({name: float(value) for name, value in sums.items()}, loop)
    names = sorted({name for part in gathered for name in part})
    return {name: torch.tensor(sum(part.get(name, 0.0) for part in gathered)) for name in names}


def _gather(own: Mapping[str, Any], loop: Loop) -> list[dict[str, Any]]:
    """What every worker tells, sent as JSON: torch's own way to gather objects would unpickle what it is sent."""
    text = torch.frombuffer(bytearray(json.dumps(own).encode()), dtype=torch.uint8)
    lengths = torch.zeros(loop.workers, dtype=torch.long, device=loop.device)
    lengths[loop.rank] = len(text)
    torch.distributed.all_reduce(lengths)
    sent = torch.zeros(loop.workers, int(lengths.max()), dtype=torch.uint8, device=loop.device)
    sent[loop.rank, : len(text)] = text.to(loop.device)
    torch.distributed.all_reduce(sent)
    rows = zip(sent.cpu(), lengths.tolist(), strict=True)
    return [json.loads(bytes(row[:length].tolist())) for row, length in rows]


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A seed of its own for every step and worker."""
    return ((seed * 1_000_003 + step) * 4_099 + rank) % (2**63)


def _optimiser_tensors(
    optimiser: torch.optim.Optimizer, names: Sequence[str], trained: Sequence[nn.Parameter]
) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value if is_sharded(value) else value.detach().cpu()
        for name, parameter in zip(names, trained, strict=True)
        for key, value in optimiser.state[parameter].items()
    }


def _restore_optimiser(
    optimiser: torch.optim.Optimizer,
    names: Sequence[str],
    trained: Sequence[nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    for name, parameter in zip(names, trained, strict=True):
        own = {key.rsplit("/", 1)[1]: value for key, value in tensors.items() if key.rsplit("/", 1)[0] == name}
        optimiser.state[parameter] = {
            key: sharded_like(parameter, value)
            if is_sharded(parameter) and value.shape == own_part(parameter).shape
            else value.to(parameter.device)
            for key, value in own.items()
        }
