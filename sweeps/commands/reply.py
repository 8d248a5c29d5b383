"""`sweeps reply TRIAL TEXT ...`: let a trained policy speak."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sweeps.command import Command, add_trial, opened


def _add(parser: argparse.ArgumentParser) -> None:
    add_trial(parser)
    parser.add_argument(
        "text",
        nargs="+",
        help="what was said so far, the world's and the agent's turns in turn; '' lets the agent begin",
    )


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.policy import load_policy  # noqa: PLC0415

    policy = load_policy(given.trial, opened(given))
    print(policy.reply(_turns(given.text)))
    return 0


def _turns(texts: Sequence[str]) -> list[tuple[str, bool]]:
    """The texts with whether the agent said them; where the first is empty, the world said nothing before the agent."""
    turns = [(text, place % 2 == 1) for place, text in enumerate(texts)]
    return turns if texts[0] else turns[1:]


COMMAND = Command(name="reply", help="let a trained policy speak", run=_run, add=_add)
