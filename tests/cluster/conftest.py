"""A cluster of two logical CPUs for each test file that asks for one."""

from __future__ import annotations

import os

# Before ray is imported, which reads it once: the tests' clusters live on the loopback and need no token.
os.environ["RAY_AUTH_MODE"] = "disabled"

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.connect import ClusterInfo, ConnectOptions, connect

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[ClusterInfo]:
    """Ray on this machine, told where our packages lie, ended after the file's last test."""
    packages = tuple(ROOT / name for name in ("ilql", "cluster", "analysis", "sweeps"))
    with connect(ConnectOptions(cpus=2, gpus=0, packages=packages)) as info:
        yield info
