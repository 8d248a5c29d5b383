"""Several trainings one after the other, as one of several workers; no test, but what the tests of sharding run.

Usage: `python sharded_trainee.py FOLDER RANK WORKERS KILL NAME...`. Runs the trainings of these names on
`FOLDER/train.npz`, writes what it saw to `FOLDER/seen-RANK.json`, and each module's whole weights under `FOLDER/NAME`.
With KILL above 0 this worker kills itself with signal 9 in the middle of writing a checkpoint, that one in number.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn

from ilql import checkpoint
from ilql.batch import load_sequences
from ilql.checkpoint import save_gathered_weights
from ilql.language_model import Architecture, build_language_model, held_beside
from ilql.method import Method, Start
from ilql.methods import bc, ilql, psi, utterance_ilql
from ilql.sharding import is_sharded, own_part
from ilql.train import Loop, train

VOCABULARY = 24
STEPS = 10
FAST = {"learning_rate": 1e-3, "batch_size": 5, "steps": STEPS}
HALF = ilql.Train(**FAST, polyak=0.1, precision="bfloat16")


@dataclass(frozen=True)
class Training:
    """One training: of 5 dialogues a step, for 10 steps, from the same random language model.

    Attributes:
        method: What is learnt.
        settings: How.
        loop: What is otherwise in its loop.
        family: Of the language model.
        width: Of the language model. Of six rows four workers hold 2, 2, 2 and none.
        from_checkpoint: Go on from the checkpoint in a folder of this name, if any.
    """

    method: Method
    settings: Any
    loop: dict[str, Any] = field(default_factory=dict)
    family: str = "gpt2"
    width: int = 6
    from_checkpoint: str = ""


TRAININGS = {
    "bc": Training(bc.METHOD, bc.Train(**FAST)),
    "ilql": Training(ilql.METHOD, ilql.Train(**FAST, polyak=0.1), {"checkpoint_every": 6}),
    "wide": Training(ilql.METHOD, ilql.Train(**FAST, polyak=0.1), width=32),
    "wide, all of it": Training(ilql.METHOD, ilql.Train(**FAST, polyak=0.1), {"shard": False}, width=32),
    "llama": Training(ilql.METHOD, ilql.Train(**FAST, polyak=0.1), family="llama", width=8),
    "utterance_ilql": Training(utterance_ilql.METHOD, utterance_ilql.Train(**FAST, polyak=0.1)),
    "clipped": Training(
        ilql.METHOD, ilql.Train(**FAST, polyak=0.1, clip_norm=0.5), {"micro_batch": 1, "recompute": True}
    ),
    "frozen": Training(psi.METHOD, psi.Train(**FAST, polyak=0.1)),
    "half": Training(ilql.METHOD, HALF, {"micro_batch": 1, "recompute": True}),
    "half, all of it": Training(ilql.METHOD, HALF, {"micro_batch": 1, "shard": False}),
    # No gradient reaches its trunk, which decays for nobody; and target and online network have the same one.
    "shut": Training(
        ilql.METHOD,
        ilql.Train(**FAST, q_into_trunk=False, v_into_trunk=False, target_trunk=False, weight_decay=0.5),
    ),
    # One dialogue a step: the other workers have none.
    "lonely": Training(bc.METHOD, bc.Train(**FAST | {"batch_size": 1})),
}
RESUMED = {
    f"{name} from {what}": dataclasses.replace(TRAININGS[name], from_checkpoint=what)
    for name in ("ilql",)
    for what in ("one", "two", "four")
}


def module_of(training: Training) -> nn.Module:
    sizes = Architecture(family=training.family, layers=2, width=training.width, heads=2, context=32)
    model = build_language_model(sizes, vocabulary=VOCABULARY, seed=0)
    module: nn.Module = training.method.build(Start(model, model, seed=0), training.settings)
    return module


def run(training: Training, module: nn.Module, folder: Path, **loop: Any) -> list[dict[str, float]]:
    """Train, and give the metrics of every step that was made."""
    how = Loop(**{"log_every": 1, "checkpoint_every": 100, **loop, **training.loop})
    sequences = load_sequences(folder / "train.npz")
    seen = train(training.method, module, sequences, training.settings, pad=VOCABULARY - 1, seed=5, loop=how)
    return [{"step": progress.step, **progress.metrics} for progress in seen]


def held(module: nn.Module) -> dict[str, list[int]]:
    """Give how many numbers this worker holds of the blocks, their gradients and the rest, and how many there are."""
    counts = {"blocks": [0, 0], "gradients": [0, 0], "rest": [0, 0]}
    for part in (module, *held_beside(module)):
        for name, parameter in part.named_parameters():
            count = counts["blocks" if ".h." in f".{name}" else "rest"]
            count[0] += own_part(parameter).numel()
            count[1] += parameter.numel()
            if is_sharded(parameter) and parameter.grad is not None:
                counts["gradients"][0] += own_part(parameter.grad).numel()
                counts["gradients"][1] += parameter.grad.numel()
    return counts


def dies_in_checkpoint(number: int) -> Callable[[Path], str]:
    """Give a digest that ends this process when it is asked for the weights of that checkpoint, which are written."""
    real, asked = checkpoint.file_digest, list[Path]()

    def digest(file: Path) -> str:
        asked.append(file)
        if len(asked) == 2 * number - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(file)

    return digest


def main(folder: Path, rank: int, workers: int, kill: int, names: list[str]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=workers,
        timeout=timedelta(seconds=120),
    )
    if kill:
        checkpoint.file_digest = dies_in_checkpoint(kill)
    seen = {}
    for name in names:
        training = (TRAININGS | RESUMED)[name]
        module = module_of(training)
        checkpoints = folder / name / "checkpoints"
        if training.from_checkpoint and rank == 0:
            shutil.copytree(folder / training.from_checkpoint, checkpoints)
        torch.distributed.barrier()
        metrics = run(training, module, folder, shard=True, rank=rank, workers=workers, checkpoints=checkpoints)
        seen[name] = {"metrics": metrics, "held": held(module)}
        save_gathered_weights(module, folder / name, write=rank == 0)
    (folder / f"seen-{rank}.json").write_text(json.dumps(seen), encoding="utf-8")
    # Nothing may be left to a thread of gloo's that would need the interpreter when it is gone: that aborts.
    del module
    gc.collect()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5:])  # type: ignore[call-arg,arg-type]
