"""Which dialogues are learnt from, chosen on and reported on: decided by a hash, never by their order in the file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from ilql.task import SPLITS
from ilql.tasks.dialogues.schema import RecordedDialogue
from ilql.tasks.dialogues.settings import Settings

ENOUGH = 5
"""Dialogues that tune and report must have if nobody plays: with fewer, one of them decides what a table says."""


def assign(dialogues: Sequence[RecordedDialogue], settings: Settings) -> list[str]:
    """The split of every dialogue.

    A dialogue goes where it asks to, or else where a hash of its id (of its words where it has none) and the seed falls
    among the shares: more dialogues in the file move none of the others, and equal ones without an id stay together.
    A split that is left empty gets the dialogue whose hash lies nearest to it from one that has others.

    Raises:
        ValueError: There are fewer than three different dialogues, or one split cannot have any.
    """
    keys = [_key(dialogue) for dialogue in dialogues]
    if len(set(keys)) < len(SPLITS):
        raise ValueError(
            f"there must be at least {len(SPLITS)} different dialogues, one for each of {', '.join(SPLITS)}, "
            f"got {len(set(keys))}"
        )
    places = {key: _place(key, settings.seed) for key in keys}
    ends = (settings.train_share, settings.train_share + settings.tune_share, 1.0)
    free: dict[str, str] = {}
    asked: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for dialogue, key in zip(dialogues, keys, strict=True):
        if dialogue.split is not None:
            asked[dialogue.split] += 1
        elif key not in free:
            free[key] = next(split for split, end in zip(SPLITS, ends, strict=True) if places[key] < end)
    for number, split in enumerate(SPLITS):
        if asked[split] or split in free.values():
            continue
        held = {other: asked[other] + sum(one == other for one in free.values()) for other in SPLITS}
        movable = [key for key, other in free.items() if held[other] > 1]
        if not movable:
            raise ValueError(
                f"every split must have a dialogue, got none for {split!r} and none that is free to go there; "
                "mark more lines with it, or leave the key 'split' out of some"
            )
        low, high = (0.0, *ends)[number], ends[number]
        nearest = min(movable, key=lambda key: (max(low - places[key], places[key] - high), key))
        free[nearest] = split
    return [dialogue.split or free[key] for dialogue, key in zip(dialogues, keys, strict=True)]


def too_few(dialogues: Sequence[RecordedDialogue], splits: Sequence[str], settings: Settings) -> str | None:
    """One line where tune or report are too small to judge policies on, with the shares that mend it, if any do."""
    counts = Counter(splits)
    held = SPLITS[1:]
    if all(counts[split] >= ENOUGH for split in held):
        return None
    wide = dataclasses.replace(settings, train_share=0.6, tune_share=0.2)
    wider = Counter(assign(dialogues, wide))
    mended = "more dialogues mend it"
    if all(wider[split] >= ENOUGH for split in held):
        mended = (
            f"--set world.train_share={wide.train_share} --set world.tune_share={wide.tune_share} makes it "
            f"{', '.join(f'{split} {wider[split]}' for split in held)}"
        )
    return (
        f"without an environment tables rest on the dialogues of {' and '.join(held)}, which should be {ENOUGH} at "
        f"least, got {', '.join(f'{split} {counts[split]}' for split in held)}; {mended}"
    )


def words_of(dialogue: RecordedDialogue) -> str:
    """Who said what, as one string: two dialogues with equal ones differ in rewards at most."""
    return json.dumps([[turn.role, turn.text] for turn in dialogue.turns])


def _key(dialogue: RecordedDialogue) -> str:
    return json.dumps(["id", dialogue.id]) if dialogue.id is not None else f"words {words_of(dialogue)}"


def _place(key: str, seed: int) -> float:
    """A number in [0, 1) that looks random, the same for the same key and seed on every machine."""
    hashed = hashlib.blake2b(f"{seed}|{key}".encode(), digest_size=6).digest()
    return int.from_bytes(hashed, "big") / 2**48
