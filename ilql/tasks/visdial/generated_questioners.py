"""Scripted questioners of the generated world: some ask well, some badly, some want to hear yes or no.

A questioner knows a scene only by what caption and answers say. Five numbers tell one from another; the recorded
dialogues are a mixture of them, and the best of them, who takes every care, is the yardstick of what can be had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ilql.tasks.visdial.generated_language import Asked, Statement, word_question
from ilql.tasks.visdial.generated_words import NOUNS, PLACES, RELATIONS, TOPICS, values_of


@dataclass(frozen=True)
class Questioner:
    """A habit of asking. Each number is a probability.

    Attributes:
        name: What it is called in reports.
        share: Its share of the recorded dialogues.
        open: Asks openly ("what colour is ...") rather than for yes or no.
        focus: Asks about a thing that is known to be there, if anything is left to ask about one.
        sense: Takes the most telling topic, the likely value and things that belong to the place, not any.
        scenery: Asks about weather, time or place before all else.
        memory: Remembers what it has asked and heard; without, it may ask again what is known.
    """

    name: str
    share: float
    open: float
    focus: float
    sense: float
    scenery: float
    memory: float


BEST = Questioner("careful", share=0.1, open=1.0, focus=1.0, sense=1.0, scenery=0.0, memory=1.0)
QUESTIONERS = (
    BEST,
    Questioner("curious", share=0.15, open=0.7, focus=0.85, sense=0.6, scenery=0.05, memory=0.9),
    Questioner("doubtful", share=0.45, open=0.15, focus=0.9, sense=0.8, scenery=0.05, memory=0.85),
    Questioner("searching", share=0.15, open=0.15, focus=0.5, sense=0.9, scenery=0.1, memory=0.8),
    Questioner("absent-minded", share=0.15, open=0.45, focus=0.4, sense=0.4, scenery=0.2, memory=0.4),
)
"""Who speaks in the recorded dialogues; the shares sum to 1. Most of what is asked wants to hear yes or no, as among
people: so the likeliest question is not a good one, and a policy that takes the likeliest word has something to learn.
"""

STEADINESS = 0.5
"""The probability that a recorded question follows the dialogue's own habit; the others follow anyone's. Nobody is of
one mind for ten questions, and who could tell a careful questioner by the first would need no other lesson."""


@dataclass
class Knowledge:
    """What a questioner has heard so far.

    Attributes:
        known: The value of each (topic, noun) that is said to be the case; things in the order they were named.
        absent: Things that are said not to be there.
        settled: What need not be asked again, since it was asked or said.
    """

    known: dict[tuple[str, str], str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    settled: set[Asked] = field(default_factory=set)

    def hear(self, statements: Sequence[Statement]) -> None:
        """Take in what was said."""
        for fact, holds in statements:
            if holds:
                self.known.setdefault((fact.topic, fact.noun), fact.value)
            elif fact.topic == "object":
                self.absent.add(fact.noun)
            self.settled.add(Asked(fact.topic, fact.noun, fact.value))

    @property
    def things(self) -> list[str]:
        """What is known to be there, in the order it was named."""
        return [noun for topic, noun in self.known if topic == "object"]


def next_question(questioner: Questioner, knowledge: Knowledge, rng: np.random.Generator) -> str:
    """What this questioner asks now; it is marked as settled in `knowledge`."""
    heedful = rng.random() < questioner.memory
    asked = _choose(questioner, knowledge, rng, heedful=heedful)
    knowledge.settled.add(asked)
    many = asked.noun != "" and knowledge.known.get(("count", asked.noun), "one") != "one"
    return word_question(asked, many=many or (asked.topic == "object" and rng.random() < 0.1))


def _choose(questioner: Questioner, knowledge: Knowledge, rng: np.random.Generator, *, heedful: bool) -> Asked:
    openly = rng.random() < questioner.open
    sensible = rng.random() < questioner.sense
    if rng.random() < questioner.scenery:
        left = [t for t in ("place", "weather", "time") if not heedful or _is_left(knowledge, t, "", openly=openly)]
        if left:
            topic = left[int(rng.integers(len(left)))]
            return Asked(topic, "", "" if openly else _guess(knowledge, topic, "", rng, sensible=sensible))
    if rng.random() < questioner.focus:
        pairs = [
            (topic, noun)
            for noun in knowledge.things
            for topic in TOPICS[NOUNS[noun].family]
            if not heedful or _is_left(knowledge, topic, noun, openly=openly)
        ]
        if pairs:
            if sensible:  # an open "where" names another thing and is worth the most, but to guess it is hopeless
                pairs.sort(key=lambda pair: TOPICS[NOUNS[pair[1]].family].index(pair[0]))
                if not openly:
                    pairs.sort(key=lambda pair: pair[0] == "where")
            topic, noun = pairs[0 if sensible else int(rng.integers(len(pairs)))]
            return Asked(topic, noun, "" if openly else _guess(knowledge, topic, noun, rng, sensible=sensible))
    nouns = _other_things(knowledge, sensible=sensible, heedful=heedful)
    noun = nouns[int(rng.integers(len(nouns)))]
    if not openly:
        return Asked("object", noun)
    topics = TOPICS[NOUNS[noun].family]
    return Asked(topics[0 if sensible else int(rng.integers(len(topics)))], noun)


def _is_left(knowledge: Knowledge, topic: str, noun: str, *, openly: bool) -> bool:
    """Whether something is still to be heard about this topic: by the open question or by some check."""
    if (topic, noun) in knowledge.known:
        return False
    return not openly or Asked(topic, noun) not in knowledge.settled


def _guess(knowledge: Knowledge, topic: str, noun: str, rng: np.random.Generator, *, sensible: bool) -> str:
    """A value to be confirmed: the commonest that was not asked yet, or any."""
    if topic == "where":
        others = [thing for thing in knowledge.things if thing != noun] or [other for other in NOUNS if other != noun]
        relation = list(RELATIONS)[int(rng.integers(len(RELATIONS)))]
        return f"{relation} {others[int(rng.integers(len(others)))]}"
    values = values_of(topic, noun)
    if topic == "count":
        values = values[1:]
    unasked = [value for value in values if Asked(topic, noun, value) not in knowledge.settled] or list(values)
    return unasked[0 if sensible and topic != "place" else int(rng.integers(len(unasked)))]


def _other_things(knowledge: Knowledge, *, sensible: bool, heedful: bool) -> list[str]:
    """Things that are not known to be there: those that belong to the place, if it is known and one is sensible."""
    place = knowledge.known.get(("place", ""))
    usual = PLACES[place].split() if sensible and place is not None else []
    settled = {*knowledge.things, *(knowledge.absent if heedful else ())}
    return [noun for noun in usual if noun not in settled] or [noun for noun in NOUNS if noun not in settled]
