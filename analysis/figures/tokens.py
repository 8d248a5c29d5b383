"""Figures of tokens: the advantage of each."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.figures.theme import finish
from analysis.text import number

_DIVERGING = ((0.0, "#d6604d"), (0.5, "#f7f7f7"), (1.0, "#4393c3"))  # red below its state's value, blue above


def draw_advantages(utterances: Sequence[tuple[Sequence[str], Sequence[float]]]) -> go.Figure:
    """Utterances from top to bottom, their tokens side by side, each in the colour of its advantage with its number.

    Args:
        utterances: Pieces and their advantages, one pair per utterance.
    """
    width = max((len(pieces) for pieces, _ in utterances), default=0)
    size = max((abs(value) for _, values in utterances for value in values), default=0.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=[[*values, *[None] * (width - len(values))] for _, values in utterances],
            text=[
                [f"{_visible(piece)}<br>{number(value)}" for piece, value in zip(pieces, values, strict=True)]
                + [""] * (width - len(pieces))
                for pieces, values in utterances
            ],
            texttemplate="%{text}",
            textfont={"size": 11},
            colorscale=_DIVERGING,
            zmin=-size,
            zmax=size,
            xgap=2,
            ygap=5,
            colorbar={"title": {"text": "Q − V", "side": "right"}, "thickness": 14, "outlinewidth": 0},
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, autorange="reversed")
    return finish(figure, axis_lines=False, least_width=min(940, 120 + 48 * width))


def _visible(piece: str) -> str:
    """A token's text as HTML shows it; a leading space is not to be seen, and the end of an utterance is a sign."""
    return "⏎" if piece == "<eoa>" else piece.strip().replace("&", "&amp;").replace("<", "&lt;") or "␣"
