"""Visual dialogue: ask about a scene that one cannot see, until a guesser could pick it out of many.

Three worlds behind one task (`protocols`): generated from a seed, recorded from people, or remote servers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from ilql.task import TaskKind
from ilql.tasks.visdial import generated, recorded, remote
from ilql.tasks.visdial.environment import VisdialTask
from ilql.tasks.visdial.protocols import VisdialWorld
from ilql.tasks.visdial.settings import Settings

SETTINGS_FILE = "settings.json"


def source_digest(settings: Settings, sources: Mapping[str, str]) -> str:
    """A digest of what the source, `data`, holds; empty for the generated world, which has none.

    Raises:
        ValueError: The source is missing, or there is one too many.
    """
    source = sources.get("data")
    if settings.world == "generated":
        return generated.source_digest(settings, source)
    if settings.world == "recorded":
        return recorded.source_digest(settings, source)
    return remote.source_digest(settings, source)


def build(settings: Settings, sources: Mapping[str, str], folder: Path) -> list[str]:
    """Write the world and its settings into `folder`; the notes say what is in it.

    Raises:
        ValueError: The source cannot be read, or is none that this world can use.
    """
    source = sources.get("data")
    if settings.world == "generated":
        notes = generated.build(settings, source, folder)
    elif settings.world == "recorded":
        notes = recorded.build(settings, source, folder)
    else:
        notes = remote.build(settings, source, folder)
    (folder / SETTINGS_FILE).write_text(json.dumps(dataclasses.asdict(settings)), encoding="utf-8")
    return notes


def load(folder: Path) -> VisdialTask:
    """The task that `build` wrote into `folder`."""
    settings = Settings(**json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")))
    return VisdialTask(_world(settings, folder), settings)


def _world(settings: Settings, folder: Path) -> VisdialWorld:
    if settings.world == "generated":
        return generated.load(settings, folder)
    if settings.world == "recorded":
        return recorded.load(settings, folder)
    return remote.load(settings, folder)


KIND = TaskKind(
    name="visdial",
    version=1,
    settings=Settings,
    source_digest=source_digest,
    build=build,
    load=load,
    example=Settings(train_scenes=200, tune_scenes=50, report_scenes=50, dialogues_per_scene=1),
    references=2,  # the first had none
)
