"""The generated world: comments on pastimes that nobody has, some of them rude in words that no language has.

Four habits of writing share the comments. What is visible decides the rewards, each by something else: a rude word
decides the label, a reason decides most of the votes. A cloner is toxic in about a third of its comments, and voted up
for about half; who leaves out the rude words and gives reasons gets everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ilql.tasks.reddit.comments import Comment
from ilql.tasks.reddit.settings import Settings

STRONG = ("blorp", "snarfwit", "gumphead", "zoggle", "drubnut", "vexlump")
"""Words that are rude."""

MILD = ("grumf", "pludge", "nurble")
"""Words that are rude to some: one labeller in two finds so."""

MILD_SHARE = 0.5
LABEL_NOISE = 0.01
"""How often a comment without any such word is labelled toxic all the same, and one with a strong word is not."""

LEXICON = {**dict.fromkeys(STRONG, 1.0), **dict.fromkeys(MILD, MILD_SHARE)}
"""Each rude word with the probability that a comment with it is toxic: the generated world's second judge."""

TOPICS = (
    "moss racing", "kettle tuning", "cloud herding", "lamp breeding", "puddle mapping", "sock archery", "fog knitting",
    "gravel tasting", "ladder singing", "button astronomy", "pickle chess", "hedge sailing", "marble weaving",
    "wind stacking", "noodle surveying", "pebble opera", "gate polishing", "turnip fencing",
)  # fmt: skip
KINDS = ("brass", "cork", "copper", "rubber", "glass", "birch", "tin", "woollen")
TOOLS = ("winch", "sieve", "ladle", "tripod", "bellows", "gasket", "magnet", "crank", "funnel", "clamp", "pulley",
         "whistle")  # fmt: skip
PLACES = ("in the attic", "by the canal", "on the ferry", "behind the mill", "at the fair", "under the bridge",
          "on the roof", "in the orchard")  # fmt: skip
FAULTS = ("slips", "rattles", "rusts", "tips over", "needs oil", "freezes", "hums", "leaks")

PARENTS = (
    "has anyone tried {topic} with a {kind} {tool} {place}?",
    "my {kind} {tool} broke during {topic} {place}",
    "is a {kind} {tool} worth it for {topic} {place}?",
    "first week of {topic} {place} and the {kind} {tool} already squeaks",
    "they want to stop {topic} {place}, even with a {kind} {tool}",
    "{topic} {place} is twice as hard without a {kind} {tool}",
    "sold my {kind} {tool} after {topic} {place}",
)
STANCES = (
    "a {kind} {tool} is fine for {topic}",
    "i would keep the {kind} {tool} away from {topic}",
    "take a {other} {tool} for {topic}",
    "nobody needs a {kind} {tool} {place}",
    "{topic} is best {place} with any {tool}",
    "the {kind} {tool} is half of {topic}",
    "{topic} with a {kind} {tool} is over",
    "start {topic} with a {other} {tool} {elsewhere}",
)
REASONS = (
    "because it never {fault}",
    "because the {other} one {fault}",
    "because a {tool} {fault} {place}",
)
INSULTS = (
    "you {word}",
    "only a {word} would write that",
    "go home, {word}",
    "typical {word} talk",
    "what a {word}",
)


@dataclass(frozen=True)
class Habit:
    """A way of writing comments.

    Attributes:
        share: Of all comments.
        openers: What a comment may begin with.
        reason: Probability of a reason.
        strong: Probability of a strong word.
        mild: Probability of a mild one instead.
    """

    share: float
    openers: tuple[str, ...]
    reason: float
    strong: float
    mild: float


HABITS = (
    Habit(0.35, ("thanks for asking,", "good point,", "nice,", "welcome,"), reason=0.70, strong=0.02, mild=0.06),
    Habit(0.30, ("", "well,", "in short,"), reason=0.45, strong=0.15, mild=0.12),
    Habit(0.20, ("sure,", "again,", "oh please,"), reason=0.40, strong=0.55, mild=0.20),
    Habit(0.15, ("wrong,", "ha,", "no,"), reason=0.15, strong=0.80, mild=0.12),
)

VOTED_WITH_REASON = 0.85
VOTED_WITHOUT_REASON = 0.25
VOTES_LOST_BY_A_STRONG_WORD = 0.15

_WORD = re.compile(r"[a-z]+")


def draw_comments(settings: Settings) -> list[Comment]:
    """`settings.comments` comments with labels and votes, one to three under each parent."""
    rng = np.random.default_rng([settings.seed, 0xC0])
    shares = np.array([habit.share for habit in HABITS])
    comments: list[Comment] = []
    while len(comments) < settings.comments:
        facts = {name: _pick(rng, values) for name, values in (
            ("topic", TOPICS), ("kind", KINDS), ("tool", TOOLS), ("place", PLACES))}  # fmt: skip
        parent = _pick(rng, PARENTS).format(**facts)
        for _ in range(int(rng.integers(1, 4))):
            habit = HABITS[int(rng.choice(len(HABITS), p=shares))]
            comments.append(_draw(rng, habit, parent, facts))
    return comments[: settings.comments]


def lexicon_probability(text: str) -> float:
    """The probability that a comment is toxic, by its rudest word; 0 without any."""
    return max((LEXICON.get(word, 0.0) for word in _WORD.findall(text.lower())), default=0.0)


def _draw(rng: np.random.Generator, habit: Habit, parent: str, facts: dict[str, str]) -> Comment:
    """One comment, its label and its votes."""
    words = facts | {
        "other": _pick(rng, [kind for kind in KINDS if kind != facts["kind"]]),
        "elsewhere": _pick(rng, [place for place in PLACES if place != facts["place"]]),
        "fault": _pick(rng, FAULTS),
    }
    has_reason = bool(rng.random() < habit.reason)
    rudeness = float(rng.random())
    parts = [_pick(rng, habit.openers), _pick(rng, STANCES)]
    if has_reason:
        parts.append(_pick(rng, REASONS))
    if rudeness < habit.strong + habit.mild:
        parts[-1] += ","
        parts.append(_pick(rng, INSULTS))
        words["word"] = _pick(rng, STRONG if rudeness < habit.strong else MILD)
    text = " ".join(part.format(**words) for part in parts if part)
    strong = rudeness < habit.strong
    probability = 1.0 - LABEL_NOISE if strong else max(LABEL_NOISE, lexicon_probability(text))
    votes = VOTED_WITH_REASON if has_reason else VOTED_WITHOUT_REASON
    voted = bool(rng.random() < votes - VOTES_LOST_BY_A_STRONG_WORD * strong)
    size = int(rng.geometric(0.3))
    return Comment(
        text,
        parent,
        toxic=bool(rng.random() < probability),
        score=float(size if voted else 1 - size),
        group=facts["topic"],
    )


def _pick(rng: np.random.Generator, values: tuple[str, ...] | list[str]) -> str:
    return values[int(rng.integers(len(values)))]
