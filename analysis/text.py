"""Numbers and cells of text as Markdown, LaTeX and plain text want them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

DASH = "–"
"""Stands where there is no number."""

NOT_BELIEVED = "†"
"""Stands behind an estimate that is not believed."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "−": r"$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "√": r"$\sqrt{}$",
    "†": r"\dag{}",
    "∞": r"$\infty$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∪": r"$\cup$",
    "→": r"$\rightarrow$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "ψ": r"$\psi$",
    "π": r"$\pi$",
    "–": "--",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
}


def decimals_for(errors: Iterable[float | None]) -> int:
    """How many decimals a column needs so that its smallest standard error shows a digit: 2, at most 4."""
    smallest = min((error for error in errors if error is not None and error > 0), default=1.0)
    return min(4, max(2, math.ceil(-math.log10(smallest))))


def number(value: float | None, decimals: int = 2) -> str:
    """`−5.69`, with a real minus sign and no negative zero; a dash for None."""
    if value is None:
        return DASH
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def with_error(value: float | None, error: float | None, decimals: int = 2, *, believed: bool = True) -> str:
    """`−5.69 ± 0.13`; a dash where there is no value, `± –` where its error is unknown, a mark if not believed."""
    if value is None:
        return DASH
    mark = "" if believed else f" {NOT_BELIEVED}"
    return f"{number(value, decimals)} ± {number(error, decimals)}{mark}"


def count(number_of: int, noun: str, plural: str | None = None) -> str:
    """`1 run`, `3 runs`, `1,024 episodes`."""
    return f"{number_of:,} {noun if number_of == 1 else plural or noun + 's'}"


def latex(text: str) -> str:
    """`text` with every character that LaTeX would misread, or lacks, written as LaTeX."""
    return "".join(_LATEX.get(character, character) for character in text)


def booktabs(
    caption: str,
    label: str,
    columns: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    *,
    style: str,
    environment: str = "table",
) -> str:
    r"""A LaTeX table for `\usepackage{booktabs}`, with notes below it in small print.

    Args:
        caption: As text, like the cells and the notes.
        label: Behind `tab:`.
        columns: A letter for each.
        header: Lines of LaTeX above the rule.
        rows: Cells of text.
        notes: None for no small print.
        style: LaTeX that sets the size.
        environment: `table`, or `table*` over two columns of a page.
    """
    small = [
        r"  \par\smallskip",
        r"  \begin{minipage}{\linewidth}\footnotesize",
        *(f"    {latex(note)}\\par" for note in notes),
        r"  \end{minipage}",
    ]
    lines = [
        f"\\begin{{{environment}}}",
        r"  \centering",
        f"  \\caption{{{latex(caption)}}}",
        f"  \\label{{tab:{label}}}",
        f"  {style}",
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        *(f"    {line}" for line in header),
        r"    \midrule",
        *(f"    {' & '.join(map(latex, row))} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(small if notes else ()),
        f"\\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """A Markdown table whose columns also line up in a terminal; `numeric` columns are flush right.

    Args:
        header: One name per column.
        rows: Cells of text; `|` in them is escaped.
        numeric: Per column, whether it is flush right.
    """
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = ("-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, numeric, strict=True))
    return "\n".join([line(cells[0]), f"| {' | '.join(rule)} |", *(line(row) for row in cells[1:])])
