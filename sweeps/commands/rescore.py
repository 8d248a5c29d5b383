"""`sweeps rescore SWEEP`: a sweep's table under another reward, from its transcripts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from sweeps.command import Command, add_store, opened
from sweeps.command_line import OneLineParser, columns_said
from sweeps.options import add_set, add_sources, given_of, reward_options
from sweeps.questions import question_named

WORLD = "world."


def _options(parser: argparse.ArgumentParser, inputs: Mapping[str, str], rewards: Sequence[str]) -> None:
    parser.add_argument(*rewards, required=True, metavar="NAME", help="the reward to score by")
    add_sources(parser, inputs, "what a world was built from that was built from files, where its settings change")
    add_set(parser, "a setting of the reward's world: world.FIELD=VALUE")
    add_store(parser)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.reporting import print_report  # noqa: PLC0415
    from sweeps.rescore import rescore  # noqa: PLC0415

    place = OneLineParser(add_help=False, allow_abbrev=False)
    add_store(place)
    store = opened(place.parse_known_args(rest)[0])
    store.check_sweep(given.sweep)
    inputs = question_named(str((store.get("sweep", given.sweep) or {})["question"])).inputs
    parser = OneLineParser(prog=f"sweeps rescore {given.sweep}", description=COMMAND.help, epilog=COLUMNS)
    _options(parser, inputs, reward_options(inputs))
    asked, words = parser.parse_known_args(rest)
    settings = {}
    for column, values in [*((name, (value,)) for name, value in asked.set), *columns_said(parser, words).items()]:
        name = column.removeprefix(WORLD)
        if name == column:
            parser.error(f"what is played and trained is there already: only {WORLD}FIELD=VALUE, got {column}")
        if name in settings or len(values) > 1:
            parser.error(f"a setting of the world has one value, got {column} with more")
        settings[name] = values[0]
    say = lambda line: print(line, flush=True)  # noqa: E731
    sources = given_of(asked, ("data", *inputs))
    report = rescore(store, given.sweep, asked.rewards, settings=settings, sources=sources, say=say)
    print_report(report, (), say)
    return 0


COLUMNS = "world.FIELD=VALUE says what the reward's world has otherwise than the sweep's own, as --set does."

COMMAND = Command(
    name="rescore",
    help="a sweep's table under another reward, from its transcripts",
    run=_run,
    subject=("sweep", lambda: "a sweep of the store"),
    options=lambda parser: _options(parser, {}, ("--rewards", "--reward")),
)
