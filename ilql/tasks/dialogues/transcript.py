"""A dialogue as text that a language model reads and writes: a line for each turn, and a mark behind the last.

    user: my lamp flickers
    agent: we mend it for 20
    END

Reading is strict: what a model wrote is such lines, or it is refused for one of a handful of reasons. Nothing is
guessed, joined or mended, since nobody could tell afterwards who said it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ilql.files import is_writable
from ilql.tasks.dialogues.payment import Said

VERSION = 1
"""Raised when the same text would be read or written otherwise; part of the key of what models wrote."""

END = "END"
"""The line behind the last turn. What stands behind it is not read: a model without an end of its own goes on."""

SILENT = "nothing was written"
NO_ROLE = "a line begins with no role that was asked for"
NO_END = f"no {END} behind the last turn"
UNREADABLE = "text that no file can hold"
WORLD_SILENT = "the world says nothing in a turn"
ONE_SIDE = "one side says nothing at all"
TOO_LONG = "more turns of the agent than there may be"


class RefusedError(ValueError):
    """What was written is not what was asked for; its text is the reason, one of few, so that they can be counted."""


def check_roles(roles: Sequence[str]) -> None:
    """Do nothing if lines can begin with the roles.

    Raises:
        ValueError: One holds a colon or a line's end.
    """
    for role in roles:
        if ":" in role or "\n" in role:
            raise ValueError(f"a role in a transcript must be without colons and line ends, got {role!r}")


def write(turns: Sequence[Said]) -> str:
    """The turns as lines, white space in them as single blanks, with the mark and a line's end behind the last."""
    return "".join(f"{line}\n" for line in [*(_line(role, text) for role, text in turns), END])


def _line(role: str, text: str) -> str:
    return f"{role}: {' '.join(text.split())}".rstrip()


def read(text: str, roles: Sequence[str]) -> list[Said]:
    """The turns of a transcript.

    Args:
        text: What a model wrote. Blank lines and white space around a line do not count, nor do a role's capitals.
        roles: In lower case, whose turns there may be.

    Raises:
        RefusedError: It is none; the first reason from its beginning on.
    """
    if not is_writable(text):
        raise RefusedError(UNREADABLE)
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise RefusedError(SILENT)
    whole = END in lines
    turns = []
    for line in lines[: lines.index(END) if whole else -1]:  # the last line of an unfinished one may be half a line
        role, colon, said = line.partition(":")
        role = role.strip().lower()
        if not colon or role not in roles:
            raise RefusedError(NO_ROLE)
        turns.append((role, said.strip()))
    if not whole:
        raise RefusedError(NO_END)
    if not turns:
        raise RefusedError(SILENT)
    return turns


def check_dialogue(turns: Sequence[Said], *, agent: str, world: str, max_turns: int) -> None:
    """Do nothing if the turns are a dialogue that can be learnt from.

    Raises:
        RefusedError: A turn of the world has no words, a side has no turn, or the agent has more than `max_turns`.
    """
    if any(role == world and not text for role, text in turns):
        raise RefusedError(WORLD_SILENT)
    spoken = [role for role, _ in turns]
    if agent not in spoken or world not in spoken:
        raise RefusedError(ONE_SIDE)
    if spoken.count(agent) > max_turns:
        raise RefusedError(TOO_LONG)
