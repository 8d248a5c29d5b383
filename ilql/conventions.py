"""Whose ILQL: the settings by which four public implementations differ, each as one named field.

The default is the paper's own code without its dropout in the target network, and with a value trunk that starts from
the behaviour policy. `docs/conventions.md` has the table.
Sources: Sea-Snell/Implicit-Language-Q-Learning (`reference`), CarperAI/trlx (`trlx`), abdulhaim/LMRL-Gym (`lmrl`).
"""

from __future__ import annotations

from collections.abc import Mapping

from ilql.hyperparameters import Value, unknown

CONVENTIONS: Mapping[str, Mapping[str, Value]] = {
    "reference": {
        "train.target_dropout": True,
        "train.start": "pretrained",
        "train.polyak": 0.005,
        "train.weighting": "dialogue",
    },
    "trlx": {
        "train.start": "pretrained",
        "train.target_trunk": False,
        "train.separate_policy": False,
        "train.rewards": "standardised",
        "train.truncation": "end",
        "train.polyak": 0.001,
        "train.target_every": 5,
        "train.cql_weight": 0.1,
        "train.weighting": "token",
        "decode.filter_after": True,
    },
    "lmrl": {
        "train.td_scale": 0.5,
        "train.head_multiple": 1,
        "train.head_constant": -4.1,
        "train.target_dropout": True,
        "train.polyak": 0.005,
        "train.weighting": "token",
    },
}
"""Columns by convention. What a convention does not name is as everywhere."""

METHODS = ("ilql", "sarsa", "mc_returns", "cql")
"""The methods a convention is about: those that differ from ILQL in a target alone."""


def convention(name: str) -> Mapping[str, Value]:
    """The columns of a convention.

    Raises:
        KeyError: There is none of that name.
    """
    if name not in CONVENTIONS:
        raise KeyError(unknown(name, "convention", CONVENTIONS))
    return CONVENTIONS[name]
