"""Figures of effects: shares of variance, answers to β, cells as lines over their hyperparameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from analysis.bounded import Bounded
from analysis.dose import DoseResponse
from analysis.figures.theme import GREY, SYMBOLS, blue, colour_of, error_bars, finish
from analysis.importance import Importance
from analysis.labels import label_with, method_label, value_label
from analysis.overview_data import Parallel
from analysis.text import count, number, with_error


def draw_importance(found: Sequence[Importance]) -> go.Figure:
    """A bar for each term of each method's analysis of variance, with its interval; the first terms on top."""
    figure = go.Figure()
    labels = list(dict.fromkeys(term.label for each in found for term in each.terms))
    for each in found:
        terms = {term.label: term for term in each.terms}
        own = [label for label in labels if label in terms]
        shares = [terms[label].share for label in own]
        figure.add_trace(
            go.Bar(
                y=own,
                x=[share.value for share in shares],
                error_x=interval_bars(shares, GREY),
                orientation="h",
                marker={"color": colour_of(each.method)},
                name=f"{method_label(each.method)}, {count(each.cells, 'cell')}, {count(each.seeds, 'seed')}",
                text=[f"{label}: {share.text()}" for label, share in zip(own, shares, strict=True)],
                textposition="none",
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.update_xaxes(title_text="share of the variance", range=[0, 1.02])
    figure.update_yaxes(autorange="reversed", showgrid=False, ticksuffix=" ")
    figure.update_layout(barmode="group", bargap=0.35, showlegend=True)
    return finish(figure)


def draw_dose(curves: Sequence[DoseResponse], *, y_title: str) -> go.Figure:
    """A line per training over the β that were played, one apart; its near-best range as a thick line on top."""
    figure = go.Figure()
    betas = sorted({beta for curve in curves for beta in curve.betas})
    apart = min(0.05, 0.6 / max(1, len(curves)))  # so that no line comes near the next β
    for index, curve in enumerate(curves):
        colour = blue(index, len(curves)) if curve.method == "ilql" else colour_of(curve.method)
        at = [float(betas.index(beta)) for beta in curve.betas]
        name = label_with(curve.method, curve.setting)
        offset = (index - (len(curves) - 1) / 2) * apart
        figure.add_trace(
            go.Scatter(
                x=[place + offset for place in at],
                y=list(curve.scores),
                error_y=error_bars(curve.errors, colour),
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)], "color": colour},
                name=name,
                text=[
                    f"{name}, β = {value_label(beta)}<br>{with_error(score, error)}"
                    for beta, score, error in zip(curve.betas, curve.scores, curve.errors, strict=True)
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
        low, high = (_place(end, betas) for end in curve.range)
        inside = [
            place for place, beta in zip(at, curve.betas, strict=True) if curve.range[0] <= beta <= curve.range[1]
        ]
        xs = sorted({low, *inside, high})
        figure.add_trace(
            go.Scatter(
                x=[x + offset for x in xs],
                y=[_between(x, at, curve.scores) for x in xs],
                mode="lines",
                line={"color": colour, "width": 9},
                opacity=0.3,
                showlegend=False,
                hoverinfo="skip",
            )
        )
    figure.update_xaxes(
        title_text="β, weight of the advantage at decoding",
        tickvals=list(range(len(betas))),
        ticktext=[value_label(beta) for beta in betas],
        showgrid=False,
    )
    figure.update_yaxes(title_text=y_title)
    return finish(figure)


def draw_parallel(data: Parallel) -> go.Figure:
    """A line per cell through its hyperparameters to its score, coloured by it; the best is drawn last and thick.

    Lines of one shade are one trace, with gaps between them: a trace of its own for each of a thousand cells takes a
    browser longer to show than a reader waits.
    """
    figure = go.Figure()
    low, high = min(data.scores), max(data.scores)
    span = (high - low) or 1.0
    last = len(data.axes)
    order = sorted(range(len(data.scores)), key=lambda cell: data.scores[cell])
    places = {cell: last + 0.04 + 0.3 * rank / len(order) for rank, cell in enumerate(order)}
    share = {cell: (data.scores[cell] - low) / span for cell in order}
    for shade, of_it in itertools.groupby(order[:-1], key=lambda cell: round(share[cell] * SHADES)):
        _add_lines(figure, data, list(of_it), share, colour=_cividis(shade / SHADES), width=1.6)
    _add_lines(figure, data, order[-1:], share, colour=_cividis(1.0), width=4)
    for shade, of_it in itertools.groupby(order, key=lambda cell: round(share[cell] * SHADES)):
        own = list(of_it)
        colour = _cividis(shade / SHADES)
        figure.add_trace(
            go.Scatter(
                x=[places[cell] for cell in own],
                y=[share[cell] for cell in own],
                error_y=error_bars([(data.errors[cell] or 0.0) / span for cell in own], colour),
                mode="markers",
                marker={"size": 5, "color": colour},
                showlegend=False,
                hoverinfo="skip",
            )
        )
    notes: list[dict[str, object]] = []
    for place, axis in enumerate(data.axes):
        figure.add_vline(x=place, line={"color": GREY, "width": 1}, layer="below")
        notes += [
            {"x": place, "y": _height(at, len(axis.values)), "text": text, "xanchor": "right", "xshift": -5}
            for at, text in enumerate(axis.values)
        ]
    figure.add_vline(x=last, line={"color": GREY, "width": 1}, layer="below")
    ends = ((0.0, low), (0.5, low + span / 2), (1.0, low + span))
    notes += [{"x": last + 0.4, "y": y, "text": number(v), "xanchor": "left", "xshift": 4} for y, v in ends]
    plain = {"showarrow": False, "font": {"size": 12}, "bgcolor": "rgba(255,255,255,.8)"}
    figure.update_layout(annotations=[{**note, **plain} for note in notes])
    figure.update_xaxes(
        tickvals=list(range(last + 1)),
        ticktext=[*(axis.label for axis in data.axes), "score"],
        range=[-0.4, last + 1],
        showgrid=False,
    )
    figure.update_yaxes(visible=False)
    return finish(figure, axis_lines=False)


def _add_lines(
    figure: go.Figure, data: Parallel, cells: Sequence[int], share: Mapping[int, float], *, colour: str, width: float
) -> None:
    """Add the lines of cells of one colour, with a gap behind each."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for cell in cells:
        heights = [_height(axis.positions[cell], len(axis.values)) for axis in data.axes]
        shift = (share[cell] - 0.5) * 0.05  # cells of one value lie beside each other, by score
        setting = ", ".join(f"{axis.label} {axis.values[axis.positions[cell]]}" for axis in data.axes)
        x += [*range(len(heights) + 1), None]
        y += [*(height + shift for height in heights), share[cell], None]
        text += [f"{setting}<br>{with_error(data.scores[cell], data.errors[cell])}"] * (len(heights) + 2)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": colour, "width": width},
            connectgaps=False,
            showlegend=False,
            text=text,
            hovertemplate="%{text}<extra></extra>",
        )
    )


def interval_bars(values: Sequence[Bounded], colour: str) -> dict[str, object]:
    """Error bars from each value to the ends of its interval; none where it has none."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if each.high is None else max(0.0, each.high - each.value) for each in values],
        "arrayminus": [0.0 if each.low is None else max(0.0, each.value - each.low) for each in values],
        "color": colour,
        "thickness": 1.6,
        "width": 3,
    }


def _place(beta: float, betas: Sequence[float]) -> float:
    """Where a β stands among those that are drawn one apart, between two of them by its logarithm."""
    below = max((at for at, each in enumerate(betas) if each <= beta * (1 + 1e-9)), default=0)
    if below + 1 >= len(betas) or betas[below] <= 0 or math.isinf(betas[below + 1]):
        return float(below)
    return below + math.log(max(beta, betas[below]) / betas[below]) / math.log(betas[below + 1] / betas[below])


def _between(x: float, at: Sequence[float], scores: Sequence[float]) -> float:
    for left, right, one, other in zip(at, at[1:], scores, scores[1:], strict=False):
        if left <= x <= right:
            return one + (other - one) * (x - left) / (right - left)
    return scores[-1] if x > at[-1] else scores[0]


def _height(at: int, of: int) -> float:
    return 0.5 if of < 2 else 0.03 + 0.94 * at / (of - 1)


SHADES = 63
"""Steps between the colours of the lowest and of the highest score."""

_CIVIDIS = ((0x00, 0x22, 0x4E), (0x57, 0x5D, 0x6D), (0xA5, 0x9C, 0x74), (0xE0, 0xC0, 0x30))


def _cividis(share: float) -> str:
    at = min(max(share, 0.0), 1.0) * (len(_CIVIDIS) - 1)
    low = min(int(at), len(_CIVIDIS) - 2)
    mixed = (round(a + (at - low) * (b - a)) for a, b in zip(_CIVIDIS[low], _CIVIDIS[low + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
