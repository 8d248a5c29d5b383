"""Reading comments: formats, columns, labels, and what happens to rows that cannot be used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ilql.task import SPLITS
from ilql.tasks.reddit.columns import find_column, read_labels
from ilql.tasks.reddit.comments import Comment, split_comments, split_of, with_votes
from ilql.tasks.reddit.data import Corpus, read_corpus, read_labelled
from ilql.tasks.reddit.settings import Labelling, Settings, labelling
from ilql.tasks.reddit.tables import Skipped, open_table
from ilql.tasks.reddit.texts import clean, text_key, uniform, word_count

ROWS = [(f"comment number {number}", f"parent number {number // 2}", number % 3 - 1) for number in range(40)]
TABLE = [{"text": text, "parent": parent, "score": score} for text, parent, score in ROWS]


def csv_file(folder: Path, lines: list[str], name: str = "comments.csv") -> str:
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder / name)


def said(corpus: Corpus) -> set[tuple[str, str | None, float | None]]:
    return {(c.text, c.parent, c.score) for split in SPLITS for c in corpus.splits[split]}


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


class TestFormats:
    @pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.tsv", "c.tsv.gz", "c.jsonl", "c.jsonl.gz", "c.parquet"])
    def test_each_gives_the_same_comments(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / name
        if name == "c.parquet":
            pq.write_table(pa.Table.from_pylist(TABLE), path)
        else:
            separator = "\t" if ".tsv" in name else ","
            lines = [separator.join(TABLE[0])] + [separator.join(map(str, row)) for row in ROWS]
            if "jsonl" in name:
                lines = [json.dumps(row) for row in TABLE]
            data = "\n".join(lines).encode()
            path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        corpus = read_corpus(str(path), Settings(tune_share=0.3, report_share=0.3))
        assert said(corpus) == {(text, parent, float(score)) for text, parent, score in ROWS}

    def test_quoted_cells_may_hold_commas_and_lines(self, tmp_path: Path) -> None:
        table = open_table("data", csv_file(tmp_path, ["text,n", '"a, b', 'and ""c""",1']))
        assert list(table.rows(["text"], Skipped())) == [("line 3", ['a, b\nand "c"'])]

    def test_a_tsv_file_keeps_its_quotes_unless_told_otherwise(self, tmp_path: Path) -> None:
        name = csv_file(tmp_path, ["text\tn", '"so"\t1'], "c.tsv")
        assert list(open_table("data", name).rows(["text"], Skipped())) == [("line 2", ['"so"'])]
        assert list(open_table("data", name, quotes="yes").rows(["text"], Skipped())) == [("line 2", ["so"])]

    def test_columns_can_be_named_where_there_is_no_header(self, tmp_path: Path) -> None:
        table = open_table("data", csv_file(tmp_path, ["hello\t2", "bye\t3"], "c.tsv"), columns=["text", "label"])
        assert list(table.rows(["label", "text"], Skipped())) == [("line 1", ["2", "hello"]), ("line 2", ["3", "bye"])]

    def test_a_byte_order_mark_belongs_to_no_name(self, tmp_path: Path) -> None:
        (tmp_path / "c.csv").write_bytes("\ufefftext\nhi\n".encode())
        assert open_table("data", str(tmp_path / "c.csv")).columns == ("text",)

    def test_lists_and_truths_of_parquet_become_labels(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [[2, 3], []], "b": [True, None]}), tmp_path / "c.parquet")
        table = open_table("data", str(tmp_path / "c.parquet"))
        assert list(table.rows(["a", "b"], Skipped())) == [("row 1", ["2,3", 1.0]), ("row 2", ["", None])]

    def test_rows_that_cannot_be_read_are_counted_with_their_line(self, tmp_path: Path) -> None:
        (tmp_path / "c.csv").write_bytes(b"text,n\nfine,1\nbroken\n\xff\xfe,2\n")
        skipped = Skipped()
        rows = list(open_table("data", str(tmp_path / "c.csv")).rows(["text"], skipped))
        assert rows == [("line 2", ["fine"])]
        assert skipped.notes("data") == [
            "skipped 1 rows of data: it has not as many cells as there are columns (first: line 3)",
            "skipped 1 rows of data: it is not UTF-8 (first: line 4)",
        ]

    def test_lines_that_are_no_json_are_counted(self, tmp_path: Path) -> None:
        skipped = Skipped()
        name = csv_file(tmp_path, ['{"text": "a"}', "{", "[1]", "", '{"text": "b"}'], "c.jsonl")
        assert list(open_table("data", name).rows(["text"], skipped)) == [("line 1", ["a"]), ("line 5", ["b"])]
        assert skipped.counts == {"it is no JSON object": 2}


class TestUnreadableFiles:
    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="--judge-data must be a file that exists, got") as error:
            open_table("judge_data", str(tmp_path / "none.csv"))
        one_line(error)

    def test_a_folder_and_another_format(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"ending in one of \.csv, .* got a folder"):
            open_table("data", str(tmp_path))
        with pytest.raises(ValueError, match=r"ending in one of \.csv, .* got a file"):
            open_table("data", csv_file(tmp_path, ["x"], "c.xlsx"))

    @pytest.mark.parametrize("name", ["c.csv", "c.tsv", "c.jsonl"])
    def test_an_empty_file(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match="got an empty file"):
            open_table("data", str(tmp_path / name))

    @pytest.mark.parametrize("name", ["c.parquet", "c.csv.gz", "c.jsonl.gz"])
    def test_a_file_that_is_not_what_its_name_says(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="cannot be read: ") as error:
            open_table("data", csv_file(tmp_path, ["text", "hello"], name))
        one_line(error)

    def test_a_gz_file_that_ends_too_soon(self, tmp_path: Path) -> None:
        whole = gzip.compress(b"text\n" + b"".join(b"comment %d\n" % (i * i * 7919) for i in range(20_000)))
        (tmp_path / "c.csv.gz").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"c\.csv\.gz cannot be read: ") as error:
            read_corpus(str(tmp_path / "c.csv.gz"), Settings())
        one_line(error)

    def test_a_quote_that_nobody_closes_names_its_line(self, tmp_path: Path) -> None:
        name = csv_file(tmp_path, ["text", '"open', *("x" * 100 for _ in range(2000))])
        with pytest.raises(ValueError, match=r"at line \d+: .*quote may be open") as error:
            read_corpus(name, Settings())
        one_line(error)

    def test_a_header_alone(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"must hold a comment that can be used.*no rows"):
            read_corpus(csv_file(tmp_path, ["text,parent"]), Settings())

    def test_too_few_or_doubled_names(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"must get one name, got 1 \(a\) for 2"):
            open_table("data", csv_file(tmp_path, ["x,y"]), columns=["a"])
        with pytest.raises(ValueError, match="must have a name of its own, got twice 'x'"):
            open_table("data", csv_file(tmp_path, ["x,x"]))

    def test_the_first_json_line_must_be_an_object(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"first line of .* must be a JSON object"):
            open_table("data", csv_file(tmp_path, ["[1, 2]"], "c.jsonl"))


class TestColumns:
    def test_a_missing_one_is_told_with_those_that_are_there(self, tmp_path: Path) -> None:
        table = open_table("data", csv_file(tmp_path, ["a,b"]))
        with pytest.raises(ValueError, match=r"column 'text' that comment_column names; .*comments\.csv has a, b"):
            find_column(table, "text", "comment", "comment_column")
        with pytest.raises(ValueError, match=r"column for the comment, got a, b; .*world\.comment_column=COLUMN"):
            find_column(table, "auto", "comment", "comment_column", needed=True)

    def test_auto_takes_the_first_usual_name_in_any_case(self, tmp_path: Path) -> None:
        table = open_table("data", csv_file(tmp_path, ["Body,TEXT,score"]))
        assert find_column(table, "auto", "comment", "comment_column") == "TEXT"
        assert find_column(table, "auto", "parent", "parent_column") is None
        assert find_column(table, "", "score", "score_column") is None

    def test_a_post_answers_its_title_and_a_bare_title_opens(self, tmp_path: Path) -> None:
        lines = ["title,selftext", "asked,said", *(f"title {i}," for i in range(12))]
        corpus = read_corpus(csv_file(tmp_path, lines), Settings(tune_share=0.3, report_share=0.3))
        assert said(corpus) == {("said", "asked", None), *((f"title {i}", None, None) for i in range(12))}


class TestLabels:
    RULE = Labelling((), 0.5, "toxic_labels")

    def test_numbers_are_compared_with_the_threshold(self) -> None:
        assert read_labels(["0.4", "0.5", "", None, 1.0], self.RULE, "data") == [False, True, None, None, True]

    def test_words_are_the_usual_ones_and_not_parts_of_them(self) -> None:
        assert read_labels(["Toxic", "Not Toxic", "hate"], self.RULE, "data") == [True, False, True]

    def test_a_named_set_takes_numbers_for_names(self) -> None:
        rule = labelling(Settings(toxic_labels="2, 10"), "data")
        assert read_labels(["2", "3,10", "1,3", 2.0, "20"], rule, "data") == [True, True, False, True, False]

    def test_a_single_number_from_a_command_line_is_a_name(self) -> None:
        assert labelling(Settings(judge_toxic_labels=0), "judge_data").toxic == ("0",)
        assert labelling(Settings(labelled_toxic_labels=True), "labelled").toxic == ("true",)

    def test_one_kind_alone_is_refused_with_the_labels_that_were_met(self) -> None:
        with pytest.raises(ValueError, match=r"got 'good', 'ill'.*world\.judge_toxic_labels=LABEL,LABEL"):
            read_labels(["good", "ill", "good"], Labelling((), 0.5, "judge_toxic_labels"), "judge_data")

    def test_labelled_texts_stand_once_and_are_counted(self, tmp_path: Path) -> None:
        lines = ["text,label", "a b,1", "A  b,0", "c,", ",1", "d,0"]
        texts, notes = read_labelled("labelled", csv_file(tmp_path, lines), Settings())
        assert sorted(texts) == [("a b", True), ("d", False)]
        assert notes == [
            "skipped 1 rows of labelled: it has no label (first: line 4)",
            "skipped 1 rows of labelled: it has no text (first: line 5)",
            "skipped 1 rows of labelled: its text stood there before (first: line 3)",
        ]


class TestRows:
    def test_what_cannot_be_used_is_counted_with_its_reason(self, tmp_path: Path) -> None:
        lines = ["text,parent,score", "[deleted],p,1", " ,p,1", "d,[removed],1"]
        lines += [f"{text},{parent},{score}" for text, parent, score in ROWS]
        corpus = read_corpus(csv_file(tmp_path, lines), Settings(tune_share=0.3, report_share=0.3))
        assert len(said(corpus)) == len(ROWS)
        assert [note for note in corpus.notes if note.startswith("skipped")] == [
            "skipped 2 rows of data: its comment or parent was deleted (first: line 2)",
            "skipped 1 rows of data: its comment is empty (first: line 3)",
        ]

    def test_comments_without_votes_stay_and_are_counted(self, tmp_path: Path) -> None:
        lines = ["text,parent,score,subreddit", "a,p,,x", "b,q,many,x", "c,r,inf,x", "d,s,5,"]
        lines += [f"{text},{parent},{score},x" for text, parent, score in ROWS]
        settings = Settings(tune_share=0.3, report_share=0.3, score_kind="median")
        corpus = read_corpus(csv_file(tmp_path, lines), settings)
        comments = [comment for split in SPLITS for comment in corpus.splits[split]]
        assert len(comments) == len(ROWS) + 4
        assert {c.text for c in comments if c.upvoted is None} == {"a", "b", "c", "d"}
        assert not any(note.startswith("skipped") for note in corpus.notes)
        assert [note for note in corpus.notes if note.startswith("kept")] == [
            "kept without votes 2 rows of data: its score is no finite number (first: line 3)",
            "kept without votes 1 rows of data: it has no group (first: line 5)",
            "kept without votes 1 rows of data: it has no score (first: line 2)",
        ]

    def test_a_column_of_scores_without_any_is_refused(self, tmp_path: Path) -> None:
        lines = ["text,parent,score", *(f"{text},{parent},hidden" for text, parent, _ in ROWS)]
        with pytest.raises(
            ValueError, match=r"'score' of .* got none: .*no finite number.*; --set world\.score_column= d"
        ) as e:
            read_corpus(csv_file(tmp_path, lines), Settings(tune_share=0.3, report_share=0.3))
        one_line(e)

    def test_a_number_is_no_comment_and_no_parent(self, tmp_path: Path) -> None:
        rows: list[dict[str, object]] = [{"text": 3, "parent": "p"}, {"text": "a", "parent": 4}]
        rows += [{"text": text, "parent": parent} for text, parent, _ in ROWS]
        name = csv_file(tmp_path, [json.dumps(row) for row in rows], "c.jsonl")
        notes = read_corpus(name, Settings(tune_share=0.3, report_share=0.3)).notes
        assert "skipped 1 rows of data: its comment is no text (first: line 1)" in notes
        assert "skipped 1 rows of data: its parent is no text (first: line 2)" in notes

    def test_long_texts_are_cut_and_counted(self, tmp_path: Path) -> None:
        lines = ["text,parent", *(f"{text}{'x' * 30},{parent}{'y' * 30}" for text, parent, _ in ROWS)]
        settings = Settings(max_comment_characters=20, max_parent_characters=17, tune_share=0.3, report_share=0.3)
        corpus = read_corpus(csv_file(tmp_path, lines), settings)
        kept = [c for split in SPLITS for c in corpus.splits[split]]
        assert {len(c.text) for c in kept} == {20}
        assert {len(c.parent or "") for c in kept} == {17}
        assert "cut 40 comments to their first 20 characters" in corpus.notes
        assert "cut 40 parents to their first 17 characters" in corpus.notes

    def test_too_many_rows_are_chosen_by_hash_and_not_by_place(self, tmp_path: Path) -> None:
        lines = [f"{text},{parent}" for text, parent, _ in ROWS]
        settings = Settings(max_rows=20, tune_share=0.3, report_share=0.3)
        corpus = read_corpus(csv_file(tmp_path, ["text,parent", *lines]), settings)
        backwards = read_corpus(csv_file(tmp_path, ["text,parent", *reversed(lines)], "b.csv"), settings)
        assert said(corpus) == said(backwards)
        assert len(said(corpus)) == 20
        assert said(corpus) != {(text, parent, None) for text, parent, _ in ROWS[:20]}
        assert "used 20 of 40 rows, those with the lowest hash (max_rows)" in corpus.notes

    def test_three_splits_must_have_comments(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"enough different texts for three splits, got comments: train \d"):
            read_corpus(csv_file(tmp_path, ["text", "only one"]), Settings())


class TestSplits:
    SETTINGS = Settings(tune_share=0.3, report_share=0.3)

    def test_no_text_stands_in_two_of_them_in_either_role(self) -> None:
        # Short texts, so that many stand in several rows, as comment and as parent.
        comments = [Comment(f"word {i % 23}", f"word {i % 31}" if i % 3 else None) for i in range(400)]
        skipped = Skipped()
        splits = split_comments(comments, self.SETTINGS, skipped)
        texts = [
            {text_key(text) for c in splits[split] for text in (c.text, c.parent) if text is not None}
            for split in SPLITS
        ]
        assert (texts[0] & texts[1]) | (texts[0] & texts[2]) | (texts[1] & texts[2]) == set()
        assert sum(map(len, splits.values())) + sum(skipped.counts.values()) == 400
        assert sum(skipped.counts.values()) > 0

    def test_case_and_white_space_make_no_other_text(self) -> None:
        comments = [Comment(f"Parent  {i}".upper(), None) for i in range(50)]
        comments += [Comment(f"c{i}", f"parent {i}") for i in range(50)]
        splits = split_comments(comments, self.SETTINGS, Skipped())
        for split in SPLITS:
            for comment in splits[split]:
                assert split_of(text_key(comment.parent or comment.text), self.SETTINGS) == split

    def test_a_parents_split_is_its_own_and_the_shares_are_kept(self) -> None:
        texts, settings, other = [f"text {i}" for i in range(4000)], Settings(), Settings(seed=1)
        found = [split_of(text, settings) for text in texts]
        assert found.count("report") / 4000 == pytest.approx(0.2, abs=0.02)  # 3 standard errors: .019
        assert found.count("tune") / 4000 == pytest.approx(0.1, abs=0.015)
        assert found != [split_of(text, other) for text in texts]


class TestVotes:
    def parts(self, *scores: float, group: str = "") -> tuple[Comment, ...]:
        return tuple(Comment(f"{group}{score}", None, score=score, group=group) for score in scores)

    def up(self, part: tuple[Comment, ...]) -> list[bool | None]:
        return [comment.upvoted for comment in part]

    def test_votes_must_be_above_zero_and_percentiles_above_fifty(self) -> None:
        splits = {"train": self.parts(-1, 0, 1), "tune": self.parts(50, 51), "report": ()}
        assert self.up(with_votes(splits, "votes", Skipped())[0]["train"]) == [False, False, True]
        voted, note = with_votes(splits, "percentile", Skipped())
        assert self.up(voted["tune"]) == [False, True]
        assert "proxy" in note

    def test_a_median_is_that_of_the_groups_training_comments(self) -> None:
        splits = {
            "train": self.parts(1, 2, 9, group="a") + self.parts(100, group="b"),
            "tune": self.parts(3, group="a") + self.parts(3, group="b"),
            "report": self.parts(3, group="c"),
        }
        unvoted = Skipped()
        voted, note = with_votes(splits, "median", unvoted)
        assert self.up(voted["train"]) == [False, False, True, False]  # medians 2 and 100
        assert self.up(voted["tune"]) == [True, False]
        assert self.up(voted["report"]) == [None]
        assert unvoted.counts == {"its group has no score in the training split": 1}
        assert "proxy" in note


class TestTexts:
    def test_only_control_characters_are_cleaned_away(self) -> None:
        assert clean("a\x00b\x1b\r\n\tc\x85\ud800 <eos> Ärger 👍 ") == "ab\n\tc <eos> Ärger 👍 "

    def test_numbers_of_a_text_follow_from_seed_purpose_and_text(self) -> None:
        assert uniform(0, "x", "a") == uniform(0, "x", "a")
        assert len({uniform(0, "x", "a"), uniform(1, "x", "a"), uniform(0, "y", "a"), uniform(0, "x", "b")}) == 4
        values = [uniform(0, "x", str(i)) for i in range(1000)]
        assert 0.0 <= min(values) < max(values) < 1.0
        assert sum(values) / 1000 == pytest.approx(0.5, abs=0.03)

    def test_words_are_what_white_space_parts(self) -> None:
        assert [word_count(text) for text in ("", "  ", "a", " a\nb  c ")] == [0, 0, 1, 3]
