"""How methods, hyperparameters and diagnostics are called and ordered wherever a reader sees them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool
"""A hyperparameter's value in a row."""

METHOD_LABELS: Mapping[str, str] = {
    "ilql": "ILQL",
    "cql": "CQL",
    "psi": "ψ",
    "sarsa": "SARSA",
    "decision_transformer": "DT",
    "awr": "ILQL (AWR)",
    "filtered_bc": "%BC",
    "bc": "BC",
    "utterance_ilql": "Utterance ILQL",
    "ilql_without_lm": "ILQL without LM",
    "chai": "CHAI",
    "mc_returns": "MC returns",
    "qsft": "Q-SFT",
}
"""Methods and variants in the order of every table and figure, with their names in print.

The paper's table comes first, in its own order; then what only its sweep has, then what is in neither.
"""

_COMPONENT_LABELS: Mapping[str, str] = {
    "ilql_without_cql": "ILQL without CQL",
    "ilql_without_double_q": "ILQL without double Q",
    "ilql_without_target": "ILQL without target",
    "ilql_hard_target": "ILQL, hard target",
    "ilql_without_target_trunk": "ILQL without target trunk",
    "ilql_shared_policy": "ILQL, shared policy",
    "ilql_without_q_gradient": "ILQL without Q gradient",
    "ilql_without_v_gradient": "ILQL without V gradient",
    "ilql_value_clip": "ILQL, value clip",
}
_REFERENCE_LABELS: Mapping[str, str] = {
    "optimal": "Optimal (scripted)",
    "empty_questions": "Ten empty questions (scripted)",
    "recorded": "Recorded",
    "exact": "Exact",
}
"""Those that a table or a figure shows for comparison, and that are no method."""

_LABELS: Mapping[str, str] = {**METHOD_LABELS, **_COMPONENT_LABELS, **_REFERENCE_LABELS}

_HYPERPARAMETER_LABELS: Mapping[str, str] = {
    "train.tau": "τ",
    "train.gamma": "γ",
    "train.cql_weight": "CQL weight",
    "train.reward_scale": "reward scale",
    "train.awr_beta": "AWR β",
    "train.awr_clip": "AWR clip",
    "train.keep": "kept",
    "train.return_range": "return range",
    "train.returns": "returns told",
    "train.proposals": "proposals",
    "train.double_q": "double Q",
    "train.polyak": "Polyak rate",
    "train.learning_rate": "learning rate",
    "decode.beta": "β",
    "decode.target_return": "target return",
    "decode.candidates": "N",
    "decode.log_prob_weight": "log-probability weight",
    "decode.top_k": "top-k",
    "decode.top_p": "top-p",
}

_MEASURE_LABELS: Mapping[str, str] = {
    "measure.turns": "turns per episode",
    "measure.empty_share": "empty utterances",
    "measure.repeated_share": "repeated utterances",
    "measure.broken_share": "broken utterances",
    "measure.penalised_share": "penalised answers",
    "measure.final_rank": "final rank of the true scene",
    "measure.final_percentile": "final percentile of the true scene",
    "measure.log_ratio": "log-ratio to its own language model",
}


def method_label(method: str) -> str:
    """The method's name in print; its own name where none is known."""
    return _LABELS.get(method, method)


def label_with(method: str, setting: str) -> str:
    """The method's name in print with a setting in words behind it: `CQL, CQL weight 0.1`."""
    return f"{method_label(method)}, {setting}" if setting else method_label(method)


def in_order(methods: Iterable[str]) -> tuple[str, ...]:
    """Each method once, in the fixed order; methods it does not know follow alphabetically."""
    known = list(_LABELS)
    return tuple(sorted(set(methods), key=lambda name: (known.index(name) if name in known else len(known), name)))


def hyperparameter_label(column: str) -> str:
    """The symbol or name of a `train.*` or `decode.*` column: `τ`, or `top width` for `decode.top_width`."""
    return _HYPERPARAMETER_LABELS.get(column, column.partition(".")[2].replace("_", " "))


def hyperparameter_rank(column: str) -> tuple[int, int, str]:
    """Sorts hyperparameters for print: training before decoding before the rest, known symbols first."""
    bags, known = ("train", "decode"), list(_HYPERPARAMETER_LABELS)
    bag = column.partition(".")[0]
    return (
        bags.index(bag) if bag in bags else len(bags),
        known.index(column) if column in known else len(known),
        column,
    )


def measure_label(column: str) -> str:
    """The name in print of a `measure.*` column."""
    return _MEASURE_LABELS.get(column, column.partition(".")[2].replace("_", " "))


def is_share(column: str) -> bool:
    """True if the `measure.*` column is a share in [0, 1], best read in per cent."""
    return column.endswith("_share")


def value_label(value: Value) -> str:
    """A hyperparameter's value as one reads it: `8` for 8.0, `∞` for infinity, four significant digits."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.4g}".replace("-", "−")


def setting_label(hyperparameters: Mapping[str, Value]) -> str:
    """Hyperparameters in one line, `τ 0.8, β 8`; empty for none. A share kept is read in per cent: `kept 20 %`."""
    parts = []
    for column, value in hyperparameters.items():
        share = column == "train.keep" and isinstance(value, float)
        shown = f"{value_label(100.0 * float(value))} %" if share else value_label(value)
        parts.append(f"{hyperparameter_label(column)} {shown}")
    return ", ".join(parts)
