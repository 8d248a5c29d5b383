"""Figures across tasks and trainings: performance profiles, and estimates in a row with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from analysis.bounded import Bounded
from analysis.estimators import Floats
from analysis.figures.effects import interval_bars
from analysis.figures.theme import DASHES, GREY, band, colour_of, finish
from analysis.labels import method_label


def draw_profiles(
    thresholds: Floats, profiles: Mapping[str, tuple[Floats, Floats | None]], *, x_title: str
) -> go.Figure:
    """The share of runs above each threshold, a line per method with its band.

    Args:
        thresholds: Shape (P,).
        profiles: By method its profile (P,), and the ends of its intervals (2, P), or None without one.
        x_title: What the threshold is.
    """
    figure = go.Figure()
    xs = [float(x) for x in thresholds]
    for index, (method, (shares, ends)) in enumerate(profiles.items()):
        colour = colour_of(method)
        if ends is not None:
            figure.add_trace(band(xs, [*map(float, ends[0])], [*map(float, ends[1])], colour))
        figure.add_trace(
            go.Scatter(
                x=xs,
                y=[float(share) for share in shares],
                mode="lines",
                line={"color": colour, "width": 2.2, "dash": ("solid", *DASHES)[index % (len(DASHES) + 1)]},
                name=method_label(method),
            )
        )
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text="share of runs above it", range=[-0.02, 1.02])
    return finish(figure)


def draw_estimates(rows: Sequence[tuple[str, str, Bounded]], *, x_title: str, at: float | None = None) -> go.Figure:
    """A dot with its interval per row, the first on top; hollow where there is no interval.

    Args:
        rows: Label, method for the colour, estimate.
        x_title: What is estimated.
        at: Where a dotted line stands, if anywhere.
    """
    figure = go.Figure()
    for label, method, each in rows:
        colour = colour_of(method)
        figure.add_trace(
            go.Scatter(
                y=[label],
                x=[each.value],
                error_x=None if each.low is None else interval_bars([each], colour),
                mode="markers",
                marker={
                    "size": 10,
                    "color": colour,
                    "symbol": "circle-open" if each.low is None else "circle",
                    "line": {"width": 2},
                },
                showlegend=False,
                text=[f"{label}: {each.text()}"],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    if at is not None:
        figure.add_vline(x=at, line={"color": GREY, "width": 1, "dash": "dot"}, layer="below")
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(autorange="reversed", ticksuffix=" ")
    return finish(figure)
