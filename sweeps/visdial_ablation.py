"""Which method of offline reinforcement learning asks the best questions, and how much does its setting matter?

The ablation of the ILQL paper on visual dialogue: an agent sees a caption and asks up to ten questions; the fewer it
needs before a guesser can tell the scene, the better, and a bare yes or no costs extra.

    python sweeps/visdial_ablation.py                       the paper's eight rows on a generated world, on a laptop
    python sweeps/visdial_ablation.py --data DIR            recorded human dialogues
    python sweeps/visdial_ablation.py --methods all         every method there is, on the paper's whole grid
    ray job submit --working-dir . -- python sweeps/visdial_ablation.py --preset smoke
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

if __name__ == "__main__":
    # As a script, this folder is on the path and its parent is not: `import sweeps` must find the package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from ilql.tasks.visdial.settings import Settings
from sweeps.commands.run import run_command
from sweeps.presets import Preset
from sweeps.question import Question
from sweeps.reporting import Against
from sweeps.space import Grid
from sweeps.visdial_presets import PRESETS

BETAS = (4.0, 8.0, 16.0)
WITHOUT_MODEL_TOO = (*BETAS, math.inf)
CANDIDATES = (4, 8, 16)


def world(name: str | None, has_data: bool, preset: Preset) -> Settings:
    """The world's settings: sizes are the preset's where the world is generated, and the data's where it is not."""
    chosen = name or ("recorded" if has_data else "generated")
    sizes = {key: int(str(value)) for key, value in preset.world.items()} if chosen == "generated" else {}
    return Settings(world=chosen, **sizes)  # type: ignore[arg-type]


QUESTION = Question(
    name="visdial",
    task="visdial",
    presets=PRESETS,
    reward="yn",
    grids=(
        Grid("bc", {}),
        Grid("filtered_bc", {"train.keep": (0.1, 0.2, 0.3)}),
        Grid("sarsa", {"decode.beta": BETAS}),
        Grid("ilql", {"train.tau": (0.7, 0.8, 0.9), "decode.beta": BETAS}),
        Grid("cql", {"train.cql_weight": (0.1, 1.0, 10.0), "decode.beta": WITHOUT_MODEL_TOO}),
        Grid("psi", {"train.reward_scale": (0.1, 1.0, 10.0), "decode.beta": WITHOUT_MODEL_TOO}),
        Grid("awr", {"train.tau": (0.8,), "train.awr_beta": BETAS}),
        Grid("decision_transformer", {"decode.target_return": tuple(float(target) for target in range(-11, 1))}),
        Grid("utterance_ilql", {"train.tau": (0.5, 0.7, 0.8, 0.9), "decode.candidates": CANDIDATES}),
        Grid("ilql", {"train.tau": (0.7,), "decode.beta": (math.inf,)}, variant="ilql_without_lm"),
        Grid("chai", {"train.cql_weight": (0.1, 1.0, 10.0), "decode.candidates": CANDIDATES}),
        Grid("mc_returns", {"decode.beta": BETAS}),
        Grid("qsft", {"train.return_range": (10.0, 30.0), "decode.beta": BETAS}),
    ),
    main=("bc", "filtered_bc", "sarsa", "ilql", "cql", "psi", "awr", "decision_transformer"),
    refine=("ilql",),
    against=(Against("ilql", "bc", {"train.tau": 0.8, "decode.beta": 8.0}),),
    world=world,
)

if __name__ == "__main__":
    sys.exit(run_command(QUESTION, "sweeps/visdial_ablation.py", sys.argv[1:]))
