"""Importance of what a search proposed, by Optuna's PED-ANOVA: computed here and handed to the report as values."""

from __future__ import annotations

import warnings

import optuna
from optuna.trial import create_trial

from analysis.importance import AdaptiveImportance
from sweeps.store import Store
from sweeps.study import parts_of, scored_trials

FEWEST_TRAININGS = 20
BEST = 5
"""Trainings that count as the best, at least: below five the densities that are compared rest on nothing."""


def adaptive_importances(store: Store, sweep: str) -> tuple[AdaptiveImportance, ...]:
    """For every arm that a sweep searched with at least `FEWEST_TRAININGS` scored trainings, what of it mattered.

    The sweep's study is read from its journal: its trials are trainings of the first seed, design and proposals, their
    value the best decoding's score on the tune scenes. The best tenth of them, and at least `BEST`, is set against all
    (`evaluate_on_local`): PED-ANOVA needs no complete grid and no uniform design, and says how much each hyperparameter
    tells the best from the rest where the search has been, by itself, without interactions.
    """
    done = scored_trials(store, sweep)
    arms = sorted({parts_of(name)[0] for trial in done for name in trial.params})
    found = []
    for arm in arms:
        columns = sorted({name for trial in done for name in trial.params if parts_of(name)[0] == arm})
        own = [trial for trial in done if set(columns) <= set(trial.params)]
        if len(own) < FEWEST_TRAININGS or len(columns) < 2:
            continue
        from optuna.importance import (  # noqa: PLC0415  loading it takes seconds, which only a search should pay
            PedAnovaImportanceEvaluator,
            get_param_importances,
        )

        alone = optuna.create_study(direction="maximize")
        alone.add_trials(
            [
                create_trial(
                    value=trial.value,
                    params={name: trial.params[name] for name in columns},
                    distributions={name: trial.distributions[name] for name in columns},
                )
                for trial in own
            ]
        )
        quantile = max(0.1, BEST / len(own))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            raw = get_param_importances(
                alone, evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile), params=columns, normalize=True
            )
        shares = {parts_of(name)[1]: float(share) for name, share in raw.items()}
        found.append(AdaptiveImportance(arm=arm, shares=shares, trainings=len(own), quantile=quantile))
    return tuple(found)
