"""Which method learns most from your own dialogues? docs/your_dialogues.md begins at an empty file.

With an environment the table holds what policies earn when they are played. Without one nobody answers them, and it
holds estimates, by fitted-Q evaluation from the training dialogues at the beginnings of held-out ones; the row
`Recorded` is what the recorded agent earned in those. The report says what such numbers can and cannot tell.

    python sweeps/dialogue_ablation.py                                  made-up calls of a booking desk
    python sweeps/dialogue_ablation.py --data FILE.jsonl                your dialogues, judged offline
    python sweeps/dialogue_ablation.py --data FILE.jsonl --environment FILE.py:FACTORY
    python sweeps/dialogue_ablation.py --data FILE.jsonl --reward FILE.py:FUNCTION
    python sweeps/dialogue_ablation.py --data FILE.jsonl --methods all  every method, or all that can be judged so
    ray job submit --working-dir . -- python sweeps/dialogue_ablation.py --preset smoke
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # As a script, this folder is on the path and its parent is not: `import sweeps` must find the package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from ilql.tasks.dialogues import KIND, Settings
from sweeps.commands.run import run_command
from sweeps.dialogue_presets import PRESETS
from sweeps.offline_section import offline_section
from sweeps.presets import Preset
from sweeps.question import Question
from sweeps.reporting import Against
from sweeps.samples import samples_section
from sweeps.space import Grid, PlannedTraining

BETAS = (1.0, 4.0, 16.0)
WITHOUT_MODEL_TOO = (*BETAS, math.inf)
CANDIDATES = (4, 8, 16)
DT = "decision_transformer"


def world(name: str | None, has_data: bool, preset: Preset) -> Settings:
    """The world's settings; what is special about a file is said with `--set world.…`."""
    if name is not None:
        raise ValueError(f"your own dialogues have one kind of world, got --world {name}")
    return Settings()


def remarks(design: Sequence[PlannedTraining], returns: Sequence[float]) -> list[str]:
    """Where a method's settings are on the scale of returns, which nobody knew when the grids were written."""
    lowest, highest = min(returns), max(returns)
    asked = {decode.target_return for each in design if each.arm == DT for decode in each.decodes}
    lines = []
    if asked:
        lines.append(
            f"{DT} is asked for a return of {', '.join(f'{each:g}' for each in sorted(asked))}, and dialogues return "
            f"{lowest:g} to {highest:g}; {DT}.decode.target_return=VALUE,VALUE asks for others"
        )
    ranges = {each.train.return_range for each in design if each.arm == "qsft"}
    if ranges and (highest > 0 or lowest < -max(ranges)):
        lines.append(
            f"qsft takes returns to lie between −{max(ranges):g} and 0, and what lies outside for the nearer end: "
            f"dialogues return {lowest:g} to {highest:g}; it needs rewards that are costs, and qsft.train.return_range"
        )
    return lines


QUESTION = Question(
    name="dialogue",
    task="dialogues",
    presets=PRESETS,
    reward="recorded",
    rewards_of_inputs={"reward": "custom"},
    grids=(
        Grid("bc", {}),
        Grid("filtered_bc", {"train.keep": (0.1, 0.3, 0.5)}),
        Grid("sarsa", {"decode.beta": BETAS}),
        Grid("ilql", {"train.tau": (0.7, 0.9), "decode.beta": BETAS}),
        Grid("cql", {"train.cql_weight": (0.1, 1.0, 10.0), "decode.beta": WITHOUT_MODEL_TOO}),
        Grid("psi", {"train.reward_scale": (0.1, 1.0, 10.0), "decode.beta": WITHOUT_MODEL_TOO}),
        Grid("awr", {"train.tau": (0.7,), "train.awr_beta": BETAS}),
        Grid(DT, {"decode.target_return": (0.0, 2.0, 4.0)}),
        Grid("utterance_ilql", {"train.tau": (0.7, 0.9), "decode.candidates": CANDIDATES}),
        Grid("ilql", {"train.tau": (0.7,), "decode.beta": (math.inf,)}, variant="ilql_without_lm"),
        Grid("chai", {"train.cql_weight": (0.1, 1.0, 10.0), "decode.candidates": CANDIDATES}),
        Grid("mc_returns", {"decode.beta": BETAS}),
        Grid("qsft", {"train.return_range": (10.0, 30.0), "decode.beta": BETAS}),
    ),
    main=("bc", "filtered_bc", "sarsa", "ilql"),
    refine=("ilql",),
    against=(Against("ilql", "bc", {"train.tau": 0.7, "decode.beta": 4.0}),),
    sections=(offline_section, samples_section),
    remarks=remarks,
    world=world,
    inputs=KIND.inputs,
)

if __name__ == "__main__":
    sys.exit(run_command(QUESTION, "sweeps/dialogue_ablation.py", sys.argv[1:]))
