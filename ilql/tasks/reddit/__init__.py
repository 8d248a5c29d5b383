"""Comments: a parent is said, the agent answers once, and is paid for not being toxic, for votes, or as one likes.

The comments are generated from a seed where there is no source, and are those of a file where `data` names one. Every
reward is computed here, offline: `rewards` says which there are, and the notes of a build which of them its sources
allow.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from ilql.hyperparameters import unknown
from ilql.task import TaskKind
from ilql.tasks.reddit import building
from ilql.tasks.reddit.judges import brought_digest
from ilql.tasks.reddit.loading import load
from ilql.tasks.reddit.settings import Settings
from ilql.tasks.reddit.tables import file_digest, find_file

INPUTS = {
    "labelled": "a table of comments with labels that the toxicity reward learns from, or is measured on",
    "classifier": "a folder with a Hugging Face sequence classifier that gives the toxicity reward, "
    "or profanity-check: the package of the extra profanity (a folder of that name is ./profanity-check)",
    "judge_data": "another table of labelled comments, from which a second, independent judge learns",
}


def source_digest(settings: Settings, sources: Mapping[str, str]) -> str:
    """What the sources hold, one part for each, and the code of the callable; empty where there are none.

    Raises:
        ValueError: A source cannot be read, or is none of this world's.
    """
    parts = []
    for name in sorted(sources):
        if name not in ("data", *INPUTS):
            raise ValueError(unknown(name, "source of the comments task", ("data", *INPUTS)))
        found = brought_digest(sources[name]) if name == "classifier" else file_digest(find_file(name, sources[name]))
        parts.append(f"{name}:{found}")
    if settings.callable and (code := _code_of(settings.callable)) is not None:
        parts.append(f"callable:{file_digest(code)}")
    return "; ".join(parts)


def build(settings: Settings, sources: Mapping[str, str], folder: Path) -> list[str]:
    """Write the world into `folder`; see `building.build`.

    Raises:
        ValueError: A source cannot be read or used, or no reward can be had; one line.
    """
    for name in sources:
        if name not in ("data", *INPUTS):
            raise ValueError(unknown(name, "source of the comments task", ("data", *INPUTS)))
    return building.build(settings, sources, folder)


def _code_of(function: str) -> Path | None:
    """The file of a callable's module, so that a changed function makes another world; None where it has none."""
    try:
        found = importlib.util.find_spec(function.partition(":")[0])
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return None
    return Path(found.origin)


KIND = TaskKind(
    name="reddit",
    version=4,
    settings=Settings,
    source_digest=source_digest,
    build=build,
    load=load,
    example=Settings(comments=300, tune_share=0.25, report_share=0.25),
    inputs=INPUTS,
)
