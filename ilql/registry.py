"""A folder as a registry: whatever module in it has a thing of a name and kind has registered it by existing."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TypeVar

Kind = TypeVar("Kind")


def registered(package: str, folders: Iterable[str], attribute: str, kind: type[Kind]) -> Iterator[Kind]:
    """What the modules of a package's folders have under a name, if it is of the kind."""
    for _, found in with_modules(package, folders, attribute, kind):
        yield found


def with_modules(
    package: str, folders: Iterable[str], attribute: str, kind: type[Kind]
) -> Iterator[tuple[ModuleType, Kind]]:
    """The same, each with the module that has it."""
    for each in pkgutil.iter_modules(folders):
        module = importlib.import_module(f"{package}.{each.name}")
        found = getattr(module, attribute, None)
        if isinstance(found, kind):
            yield module, found
