"""Does the machinery give the numbers that arithmetic gives? The smallest question there is.

On the two-armed bandit (see `ilql.tasks.bandit`) V is tau and a sampling policy takes the good arm with probability
1/(1 + exp(−β)). It runs in about a minute and shows a new question's shape.

    python sweeps/bandit_ablation.py
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from ilql.language_model import Architecture
from ilql.methods import bc
from ilql.tasks.bandit import Settings
from sweeps.commands.run import run_command
from sweeps.job import Resources
from sweeps.presets import Preset
from sweeps.question import Question
from sweeps.reporting import Against
from sweeps.space import Grid

BETAS = (0.0, 1.0, 2.0)


def world(name: str | None, has_data: bool, preset: Preset) -> Settings:
    """A bandit needs no data and comes in one kind."""
    if name is not None or has_data:
        raise ValueError(f"a bandit has one world and reads no data, got {'--data' if has_data else f'--world {name}'}")
    return Settings()


SMOKE = Preset(
    name="smoke",
    architecture=Architecture(layers=1, width=32, heads=2, context=16),
    vocabulary=64,
    behaviour=bc.Train(steps=100, batch_size=64, learning_rate=1e-2, max_tokens=16),
    base={
        "train.steps": 300,
        "train.batch_size": 64,
        "train.learning_rate": 5e-3,
        "train.polyak": 0.1,
        "train.gamma": 1.0,
        "train.cql_weight": 0.0,
        "train.max_tokens": 16,
        "decode.greedy": False,
        "decode.max_new_tokens": 4,
    },
    tune_episodes=200,
    report_episodes=1000,
    proposals=2,
    rung=0.5,
    resources=Resources(checkpoint_every=50, log_every=20),
)

QUESTION = Question(
    name="bandit",
    task="bandit",
    presets={"smoke": SMOKE, "laptop": SMOKE},
    reward="standard",
    grids=(
        Grid("bc", {}),
        Grid("filtered_bc", {"train.keep": (0.5,)}),
        Grid("sarsa", {"decode.beta": BETAS}),
        Grid("ilql", {"train.tau": (0.7, 0.9), "decode.beta": BETAS}),
    ),
    refine=("ilql",),
    held=("train.gamma", "train.cql_weight"),
    against=(Against("ilql", "bc", {"train.tau": 0.7, "decode.beta": 2.0}),),
    world=world,
)

if __name__ == "__main__":
    sys.exit(run_command(QUESTION, "sweeps/bandit_ablation.py", sys.argv[1:]))
