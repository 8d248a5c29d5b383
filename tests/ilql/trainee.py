"""A training as a process of its own, to be killed or to have company; no test, but what the tests of training run.

Usage: `python trainee.py FOLDER RANK WORKERS KILL_AT`. Trains on `FOLDER/train.npz`, writes checkpoints under
`FOLDER/checkpoints` and the metrics of every step to `FOLDER/metrics-RANK.json`, and ends with
`FOLDER/weights.safetensors`. It kills itself with signal 9 after step KILL_AT, if that is above 0.
"""

from __future__ import annotations

import json
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
from ilql.train import Loop, train

VOCABULARY = 24
STEPS = 7


def language_model(*, dropout: float) -> nn.Module:
    sizes = Architecture(layers=1, width=8, heads=2, context=32, dropout=dropout)
    return build_language_model(sizes, vocabulary=VOCABULARY, seed=0)


def settings(*, steps: int = STEPS) -> ilql.Train:
    return ilql.Train(steps=steps, batch_size=5, learning_rate=1e-3, polyak=0.1)


def main(folder: Path, rank: int, workers: int, kill_at: int) -> None:
    torch.set_num_threads(1)
    if workers > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=workers
        )
    model = language_model(dropout=0.2 if workers == 1 else 0.0)
    module = token_values.build(Start(model, model, seed=0), settings())
    checkpoints = folder / "checkpoints" if workers == 1 else None
    loop = Loop(log_every=1, checkpoint_every=2, checkpoints=checkpoints, rank=rank, workers=workers)
    sequences = load_sequences(folder / "train.npz")
    history = []
    for progress in train(ilql.METHOD, module, sequences, settings(), pad=VOCABULARY - 1, seed=5, loop=loop):
        history.append(dict(progress.metrics))
        if progress.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"metrics-{rank}.json").write_text(json.dumps(history), encoding="utf-8")
    if rank == 0:
        save_weights(module, folder)
    if workers > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
