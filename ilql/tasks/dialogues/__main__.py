"""`python -m ilql.tasks.dialogues FILE` says what is wrong with a file of dialogues and what is in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.validate import refusal, report, validate


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the problems of a file of dialogues, then a summary; leave with 0 if training takes it, else with 2."""
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m ilql.tasks.dialogues", description=main.__doc__)
    parser.add_argument("file", help="dialogues, one JSON object a line: .jsonl or .jsonl.gz")
    parser.add_argument("--agent-roles", default=defaults.agent_roles, help="the agent's roles (default: %(default)s)")
    parser.add_argument("--world-roles", default=defaults.world_roles, help="the world's roles (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        settings = Settings(agent_roles=chosen.agent_roles, world_roles=chosen.world_roles)
    except ValueError as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    problems, summary = validate(chosen.file, settings)
    if said := report(problems, summary):
        sys.stdout.write(f"{said}\n")
    if (why := refusal(chosen.file, problems, summary, settings)) is None:
        return 0
    sys.stderr.write(f"{why}\n")
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
