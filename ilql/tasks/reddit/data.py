"""Comments of a file, cleaned and cut to a length, and the labelled texts of others."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ilql.tasks.reddit.columns import as_number, find_column, is_missing, read_labels
from ilql.tasks.reddit.comments import Comment, check_sizes, split_comments, with_votes
from ilql.tasks.reddit.settings import Settings, labelling, listed
from ilql.tasks.reddit.tables import Cell, Skipped, Table, open_table
from ilql.tasks.reddit.texts import clean, text_key, uniform


@dataclass(frozen=True)
class Corpus:
    """The comments of every split, in the order of their file, and what reading them had to say."""

    splits: Mapping[str, tuple[Comment, ...]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """The columns of `data` that are used, each a name or None."""

    comment: str
    parent: str | None
    title: str | None
    score: str | None
    label: str | None
    group: str | None


@dataclass(frozen=True)
class _Row:
    """A row before labels and scores are understood, which takes all rows.

    Where its score is None though there is a column of scores, `unvoted` says why, and `place` where it stands.
    """

    text: str
    parent: str | None
    label: Cell
    score: float | None
    group: str
    cut: tuple[str, ...]
    place: str
    unvoted: str


def read_corpus(name: str, settings: Settings) -> Corpus:
    """The comments of the file `name`.

    Raises:
        ValueError: The file cannot be read, lacks a column, has no score in its column of scores, or holds too few
            rows for three splits; one line.
    """
    table = open_table("data", name, columns=_names(settings.columns), quotes=settings.quotes)
    columns = find_columns(table, settings)
    skipped, unvoted = Skipped(), Skipped()
    rows, usable = _lowest(_rows(table, columns, settings, skipped), settings)
    if not rows:
        raise ValueError(f"data must hold a comment that can be used, got none in {name}: {_why(skipped)}")
    for row in rows:
        if row.unvoted:
            unvoted.add(row.unvoted, row.place)
    if columns.score is not None and all(row.unvoted for row in rows):
        raise ValueError(
            f"the column {columns.score!r} of {name} must hold a score, got none: "
            f"{'; '.join(unvoted.notes('data', done='read'))}; --set world.score_column= does without it"
        )
    labels = read_labels([row.label for row in rows], labelling(settings, "data"), "data") if columns.label else None
    comments = [
        Comment(row.text, row.parent, toxic=labels[place] if labels else None, score=row.score, group=row.group)
        for place, row in enumerate(rows)
    ]
    splits: Mapping[str, tuple[Comment, ...]] = split_comments(comments, settings, skipped)
    notes = [_columns_note(name, columns)]
    if columns.score is not None:
        splits, note = with_votes(splits, _score_kind(settings, columns), unvoted)
        notes.append(note)
    check_sizes(splits)
    notes += skipped.notes("data") + unvoted.notes("data", done="kept without votes")
    if len(rows) < usable:
        notes.append(f"used {len(rows)} of {usable} rows, those with the lowest hash (max_rows)")
    for what, limit in (("parents", settings.max_parent_characters), ("comments", settings.max_comment_characters)):
        if number := sum(what in row.cut for row in rows):
            notes.append(f"cut {number} {what} to their first {limit} characters")
    return Corpus(splits, tuple(notes))


def find_columns(table: Table, settings: Settings) -> Columns:
    """Which column of `data` is what.

    A title is used only where there is no parent column: then a comment answers its title, and a post without text is
    its title, said to nobody.

    Raises:
        ValueError: A column that a setting names is not there, or no column holds comments.
    """
    comment = find_column(table, settings.comment_column, "comment", "comment_column", needed=True)
    assert comment is not None
    parent = find_column(table, settings.parent_column, "parent", "parent_column")
    title = find_column(table, settings.title_column, "title", "title_column")
    score = find_column(table, settings.score_column, "score", "score_column")
    group = find_column(table, settings.group_column, "group", "group_column")
    return Columns(
        comment=comment,
        parent=parent,
        title=title if parent is None and title != comment else None,
        score=score,
        label=find_column(table, settings.label_column, "label", "label_column"),
        group=group if score is not None and settings.score_kind == "median" else None,
    )


def read_labelled(source: str, name: str, settings: Settings) -> tuple[list[tuple[str, bool]], list[str]]:
    """The labelled texts of another file, `labelled` or `judge_data`, each once, and notes.

    Texts are cleaned and cut as comments are. A text that stands there with both labels keeps the first.

    Raises:
        ValueError: The file cannot be read, lacks a column, or has labels of one kind alone; one line.
    """
    prefix = {"labelled": "labelled", "judge_data": "judge"}[source]
    table = open_table(source, name, columns=_names(getattr(settings, f"{prefix}_columns")), quotes=settings.quotes)
    text_setting, label_setting = f"{prefix}_text_column", f"{prefix}_label_column"
    text = find_column(table, getattr(settings, text_setting), "comment", text_setting, needed=True)
    label = find_column(table, getattr(settings, label_setting), "label", label_setting, needed=True)
    assert text is not None
    assert label is not None
    skipped, seen = Skipped(), set[str]()
    kept: list[tuple[float, str, Cell]] = []
    for place, (said, cell) in table.rows([text, label], skipped):
        if not isinstance(said, str) or not clean(said).strip():
            skipped.add("it has no text", place)
        elif is_missing(cell):
            skipped.add("it has no label", place)
        elif text_key(clean(said)) in seen:
            skipped.add("its text stood there before", place)
        else:
            key = text_key(clean(said))
            seen.add(key)
            kept.append((uniform(settings.seed, source, key), clean(said)[: settings.max_comment_characters], cell))
    if not kept:
        raise ValueError(f"{source} must hold a labelled text, got none in {name}: {'; '.join(skipped.notes(source))}")
    usable = len(kept)
    kept = sorted(kept, key=lambda row: row[:2])[: settings.max_rows]
    toxic = read_labels([cell for _, _, cell in kept], labelling(settings, source), source)
    notes = skipped.notes(source)
    if len(kept) < usable:
        notes.append(f"used {len(kept)} of {usable} rows of {source}, those with the lowest hash (max_rows)")
    return [(said, bool(bad)) for (_, said, _), bad in zip(kept, toxic, strict=True)], notes


def _rows(table: Table, columns: Columns, settings: Settings, skipped: Skipped) -> Iterator[tuple[str, _Row]]:
    """Each usable row of `data` and the text its hash is made of."""
    wanted = [columns.comment, columns.parent, columns.title, columns.score, columns.label, columns.group]
    there = [name for name in wanted if name is not None]
    gone = set(listed(settings.deleted))
    for place, cells in table.rows(there, skipped):
        values = iter(cells)
        said, parent, title, votes, label, group = (None if name is None else next(values) for name in wanted)
        if not (said is None or isinstance(said, str)):
            skipped.add("its comment is no text", place)
            continue
        parent = parent if columns.parent is not None else title
        if not (parent is None or isinstance(parent, str)):
            skipped.add("its parent is no text", place)
            continue
        text, before = clean(said or ""), _opening(parent)
        if columns.title is not None and not text.strip():
            text, before = before or "", None
        score = as_number(votes)
        limits = {"comments": settings.max_comment_characters, "parents": settings.max_parent_characters}
        cut = tuple(what for what, said in (("comments", text), ("parents", before or "")) if len(said) > limits[what])
        text, before = text[: limits["comments"]], _opening((before or "")[: limits["parents"]])
        if not text.strip():
            skipped.add("its comment is empty", place)
        elif text.strip().lower() in gone or (before is not None and before.strip().lower() in gone):
            skipped.add("its comment or parent was deleted", place)
        else:
            why = _unvoted(columns, votes, group)
            row = _Row(text, before, label, None if why else score, str(group or ""), cut, place, why)
            yield text_key(f"{before or ''}\n{text}"), row


def _unvoted(columns: Columns, votes: Cell, group: Cell) -> str:
    """Why a row's score says nothing; empty where it says something, or where nobody asks it."""
    if columns.score is None:
        return ""
    if is_missing(votes):
        return "it has no score"
    if as_number(votes) is None:
        return "its score is no finite number"
    return "it has no group" if columns.group is not None and is_missing(group) else ""


def _opening(parent: str | None) -> str | None:
    """A parent's text, or None where there is nothing to answer."""
    text = clean(parent or "")
    return text if text.strip() else None


def _lowest(rows: Iterator[tuple[str, _Row]], settings: Settings) -> tuple[list[_Row], int]:
    """The `max_rows` rows with the lowest hash, in the order of the file, and how many there were.

    A hash and not the first ones: files are often sorted. It is another hash than the split's.
    """
    kept: list[tuple[float, int, _Row]] = []
    number = 0
    for number, (unit, row) in enumerate(rows, start=1):
        entry = (-uniform(settings.seed, "rows", unit), -number, row)
        if len(kept) < settings.max_rows:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
    return [row for _, _, row in sorted(kept, key=lambda entry: -entry[1])], number


def _score_kind(settings: Settings, columns: Columns) -> str:
    assert columns.score is not None
    if settings.score_kind != "auto":
        return settings.score_kind
    return "percentile" if columns.score.lower().endswith(("pct", "percentile")) else "votes"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")] if text.strip() else []


def _why(skipped: Skipped) -> str:
    return "; ".join(skipped.notes("data")) or "the file has no rows"


def _columns_note(name: str, columns: Columns) -> str:
    parts = [f"comment {columns.comment!r}"]
    parts += [
        f"{role} {column!r}"
        for role, column in (
            ("parent", columns.parent),
            ("parent (or the comment, where that is empty)", columns.title),
            ("score", columns.score),
            ("label", columns.label),
            ("group", columns.group),
        )
        if column is not None
    ]
    return f"read {Path(name).name}: {', '.join(parts)}"
