"""Figures as files: interactive ones in a page, static ones by a browser."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

Picture = Mapping[str, Any]
"""A figure as plotly.js reads it."""

STATIC_FORMATS = ("svg", "png", "pdf")

WIDTH, HEIGHT = 860, 480


def plotly_script() -> str:
    """The source of plotly.js, to put into a page once."""
    return str(get_plotlyjs())


def picture(figure: go.Figure) -> Picture:
    """A figure, made ready once for however many files it goes into."""
    ready: Picture = figure.to_dict()
    return ready


def figure_html(figure: Picture, name: str) -> str:
    """The figure as a piece of HTML for a page that holds `plotly_script()`; `name` becomes its id."""
    return str(
        plotly.io.to_html(
            figure,
            validate=False,  # as all that a figure of plotly's was made of
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            default_height=f"{HEIGHT}px",
            config={"displayModeBar": False, "responsive": True},  # the bar would lie on the legend of a narrow page
        )
    )


def write_static(figures: Mapping[str, Picture], folder: Path, formats: Sequence[str] = STATIC_FORMATS) -> list[Path]:
    """Write every figure in every format to `folder/NAME.FORMAT`, all in one browser, and give the paths.

    Raises:
        RuntimeError: Kaleido is not installed, or no Chrome or Chromium is found or starts.
        ValueError: A format is unknown.
    """
    unknown = [name for name in formats if name not in STATIC_FORMATS]
    if unknown:
        raise ValueError(f"unknown figure format {unknown[0]!r}; known: {', '.join(STATIC_FORMATS)}")
    jobs = [(figure, folder / f"{name}.{suffix}") for name, figure in figures.items() for suffix in formats]
    paths = [path for _, path in jobs]
    if jobs:  # one call, so one browser; and unlike kaleido's server it raises, rather than waits, where none starts
        plotly.io.write_images(
            fig=[figure for figure, _ in jobs],
            file=list(paths),
            validate=False,
            scale=[3 if path.suffix == ".png" else 1 for path in paths],
            width=WIDTH,
            height=HEIGHT,
        )
    for path in paths:
        if path.suffix == ".svg":
            text = without_lot(path.read_text(encoding="utf-8"), path.stem)
            path.write_text(text, encoding="utf-8", newline="\n")
    return paths


def without_lot(svg: str, name: str) -> str:
    """An SVG of plotly's whose ids are made of a name: plotly draws six characters by lot that begin or end them."""
    drawn = re.search(r'id="defs-([0-9a-f]{6})"', svg)
    if drawn is None:
        return svg
    return re.sub(rf"(?<=[a-z-]){drawn[1]}", hashlib.sha256(name.encode()).hexdigest()[:6], svg)
