"""Colours: what is said of a guess, as one number.

Axes: G guesses, W words, five positions. A letter's colour is 0 (black), 1 (yellow) or 2 (green); a *code* is the five
colours as digits of base 3, the first letter's highest, so 0 to 242.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Letters = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint8]

LENGTH = 5
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
COLOURS = ("<b>", "<y>", "<g>")
CODES = len(COLOURS) ** LENGTH
ALL_GREEN = CODES - 1
WEIGHTS = tuple(len(COLOURS) ** (LENGTH - 1 - place) for place in range(LENGTH))
COLOUR_TEXTS = tuple("".join(colours) for colours in itertools.product(COLOURS, repeat=LENGTH))
"""What the world says for each code."""

_BLOCK = 1 << 22


def letters_of(words: Sequence[str]) -> Letters:
    """Shape (W, 5): the letters of some words of five letters a-z, 0 for a to 25 for z."""
    flat = np.frombuffer("".join(words).encode("ascii"), dtype=np.uint8)
    return (flat - np.uint8(ord("a"))).reshape(len(words), LENGTH)


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Where each letter stands in each of W words.

    Attributes:
        at: Shape (5, 26, W), 1 where the word has the letter at the position, else 0.
        count: Shape (26, W), how often the word has the letter.
    """

    at: npt.NDArray[np.uint8]
    count: npt.NDArray[np.uint8]


def occurrences(words: Letters) -> Occurrences:
    """The occurrences of letters in words, shape (W, 5)."""
    alphabet = np.arange(len(ALPHABET), dtype=np.uint8)
    at = (words.T[:, None, :] == alphabet[None, :, None]).astype(np.uint8)
    return Occurrences(at, at.sum(axis=0, dtype=np.uint8))


def codes_against(guesses: Letters, words: Occurrences, *, rules: str) -> Codes:
    """Shape (G, W): the code of each guess, shape (G, 5), if each word were the target.

    Green: the word has the letter there. Yellow, by the rules `consistent`: it has it anywhere else, however often it
    was guessed. Yellow, by the rules `real`: from left to right there are only as many yellows of a letter as the word
    has of it besides the green ones.
    """
    codes = np.zeros((len(guesses), words.count.shape[1]), dtype=np.uint8)
    for place, weight in enumerate(WEIGHTS):
        letter = guesses[:, place]
        present = np.minimum(words.count[letter], 1)
        codes += np.uint8(weight) * (present + words.at[place][letter])
    if rules == "real":
        # A letter that a guess has once is coloured alike by both rules.
        twice = np.flatnonzero((guesses[:, :, None] == guesses[:, None, :]).sum(axis=(1, 2)) > LENGTH)
        codes[twice] = _codes_of_repeated(guesses[twice], words)
    return codes


def _codes_of_repeated(guesses: Letters, words: Occurrences) -> Codes:
    green = np.stack([words.at[place][guesses[:, place]] for place in range(LENGTH)])  # (5, G, W)
    codes = np.zeros(green.shape[1:], dtype=np.uint8)
    for place, weight in enumerate(WEIGHTS):
        letter = guesses[:, place]
        alike = (guesses == letter[:, None]).astype(np.uint8)  # (G, 5)
        left = words.count[letter] - sum(green[other] * alike[:, other, None] for other in range(LENGTH))
        used = np.zeros_like(codes)
        for other in range(place):
            used += (1 - green[other]) * alike[:, other, None]
        yellow = (1 - green[place]) * (used < left)
        codes += np.uint8(weight) * (2 * green[place] + yellow)
    return codes


def pattern_table(words: Letters, *, rules: str) -> Codes:
    """Shape (W, W): the code of each word as a guess (rows) if each word were the target (columns)."""
    where = occurrences(words)
    table = np.empty((len(words), len(words)), dtype=np.uint8)
    rows = max(1, _BLOCK // len(words))
    for first in range(0, len(words), rows):
        table[first : first + rows] = codes_against(words[first : first + rows], where, rules=rules)
    return table
