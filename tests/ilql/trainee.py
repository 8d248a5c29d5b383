"""A training as a process of its own, to be killed or to have company; no test, but what the tests of training run.

Usage: `python trainee.py FOLDER RANK WORKERS KILL_AT [ASK_AT [BEATS]]`. Trains on `FOLDER/train.npz`, writes
checkpoints under `FOLDER/checkpoints` and the metrics of every step to `FOLDER/metrics-RANK.json`, and ends with
`FOLDER/weights.safetensors`. It kills itself with signal 9 after step KILL_AT, if that is above 0. If ASK_AT is, the
last worker is asked to stop in that step, of a training that logs next to nothing, and all end without weights. If
BEATS is, the training logs as little, and the first worker finds every step late.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed
from torch import nn

from ilql import token_values
from ilql.batch import load_sequences
from ilql.checkpoint import save_weights
from ilql.language_model import Architecture, build_language_model
from ilql.method import Start
from ilql.methods import ilql
from ilql.train import Loop, TrainingInterrupted, train

VOCABULARY = 24
STEPS = 7


def language_model(*, dropout: float) -> nn.Module:
    sizes = Architecture(layers=1, width=8, heads=2, context=32, dropout=dropout)
    return build_language_model(sizes, vocabulary=VOCABULARY, seed=0)


def settings(*, steps: int = STEPS) -> ilql.Train:
    return ilql.Train(steps=steps, batch_size=5, learning_rate=1e-3, polyak=0.1)


def main(folder: Path, rank: int, workers: int, kill_at: int, ask_at: int = 0, beats: int = 0) -> None:
    torch.set_num_threads(1)
    if workers > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=workers
        )
    model = language_model(dropout=0.2 if workers == 1 else 0.0)
    module = token_values.build(Start(model, model, seed=0), settings())
    asked = itertools.count(1)
    loop = Loop(
        log_every=100 if ask_at or beats else 1,
        checkpoint_every=100 if ask_at else 2,
        checkpoints=folder / "checkpoints" if workers == 1 or ask_at else None,
        rank=rank,
        workers=workers,
        stop=lambda: next(asked) == ask_at and rank == workers - 1,
        heartbeat_seconds=0.0 if beats and rank == 0 else math.inf,
    )
    sequences = load_sequences(folder / "train.npz")
    history = []
    try:
        for progress in train(ilql.METHOD, module, sequences, settings(), pad=VOCABULARY - 1, seed=5, loop=loop):
            history.append(dict(progress.metrics))
            if progress.step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    except TrainingInterrupted as stopped:
        (folder / f"stopped-{rank}").write_text(str(stopped), encoding="utf-8")
        torch.distributed.barrier()  # none goes while another still answers
        torch.distributed.destroy_process_group()
        return
    (folder / f"metrics-{rank}.json").write_text(json.dumps(history), encoding="utf-8")
    if rank == 0:
        save_weights(module, folder)
    if workers > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:7]))
