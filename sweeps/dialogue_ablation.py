"""Which method learns most from your own dialogues? docs/your_dialogues.md begins at an empty file.

With an environment the table holds what policies earn when they are played. Without one nobody answers them, and it
holds estimates, by fitted-Q evaluation from the training dialogues at the beginnings of held-out ones; the row
`Recorded` is what the recorded agent earned in those. The report says what such numbers can and cannot tell.

    python sweeps/dialogue_ablation.py                                  made-up calls of a booking desk
    python sweeps/dialogue_ablation.py --data FILE.jsonl                your dialogues, judged offline
    python sweeps/dialogue_ablation.py --data FILE.jsonl --environment FILE.py:FACTORY
    python sweeps/dialogue_ablation.py --data FILE.jsonl --reward FILE.py:FUNCTION
    ray job submit --working-dir . -- python sweeps/dialogue_ablation.py --preset smoke
"""

from __future__ import annotations

import sys
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
from sweeps.space import Grid

BETAS = (1.0, 4.0, 16.0)


def world(name: str | None, has_data: bool, preset: Preset) -> Settings:
    """The world's settings; what is special about a file is said with `--set world.…`."""
    if name is not None:
        raise ValueError(f"your own dialogues have one kind of world, got --world {name}")
    return Settings()


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
    ),
    refine=("ilql",),
    against=(Against("ilql", "bc", {"train.tau": 0.7, "decode.beta": 4.0}),),
    sections=(offline_section, samples_section),
    world=world,
    inputs=KIND.inputs,
)

if __name__ == "__main__":
    sys.exit(run_command(QUESTION, "sweeps/dialogue_ablation.py", sys.argv[1:]))
