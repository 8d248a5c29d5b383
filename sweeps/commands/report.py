"""`sweeps report SWEEP`: write a sweep's table and figures anew."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

from analysis.styles import Policy, Style
from sweeps.allocation import keep_freed_memory
from sweeps.command import Command, add_sweep, chosen
from sweeps.paths import output_folder
from sweeps.questions import question_named, question_names
from sweeps.store import Store


def _add(parser: argparse.ArgumentParser) -> None:
    add_sweep(parser)
    parser.add_argument("others", nargs="*", metavar="SWEEP", help="with these: what holds across all of them")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="where to (default: the store's reports/SWEEP)")
    parser.add_argument(
        "--style",
        choices=get_args(Style),
        help="which table leads: tuned on other seeds (honest, the default) or the best cell, as the paper counts",
    )
    parser.add_argument(
        "--failed",
        choices=get_args(Policy),
        help="what a failed run counts as in the honest table: its cell leaves (exclude, the default), the method's "
        "worst run, or the lowest score that the task can give",
    )
    parser.add_argument("--transcripts", action="store_true", help="also all that was said, as one Parquet file")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    keep_freed_memory()
    store, name = chosen(given)
    if given.others:
        _check_of_several(given)
        for other in given.others:
            store.check_sweep(other)
    with nullcontext() if given.out is None else output_folder("-o", given.out) as folder:
        return _write(given, store, name, folder)


def _write(given: argparse.Namespace, store: Store, name: str, folder: Path | None) -> int:
    from sweeps.reporting import print_report, write_sweep_report  # noqa: PLC0415
    from sweeps.reward_report import write_across_report  # noqa: PLC0415
    from sweeps.transcripts import write_all  # noqa: PLC0415

    if given.others:
        paths, lines = write_across_report(store, [name, *given.others], folder=folder)
        print("\n".join([*lines, *(f"        {path}" for path in paths)]))
        return 0
    asked = (store.get("sweep", name) or {}).get("question")
    question = question_named(asked) if asked in question_names() else None
    report, comparisons = write_sweep_report(
        store,
        name,
        () if question is None else question.against,
        sections=() if question is None else question.sections,
        style=given.style or "honest",
        policy=given.failed or "exclude",
        folder=folder,
    )
    if given.transcripts:
        report = dataclasses.replace(report, paths=(*report.paths, write_all(store, name, report.paths[0].parent)))
    print_report(report, comparisons, lambda line: print(line, flush=True))
    return 0


def _check_of_several(given: argparse.Namespace) -> None:
    """Refuse what only the report of one sweep can have.

    Raises:
        ValueError: It was asked for.
    """
    only = {"--style": given.style, "--failed": given.failed, "--transcripts": given.transcripts}
    asked = [name for name, value in only.items() if value]
    if asked:
        raise ValueError(f"{' and '.join(asked)} must be of one sweep, got {1 + len(given.others)}")


COMMAND = Command(name="report", help="write a sweep's table and figures anew", run=_run, add=_add)
