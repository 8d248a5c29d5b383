"""A recorded comment, and the three splits of which no two share a text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ilql.task import SPLITS
from ilql.tasks.reddit.settings import Settings
from ilql.tasks.reddit.tables import Skipped
from ilql.tasks.reddit.texts import text_key, uniform

BARS = {"votes": 0.0, "percentile": 50.0}
"""A comment was voted up if its score is above."""


@dataclass(frozen=True)
class Comment:
    """One recorded comment.

    Attributes:
        text: What was written; never empty.
        parent: What it answers, or None where it opens.
        toxic: Its label, or None where it has none.
        score: Its votes or their percentile, or None where there are none that can be compared.
        group: Within what its score is compared; "" where there is no such thing.
        upvoted: Whether it was voted up, or None where nothing says so.
    """

    text: str
    parent: str | None
    toxic: bool | None = None
    score: float | None = None
    group: str = ""
    upvoted: bool | None = None


def split_of(unit: str, settings: Settings) -> str:
    """The split of a parent (of a comment where there is none): the same whatever else is in the data."""
    place = uniform(settings.seed, "split", unit)
    if place < settings.report_share:
        return "report"
    return "tune" if place < settings.report_share + settings.tune_share else "train"


def split_comments(comments: Sequence[Comment], settings: Settings, skipped: Skipped) -> dict[str, tuple[Comment, ...]]:
    """The comments of each split; one whose comment or parent stands in an earlier split is left out and counted."""
    parts: dict[str, list[Comment]] = {split: [] for split in SPLITS}
    for comment in comments:
        unit = text_key(comment.text if comment.parent is None else comment.parent)
        parts[split_of(unit, settings)].append(comment)
    seen: set[str] = set()
    splits = {}
    for split in SPLITS:
        kept = []
        for comment in parts[split]:
            if seen.isdisjoint(keys(comment)):
                kept.append(comment)
            else:
                skipped.add(f"it would be in {split}, but its text or parent is in an earlier split", repr_of(comment))
        for comment in kept:
            seen.update(keys(comment))
        splits[split] = tuple(kept)
    return splits


def keys(comment: Comment) -> tuple[str, ...]:
    """The texts of a comment as they are compared: its own and its parent's."""
    own = text_key(comment.text)
    return (own,) if comment.parent is None else (own, text_key(comment.parent))


def repr_of(comment: Comment) -> str:
    """The beginning of a comment, for a note."""
    return repr(comment.text if len(comment.text) <= 30 else comment.text[:30] + "…")


def with_votes(
    splits: Mapping[str, tuple[Comment, ...]], kind: str, unvoted: Skipped
) -> tuple[dict[str, tuple[Comment, ...]], str]:
    """The comments with `upvoted` filled in, and a note on what that means.

    Args:
        splits: The comments; one without a score stays so.
        kind: `votes`: above 0. `percentile`: above 50. `median`: above the median score of the comments of the same
            group in the training split, all of them where there are no groups; of a group that has none there no
            comment has votes, and these are counted.
        unvoted: Where they are counted.
    """
    medians: dict[str, float] = {}
    if kind == "median":
        scores: dict[str, list[float]] = {}
        for comment in splits["train"]:
            if comment.score is not None:
                scores.setdefault(comment.group, []).append(comment.score)
        medians = {group: statistics.median(values) for group, values in scores.items()}
        note = f"upvoted is above the median score of the training split, within {len(medians)} group(s): a proxy"
    elif kind == "percentile":
        note = "upvoted is above the 50th percentile of its group: a proxy, since such data hold no failures"
    else:
        note = "upvoted is above 0 votes"
    voted = {}
    for split, part in splits.items():
        kept = []
        for comment in part:
            bar = medians.get(comment.group) if kind == "median" else BARS[kind]
            if comment.score is None:
                kept.append(comment)
            elif bar is None:
                unvoted.add("its group has no score in the training split", repr_of(comment))
                kept.append(comment)
            else:
                kept.append(replace(comment, upvoted=comment.score > bar))
        voted[split] = tuple(kept)
    return voted, note


def check_sizes(splits: Mapping[str, Sequence[Comment]]) -> None:
    """Every split has comments.

    Raises:
        ValueError: One has none.
    """
    sizes = ", ".join(f"{split} {len(splits[split])}" for split in SPLITS)
    if not all(splits[split] for split in SPLITS):
        raise ValueError(f"the data must hold enough different texts for three splits, got comments: {sizes}")
