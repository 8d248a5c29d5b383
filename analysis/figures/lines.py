"""Figures of lines: a rank per token, and methods over categories."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.figure_data import Line, RankCurve
from analysis.figures.theme import GREY, SYMBOLS, band, blue, colour_of, error_bars, finish


def draw_q_rank(curves: Sequence[RankCurve], positions: Sequence[str]) -> go.Figure:
    """The share of rightly ranked pairs at each token, a line per method and expectile, with its interval as a band.

    Args:
        curves: Of one place.
        positions: What the tokens are.
    """
    figure = go.Figure()
    taus = [curve.label for curve in curves if curve.method == "ilql"]
    for index, curve in enumerate(curves):
        own = curve.method == "ilql"
        colour = blue(taus.index(curve.label), len(taus)) if own else colour_of(curve.method)
        at = [place for place, share in enumerate(curve.shares) if share is not None]
        ends = [(curve.low[place] or 0.0, curve.high[place] or 0.0) for place in at]
        shares = [curve.shares[place] or 0.0 for place in at]
        figure.add_trace(band(at, [low for low, _ in ends], [high for _, high in ends], colour, opacity=0.15))
        figure.add_trace(
            go.Scatter(
                x=at,
                y=shares,
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": "dash" if curve.method == "exact" else "solid"},
                marker={"size": 9, "symbol": SYMBOLS[index % len(SYMBOLS)], "color": colour},
                name=curve.label,
                hovertemplate=f"{curve.label}<br>%{{y:.2f}}<extra></extra>",
            )
        )
    figure.add_hline(y=0.5, line={"color": GREY, "width": 1, "dash": "dot"}, layer="below")
    figure.update_xaxes(tickvals=list(range(len(positions))), ticktext=list(positions), showgrid=False)
    figure.update_yaxes(title_text="share of pairs ranked rightly", range=[-0.03, 1.03])
    return finish(figure)


def draw_lines(lines: Sequence[Line], *, x_title: str, ticks: Sequence[str], y_title: str) -> go.Figure:
    """A line per method over categories, with error bars."""
    figure = go.Figure()
    for index, line in enumerate(lines):
        figure.add_trace(
            go.Scatter(
                x=list(line.positions),
                y=list(line.values),
                error_y=error_bars(line.errors, colour_of(line.method)),
                mode="lines+markers",
                line={"color": colour_of(line.method), "width": 2},
                marker={"size": 9, "symbol": SYMBOLS[index % len(SYMBOLS)]},
                name=line.label,
            )
        )
    figure.update_xaxes(title_text=x_title, tickvals=list(range(len(ticks))), ticktext=list(ticks), showgrid=False)
    figure.update_yaxes(title_text=y_title)
    return finish(figure)
