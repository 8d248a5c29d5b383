"""Figures as files: interactive ones in a page, static ones by a browser."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from analysis.figures.theme import LEAST_WIDTH

Picture = Mapping[str, Any]
"""A figure as plotly.js reads it."""

STATIC_FORMATS = ("svg", "png", "pdf")

WIDTH, HEIGHT = 860, 480

BROWSER_SECONDS = 120.0
"""What drawing may take: some twenty times what a report's figures take on two cores. A browser may hang for good."""

_BROWSER = Path(__file__).with_name("browser.py")


def plotly_script() -> str:
    """The source of plotly.js, to put into a page once."""
    return str(get_plotlyjs())


def picture(figure: go.Figure) -> Picture:
    """A figure, made ready once for however many files it goes into."""
    ready: Picture = figure.to_dict()
    return ready


def figure_html(figure: Picture, name: str) -> str:
    """The figure as a piece of HTML for a page that holds `plotly_script()`; `name` becomes its id."""
    drawn = str(
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
    least = (figure["layout"].get("meta") or {}).get(LEAST_WIDTH)
    return f'<div class="scroll"><div style="min-width:{least}px">{drawn}</div></div>' if least else drawn


def write_static(figures: Mapping[str, Picture], folder: Path, formats: Sequence[str] = STATIC_FORMATS) -> list[Path]:
    """Write every figure in every format to `folder/NAME.FORMAT`, all in one browser, and give the paths.

    Raises:
        RuntimeError: Kaleido is not installed, or no Chrome or Chromium is found or starts, or it hangs.
        ValueError: A format is unknown.
    """
    unknown = [name for name in formats if name not in STATIC_FORMATS]
    if unknown:
        raise ValueError(f"unknown figure format {unknown[0]!r}; known: {', '.join(STATIC_FORMATS)}")
    jobs = [(name, folder / f"{name}.{suffix}") for name in figures for suffix in formats]
    paths = [path for _, path in jobs]
    if jobs:
        asked = {
            "figures": {
                name: plotly.io.to_json(figure, validate=False, remove_uids=False) for name, figure in figures.items()
            },
            "files": [
                {"name": name, "path": str(path.absolute()), "scale": 3 if path.suffix == ".png" else 1}
                for name, path in jobs
            ],
            "width": WIDTH,
            "height": HEIGHT,
            "seconds": BROWSER_SECONDS,
        }
        try:
            _in_a_browser(json.dumps(asked))
        except RuntimeError:
            for path in paths:  # all of them or none: one may be half written
                path.unlink(missing_ok=True)
            raise
    for path in paths:
        if path.suffix == ".svg":
            text = without_lot(path.read_text(encoding="utf-8"), path.stem)
            path.write_text(text, encoding="utf-8", newline="\n")
    return paths


def _in_a_browser(asked: str) -> None:
    """Let `browser.py` do what is asked."""
    # -P: the modules that lie beside the program are none of its own.
    command = [sys.executable, "-P", str(_BROWSER)]
    drawing = subprocess.run(
        command,
        input=asked,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if drawing.returncode:
        said = drawing.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(said or f"The drawing ended with {drawing.returncode}.")


def without_lot(svg: str, name: str) -> str:
    """An SVG of plotly's whose ids are made of a name: plotly draws six characters by lot that begin or end them."""
    drawn = re.search(r'id="defs-([0-9a-f]{6})"', svg)
    if drawn is None:
        return svg
    return re.sub(rf"(?<=[a-z-]){drawn[1]}", hashlib.sha256(name.encode()).hexdigest()[:6], svg)
