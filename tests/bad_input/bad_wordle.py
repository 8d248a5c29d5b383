"""Word lists, and what people reported of puzzles: what is wrong with files of either."""

from __future__ import annotations

from collections.abc import Sequence

from faults import Fault, Place, Reader
from files import path_faults, text_faults

WORDS = ("aabcd", "bbcde", "ccdef", "ddefg", "eefgh", "ffghi", "gghij", "hhijk")
"""Five letters each, of no language."""

HEADER = "puzzle,word,n1,n2,n3,n4,n5,n6,nX"
SMALL = [f"--set=world.{split}_games=2" for split in ("train", "tune", "report")]


def word_list() -> str:
    return "\n".join(WORDS) + "\n"


def rows() -> list[str]:
    """A line for each word."""
    return [f"{number},{word},0,1,5,9,5,2,1" for number, word in enumerate(WORDS, start=200)]


def counts() -> str:
    return "\n".join([HEADER, *rows()]) + "\n"


def read_words(path: str) -> Sequence[str]:
    return ["play", "wordle", *SMALL, "--words", path]


def read_counts(at: Place, path: str) -> Sequence[str]:
    words = at.write("words.txt", word_list())
    return ["play", "wordle", *SMALL, "--world", "human", "--words", words, "--counts", path]


def _words(name: str, why: str, text: str | bytes, *says: str) -> Fault:
    return Fault(name, why, lambda at: read_words(at.write("w.txt", text)), ("w.txt", *says))


def _with_line(bad: str) -> str:
    """The list with another third line."""
    return "\n".join([*WORDS[:2], bad, *WORDS[3:]]) + "\n"


LIST = Reader(
    "wordle, words",
    sound=lambda at: read_words(at.write("w.txt", word_list())),
    faults=(
        *path_faults(read_words, "w.txt"),
        *text_faults(read_words, "w.txt", word_list().encode()),
        _words("byte of Latin-1", "accents of before Unicode", b"aabcd\nbb\xe9de\n", "UTF-8"),
        _words("word of four letters", "a list for another game", _with_line("abcd"), "line 3", "'abcd'"),
        _words("word of six letters", "a plural", _with_line("aabcds"), "line 3"),
        _words("two words in a line", "a list with spaces between", _with_line("aabcd bbcde"), "line 3"),
        _words("word with a digit", "numbered lines", _with_line("1abcd"), "line 3"),
        _words("word with an accent", "another language", _with_line("abcdé"), "line 3"),
        _words("letters that look alike", "Cyrillic among Latin", _with_line("аabcd"), "line 3"),
        _words("escape sequence", "coloured output of a program", _with_line("\x1b[1mabcde"), "line 3"),
        _words("NUL in a word", "binary", _with_line("ab\0de"), "line 3"),
        _words("one line without an end", "a list on one line", "abcde," * 200_000, "line 1"),
        _words("one word", "a sample", "aabcd\n", "2 to"),
        _words("one word again and again", "a counter that did not count", "aabcd\n" * 50, "2 to", "got 1"),
        _words("header", "a column of a table", "words\nid\n" + word_list(), "line 2", "'id'"),
        _words("JSON", "a list as JSON", '["aabcd", "bbcde"]\n', "line 1"),
        Fault("counts without the human world", "an option too many",
              lambda at: [*read_words(at.write("w.txt", word_list())), "--counts", at.write("c.csv", counts())],
              ("c.csv", "human")),
    ),
)  # fmt: skip


def _counts(name: str, why: str, text: str | bytes, *says: str) -> Fault:
    return Fault(name, why, lambda at: read_counts(at, at.write("c.csv", text)), ("c.csv", *says))


def _with_row(row: str) -> str:
    """The counts with another third line."""
    return "\n".join([HEADER, *rows()[:1], row, *rows()[2:]]) + "\n"


def _path(fault: Fault) -> Fault:
    """A fault of a path as one of the counts."""

    def make(at: Place) -> Sequence[str]:
        return read_counts(at, fault.make(at)[-1])

    return Fault(fault.name, fault.why, make, fault.says)


COUNTS = Reader(
    "wordle, counts",
    sound=lambda at: read_counts(at, at.write("c.csv", counts())),
    faults=(
        *map(_path, path_faults(lambda path: [path], "c.csv")),
        *map(_path, text_faults(lambda path: [path], "c.csv", counts().encode())),
        _counts("no header", "rows alone", "\n".join(rows()), "puzzle"),
        _counts("misspelt column", "renamed by hand", counts().replace("nX", "n7"), "lacks nX"),
        _counts("column too many", "an index of the table's program",
                "\n".join(f"0,{line}" for line in counts().splitlines()), "columns"),
        _counts("column twice", "joined tables", counts().replace("n2", "n1"), "n2"),
        _counts("semicolons", "exported where commas are decimal", counts().replace(",", ";"), "columns"),
        _counts("header alone", "an empty export", HEADER + "\n", "got none"),
        _counts("row too short", "truncated", _with_row("201,bbcde,0,1,5"), "line 3", "got 5"),
        _counts("row too long", "a comment behind it", _with_row("201,bbcde,0,1,5,9,5,2,1,odd"), "line 3"),
        _counts("negative count", "a difference", _with_row("201,bbcde,0,-1,5,9,5,2,1"), "line 3", "n2", "'-1'"),
        _counts("broken count", "a share instead of a number", _with_row("201,bbcde,0,1.5,5,9,5,2,1"), "line 3", "n2"),
        _counts("count of NaN", "missing", _with_row("201,bbcde,nan,1,5,9,5,2,1"), "line 3", "n1"),
        _counts("count of 400 digits", "binary read as digits", _with_row(f"201,bbcde,{'9' * 400},1,5,9,5,2,1"),
                "line 3", "n1"),
        _counts("digits of another script", "typed on another keyboard", _with_row("201,bbcde,٣,1,5,9,5,2,1"),
                "line 3", "n1"),
        _counts("count with a separator", "1,000 in quotes", _with_row('201,bbcde,"1,000",1,5,9,5,2,1'), "line 3"),
        _counts("empty count", "missing", _with_row("201,bbcde,,1,5,9,5,2,1"), "line 3", "n1"),
        _counts("word that is not on the list", "another list", _with_row("201,zzzzz,0,1,5,9,5,2,1"), "line 3",
                "zzzzz", "--words"),
        _counts("puzzle twice", "two exports in one", _with_row("200,bbcde,0,1,5,9,5,2,1"), "line 3", "200"),
        _counts("puzzle without a number", "a date instead", _with_row("2022-01-01,bbcde,0,1,5,9,5,2,1"), "line 3",
                "puzzle"),
        _counts("nobody played", "zeros everywhere",
                HEADER + "\n" + "".join(f"{n},{w},0,0,0,0,0,0,0\n" for n, w in enumerate(WORDS)), "got none"),
        _counts("quote that is never closed", "an apostrophe of another kind",
                _with_row('201,"bbcde,0,1,5,9,5,2,1'), "line"),
        _counts("field of 200,000 letters", "a broken export", _with_row("201," + "x" * 200_000 + ",0,1,5,9,5,2,1"),
                "line 3"),
        Fault("human world without counts", "an option forgotten",
              lambda at: ["play", "wordle", *SMALL, "--world", "human"], ("counts",)),
        Fault("rules that people did not play by", "settings that contradict each other",
              lambda at: [*read_counts(at, at.write("c.csv", counts())), "--set", "world.rules=consistent"],
              ("human", "consistent")),
    ),
)  # fmt: skip

READERS = (LIST, COUNTS)
