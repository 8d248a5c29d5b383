"""Passwords and tokens of the user's reach neither rows nor MLflow nor what is printed nor Ray's files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sweeps import evaluate_cells
from sweeps.mirror import Mirror
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import Bench, Commands

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
PASSWORD, TOKEN, KEY = "pass-7f1c9", "token-2b8e4", "key-93d0a"


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short: unix sockets lie in it
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def holders(folder: Path) -> list[str]:
    """Files below the folder with a secret in them."""
    secrets = [secret.encode() for secret in (PASSWORD, TOKEN, KEY)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [f"{path}: {s.decode()}" for path in files for s in secrets if s in path.read_bytes()]


def test_a_sweep_writes_and_prints_none_of_its_users_secrets(
    commands: Commands, tmp_path: Path, ray_folder: Path
) -> None:
    done_by = commands.start(
        ROOT / "sweeps" / "bandit_ablation.py", "--preset", "smoke", "--store", str(tmp_path / "store"),
        "--methods", "bc", "--trials", "0", "--episodes", "64",
        "--tracking-uri", f"http://ann:{PASSWORD}@127.0.0.1:9",  # where nobody answers, which is complained of
        RAY_TMPDIR=str(ray_folder), HF_TOKEN=TOKEN, OPENAI_API_KEY=KEY, MLFLOW_TRACKING_PASSWORD=PASSWORD,
    )  # fmt: skip
    out, err = done_by.communicate(timeout=500)
    assert done_by.returncode == 0, out + err
    assert "MLflow at http://***@127.0.0.1:9 is behind" in out + err
    assert [secret for secret in (PASSWORD, TOKEN, KEY) if secret in out + err] == []
    assert holders(tmp_path / "store") == []
    assert holders(ray_folder) == []

    store = Store(tmp_path / "store")
    (sweep,) = store.sweeps()
    record = store.get("sweep", sweep.name)
    assert record is not None
    assert "--tracking-uri http://***@127.0.0.1:9" in record["command"].replace("'", "")
    assert Mirror(store, sweep.name, f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}").sync()
    assert holders(tmp_path / "mlflow") == []


def test_what_a_users_world_raised_stands_in_the_row_without_the_secrets_in_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(*_: object, **__: object) -> None:
        raise RuntimeError(f"401 for https://ann:{PASSWORD}@host/step?api_key={KEY}&seed=3 with {TOKEN}")

    monkeypatch.setattr(evaluate_cells, "play", play)
    monkeypatch.setenv("MY_WORLD_TOKEN", TOKEN)
    trial = bench.trial("bc")
    evaluate_cells.evaluate_cells(evaluate_cells.Block(str(bench.store.folder), (trial.to_json(),)))
    record = bench.store.get("evaluation", trial.trial_id)
    assert record is not None
    assert record["reason"] == "RuntimeError: 401 for https://***@host/step?api_key=***&seed=3 with ***"
