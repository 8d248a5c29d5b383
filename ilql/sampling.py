"""How a language model that is nobody's policy draws texts: here (`ilql.sample`), or behind an endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from ilql.hyperparameters import AT_LEAST_ONE, POSITIVE, SHARE, check, hyper


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How texts are drawn.

    Raises:
        TypeError: A field has another type.
        ValueError: A field is out of range.
    """

    temperature: float = hyper(1.0, POSITIVE, meaning="softmax temperature")
    top_p: float = hyper(1.0, SHARE, meaning="only the smallest set of tokens whose probability exceeds it is drawn")
    max_tokens: int = hyper(400, AT_LEAST_ONE, meaning="longest text in tokens")

    def __post_init__(self) -> None:
        check(self)
