"""Your own dialogues: one JSON object a line, with a reward for each turn, and perhaps an environment to play in.

The format, the validator, and what can be learnt with and without an environment stand in `docs/your_dialogues.md`.
Without a file the dialogues are those of a made-up booking desk (`booking`), so that everything can be tried.
"""

from __future__ import annotations

from ilql.task import TaskKind
from ilql.tasks.dialogues.building import INPUTS, build, source_digest
from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.validate import Summary, validate
from ilql.tasks.dialogues.world import DialoguesTask, load

__all__ = ["KIND", "DialoguesTask", "Settings", "Summary", "validate"]

KIND = TaskKind(
    name="dialogues",
    version=1,
    settings=Settings,
    source_digest=source_digest,
    build=build,
    load=load,
    example=Settings(made_up_dialogues=40),
    inputs=INPUTS,
    windows=True,
)
