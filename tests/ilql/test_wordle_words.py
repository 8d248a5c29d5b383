"""What a user may name as words and counts, and what is said of what is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ilql.tasks.wordle import KIND, build, source_digest
from ilql.tasks.wordle.human import COLUMNS, read_counts
from ilql.tasks.wordle.settings import Settings
from ilql.tasks.wordle.words import default_words, read_words

LIST = "crane\nslate\ntrace\n"
HEADER = ",".join(COLUMNS)
NUMBER = {"crane": 0, "slate": 1}
HUMAN = Settings(world="human", rules="real", train_games=4, tune_games=2, report_games=2)


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "given.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fault(call: Callable[[], object]) -> str:
    """Give the message of a ValueError, which has one line."""
    with pytest.raises(ValueError, match=r"must|reads|needs|for world") as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestWords:
    def test_a_list_is_read_in_alphabetical_order(self, tmp_path: Path) -> None:
        words, notes = read_words(written(tmp_path, "slate\n\n  crane \r\ntrace"))
        assert words == ("crane", "slate", "trace")
        assert notes == ["3 words of given.txt"]

    def test_duplicates_and_capitals_are_counted(self, tmp_path: Path) -> None:
        words, notes = read_words(written(tmp_path, "slate\nCRANE\nslate\nCrane\n"))
        assert words == ("crane", "slate")
        assert notes[1:] == [
            "2 lines of given.txt skipped: their words stood there before",
            "2 words of given.txt had capitals, which were read as small letters",
        ]

    def test_a_byte_order_mark_does_not_count(self, tmp_path: Path) -> None:
        assert read_words(written(tmp_path, b"\xef\xbb\xbf" + LIST.encode()))[0] == ("crane", "slate", "trace")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("crane\nslates\n", "must have five letters a-z, one word a line, got 'slates' in line 2"),
            ("crane\n\nsla\n", "got 'sla' in line 3"),
            ("cr4ne\nslate\n", "got 'cr4ne' in line 1"),
            ("crane slate\n", "got 'crane slate' in line 1"),
            ("crane\nnaïve\n", "got 'naïve' in line 2"),
            ("crane\n\u212alein\n", "in line 2"),  # the Kelvin sign is no k
            ("", "must be 2 to 16,384 different ones, got 0"),
            ("crane\ncrane\n", "got 1 in"),
            (b"crane\nsl\xe4te\n", "words must be UTF-8 text, got"),
        ],
    )
    def test_what_is_no_list_of_words_is_refused_in_a_line(self, tmp_path: Path, text: str | bytes, said: str) -> None:
        assert said in fault(lambda: read_words(written(tmp_path, text)))

    def test_too_many_words_are_refused(self, tmp_path: Path) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz"
        many = "\n".join(f"a{a}{b}{c}z" for a in letters for b in letters for c in letters)
        assert "got 17,576 in" in fault(lambda: read_words(written(tmp_path, many)))

    def test_a_missing_file_or_a_directory_is_refused(self, tmp_path: Path) -> None:
        assert "which does not exist" in fault(lambda: read_words(tmp_path / "none.txt"))
        assert fault(lambda: read_words(tmp_path)) == f"words must be a file, got the directory {tmp_path}"

    def test_the_embedded_words_are_decent_words_of_five_letters(self) -> None:
        from wonderwords import is_profanity  # type: ignore[import-untyped]

        words = default_words()
        assert len(words) > 1000
        assert list(words) == sorted(set(words))
        assert all(re.fullmatch("[a-z]{5}", word) and not is_profanity(word) for word in words)


class TestCounts:
    def read(self, tmp_path: Path, *lines: str) -> list[list[int]]:
        return [
            list(map(int, row)) for row in read_counts(written(tmp_path, "\n".join([HEADER, *lines])), NUMBER).tries
        ]

    def test_counts_are_read(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, "7,SLATE,0,1,2,3,4,5,6", "", "8,crane,1,0,0,0,0,0,0") == [
            [0, 1, 2, 3, 4, 5, 6],
            [1, 0, 0, 0, 0, 0, 0],
        ]

    def test_puzzles_that_nobody_reported_are_counted(self, tmp_path: Path) -> None:
        text = f"{HEADER}\n7,slate,0,0,0,0,0,0,0\n8,crane,1,0,0,0,0,0,0\n"
        counts = read_counts(written(tmp_path, text), NUMBER)
        assert (counts.skipped, counts.answers.tolist()) == (1, [0])

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            (["7,slate,0,1,2,3,4,5,-6"], "nX must be a whole number that is not negative, got '-6' in line 2"),
            (
                ["7,slate,0,1,2,3,4,5,6", "8,crane,0,1,2.5,3,4,5,6"],
                "n3 must be a whole number that is not negative, got '2.5' in line 3",
            ),
            (["7,slate,0,1,many,3,4,5,6"], "got 'many' in line 2"),
            (["7,slate,0,1,,3,4,5,6"], "got '' in line 2"),
            (["7,slate,0,1,2,3,4,5"], "must have 9 values a line, got 8 in line 2"),
            (["x,slate,0,1,2,3,4,5,6"], "puzzle must be a whole number"),
            (["7,trace,0,1,2,3,4,5,6"], "must be one of the 2 words, got 'trace' in line 2"),
            (["7,slate,0,1,2,3,4,5,6"] * 2, "got puzzle 7 again in line 3"),
            ([], "must tell of one puzzle at least, got none"),
            (["7,slate,0,1,2,3,4,5," + "6" * 140_000], "counts must be a CSV file"),
            (["7,slate,0,1,2,3,4,5," + "6" * 30], "nX must be a whole number"),
        ],
    )
    def test_what_is_no_count_is_refused_in_a_line(self, tmp_path: Path, lines: list[str], said: str) -> None:
        assert said in fault(lambda: self.read(tmp_path, *lines))

    def test_a_missing_column_is_named(self, tmp_path: Path) -> None:
        text = "puzzle,word,n1,n2,n4,n5,n6\n7,slate,0,1,2,3,4\n"
        assert "which lacks n3, nX" in fault(lambda: read_counts(written(tmp_path, text), NUMBER))
        text = f"{HEADER},date\n"
        assert f"which has {HEADER},date" in fault(lambda: read_counts(written(tmp_path, text), NUMBER))
        assert "which lacks puzzle" in fault(lambda: read_counts(written(tmp_path, ""), NUMBER))

    def test_no_file_no_text_no_directory(self, tmp_path: Path) -> None:
        assert "counts must be UTF-8" in fault(lambda: read_counts(written(tmp_path, b"\xff\xfe"), NUMBER))
        assert "which does not exist" in fault(lambda: read_counts(tmp_path / "none", NUMBER))
        assert "counts must be a file" in fault(lambda: read_counts(tmp_path, NUMBER))


class TestSources:
    def test_the_digest_is_of_the_words_not_of_their_file(self, tmp_path: Path) -> None:
        words = written(tmp_path, LIST)
        first = source_digest(Settings(), {"words": str(words)})
        words.write_text("trace\nCRANE\nslate\n")
        assert source_digest(Settings(), {"words": str(words)}) == first
        words.write_text(f"{LIST}stale\n")
        assert source_digest(Settings(), {"words": str(words)}) != first

    def test_the_digest_knows_the_counts(self, tmp_path: Path) -> None:
        (tmp_path / "words").write_text(LIST)
        digests = set()
        for number in (1, 2):
            (tmp_path / "counts").write_text(f"{HEADER}\n7,slate,0,{number},0,0,0,0,0\n")
            digests.add(source_digest(HUMAN, {name: str(tmp_path / name) for name in ("words", "counts")}))
        assert len(digests) == 2

    @pytest.mark.parametrize("call", [source_digest, lambda settings, sources: build(settings, sources, Path("none"))])
    def test_a_source_too_many_or_too_few_is_refused(self, call: Callable[[Settings, dict[str, str]], object]) -> None:
        def said(settings: Settings, sources: dict[str, str]) -> str:
            return fault(lambda: call(settings, sources))

        assert "reads words and counts, got data 'DIR'" in said(Settings(), {"data": "DIR"})
        assert "needs counts" in said(HUMAN, {})
        assert "for world 'human', got 'FILE'" in said(Settings(), {"counts": "FILE"})

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"world": "twitter"}, "world must be one of optimal, branching, branching_unmended, human"),
            ({"rules": "hard"}, "rules must be one of consistent, real"),
            ({"world": "human"}, "must have rules 'real'"),
            ({"train_games": 0}, "train_games must be at least 1, got 0"),
            ({"seed": -1}, "seed must be at least 0, got -1"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, values: dict[str, object], said: str) -> None:
        assert said in fault(lambda: Settings(**values))  # type: ignore[arg-type]

    def test_the_alphabet_is_letters_and_colours(self) -> None:
        assert len(KIND.symbols) == 29
        assert set(KIND.inputs) == {"words", "counts"}
