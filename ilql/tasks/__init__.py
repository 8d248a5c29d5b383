"""The worlds, one file or folder each; the folder is the registry: a module here that has a `KIND` is a task."""

from __future__ import annotations

from ilql.registry import registered
from ilql.task import TaskKind


def known_tasks() -> dict[str, TaskKind]:
    """Every task in this folder, by name."""
    return {kind.name: kind for kind in registered(__name__, __path__, "KIND", TaskKind)}
