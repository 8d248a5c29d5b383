"""The honest table as Markdown, LaTeX, CSV and JSON, by the rules of `analysis.ablation_render`."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

from analysis.honest_table import HonestRow, HonestTable, Ranged
from analysis.labels import method_label
from analysis.text import DASH, booktabs, decimals_for, latex, markdown_table, number

HEADER = (
    "Method",
    "Max, paper",
    "Tuned [95 %]",
    "Optimism [95 %]",
    "Checkpoint [95 %]",
    "σ (paper) [95 %]",
    "σ, β tuned [95 %]",
    "σ of decoding [95 %]",
    "Cells",
    "Seeds",
)
NUMERIC = (False, True, True, True, True, True, True, True, True, True)
CAPTION = "The method when tuned, and how far its hyperparameters move it, with the luck of training seeds taken out."
RANGED = ("tuned", "optimism", "checkpoint", "sigma", "sigma_train", "sigma_decode")


def body_of(table: HonestTable) -> tuple[tuple[str, ...], ...]:
    """The table's body as text, one tuple per method with an entry per column of `HEADER`."""
    halves = [
        (r.high - r.low) / 4 for row in table.rows for r in _ranged(row) if r.low is not None and r.high is not None
    ]
    decimals = decimals_for(halves)
    return tuple(_row(row, decimals) for row in table.rows)


def ranged(value: Ranged, decimals: int = 2) -> str:
    """`−5.69 [−6.02, −5.36]`; without an interval the value alone, without either a dash; a footnote says why."""
    if value.low is None:
        return number(value.value, decimals)
    return f"{number(value.value, decimals)} [{number(value.low, decimals)}, {number(value.high, decimals)}]"


def to_markdown(table: HonestTable) -> str:
    """Caption, table and numbered footnotes."""
    body = markdown_table(HEADER, body_of(table), NUMERIC)
    notes = "\n".join(f"{index}. {note}" for index, note in enumerate(table.footnotes, 1))
    return f"{CAPTION}\n\n{body}\n\n{notes}\n"


def to_latex(table: HonestTable) -> str:
    r"""A `table*` environment for `\usepackage{booktabs}`, the footnotes below it in small print."""
    return booktabs(
        CAPTION,
        "honest",
        "".join("r" if numeric else "l" for numeric in NUMERIC),
        [f"{' & '.join(latex(name) for name in HEADER)} \\\\"],
        body_of(table),
        table.footnotes,
        style=r"\footnotesize\setlength{\tabcolsep}{3pt}",
        environment="table*",
    )


def to_csv(table: HonestTable) -> str:
    """One line per method, full precision; what was refused is empty, its reason in the JSON."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ends = [f"{name}{end}" for name in RANGED for end in ("", "_low", "_high")]
    writer.writerow(("method", "paper_max", "paper_sigma", *ends, "cells", "design_cells", "seeds", "failed"))
    for row in table.rows:
        numbers = [number for each in _ranged(row) for number in (each.value, each.low, each.high)]
        plain = (row.method, row.paper_max, row.paper_sigma)
        writer.writerow((*plain, *numbers, row.cells, row.design_cells, row.seeds, row.failed))
    return buffer.getvalue()


def to_json(table: HonestTable) -> str:
    """Everything the table knows, as standard JSON."""
    document = {
        "caption": CAPTION,
        "policy": table.policy,
        "rows": [{"label": method_label(row.method), **dataclasses.asdict(row)} for row in table.rows],
        "footnotes": list(table.footnotes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _ranged(row: HonestRow) -> tuple[Ranged, ...]:
    return (row.tuned, row.optimism, row.checkpoint, row.sigma, row.sigma_train, row.sigma_decode)


def _row(row: HonestRow, decimals: int) -> tuple[str, ...]:
    sigma = ranged(row.sigma, decimals)
    value, _, interval = sigma.partition(" ")
    paper = "" if row.paper_sigma is None else f" ({number(row.paper_sigma, decimals)})"
    return (
        method_label(row.method),
        number(row.paper_max, decimals),
        ranged(row.tuned, decimals),
        ranged(row.optimism, decimals),
        ranged(row.checkpoint, decimals),
        f"{value}{paper} {interval}".rstrip(),
        ranged(row.sigma_train, decimals),
        ranged(row.sigma_decode, decimals),
        str(row.cells) if row.cells == row.design_cells or not row.cells else f"{row.cells} ({row.design_cells})",
        str(row.seeds) if row.seeds else DASH,
    )
