"""Which episodes are shown by their stated rule, and a page that stays small and shows text as text."""

from __future__ import annotations

import re

import numpy as np
import pytest

from analysis import transcripts
from analysis.transcripts import Paired, Transcripts, rule, shown_episodes, transcripts_page


def pair(episode: int, gain: float, text: str = "hello") -> Paired:
    said = ((False, "what is it?"), (True, text))
    return Paired(episode, (gain, 0.0), (said, said))


def test_the_ends_and_the_middle_are_shown_sorted_by_their_gain() -> None:
    gains = np.arange(11.0)  # the gain of episode 90 is 10, of episode 100 it is 0
    # Of 5: two at either end, and of 11 sorted ones the sixth, at gain 5.
    assert shown_episodes(gains, 100 - np.arange(11), 5) == [90, 91, 95, 99, 100]


def test_of_equal_gains_the_earlier_episode_comes_first() -> None:
    assert shown_episodes(np.array([1.0, 1.0, 2.0]), np.array([7, 3, 9]), 5) == [9, 3, 7]


def test_what_the_rule_says_is_what_it_does() -> None:
    ends, middle, losses = map(int, re.findall(r"the (\d+) ", rule(20)))
    kept = shown_episodes(-np.arange(100.0), np.arange(100), 20)
    assert (ends, middle, losses) == (8, 4, 8)
    assert kept == [*range(8), 48, 49, 50, 51, *range(92, 100)]


def test_the_page_shows_both_sides_and_what_was_said_as_text() -> None:
    cell = Transcripts("ILQL", "BC", 256, (pair(3, 2.5, "<b>bold</b> & co"), pair(4, -1.0, "")), "stages/x.parquet")
    page = transcripts_page("What was said", [cell])
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in page
    assert "<b>bold" not in page
    assert "Episode 3: +2.50" in page
    assert "Episode 4: −1.00" in page
    assert page.count("ILQL: 2.50") == page.count("BC: 0.00") - 1 == 1
    assert "<i>(nothing)</i>" in page
    assert "2 episodes of 256; all: stages/x.parquet" in page


def test_a_page_that_would_be_too_large_shows_fewer_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Transcripts("ILQL", "BC", 40, tuple(pair(place, float(-place), "x" * 500) for place in range(20)), "")
    whole = transcripts_page("t", [cell])
    assert whole.count('class="pair"') == 20
    monkeypatch.setattr(transcripts, "LARGEST_PAGE", len(whole) // 2)
    smaller = transcripts_page("t", [cell])
    assert smaller.count('class="pair"') == 5  # ten and the frame around them are more than half
    assert "Of every cell 5 episodes at most" in smaller
    shown = [int(seed) for seed in re.findall(r"Episode (\d+):", smaller)]
    assert shown == [0, 1, 9, 18, 19]  # (20 - 1) // 2 = 9
