"""`sweeps eval SWEEP decode.beta=1,2,4,32`: play what a sweep has trained in other ways; nothing is trained."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sweeps.command import Command, add_json, add_store, aside, chosen, print_json
from sweeps.command_line import OneLineParser, columns_said
from sweeps.options import add_machines


def _options(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_machines(parser)
    add_json(parser)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.added import add_evaluations, addition  # noqa: PLC0415
    from sweeps.mirror import Mirror  # noqa: PLC0415

    parser = OneLineParser(prog=f"sweeps eval {given.sweep}", description=COMMAND.help, epilog=COLUMNS)
    _options(parser)
    options, words = parser.parse_known_args(rest, given)
    columns = columns_said(parser, words)
    if not columns:
        parser.error("the following arguments are required: decode.COLUMN=VALUES")
    store, sweep = chosen(options)
    found = addition(store, sweep, columns) if options.json else None
    with aside(options.json):
        status = add_evaluations(
            store,
            sweep,
            columns,
            lambda line: print(line, flush=True),
            gpus=options.gpus_per_worker or 0.0,
            concurrent=options.concurrent,
            mirror=None if options.no_mlflow else Mirror(store, sweep, options.tracking_uri),
        )
    if found is not None:
        wanted = found.trial_ids
        rows = [row for row in store.rows(sweep) if row["trial_id"] in wanted]
        named = {"store": str(store.folder), "sweep": sweep, "wanted": len(wanted), "notes": found.notes}
        print_json({**named, "status": status, "rows": rows})
    return status


COLUMNS = "decode.COLUMN=VALUE,VALUE,... plays every arm that has the column so; ARM.decode.COLUMN=... one arm."

COMMAND = Command(
    name="eval",
    help="play what a sweep has trained in other ways, such as decode.beta=1,2,4,32",
    run=_run,
    subject=("sweep", lambda: "a sweep of the store, or a store's folder where it has one"),
    options=_options,
)
