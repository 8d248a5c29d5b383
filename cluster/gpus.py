"""How many GPUs this machine offers, found without torch or a driver library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

NVIDIA_FOLDER = Path("/proc/driver/nvidia/gpus")
"""The Linux driver keeps one folder here for every GPU that it serves."""


def local_gpus(folder: Path = NVIDIA_FOLDER, environment: Mapping[str, str] = os.environ) -> int:
    """Give the number of NVIDIA GPUs this process may use: those present, as far as `CUDA_VISIBLE_DEVICES` shows them.

    As in CUDA, an empty list or one that starts with -1 shows none, and entries behind the first -1 are not seen.
    """
    present = sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    shown = [entry.strip() for entry in visible.split(",") if entry.strip()]
    if "-1" in shown:
        shown = shown[: shown.index("-1")]
    return min(present, len(set(shown)))
