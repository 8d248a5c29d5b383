"""What questions, answers and captions of the generated world mean.

A question is read as a bag of words: any order will do, except that the first thing named is the one that is asked
about. What is said becomes statements, each a fact and whether it is the case; both the guesser and the scripted
questioners know a scene only through them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ilql.tasks.visdial.generated_scenes import Fact
from ilql.tasks.visdial.generated_words import (
    ACTIONS,
    CLOTHES,
    COLOURS,
    FUNCTION_WORDS,
    MATERIALS,
    NOUNS,
    NUMBERS,
    PLACES,
    TIMES,
    WEATHERS,
)

Statement = tuple[Fact, bool]
"""A fact and whether it is the case."""

CANNOT_TELL = "can't tell"
NOTHING_FITS = "i don't know"
LONGEST_QUESTION = 10
"""A question of more words than this is understood by nobody."""

_SINGULAR = {form: noun.word for noun in NOUNS.values() for form in (noun.word, noun.plural)}
_TOPIC_OF_VALUE = {
    **dict.fromkeys(COLOURS, "colour"),
    **dict.fromkeys(MATERIALS, "material"),
    **dict.fromkeys(CLOTHES, "clothes"),
    **dict.fromkeys((action for actions in ACTIONS.values() for action in actions), "action"),
    **dict.fromkeys(NUMBERS, "count"),
    **dict.fromkeys(WEATHERS, "weather"),
    **dict.fromkeys(TIMES, "time"),
    **dict.fromkeys(PLACES, "place"),
}
_RELATION = re.compile(r"\b(in front of|next to|near|behind|on|under)\b")
_GLOBAL = ("weather", "time", "place")


@dataclass(frozen=True)
class Asked:
    """What a question is about.

    Attributes:
        topic: As in `Fact`.
        noun: As in `Fact`.
        value: What is asked to be confirmed by yes or no; empty for an open question and for "is there a ...".
    """

    topic: str
    noun: str
    value: str = ""

    @property
    def is_check(self) -> bool:
        """Whether it is a question for yes or no."""
        return self.topic == "object" or self.value != ""


@lru_cache(maxsize=1 << 16)
def read_question(question: str) -> Asked | None:
    """What is asked, or None where the question makes no sense: unknown or repeated words, too much, too little."""
    words = re.findall(r"[^\s?.,!]+", question.lower())
    content = [word for word in words if word not in FUNCTION_WORDS]
    if not words or len(words) > LONGEST_QUESTION or len(set(content)) != len(content):
        return None
    relation = _RELATION.search(question.lower())
    related = relation.group().split() if relation else []
    nouns = [_SINGULAR[word] for word in content if word in _SINGULAR]
    values = [word for word in content if word in _TOPIC_OF_VALUE]
    if len(nouns) + len(values) + sum(word in related for word in content) != len(content):
        return None
    said = set(words)
    topic = _open_topic(said, asks_value=bool(values))
    if topic is not None:
        if values or relation or len(nouns) > 1:
            return None
        if topic in _GLOBAL or (topic == "where" and not nouns and said & {"this", "it"}):
            return None if nouns else Asked("place" if topic == "where" else topic, "")
        return Asked(topic, nouns[0]) if nouns else None
    if relation and len(nouns) == 2 and not values:
        return Asked("where", nouns[0], f"{relation.group()} {nouns[1]}")
    if relation or not said & {"is", "are", "do", "does", "can", "any"}:
        return None
    if len(nouns) == 1 and not values:
        return Asked("object", nouns[0]) if said & {"there", "any", "see"} else None
    if len(values) == 1:
        about = _TOPIC_OF_VALUE[values[0]]
        if (about in _GLOBAL) == (not nouns) and len(nouns) <= 1:
            return Asked(about, nouns[0] if nouns else "", values[0])
    return None


def _open_topic(said: set[str], *, asks_value: bool) -> str | None:
    """The topic that the words of an open question name."""
    if "where" in said:
        return "where"
    if {"how", "many"} <= said:
        return "count"
    if not said & {"what", "which", "how"} or asks_value:
        return None
    for word, topic in (
        ("colour", "colour"),
        ("color", "colour"),
        ("doing", "action"),
        ("wearing", "clothes"),
        ("made", "material"),
        ("weather", "weather"),
        ("time", "time"),
    ):
        if word in said:
            return topic
    return None


@lru_cache(maxsize=1 << 16)
def read_answer(question: str, answer: str) -> tuple[Statement, ...]:
    """What the answer to this question says is the case; nothing where either cannot be read."""
    asked = read_question(question)
    words = answer.lower().replace(",", " ").split()
    if asked is None or answer in (CANNOT_TELL, NOTHING_FITS) or not words:
        return ()
    if answer.startswith("there is no ") or (asked.topic == "count" and words[0] == "none"):
        return ((Fact("object", asked.noun, ""), False),)
    here: tuple[Statement, ...] = ((Fact("object", asked.noun, ""), True),) if asked.noun else ()
    relation = _RELATION.search(answer)
    if asked.topic == "where" and asked.value == "":
        anchor = _SINGULAR.get(words[-1])
        if relation is None or anchor is None:
            return ()
        place = Fact("where", asked.noun, f"{relation.group()} {anchor}")
        return (*here, (place, True), (Fact("object", anchor, ""), True))
    given = [word for word in words if word in _TOPIC_OF_VALUE]
    if not asked.is_check:
        return (*here, (Fact(asked.topic, asked.noun, given[0]), True)) if given else ()
    denied = words[0] == "no" or answer in ("i don't think so", "not that i can see")
    agreed = words[0] == "yes" or answer == "i think so"
    if not denied and not agreed:
        return ()
    if asked.topic == "object":
        counted = tuple((Fact("count", asked.noun, number), True) for number in given)
        return ((Fact("object", asked.noun, ""), agreed), *counted)
    corrected = tuple((Fact(asked.topic, asked.noun, value), True) for value in given)
    checked = (Fact(asked.topic, asked.noun, asked.value), agreed)
    reached = ((Fact("object", asked.value.split()[-1], ""), True),) if agreed and asked.topic == "where" else ()
    return (*here, checked, *corrected, *reached)


@lru_cache(maxsize=1 << 16)
def read_caption(caption: str) -> tuple[Statement, ...]:
    """What a caption says is the case: things, their number and colour, and the place."""
    statements: list[Statement] = []
    told: list[tuple[str, str]] = []
    for word in caption.lower().split():
        if word in _SINGULAR:
            noun = _SINGULAR[word]
            statements.append((Fact("object", noun, ""), True))
            statements += [(Fact(topic, noun, value), True) for topic, value in told]
            told = []
        elif word in ("a", "an"):
            told = [("count", "one")]
        elif word in PLACES:
            statements.append((Fact("place", "", word), True))
        elif word in _TOPIC_OF_VALUE:
            told.append((_TOPIC_OF_VALUE[word], word))
    return tuple(statements)


def word_question(asked: Asked, *, many: bool = False) -> str:
    """The question in plain words.

    Args:
        asked: What to ask.
        many: Whether to speak of the thing in the plural.
    """
    if asked.noun == "":
        if asked.topic == "place":
            return f"is this a {asked.value} ?" if asked.value else "where is this ?"
        if asked.topic == "weather":
            return f"is it {asked.value} ?" if asked.value else "what is the weather like ?"
        return f"is it {asked.value} time ?" if asked.value else "what time is it ?"
    noun = NOUNS[asked.noun]
    verb, name = ("are", noun.plural) if many else ("is", noun.word)
    if asked.topic == "object":
        return f"are there any {noun.plural} ?" if many else f"is there a {noun.word} ?"
    if asked.topic == "count":
        return f"are there {asked.value} {noun.plural} ?" if asked.value else f"how many {noun.plural} are there ?"
    if asked.topic == "where":
        if not asked.value:
            return f"where {verb} the {name} ?"
        relation, anchor = asked.value.rsplit(" ", 1)
        return f"{verb} the {name} {relation} the {anchor} ?"
    if asked.value:
        value = {"clothes": f"wearing a {asked.value}", "material": f"made of {asked.value}"}.get(
            asked.topic, asked.value
        )
        return f"{verb} the {name} {value} ?"
    if asked.topic == "colour":
        return f"what colour {verb} the {name} ?"
    verb_phrase = {"action": "doing", "clothes": "wearing", "material": "made of"}[asked.topic]
    return f"what {verb} the {name} {verb_phrase} ?"
