"""What tests of commands look at: what was said, how it ended, what was touched; no test."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from surrogate import in_this_process

from sweeps import bandit_ablation
from sweeps.commands.run import run_command
from sweeps.questions import question_named


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line that was said on stderr."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err.rstrip("\n")


def ask(*arguments: str) -> int:
    """Run the bandit's question in this process; wrong input never gets as far as Ray."""
    options = ["--preset", "smoke", *arguments]
    return status_of(lambda: run_command(bandit_ablation.QUESTION, "sweeps/bandit_ablation.py", options))


def status_of(run: Callable[[], int]) -> int:
    """The exit status, whether it is returned or left with."""
    try:
        return run()
    except SystemExit as left:
        return int(str(left.code))


def answered(question: str, *arguments: str) -> tuple[int, str]:
    """Answer a question in this process, without Ray, by real workers; its exit status, and what was printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), in_this_process():
        status = run_command(question_named(question), f"sweeps/{question}_ablation.py", arguments)
    return status, said.getvalue()
