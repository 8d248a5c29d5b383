"""Figures of cells: every score, score against beta, the tau × beta grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.figure_data import BetaCurves, CellPoint, HeatMap, MethodSlot, ScoreByCell
from analysis.figures.theme import DASHES, FAINT, GREY, INK, SYMBOLS, blue, colour_of, error_bars, finish
from analysis.labels import method_label, value_label
from analysis.text import count, number, with_error


def draw_score_by_cell(data: ScoreByCell, *, y_title: str) -> go.Figure:
    """Every cell a point with its standard error, its seeds behind it, methods side by side."""
    figure = go.Figure()
    many = len(data.slots) > 8
    bottom, top = _span(data)
    for slot in data.slots:
        if slot.mean is None or slot.design_left is None or slot.design_right is None:
            continue
        left, right = slot.design_left - 0.45, slot.design_right + 0.45
        colour = colour_of(slot.method)
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
            marker={"symbol": "circle-open", "size": 14 if many else 17, "color": INK, "line": {"width": 1.6}},
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
                    "line": {"width": 2, "color": [colour_of(p.method) for p in empty]},
                },
                legendgroup="no finished run",
                showlegend=False,
                text=[_hover(point) for point in empty],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    drawn = {str(trace.legendgroup) for trace in figure.data}
    _add_keys(figure, drawn if all(point.believed for point in data.points) else {*drawn, "not believed"})
    edges = [(before.right + after.left) / 2 for before, after in zip(data.slots, data.slots[1:], strict=False)]
    for edge in edges:
        figure.add_vline(x=edge, line={"color": FAINT, "width": 1}, layer="below")
    figure.update_xaxes(
        tickvals=[(slot.left + slot.right) / 2 for slot in data.slots],
        ticktext=[_slot_label(slot, narrow=len(data.slots) > 6) for slot in data.slots],
        tickangle=0,
        tickfont={"size": 11 if many else 14},
        range=[-1.6, max((slot.right for slot in data.slots), default=0.0) + 1.6],
        showgrid=False,
    )
    figure.update_yaxes(title_text=y_title, range=[bottom - 0.1 * (top - bottom), top + 0.05 * (top - bottom)])
    return finish(figure, least_width=800 if len(data.slots) > 6 else 0)


def draw_beta_curves(data: BetaCurves, *, y_title: str) -> go.Figure:
    """A line per tau over the betas as categories; cloning as dashed levels with a band of ± one s.e."""
    figure = go.Figure()
    last = len(data.betas) - 1
    ends = [-0.35, last + 0.35]
    for index, (method, name, score) in enumerate(data.levels):
        error, colour = score.standard_error or 0.0, colour_of(method)
        dash = DASHES[index % len(DASHES)]
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
        colour = blue(of_ilql.index(curve.tau), len(of_ilql)) if own else colour_of(curve.method)
        offset = (index - (len(data.curves) - 1) / 2) * spread
        figure.add_trace(
            go.Scatter(
                x=[at + offset for at in curve.positions],
                y=[score.value for score in curve.scores],
                error_y=error_bars([score.standard_error for score in curve.scores], colour),
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={
                    "size": 9,
                    "symbol": [SYMBOLS[index % len(SYMBOLS)] + ("" if each else "-open") for each in curve.believed],
                    "color": colour,
                },
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
    return finish(figure)


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
            colour = "#ffffff" if dark else GREY if math.isnan(value) else INK
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
    return finish(figure, axis_lines=False)


def _slot_label(slot: MethodSlot, *, narrow: bool) -> str:
    """The method's name over the number of its cells; a line for each word where there is little room."""
    name = method_label(slot.method)
    return f"<b>{name.replace(' ', '<br>') if narrow else name}</b><br>{count(slot.cells, 'cell')}"


def _cell_trace(points: Sequence[CellPoint], name: str, symbol: str, *, size: int) -> go.Scatter:
    scores = [point.score for point in points if point.score is not None]
    return go.Scatter(
        x=[point.position for point in points],
        y=[score.value for score in scores],
        error_y=error_bars([score.standard_error for score in scores], GREY),
        mode="markers",
        marker={
            "symbol": [symbol if point.believed else f"{symbol}-open" for point in points],
            "size": size,
            "color": [colour_of(point.method) for point in points],
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
                marker={"size": 5, "opacity": 0.45, "color": [colour_of(point.method) for point, _ in dots]},
                legendgroup="one training seed",
                showlegend=False,
                hoverinfo="skip",
            )
        )


def _add_keys(figure: go.Figure, drawn: set[str]) -> None:
    """Legend entries in grey, since a mark's colour is its method's."""
    marks = (
        ("design cell", {"symbol": "circle", "size": 9, "color": GREY}),
        ("refinement cell", {"symbol": "diamond", "size": 9, "color": GREY}),
        ("one training seed", {"symbol": "circle", "size": 5, "color": GREY, "opacity": 0.6}),
        ("not believed", {"symbol": "circle-open", "size": 9, "color": GREY}),
        ("best cell", {"symbol": "circle-open", "size": 15, "color": INK, "line": {"width": 1.6}}),
        ("no finished run", {"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": GREY}}),
    )
    for name, marker in marks:
        if name in drawn:
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, legendgroup=name))


def _hover(point: CellPoint) -> str:
    lines = [f"<b>{method_label(point.method)}</b> {point.setting}", f"{point.origin} cell"]
    if point.score is not None:
        lines += [
            with_error(point.score.value, point.score.standard_error, believed=point.believed),
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
