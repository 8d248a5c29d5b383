"""What rows, MLflow and the terminal are told without: it is found in `cluster`, where reasons are cut."""

from cluster.redaction import HIDDEN, without_secrets

__all__ = ["HIDDEN", "without_secrets"]
