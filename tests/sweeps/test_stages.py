"""What trainings share: built once, and what was lost in building it is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ilql.tasks import bandit
from sweeps.stages import cut_note, ensure_start, ensure_world

if TYPE_CHECKING:
    from conftest import Bench


def test_dialogues_that_are_longer_than_is_read_are_counted(bench: Bench) -> None:
    # a pull is six tokens: its beginning, `pull`, its end, the arm, its end, and the end of all
    assert cut_note(bench.store, bench.trial(train={"max_tokens": 4})) == (
        "16 of 16 training dialogues are longer than train.max_tokens=4 and end there, without their last rewards "
        "(33.3% of all tokens are left out)"
    )


def test_where_all_are_read_whole_nothing_is_said(bench: Bench) -> None:
    assert cut_note(bench.store, bench.trial(train={"max_tokens": 6})) is None


def test_what_is_built_is_named_before_and_what_is_there_is_not(bench: Bench) -> None:
    said: list[str] = []
    settings = bandit.Settings(dialogues=24)
    for _ in range(2):
        world = ensure_world(bench.store, bandit.KIND, settings, {}, said.append)
        trial = bench.trial(data={"world": world.key}, backbone={"seed": 5})
        ensure_start(bench.store, trial, None, said.append)
        cut_note(bench.store, trial, said.append)
    assert said == [
        "building the world of bandit",
        "making the tokeniser",
        "making the language model that training begins with",
        "tokenising the training dialogues",
    ]
