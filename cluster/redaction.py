"""What must not be written down or printed, taken out of a text: passwords, tokens and keys.

Known for such are: what stands before the last @ of an address; the value of an address's parameter, and of an
environment variable, that is named like a secret; what follows `Authorization` or `Bearer`. A variable's value is known
as it is, and as JSON, Python's strings and addresses write it; also where only its beginning is left before the end of
a text or before dots. It stands here and not in `sweeps`, as reasons are cut here, and a secret is to go first.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Iterator

HIDDEN = "***"

_PLAIN = (
    r"(?:[\w-]*[_-])?(?:token|secret|pass|pwd|auth|pat|passphrase|credentials?|(?:api|access|private|secret)[_-]?key)"
    r"|\w*(?:password|passwd)"
)
_VARIABLE = re.compile(_PLAIN, re.IGNORECASE)
_KEY = re.compile(r"\w+_key", re.IGNORECASE)
_PATHS = frozenset({"PWD", "OLDPWD"})
"""A shell's folders, which no password is called after."""

_PARAMETER = re.compile(rf"([?&;](?:{_PLAIN}|(?:[\w-]+-)?(?:sig|signature|key))=)[^&;\s'\"]+", re.IGNORECASE)
_HEADER = re.compile(r"(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:(?:basic|bearer|token|digest)\s+)?)[^\s'\",;]+", re.I)
_BEARER = re.compile(r"(\bBearer\s+)[\w.~+/=-]{8,}")
_WORD = re.compile(r"\S+")
_PASSWORD = re.compile(r"//[^\s/@:]*:")
_USER = re.compile(r"//[^/\s]*@|(?<![\w/.+:-])[\w.+-]+:[^\s/@]+@")

_SHORTEST = 6
"""A shorter value is no secret worth the name, and would be taken out of words that only contain it."""

_SHORTEST_KEY = 12
"""The same of `…_KEY`, which may also be the name of a column; keys of services are longer."""

_BEGINNING = 8
"""So much of a secret's beginning is taken out where the rest of it was cut off."""

_DOTS = ("...", "…")


def without_secrets(text: str) -> str:
    """The text with `***` for each secret in it."""
    text = _WORD.sub(lambda word: _without_user(word[0]), text)
    for pattern in (_PARAMETER, _HEADER, _BEARER):
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    forms = {form for value in _values() for form in _written(value)}
    several = sorted(forms, key=len, reverse=True)  # one may begin with another
    for form in several:
        text = text.replace(form, HIDDEN)
    for form in several:
        text = _without_beginning(text, form)
    return text


def _values() -> Iterator[str]:
    for name, value in os.environ.items():
        named = _VARIABLE.fullmatch(name) is not None and name not in _PATHS
        if len(value) >= _SHORTEST and (named or (len(value) >= _SHORTEST_KEY and _KEY.fullmatch(name))):
            yield value


def _written(value: str) -> Iterator[str]:
    """A value as it is, and as it stands in JSON, in Python's strings and in addresses."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    for escaped in (
        urllib.parse.quote(value, errors="replace"),
        urllib.parse.quote(value, safe="", errors="replace"),
        urllib.parse.quote_plus(value, errors="replace"),
    ):
        yield escaped
        yield re.sub(r"%[0-9A-F]{2}", lambda byte: byte[0].lower(), escaped)


def _without_user(word: str) -> str:
    """A word without the users and passwords of its addresses; a password may hold / and @."""
    end = word.rfind("@")
    if end < 0:
        return word
    begin = _PASSWORD.search(word, 0, end)
    if begin is not None:
        word = f"{word[: begin.start()]}//{HIDDEN}{word[end:]}"
    return _USER.sub(lambda user: f"{'//' if user[0].startswith('//') else ''}{HIDDEN}@", word)


def _without_beginning(text: str, secret: str) -> str:
    """The text without a beginning of the secret behind which the text was cut."""
    at = text.find(secret[:_BEGINNING]) if len(secret) > _BEGINNING else -1
    while at >= 0:
        length = next((i for i, letter in enumerate(secret) if text[at + i : at + i + 1] != letter), len(secret))
        rest = text[at + length :]
        if not rest.strip("'\")") or rest.startswith(_DOTS):
            text = f"{text[:at]}{HIDDEN}{rest}"
        at = text.find(secret[:_BEGINNING], at + 1)
    return text
