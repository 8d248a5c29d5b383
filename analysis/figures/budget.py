"""Figures of what things cost: tuning curves, learning curves, seconds."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.budget import TuningCurve
from analysis.estimators import Estimate
from analysis.figures.theme import DASHES, INK, band, colour_of, finish
from analysis.labels import method_label
from analysis.overview_data import Cost, LearningCurve
from analysis.text import count, number


def draw_tuning(
    curves: Sequence[TuningCurve], bar: tuple[str, Estimate] | None, *, y_title: str, by_seconds: bool
) -> go.Figure:
    """Expected online performance by evaluations, or by the seconds they take, with simultaneous bands and a bar.

    Args:
        curves: One per method.
        bar: What is to be beaten, by name; None for nothing.
        y_title: What a score is.
        by_seconds: Whether the axis is seconds.
    """
    figure = go.Figure()
    ends = []
    for index, curve in enumerate(curves):
        xs = list(curve.seconds) if by_seconds else [float(k) for k in range(1, curve.cells + 1)]
        ends += [xs[0], xs[-1]]
        colour = colour_of(curve.method)
        if curve.low is not None and curve.high is not None:
            figure.add_trace(band(xs, curve.low, curve.high, colour))
        figure.add_trace(
            go.Scatter(
                x=xs,
                y=list(curve.scores),
                mode="lines+markers" if curve.cells < 9 else "lines",
                line={"color": colour, "width": 2.2, "dash": ("solid", *DASHES)[index % (len(DASHES) + 1)]},
                marker={"size": 6},
                name=f"{method_label(curve.method)} ({count(curve.cells, 'cell')})",
                hovertemplate=f"{method_label(curve.method)}<br>%{{x:.4~g}}: %{{y:.2f}}<extra></extra>",
            )
        )
    if bar is not None and ends:
        name, score = bar
        error = score.standard_error or 0.0
        figure.add_trace(band([min(ends), max(ends)], [score.value - error] * 2, [score.value + error] * 2, INK))
        figure.add_trace(
            go.Scatter(
                x=[min(ends), max(ends)],
                y=[score.value] * 2,
                mode="lines",
                line={"color": INK, "width": 1.6, "dash": "dash"},
                name=f"{name} {number(score.value)}",
                hoverinfo="skip",
            )
        )
    title = (
        "expected seconds of training and playing" if by_seconds else "evaluations: distinct cells, trained and played"
    )
    figure.update_xaxes(title_text=title)
    figure.update_yaxes(title_text=y_title)
    return finish(figure)


def draw_learning(curves: Sequence[LearningCurve]) -> go.Figure:
    """The loss of every method's best training against steps: mean over seeds, a band from lowest to highest.

    Open circles are the same loss on dialogues that it does not learn from.
    """
    figure = go.Figure()
    for index, curve in enumerate(curves):
        colour = colour_of(curve.method)
        if curve.seeds > 1:
            figure.add_trace(band(list(curve.steps), curve.low, curve.high, colour))
        figure.add_trace(
            go.Scatter(
                x=list(curve.steps),
                y=list(curve.mean),
                mode="lines",
                line={"color": colour, "width": 2, "dash": ("solid", *DASHES)[index % (len(DASHES) + 1)]},
                name=f"{curve.label} ({count(curve.seeds, 'seed')})",
            )
        )
        if curve.held_out:
            figure.add_trace(
                go.Scatter(
                    x=[step for step, _ in curve.held_out],
                    y=[value for _, value in curve.held_out],
                    mode="lines+markers",
                    line={"color": colour, "width": 1, "dash": "dot"},
                    marker={"symbol": "circle-open", "size": 7},
                    name=f"{curve.label}, held out",
                    showlegend=False,
                )
            )
    shown = [value for curve in curves for value in (*curve.low, *(value for _, value in curve.held_out))]
    positive = all(value > 0 for value in shown)
    figure.update_xaxes(title_text="optimiser steps")
    title = "loss, each method's own" + (" (circles: held out)" if any(curve.held_out for curve in curves) else "")
    figure.update_yaxes(title_text=title, type="log" if positive else "linear")
    return finish(figure)


def draw_costs(costs: Sequence[Cost]) -> go.Figure:
    """A bar per method in seconds: training, playing, what failed; and, hollow, what sharing weights saved."""
    names = [method_label(cost.method) for cost in costs]
    figure = go.Figure()
    parts = (
        ("training", [cost.train for cost in costs], "#0072b2", ""),
        ("playing", [cost.evaluate for cost in costs], "#56b4e9", "/"),
        ("failed or stopped", [cost.failed for cost in costs], "#d55e00", "x"),
        ("saved by shared weights", [cost.saved for cost in costs], "#e5e7eb", "."),
    )
    for name, values, colour, pattern in parts:
        figure.add_trace(
            go.Bar(
                y=names,
                x=values,
                orientation="h",
                name=name,
                marker={
                    "color": colour,
                    "pattern": {"shape": pattern, "size": 5},
                    "line": {"color": INK, "width": 0.6},
                },
                hovertemplate=f"%{{y}}, {name}: %{{x:,.0f}} s<extra></extra>",
            )
        )
    figure.update_layout(barmode="stack", bargap=0.35, legend={"traceorder": "normal"})
    figure.update_xaxes(title_text="seconds")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticksuffix=" ")
    return finish(figure)
