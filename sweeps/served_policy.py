"""The code of a policy that MLflow serves: it is read when such a model is loaded, beside the export it acts by.

MLflow keeps this file itself, and no pickle of what it makes ("models from code").
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from ilql.exported import Exported

EXPORT = "export"
"""The name of the artefact: a folder as `sweeps export` writes it."""


class ServedPolicy(PythonModel):
    """Replies to dialogues: a data frame with a list of turns in each row in, a list of replies out."""

    _policy: Exported

    def load_context(self, context: PythonModelContext) -> None:
        """Load the policy, once."""
        from ilql.exported import Exported  # noqa: PLC0415  loading torch takes seconds, which logging need not pay

        self._policy = Exported.load(Path(context.artifacts[EXPORT]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[str]:
        """The replies.

        Args:
            context: MLflow's; not used.
            model_input: A data frame with the column `turns`: of each dialogue, mappings of `text` and `by_agent`.
            params: There are none.

        Raises:
            ValueError: A dialogue ends with the agent, or is more than the policy can read.
        """
        from ilql.dialogue import Turn  # noqa: PLC0415

        dialogues = [
            [Turn(str(turn["text"]), bool(turn["by_agent"])) for turn in turns] for turns in model_input["turns"]
        ]
        return [self._policy.reply(turns) for turns in dialogues]


set_model(ServedPolicy())
