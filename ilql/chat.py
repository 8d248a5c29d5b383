"""A chat template as tokens around the turns of a dialogue, found once by rendering, never again from text.

A template is a program that writes messages as one text. What it writes around them is read off its renderings of a few
messages whose contents are known marks: the text before the first mark, between two, and behind the last are its
*seams*. A template that writes the same seams whatever was said before is a table of them, and a dialogue is then seam,
turn, seam, turn, ..., so whose a token is needs no guess. Turns are read as plain text: no `<|im_end|>` that somebody
writes ends anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

VERSION = 1
"""Raised when the same template would give other seams; part of the key of tokenisers that have one."""

NOBODY, WORLD, AGENT = "", "user", "assistant"
"""Who speaks before and behind a seam, by the roles' names in templates; nobody before the first turn."""

PROBES = ("u", "ua", "uauaua", "a", "auaua", "uua", "uaau")
"""Orders of speakers that are rendered; a template may refuse some."""
NEEDED = ((NOBODY, WORLD), (WORLD, AGENT), (AGENT, WORLD), (AGENT, NOBODY))
WORDS = ("how many dogs are there ?", "two", "is it a sunny day", "yes , it is .", "Fine", "what else ?")
"""Ordinary turns, on which tokens of seams and turns are compared with those of the whole text."""

Render = Callable[[Sequence[Mapping[str, str]], bool], str]
"""The text of messages (`role`, `content`), with the beginning of the agent's next one if the second argument says so.
Raises jinja2's TemplateError where a template refuses them."""


@dataclass(frozen=True)
class ChatForm:
    """What stands around the turns of a dialogue.

    Attributes:
        seams: Ids by the speaker before and the speaker behind, `NOBODY`, `WORLD` or `AGENT`. Those behind the agent
            all begin with the same special token, which the agent chooses to end its utterance. Absent where the
            template refuses that order.
    """

    seams: Mapping[tuple[str, str], tuple[int, ...]]

    @property
    def end(self) -> int:
        """The id that ends the agent's utterances."""
        return self.seams[AGENT, NOBODY][0]

    def seam(self, before: str, behind: str) -> tuple[int, ...]:
        """The ids between two speakers.

        Raises:
            ValueError: The template refuses that order.
        """
        if (before, behind) not in self.seams:
            order = f"{behind!r} after {before!r}" if before else f"a dialogue that {behind!r} opens"
            raise ValueError(f"a chat template must render every order of the dialogues' turns, it refuses {order}")
        return self.seams[before, behind]

    def to_record(self) -> dict[str, list[int]]:
        """As plain values; `from_record` gives it back equal."""
        return {" ".join(speakers): list(ids) for speakers, ids in self.seams.items()}

    @staticmethod
    def from_record(record: object) -> ChatForm:
        """From `to_record`'s.

        Raises:
            ValueError: It is none.
        """
        if not isinstance(record, dict):
            raise ValueError(f"it must be an object, got a {type(record).__name__}")
        seams: dict[tuple[str, str], tuple[int, ...]] = {}
        for name, ids in record.items():
            if not isinstance(ids, list) or not all(type(token) is int for token in ids):
                raise ValueError(f"{name!r} must have a list of whole numbers, got {ids!r:.60}")
            before, _, behind = str(name).partition(" ")
            seams[before, behind] = tuple(ids)
        for pair in NEEDED:
            if pair not in seams or (pair[0] == AGENT and not seams[pair]):
                raise ValueError(f"it must have ids for {' '.join(pair)!r}, got none")
        return ChatForm(seams)


def chat_form(render: Render, encode: Callable[[str], list[int]], special: Callable[[int], bool]) -> ChatForm:
    """The seams of a template.

    Args:
        render: The template.
        encode: Text to ids, special tokens read as such.
        special: Whether an id is a special token.

    Raises:
        ValueError: It does not render turn by turn, refuses an order that every dialogue has, ends the agent's turn
            with no special token, or tokens of its text reach over a seam.
    """
    seams: dict[tuple[str, str], str] = {}
    for probe in PROBES:
        for speakers, text in _seams(render, [WORLD if who == "u" else AGENT for who in probe]):
            if seams.setdefault(speakers, text) != text:
                _refuse(speakers, seams[speakers], text)
    for speakers in NEEDED:
        if speakers not in seams:
            raise ValueError(f"a chat template must render a dialogue of {WORLD!r} and {AGENT!r}, it refuses one")
    for (before, behind), text in seams.items():
        ended = seams.get((before, NOBODY), "")
        if not text.startswith(ended):
            _refuse((before, behind), ended, text)
    opened = _render(render, [WORLD], generation=True)
    if opened != (expected := seams[NOBODY, WORLD] + _mark(0) + seams[WORLD, AGENT]):
        _refuse((WORLD, AGENT), expected, str(opened))
    form = ChatForm({speakers: tuple(encode(text)) for speakers, text in seams.items()})
    ends = {ids[0] if ids else None for (before, _), ids in form.seams.items() if before == AGENT}
    if len(ends) != 1 or None in ends or not special(form.end):
        raise ValueError(
            f"a chat template must end the agent's turn with a special token, got {seams[AGENT, NOBODY]!r}"
        )
    _check_tokens(render, encode, form)
    return form


def _mark(number: int) -> str:
    return f"turn{number}turn"


def _render(render: Render, speakers: Sequence[str], *, generation: bool) -> str | None:
    """The text of marked turns; None where the template refuses them."""
    messages = [{"role": who, "content": _mark(number)} for number, who in enumerate(speakers)]
    try:
        return render(messages, generation)
    except TemplateError:
        return None


def _seams(render: Render, speakers: Sequence[str]) -> list[tuple[tuple[str, str], str]]:
    """What a rendering of marked turns has around them, by the speakers before and behind; nothing if it is refused."""
    rest = _render(render, speakers, generation=False)
    if rest is None:
        return []
    found = []
    for number, pair in enumerate(zip([NOBODY, *speakers], speakers, strict=False)):
        seam, mark, rest = rest.partition(_mark(number))
        if not mark:
            raise ValueError(f"a chat template must render every turn in its place, it leaves out one of {pair[1]!r}")
        found.append((pair, seam))
    return [*found, ((speakers[-1], NOBODY), rest)]


def _refuse(speakers: tuple[str, str], one: str, other: str) -> None:
    where = " and ".join(repr(who) for who in speakers if who)
    raise ValueError(
        f"a chat template must render turn by turn, so that what follows changes nothing before it; at {where} it "
        f"writes {one!r} and elsewhere {other!r}"
    )


def _check_tokens(render: Render, encode: Callable[[str], list[int]], form: ChatForm) -> None:
    """Refuse a template whose text is read otherwise as a whole than in seams and turns."""
    speakers = [AGENT if number % 2 else WORLD for number in range(len(WORDS))]
    whole = encode(render([{"role": who, "content": text} for who, text in zip(speakers, WORDS, strict=True)], False))
    parts: list[int] = []
    for before, behind, text in zip([NOBODY, *speakers], speakers, WORDS, strict=False):
        parts += [*form.seam(before, behind), *encode(text)]
    parts += form.seam(speakers[-1], NOBODY)
    if parts != whole:
        place = next(
            (n for n, (a, b) in enumerate(zip(parts, whole, strict=False)) if a != b), min(len(parts), len(whole))
        )
        raise ValueError(
            "a chat template's text must have the tokens of its turns and of what stands around them; they differ at "
            f"token {place}, where a token reaches over the seam"
        )
