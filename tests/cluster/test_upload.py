"""What is uploaded for a job, and for a program beside the cluster: our four packages and nothing else of this tree."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ray._private.runtime_env.packaging import create_package
from ray._private.runtime_env.py_modules import upload_py_modules_if_needed
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed

from cluster import connect
from cluster.connect import ConnectOptions

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("analysis", "cluster", "ilql", "sweeps")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This tree's files as they are, in use: compiled, installed, with results and a reward beside them."""
    folder = tmp_path / "checkout"
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in (
        "ilql/__pycache__/losses.cpython-311.pyc",
        ".venv/bin/python",
        "stores/mine/store.json",
        "my_reward.py",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    if not names:
        pytest.skip("what belongs to this tree is known from git alone")
    return names


def uploaded(folder: Path, target: Path, excludes: list[str]) -> set[str]:
    """The files of the package that Ray makes of a folder."""
    create_package(str(folder), target, include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(target) as package:
        return {name for name in package.namelist() if not name.endswith("/")}


def test_a_job_uploads_the_four_packages_and_what_the_user_put_beside_them(checkout: Path, tmp_path: Path) -> None:
    found: set[str] = set()

    def upload(folder: str, excludes: list[str] | None = None, is_file: bool = False) -> None:
        found.update(uploaded(Path(folder), tmp_path / "job.zip", excludes or []))

    upload_working_dir_if_needed({"working_dir": str(checkout)}, include_gitignore=True, upload_fn=upload)
    ours = {name for name in tracked() if name.split("/")[0] in PACKAGES}
    assert found == ours | {"my_reward.py"}


def test_a_program_beside_the_cluster_uploads_the_four_packages_without_what_python_compiled(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(connect.ray, "init", lambda **options: given.update(options))
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    connect._join(ConnectOptions(packages=tuple(checkout / name for name in PACKAGES)), "127.0.0.1:1")
    found: set[str] = set()

    def upload(folder: str, excludes: list[str] | None = None, is_file: bool = False) -> None:
        names = uploaded(Path(folder), tmp_path / f"{Path(folder).name}.zip", excludes or [])
        found.update(f"{Path(folder).name}/{name}" for name in names)

    upload_py_modules_if_needed(dict(given["runtime_env"]), include_gitignore=True, upload_fn=upload)
    assert found == {name for name in tracked() if name.split("/")[0] in PACKAGES}
