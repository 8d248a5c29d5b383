"""The commands of `sweeps`, one file each; the folder is the registry: a module here that has a `COMMAND` is one."""

from __future__ import annotations

import importlib
import pkgutil

from sweeps.command import Command


def known_commands() -> dict[str, Command]:
    """Every command in this folder, by name."""
    found = [importlib.import_module(f"{__name__}.{module.name}").COMMAND for module in pkgutil.iter_modules(__path__)]
    return {command.name: command for command in found}
