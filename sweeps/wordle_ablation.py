"""Does a method improve on its data by more than one step? The Wordle experiment of the ILQL paper.

The recorded games of its section 5: an expert wins, an adversary begins as the expert does and then loses on purpose,
and many players are middling. What follows an expert's first guess is then mostly bad, and only a method that improves
its own improvement finds that it need not be. Beside the table the report shows whether Q ranks the expert's guess
above another's, token by token.

    python sweeps/wordle_ablation.py                        on words of an installed package
    python sweeps/wordle_ablation.py --words FILE           on a list of your own, a word a line
    python sweeps/wordle_ablation.py --world human --words FILE --counts FILE    games as people reported them
    ray job submit --working-dir . -- python sweeps/wordle_ablation.py --preset smoke
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # As a script, this folder is on the path and its parent is not: `import sweeps` must find the package.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from ilql.tasks.wordle import KIND
from ilql.tasks.wordle.settings import REWARD, Settings
from sweeps.commands.run import run_command
from sweeps.presets import Preset
from sweeps.question import Question
from sweeps.reporting import Against
from sweeps.space import Grid
from sweeps.wordle_presets import PRESETS
from sweeps.wordle_q_rank import q_rank_section

BETAS = (4.0, 16.0, 64.0)


def world(name: str | None, has_data: bool, preset: Preset) -> Settings:
    """The world's settings, its sizes the preset's."""
    if has_data:
        raise ValueError("a Wordle sweep reads --words and --counts, got --data")
    chosen = name or "branching"
    sizes = {key: int(str(value)) for key, value in preset.world.items()}
    return Settings(world=chosen, rules="real" if chosen == "human" else "consistent", **sizes)


QUESTION = Question(
    name="wordle",
    task="wordle",
    presets=PRESETS,
    reward=REWARD,
    grids=(
        Grid("bc", {}),
        Grid("filtered_bc", {"train.keep": (0.1, 0.3, 0.5)}),
        Grid("sarsa", {"decode.beta": BETAS}),
        Grid("ilql", {"train.tau": (0.7, 0.9, 0.99), "decode.beta": BETAS}),
    ),
    refine=("ilql",),
    held=("train.cql_weight",),
    against=(Against("ilql", "sarsa", {"train.tau": 0.9, "decode.beta": 16.0}, {"decode.beta": 16.0}),),
    sections=(q_rank_section,),
    world=world,
    inputs=KIND.inputs,
)

if __name__ == "__main__":
    sys.exit(run_command(QUESTION, "sweeps/wordle_ablation.py", sys.argv[1:]))
