"""The worlds, one file or folder each; the folder is the registry: a module here that has a `KIND` is a task."""

from __future__ import annotations

import importlib
import pkgutil

from ilql.task import TaskKind


def known_tasks() -> dict[str, TaskKind]:
    """Every task in this folder, by name."""
    kinds: dict[str, TaskKind] = {}
    for module in pkgutil.iter_modules(__path__):
        kind = getattr(importlib.import_module(f"{__name__}.{module.name}"), "KIND", None)
        if isinstance(kind, TaskKind):
            kinds[kind.name] = kind
    return kinds
