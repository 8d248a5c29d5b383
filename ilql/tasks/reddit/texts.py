"""Small facts about texts: clean, alike, how long, and random numbers that a text always gets again."""

from __future__ import annotations

import hashlib
import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters but tab and newline, and the surrogates, which no UTF-8 file can hold."""


def clean(text: str) -> str:
    """The text without control characters; tabs and newlines stay, and so does everything else."""
    return _CONTROL.sub("", text)


def text_key(text: str) -> str:
    """What two texts share that are the same to a reader: letters of any case, any white space between."""
    return " ".join(text.casefold().split())


def word_count(text: str) -> int:
    """The number of words: what white space parts."""
    return len(text.split())


def uniform(seed: int, purpose: str, text: str) -> float:
    """A number in [0, 1) that follows from the three alone: equal texts get equal numbers, in every process."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{text}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53  # 53 bits: a float holds them, so it never rounds to 1
