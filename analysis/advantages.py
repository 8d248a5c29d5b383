"""Which words a method's values speak for, and which against: advantages of tokens, words, phrases and utterances.

The advantage of a token is Q − V: what it promises beyond what its state promises already. A word's is the sum over its
tokens, an utterance's the sum over all of it, its end included.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.figures import PER_ROW, draw_advantages
from analysis.section import Section, TextTable
from analysis.text import count, number

END = "<eoa>"
"""The piece that ends an utterance."""

ROWS_EACH = 2
"""Rows of the figure that an utterance may take."""


@dataclass(frozen=True)
class Spoken:
    """The agent's tokens of one dialogue, in order.

    Attributes:
        pieces: Each token's text, `END` at the end of an utterance.
        advantages: Each token's Q − V, as many.

    Raises:
        ValueError: There are not as many advantages as pieces.
    """

    pieces: tuple[str, ...]
    advantages: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.pieces) != len(self.advantages):
            raise ValueError(f"every piece must have an advantage, got {len(self.pieces)} and {len(self.advantages)}")


@dataclass(frozen=True)
class Weighed:
    """A word, phrase or utterance with what is made of it.

    Attributes:
        text: Its words.
        advantage: Mean over its occurrences of its sum over tokens.
        occurrences: How often it was said.
    """

    text: str
    advantage: float
    occurrences: int


def utterances_of(spoken: Spoken) -> list[Spoken]:
    """The utterances of a dialogue, each with its end where it has one."""
    found: list[Spoken] = []
    begin = 0
    for place, piece in enumerate(spoken.pieces):
        if piece == END:
            found.append(Spoken(spoken.pieces[begin : place + 1], spoken.advantages[begin : place + 1]))
            begin = place + 1
    if begin < len(spoken.pieces):
        found.append(Spoken(spoken.pieces[begin:], spoken.advantages[begin:]))
    return found


def words_of(utterance: Spoken, *, spaced: bool) -> list[tuple[str, float]]:
    """Words and the sums of their tokens' advantages; the end of the utterance is none.

    Args:
        utterance: One utterance.
        spaced: Whether words are told apart by spaces; if not, every token is a word.
    """
    words: list[tuple[str, float]] = []
    for piece, advantage in zip(utterance.pieces, utterance.advantages, strict=True):
        if piece == END:
            continue
        if words and spaced and not piece[:1].isspace():
            text, before = words[-1]
            words[-1] = (text + piece, before + advantage)
        else:
            words.append((piece.strip(), advantage))
    return words


def phrases(dialogues: Sequence[Spoken], length: int, *, least: int = 1) -> list[Weighed]:
    """All phrases of so many words within an utterance that were said at least `least` times, the best first."""
    spaced = any(piece[:1].isspace() for spoken in dialogues for piece in spoken.pieces)
    sums: dict[str, list[float]] = {}
    for spoken in dialogues:
        for utterance in utterances_of(spoken):
            words = words_of(utterance, spaced=spaced)
            for begin in range(len(words) - length + 1):
                part = words[begin : begin + length]
                text = (" " if spaced else "").join(word for word, _ in part)
                sums.setdefault(text, []).append(math.fsum(advantage for _, advantage in part))
    return _ranked(sums, least)


def whole_utterances(dialogues: Sequence[Spoken]) -> list[Weighed]:
    """All utterances, by their sums over all tokens, the best first."""
    sums: dict[str, list[float]] = {}
    for spoken in dialogues:
        for utterance in utterances_of(spoken):
            text = "".join(piece for piece in utterance.pieces if piece != END).strip()
            sums.setdefault(text, []).append(math.fsum(utterance.advantages))
    return _ranked(sums, 1)


def advantage_section(dialogues: Sequence[Spoken], *, whose: str, what: str, shown: int = 6) -> Section | None:
    """The section of a report: tokens in colour, and the best and worst words, phrases and utterances.

    Args:
        dialogues: What was said, with its advantages.
        whose: Whose values these are, `ILQL, τ 0.8`.
        what: What dialogues these are, `its own episodes`.
        shown: Rows at each end of the tables, and half those of the figure.

    Returns:
        None where nothing was said.
    """
    said = [utterance for spoken in dialogues for utterance in utterances_of(spoken)]
    if not said:
        return None
    different = list({utterance.pieces: utterance for utterance in reversed(said)}.values())[::-1]
    rows, drawn = figure_rows(different, 2 * shown)
    caption = (
        f"Advantage Q − V of every token, by {whose}, on {count(len(dialogues), 'dialogue')} ({what}); here the first "
        f"{count(drawn, 'different utterance')}, each at its number{_long(different[:drawn])}. Blue promises more than "
        f"its state did, red less; {END}, in the figure ⏎, is the end of an utterance: a token, too."
    )
    figure = draw_advantages(rows)
    least = 1 if len(said) < 50 else 3
    tables = [
        *(_table(f"{name} of {whose}", phrases(dialogues, n, least=least), shown, least)
          for n, name in ((1, "Words"), (2, "Phrases of two words"), (3, "Phrases of three words"))),
        _table(f"Utterances of {whose}", whole_utterances(dialogues), shown, 1),
    ]  # fmt: skip
    return Section(
        name="advantages",
        title="What its values speak for",
        text=(caption,),
        tables=tuple(table for table in tables if table.rows),
        figures={"advantages": (figure, caption)},
    )


def figure_rows(
    utterances: Sequence[Spoken], most: int
) -> tuple[list[tuple[str, tuple[str, ...], tuple[float, ...]]], int]:
    """The rows of the figure, at most `most`, and how many of the utterances stand in them.

    An utterance is wrapped at `PER_ROW` tokens, and its first row has its number; of a long one `ROWS_EACH` rows stand.
    """
    rows: list[tuple[str, tuple[str, ...], tuple[float, ...]]] = []
    for place, each in enumerate(utterances):
        begins = range(0, min(len(each.pieces), ROWS_EACH * PER_ROW), PER_ROW)
        if len(rows) + len(begins) > most:
            return rows, place
        for begin in begins:
            part = slice(begin, begin + PER_ROW)
            rows.append(("" if begin else str(place + 1), each.pieces[part], each.advantages[part]))
    return rows, len(utterances)


def _long(utterances: Sequence[Spoken]) -> str:
    """Of how many only the beginning is drawn, in words."""
    cut = sum(len(each.pieces) > ROWS_EACH * PER_ROW for each in utterances)
    return f", of {cut} that are longer the first {ROWS_EACH * PER_ROW} tokens" if cut else ""


def _ranked(sums: dict[str, list[float]], least: int) -> list[Weighed]:
    kept = [Weighed(text, math.fsum(s) / len(s), len(s)) for text, s in sums.items() if text and len(s) >= least]
    return sorted(kept, key=lambda each: (-each.advantage, each.text))


def _table(title: str, ranked: Sequence[Weighed], shown: int, least: int) -> TextTable:
    """The best and the worst of a ranking, each once."""
    ends = [*ranked[:shown], *ranked[max(shown, len(ranked) - shown) :]]
    often = "" if least == 1 else f" said at least {least} times"
    return TextTable(
        f"{title}{often}, the most and the least advantageous of {len(ranked):,}",
        ("Text", "Q − V", "Said"),
        tuple(_rows(ends)),
        (False, True, True),
    )


def _rows(ranked: Iterable[Weighed]) -> Iterable[tuple[str, ...]]:
    return ((each.text, number(each.advantage, 3), f"{each.occurrences:,}") for each in ranked)
