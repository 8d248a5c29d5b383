"""Utterances in the making, token by token: voices that choose the same share one, and part where they differ.

No network is asked here: what the voices choose comes in, and what is to be fed for it goes out.

Axes: *D* hidden width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draft:
    """An utterance that was drawn and not yet said.

    Attributes:
        tokens: The ids chosen, with the `eoa` that ended them if there was one.
        finished: True if it ended itself.
        log_ratio: As an utterance's.
        log_probability: Σ log π_β(a) over its tokens.
        last: The reader's hidden state at its `eoa`, shape (D,); empty where nobody has read it.
        mean: The mean of the reader's hidden states of the whole conversation up to there, as `last`.
    """

    tokens: tuple[int, ...]
    finished: bool
    log_ratio: float
    log_probability: float
    last: Tensor
    mean: Tensor


@dataclass(frozen=True)
class Choice:
    """The next token of one voice.

    Attributes:
        token: Its id.
        log_ratio: log π(a) − log π_β(a).
        log_probability: log π_β(a).
    """

    token: int
    log_ratio: float
    log_probability: float


@dataclass
class Drawing:
    """A draft in the making, of all voices of a slot that have chosen the same so far.

    Attributes:
        slot: Where.
        numbers: Whose it is: the numbers of the voices.
        room: How many tokens the context has for it.
        end: The id of `eoa`.
        fed_whole: Whether its last token is fed, too, and an end behind it where it has none.
        said: The ids chosen so far.
        unfed: What of it is still to be fed before a voice can choose again, or before it is done.
        whole: Whether nothing more is chosen.
        log_ratios: Of every one of these voices, as an utterance's.
        log_probabilities: The same of log π_β.
    """

    slot: int
    numbers: list[int]
    room: int
    end: int
    fed_whole: bool
    said: list[int]
    unfed: list[int]
    whole: bool
    log_ratios: list[float]
    log_probabilities: list[float]

    @classmethod
    def begin(cls, slot: int, numbers: Sequence[int], room: int, *, end: int, fed_whole: bool) -> Drawing:
        """A draft of which nothing is chosen yet; where there is no room for any of it, it is whole at once."""
        whole = room == 0
        return cls(
            slot,
            [*numbers],
            room,
            end,
            fed_whole,
            said=[],
            unfed=[end] if whole and fed_whole else [],
            whole=whole,
            log_ratios=[0.0] * len(numbers),
            log_probabilities=[0.0] * len(numbers),
        )

    @property
    def chooses(self) -> bool:
        """True if its voices are to choose a token now."""
        return not self.whole and not self.unfed

    @property
    def done(self) -> bool:
        """True if nothing of it is to be chosen or to be fed."""
        return self.whole and not self.unfed

    def go_on(self, chosen: Sequence[Choice], limits: Sequence[int]) -> list[Drawing]:
        """Go on by the token that every voice has chosen; where they differ, by as many drafts as there are tokens.

        Args:
            chosen: The voices' choices, in the order of `numbers`.
            limits: How many tokens each of them may say.

        Returns:
            The draft of the most voices, the first of several, which stays in the slot; and those that part from it.
        """
        ways: dict[tuple[int, bool], list[int]] = {}
        for place, (choice, limit) in enumerate(zip(chosen, limits, strict=True)):
            self.log_ratios[place] += choice.log_ratio
            self.log_probabilities[place] += choice.log_probability
            at_limit = len(self.said) + 1 == min(limit, self.room)
            ways.setdefault((choice.token, at_limit or choice.token == self.end), []).append(place)
        parts = [self._of(places) for places in ways.values()] if len(ways) > 1 else [self]
        for part, (token, whole) in zip(parts, ways, strict=True):
            part.said.append(token)
            part.whole = whole
            if not whole:
                part.unfed = [token]
            elif part.fed_whole:
                part.unfed = [token, *missing_end(part.said, part.end)]
        stays = max(parts, key=lambda part: len(part.numbers))
        return [stays, *(part for part in parts if part is not stays)]

    def drafts(self) -> dict[int, Draft]:
        """What it has come to for each of its voices, by their numbers; nobody has read it."""
        finished, nothing = not missing_end(self.said, self.end), torch.zeros(0)
        return {
            number: Draft(tuple(self.said), finished, ratio, probability, nothing, nothing)
            for number, ratio, probability in zip(self.numbers, self.log_ratios, self.log_probabilities, strict=True)
        }

    def _of(self, places: Sequence[int]) -> Drawing:
        """The draft of some of its voices, by their places among `numbers`."""
        return dataclasses.replace(
            self,
            numbers=[self.numbers[place] for place in places],
            said=[*self.said],
            unfed=[*self.unfed],
            log_ratios=[self.log_ratios[place] for place in places],
            log_probabilities=[self.log_probabilities[place] for place in places],
        )


def missing_end(tokens: Sequence[int], end: int) -> list[int]:
    """The end token, as a list, if an utterance is without it; else nothing."""
    return [] if tokens and tokens[-1] == end else [end]
