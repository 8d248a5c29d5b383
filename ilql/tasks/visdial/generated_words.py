"""The words of the generated world: what there is, what it can be like, and where things tend to be found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A kind of thing.

    Attributes:
        word: Singular, its name everywhere.
        plural: Said after a number above one and in "how many".
        family: `person`, `animal` or `thing`; decides which topics make sense.
        colours: The colours it comes in, the commonest first; empty for people.
        materials: What it is made of, the commonest first; empty for people and animals.
    """

    word: str
    plural: str
    family: str
    colours: tuple[str, ...] = ()
    materials: tuple[str, ...] = ()


TOPICS = {
    "person": ("where", "action", "clothes", "count"),
    "animal": ("where", "colour", "action", "count"),
    "thing": ("where", "colour", "material", "count"),
}
"""What one can ask about a member of each family."""

ACTIONS = {
    "person": ("standing", "walking", "sitting", "talking", "eating", "reading", "smiling", "waiting"),
    "animal": ("standing", "sleeping", "eating", "running", "playing", "drinking"),
}
CLOTHES = ("shirt", "jacket", "coat", "dress", "suit", "hat", "sweater", "uniform")
NUMBERS = ("one", "two", "three", "four", "five")
WEATHERS = ("sunny", "cloudy", "rainy", "snowy")
TIMES = ("day", "night")
RELATIONS = {
    "next to": "next to",
    "near": "near",
    "behind": "in front of",
    "in front of": "behind",
    "on": "under",
    "under": "on",
}
"""Each relation and what it is seen from the other side."""


def _thing(word: str, colours: str, materials: str, plural: str = "") -> Noun:
    return Noun(word, plural or f"{word}s", "thing", tuple(colours.split()), tuple(materials.split()))


def _animal(word: str, colours: str, plural: str = "") -> Noun:
    return Noun(word, plural or f"{word}s", "animal", tuple(colours.split()))


NOUNS = {
    noun.word: noun
    for noun in (
        Noun("man", "men", "person"),
        Noun("woman", "women", "person"),
        Noun("boy", "boys", "person"),
        Noun("girl", "girls", "person"),
        Noun("baby", "babies", "person"),
        Noun("waiter", "waiters", "person"),
        Noun("farmer", "farmers", "person"),
        Noun("player", "players", "person"),
        _animal("dog", "brown black white yellow"),
        _animal("cat", "grey black orange white"),
        _animal("horse", "brown white black grey"),
        _animal("cow", "white brown black"),
        _animal("sheep", "white black grey", "sheep"),
        _animal("bird", "white grey blue red"),
        _animal("duck", "brown white green"),
        _animal("goat", "white brown grey"),
        _thing("car", "red white black blue", "metal"),
        _thing("bus", "red yellow white green", "metal", "buses"),
        _thing("truck", "white red blue green", "metal"),
        _thing("bike", "black red blue green", "metal"),
        _thing("train", "grey blue red green", "metal"),
        _thing("boat", "white blue red brown", "wood plastic metal"),
        _thing("sign", "red white green blue", "metal wood"),
        _thing("bench", "brown green grey white", "wood stone metal", "benches"),
        _thing("table", "brown white black grey", "wood plastic glass metal"),
        _thing("chair", "brown black white red", "wood plastic metal"),
        _thing("couch", "brown grey blue red", "leather cloth", "couches"),
        _thing("bed", "white brown grey", "wood metal"),
        _thing("lamp", "white yellow black", "metal glass plastic"),
        _thing("pillow", "white blue red green", "cloth"),
        _thing("clock", "white black brown", "metal wood plastic"),
        _thing("laptop", "black grey white", "plastic metal"),
        _thing("book", "blue red brown green", "paper leather"),
        _thing("cup", "white blue red green", "glass plastic paper"),
        _thing("plate", "white blue grey", "glass plastic paper"),
        _thing("bottle", "green brown white", "glass plastic"),
        _thing("bowl", "white blue brown", "glass wood plastic"),
        _thing("fridge", "white grey black", "metal"),
        _thing("stove", "white black grey", "metal"),
        _thing("ball", "white orange red yellow", "leather plastic"),
        _thing("kite", "red blue yellow green", "paper cloth plastic"),
        _thing("umbrella", "black red blue yellow", "cloth plastic"),
        _thing("bag", "black brown blue red", "leather cloth paper"),
        _thing("fence", "white brown grey", "wood metal stone"),
        _thing("tree", "green yellow brown", "wood"),
        _thing("barn", "red brown white", "wood stone"),
        _thing("bucket", "blue grey red", "metal plastic"),
        _thing("towel", "white blue yellow red", "cloth"),
    )
}
"""Every kind of thing by its singular."""

PLACES = {
    "kitchen": "woman man table chair cup plate bottle bowl fridge stove clock cat",
    "bedroom": "girl cat bed pillow lamp clock book laptop chair bag baby",
    "office": "man woman table chair laptop lamp clock book cup bag",
    "cafe": "waiter woman man table chair cup plate bottle laptop umbrella bag",
    "street": "man woman car bus truck bike sign dog bag umbrella tree",
    "station": "man woman train bench clock sign bag boy bird",
    "park": "boy girl dog duck bench tree ball kite bike bird fence",
    "beach": "man girl boy boat ball kite umbrella towel bird dog bag",
    "farm": "farmer horse cow sheep goat barn fence truck bucket tree",
    "field": "player boy ball fence sheep horse kite tree bird goat",
    "harbour": "man boat bird bench sign bucket truck bike car duck",
    "garden": "woman girl baby cat table chair tree bucket fence bird book",
}
"""Where a scene can be, and what is usually there."""

INDOORS = ("kitchen", "bedroom", "office", "cafe")

COLOURS = tuple(sorted({colour for noun in NOUNS.values() for colour in noun.colours}))
MATERIALS = tuple(sorted({material for noun in NOUNS.values() for material in noun.materials}))

_FUNCTION_WORDS = (
    "a an and any are at be by can colour color could do does doing front has he her his how i in is it its like made "
    "many next of on please see she some that the their there these they this time to was weather wearing what where "
    "which you"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that a question may contain besides the content words above."""


def values_of(topic: str, noun: str) -> tuple[str, ...]:
    """What `topic` can be for `noun`, the commonest first; `noun` is empty for the scene as a whole.

    Raises:
        KeyError: The topic makes no sense for this noun, or has no list of values (`where`, `object`).
    """
    if noun == "":
        return {"place": tuple(PLACES), "weather": WEATHERS, "time": TIMES}[topic]
    known = NOUNS[noun]
    return {
        "count": NUMBERS,
        "colour": known.colours,
        "material": known.materials,
        "clothes": CLOTHES,
        "action": ACTIONS.get(known.family, ()),
    }[topic]
