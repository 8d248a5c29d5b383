"""Advantages of tokens become those of words, phrases and utterances, and a section of a report."""

from __future__ import annotations

import pytest

from analysis.advantages import (
    Spoken,
    advantage_section,
    figure_rows,
    phrases,
    utterances_of,
    whole_utterances,
    words_of,
)
from analysis.page import page
from analysis.section import section_markdown

TWO = Spoken(
    ("is", " it", " re", "d", "<eoa>", "is", " it", " big", "<eoa>"),
    (0.1, 0.2, 0.3, 0.4, -1.0, 0.5, 0.0, -2.0, 0.25),
)


def test_utterances_end_with_their_ends() -> None:
    first, second = utterances_of(TWO)
    assert first.pieces == ("is", " it", " re", "d", "<eoa>")
    assert second.advantages == (0.5, 0.0, -2.0, 0.25)


def test_an_utterance_that_was_cut_is_one_too() -> None:
    assert utterances_of(Spoken(("a", "<eoa>", "b"), (1.0, 2.0, 3.0)))[1] == Spoken(("b",), (3.0,))


def test_a_word_is_the_sum_of_its_tokens_and_the_end_is_none() -> None:
    assert words_of(utterances_of(TWO)[0], spaced=True) == [("is", 0.1), ("it", 0.2), ("red", pytest.approx(0.7))]


def test_without_spaces_every_token_is_a_word() -> None:
    letters = Spoken(("c", "a", "t", "<eoa>"), (1.0, 2.0, 3.0, 4.0))
    assert words_of(letters, spaced=False) == [("c", 1.0), ("a", 2.0), ("t", 3.0)]
    assert [(each.text, each.advantage) for each in phrases([letters], 2)] == [("at", 5.0), ("ca", 3.0)]


def test_a_phrase_is_the_mean_over_what_was_said_of_the_sum_over_its_words() -> None:
    ranked = {each.text: (each.advantage, each.occurrences) for each in phrases([TWO], 2)}
    assert ranked == {
        "is it": (pytest.approx((0.3 + 0.5) / 2), 2),
        "it red": (pytest.approx(0.9), 1),  # 0.2 + 0.3 + 0.4
        "it big": (pytest.approx(-2.0), 1),
    }
    assert [each.text for each in phrases([TWO], 2)] == ["it red", "is it", "it big"]


def test_a_phrase_does_not_reach_over_the_end_of_an_utterance() -> None:
    assert "red is" not in [each.text for each in phrases([TWO], 2)]


def test_rare_phrases_are_left_out_where_that_is_asked_for() -> None:
    assert [each.text for each in phrases([TWO], 1, least=2)] == ["is", "it"]


def test_an_utterance_counts_whole_with_its_end() -> None:
    ranked = whole_utterances([TWO])
    assert [(each.text, each.advantage) for each in ranked] == [
        ("is it red", pytest.approx(0.0)),  # 1.0 − 1.0
        ("is it big", pytest.approx(-1.25)),
    ]


def test_every_piece_has_one_advantage() -> None:
    with pytest.raises(ValueError, match="every piece must have an advantage, got 2 and 1"):
        Spoken(("a", "b"), (1.0,))


def test_a_section_shows_both_ends_and_no_row_twice() -> None:
    section = advantage_section([TWO], whose="ILQL, τ 0.8", what="its own episodes", shown=2)
    assert section is not None
    words = next(table for table in section.tables if table.title.startswith("Words"))
    assert [row[0] for row in words.rows] == ["red", "is", "it", "big"]  # .7, .3, .1, −2
    assert [row[0] for row in section.tables[-1].rows] == ["is it red", "is it big"]
    assert "| big  | −2.000 |" in section_markdown(section)
    figure, caption = section.figures["advantages"]
    assert "ILQL, τ 0.8" in caption
    assert "<eoa>, in the figure ⏎, is the end of an utterance" in caption
    assert list(figure.data[0].z[1]) == [0.5, 0.0, -2.0, 0.25, None]
    assert figure.data[0].text[0][4] == "⏎<br>−1.00"


def test_an_utterance_of_many_tokens_is_wrapped_and_a_long_word_cut() -> None:
    babble = Spoken((" unquestionably", *[" so"] * 59), tuple(float(place) for place in range(60)))
    short = Spoken((" no", "<eoa>"), (1.0, 2.0))
    section = advantage_section([babble, short], whose="ILQL", what="its own episodes", shown=2)
    assert section is not None
    figure, caption = section.figures["advantages"]
    (drawn,) = figure.data
    assert [len([value for value in row if value is not None]) for row in drawn.z] == [12, 12, 2]
    assert drawn.z[1][0] == 12.0
    assert drawn.text[0][0] == "unquesti…<br>0.00"
    assert list(figure.layout.yaxis.ticktext) == ["1 ", " ", "2 "]
    assert "the first 2 different utterances, each at its number, of 1 that are longer the first 24 tokens." in caption


def test_a_figure_has_no_more_rows_than_there_is_room_for() -> None:
    long, short = Spoken(("a",) * 20, (0.0,) * 20), Spoken(("a",), (0.0,))
    rows, drawn = figure_rows([long, short, long, short], 4)
    assert ([len(pieces) for _, pieces, _ in rows], drawn) == ([12, 8, 1], 2)


def test_nothing_said_is_no_section() -> None:
    assert advantage_section([Spoken((), ())], whose="ILQL", what="nothing") is None


def test_what_is_wider_than_its_page_has_a_shadow_where_it_goes_on() -> None:
    # Behind the content, which multiplies with it: figures are white and would cover it.
    style = page("t", "").partition("</style>")[0]
    assert "no-repeat scroll; isolation: isolate" in style
    assert ".scroll > * { mix-blend-mode: multiply; }" in style
