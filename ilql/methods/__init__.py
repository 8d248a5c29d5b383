"""The methods, one file each; the folder is the registry: a module here that has a `METHOD` is a method."""

from __future__ import annotations

import importlib
import pkgutil

from ilql.hyperparameters import unknown
from ilql.method import Method


def known_methods() -> dict[str, Method]:
    """Every method in this folder, by name."""
    methods: dict[str, Method] = {}
    for module in pkgutil.iter_modules(__path__):
        method = getattr(importlib.import_module(f"{__name__}.{module.name}"), "METHOD", None)
        if isinstance(method, Method):
            methods[method.name] = method
    return methods


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        KeyError: There is none; the message lists those there are.
    """
    methods = known_methods()
    if name not in methods:
        raise KeyError(unknown(name, "method", methods))
    return methods[name]
