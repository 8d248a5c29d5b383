"""`sweeps imagine DESCRIPTION`: let a language model write whole dialogues, as offline data."""

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
    add("description", help="a file of text that says what the dialogues are about: docs/imagined_dialogues.md")
    add("--count", type=whole_number(1, 10**6), default=100, help="dialogues wanted (default: %(default)s)")
    add("--tries", type=whole_number(1, 1000), default=4, help="replies for each, at most (default: %(default)s)")
    add("--examples", metavar="FILE", help="dialogues as in docs/your_dialogues.md, to show some of in every prompt")
    add("--shown", type=whole_number(1, 1000), default=2, help="how many of them (default: %(default)s)")
    add_options(parser)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from ilql.tasks.dialogues.read import read_sound  # noqa: PLC0415
    from sweeps.imagining import Imagining, examples_of, imagine  # noqa: PLC0415
    from sweeps.offline_data import Reward  # noqa: PLC0415

    settings = settings_of(given)
    examples = () if given.examples is None else examples_of(read_sound(given.examples, settings), settings)
    asked = Imagining(
        description=read_text("the description", given.description),
        examples=examples,
        shown=given.shown if examples else 0,
        settings=settings,
        seed=given.seed,
        count=given.count,
        tries=given.tries,
    )
    reward, writer = Reward(given.reward, settings), writer_of(given)

    def make(store: Store, say: Callable[[str], None]) -> Outcome:
        return imagine(store, asked, writer, reward, say)

    return run(given, make)


COMMAND = Command(
    name="imagine", help="let a language model write whole dialogues, as offline data", run=_run, add=_add
)
