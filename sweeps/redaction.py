"""What must not be written down or printed, taken out of a text: passwords, tokens and keys.

Known for such are: what stands before the @ of an address, the value of an address's parameter that is named like a
secret, and the values of environment variables that are.
"""

from __future__ import annotations

import os
import re

HIDDEN = "***"

_NAMED = r"(?:\w*[_-])?(?:token|password|passwd|secret|credentials|(?:api|access|private|secret)[_-]?key)"
_VARIABLE = re.compile(_NAMED, re.IGNORECASE)
_PARAMETER = re.compile(rf"([?&;]{_NAMED}=)[^&;\s'\"]+", re.IGNORECASE)
_USER = re.compile(r"//[^/@\s]+@")

_SHORTEST = 6
"""A shorter value is no secret worth the name, and would be taken out of words that only contain it."""


def without_secrets(text: str) -> str:
    """The text with `***` for each secret in it."""
    text = _PARAMETER.sub(rf"\g<1>{HIDDEN}", _USER.sub(f"//{HIDDEN}@", text))
    values = {value for name, value in os.environ.items() if len(value) >= _SHORTEST and _VARIABLE.fullmatch(name)}
    for value in sorted(values, key=len, reverse=True):  # one may begin with another
        text = text.replace(value, HIDDEN)
    return text
