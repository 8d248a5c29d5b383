"""Figures: the drawing half, and the only folder that knows plotly.

Each figure is drawn from values that `analysis.figure_data` has made: a file per family, on one theme.
"""

from __future__ import annotations

from analysis.figures.cells import draw_beta_curves, draw_heat_map, draw_score_by_cell
from analysis.figures.export import STATIC_FORMATS, figure_html, plotly_script, write_static
from analysis.figures.lines import draw_lines, draw_q_rank
from analysis.figures.theme import METHOD_COLOURS, Figure
from analysis.figures.tokens import draw_advantages

__all__ = [
    "METHOD_COLOURS",
    "STATIC_FORMATS",
    "Figure",
    "draw_advantages",
    "draw_beta_curves",
    "draw_heat_map",
    "draw_lines",
    "draw_q_rank",
    "draw_score_by_cell",
    "figure_html",
    "plotly_script",
    "write_static",
]
