"""A person plays an episode, or watches a policy play it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sweeps import cli

if TYPE_CHECKING:
    from conftest import BanditSweep, Commands

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]


def test_a_person_plays_an_episode(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: "b")
    assert cli.main(["play", "bandit", "--seed", "3", "--split", "tune", "--store", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "building the world of bandit",
        "bandit, tune scenes, episode 3 (pull-3); at most 1 turn; Ctrl-C leaves",
        "world> pull",
        "  standard +1",
        "over: standard +1",
    ]


def play_wordle(tmp_path: Path, rules: str, typed: list[str], capsys: pytest.CaptureFixture[str],
                monkeypatch: pytest.MonkeyPatch) -> list[str]:  # fmt: skip
    """What a person hears who types some guesses in a game of four words."""
    (tmp_path / "words.txt").write_text("crane\nslate\nspoon\nthumb\n", encoding="utf-8")
    guesses = iter(typed)
    monkeypatch.setattr("builtins.input", lambda prompt: next(guesses))
    games = [part for name in ("train", "tune", "report") for part in ("--set", f"world.{name}_games=4")]
    command = ["play", "wordle", "--words", str(tmp_path / "words.txt"), "--store", str(tmp_path / "store")]
    assert cli.main([*command, "--set", f"world.rules={rules}", "--set", "world.world=optimal", *games]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_persons_capitals_are_letters_and_what_a_guess_must_be_is_said_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = play_wordle(tmp_path, "real", ["CRANE", " Slate", "SPOON", "thumb"], capsys, monkeypatch)
    assert "a guess is five letters, a to z; anything else costs a try, too" in said
    assert not any("not understood" in line for line in said)
    assert said[-1].startswith("over: ")  # one of the four was the word


def test_the_hidden_word_is_told_to_who_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = play_wordle(tmp_path, "real", ["zzzzz"] * 6, capsys, monkeypatch)
    assert said[-2].removeprefix("the word was ") in {"crane", "slate", "spoon", "thumb"}
    assert said[-1] == "over: standard -6"
    said = play_wordle(tmp_path, "consistent", ["zzzzz"] * 6, capsys, monkeypatch)
    assert said[-2] == "no word was hidden: each try is coloured by one of those that all colours allow"


def test_an_empty_line_is_asked_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    typed = iter(["", "  ", "b"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert cli.main(["play", "bandit", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["world> pull", "  standard +1", "over: standard +1"]


@pytest.mark.parametrize("left", [EOFError, KeyboardInterrupt])
def test_a_person_may_leave(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: type[BaseException]
) -> None:
    def gone(prompt: str) -> str:
        raise left

    monkeypatch.setattr("builtins.input", gone)
    assert cli.main(["play", "bandit", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "left: standard +0 so far"


def test_ctrl_c_leaves_without_enter(commands: Commands, tmp_path: Path) -> None:
    command = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from sweeps.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", command, "play", "bandit", "--store", str(tmp_path / "store")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=commands.environment,
        # What a shell starts in the background ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"agent> "):
            said += os.read(process.stdout.fileno(), 4096)
        time.sleep(1.0)  # a signal between the prompt and the reading would not be noticed, and no person is so fast
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) == 0  # nobody has typed anything
        finally:
            process.kill()
        assert process.stdout.read().decode().splitlines() == ["", "left: standard +0 so far"]


def test_a_policy_is_watched(bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    rows = bandit_sweep.store.rows(bandit_sweep.name)
    trial = next(row["trial_id"] for row in rows if row["method"] == "filtered_bc")
    assert cli.main(["play", "bandit", "--trial", trial, "--store", str(bandit_sweep.store.folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"filtered_bc {trial[:8]} on bandit, report scenes, episode 0 (pull-0)"
    assert said[1:] == ["world> pull", "agent> b", "over: standard +1"]
