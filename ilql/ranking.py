"""Which of several drafts is said: the one that a judge likes best.

Axes: *S* slots, *D* hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from ilql.drafts import Draft
from ilql.method import Judge


def favourites(
    judge: Judge, proposed: Mapping[int, Sequence[Draft]], *, log_prob_weights: Mapping[int, float], slots: int
) -> dict[int, Draft]:
    """Of each slot's drafts the one with the highest score, the first of several.

    The score is the judge's, plus the draft's log-probability times the slot's weight.

    Args:
        judge: What ranks.
        proposed: Drafts by slot, at least one each, with the reader's states.
        log_prob_weights: By slot.
        slots: S. The judge always sees so many rows, each slot's in its place: the shape of a matrix product can move
            a bit.
    """
    best: dict[int, tuple[float, Draft]] = {}
    for number in range(max(len(own) for own in proposed.values())):
        drafts = {slot: own[number] for slot, own in proposed.items() if number < len(own)}
        filling = next(iter(drafts.values()))
        rows = [drafts.get(slot, filling) for slot in range(slots)]
        last, mean = torch.stack([row.last for row in rows]), torch.stack([row.mean for row in rows])
        judged = judge.score(last, mean).tolist()
        for slot, draft in drafts.items():
            score = judged[slot] + log_prob_weights[slot] * draft.log_probability
            if slot not in best or score > best[slot][0]:
                best[slot] = score, draft
    return {slot: draft for slot, (_, draft) in best.items()}


def most_gained(draws: int) -> float:
    """Log N − (N − 1)/N, for N draws: the most that choosing the best of them can add, on average, to its log-ratio."""
    return math.log(draws) - (draws - 1) / draws
