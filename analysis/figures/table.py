"""The ablation table as a picture: a row per method, its max score on the left and its σ on the right."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.figure_data import TablePicture
from analysis.figures.theme import FAINT, colour_of, error_bars, finish

SCORES, SIGMAS = (0.0, 0.6), (0.78, 0.94)
"""The shares of the width in which they are drawn; their numbers stand to the right of each."""


def draw_table(data: TablePicture, *, x_title: str) -> go.Figure:
    """A dot with its standard error and a bar per row, the table's first row on top, numbers beside both."""
    figure = go.Figure()
    places = list(range(len(data.lines)))
    colours = [colour_of(line.method) for line in data.lines]
    for place, line, colour in zip(places, data.lines, colours, strict=True):
        bars = error_bars([line.error], colour) | {"thickness": 3.5}
        figure.add_trace(
            go.Scatter(
                x=[line.score],
                y=[place],
                error_x=bars,
                mode="markers",
                marker={"size": 11, "color": colour},
                showlegend=False,
                hovertemplate=f"{line.label}: {line.text}<extra></extra>",
            )
        )
    figure.add_trace(
        go.Bar(
            x=[line.sigma for line in data.lines],
            y=places,
            orientation="h",
            width=0.44,
            marker={"color": colours},
            showlegend=False,
            hovertemplate="σ %{x:.2f}<extra></extra>",
            xaxis="x2",
        )
    )
    texts = [(line.text, line.sigma_text) for line in data.lines]
    numbers = [
        {"x": x, "y": place, "text": text, "xref": "paper", "xanchor": "right", "showarrow": False}
        for place, both in zip(places, texts, strict=True)
        for x, text in zip((SIGMAS[0] - 0.02, 1.0), both, strict=True)
    ]
    faint = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "layer": "below", "line": {"color": FAINT, "width": 1}}
    between = [faint | {"y0": place + 0.5, "y1": place + 0.5} for place in places[:-1]]
    figure.update_layout(annotations=numbers, shapes=between)
    figure.update_xaxes(title_text=x_title, domain=SCORES)
    figure.update_layout(xaxis2={"title": {"text": "σ over cells"}, "domain": SIGMAS, "rangemode": "tozero"})
    figure.update_yaxes(
        tickvals=places,
        ticktext=[f"<b>{line.label}</b> " for line in data.lines],
        range=[len(places) - 0.5, -0.5],
        showgrid=False,
    )
    finish(figure, least_width=640)
    figure.update_yaxes(showline=False)
    figure.update_layout(margin={"t": 16}, xaxis={"nticks": 8}, xaxis2={"nticks": 5})
    return figure
