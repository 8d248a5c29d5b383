"""Log a trained policy as a model of MLflow's, which `mlflow models serve` serves.

The model is an export of the policy and the file `served_policy.py`: to load it takes neither the store nor a pickle.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

from sweeps.policy import export_policy, find_trial
from sweeps.spec import TrialSpec
from sweeps.stages import load_task
from sweeps.store import Store
from sweeps.tracking import open_experiment

CODE = Path(__file__).with_name("served_policy.py")
EXPORT = "export"
"""The name of the artefact, as in that file."""

TURN = Object([Property("text", DataType.string), Property("by_agent", DataType.boolean)])
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(Array(TURN), "turns")]), outputs=Schema([ColSpec(DataType.string, "reply")])
)
"""In: of each dialogue what was said so far, by whom. Out: what the agent says next."""


def log_policy(trial_id: str, store: Store, uri: str | None = None, *, model: str | None = None) -> str:
    """Log the policy of a row, and return the model's address, `models:/...`.

    Args:
        trial_id: As in the table's rows, or the beginning of it.
        store: Where its weights are.
        uri: The tracking address, as for `sweeps.mirror.Mirror`.
        model: As for `export_policy`.

    Raises:
        ValueError: As for `export_policy`.
    """
    spec = find_trial(trial_id, store)
    example = pd.DataFrame({"turns": [_beginning(store, spec)]})
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / EXPORT
        export_policy(spec.trial_id, export, store, model=model)
        at, experiment = open_experiment(store, uri)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        mlflow.set_tracking_uri(at)
        mlflow.set_experiment(experiment_id=experiment)
        logged = mlflow.pyfunc.log_model(
            name=f"policy-{spec.trial_id[:12]}",
            python_model=str(CODE),
            artifacts={EXPORT: str(export)},
            signature=SIGNATURE,
            input_example=example,  # which MLflow asks the model at once, so what is logged has spoken
            pip_requirements=["ilql-ablations"],
            metadata={"trial_id": spec.trial_id, "weights_id": spec.weights_id},
        )
    return str(logged.model_uri)


def _beginning(store: Store, spec: TrialSpec) -> list[dict[str, str | bool]]:
    """A recorded dialogue, up to where the world has spoken first."""
    dialogue = load_task(store, spec.data.task, spec.data.world).dialogues("report", spec.data.reward)[0]
    heard = next((place for place, turn in enumerate(dialogue.turns) if not turn.by_agent), -1)
    return [{"text": turn.text, "by_agent": turn.by_agent} for turn in dialogue.turns[: heard + 1]]
