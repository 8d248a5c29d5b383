"""The page on imagined dialogues: its minute runs, its commands are commands, its reasons are those that are given."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from ilql.tasks.dialogues import transcript
from sweeps import cli, endpoint, imagining

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "imagined_dialogues.md").read_text(encoding="utf-8")


BLOCKS = [*re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]


def commands() -> list[list[str]]:
    """Every `sweeps imagine` and `sweeps hindsight` of the page's blocks, in words."""
    lines = [line.partition("  #")[0] for language, block in BLOCKS if not language for line in block.split("\n")]
    return [shlex.split(line)[1:] for line in lines if re.match(r"sweeps (imagine|hindsight) ", line)]


def test_its_minute_runs_and_what_it_writes_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = [block for language, block in BLOCKS if language == "python"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEPS_STORE", str(tmp_path / "store"))
    (tmp_path / "try_imagine.py").write_text(program)
    runpy.run_path(str(tmp_path / "try_imagine.py"))
    (command,) = [words for words in commands() if "chain" in words]
    assert cli.main(command) == 0
    assert "word for word what was imagined before" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "imagined.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert {sum(turn.get("reward", 0.0) for turn in line["turns"]) for line in lines} <= {-2.0, -1.0, 8.0, 9.0}
    assert cli.main(["validate", "imagined.jsonl"]) == 0


def test_its_commands_have_options_that_there_are() -> None:
    parser, _ = cli.make_parser()
    assert len(commands()) > 4
    for words in commands():
        assert parser.parse_known_args(words)[1] == []
    _, parsers = cli.make_parser()
    known = {option for name in ("imagine", "hindsight") for option in parsers[name]._option_string_actions}
    said = set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--no-deps"}
    assert said <= known


def test_it_says_every_reason_and_the_bounds_that_hold() -> None:
    page = " ".join(PAGE.split())
    for reason in (transcript.NO_ROLE, transcript.NO_END):
        assert reason in page
    assert "word for word an example, or what was imagined before" in page
    assert imagining.AGAIN.endswith("what was imagined before")
    assert endpoint.LONGEST_WAIT_SECONDS == 120
    assert "more than two minutes" in page
    assert endpoint.LONGEST_REPLY_BYTES == 4 << 20
    assert f"fewer than {('six',)[endpoint.SHORTEST_KEY - 6]} letters" in page
    assert f"{('Five',)[endpoint.UNUSABLE_IN_A_ROW - 5]} of those in a row" in page
