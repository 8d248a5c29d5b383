"""The pages of a report as HTML: what a reader of a paper expects, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light; --ink: #1f2328; --grey: #57606a; --line: #d0d7de; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; background: #fff; color: var(--ink);
  font: 1rem/1.55 "Source Serif 4", Charter, "Bitstream Charter", "Liberation Serif", Georgia, serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
p.lead { color: var(--grey); margin: 0 0 1.6rem; }
.scroll { overflow-x: auto; background: linear-gradient(to right, #fff 2rem, #fff0) left / 4rem 100% no-repeat local,
  linear-gradient(to left, #fff 2rem, #fff0) right / 4rem 100% no-repeat local,
  linear-gradient(to right, #0003, #0000) left / .8rem 100% no-repeat scroll,
  linear-gradient(to left, #0003, #0000) right / .8rem 100% no-repeat scroll; isolation: isolate; }
.scroll > * { mix-blend-mode: multiply; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0 .8rem; border-top: 2px solid var(--ink);
  border-bottom: 2px solid var(--ink); font-size: .92rem; font-variant-numeric: tabular-nums lining-nums; }
th { font-weight: 600; border-bottom: 1px solid var(--ink); vertical-align: bottom; }
th, td { padding: .34rem .6rem; text-align: left; }
td { vertical-align: top; }
th.number, td.number { text-align: right; }
td.number { white-space: nowrap; }
.ends { display: block; white-space: nowrap; font-size: .88em; color: var(--grey); font-weight: 400; }
td:first-child { white-space: nowrap; }
td:not(.number):not(:first-child) { min-width: 7rem; }
ol.notes { font-size: .85rem; color: var(--grey); padding-left: 1.4rem; margin: .2rem 0 0; }
ol.notes li { margin: .15rem 0; }
figure { margin: 1.2rem 0 2.4rem; }
figcaption { font-size: .88rem; color: var(--grey); margin-top: .3rem; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); font-size: .82rem; color: var(--grey);
  overflow-wrap: anywhere; }
a { color: #0550ae; }
@media (max-width: 40rem) { body { padding: 1.2rem .9rem 3rem; } table { font-size: .85rem; }
  th, td { padding: .3rem .4rem; } td:first-child { white-space: normal; min-width: 6rem; } }
@media print { body { max-width: none; padding: 0; } figure, table { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class PageFigure:
    """A figure on a page: its id, its piece of HTML and its caption."""

    name: str
    html: str
    caption: str


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool], *, stacked: bool = False
) -> str:
    """A table of text cells; `numeric` columns are flush right.

    With `stacked`, `[low, high]` at the end of a cell stands below what is before it: for tables of many intervals,
    which would not fit a window else.
    """
    said = _stacked if stacked else escape
    classes = [' class="number"' if right else "" for right in numeric]
    head = "".join(f"<th{kind}>{said(name)}</th>" for name, kind in zip(header, classes, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{said(cell)}</td>" for cell, kind in zip(row, classes, strict=True)) + "</tr>"
        for row in rows
    )
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="scroll">{table}</div>'


def _stacked(cell: str) -> str:
    before, bracket, ends = cell.rpartition(" [")
    return f'{escape(before)}<span class="ends">[{escape(ends)}</span>' if bracket else escape(cell)


def notes_html(notes: Sequence[str]) -> str:
    """Numbered footnotes."""
    return '<ol class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ol>"


def links_html(links: Sequence[tuple[str, str]]) -> str:
    """`label · label`, each a link to its address."""
    return " · ".join(f'<a href="{escape(address, quote=True)}">{escape(label)}</a>' for label, address in links)


def figure_section(figure: PageFigure) -> str:
    """The figure with its caption below."""
    return f"<figure>{figure.html}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def page(title: str, body: str, *, script: str = "") -> str:
    """A whole HTML page. `script` is run before the body is shown; it is put in as it is."""
    head = f"<script>{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n{head}</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
