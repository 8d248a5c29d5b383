"""What made a number: the code, the libraries, the machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import socket
from functools import cache
from pathlib import Path

import analysis
import cluster
import ilql
import sweeps

LIBRARIES = ("torch", "transformers", "tokenizers", "ray", "optuna", "numpy", "scikit-learn")


def package_folders() -> tuple[Path, ...]:
    """Where our four packages are, wherever they were imported from."""
    return tuple(Path(str(package.__file__)).resolve().parent for package in (analysis, cluster, ilql, sweeps))


@cache
def code_digest() -> str:
    """Twelve hexadecimal digits over every source file of the four packages."""
    digest = hashlib.sha256()
    for folder in package_folders():
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{folder.name}/{file.relative_to(folder)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@cache
def library_versions() -> dict[str, str]:
    """Python's and the libraries' versions, by name."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        found[name] = importlib.metadata.version(name)
    return found


def host() -> str:
    """This machine's name."""
    return socket.gethostname()
