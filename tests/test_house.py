"""The rules of the house: who may import whom, what belongs to us, what never lies in the tree."""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("analysis", "cluster", "ilql", "sweeps")
DISTRIBUTION = "ilql-ablations"


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield every imported name in full: `ray.tune` for `from ray import tune`, at any depth of the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _users(library: str) -> set[str]:
    return {
        path
        for path, tree in _sources()
        if any(name == library or name.startswith(f"{library}.") for name in _imports(tree))
    }


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("ray.tune", "sweeps/search.py"),
        ("ray.train", "cluster/workers.py"),
        ("profanity_check", "ilql/tasks/reddit/packaged.py"),
    ],
)
def test_one_outside_library_has_one_file(library: str, home: str) -> None:
    assert _users(library) <= {home}
    if (ROOT / home).is_file():
        assert home in _users(library), f"{home} does not import {library}: the rule has lost its object"


def test_mlflow_has_a_file_for_the_mirror_and_two_for_a_served_policy() -> None:
    assert _users("mlflow") == {"sweeps/tracking.py", "sweeps/serving.py", "sweeps/served_policy.py"}


def test_plotly_stays_in_its_folder() -> None:
    users = _users("plotly")
    assert users
    assert all(path.startswith("analysis/figures/") for path in users)


@pytest.mark.parametrize("library", ["pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"])
def test_no_package_of_ours_pickles(library: str) -> None:
    assert _users(library) == set()


def test_weights_are_never_stored_by_torch_itself() -> None:
    calls = [
        f"{path}: torch.{node.attr}"
        for path, tree in _sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"save", "load"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "torch"
    ]
    assert calls == []


def test_the_machines_load_no_torch_until_a_group_trains() -> None:
    modules = ", ".join(sorted(f"cluster.{path.stem}" for path in (ROOT / "cluster").glob("*.py")))
    program = f"import {modules}, sys; print('torch' in sys.modules)".replace("cluster.__init__", "cluster")
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "False", done.stderr


def test_what_trains_nothing_loads_no_transformers_models() -> None:
    # Nor what shards them: more seconds than all else that `sweeps status` and a report import.
    slow = ("transformers.modeling_utils", "torch.distributed.tensor", "ray", "mlflow")
    program = f"import sweeps.cli, sweeps.reporting, sys; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_no_test_folder_hides_a_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_listed_packages_are_those_on_disk() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    on_disk = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert set(settings["tool"]["setuptools"]["packages"]) == on_disk


def test_every_package_folder_says_what_it_is() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {str(folder) for folder in folders if not (folder / "__init__.py").is_file()} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_import_name_belongs_to_us_alone(package: str) -> None:
    owners = importlib.metadata.packages_distributions().get(package)
    if owners is None and not _installed():
        pytest.skip(f"{DISTRIBUTION} is not installed here: run make test")
    assert set(owners or ()) == {DISTRIBUTION}


def test_the_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    if not program.is_file():
        pytest.skip("import-linter is not installed beside this Python: run make test")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [program, "--no-cache"], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stdout


def test_every_version_that_is_fixed_satisfies_what_we_ask_for() -> None:
    from packaging.requirements import Requirement

    fixed = dict(
        re.split("==", line.strip().lower().replace("_", "-"))
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    )
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [
        *settings["dependencies"],
        *(line for extra in settings["optional-dependencies"].values() for line in extra),
    ]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(fixed[requirement.name.lower()]), requirement
    assert not any("+" in version for version in fixed.values())  # a build tag would forbid every other machine


def _glossary() -> dict[str, str]:
    """Give the bag of each symbol in the glossary's table."""
    rows: dict[str, str] = {}
    for line in (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            assert len(cells) == 5, f"a row of the glossary must have five cells: {line}"
            symbol = cells[0].strip("`")
            assert symbol not in rows, f"the glossary must have one meaning for each symbol, has two for {symbol}"
            rows[symbol] = cells[1]
    return rows


def test_every_hyperparameter_stands_in_the_glossary_under_its_bag_and_no_other() -> None:
    from ilql.methods import known_methods

    used = {
        (item.name, bag)
        for method in known_methods().values()
        for bag, kind in (("train", method.train), ("decode", method.decode))
        for item in dataclasses.fields(kind)
    }
    assert used == set(_glossary().items())


def test_every_method_is_called_by_its_title_in_tables_and_figures() -> None:
    from analysis.labels import METHOD_LABELS
    from ilql.methods import known_methods

    titles = {name: method.title for name, method in known_methods().items()}
    assert {name: METHOD_LABELS.get(name) for name in titles} == titles
    assert set(METHOD_LABELS) - set(titles) == {"ilql_without_lm"}  # a variant: no method has its name


def test_every_arm_of_a_question_has_a_name_in_print() -> None:
    from analysis.labels import method_label
    from sweeps import bandit_ablation, component_ablation, visdial_ablation

    arms = {arm for each in (bandit_ablation, component_ablation, visdial_ablation) for arm in each.QUESTION.arms}
    assert [arm for arm in sorted(arms) if method_label(arm) == arm] == []


def _installed() -> bool:
    try:
        importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _holders(text: str) -> Iterator[str]:
    """What a page names as holding its promises: files and folders of tests, and targets of make."""
    yield from re.findall(r"`(tests/[\w/.]+|test_\w+\.py|make \w+)`", text)


@pytest.mark.parametrize("page", ["reliability.md", "security.md"])
def test_every_promise_of_a_page_stands_beside_a_test_that_exists(page: str) -> None:
    """A name without a folder must be of one test alone."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| held by |" not in line]
    promises = [row for row in rows if not row.startswith("| ---")]
    assert len(promises) >= 10
    assert [row for row in promises if not list(_holders(row.rsplit(" | ", 1)[1]))] == []
    for name in _holders(text):
        if name.startswith("make "):
            assert name.removeprefix("make ") in targets, name
        elif "/" in name:
            assert (ROOT / name).exists(), name
        else:
            assert len(list((ROOT / "tests").rglob(name))) == 1, name
