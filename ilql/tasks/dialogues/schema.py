"""One line of a file of dialogues: what it may hold, and what is wrong with one that holds something else.

    {"turns": [{"role": "user", "text": "..."}, {"role": "agent", "text": "...", "reward": 1}], "ended": true}

The keys are documented in `docs/your_dialogues.md`. Every problem of a line is found, not only the first.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ilql.hyperparameters import unknown
from ilql.task import SPLITS
from ilql.tasks.dialogues.settings import LARGEST_REWARD, Settings

RECORDED = "recorded"
"""The reward that is written as `reward`."""

CUSTOM = "custom"
"""The reward that a function gives."""

LINE_KEYS = ("turns", "messages", "ended", "id", "reward", "rewards", "split")
NAME_YOURS = (
    "name yours with --set world.agent_roles=… and world.world_roles=…: all there are, for they replace the known ones"
)
"""What to do about roles."""

TURN_KEYS = ("role", "text", "reward", "rewards")
MESSAGE_KEYS = ("role", "content", "reward", "rewards")

SHOWN = 60
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True)
class Problem:
    """Something in a file that must be mended.

    Attributes:
        line: The line's number, from 1, or 0 where it is about the whole file.
        message: The rule, what came, and what would have been right.
    """

    line: int
    message: str

    def __str__(self) -> str:
        """`line 7: ...`."""
        return f"line {self.line}: {self.message}" if self.line else self.message


@dataclass(frozen=True)
class RecordedTurn:
    """A turn as it stands in the file.

    Attributes:
        role: Who said it, in lower case.
        text: What was said.
        by_agent: True if the role is one of the agent's.
        rewards: What the turn got, by the reward's name; only what was written, `recorded` for `reward`.
    """

    role: str
    text: str
    by_agent: bool
    rewards: Mapping[str, float]


@dataclass(frozen=True)
class RecordedDialogue:
    """A line without a problem.

    Attributes:
        line: Its number, from 1.
        id: Its name, or None if it has none.
        turns: What was said; at least one turn is the agent's.
        ended: False if the recording was cut off.
        split: The split it asks for, or None.
        ignored: Keys that mean nothing here: they are counted, and their values play no part.
    """

    line: int
    id: str | None
    turns: tuple[RecordedTurn, ...]
    ended: bool
    split: str | None
    ignored: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its id, or where it stands."""
        return self.id if self.id is not None else f"line {self.line}"


class _Faults:
    """Problems of one line as they are found."""

    def __init__(self, line: int) -> None:
        self._line = line
        self.found: list[Problem] = []

    def say(self, message: str) -> None:
        self.found.append(Problem(self._line, message))


def read_dialogue(value: object, line: int, settings: Settings) -> tuple[RecordedDialogue | None, list[Problem]]:
    """The dialogue of a line, or None and everything that is wrong with it.

    Args:
        value: What the line is as JSON.
        line: Its number, from 1.
        settings: Say whose roles are whose.
    """
    faults = _Faults(line)
    if not isinstance(value, dict):
        faults.say(f"a line must be a JSON object with the key 'turns', got {_kind(value)} {show(value)}")
        return None, faults.found
    ignored, misspelt = _unknown_keys(value, LINE_KEYS, "a line", faults)
    turns, more = ([], []) if misspelt & {"turns", "messages"} else _turns(value, settings, faults)
    ignored += more
    whole = _rewards(value, "the dialogue", faults)
    ended, name, split = value.get("ended"), value.get("id"), value.get("split")  # null is as good as left out
    if ended is not None and not isinstance(ended, bool):
        faults.say(f"ended must be true or false, got {show(ended)}")
    if name is not None and not isinstance(name, str):
        faults.say(f"id must be a string, got {show(name)}; write it in quotes: {json.dumps(str(name))[:SHOWN]}")
    elif isinstance(name, str) and (not name.strip() or _unwritable(name)):
        faults.say(f"id must be text that is not empty, got {show(name)}; leave the key out where there is no name")
    if split is not None and split not in SPLITS:
        near = unknown(split, "split", SPLITS) if isinstance(split, str) else f"{show(split)} is no split"
        faults.say(f"split must be one of {', '.join(SPLITS)}; {near}")
    if faults.found:
        return None, faults.found
    last = max(number for number, turn in enumerate(turns) if turn.by_agent)
    if whole:
        paid = dict(turns[last].rewards)
        for reward, number in whole.items():
            paid[reward] = paid.get(reward, 0.0) + number
        turns[last] = RecordedTurn(turns[last].role, turns[last].text, True, paid)
    return RecordedDialogue(line, name, tuple(turns), ended is not False, split, tuple(ignored)), []


def _turns(value: Mapping[str, object], settings: Settings, faults: _Faults) -> tuple[list[RecordedTurn], list[str]]:
    """The turns without a problem, and the keys in them that mean nothing."""
    if "turns" in value and "messages" in value:
        faults.say("a line must have 'turns' or 'messages', got both")
        return [], []
    key, text_key, known = ("turns", "text", TURN_KEYS) if "turns" in value else ("messages", "content", MESSAGE_KEYS)
    if key not in value:
        keys = ", ".join(map(repr, list(value)[:8])) or "an empty object"
        faults.say(f"a line must have the key 'turns' (or 'messages', as chat models take them), got {keys}")
        return [], []
    items = value[key]
    if not isinstance(items, list):
        faults.say(f"{key} must be a list of objects, got {_kind(items)} {show(items)}")
        return [], []
    if not items:
        faults.say(f"{key} must not be empty, got []; leave the line out")
        return [], []
    turns: list[RecordedTurn] = []
    ignored: list[str] = []
    before = len(faults.found)
    for number, item in enumerate(items):
        where = f"{key}[{number}]"
        if not isinstance(item, dict):
            faults.say(f"{where} must be an object with 'role' and {text_key!r}, got {_kind(item)} {show(item)}")
            continue
        strange, misspelt = _unknown_keys(item, known, where, faults, other={"text": "content", "content": "text"})
        ignored += strange
        turn = _turn(item, where, text_key, settings, faults, misspelt)
        if turn is not None:
            turns.append(turn)
    if len(faults.found) == before and not any(turn.by_agent for turn in turns):
        roles = ", ".join(dict.fromkeys(turn.role for turn in turns))
        faults.say(
            f"a dialogue must have a turn of the agent ({', '.join(settings.roles_of_agent)}), got only {roles}; "
            f"{NAME_YOURS}"
        )
    return turns, ignored


def _turn(
    item: Mapping[str, object], where: str, text_key: str, settings: Settings, faults: _Faults, misspelt: set[str]
) -> RecordedTurn | None:
    """A turn, or None where something is wrong with it; a key that was misspelt is not missing as well."""
    before = len(faults.found)
    role, text = item.get("role"), item.get(text_key)
    by_agent = False
    if "role" in misspelt:
        pass
    elif not isinstance(role, str):
        got = show(role) if "role" in item else "none"
        faults.say(f"{where}.role must be a string, got {got}")
    else:
        role = role.strip().lower()
        by_agent = role in settings.roles_of_agent
        if not by_agent and role not in settings.roles_of_world:
            roles = [*settings.roles_of_agent, *settings.roles_of_world]
            line = unknown(shorten(role), "role", roles)
            faults.say(f"{where}.role: {line}; {NAME_YOURS}")
    if text_key in misspelt:
        pass
    elif not isinstance(text, str):
        got = f"{_kind(text)} {show(text)}" if text_key in item else "none"
        faults.say(f"{where}.{text_key} must be a string, got {got}")
    elif _unwritable(text):
        faults.say(f"{where}.{text_key} must be text, got half a surrogate pair in {show(text)}")
    elif isinstance(role, str) and not by_agent and not text.strip() and len(faults.found) == before:
        faults.say(f"{where}.{text_key}: only the agent may say nothing, got {show(text)}; leave the turn out")
    rewards = _rewards(item, where, faults)
    if not by_agent and not misspelt and len(faults.found) == before:
        for name, number in rewards.items():
            if number != 0.0:
                faults.say(
                    f"{where}: only the agent's turns carry rewards, got {name} {number:g} on a turn of {role!r}; "
                    "put it on the agent's turn that it is for"
                )
        rewards = {}
    if misspelt or len(faults.found) > before:
        return None
    assert isinstance(role, str)
    assert isinstance(text, str)
    return RecordedTurn(role, text, by_agent, rewards)


def _rewards(item: Mapping[str, object], where: str, faults: _Faults) -> dict[str, float]:
    """The rewards of a turn or a line that are numbers, `recorded` for its `reward`; null is none."""
    rewards: dict[str, float] = {}
    if (number := item.get("reward")) is not None and _is_number(number, f"{where}: reward", faults):
        rewards[RECORDED] = float(number)  # type: ignore[arg-type]
    named = item.get("rewards")
    if named is None:
        return rewards
    if not isinstance(named, dict):
        faults.say(f"{where}: rewards must be an object of numbers by name, got {_kind(named)} {show(named)}")
        return rewards
    for name, number in named.items():
        if name in (RECORDED, CUSTOM):
            mended = "write it as 'reward'" if name == RECORDED else "it is what --reward gives"
            faults.say(f"{where}: a name in rewards must not be {name!r}; {mended}")
        elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            faults.say(f"{where}: a name in rewards must be letters, digits and _, a letter first, got {show(name)}")
        elif number is not None and _is_number(number, f"{where}: rewards.{name}", faults):
            rewards[name] = float(number)
    return rewards


def _is_number(value: object, what: str, faults: _Faults) -> bool:
    """True for a finite number of a size that can be learnt from; says so where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = "; write it without quotes" if isinstance(value, str) and _reads_as_number(value) else ""
        faults.say(f"{what} must be a finite number, got {_kind(value)} {show(value)}{hint}")
        return False
    if isinstance(value, float) and not math.isfinite(value):
        faults.say(f"{what} must be a finite number, got {value}")
        return False
    if abs(value) > LARGEST_REWARD:
        got = f"{value:g}" if isinstance(value, float) else f"a number of {len(str(abs(value)))} digits"
        faults.say(f"{what} must be a finite number of at most {LARGEST_REWARD:g} in size, got {got}")
        return False
    return True


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _unknown_keys(
    item: Mapping[str, object],
    known: tuple[str, ...],
    where: str,
    faults: _Faults,
    other: Mapping[str, str] | None = None,
) -> tuple[list[str], set[str]]:
    """Keys that mean nothing here, and what those mean that look like misspellings, which are a problem."""
    ignored, misspelt = [], set()
    for key in item:
        if key in known:
            continue
        wanted = (other or {}).get(key)
        near = [wanted] if wanted in known else difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.8)
        near = [name for name in near if name not in item]
        if near:
            faults.say(f"{where} has no key {shorten(key)!r}; the nearest is {near[0]!r}")
            misspelt.add(near[0])
        else:
            ignored.append(shorten(key).encode("utf-8", "backslashreplace").decode())
    return ignored, misspelt


def shorten(text: str) -> str:
    """The text, or its beginning if it is long."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def count(number: int, noun: str) -> str:
    """`1 line`, `3 lines`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def show(value: object) -> str:
    """A JSON value in one short line, in ASCII."""
    return shorten(json.dumps(value, ensure_ascii=True, default=str))


def _kind(value: object) -> str:
    """What sort of JSON value it is."""
    if value is None or isinstance(value, bool):
        return "the constant"
    if isinstance(value, int | float):
        return "the number"
    return "the string" if isinstance(value, str) else "the list" if isinstance(value, list) else "the object"


def _unwritable(text: str) -> bool:
    """True if no encoding can hold it: JSON may write half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
