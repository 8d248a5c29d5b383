"""`sweeps play TASK`: a person plays an episode, or watches a trial play it."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence

from ilql.task import SPLITS
from sweeps.command import Command
from sweeps.command_line import LARGEST_SEED, OneLineParser, whole_number
from sweeps.guard import interrupt
from sweeps.options import add_world, parse_world
from sweeps.questions import question_named, question_names
from sweeps.store import Store


def _add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--trial",
        help="watch the policy of this row of `sweeps status`, by its id or the id's beginning; else you play",
    )
    add("--seed", type=whole_number(0, LARGEST_SEED), default=0, help="which episode (default: %(default)s)")
    add("--split", default="report", choices=SPLITS, help="whose scenes (default: %(default)s)")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.play import check_trial, play_by_hand, task_to_play, watch  # noqa: PLC0415

    questions = {question.task: question for question in map(question_named, reversed(question_names()))}
    if given.task not in questions:
        from ilql.hyperparameters import unknown  # noqa: PLC0415

        raise KeyError(unknown(given.task, "task", questions))
    question = questions[given.task]
    parser = OneLineParser(prog=f"sweeps play {given.task}", description="Play an episode, or watch a trial play it.")
    _add(parser)
    options = parse_world(parser, list(question.presets), rest, question.inputs, given)
    store = Store(options.store)
    if given.trial is not None:
        check_trial(store, given.trial, given.task)
        watch(store, given.trial, given.split, given.seed, print)
    else:
        task = task_to_play(question, options, store, print)
        # polars takes the signal too, and lets reading a line go on after it: Ctrl-C would wait for Enter.
        signal.signal(signal.SIGINT, interrupt)
        play_by_hand(task, given.split, given.seed, _typed, print)
    return 0


def _typed(prompt: str) -> str | None:
    """A line from the terminal; None at its end, or at Ctrl-C."""
    try:
        return input(prompt)
    except (EOFError, KeyboardInterrupt):
        print()  # what is said next is no part of the prompt's line
        return None


COMMAND = Command(
    name="play",
    help="play an episode, or watch a trial play it",
    run=_run,
    add=_add,
    subject=("task", lambda: "a task that a question asks about"),
    options=lambda parser: add_world(parser, ("--help names them",), {}),
)
