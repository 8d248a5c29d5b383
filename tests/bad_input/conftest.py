"""A store with a finished sweep, for commands that must not change it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tables of faults are modules beside this file

from faults import Place
from sound import make_store


@pytest.fixture(scope="session")
def sound_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with a small finished sweep of the bandit. Nobody changes it."""
    folder = tmp_path_factory.mktemp("sound") / "store"
    make_store(folder)
    return folder


@pytest.fixture
def place(sound_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty folder, and the sound store as the one that commands use unless they are told another."""
    (tmp_path / "input").mkdir()
    monkeypatch.setenv("SWEEPS_STORE", str(sound_store))
    return Place(tmp_path / "input", sound_store)


@pytest.fixture
def own_place(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same with a copy of the store, to spoil."""
    shutil.copytree(place.store, tmp_path / "store")
    monkeypatch.setenv("SWEEPS_STORE", str(tmp_path / "store"))
    return Place(place.folder, tmp_path / "store")
