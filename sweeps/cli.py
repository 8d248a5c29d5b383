"""The command line: one file of `sweeps/commands/` for each command.

    sweeps COMMAND --help

Heavy libraries are imported by the commands that need them: `sweeps --help` starts fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sweeps.command_line import OneLineParser
from sweeps.commands import known_commands
from sweeps.guard import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """The `sweeps` command; returns the exit status."""
    parser, parsers = make_parser()
    given, rest = parser.parse_known_args(arguments)
    command, chosen = known_commands()[given.command], parsers[given.command]
    if command.subject is None:
        if rest:
            chosen.unrecognised(rest)
    elif getattr(given, command.subject[0]) is None:
        if {"--help", "-h"} & set(rest):
            chosen.print_help()
            return 0
        chosen.error(f"the following arguments are required: {command.subject[0]}")
    return guarded(lambda: command.run(given, rest))


def make_parser(*, complete: bool = False) -> tuple[OneLineParser, dict[str, OneLineParser]]:
    """The parser of the command line, and that of each command.

    With `complete`, commands whose further options depend on one word have those that do not, and the list of words:
    what a shell completes. They would be read before the word is known, so that is no parser to read a line with.
    """
    parser = OneLineParser(prog="sweeps", description="Sweep and ablate offline RL for language models.")
    parsers = parser.add_subparsers(dest="command", required=True)
    for name, command in known_commands().items():
        if command.subject is None:
            command.add(parsers.add_parser(name, help=command.help, description=command.help))
            continue
        # What else it takes depends on this one word: so does its help, and without the word there is a short one.
        subject, meaning = command.subject
        usage = f"sweeps {name} {subject.upper()}"
        asking = parsers.add_parser(
            name,
            help=command.help,
            add_help=False,
            allow_abbrev=False,
            usage=f"{usage} [OPTIONS]",
            description=command.help,
            epilog=f"`{usage} --help` lists the options.",
        )
        asking.add_argument(subject, nargs="?", help=meaning(), choices=(complete and command.words()) or None)
        command.add(asking)
        if complete:
            command.options(asking)
    return parser, dict(parsers.choices)


if __name__ == "__main__":
    sys.exit(main())
