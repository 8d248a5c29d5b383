"""What made a number: the code, the libraries, the machine, and when."""

from __future__ import annotations

import contextlib
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
from ilql.methods import sources_of
from sweeps.exact_json import Record
from sweeps.journal import utc

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "ray", "optuna", "numpy", "numba", "scikit-learn")
OPTIONAL = ("peft", "gguf", "accelerate")
"""Libraries of extras, which need not be there: adapters, and models in GGUF files."""


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
    """Python's and the libraries' versions, by name; optional ones are in it where they are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        found[name] = importlib.metadata.version(name)
    for name in OPTIONAL:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@cache
def method_digests(name: str) -> dict[str, str]:
    """Twelve hexadecimal digits of SHA-256 of each file that says what a method learns, by its path in the package."""
    return {path: hashlib.sha256(file.read_bytes()).hexdigest()[:12] for path, file in sources_of(name).items()}


def host() -> str:
    """This machine's name."""
    return socket.gethostname()


def provenance(started: str) -> Record:
    """What a row says of where and with what it was made, and when: from `started` to now."""
    return {
        "started_at": started,
        "finished_at": utc(),
        "code_digest": code_digest(),
        "versions": library_versions(),
        "host": host(),
    }
