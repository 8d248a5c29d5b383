"""Figures of tokens: the advantage of each."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.figures.theme import finish
from analysis.text import number

_DIVERGING = ((0.0, "#d6604d"), (0.5, "#f7f7f7"), (1.0, "#4393c3"))  # red below its state's value, blue above


PER_ROW = 12
"""Tokens that stand side by side: more of them would print their words and numbers over each other."""

LONGEST = 9
"""Characters of a token that its cell has room for."""


def draw_advantages(rows: Sequence[tuple[str, Sequence[str], Sequence[float]]]) -> go.Figure:
    """Rows from top to bottom, their tokens side by side, each in the colour of its advantage with its number.

    Args:
        rows: What stands before each, the pieces, at most `PER_ROW`, and their advantages.
    """
    width = max((len(pieces) for _, pieces, _ in rows), default=0)
    size = max((abs(value) for _, _, values in rows for value in values), default=0.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=[[*values, *[None] * (width - len(values))] for _, _, values in rows],
            text=[
                [f"{_visible(piece)}<br>{number(value)}" for piece, value in zip(pieces, values, strict=True)]
                + [""] * (width - len(pieces))
                for _, pieces, values in rows
            ],
            texttemplate="%{text}",
            textfont={"size": 11},
            colorscale=_DIVERGING,
            zmin=-size,
            zmax=size,
            xgap=2,
            ygap=5,
            colorbar={"title": {"text": "Q − V", "side": "top"}, "thickness": 14, "outlinewidth": 0},
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=[f"{name} " for name, _, _ in rows], autorange="reversed", ticks=""
    )
    return finish(figure, axis_lines=False, least_width=min(940, 120 + 60 * width)).update_yaxes(showgrid=False)


def _visible(piece: str) -> str:
    """A token's text as HTML shows it; no leading space, cut where it is long, a sign at an utterance's end."""
    if piece == "<eoa>":
        return "⏎"
    word = piece.strip()
    shown = word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…"
    return shown.replace("&", "&amp;").replace("<", "&lt;") or "␣"
