"""The worlds, one file or folder each; the folder is the registry: a module here that has a `KIND` is a task.

A module is named as its task, so that one task is found without loading what the others stand on.
"""

from __future__ import annotations

import importlib
import pkgutil

from ilql.hyperparameters import unknown
from ilql.registry import registered
from ilql.task import TaskKind


def known_tasks() -> dict[str, TaskKind]:
    """Every task in this folder, by name."""
    return {kind.name: kind for kind in registered(__name__, __path__, "KIND", TaskKind)}


def task_named(name: str) -> TaskKind:
    """The task of that name; its module alone is imported.

    Raises:
        KeyError: There is none; the message lists those there are.
    """
    there = [each.name for each in pkgutil.iter_modules(__path__)]
    if name in there:
        kind = getattr(importlib.import_module(f"{__name__}.{name}"), "KIND", None)
        if isinstance(kind, TaskKind):
            return kind
    raise KeyError(unknown(name, "task", known_tasks()))
