"""From a file of dialogues, and perhaps a user's functions, to the world's folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ilql.task import SPLITS, Reply, TaskFault
from ilql.tasks.dialogues import booking, functions, notes, read, world
from ilql.tasks.dialogues.paid import PaidDialogue, PaidTurn, join_world
from ilql.tasks.dialogues.payment import RewardFunction
from ilql.tasks.dialogues.read import Recordings
from ilql.tasks.dialogues.schema import CUSTOM, RECORDED, RecordedDialogue
from ilql.tasks.dialogues.settings import LARGEST_REWARD, Settings
from ilql.tasks.dialogues.splits import assign, too_few
from ilql.tasks.dialogues.template import wrap

INPUTS = {
    "environment": "what your agent talks with: FILE.py:FACTORY or MODULE:FACTORY (docs/your_dialogues.md)",
    "reward": "a reward of your own, named custom: FILE.py:FUNCTION or MODULE:FUNCTION",
}

DESK = {"function": "make_desk", "module": booking.__name__}
"""The environment of the made-up dialogues."""

REHEARSED_TURNS = 3
"""Utterances of the episode that is played at building to see whether an environment does what it must."""


def source_digest(settings: Settings, sources: Mapping[str, str]) -> str:
    """A digest of the lines of `data` and of the source files of the user's functions; empty without any of them.

    A module that is imported by name counts with its own file, and not with what it imports.

    Raises:
        ValueError: A source is unknown or cannot be read.
    """
    del settings
    _check(sources)
    if not sources:
        return ""
    digests = {}
    for name, given in sorted(sources.items()):
        digests[name] = read.digest(given) if name == "data" else functions.locate(name, given).digest
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def build(settings: Settings, sources: Mapping[str, str], folder: Path) -> list[str]:
    """Read, split and pay the dialogues; write the world; play a first episode where there is an environment.

    Returns:
        What a user should know: sizes, what was skipped or ignored, where rewards are missing.

    Raises:
        ValueError: A line has a problem and `skip_bad_lines` is off; there are fewer than three dialogues; a function
            cannot be loaded or does what it must not. One line.
    """
    _check(sources)
    recordings = _read(settings, sources.get("data"))
    dialogues = recordings.dialogues
    try:
        splits = assign(dialogues, settings)
    except ValueError as fault:
        raise ValueError(f"{sources['data']}: {fault}" if "data" in sources else str(fault)) from None
    locations = {name: functions.locate(name, sources[name]) for name in INPUTS if name in sources}
    kept = {name: functions.keep(location, folder) for name, location in locations.items()}
    if "data" not in sources:
        kept["environment"] = {**DESK}
    written = dict.fromkeys(name for dialogue in dialogues for turn in dialogue.turns for name in turn.rewards)
    rewards = (RECORDED, *sorted(name for name in written if name != RECORDED), *([CUSTOM] if "reward" in kept else []))
    bounds = _bounds(rewards, settings, made_up="data" not in sources)
    custom = None
    if "reward" in kept:
        custom = RewardFunction(functions.load("reward", kept["reward"], folder), *bounds[CUSTOM])
    paid = [_paid(dialogue, rewards, custom, settings) for dialogue in dialogues]
    of_splits: dict[str, list[PaidDialogue]] = {split: [] for split in SPLITS}
    for each, split in zip(paid, splits, strict=True):
        of_splits[split].append(each)
    roles = Counter((turn.by_agent, turn.role) for dialogue in dialogues for turn in dialogue.turns)
    made = world.World(
        settings=settings,
        rewards=rewards,
        ranges=_ranges(rewards, paid, bounds, settings, kept),
        bounds=bounds,
        agent_role=_commonest(roles, settings.roles_of_agent, by_agent=True),
        world_role=_commonest(roles, settings.roles_of_world, by_agent=False),
        environment=kept.get("environment"),
        reward=kept.get("reward"),
    )
    world.write(folder, made, of_splits)
    said = [
        notes.sizes(sources.get("data"), dialogues, splits, paid, rewards),
        *notes.oddities(recordings),
        *notes.missing_rewards(dialogues, rewards, paid),
        *notes.leaks(dialogues, splits),
    ]
    if made.environment is None and (few := too_few(dialogues, splits, settings)) is not None:
        said.append(few)
    for location in locations.values():
        said += notes.imports_beside(location.what, functions.beside(location))
    said += _rehearse(folder, made, made_up="data" not in sources)
    return said


def _check(sources: Mapping[str, str]) -> None:
    known = ("data", *INPUTS)
    for name in sources:
        if name not in known:
            raise ValueError(f"a source must be one of {', '.join(known)}, got {name!r}")
    if "environment" in sources and "data" not in sources:
        raise ValueError("an environment must come with dialogues to learn from, got none; name them with --data FILE")


def _read(settings: Settings, data: str | None) -> Recordings:
    """The recordings, made up where no data is named.

    Raises:
        ValueError: They have problems that may not be skipped.
    """
    if data is None:
        return read.read_lines(booking.recorded_calls(settings.seed, settings.made_up_dialogues), settings)
    return read.read_sound(data, settings)


def _paid(
    dialogue: RecordedDialogue, rewards: Sequence[str], custom: RewardFunction | None, settings: Settings
) -> PaidDialogue:
    """A whole dialogue as it is learnt from, paid under every reward."""
    said = [(turn.role, turn.text) for turn in dialogue.turns]
    turns = []
    for place, turn in enumerate(dialogue.turns):
        paid = dict(turn.rewards)
        if custom is not None and turn.by_agent:
            paid[CUSTOM] = custom.pay(said, place, dialogue.name)
        numbers = tuple(paid.get(name, 0.0) for name in rewards)
        turns.append(PaidTurn(wrap(settings.template, turn.role, turn.text), turn.by_agent, numbers))
    return PaidDialogue(dialogue.name, join_world(turns), dialogue.ended)


def _bounds(rewards: Sequence[str], settings: Settings, *, made_up: bool) -> dict[str, tuple[float, float]]:
    """What one turn may be paid: what the settings say, what is known of the made-up desk, or what can be learnt."""
    bounds = {}
    for name in rewards:
        low, high = booking.BOUNDS[name] if made_up and name != CUSTOM else (-LARGEST_REWARD, LARGEST_REWARD)
        bounds[name] = (
            low if settings.lowest_reward is None else settings.lowest_reward,
            high if settings.highest_reward is None else settings.highest_reward,
        )
    for name, (low, high) in bounds.items():
        if low > high:
            raise ValueError(f"lowest_reward must not be above what {name} pays at most, got {low:g} and {high:g}")
    return bounds


def _ranges(
    rewards: Sequence[str],
    dialogues: Sequence[PaidDialogue],
    bounds: Mapping[str, tuple[float, float]],
    settings: Settings,
    kept: Mapping[str, object],
) -> dict[str, tuple[float, float]]:
    """The lowest and the highest return by reward; of two that are equal the higher is raised by 1."""
    ranges = {}
    for place, name in enumerate(rewards):
        returns = [0.0, *(dialogue.total(place) for dialogue in dialogues)]
        low, high = min(returns), max(returns)
        if "environment" in kept:
            low = min(low, settings.max_turns * min(0.0, bounds[name][0]))
            high = max(high, settings.max_turns * max(0.0, bounds[name][1]))
        ranges[name] = (low, high if high > low else low + 1.0)
    return ranges


def _commonest(roles: Counter[tuple[bool, str]], known: Sequence[str], *, by_agent: bool) -> str:
    """The side's commonest role in the data, of equals the first by name; the first known one where it is silent."""
    counted = sorted((-count, role) for (agent, role), count in roles.items() if agent is by_agent)
    return counted[0][1] if counted else known[0]


def _rehearse(folder: Path, made: world.World, *, made_up: bool) -> list[str]:
    """Load the world as a worker will and play the beginning of an episode twice.

    Raises:
        ValueError: The environment failed, or gave what it must not.
    """
    task = world.load(folder)
    if not task.playable:
        return [notes.OFFLINE]
    said = [turn.text for turn in task.dialogues("train", RECORDED)[0].turns if turn.by_agent][:REHEARSED_TURNS]
    try:
        first, second = (_play(task, said) for _ in range(2))
    except TaskFault as fault:
        raise ValueError(f"--environment: {fault} (in an episode played at building)") from None
    return notes.environment(made.settings, made.bounds, same=first == second, made_up=made_up)


def _play(task: world.DialoguesTask, utterances: Sequence[str]) -> tuple[str | None, list[Reply]]:
    """The beginning of the episode of seed 0."""
    episode, replies = task.environment(0, "tune"), []
    for text in utterances:
        replies += task.step([episode], [text])
        if replies[-1].ended:
            break
    assert all(math.isfinite(value) for reply in replies for value in reply.rewards.values())
    return episode.opening, replies
