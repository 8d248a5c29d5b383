"""Which column of a file is what, and which labels are toxic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from ilql.tasks.reddit.settings import AUTO, Labelling
from ilql.tasks.reddit.tables import Cell, Table, plain

USUAL = {
    "comment": (
        "text",
        "comment",
        "body",
        "comment_text",
        "selftext",
        "tweet",
        "message",
        "content",
        "test_case",
        "title",
    ),
    "parent": ("parent", "parent_comment", "parent_text", "parent_body", "context"),
    "title": ("title",),
    "score": ("score_pct", "score", "upvotes", "ups", "votes", "likes"),
    "label": ("label", "labels", "toxic", "toxicity", "is_toxic", "label_gold", "class"),
    "group": ("subreddit", "group"),
}
"""Names that columns usually have, by what they hold; the first that a file has is taken."""

TOXIC_WORDS = ("toxic", "toxicity", "hate", "hateful", "offensive", "abusive", "insult", "obscene", "true", "yes")
"""Labels that are toxic unless a setting says which are."""

_SHOWN = 12


def find_column(table: Table, wanted: str, role: str, setting: str, *, needed: bool = False) -> str | None:
    """The column of a role, or None where there is none.

    Args:
        table: The file.
        wanted: A name, `auto` or "".
        role: A key of `USUAL`.
        setting: The setting that names it, for messages.
        needed: Whether the file is of no use without it.

    Raises:
        ValueError: The file has no such column, or none that is needed.
    """
    there = ", ".join(table.columns)
    if wanted == AUTO:
        lower = {name.strip().lower(): name for name in reversed(table.columns)}
        found = next((lower[name] for name in USUAL[role] if name in lower), None)
    elif wanted == "":
        found = None
    elif wanted in table.columns:
        found = wanted
    else:
        raise ValueError(
            f"{table.source} must have the column {wanted!r} that {setting} names; {table.path} has {there}"
        )
    if found is None and needed:
        raise ValueError(
            f"{table.source} must have a column for the {role}, got {there}; name it with --set world.{setting}=COLUMN "
            f"({table.path})"
        )
    return found


def as_number(cell: Cell) -> float | None:
    """A cell as a finite number, or None where it is none."""
    try:
        value = float("nan" if cell is None else cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def is_missing(cell: Cell) -> bool:
    """Whether a cell holds nothing: no value, no letters, not a number."""
    return (
        cell is None or (isinstance(cell, str) and not cell.strip()) or (isinstance(cell, float) and math.isnan(cell))
    )


def read_labels(cells: Sequence[Cell], labels: Labelling, source: str) -> list[bool | None]:
    """Whether each row is toxic; None where it has no label.

    A cell may hold several labels with commas between, and is toxic if one of them is. Where the settings name no
    toxic label, a column of nothing but numbers is compared with the threshold and any other with the usual words.

    Raises:
        ValueError: All that have a label, or none, would be toxic; the message shows the labels that were met.
    """
    met = [cell for cell in cells if cell is not None and not is_missing(cell)]
    if not labels.toxic and all(as_number(cell) is not None for cell in met):
        toxic = [None if is_missing(cell) else (as_number(cell) or 0.0) >= labels.threshold for cell in cells]
        rule = f"numbers from {labels.threshold:g} on are toxic"
    else:
        words = set(labels.toxic or TOXIC_WORDS)
        toxic = [None if is_missing(cell) or cell is None else bool(words & _parts(cell)) for cell in cells]
        rule = f"toxic are {', '.join(labels.toxic)}" if labels.toxic else "toxic are the usual words"
    if len(set(toxic) - {None}) < 2:
        without = "; --set world.label_column= does without" if source == "data" else ""
        raise ValueError(
            f"the labels of {source} must be of two kinds, got {_commonest(map(plain, met))}, where {rule}; name the "
            f"toxic ones with --set world.{labels.setting}=LABEL,LABEL, or another column{without}"
        )
    return toxic


def _parts(cell: str | float) -> set[str]:
    return {part.strip().lower() for part in plain(cell).split(",")}


def _commonest(met: Iterable[str]) -> str:
    counts = Counter(met)
    shown = sorted(counts, key=lambda label: (-counts[label], label))[:_SHOWN]
    more = f" and {len(counts) - _SHOWN} others" if len(counts) > _SHOWN else ""
    return (", ".join(f"{label[:30]!r}" for label in shown) + more) if shown else "none"
