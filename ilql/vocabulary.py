"""Which tokens of a pretrained vocabulary are kept where few of them occur, and how the others are spelt with those.

A model's own vocabulary is a hundred languages wide; some dialogues are not. Each of its tokens costs a row in the
embeddings, in the language model's head, and in every Q head and its target. Cut to the tokens that occur, the training
data stays the same, token by token; any other text is written with smaller tokens, down to bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

VERSION = 1
"""Raised when the same texts would keep other tokens, or spell the others otherwise; part of the key of what is cut."""


def token_pieces(vocabulary: Mapping[str, int], merges: Sequence[Sequence[str]]) -> dict[int, tuple[int, ...]]:
    """What each token can be written with instead: the two parts of its first merge, else its characters or bytes.

    A character that is no token stands as the bytes of its UTF-8, `<0x0A>` and the like, where those are tokens. What
    is written so need not be read as the same text: see `kept_tokens`.

    Args:
        vocabulary: Ids by token, as the tokeniser spells them.
        merges: Pairs of tokens that byte-pair encoding joins, the earliest first; none for other kinds.

    Returns:
        Ids by id; without tokens of which nothing is known.
    """
    pieces: dict[int, tuple[int, ...]] = {}
    for left, right in merges:
        joined = vocabulary.get(left + right)
        if joined is not None and joined not in pieces:
            pieces[joined] = vocabulary[left], vocabulary[right]
    for token, number in vocabulary.items():
        if number not in pieces and (characters := _characters(token, vocabulary)) is not None:
            pieces[number] = characters
    return pieces


def _characters(token: str, vocabulary: Mapping[str, int]) -> tuple[int, ...] | None:
    """A token's characters, or their bytes; None if they are no tokens. A single character is its bytes."""
    parts: list[int] = []
    for character in token:
        if character != token and character in vocabulary:
            parts.append(vocabulary[character])
        else:
            names = [f"<0x{byte:02X}>" for byte in character.encode()]
            if not all(name in vocabulary for name in names):
                return None
            parts += [vocabulary[name] for name in names]
    return tuple(parts)


def kept_tokens(
    occurring: AbstractSet[int],
    vocabulary: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    decode: Callable[[Sequence[int]], str],
) -> tuple[int, ...]:
    """The ids that occur, and all that nothing smaller can stand for; increasing.

    The second kind are the byte tokens, and whatever changes when it is written in pieces: a SentencePiece blank, which
    is no blank as bytes; special tokens; every token of a tokeniser that knows neither merges nor bytes, of which
    nothing can be left out.

    Args:
        occurring: Ids.
        vocabulary: Ids by token.
        merges: See `token_pieces`.
        decode: The text of some ids.
    """
    pieces = token_pieces(vocabulary, merges)

    def reads_the_same(number: int) -> bool:
        alone, instead = [number], [*pieces[number]]
        # The second of two stands inside a text, where a blank is not stripped as at the beginning.
        return decode(alone) == decode(instead) and decode(alone * 2) == decode(instead * 2)

    return tuple(
        number
        for number in sorted(vocabulary.values())
        if number in occurring or number not in pieces or not reads_the_same(number)
    )
