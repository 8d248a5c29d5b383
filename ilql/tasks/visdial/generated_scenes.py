"""Scenes of the generated world: made-up places with things in them, each a short list of facts and a caption."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from ilql.tasks.visdial.generated_words import INDOORS, NOUNS, PLACES, RELATIONS, TIMES, TOPICS, WEATHERS, values_of


class Fact(NamedTuple):
    """Something that is the case in a scene.

    Attributes:
        topic: `object` (it is there), one of `TOPICS`, or `place`, `weather`, `time` of the whole scene.
        noun: What it is about, in the singular; empty for the whole scene.
        value: What is the case; for `where` a relation and the other noun ("behind car"), for `object` empty.
    """

    topic: str
    noun: str
    value: str


@dataclass(frozen=True)
class GeneratedScene:
    """One made-up scene.

    Attributes:
        id: Its name, unique in the world.
        caption: What the agent is told at the start.
        facts: All that is the case in it; at most one value for each topic of a noun.
    """

    id: str
    caption: str
    facts: tuple[Fact, ...]

    @cached_property
    def values(self) -> Mapping[tuple[str, str], str]:
        """The value of each (topic, noun) that is the case."""
        return {(fact.topic, fact.noun): fact.value for fact in self.facts}


def draw_scene(scene_id: str, rng: np.random.Generator) -> GeneratedScene:
    """A random scene: a place, four to six kinds of things that mostly belong there, and what they are like.

    Commoner values are drawn more often (each half as often again as the next), so that a typical guess is worth
    something. The caption tells two of the things, how they stand to each other or not, and often the place.
    """
    place = str(rng.choice(list(PLACES)))
    usual = PLACES[place].split()
    unusual = [noun for noun in NOUNS if noun not in usual]
    number = int(rng.integers(4, 7))
    strays = int(rng.binomial(number, 0.2))
    nouns = [str(noun) for noun in rng.choice(usual, size=number - strays, replace=False)]
    nouns += [str(noun) for noun in rng.choice(unusual, size=strays, replace=False)]
    nouns = [nouns[i] for i in rng.permutation(number)]

    facts = [Fact("place", "", place), Fact("time", "", _common(TIMES, rng, ratio=4.0))]
    if place not in INDOORS:
        facts.append(Fact("weather", "", _common(WEATHERS, rng, ratio=2.0)))
    wheres = _arrangement(nouns, rng)
    for noun in nouns:
        facts.append(Fact("object", noun, ""))
        for topic in TOPICS[NOUNS[noun].family]:
            value = wheres[noun] if topic == "where" else _common(values_of(topic, noun), rng, ratio=1.5)
            facts.append(Fact(topic, noun, value))
    return GeneratedScene(scene_id, _caption(nouns, facts, rng), tuple(facts))


def _common(values: tuple[str, ...], rng: np.random.Generator, *, ratio: float) -> str:
    """One of the values, each `ratio` times as likely as the next."""
    return values[bisect.bisect(_cumulative(len(values), ratio), rng.random())]


@lru_cache(maxsize=64)
def _cumulative(number: int, ratio: float) -> tuple[float, ...]:
    """The inner borders of [0, 1) cut into parts that are each `ratio` times as long as the next."""
    weights = [ratio**-index for index in range(number)]
    return tuple(sum(weights[: index + 1]) / sum(weights) for index in range(number - 1))


def _arrangement(nouns: list[str], rng: np.random.Generator) -> dict[str, str]:
    """Where each thing is: relative to an earlier one; the first as seen from the second."""
    relations = list(RELATIONS)
    wheres: dict[str, str] = {}
    for index, noun in enumerate(nouns[1:], start=1):
        relation = relations[int(rng.integers(len(relations)))]
        anchor = nouns[int(rng.integers(index))]
        wheres[noun] = f"{relation} {anchor}"
        if index == 1:
            wheres[anchor] = f"{RELATIONS[relation]} {noun}"
    return wheres


def _caption(nouns: list[str], facts: list[Fact], rng: np.random.Generator) -> str:
    """Two of the things in words, at most twelve of them."""
    values = {(fact.topic, fact.noun): fact.value for fact in facts}
    first, second = (nouns[int(i)] for i in rng.choice(len(nouns), size=2, replace=False))

    def phrase(noun: str) -> str:
        count = values["count", noun]
        colour = values.get(("colour", noun), "") if rng.random() < 0.15 else ""
        named = " ".join(word for word in (colour, NOUNS[noun].word if count == "one" else NOUNS[noun].plural) if word)
        return with_article(named) if count == "one" else f"{count} {named}"

    caption = f"{phrase(first)} and {phrase(second)}"
    return f"{caption} in {with_article(values['place', ''])}" if rng.random() < 0.5 else caption


def with_article(words: str) -> str:
    """The words after "a" or, before a vowel, "an"."""
    return f"an {words}" if words[0] in "aeio" or words.startswith("um") else f"a {words}"
