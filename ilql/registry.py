"""A folder as a registry: whatever module in it has a thing of a name and kind has registered it by existing."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import TypeVar

Kind = TypeVar("Kind")


def registered(package: str, folders: Iterable[str], attribute: str, kind: type[Kind]) -> Iterator[Kind]:
    """What the modules of a package's folders have under a name, if it is of the kind."""
    for module in pkgutil.iter_modules(folders):
        found = getattr(importlib.import_module(f"{package}.{module.name}"), attribute, None)
        if isinstance(found, kind):
            yield found
