"""Figures: the drawing half, and the only file that knows plotly.

Each figure is drawn from values that `analysis.figure_data` has made. Colours are those of Okabe and Ito (2008), of
cividis, and more that are as far from them: readers with any common colour vision can tell them apart. Shapes, dashes
and places say the same once more, for print in grey.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from analysis.figure_data import BetaCurves, CellPoint, HeatMap, Line, MethodSlot, RankCurve, ScoreByCell
from analysis.labels import method_label, value_label
from analysis.text import count, number, with_error

Figure = go.Figure
"""What the drawing functions give; callers need no plotly of their own."""

STATIC_FORMATS = ("svg", "png", "pdf")
WIDTH, HEIGHT = 860, 480
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

_INK, _GREY, _FAINT = "#1f2328", "#6b7280", "#e5e7eb"
_TAU_BLUES = ((0x7F, 0xBA, 0xE6), (0x08, 0x26, 0x4A))  # from the lowest to the highest tau of ILQL
_TAU_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
_DIVERGING = ((0.0, "#d6604d"), (0.5, "#f7f7f7"), (1.0, "#4393c3"))  # red below its state's value, blue above
_LEVEL_DASHES = ("dash", "dot", "dashdot", "longdash")


def draw_score_by_cell(data: ScoreByCell, *, y_title: str) -> go.Figure:
    """Every cell a point with its standard error, its seeds behind it, methods side by side."""
    figure = go.Figure()
    many = len(data.slots) > 8
    bottom, top = _span(data)
    for slot in data.slots:
        if slot.mean is None or slot.design_left is None or slot.design_right is None:
            continue
        left, right = slot.design_left - 0.45, slot.design_right + 0.45
        colour = _colour(slot.method)
        if slot.sigma is not None:
            band = {"y0": slot.mean - slot.sigma, "y1": slot.mean + slot.sigma, "fillcolor": colour, "opacity": 0.13}
            figure.add_shape(type="rect", x0=left, x1=right, line_width=0, layer="below", **band)
            line = {"color": colour, "width": 1.2}
            figure.add_shape(type="line", x0=left, x1=right, y0=slot.mean, y1=slot.mean, line=line, layer="below")
    _add_seed_dots(figure, data)
    for origin, symbol in (("design", "circle"), ("refinement", "diamond")):
        points = [point for point in data.points if point.origin == origin and point.score is not None]
        if points:
            figure.add_trace(_cell_trace(points, f"{origin} cell", symbol, size=7 if many else 9))
    best = [point for point in data.points if point.best and point.score is not None]
    figure.add_trace(
        go.Scatter(
            x=[point.position for point in best],
            y=[point.score.value for point in best if point.score is not None],
            mode="markers",
            marker={"symbol": "circle-open", "size": 14 if many else 17, "color": _INK, "line": {"width": 1.6}},
            showlegend=False,
            legendgroup="best cell",
            hoverinfo="skip",
        )
    )
    empty = [point for point in data.points if point.score is None]
    if empty:
        figure.add_trace(
            go.Scatter(
                x=[point.position for point in empty],
                y=[bottom - 0.05 * (top - bottom)] * len(empty),
                mode="markers",
                marker={
                    "symbol": "x-thin",
                    "size": 7 if many else 9,
                    "line": {"width": 2, "color": [_colour(p.method) for p in empty]},
                },
                legendgroup="no finished run",
                showlegend=False,
                text=[_hover(point) for point in empty],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    _add_keys(figure, {str(trace.legendgroup) for trace in figure.data})
    edges = [(before.right + after.left) / 2 for before, after in zip(data.slots, data.slots[1:], strict=False)]
    for edge in edges:
        figure.add_vline(x=edge, line={"color": _FAINT, "width": 1}, layer="below")
    figure.update_xaxes(
        tickvals=[(slot.left + slot.right) / 2 for slot in data.slots],
        ticktext=[_slot_label(slot, narrow=many) for slot in data.slots],
        tickangle=0,
        tickfont={"size": 11 if many else 14},
        range=[-1.6, max((slot.right for slot in data.slots), default=0.0) + 1.6],
        showgrid=False,
    )
    figure.update_yaxes(title_text=y_title, range=[bottom - 0.1 * (top - bottom), top + 0.05 * (top - bottom)])
    return _finish(figure)


def draw_beta_curves(data: BetaCurves, *, y_title: str) -> go.Figure:
    """A line per tau over the betas as categories; cloning as dashed levels with a band of ± one s.e."""
    figure = go.Figure()
    last = len(data.betas) - 1
    ends = [-0.35, last + 0.35]
    for index, (method, name, score) in enumerate(data.levels):
        error, colour = score.standard_error or 0.0, _colour(method)
        dash = _LEVEL_DASHES[index % len(_LEVEL_DASHES)]
        band = {"y0": score.value - error, "y1": score.value + error, "fillcolor": colour, "opacity": 0.13}
        figure.add_shape(type="rect", x0=ends[0], x1=ends[1], line_width=0, layer="below", **band)
        figure.add_trace(
            go.Scatter(
                x=ends,
                y=[score.value] * 2,
                mode="lines",
                line={"color": colour, "width": 1.8, "dash": dash},
                name=name,
                hovertemplate=f"{name}<br>{with_error(score.value, score.standard_error)}<extra></extra>",
                legendrank=2000 + index,
            )
        )
    spread = 0.12 / max(1, len(data.curves) - 1)
    of_ilql = [curve.tau for curve in data.curves if curve.method == "ilql"]
    for index, curve in enumerate(data.curves):
        own = curve.method == "ilql"
        colour = _blue(of_ilql.index(curve.tau), len(of_ilql)) if own else _colour(curve.method)
        offset = (index - (len(data.curves) - 1) / 2) * spread
        figure.add_trace(
            go.Scatter(
                x=[at + offset for at in curve.positions],
                y=[score.value for score in curve.scores],
                error_y=_error_bars([score.standard_error for score in curve.scores], colour),
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 9, "symbol": _TAU_SYMBOLS[index % len(_TAU_SYMBOLS)], "color": colour},
                name=curve.label,
                text=[
                    f"{curve.label}, β = {value_label(data.betas[at])}<br>{with_error(s.value, s.standard_error)}"
                    f"<br>{count(s.seeds, 'training seed')}, {count(s.episodes, 'episode')}"
                    for at, s in zip(curve.positions, curve.scores, strict=True)
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.update_xaxes(
        title_text="β, weight of the advantage at decoding",
        tickvals=list(range(len(data.betas))),
        ticktext=[value_label(beta) for beta in data.betas],
        range=[-0.4, last + 0.4],
        showgrid=False,
    )
    figure.update_yaxes(title_text=y_title)
    return _finish(figure)


def draw_heat_map(data: HeatMap, *, value_title: str) -> go.Figure:
    """The tau × beta grid, each field with its score and standard error; fields without a score are white."""
    figure = go.Figure(
        go.Heatmap(
            z=[[None if math.isnan(value) else value for value in row] for row in data.scores.tolist()],
            x=list(range(len(data.betas))),
            y=list(range(len(data.taus))),
            colorscale="Cividis",
            colorbar={
                "title": {"text": value_title, "side": "right", "font": {"size": 15}},
                "thickness": 14,
                "outlinewidth": 0,
            },
            xgap=3,
            ygap=3,
            hoverinfo="skip",
        )
    )
    finite = [value for row in data.scores.tolist() for value in row if not math.isnan(value)]
    middle = (min(finite) + max(finite)) / 2 if finite else 0.0
    annotations: list[dict[str, object]] = []
    shapes: list[dict[str, object]] = []
    for row, texts in enumerate(data.text):
        for column, text in enumerate(texts):
            value = float(data.scores[row, column])
            dark = not math.isnan(value) and value < middle
            colour = "#ffffff" if dark else _GREY if math.isnan(value) else _INK
            if math.isnan(value):
                field = {"x0": column - 0.49, "x1": column + 0.49, "y0": row - 0.49, "y1": row + 0.49}
                shapes.append({"type": "rect", "fillcolor": "#f3f4f6", "line": {"width": 0}, "layer": "below", **field})
            font = {"size": 15, "color": colour}
            annotations.append({"x": column, "y": row, "text": text, "showarrow": False, "font": font})
    figure.update_layout(annotations=annotations, shapes=shapes)  # at once: plotly adds one by one in quadratic time
    figure.update_xaxes(
        title_text="β, weight of the advantage at decoding",
        tickvals=list(range(len(data.betas))),
        ticktext=[value_label(beta) for beta in data.betas],
        showgrid=False,
    )
    figure.update_yaxes(
        title_text="τ, expectile",
        tickvals=list(range(len(data.taus))),
        ticktext=data.tau_labels,
        showgrid=False,
    )
    return _finish(figure, axis_lines=False)


def plotly_script() -> str:
    """The source of plotly.js, to put into a page once."""
    return str(get_plotlyjs())


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
    return _finish(figure, axis_lines=False)


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
        colour = _blue(taus.index(curve.label), len(taus)) if own else _colour(curve.method)
        at = [place for place, share in enumerate(curve.shares) if share is not None]
        ends = [(curve.low[place] or 0.0, curve.high[place] or 0.0) for place in at]
        shares = [curve.shares[place] or 0.0 for place in at]
        figure.add_trace(
            go.Scatter(
                x=[*at, *reversed(at)],
                y=[*(low for low, _ in ends), *(high for _, high in reversed(ends))],
                fill="toself",
                fillcolor=colour,
                opacity=0.15,
                line={"width": 0},
                mode="lines",
                showlegend=False,
                hoverinfo="skip",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=at,
                y=shares,
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": "dash" if curve.method == "exact" else "solid"},
                marker={"size": 9, "symbol": _TAU_SYMBOLS[index % len(_TAU_SYMBOLS)], "color": colour},
                name=curve.label,
                hovertemplate=f"{curve.label}<br>%{{y:.2f}}<extra></extra>",
            )
        )
    figure.add_hline(y=0.5, line={"color": _GREY, "width": 1, "dash": "dot"}, layer="below")
    figure.update_xaxes(tickvals=list(range(len(positions))), ticktext=list(positions), showgrid=False)
    figure.update_yaxes(title_text="share of pairs ranked rightly", range=[-0.03, 1.03])
    return _finish(figure)


def draw_lines(lines: Sequence[Line], *, x_title: str, ticks: Sequence[str], y_title: str) -> go.Figure:
    """A line per method over categories, with error bars."""
    figure = go.Figure()
    for index, line in enumerate(lines):
        figure.add_trace(
            go.Scatter(
                x=list(line.positions),
                y=list(line.values),
                error_y=_error_bars(line.errors, _colour(line.method)),
                mode="lines+markers",
                line={"color": _colour(line.method), "width": 2},
                marker={"size": 9, "symbol": _TAU_SYMBOLS[index % len(_TAU_SYMBOLS)]},
                name=line.label,
            )
        )
    figure.update_xaxes(title_text=x_title, tickvals=list(range(len(ticks))), ticktext=list(ticks), showgrid=False)
    figure.update_yaxes(title_text=y_title)
    return _finish(figure)


def figure_html(figure: go.Figure, name: str) -> str:
    """The figure as a piece of HTML for a page that holds `plotly_script()`; `name` becomes its id."""
    return str(
        plotly.io.to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            default_height=f"{HEIGHT}px",
            config={"displayModeBar": False, "responsive": True},  # the bar would lie on the legend of a narrow page
        )
    )


def write_static(figures: Mapping[str, go.Figure], folder: Path, formats: Sequence[str] = STATIC_FORMATS) -> list[Path]:
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
            scale=[3 if path.suffix == ".png" else 1 for path in paths],
            width=WIDTH,
            height=HEIGHT,
        )
    return paths


def _visible(piece: str) -> str:
    """A token's text as HTML shows it; a leading space is not to be seen, and the end of an utterance is a sign."""
    return "⏎" if piece == "<eoa>" else piece.strip().replace("&", "&amp;").replace("<", "&lt;") or "␣"


def _slot_label(slot: MethodSlot, *, narrow: bool) -> str:
    """The method's name over the number of its cells; a line for each word where there is little room."""
    name = method_label(slot.method)
    return f"<b>{name.replace(' ', '<br>') if narrow else name}</b><br>{count(slot.cells, 'cell')}"


def _cell_trace(points: Sequence[CellPoint], name: str, symbol: str, *, size: int) -> go.Scatter:
    scores = [point.score for point in points if point.score is not None]
    return go.Scatter(
        x=[point.position for point in points],
        y=[score.value for score in scores],
        error_y=_error_bars([score.standard_error for score in scores], _GREY),
        mode="markers",
        marker={
            "symbol": symbol,
            "size": size,
            "color": [_colour(point.method) for point in points],
        },
        legendgroup=name,
        showlegend=False,
        text=[_hover(point) for point in points],
        hovertemplate="%{text}<extra></extra>",
    )


def _add_seed_dots(figure: go.Figure, data: ScoreByCell) -> None:
    dots = [(p, score) for p in data.points if len(p.seed_scores) > 1 for score in p.seed_scores]
    if dots:
        figure.add_trace(
            go.Scatter(
                x=[point.position for point, _ in dots],
                y=[score for _, score in dots],
                mode="markers",
                marker={"size": 5, "opacity": 0.45, "color": [_colour(point.method) for point, _ in dots]},
                legendgroup="one training seed",
                showlegend=False,
                hoverinfo="skip",
            )
        )


def _add_keys(figure: go.Figure, drawn: set[str]) -> None:
    """Legend entries in grey, since a mark's colour is its method's."""
    marks = (
        ("design cell", {"symbol": "circle", "size": 9, "color": _GREY}),
        ("refinement cell", {"symbol": "diamond", "size": 9, "color": _GREY}),
        ("one training seed", {"symbol": "circle", "size": 5, "color": _GREY, "opacity": 0.6}),
        ("best cell", {"symbol": "circle-open", "size": 15, "color": _INK, "line": {"width": 1.6}}),
        ("no finished run", {"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": _GREY}}),
    )
    for name, marker in marks:
        if name in drawn:
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, legendgroup=name))


def _blue(index: int, of: int) -> str:
    share = index / (of - 1) if of > 1 else 0.6
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(*_TAU_BLUES, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _hover(point: CellPoint) -> str:
    lines = [f"<b>{method_label(point.method)}</b> {point.setting}", f"{point.origin} cell"]
    if point.score is not None:
        lines += [
            with_error(point.score.value, point.score.standard_error),
            f"{count(point.score.seeds, 'training seed')} "
            f"({', '.join(number(score) for score in point.seed_scores)}), {count(point.score.episodes, 'episode')}",
        ]
    if point.failed or point.stopped:
        lines.append(f"{count(point.failed, 'run')} failed, {point.stopped:,} stopped")
    return "<br>".join(lines)


def _span(data: ScoreByCell) -> tuple[float, float]:
    values = [0.0] if all(point.score is None for point in data.points) else []
    for point in data.points:
        if point.score is not None:
            error = point.score.standard_error or 0.0
            values += [point.score.value - error, point.score.value + error, *point.seed_scores]
    lowest = min(values)
    return lowest, max(*values, lowest + 1e-6)


def _error_bars(errors: Sequence[float | None], colour: str) -> dict[str, object]:
    return {"array": [error or 0.0 for error in errors], "color": colour, "thickness": 1.4, "width": 0}


def _colour(method: str) -> str:
    return METHOD_COLOURS.get(method, "#7f7f7f")


def _finish(figure: go.Figure, *, axis_lines: bool = True) -> go.Figure:
    axis = {
        "showline": axis_lines,
        "linecolor": _GREY,
        "gridcolor": _FAINT,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 14, "font": {"size": 15}},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(
        template="none",
        font={"family": FONT, "size": 14, "color": _INK},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        margin={"l": 70, "r": 20, "t": 50 if axis_lines else 36, "b": 60},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0.0, "itemsizing": "trace"},
        separators=".,",
        hoverlabel={"bgcolor": "#ffffff", "font": {"family": FONT, "size": 13, "color": _INK}},
    )
    return figure
