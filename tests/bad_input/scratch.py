"""Folders for what is made once for all faults of a run; they go with the process that made them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path


def scratch(what: str) -> Path:
    """A new folder, removed when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"bad_input_{what}"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
