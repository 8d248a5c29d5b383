"""Tables across rewards as Markdown, LaTeX, CSV and JSON.

As with the ablation table: Markdown and LaTeX are rounded and for reading; CSV and JSON are of full precision and for
programs.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from analysis.ablation_render import json_cell, plain_setting
from analysis.reward_tables import RewardField, RewardTable, RewardTables
from analysis.text import booktabs, decimals_for, latex, markdown_table, number, with_error


def rewards_markdown(tables: RewardTables) -> str:
    """Every table below its caption, then the numbered footnotes they share."""
    parts = [f"{table.caption}\n\n{markdown(table)}" for table in tables.tables]
    notes = "\n".join(f"{index}. {note}" for index, note in enumerate(tables.footnotes, 1))
    return "\n\n".join([*parts, notes]) + "\n"


def markdown(table: RewardTable) -> str:
    """One table without caption and footnotes."""
    header = [*table.stubs, *(name for reward in table.rewards for name in (f"{table.score}, {reward}", "σ"))]
    return markdown_table(header, _body(table), [column >= len(table.stubs) for column in range(len(header))])


def rewards_latex(tables: RewardTables) -> str:
    r"""A `table` environment for each, for `\usepackage{booktabs}`; the footnotes are below the last."""
    last = len(tables.tables) - 1
    return "\n".join(_latex(table, tables.footnotes if at == last else ()) for at, table in enumerate(tables.tables))


def rewards_csv(tables: RewardTables) -> str:
    """One line per field of every table; the footnotes are in the other formats."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        (
            *("table", "method", "train_reward", "evaluation_reward", "score", "standard_error", "sigma", "episodes"),
            *("design_cells", "design_cells_wanted", "failed", "stopped"),
            *("cell_id", "cell_origin", "cell_setting", "cell_seeds", "cell_tune_score"),
        )
    )
    for table in tables.tables:
        for field in (field for row in table.rows for field in row.fields):
            cell = field.cell
            writer.writerow(
                (
                    *(table.name, field.method, field.train_reward, field.evaluation_reward),
                    *(field.score, field.standard_error, field.sigma, field.episodes),
                    *(field.design_cells, field.design_cells_wanted, field.failed, field.stopped),
                    *((cell.cell_id, cell.origin, plain_setting(cell)) if cell else (None, None, None)),
                    *((len(cell.seeds), cell.tune_score) if cell else (None, None)),
                )
            )
    return buffer.getvalue()


def rewards_json(tables: RewardTables) -> str:
    """Everything the tables know. Standard JSON: infinities are the strings `inf` and `-inf`."""
    document = {
        "tables": [
            {
                "name": table.name,
                "caption": table.caption,
                "rewards": list(table.rewards),
                "rows": [{"label": row.stubs[0], "fields": list(map(_json, row.fields))} for row in table.rows],
            }
            for table in tables.tables
        ],
        "footnotes": list(tables.footnotes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _body(table: RewardTable) -> list[list[str]]:
    """The rows as text; all numbers under one reward have the same decimals."""
    decimals = [
        decimals_for(row.fields[column].standard_error for row in table.rows) for column in range(len(table.rewards))
    ]
    return [[*row.stubs, *_texts(row.fields, decimals)] for row in table.rows]


def _texts(fields: Sequence[RewardField], decimals: Sequence[int]) -> list[str]:
    return [
        text
        for field, digits in zip(fields, decimals, strict=True)
        for text in (with_error(field.score, field.standard_error, digits), number(field.sigma, digits))
    ]


def _latex(table: RewardTable, notes: Sequence[str]) -> str:
    stubs, rewards = len(table.stubs), len(table.rewards)
    first = [2 * column + stubs + 1 for column in range(rewards)]
    over = [f"\\multicolumn{{2}}{{c}}{{{latex(reward)}}}" for reward in table.rewards]
    header = [*map(latex, table.stubs), *([latex(table.score), r"$\sigma$"] * rewards)]
    return booktabs(
        table.caption,
        f"rewards-{table.name.replace('_', '-')}",
        f"{'l' * stubs}{'rr' * rewards}",
        [
            f"{' & '.join([*[''] * stubs, *over])} \\\\",
            " ".join(f"\\cmidrule(lr){{{at}-{at + 1}}}" for at in first),
            f"{' & '.join(header)} \\\\",
        ],
        _body(table),
        notes,
        style=r"\small\setlength{\tabcolsep}{4pt}",
    )


def _json(field: RewardField) -> dict[str, object]:
    return {
        "method": field.method,
        "train_reward": field.train_reward,
        "evaluation_reward": field.evaluation_reward,
        "score": field.score,
        "standard_error": field.standard_error,
        "sigma": field.sigma,
        "episodes": field.episodes,
        "design_cells": field.design_cells,
        "design_cells_wanted": field.design_cells_wanted,
        "failed": field.failed,
        "stopped": field.stopped,
        "cell": None if field.cell is None else json_cell(field.cell),
    }
