"""`sweeps run QUESTION`: answer a question, as its own file does when it is run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.command import Command, aside, print_json
from sweeps.guard import guarded
from sweeps.options import add_question_options
from sweeps.question_file import is_question_file, read_question
from sweeps.questions import question_named, question_names

if TYPE_CHECKING:
    from sweeps.question import Question


def run_command(question: Question, program: str, arguments: Sequence[str]) -> int:
    """Run a question with a command line's arguments; returns the exit status."""

    def run() -> int:
        from sweeps.asked import options_of  # noqa: PLC0415
        from sweeps.experiment import run_question  # noqa: PLC0415
        from sweeps.planning import plan_question  # noqa: PLC0415
        from sweeps.sizing import shown  # noqa: PLC0415

        options = options_of(question, program, arguments)
        if options.show:
            print_json(shown(question, options), indent=2)
            return 0
        if options.plan_only:
            with aside(options.as_json):
                plan = plan_question(question, options, say)
            if options.as_json:
                print_json(plan.document())
            else:
                print("\n".join(plan.lines()))
            return 0
        return run_question(question, options, say)

    def say(line: str) -> None:
        print(line, flush=True)

    return guarded(run, stopped="stopped; the same command goes on from here")


def choices() -> str:
    """What a question can be, in words."""
    return f"one of: {', '.join(question_names())}; or a file of YAML that names one, with options and columns"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every question: but for presets' names and single questions' sources, which it alone knows."""
    add_question_options(parser, ("--help names them",), {}, rewards=("--rewards", "--reward"))


def run_named(command: str, name: str, rest: Sequence[str]) -> int:
    """Run the question of a name, or of a file; what stands on the command line comes on top of the file's."""
    if is_question_file(name):
        question, said = read_question(Path(name))
        return run_command(question_named(question), f"sweeps {command} {name}", [*said, *rest])
    return run_command(question_named(name), f"sweeps {command} {name}", rest)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    return run_named("run", given.question, rest)


COMMAND = Command(
    name="run",
    help="answer a question, resuming what is there",
    run=_run,
    subject=("question", choices),
    words=question_names,
    options=add_options,
)
