"""The loss on dialogues that a training does not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ilql.batch import TokenSequence, collate
from ilql.method import Method
from ilql.train import mask_of, micro_batches

LOSS_BATCH = 16
"""Dialogues per forward pass, at most."""


@torch.no_grad()
def loss_on(
    method: Method,
    module: nn.Module,
    sequences: Sequence[TokenSequence],
    settings: Any,
    *,
    pad: int,
    device: torch.device,
    at_once: int = LOSS_BATCH,
) -> float | None:
    """The method's loss on dialogues as they are now, Σ m·x / Σ m over all of them; nothing is learnt from it.

    With the networks as they act, so without dropout. Whoever is given `Progress` may ask for it: a training goes on as
    if that had not been.

    Args:
        method: What is learnt.
        module: Its module, on the device.
        sequences: The dialogues.
        settings: The method's training hyperparameters.
        pad: The padding id.
        device: Where.
        at_once: Dialogues per forward pass, at most: no more than a training takes, whose memory was chosen for that.

    Returns:
        None where no action counts.
    """
    module.eval()
    total = weight = 0.0
    for part in micro_batches(sequences, min(at_once, LOSS_BATCH)):
        batch = collate(part, pad=pad).to(device)
        mask = mask_of(method.counts(batch), settings.weighting)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
            loss = method.loss(module, batch, mask, settings)
        share = float(mask.sum())
        total, weight = total + share * float(loss.total), weight + share
    return total / weight if weight else None
