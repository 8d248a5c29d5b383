"""The ablation table as Markdown, LaTeX, CSV and JSON.

Markdown and LaTeX are for reading: rounded, with symbols. CSV and JSON are for programs: full precision, plain names,
empty or null where there is no number, `inf` for infinity.
"""

from __future__ import annotations

import csv
import io
import json
import math

from analysis.ablation import AblationRow, AblationTable, BestCell
from analysis.labels import Value, method_label
from analysis.text import DASH, booktabs, decimals_for, markdown_table, number, with_error

HEADER = (
    "Method",
    "Max score",
    "σ",
    "Best cell",
    "From",
    "Design cells",
    "Refinement cells",
    "Seeds",
    "Failed",
    "Stopped",
)
NUMERIC = (False, True, True, False, False, True, True, True, True, True)
FAILURES_HEADER = ("Method", "Reason", "Runs")
FAILURES_NUMERIC = (False, False, True)


def header_of(table: AblationTable) -> tuple[str, ...]:
    """The names of the columns: an estimate is called one."""
    return ("Method", "Max estimate", *HEADER[2:]) if table.estimated else HEADER


def body_of(table: AblationTable) -> tuple[tuple[str, ...], ...]:
    """The table's body as text, one tuple per method with an entry per column of `HEADER`."""
    decimals = decimals_for(row.standard_error for row in table.rows)
    return tuple(_row(row, decimals) for row in table.rows)


def to_markdown(table: AblationTable) -> str:
    """Caption, table, numbered footnotes, and what failed and why; lines up in a terminal too."""
    body = markdown_table(header_of(table), body_of(table), NUMERIC)
    notes = "\n".join(f"{index}. {note}" for index, note in enumerate(table.footnotes, 1))
    failed = ""
    if table.failures:
        failed = f"\nWhat failed:\n\n{markdown_table(FAILURES_HEADER, failure_rows(table), FAILURES_NUMERIC)}\n"
    return f"{table.caption}\n\n{body}\n\n{notes}\n{failed}"


def failure_rows(table: AblationTable) -> tuple[tuple[str, ...], ...]:
    """What failed as text, one tuple per method and reason with an entry per column of `FAILURES_HEADER`."""
    return tuple((method_label(method), reason, str(runs)) for method, reason, runs in table.failures)


def to_latex(table: AblationTable) -> str:
    r"""A `table` environment for `\usepackage{booktabs}`, the footnotes below it in small print."""
    return booktabs(
        table.caption,
        "ablation",
        "".join("r" if numeric else "l" for numeric in NUMERIC),
        [
            r"& & & & & \multicolumn{2}{c}{Cells} & & \multicolumn{2}{c}{Runs} \\",
            r"\cmidrule(lr){6-7} \cmidrule(lr){9-10}",
            f"Method & {header_of(table)[1]}"
            r" & $\sigma$ & Best cell & From & design & refined & Seeds & failed & stopped \\",
        ],
        body_of(table),
        table.footnotes,
        style=r"\small\setlength{\tabcolsep}{4pt}",
    )


def to_csv(table: AblationTable) -> str:
    """One line per method; the footnotes are in the other formats."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        (
            *("method", "max_score", "standard_error", "sigma", "episodes", "design_cells", "design_cells_wanted"),
            *("refinement_cells", "failed", "stopped", "fewest_seeds", "most_seeds"),
            *("best_cell_id", "best_origin", "best_setting", "best_seeds", "best_tune_score", "style"),
            *("doubt", "doubted_cells"),
        )
    )
    for row in table.rows:
        best = row.best
        writer.writerow(
            (
                *(row.method, row.score, row.standard_error, row.sigma, table.episodes if best else None),
                *(row.design_cells, row.design_cells_wanted, row.refinement_cells, row.failed, row.stopped, *row.seeds),
                *((best.cell_id, best.origin, plain_setting(best)) if best else (None, None, None)),
                *((len(best.seeds), best.tune_score) if best else (None, None)),
                table.style,
                *(row.doubt, row.doubted),
            )
        )
    return buffer.getvalue()


def to_json(table: AblationTable) -> str:
    """Everything the table knows. Standard JSON: infinities are the strings `inf` and `-inf`."""
    document = {
        "caption": table.caption,
        "style": table.style,
        "task": table.task,
        "train_reward": table.train_reward,
        "evaluation_reward": table.evaluation_reward,
        "split": table.split,
        "estimated": table.estimated,
        "episodes": table.episodes,
        "runs": {"finished": table.finished, "failed": table.failed, "stopped": table.stopped},
        "failures": [{"method": method, "reason": reason, "runs": runs} for method, reason, runs in table.failures],
        "code_digests": list(table.code_digests),
        "digests": {name: list(each) for name, each in table.digests.items()},
        "rows": [_json_row(row) for row in table.rows],
        "footnotes": list(table.footnotes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def json_cell(cell: BestCell) -> dict[str, object]:
    """All that a table knows of a cell, as standard JSON."""
    return {
        "cell_id": cell.cell_id,
        "method": cell.method,
        "origin": cell.origin,
        "setting": cell.setting,
        "hyperparameters": {column: _json_value(value) for column, value in cell.hyperparameters},
        "seeds": list(cell.seeds),
        "tune_score": cell.tune_score,
    }


def plain_setting(cell: BestCell) -> str:
    """All of a cell's hyperparameters by their column names, `train.tau=0.8; decode.beta=8.0`."""
    return "; ".join(f"{column}={value}" for column, value in cell.hyperparameters)


def _row(row: AblationRow, decimals: int) -> tuple[str, ...]:
    lost = row.design_cells < row.design_cells_wanted
    fewest, most = row.seeds
    return (
        method_label(row.method),
        with_error(row.score, row.standard_error, decimals, believed=row.doubt is None),
        number(row.sigma, decimals),
        (row.best.setting or DASH) if row.best else DASH,
        row.best.origin if row.best else DASH,
        f"{row.design_cells} of {row.design_cells_wanted}" if lost else str(row.design_cells),
        str(row.refinement_cells),
        DASH if most == 0 else str(most) if fewest == most else f"{fewest}{DASH}{most}",
        str(row.failed),
        str(row.stopped),
    )


def _json_row(row: AblationRow) -> dict[str, object]:
    best = row.best
    return {
        "method": row.method,
        "label": method_label(row.method),
        "max_score": row.score,
        "standard_error": row.standard_error,
        "sigma": row.sigma,
        "design_cells": row.design_cells,
        "design_cells_wanted": row.design_cells_wanted,
        "refinement_cells": row.refinement_cells,
        "failed": row.failed,
        "stopped": row.stopped,
        "fewest_seeds": row.seeds[0],
        "most_seeds": row.seeds[1],
        "best": None if best is None else json_cell(best),
        "doubt": row.doubt,
        "doubted_cells": row.doubted,
    }


def _json_value(value: Value) -> Value:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
