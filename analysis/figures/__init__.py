"""Figures: the drawing half, and the only folder that knows plotly.

Each figure is drawn from values that `analysis.figure_data` has made: a file per family, on one theme.
"""

from __future__ import annotations

from analysis.figures.across import draw_estimates, draw_profiles
from analysis.figures.budget import draw_costs, draw_learning, draw_tuning
from analysis.figures.cells import draw_beta_curves, draw_heat_map, draw_score_by_cell
from analysis.figures.effects import draw_dose, draw_importance, draw_parallel
from analysis.figures.export import STATIC_FORMATS, Picture, figure_html, picture, plotly_script, write_static
from analysis.figures.lines import draw_lines, draw_q_rank
from analysis.figures.table import draw_table
from analysis.figures.theme import METHOD_COLOURS, Figure
from analysis.figures.tokens import PER_ROW, draw_advantages

__all__ = [
    "METHOD_COLOURS",
    "PER_ROW",
    "STATIC_FORMATS",
    "Figure",
    "Picture",
    "draw_advantages",
    "draw_beta_curves",
    "draw_costs",
    "draw_dose",
    "draw_estimates",
    "draw_heat_map",
    "draw_importance",
    "draw_learning",
    "draw_lines",
    "draw_parallel",
    "draw_profiles",
    "draw_q_rank",
    "draw_score_by_cell",
    "draw_table",
    "draw_tuning",
    "figure_html",
    "picture",
    "plotly_script",
    "write_static",
]
