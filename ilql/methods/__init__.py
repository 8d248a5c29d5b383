"""The methods, one file each; the folder is the registry: a module here that has a `METHOD` is a method."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from ilql.hyperparameters import unknown
from ilql.method import Method
from ilql.registry import registered


def known_methods() -> dict[str, Method]:
    """Every method in this folder, by name."""
    return dict(_found(tuple(__path__)))


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        KeyError: There is none; the message lists those there are.
    """
    methods = _found(tuple(__path__))
    if name not in methods:
        raise KeyError(unknown(name, "method", methods))
    return methods[name]


@functools.cache  # half of a plan's time went into listing a folder
def _found(folders: tuple[str, ...]) -> Mapping[str, Method]:
    return {method.name: method for method in registered(__name__, folders, "METHOD", Method)}
