"""The runnable questions: a file of this folder whose name ends in `_ablation` is one, without that ending."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.question import Question

ENDING = "_ablation"


def question_names() -> list[str]:
    """Those there are."""
    modules = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return [name.removesuffix(ENDING) for name in modules if name.endswith(ENDING)]


def question_named(name: str) -> Question:
    """The question of that name.

    Raises:
        KeyError: There is none; the message lists those there are.
    """
    if name not in question_names():
        from ilql.hyperparameters import unknown  # noqa: PLC0415

        raise KeyError(unknown(name, "question", question_names()))
    found: Question = importlib.import_module(f"sweeps.{name}{ENDING}").QUESTION
    return found
