"""What two policies said in the same episodes, side by side, where they differ most: a page to be read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from analysis.page import page
from analysis.text import count, number

SHOWN = 20
"""Episodes of a cell that are shown."""

LARGEST_PAGE = 20 * 2**20
"""Bytes of the page; where it would be larger, fewer episodes of each cell are shown."""

Turn = tuple[bool, str]
"""Whether the agent said it, and what was said."""


@dataclass(frozen=True)
class Paired:
    """One episode as a policy and the one it is held against played it.

    Attributes:
        episode: The episode's seed.
        returns: The policy's, and the other's.
        turns: What was said with the policy, and with the other.
    """

    episode: int
    returns: tuple[float, float]
    turns: tuple[Sequence[Turn], Sequence[Turn]]

    @property
    def difference(self) -> float:
        """How much better the policy did."""
        return self.returns[0] - self.returns[1]


@dataclass(frozen=True)
class Transcripts:
    """A cell's episodes beside another cell's.

    Attributes:
        name: The cell's.
        other: The other cell's.
        episodes: How many both have played.
        paired: Those that are shown, the best for the cell first.
        place: Where all of its transcripts lie, in the store.
    """

    name: str
    other: str
    episodes: int
    paired: tuple[Paired, ...]
    place: str


def shown_episodes(gains: NDArray[np.float64], seeds: NDArray[np.int64], shown: int = SHOWN) -> list[int]:
    """Which episodes are shown: the largest gains, the largest losses, and the middle, two fifths, two fifths, one.

    Args:
        gains: Of every episode, shape (E,).
        seeds: Of every episode, shape (E,).
        shown: How many at most.

    Returns:
        Seeds, the largest gain first; of equal gains the smaller seed.
    """
    ordered: list[int] = seeds[np.lexsort((seeds, -gains))].tolist()
    if len(ordered) <= shown:
        return ordered
    ends = 2 * shown // 5
    middle = shown - 2 * ends
    start = (len(ordered) - middle) // 2
    return ordered[:ends] + ordered[start : start + middle] + ordered[len(ordered) - ends :]


def rule(shown: int) -> str:
    """The rule, in words."""
    ends = 2 * shown // 5
    return (
        f"Of every cell {shown} episodes at most, by its first training seed, paired with the same episodes of the "
        f"other policy and sorted by the difference of their returns: the {ends} largest gains, the {shown - 2 * ends} "
        f"in the middle, the {ends} largest losses; of equal differences the earlier episode."
    )


def transcripts_page(title: str, cells: Sequence[Transcripts]) -> str:
    """The page, of at most `LARGEST_PAGE` bytes: fewer episodes of each cell are shown where it would be larger."""
    shown = SHOWN
    while True:
        kept = [_fewer(cell, shown) for cell in cells]
        if _least(kept) > LARGEST_PAGE and shown > 1:
            shown = max(1, shown // 2)
            continue
        body = "\n".join([f"<h1>{escape(title)}</h1>", f'<p class="lead">{escape(rule(shown))}</p>', *map(_cell, kept)])
        whole = page(title, f"<style>{_STYLE}</style>\n{body}")
        if len(whole.encode()) <= LARGEST_PAGE or shown == 1:
            return whole
        shown = max(1, shown // 2)


def _least(cells: Sequence[Transcripts]) -> int:
    """Bytes that a page of these cannot do without: its texts and their markup, so that none is made in vain."""
    turns = [turn for cell in cells for pair in cell.paired for side in pair.turns for turn in side]
    return sum(len(text) for _, text in turns) + len(turns) * len(_turns([(True, "-")])) - len(turns)


def _fewer(cell: Transcripts, shown: int) -> Transcripts:
    if len(cell.paired) <= shown:
        return cell
    gains, seeds = ([getattr(pair, name) for pair in cell.paired] for name in ("difference", "episode"))
    kept = shown_episodes(np.asarray(gains), np.asarray(seeds), shown)
    by_seed = {pair.episode: pair for pair in cell.paired}
    return Transcripts(cell.name, cell.other, cell.episodes, tuple(by_seed[seed] for seed in kept), cell.place)


def _cell(cell: Transcripts) -> str:
    head = (
        f"{escape(cell.name)} beside {escape(cell.other)}"
        f"<small>{count(len(cell.paired), 'episode')} of {cell.episodes:,}; all: {escape(cell.place)}</small>"
    )
    return f"<details><summary>{head}</summary>\n" + "\n".join(_pair(cell, pair) for pair in cell.paired) + "</details>"


def _pair(cell: Transcripts, pair: Paired) -> str:
    sides = "".join(
        f"<div><h4>{escape(name)}: {number(value)}</h4>{_turns(turns)}</div>"
        for name, value, turns in zip((cell.name, cell.other), pair.returns, pair.turns, strict=True)
    )
    gain = number(pair.difference)
    return (
        f'<section class="pair"><h3>Episode {pair.episode}: {gain if gain.startswith("−") else "+" + gain}</h3>'
        f'<div class="sides">{sides}</div></section>'
    )


def _turns(turns: Sequence[Turn]) -> str:
    return "".join(map(_turn, turns))


@functools.lru_cache(maxsize=2**16)
def _turn(turn: Turn) -> str:
    """One turn; kept, since much is said again and again."""
    by_agent, text = turn
    return f'<p class="{"agent" if by_agent else "world"}">{escape(text) or "<i>(nothing)</i>"}</p>'


_STYLE = """
details { border-top: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
summary small { display: block; font-weight: 400; color: var(--grey); overflow-wrap: anywhere; }
.pair { margin: 1rem 0 1.6rem; break-inside: avoid; }
.pair h3 { font-size: 1rem; margin: 0 0 .3rem; }
.pair h4 { font-size: .85rem; font-weight: 600; color: var(--grey); margin: 0 0 .3rem; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1.2rem; }
.sides p { margin: .15rem 0; padding: .2rem .55rem; border-radius: .4rem; overflow-wrap: anywhere; font-size: .92rem; }
.sides p.world { background: #f0f1f3; margin-right: 1.5rem; }
.sides p.agent { background: #dcebfa; margin-left: 1.5rem; }
@media (max-width: 40rem) { .sides { grid-template-columns: 1fr; gap: .6rem; } }
@media print { details:not([open]) { display: none; } }
"""
