"""What is wrong with a file of dialogues, and what is in it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ilql.task import SPLITS
from ilql.tasks.dialogues import notes, read
from ilql.tasks.dialogues.schema import RECORDED, Problem, RecordedDialogue, count, shorten
from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.splits import assign, too_few, words_of

PRINTED_PROBLEMS = 20
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Spread:
    """Some numbers at a glance.

    Attributes:
        count: How many.
        mean: Their mean.
        quantiles: Least, lower quartile, median, upper quartile, largest; between two numbers linear.
    """

    count: int
    mean: float
    quantiles: tuple[float, float, float, float, float]

    def __str__(self) -> str:
        """One line."""
        least, lower, median, upper, largest = (f"{value:.6g}" for value in self.quantiles)
        return f"{least} · {lower} · {median} · {upper} · {largest} (mean {self.mean:.4g})"


@dataclass(frozen=True)
class RewardSummary:
    """One reward in the data.

    Attributes:
        values: The numbers that turns have, or None where none has any.
        share_without: Share of the agent's turns that have none; they count as 0.
        returns: The dialogues' sums.
    """

    values: Spread | None
    share_without: float
    returns: Spread


@dataclass(frozen=True)
class Summary:
    """What the good lines of a file hold.

    Attributes:
        lines: Lines with something on them, good or bad.
        bad_lines: Those with a problem, which count in nothing below.
        dialogues: Number of dialogues.
        turns: Number of turns.
        agent_turns: Number of the agent's.
        empty_turns: Number of the agent's turns without a word.
        turns_each: Turns of a dialogue; None where there is no dialogue, as in all that follow.
        words_each: Words of a dialogue, between white space.
        word_counts: Those of every dialogue.
        heard_counts: Words of what the world says at once, each time.
        characters_each: Characters of a dialogue.
        words_said: Words of a turn of the agent.
        rewards: By the reward's name, `recorded` first.
        roles: Number of turns by role, the agent's marked.
        share_ended: Share of the dialogues that ended, the others being cut off.
        longest: Name and words of the longest dialogue.
        duplicates: Dialogues that stand word for word on an earlier line.
        named: Dialogues with an id.
        asked: Dialogues by the split they ask for.
        splits: Dialogues by the split they come into; empty where they cannot be split.
        unusable: Why they cannot be split, so that nothing can be learnt from them; None where they can.
        too_few: What is wrong with the splits' sizes, and what mends it; None where they are large enough.
        ignored: Keys that mean nothing here, with their counts.
        remarks: What was odd, and read all the same.
    """

    lines: int
    bad_lines: int
    dialogues: int
    turns: int
    agent_turns: int
    empty_turns: int
    turns_each: Spread | None
    words_each: Spread | None
    word_counts: tuple[int, ...]
    heard_counts: tuple[int, ...]
    characters_each: Spread | None
    words_said: Spread | None
    rewards: dict[str, RewardSummary]
    roles: dict[str, int]
    share_ended: float
    longest: tuple[str, int] | None
    duplicates: int
    named: int
    asked: dict[str, int]
    splits: dict[str, int]
    unusable: str | None
    too_few: str | None
    ignored: str
    remarks: tuple[str, ...]

    def text(self) -> str:
        """Everything above for a reader, in lines."""
        bad = f", and {count(self.bad_lines, 'line')} with problems, not counted" if self.bad_lines else ""
        rows = [f"{count(self.dialogues, 'dialogue')} on {count(self.lines, 'line')}{bad}; {self.named} with an id"]
        if self.dialogues:
            assert self.longest is not None
            silent = f", {self.empty_turns} of them without a word" if self.empty_turns else ""
            rows += [
                f"{count(self.turns, 'turn')}, {self.agent_turns} of the agent{silent}",
                "least · lower quartile · median · upper quartile · largest of",
                f"  turns of a dialogue: {self.turns_each}",
                f"  words of a dialogue: {self.words_each}",
                f"  characters of a dialogue: {self.characters_each}",
                f"  words of a turn of the agent: {self.words_said}",
            ]
            for name, reward in self.rewards.items():
                rows.append(f"  return of a dialogue under {name}: {reward.returns}")
                values = "none has a number" if reward.values is None else str(reward.values)
                rows.append(f"  reward of a turn under {name}: {values}; {reward.share_without:.0%} have none")
            rows += [
                "roles: " + ", ".join(f"{role} {number}" for role, number in self.roles.items()),
                f"{self.share_ended:.0%} of the dialogues ended; the others were cut off",
                f"the longest is {shorten(self.longest[0])!r} with {count(self.longest[1], 'word')}",
                f"{self.duplicates} {'stands' if self.duplicates == 1 else 'stand'} word for word on an earlier line",
            ]
        if self.asked:
            rows.append("asked for: " + ", ".join(f"{split} {number}" for split, number in self.asked.items()))
        if self.splits:
            rows.append("split: " + ", ".join(f"{split} {number}" for split, number in self.splits.items()))
        if self.ignored:
            rows.append(f"ignored keys that mean nothing here: {self.ignored}")
        rows += [*self.remarks, *(line for line in (self.unusable, self.too_few) if line is not None)]
        return "\n".join(rows)


def validate(path: str, settings: Settings) -> tuple[tuple[Problem, ...], Summary]:
    """All problems of a file, and what its good lines hold; raises nothing, whatever is in the file.

    Args:
        path: A .jsonl or .jsonl.gz file.
        settings: Say whose roles are whose.
    """
    recordings = read.read_file(path, settings)
    return recordings.problems, summarise(recordings, settings)


def report(problems: Sequence[Problem], summary: Summary) -> str:
    """The first problems and the number of the others, then the summary; nothing of a file that is none of lines.

    What is wrong with such a file is said by `refusal` alone.
    """
    if any(not problem.line for problem in problems):
        return ""
    rows = [str(problem) for problem in problems[:PRINTED_PROBLEMS]]
    if len(problems) > PRINTED_PROBLEMS:
        rows.append(f"and {count(len(problems) - PRINTED_PROBLEMS, 'more problem')}")
    return "\n".join([*rows, summary.text()])


def refusal(path: str, problems: Sequence[Problem], summary: Summary, settings: Settings) -> str | None:
    """Why training does not take the file, in one line; None if it does: bad lines are none or skipped, splits are had.

    Args:
        path: The file, as the user named it.
        problems: All that are in it.
        summary: What its good lines hold.
        settings: Say whether bad lines are skipped.
    """
    refused = [problem for problem in problems if not (settings.skip_bad_lines and problem.line)]
    if refused and not refused[0].line:
        message = refused[0].message
        return message if path in message else f"{path}: {message}"
    if refused:
        wrong, lines = count(len(refused), "problem"), count(summary.lines, "line")
        return f"{path} must be dialogues without a problem, got {wrong} on {lines}; {refused[0]}"
    return None if summary.unusable is None else f"{path}: {summary.unusable}"


def summarise(recordings: read.Recordings, settings: Settings) -> Summary:
    """What the good lines hold."""
    dialogues = recordings.dialogues
    turns = [turn for dialogue in dialogues for turn in dialogue.turns]
    said = [turn for turn in turns if turn.by_agent]
    words = [_words(dialogue) for dialogue in dialogues]
    names = dict.fromkeys(name for turn in said for name in turn.rewards)
    seen = Counter(words_of(dialogue) for dialogue in dialogues)
    roles = Counter(f"{turn.role} (agent)" if turn.by_agent else turn.role for turn in turns)
    longest = max(range(len(dialogues)), key=lambda place: words[place], default=None)
    asked = Counter(dialogue.split for dialogue in dialogues if dialogue.split is not None)
    splits, unusable = _splits(dialogues, settings)
    return Summary(
        lines=recordings.lines,
        bad_lines=recordings.bad_lines,
        dialogues=len(dialogues),
        turns=len(turns),
        agent_turns=len(said),
        empty_turns=sum(not turn.text.strip() for turn in said),
        turns_each=_spread([len(dialogue.turns) for dialogue in dialogues]),
        words_each=_spread(words),
        word_counts=tuple(words),
        heard_counts=tuple(count for dialogue in dialogues for count in _heard(dialogue)),
        characters_each=_spread([sum(len(turn.text) for turn in dialogue.turns) for dialogue in dialogues]),
        words_said=_spread([len(turn.text.split()) for turn in said]),
        rewards={
            name: _reward(name, dialogues) for name in (RECORDED, *sorted(n for n in names if n != RECORDED)) if said
        },
        roles=dict(roles.most_common()),
        share_ended=float(np.mean([dialogue.ended for dialogue in dialogues])) if dialogues else 0.0,
        longest=None if longest is None else (dialogues[longest].name, words[longest]),
        duplicates=sum(count - 1 for count in seen.values()),
        named=sum(dialogue.id is not None for dialogue in dialogues),
        asked=dict(sorted(asked.items())),
        splits={split: splits.count(split) for split in SPLITS} if splits else {},
        unusable=unusable,
        too_few=too_few(dialogues, splits, settings) if splits else None,
        ignored=notes.ignored_keys(dialogues),
        remarks=recordings.remarks,
    )


def _splits(dialogues: Sequence[RecordedDialogue], settings: Settings) -> tuple[list[str], str | None]:
    """Every dialogue's split, or none and why."""
    try:
        return assign(dialogues, settings), None
    except ValueError as fault:
        return [], str(fault)


def _reward(name: str, dialogues: Sequence[RecordedDialogue]) -> RewardSummary:
    said = [turn for dialogue in dialogues for turn in dialogue.turns if turn.by_agent]
    values = [turn.rewards[name] for turn in said if name in turn.rewards]
    returns = _spread([sum(turn.rewards.get(name, 0.0) for turn in dialogue.turns) for dialogue in dialogues])
    assert returns is not None
    return RewardSummary(_spread(values), 1.0 - len(values) / len(said), returns)


def _words(dialogue: RecordedDialogue) -> int:
    return sum(len(turn.text.split()) for turn in dialogue.turns)


def _heard(dialogue: RecordedDialogue) -> list[int]:
    """Words of each run of the world's turns."""
    runs = itertools.groupby(dialogue.turns, lambda turn: turn.by_agent)
    return [sum(len(turn.text.split()) for turn in run) for by_agent, run in runs if not by_agent]


def _spread(numbers: Sequence[float]) -> Spread | None:
    if not numbers:
        return None
    least, lower, median, upper, largest = (float(value) for value in np.quantile(numbers, QUANTILES))
    return Spread(len(numbers), float(np.mean(numbers)), (least, lower, median, upper, largest))
