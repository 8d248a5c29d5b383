"""Transcripts: what a model wrote is a dialogue, or is refused for one of few reasons."""

from __future__ import annotations

import pytest

from ilql.tasks.dialogues import transcript
from ilql.tasks.dialogues.transcript import RefusedError, check_dialogue, check_roles, read, write

ROLES = ("agent", "user")


def test_what_is_written_is_read_again_as_it_was() -> None:
    turns = [("user", "my lamp: it flickers"), ("agent", ""), ("user", "END of it"), ("agent", "we mend it")]
    text = write(turns)
    assert text == "user: my lamp: it flickers\nagent:\nuser: END of it\nagent: we mend it\nEND\n"
    assert read(text, ROLES) == turns


def test_white_space_makes_no_lines() -> None:
    assert write([("user", "a\nagent: b\n\nEND")]) == "user: a agent: b END\nEND\n"
    assert read("\n  User :  hello \r\n\nAGENT: yes\u2028no\n END \n", ROLES) == [
        ("user", "hello"),
        ("agent", "yes\u2028no"),
    ]


def test_behind_the_end_nothing_is_read() -> None:
    assert read("user: a\nEND\nno role here\nuser: b", ROLES) == [("user", "a")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", transcript.SILENT),
        (" \n\n", transcript.SILENT),
        ("END", transcript.SILENT),
        ("user: a\nagent: b", transcript.NO_END),
        ("user: a\nagent: b\nEN", transcript.NO_END),
        ("user: a\nag", transcript.NO_END),  # half a line is not held against it
        ("Sure, here it is:\nuser: a\nEND", transcript.NO_ROLE),
        ("user: a\nclerk: b\nEND", transcript.NO_ROLE),
        ("user: a\nwithout a role\nagent: b", transcript.NO_ROLE),  # the first reason from the beginning on
        ("user: a\nEND.\nEND", transcript.NO_ROLE),
        ("user: \ud83d\nEND", transcript.UNREADABLE),
    ],
)
def test_anything_else_is_refused_for_a_reason(text: str, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read(text, ROLES)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("user", ""), ("agent", "b")], transcript.WORLD_SILENT),
        ([("agent", "b")], transcript.ONE_SIDE),
        ([("user", "a")], transcript.ONE_SIDE),
        ([("user", "a"), *[("agent", "b")] * 3], transcript.TOO_LONG),
    ],
)
def test_a_transcript_that_is_no_dialogue_is_refused(turns: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check_dialogue(turns, agent="agent", world="user", max_turns=2)
    assert str(refused.value) == reason


def test_the_agent_may_say_nothing_and_have_all_its_turns() -> None:
    check_dialogue([("user", "a"), ("agent", ""), ("agent", "b")], agent="agent", world="user", max_turns=2)


def test_a_role_that_cannot_begin_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a role in a transcript must be without colons .*, got 'a:b'"):
        check_roles(["user", "a:b"])
