"""What building has to say to the user, a line each: nothing is skipped or ignored in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ilql.task import SPLITS
from ilql.tasks.dialogues.paid import PaidDialogue
from ilql.tasks.dialogues.read import Recordings
from ilql.tasks.dialogues.schema import CUSTOM, RecordedDialogue, count
from ilql.tasks.dialogues.settings import LARGEST_REWARD, Settings
from ilql.tasks.dialogues.splits import words_of

OFFLINE = (
    "no environment: the policies cannot be played, and samples of what they would say are no score; "
    "what offline numbers tell stands in docs/your_dialogues.md"
)


def sizes(
    data: str | None,
    dialogues: Sequence[RecordedDialogue],
    splits: Sequence[str],
    paid: Sequence[PaidDialogue],
    rewards: Sequence[str],
) -> str:
    """How many dialogues there are, in which split, and what they got."""
    counts = Counter(splits)
    shares = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
    means = ", ".join(
        f"{name} {np.mean([dialogue.total(place) for dialogue in paid]):.2f}" for place, name in enumerate(rewards)
    )
    turns = np.mean([sum(turn.by_agent for turn in dialogue.turns) for dialogue in dialogues])
    source = "made-up calls of a booking desk" if data is None else f"dialogues of {data}"
    return f"{len(dialogues)} {source}: {shares}; {turns:.1f} turns of the agent each; mean return {means}"


def oddities(recordings: Recordings) -> list[str]:
    """Lines that were skipped, what was read though it was odd, and keys that mean nothing."""
    said = []
    if recordings.problems:
        wrong, lines = count(len(recordings.problems), "problem"), count(recordings.lines, "line")
        said.append(f"skipped {recordings.bad_lines} of {lines} for {wrong}, the first: {recordings.problems[0]}")
    said += recordings.remarks
    ignored = ignored_keys(recordings.dialogues)
    if ignored:
        said.append(f"ignored keys that mean nothing here: {ignored}")
    return said


def ignored_keys(dialogues: Sequence[RecordedDialogue]) -> str:
    """Unknown keys, each with the number of times it stands there, or nothing."""
    counts = Counter(key for dialogue in dialogues for key in dialogue.ignored)
    return ", ".join(f"{key} ({count(times, 'time')})" for key, times in sorted(counts.items()))


def missing_rewards(
    dialogues: Sequence[RecordedDialogue], rewards: Sequence[str], paid: Sequence[PaidDialogue]
) -> list[str]:
    """How many of the agent's turns have no number under a reward, and rewards that tell no dialogues apart."""
    said = []
    turns = [turn for dialogue in dialogues for turn in dialogue.turns if turn.by_agent]
    for place, name in enumerate(rewards):
        without = 0 if name == CUSTOM else sum(name not in turn.rewards for turn in turns)
        if without:
            said.append(f"{name}: {without} of {count(len(turns), 'turn')} of the agent have no number, and count as 0")
        if not any(any(turn.rewards[place] for turn in dialogue.turns) for dialogue in paid):
            said.append(f"{name}: no turn has a reward other than 0, so there is nothing to learn from but the words")
    return said


def leaks(dialogues: Sequence[RecordedDialogue], splits: Sequence[str]) -> list[str]:
    """How many dialogues that are not learnt from stand word for word among those that are."""
    learnt = {words_of(dialogue) for dialogue, split in zip(dialogues, splits, strict=True) if split == "train"}
    said = []
    for wanted in SPLITS[1:]:
        held = [words_of(dialogue) for dialogue, split in zip(dialogues, splits, strict=True) if split == wanted]
        again = sum(words in learnt for words in held)
        if again:
            said.append(
                f"{again} of {count(len(held), 'dialogue')} of {wanted} {'stands' if again == 1 else 'stand'} word for "
                "word in train, too"
            )
    return said


def imports_beside(what: str, names: Sequence[str]) -> list[str]:
    """Names that the file of a function imports from beside it."""
    if not names:
        return []
    return [
        f"the file of --{what} imports {', '.join(names)}, which may lie beside it: only the file itself is copied, "
        "so whatever it imports must be installed on every machine"
    ]


def environment(
    settings: Settings, bounds: Mapping[str, tuple[float, float]], *, same: bool, made_up: bool
) -> list[str]:
    """What was seen of an environment: whether seeds decide it, and whether its rewards have a range."""
    said = []
    if not same:
        said.append(
            "the environment answered differently to the same seed and utterances: policies are then compared on "
            "episodes that are not the same"
        )
    wide = [name for name, (low, high) in bounds.items() if LARGEST_REWARD in (-low, high)]
    if wide and not made_up:
        said.append(
            f"nobody has said what a turn can be paid under {', '.join(wide)}, so the range of scores is taken to be "
            "very wide; --set world.lowest_reward and world.highest_reward state it"
        )
    said.append(f"episodes end after {count(settings.max_turns, 'turn')} of the agent at the latest")
    return said
