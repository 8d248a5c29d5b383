"""A question in a file stands for a command line, and its mistakes are one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps import cli
from sweeps.question_file import read_question

WHOLE = """
question: bandit
preset: smoke
seeds: 2
methods: [bc, ilql]
no_mlflow: true
tracking_uri: null
cut_vocabulary: false
train.learning_rate: 1e-4
ilql:
  train: {tau: [0.5, 0.9]}
decode.beta: [1, .inf]
"""


def test_a_key_with_a_dot_is_a_column_and_any_other_an_option(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(WHOLE)
    assert read_question(file) == (
        "bandit",
        ["--preset=smoke", "--seeds=2", "--methods=bc,ilql", "--no-mlflow", "--no-cut-vocabulary",
         "train.learning_rate=1e-4", "ilql.train.tau=0.5,0.9", "decode.beta=1,inf"],
    )  # fmt: skip


def test_a_file_plans_as_its_command_line_does_and_what_is_typed_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("question: bandit\npreset: smoke\nseeds: 3\nilql.train.tau: [0.6, 0.7, 0.8]\n")
    typed = ["bandit", "--preset", "smoke", "--seeds", "3", "ilql.train.tau=0.6,0.7,0.8"]
    plans = []
    for words in ([str(file)], typed, [str(file), "--seeds", "1"]):
        assert cli.main(["plan", *words, "--store", str(tmp_path / "store")]) == 0
        plans.append([line for line in capsys.readouterr().out.splitlines() if "cells need" in line])
    assert plans[0] == plans[1] != plans[2]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("preset: smoke", "must say which question it asks, as in `question: visdial`, got None"),
        ("- bandit", "must be a mapping of names to values, got list"),
        ("question: [", "must be YAML, got while parsing"),
        ("question: bandit\nseeds: 2\nseeds: 3", "a key twice: seeds"),
        ("question: bandit\ntrain.tau: []", "train.tau must have a plain value or a list of them, got []"),
        ("question: bandit\ntrain.tau: [[1]]", "train.tau must have a plain value or a list of them, got [[1]]"),
        ("question: bandti", "'bandti' is no question; known: bandit"),
        ("question: bandit\nsedes: 2", "mine.yaml: unrecognised: --sedes; the nearest is --seeds"),
        ("question: bandit\ntrain.tua: [0.5, 0.6]", "'train.tua' is no column of these methods; known: train.tau"),
        ("question: !!python/object/apply:os.system ['true']", "must be YAML without tags, got !!python/object"),
        ("question: bandit\na: &a {b: 1}\nc: *a", "must be YAML without anchors and aliases, got &a in line 2; write"),
        ("question: bandit\nc: *a", "must be YAML without anchors and aliases, got *a in line 2; write the value"),
        ("question: bandit\nseeds: 1:30", "must be YAML whose numbers have no colon and at most 300 letters, got 1:30"),
        ("question: bandit\non: 3", "must be YAML with names as keys, got on in line 2; a name that reads as none"),
        ("\x00", "must be YAML, got unacceptable character"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    try:
        status = cli.main(["plan", str(file), "--store", str(tmp_path / "store")])
    except SystemExit as left:
        status = left.code
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1)
    assert line in error


def test_a_date_is_the_text_that_it_is_written_as(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("question: bandit\nname: 2026-12-01\n")
    assert read_question(file) == ("bandit", ["--name=2026-12-01"])


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml must be a file of YAML, got No such file or directory" in capsys.readouterr().err
