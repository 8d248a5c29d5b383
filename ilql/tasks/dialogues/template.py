"""A turn's text as a pretrained chat model expects it, and the words alone again.

A model that was trained on `user: hello` reads and writes better in that form. The template is what the policy reads
and writes; an environment and a reward function always get the words alone.
"""

from __future__ import annotations

from collections.abc import Iterable


def wrap(template: str, role: str, text: str) -> str:
    """The text as the policy reads or writes it; without a template, as it is."""
    return template.format(role=role, text=text) if template else text


def unwrap(template: str, roles: Iterable[str], text: str) -> str | None:
    """The words of an utterance in a template under any of some roles, or None if it is not written in it.

    White space at both ends does not count: a decoded utterance has lost it.
    """
    if not template:
        return text
    mark = "\0"  # stands for the words, so that a brace in them plays no part
    for role in roles:
        before, after = (part.strip() for part in template.format(role=role, text=mark).split(mark))
        said = text.strip()
        if len(said) >= len(before) + len(after) and said.startswith(before) and said.endswith(after):
            return said[len(before) : len(said) - len(after)].strip()
    return None
