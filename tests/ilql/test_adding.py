"""The page on adding a method: its example is a method, and promises what every method does."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ilql.methods
from ilql.batch import TokenSequence, collate, dialogue_weights
from ilql.language_model import Architecture, build_language_model
from ilql.method import Start
from ilql.methods import bc, method_named
from ilql.tokens import Tokenizer
from sweeps.provenance import method_digests

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "adding.md"
NAME = "return_weighted"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with the page's example in it, as the page says to save it."""
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert f"`ilql/methods/{NAME}.py`" in PAGE.read_text(encoding="utf-8")
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / f"{NAME}.py").write_text(example, encoding="utf-8")
    return tmp_path / "methods"


def test_the_example_passes_what_every_method_is_held_to(folder: Path) -> None:
    # A process of its own: the shared test looks for methods when it is collected.
    (folder.parent / "with_the_example.py").write_text(
        f"import ilql.methods\nilql.methods.__path__.append({str(folder)!r})\n", encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/ilql/test_methods.py", "-k", NAME, "-q", "-p", "with_the_example"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder.parent), str(ROOT)])},
    )
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 20


def test_the_example_is_found_and_does_what_it_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pulls: list[TokenSequence], tokenizer: Tokenizer
) -> None:
    monkeypatch.setattr(ilql.methods, "__path__", [*ilql.methods.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, f"ilql.methods.{NAME}", raising=False)
    method = method_named(NAME)
    monkeypatch.delattr(ilql.methods, NAME)
    monkeypatch.delitem(sys.modules, f"ilql.methods.{NAME}")
    model = build_language_model(
        Architecture(layers=1, width=8, heads=2, context=32), vocabulary=tokenizer.size, seed=0
    )
    batch = collate(pulls[:2], pad=tokenizer.structural("pad"))
    weights = dialogue_weights(batch.action_mask)

    def cloning(row: slice) -> float:
        return bc.loss(model, batch.rows(row), weights[row], bc.Train()).total.item()

    train = method.train(return_temperature=0.5)
    module = method.build(Start(model, None, seed=0), train)
    with torch.no_grad():
        loss = method.loss(module, batch, weights, train).total.item()
    # The bandit pays 0 for the first pull and 1 for the second: weights exp(0) = 1 and exp(1/.5) = e², in the mean.
    e2 = 7.389056
    assert loss == pytest.approx((cloning(slice(0, 1)) + e2 * cloning(slice(1, 2))) / 2, rel=1e-5)


def test_a_flipped_sign_is_another_text_of_the_same_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ilql.methods, "__path__", [*ilql.methods.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, f"ilql.methods.{NAME}", raising=False)
    (before,) = method_digests.__wrapped__(NAME).items()
    monkeypatch.delattr(ilql.methods, NAME)
    monkeypatch.delitem(sys.modules, f"ilql.methods.{NAME}")
    file = folder / f"{NAME}.py"
    assert before == (f"ilql/methods/{NAME}.py", hashlib.sha256(file.read_bytes()).hexdigest()[:12])
    text = file.read_text(encoding="utf-8")
    flipped = text.replace("(batch.returns[:, None] /", "(-batch.returns[:, None] /")
    assert flipped != text
    file.write_text(flipped, encoding="utf-8")
    assert method_digests.__wrapped__(NAME).keys() == {before[0]}
    assert method_digests.__wrapped__(NAME)[before[0]] != before[1]


def test_everything_the_page_names_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    files = re.findall(r"`([\w/]+\.(?:py|md))`", page)
    assert len(files) > 5
    assert [file for file in files if not (ROOT / file).is_file()] == [f"ilql/methods/{NAME}.py"]
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`" in line]
    for name in (name for line in rows for name in re.findall(r"`(\w+)`", line.split("|")[3])):
        assert method_named(name).name == name


@pytest.mark.parametrize("tool", [["ruff", "check", "--select", "E,F,I,D,N,UP,B"], ["ruff", "format", "--check"]])
def test_the_example_is_written_as_our_code_is(folder: Path, tool: list[str]) -> None:
    program = Path(sys.executable).with_name(tool[0])
    if not program.is_file():
        pytest.skip("ruff is not installed beside this Python: run make test")
    settings = ["--config", str(ROOT / "pyproject.toml"), str(folder / f"{NAME}.py")]
    done = subprocess.run([program, *tool[1:], "--no-cache", *settings], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
