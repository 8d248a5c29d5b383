"""Which method writes comments that are liked, or not toxic, and how much does noise in the rewards harm it?

A parent comment is said, the agent writes one comment, and a reward judges it: toxicity by a classifier, votes as they
were recorded or as a model of them has it, a pattern, or a function of one's own.

    python sweeps/reddit_ablation.py                                    generated comments, their toxicity
    python sweeps/reddit_ablation.py --data FILE                        a table of comments; --set world.X names columns
    python sweeps/reddit_ablation.py --rewards toxicity,upvotes_real,upvotes_model
    python sweeps/reddit_ablation.py --data FILE --classifier DIR       toxicity by a Hugging Face classifier, or by a
                                                                        package: profanity-check, of the extra profanity
    python sweeps/reddit_ablation.py --vary world.noise=0,0.25,0.5      score against noise in the training rewards
    ray job submit --working-dir . -- python sweeps/reddit_ablation.py --preset smoke
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # As a script, this folder is on the path and its parent is not: `import sweeps` must find the package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from ilql.hyperparameters import make
from ilql.tasks.reddit import KIND
from ilql.tasks.reddit.settings import Settings
from sweeps.commands.run import run_command
from sweeps.presets import Preset
from sweeps.question import Question
from sweeps.reddit_presets import PRESETS
from sweeps.reporting import Against
from sweeps.samples import samples_section
from sweeps.space import Grid

BETAS = (2.0, 8.0, 32.0)


def world(name: str | None, has_data: bool, preset: Preset) -> Settings:
    """The world's settings: the number of comments is the preset's where they are generated."""
    if name is not None:
        raise ValueError(f"comments have one kind of world, got --world {name}")
    return Settings() if has_data else make(Settings, preset.world, owner="a reddit world", prefix="world")


QUESTION = Question(
    name="reddit",
    task="reddit",
    presets=PRESETS,
    reward="toxicity",
    grids=(
        Grid("bc", {}),
        Grid("filtered_bc", {"train.keep": (0.1, 0.3, 0.5)}),
        Grid("sarsa", {"decode.beta": BETAS}),
        Grid("ilql", {"train.tau": (0.6, 0.8), "decode.beta": BETAS}),
    ),
    refine=("ilql",),
    against=(Against("ilql", "bc", {"train.tau": 0.6, "decode.beta": 8.0}),),
    sections=(samples_section,),
    world=world,
    inputs=KIND.inputs,
)

if __name__ == "__main__":
    sys.exit(run_command(QUESTION, "sweeps/reddit_ablation.py", sys.argv[1:]))
