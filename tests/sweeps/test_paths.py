"""Paths that lead nowhere, whatever command they are given to: one line, status 2, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import contents, one_line, status_of

from sweeps import cli, guard
from sweeps.paths import is_default_store, named_path, new_file, output_folder, store_option
from sweeps.policy import load_policy

if TYPE_CHECKING:
    from conftest import BanditSweep

pytestmark = pytest.mark.timeout(600)

LONG = "x" * 300
WRONG = {
    "~nobody99/x": "must lie in the home of a user that there is, got ~nobody99/x",
    "file/x": "Not a directory",
    "loop": "File exists",
    "/proc/x": "No such file or directory",
    "/proc": "No such file or directory",
    LONG: "File name too long",
    "a\0b": r"has no zero byte, got 'a\x00b'",
}
"""By a path that is none, what is said of it as a folder to write into."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands are given in; with a file in it, and a link to itself."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "file").touch()
    (folder / "loop").symlink_to("loop")
    monkeypatch.chdir(folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line that a command is refused with."""
    capsys.readouterr()
    assert status_of(lambda: cli.main(list(arguments))) == 2
    return one_line(capsys)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is(
    copied: BanditSweep, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_STORE", str(copied.store.folder))
    trial = next(row["trial_id"] for row in copied.store.rows(copied.name) if row["status"] == "finished")
    before, names = contents(copied.store.folder), sorted(here.iterdir())
    for path, said in WRONG.items():
        for command in (
            ("report", copied.name, "-o", path),
            ("rows", copied.name, "-o", path),
            ("export", trial, path),
            ("launch", "slurm", "--run", "bandit --preset smoke", "--out", path),
        ):
            assert said in refused(capsys, *command), command
    assert contents(copied.store.folder) == before
    assert sorted(here.iterdir()) == names


def test_a_folder_made_for_what_is_then_refused_goes_again(
    copied: BanditSweep, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_STORE", str(copied.store.folder))
    refused(capsys, "export", "nosuchtrial", "new/inner")
    refused(capsys, "report", copied.name, "nosuchsweep", "-o", "new/inner")
    assert not (here / "new").exists()


@pytest.mark.parametrize("path", ["~nobody99/x", "file/x", "loop", LONG, "/proc/x", "/dev/null"])
@pytest.mark.parametrize(
    "command",
    [
        ("list", "--store", "PATH"),
        ("doctor", "PATH"),
        ("gc", "PATH"),
        ("plan", "bandit", "--preset", "smoke", "--store", "PATH"),
        ("plan", "bandit", "--preset", "smoke", "--store", "new", "--model", "PATH"),
        ("plan", "visdial", "--preset", "smoke", "--store", "new", "--data", "PATH"),
        ("plan", "PATH.yaml"),
        ("validate", "PATH"),
        ("import", "trlx", "PATH", "-o", "new.yaml"),
        ("import", "trlx", "file", "-o", "PATH.yaml"),
        ("imagine", "PATH", "--model", "m", "--reward", "r.py:f"),
        ("hindsight", "PATH", "--model", "m", "--reward", "r.py:f"),
    ],
)
def test_what_is_not_there_to_be_read_is_one_line(
    command: tuple[str, ...], path: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert refused(capsys, *(word.replace("PATH", path) for word in command)).startswith(("error: ", "sweeps"))
    assert not (here / "~nobody99").exists()


def test_a_store_that_is_named_by_the_environment_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("SWEEPS_STORE", "~nobody99/x")
    assert "the store must lie in the home of a user that there is, got ~nobody99/x" in refused(capsys, "list")
    assert not is_default_store(here)
    assert store_option(here) == ["--store", str(here)]


def test_a_policy_is_not_looked_for_in_a_misspelt_home(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv("SWEEPS_STORE", "~nobody99/x")
    with pytest.raises(ValueError, match="the store must lie in the home of a user that there is, got ~nobody99/x"):
        load_policy("3f2a")
    assert not (here / "~nobody99").exists()


def test_a_file_without_an_end_is_not_read(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "zero.yaml").symlink_to("/dev/zero")
    assert "must be a file of YAML, got a device or a socket" in refused(capsys, "plan", "zero.yaml")


def test_whatever_the_system_says_of_a_path_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard.guarded(lambda: int(Path("file/x").read_text())) == 2
    assert one_line(capsys) == "error: a path must lead to what is asked of it, got Not a directory (file/x)"


def test_a_folder_or_a_file_that_is_right_is_given_back_whole(here: Path) -> None:
    with output_folder("-o", "new/inner") as folder:
        assert folder == here / "new" / "inner"
        assert list(folder.iterdir()) == []
    assert folder.is_dir()
    assert new_file("-o", "new/file") == here / "new" / "file"
    assert named_path("-o", "~/x") == Path.home() / "x"
    with pytest.raises(ValueError, match="-o must name a new file, got loop, which is there"):
        new_file("-o", "loop")
    with pytest.raises(ValueError, match="-o must name a folder, got the file file"), output_folder("-o", "file"):
        pass


def test_what_was_written_stays_where_the_rest_failed(here: Path) -> None:
    def write() -> None:
        with output_folder("-o", "new/inner") as folder:
            (folder / "rows").touch()
            raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError):
        write()
    assert (here / "new" / "inner" / "rows").is_file()
