"""Three layouts of recorded dialogues, and what happens to bad ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ilql.tasks.visdial.layouts import as_question, digest, find_dialogues, read_dialogues
from ilql.tasks.visdial.protocols import Exchange

DATA = Path(__file__).parents[3] / "shared/data/visdial_val"


def line(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "image_id": 7,
        "caption": "a dog on a beach",
        "human": [["is it sunny", "yes, very"], ["what color is the dog", "brown"]],
        "blip2_answers": ["yes", "black"],
        "chatgpt_blip2": [["Is there a ball?", "no"]],
        "chatgpt_blind_blip2": [],
        "flan_blip2": [["What is the dog doing?", "running"]],
        "plugir_description": "A dog runs along a sunny beach.",
    }
    return row | changes


def write_lines(folder: Path, *rows: object) -> Path:
    path = folder / "visdial.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_json(folder: Path, whole: object) -> Path:
    path = folder / "visdial.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


def one_line_fault(path: Path) -> str:
    with pytest.raises(ValueError, match=path.name) as fault:
        read_dialogues(path)
    assert "\n" not in str(fault.value)
    return str(fault.value)


def test_a_line_gives_people_and_machine_apart(tmp_path: Path) -> None:
    corpus = read_dialogues(write_lines(tmp_path, line()))
    (scene,) = corpus.scenes
    assert (corpus.layout, scene.id, scene.caption) == ("lines", "7", "a dog on a beach")
    assert scene.human == (Exchange("is it sunny?", "yes, very"), Exchange("what color is the dog?", "brown"))
    assert scene.machine == (
        Exchange("is it sunny?", "yes"),  # the vision model's answers to the people's questions, in their order
        Exchange("what color is the dog?", "black"),
        Exchange("Is there a ball?", "no"),
        Exchange("What is the dog doing?", "running"),
    )
    assert corpus.has_machine_text


def test_a_line_needs_no_machine_columns_but_all_or_none(tmp_path: Path) -> None:
    human_only = {column: value for column, value in line().items() if column in ("image_id", "caption", "human")}
    corpus = read_dialogues(write_lines(tmp_path, human_only))
    assert corpus.scenes[0].machine == ()
    assert not corpus.has_machine_text
    with pytest.raises(ValueError, match="got 1 of 2"):
        read_dialogues(write_lines(tmp_path, human_only, line(image_id=8)))
    assert "missing blip2_answers" in one_line_fault(
        write_lines(tmp_path, human_only | {"plugir_description": "A dog."})
    )


def test_official_rounds_are_indices(tmp_path: Path) -> None:
    rounds = [{"question": 1, "answer": 0, "answer_options": [0, 1]}, {"question": 0, "answer": 1}]
    data = {
        "questions": ["is it day", "any people?"],
        "answers": ["no", "2"],
        "dialogs": [{"image_id": 3, "caption": "a street", "dialog": rounds}],
    }
    corpus = read_dialogues(write_json(tmp_path, {"version": "1.0", "split": "val", "data": data}))
    assert corpus.layout == "official"
    assert corpus.scenes[0].id == "3"
    assert corpus.scenes[0].human == (Exchange("any people?", "no"), Exchange("is it day?", "2"))


def test_an_index_outside_skips_its_dialogue_only(tmp_path: Path) -> None:
    good = {"image_id": 3, "caption": "a street", "dialog": [{"question": 0, "answer": 0}]}
    bad = {"image_id": 4, "caption": "a street", "dialog": [{"question": 0, "answer": 9}]}
    negative = {"image_id": 5, "caption": "a street", "dialog": [{"question": -1, "answer": 0}]}
    data = {"questions": ["is it day"], "answers": ["no"], "dialogs": [bad, good, negative]}
    corpus = read_dialogues(write_json(tmp_path, {"data": data}))
    assert [scene.id for scene in corpus.scenes] == ["3"]
    assert corpus.skipped == ("dialogue 0: index 9 is not in [0, 1)", "dialogue 2: index -1 is not in [0, 1)")


def test_a_list_names_scenes_by_their_place(tmp_path: Path) -> None:
    dialogues = [
        {"caption": "a street", "dialog": [{"question": "is it day", "answer": ""}]},
        {"caption": "a street", "dialog": [{"question": "is it day", "answer": "yes"}]},
    ]
    corpus = read_dialogues(write_json(tmp_path, dialogues))
    assert corpus.layout == "list"
    assert [scene.id for scene in corpus.scenes] == ["1"]
    assert corpus.skipped == ("dialogue 0: answer 1 is missing or empty",)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"human": [["is it sunny", "  "], ["a", "b"]]}, "human answer 1 is missing or empty"),
        ({"human": [["is it sunny", "yes"], ["", "b"]]}, "human question 2 is missing or empty"),
        ({"human": [["is it sunny"], ["a", "b"]]}, "human 1 is no pair of question and answer"),
        ({"human": [], "blip2_answers": []}, "it has no questions"),
        ({"human": "yes"}, "human is no list"),
        ({"blip2_answers": ["yes"]}, "blip2_answers are not as many as the human questions"),
        ({"blip2_answers": ["yes", None]}, "blip2_answers 2 is missing or empty"),
        ({"flan_blip2": [["What?", ""]]}, "flan_blip2 answer 1 is missing or empty"),
        ({"caption": ""}, "caption is missing or empty"),
        ({"plugir_description": None}, "plugir_description is missing or empty"),
        ({"image_id": None}, "image_id is no number or name"),
        ({"image_id": 1}, "image_id 1 was there before"),
    ],
)
def test_a_bad_dialogue_is_left_out_and_named(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    corpus = read_dialogues(write_lines(tmp_path, line(image_id=1), line(image_id=2) | changes, line(image_id=3)))
    assert [scene.id for scene in corpus.scenes] == ["1", "3"]
    assert corpus.skipped == (f"line 2: {why}",)


def test_nothing_but_bad_dialogues_is_a_fault_that_names_the_first(tmp_path: Path) -> None:
    assert "line 1: caption is missing or empty" in one_line_fault(write_lines(tmp_path, line(caption="")))
    assert "at least one whole dialogue" in one_line_fault(write_lines(tmp_path))


def test_a_truncated_line_is_one_line_with_its_number(tmp_path: Path) -> None:
    path = write_lines(tmp_path, line(), line(image_id=8))
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    assert "line 2 must be whole JSON" in one_line_fault(path)


def test_a_truncated_archive_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "visdial.jsonl.gz"
    packed = gzip.compress(json.dumps(line()).encode())
    path.write_bytes(packed)
    assert len(read_dialogues(path).scenes) == 1
    path.write_bytes(packed[:-20])
    assert "whole gzip file" in one_line_fault(path)
    path.write_bytes(b"no archive")
    assert "whole gzip file" in one_line_fault(path)


def test_other_contents_are_one_line_each(tmp_path: Path) -> None:
    assert "line 1 must have image_id, caption, human; missing human, got image_id" in one_line_fault(
        write_lines(tmp_path, {"image_id": 1, "caption": "a"})
    )
    assert "line 2 must be an object" in one_line_fault(write_lines(tmp_path, line(), [1]))
    assert "missing data, got dialogs" in one_line_fault(write_json(tmp_path, {"dialogs": []}))
    assert "missing questions" in one_line_fault(write_json(tmp_path, {"data": {"answers": [], "dialogs": []}}))
    assert "data.dialogs must be a list" in one_line_fault(
        write_json(tmp_path, {"data": {"questions": [], "answers": [], "dialogs": {}}})
    )
    assert "dialogue 0 must have caption, dialog" in one_line_fault(write_json(tmp_path, [{"caption": "a"}]))
    assert "must be an object" in one_line_fault(write_json(tmp_path, 5))
    (tmp_path / "visdial.json").write_bytes(b"[\xff]")
    assert "must be UTF-8 text, got byte 0xff at 1" in one_line_fault(tmp_path / "visdial.json")
    (tmp_path / "visdial.json").write_text('[\n{"caption": ', encoding="utf-8")
    assert "line 2 must be whole JSON" in one_line_fault(tmp_path / "visdial.json")


def test_a_directory_means_its_only_file_of_dialogues(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got none in"):
        find_dialogues(str(tmp_path))
    path = write_lines(tmp_path, line())
    (tmp_path / "SOURCE.md").write_text("about", encoding="utf-8")
    (tmp_path / "answer_options.jsonl").write_text("{}", encoding="utf-8")
    assert find_dialogues(str(tmp_path)) == path == find_dialogues(str(path))
    write_json(tmp_path, [])
    with pytest.raises(ValueError, match=r"got visdial\.json, visdial\.jsonl in"):
        find_dialogues(str(tmp_path))


def test_a_missing_source_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got none; name one with --data"):
        find_dialogues(None)
    with pytest.raises(ValueError, match=r"must be a file or directory that exists, got .*nowhere"):
        find_dialogues(str(tmp_path / "nowhere"))
    (tmp_path / "SOURCE.md").write_text("about", encoding="utf-8")
    with pytest.raises(ValueError, match=r"must end in one of .*SOURCE\.md"):
        find_dialogues(str(tmp_path / "SOURCE.md"))


def test_the_digest_follows_the_bytes(tmp_path: Path) -> None:
    first = digest(write_lines(tmp_path, line()))
    assert first == digest(write_lines(tmp_path, line()))
    assert first != digest(write_lines(tmp_path, line(image_id=8)))


def test_a_question_mark_is_added_once() -> None:
    assert as_question("is it day") == "is it day?"
    assert as_question("is it day?") == "is it day?"


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/visdial_val, which is not in the repository")
def test_the_validation_set_is_read_whole() -> None:
    corpus = read_dialogues(find_dialogues(str(DATA)))
    assert (len(corpus.scenes), corpus.layout, corpus.skipped) == (2064, "lines", ())
    assert sum(len(scene.human) for scene in corpus.scenes) == 20_640
