"""What all figures share: the library, colours, marks, fonts and axes.

Colours are those of Okabe and Ito (2008), of cividis, and more that are as far from them: readers with any common
colour vision can tell them apart. Shapes, dashes and places say the same once more, for print in grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

Figure = go.Figure
"""What the drawing functions give; callers need no plotly of their own."""

FONT = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"

METHOD_COLOURS: Mapping[str, str] = {
    "ilql": "#0072b2",
    "cql": "#e69f00",
    "psi": "#cc79a7",
    "sarsa": "#d55e00",
    "decision_transformer": "#56b4e9",
    "awr": "#772200",
    "filtered_bc": "#009e73",
    "bc": "#4d4d4d",
    "utterance_ilql": "#4433aa",
    "ilql_without_lm": "#9988ff",
    "chai": "#550055",
    "mc_returns": "#aacc77",
    "qsft": "#9933ee",
}
"""A colour for each method and variant that has a label."""

INK, GREY, FAINT = "#1f2328", "#6b7280", "#e5e7eb"

_TAU_BLUES = ((0x7F, 0xBA, 0xE6), (0x08, 0x26, 0x4A))  # from the lowest to the highest tau of ILQL

LEAST_WIDTH = "least_width"
"""In a layout's `meta`, which plotly hands on: see `finish`."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")

DASHES = ("dash", "dot", "dashdot", "longdash")


def blue(index: int, of: int) -> str:
    """One of `of` blues, from light to dark: ILQL's expectiles."""
    share = index / (of - 1) if of > 1 else 0.6
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(*_TAU_BLUES, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def colour_of(method: str) -> str:
    """A method's colour; grey for one without."""
    return METHOD_COLOURS.get(method, "#7f7f7f")


def error_bars(errors: Sequence[float | None], colour: str) -> dict[str, object]:
    """Error bars without caps; none where an error is None."""
    return {"array": [error or 0.0 for error in errors], "color": colour, "thickness": 1.4, "width": 0}


def band(
    xs: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str, *, opacity: float = 0.14
) -> go.Scatter:
    """What lies between two curves, as a pale area behind whatever is drawn next."""
    return go.Scatter(
        x=[*xs, *reversed(xs)],
        y=[*low, *reversed(high)],
        fill="toself",
        fillcolor=colour,
        opacity=opacity,
        line={"width": 0},
        mode="lines",
        showlegend=False,
        hoverinfo="skip",
    )


def finish(figure: go.Figure, *, axis_lines: bool = True, least_width: int = 0) -> go.Figure:
    """The figure, with the fonts, margins and axes of all.

    Args:
        figure: Drawn.
        axis_lines: Whether its axes have lines.
        least_width: Pixels below which its texts would lie upon each other: a narrower page scrolls it.
    """
    axis = {
        "showline": axis_lines,
        "linecolor": GREY,
        "gridcolor": FAINT,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 14, "font": {"size": 15}},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(
        template="none",
        font={"family": FONT, "size": 14, "color": INK},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        margin={"l": 70, "r": 20, "t": 50 if axis_lines else 36, "b": 60},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0.0, "itemsizing": "trace"},
        separators=".,",
        hoverlabel={"bgcolor": "#ffffff", "font": {"family": FONT, "size": 13, "color": INK}},
    )
    if least_width:
        figure.update_layout(meta={LEAST_WIDTH: least_width})
    for number, trace in enumerate(figure.data):
        trace.uid = str(number)  # else drawn by lot, and written into the files
    return figure
