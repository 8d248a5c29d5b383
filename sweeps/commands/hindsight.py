"""`sweeps hindsight FILE`: let a language model rewrite the agent's turns of recorded dialogues, and keep both."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sweeps.command import Command
from sweeps.command_line import whole_number
from sweeps.imagine_options import add_options, read_text, run, settings_of, writer_of
from sweeps.store import Store

if TYPE_CHECKING:  # torch comes with it
    from sweeps.offline_data import Outcome


def _add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", help="dialogues, one JSON object a line: docs/your_dialogues.md")
    add("--description", metavar="FILE", help="a file of text that says what the dialogues are about")
    add("--tries", type=whole_number(1, 1000), default=3, help="replies for each, at most (default: %(default)s)")
    add_options(parser)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from ilql.tasks.dialogues.read import read_sound  # noqa: PLC0415
    from sweeps.hindsight import Hindsight, rewrite  # noqa: PLC0415
    from sweeps.offline_data import Reward  # noqa: PLC0415

    settings = settings_of(given)
    asked = Hindsight(
        dialogues=read_sound(given.file, settings).dialogues,
        description="" if given.description is None else read_text("the description", given.description),
        settings=settings,
        seed=given.seed,
        tries=given.tries,
    )
    reward, writer = Reward(given.reward, settings), writer_of(given)

    def make(store: Store, say: Callable[[str], None]) -> Outcome:
        return rewrite(store, asked, writer, reward, say)

    return run(given, make)


COMMAND = Command(
    name="hindsight", help="let a language model rewrite recorded agents' turns, keeping both", run=_run, add=_add
)
