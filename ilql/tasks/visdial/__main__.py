"""`python -m ilql.tasks.visdial --data DIR` says what dialogues are in a directory and how hard their world is."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ilql.tasks.visdial import recorded
from ilql.tasks.visdial.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the recorded world of `--data` in a temporary folder and print its notes, the calibration among them."""
    parser = argparse.ArgumentParser(prog="python -m ilql.tasks.visdial", description=main.__doc__)
    parser.add_argument("--data", required=True, help="a file or directory of dialogues")
    parser.add_argument("--seed", type=int, default=0, help="decides how the scenes are split")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            notes = recorded.build(Settings(world="recorded", seed=chosen.seed), chosen.data, Path(folder))
        except ValueError as fault:
            sys.stderr.write(f"{fault}\n")
            return 2
    sys.stdout.write("".join(f"{note}\n" for note in notes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
