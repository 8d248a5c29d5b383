"""What is each component of ILQL worth? Take one out at a time and leave all else as it is.

Every arm is ILQL on visual dialogue with one component switched off or exchanged, a real one each: the trainings differ
in its hyperparameters alone. Each is compared with whole ILQL on the same episodes, twice: at settings fixed
beforehand, and at the best setting of its own after as many proposals as every other arm had (`--trials`).

    python sweeps/component_ablation.py                     a generated world, on a laptop
    python sweeps/component_ablation.py --data DIR          recorded human dialogues
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":
    # As a script, this folder is on the path and its parent is not: `import sweeps` must find the package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from ilql.hyperparameters import Value
from sweeps.commands.run import run_command
from sweeps.question import Question
from sweeps.reporting import Against
from sweeps.space import Derived, Grid
from sweeps.visdial_ablation import BETAS, world
from sweeps.visdial_presets import PRESETS

FIXED = {"train.tau": 0.8, "decode.beta": 8.0}
"""The setting that is fixed beforehand: the paper's for visual dialogue."""


def copies_as_late(base: Mapping[str, Value]) -> int:
    """Steps k between hard copies, late by (k − 1)/2 steps on average as Polyak's rate p is by (1 − p)/p."""
    return max(1, round(2 / float(str(base["train.polyak"]))) - 1)


SWITCHES: Mapping[str, Mapping[str, Value | Derived]] = {
    "ilql_without_cql": {"train.cql_weight": 0.0},
    "ilql_without_double_q": {"train.double_q": False},
    "ilql_without_target": {"train.polyak": 1.0, "train.target_every": 1},
    "ilql_hard_target": {"train.polyak": 1.0, "train.target_every": copies_as_late},
    "ilql_without_target_trunk": {"train.target_trunk": False},
    "ilql_shared_policy": {"train.separate_policy": False},
    "ilql_without_q_gradient": {"train.q_into_trunk": False},
    "ilql_without_v_gradient": {"train.v_into_trunk": False},
    "ilql_value_clip": {"train.value_low": -30.0, "train.value_high": 0.0},
}
"""What each arm changes. The clip is just outside the range of the task's returns, −29 to 0."""

WITHOUT_LM = "ilql_without_lm"
"""Acts on Q alone: the component is the language model at decoding, so at ILQL's own settings nothing is trained."""

AT_FIXED_TAU: Mapping[str, Sequence[Value]] = {"train.tau": (0.8,), "decode.beta": BETAS}

QUESTION = Question(
    name="component",
    task="visdial",
    presets=PRESETS,
    reward="yn",
    grids=(
        Grid("bc", {}),
        Grid("ilql", AT_FIXED_TAU),
        *(Grid("ilql", AT_FIXED_TAU, variant=arm, switch=switch) for arm, switch in SWITCHES.items()),
        Grid("ilql", {"train.tau": (0.8,), "decode.beta": (math.inf,)}, variant=WITHOUT_LM),
    ),
    refine=("ilql", *SWITCHES, WITHOUT_LM),
    against=(
        *(Against(arm, "ilql", FIXED) for arm in SWITCHES),
        Against(WITHOUT_LM, "ilql", {**FIXED, "decode.beta": math.inf}, FIXED),
    ),
    world=world,
)

if __name__ == "__main__":
    sys.exit(run_command(QUESTION, "sweeps/component_ablation.py", sys.argv[1:]))
