"""`sweeps validate FILE`: what is wrong with a file of dialogues, and what is in it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from analysis.text import count
from sweeps.command import Command
from sweeps.command_line import assignment

READ = {"smoke": 256, "laptop": 512, "paper": 1024}
"""How many tokens of a dialogue each preset reads. Here once more: the presets load the learner, which is slow."""


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="dialogues, one JSON object a line: docs/your_dialogues.md")
    parser.add_argument("--set", metavar="world.FIELD=VALUE", action="append", default=[], type=assignment)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from ilql.hyperparameters import make  # noqa: PLC0415
    from ilql.tasks.dialogues import Settings, validate  # noqa: PLC0415
    from ilql.tasks.dialogues.validate import refusal, report  # noqa: PLC0415

    fields = {column.removeprefix("world."): value for column, value in given.set}
    settings = make(Settings, fields, owner="a dialogues world", prefix="world")
    problems, summary = validate(given.file, settings)
    if said := report(problems, summary):
        print(said)
    for line in _longer(summary.word_counts, summary.heard_counts):
        print(line)
    if (why := refusal(given.file, problems, summary, settings)) is not None:
        raise ValueError(why)
    return 0


def _longer(words: Sequence[int], heard: Sequence[int]) -> list[str]:
    """Lines for each preset that cannot read all at once; a word is a token or several, so more may be longer.

    Args:
        words: Of each dialogue.
        heard: Of what the world says at once, each time.
    """
    lines = []
    for preset, tokens in READ.items():
        if longer := sum(each > tokens for each in words):
            lines.append(
                f"at least {longer} of {len(words)} dialogues are longer than the {tokens} tokens that {preset} reads "
                "at once: they are cut into windows, and no reward is lost"
            )
        if beyond := sum(each > tokens for each in heard):
            lines.append(
                f"at least {count(beyond, 'turn')} of the world {'is' if beyond == 1 else 'are'} longer than that: "
                f"{preset} reads the last {tokens - tokens // 4} tokens of one at most"
            )
    return lines


COMMAND = Command(name="validate", help="what is wrong with a file of dialogues, and what is in it", run=_run, add=_add)
