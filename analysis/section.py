"""A part of a report beside its table: what was asked, tables and figures that answer, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from analysis.bounded import Bounded
from analysis.figures import Figure
from analysis.text import markdown_table

Entry: TypeAlias = str | Bounded
"""A cell of a table: text, or a number with its interval, which files for programs have in full precision."""


@dataclass(frozen=True)
class TextTable:
    """A table to be read.

    Attributes:
        title: What it holds, in a few words.
        header: One name per column.
        rows: Cells, as many in each row as in the header.
        numeric: Per column, whether it is flush right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    numeric: tuple[bool, ...]

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The rows as a reader sees them."""
        return tuple(tuple(each.text() if isinstance(each, Bounded) else each for each in row) for row in self.rows)


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        name: The stem of its files, a word.
        title: Its heading.
        text: What it says, a paragraph each.
        tables: Its tables.
        figures: Its figures with their captions, by the stems of their files.
        printed: Whether it belongs under the table in a terminal, too.
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[TextTable, ...] = ()
    figures: Mapping[str, tuple[Figure, str]] = field(default_factory=dict)
    printed: bool = False


def section_markdown(section: Section) -> str:
    """Heading, paragraphs and tables; figures are files of their own."""
    parts = [f"### {section.title}", *section.text]
    for table in section.tables:
        parts += [f"{table.title}:", markdown_table(table.header, table.texts, table.numeric)]
    return "\n\n".join(parts) + "\n"
