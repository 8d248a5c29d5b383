"""`sweeps import wandb|trlx FILE`: a sweep as others write it, as a file that `sweeps run` takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sweeps.command import Command
from sweeps.command_line import printable, whole_number
from sweeps.paths import new_file
from sweeps.question_file import ENDINGS, read_yaml, write_question
from sweeps.questions import question_named


def _renaming(text: str) -> tuple[str, str]:
    theirs, equals, ours = text.partition("=")
    if not equals or "." not in ours or not theirs:
        raise argparse.ArgumentTypeError(f"must be THEIRS=train.OURS, got {text!r}")
    return theirs, ours


def _add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("form", choices=("wandb", "trlx"), help="whose file it is")
    add("file", type=Path, help="YAML")
    add("-o", "--out", type=Path, required=True, metavar="FILE.yaml", help="what to write")
    add("--question", default="visdial", help="what is asked of the sweep (default: %(default)s)")
    add("--methods", help="methods that are swept, separated by commas (default: the question's own)")
    add("--points", type=whole_number(2, 1000), help="values that every interval becomes, and none is searched")
    add("--rename", type=_renaming, action="append", default=[], metavar="THEIRS=train.OURS", help="a name of theirs")
    add("--drop", action="append", default=[], metavar="THEIRS", help="leave this one out")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.importing import read_sweep  # noqa: PLC0415  torch, which no other command is to wait for

    question_named(given.question)
    if given.out.suffix not in ENDINGS:
        raise ValueError(f"-o must name a file that ends in {' or '.join(ENDINGS)}, got {given.out}")
    out = new_file("-o", given.out)
    imported = read_sweep(
        read_yaml(given.file), given.form, points=given.points, names=dict(given.rename), dropped=given.drop
    )
    notes = [printable(note) for note in imported.notes]  # of names that are theirs: they must not end a comment
    options: dict[str, object] = {} if given.methods is None else {"methods": given.methods.split(",")}
    if imported.trials is not None:
        options["trials"] = imported.trials
    out.write_text(write_question(given.question, options, imported.columns, notes), encoding="utf-8")
    for note in notes:
        print(note)
    print(f"wrote {given.out}: `sweeps plan {given.out}` says what it would cost")
    return 0


COMMAND = Command(name="import", help="a W&B or trlX sweep as a file that `sweeps run` takes", run=_run, add=_add)
