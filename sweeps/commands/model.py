"""`sweeps model TRIAL`: log a trained policy as a model that MLflow serves."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from cluster.redaction import without_secrets
from sweeps.command import Command, add_trial, opened


def _add(parser: argparse.ArgumentParser) -> None:
    add_trial(parser)
    parser.add_argument("--model", metavar="DIR", help="what it began as; must be named where its vocabulary is cut")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow's (default: as for a sweep's own mirror)")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.serving import log_policy  # noqa: PLC0415
    from sweeps.tracking import address  # noqa: PLC0415

    store = opened(given)
    uri = log_policy(given.trial, store, given.tracking_uri, model=given.model)
    at = shlex.quote(without_secrets(address(store, given.tracking_uri)))
    print(f"logged {uri}")
    print(f"serve it: MLFLOW_TRACKING_URI={at} mlflow models serve -m {uri} --env-manager local")
    return 0


COMMAND = Command(name="model", help="log a trained policy as a model that MLflow serves", run=_run, add=_add)
