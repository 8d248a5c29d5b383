"""The methods, one file each; the folder is the registry: a module here that has a `METHOD` is a method."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from ilql.hyperparameters import unknown
from ilql.method import Method
from ilql.registry import with_modules


def known_methods() -> dict[str, Method]:
    """Every method in this folder, by name."""
    return {name: method for name, (_, method) in _found(tuple(__path__)).items()}


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        KeyError: There is none; the message lists those there are.
    """
    methods = _found(tuple(__path__))
    if name not in methods:
        raise KeyError(unknown(name, "method", methods))
    return methods[name][1]


def sources_of(name: str) -> dict[str, Path]:
    """The files that say what a method learns, by their modules' paths: its own, and that of the method its loss is of.

    What methods share is not among them, such as `ilql/losses.py`: it has versions of its own, and a change there is
    rarely one of them all.
    """
    module, method = _found(tuple(__path__))[name]
    home = method.loss.__module__
    of_another = home != module.__name__ and home.startswith(f"{__name__}.")
    return dict(map(_source, (module, sys.modules[home]) if of_another else (module,)))


def _source(module: ModuleType) -> tuple[str, Path]:
    file = Path(str(module.__file__))
    inside = "/__init__" if hasattr(module, "__path__") else ""
    return f"{module.__name__.replace('.', '/')}{inside}{file.suffix}", file


@functools.cache  # half of a plan's time went into listing a folder
def _found(folders: tuple[str, ...]) -> Mapping[str, tuple[ModuleType, Method]]:
    return {method.name: (module, method) for module, method in with_modules(__name__, folders, "METHOD", Method)}
