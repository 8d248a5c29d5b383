"""Every rule of the reader, broken by hand: the line number, what came, and what would have been right."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ilql.tasks.dialogues.read import read_file, read_lines
from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.validate import report, validate

USER = {"role": "user", "text": "hello"}
AGENT = {"role": "agent", "text": "good morning", "reward": 1}
GOOD = json.dumps({"turns": [USER, AGENT]})


def line(**keys: object) -> str:
    return json.dumps({"turns": [USER, AGENT], **keys})


def turns(*given: object) -> str:
    return json.dumps({"turns": list(given)})


def problems(*lines: str, settings: Settings | None = None) -> list[str]:
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    return [str(problem) for problem in read_lines(data, settings or Settings()).problems]


def test_a_line_becomes_the_dialogue_that_it_says() -> None:
    text = line(id="a", ended=False, split="tune")
    (dialogue,) = read_lines(text.encode(), Settings()).dialogues
    assert (dialogue.line, dialogue.id, dialogue.ended, dialogue.split) == (1, "a", False, "tune")
    assert [(t.role, t.text, t.by_agent, dict(t.rewards)) for t in dialogue.turns] == [
        ("user", "hello", False, {}),
        ("agent", "good morning", True, {"recorded": 1.0}),
    ]


def test_a_dialogue_has_ended_unless_it_says_otherwise() -> None:
    dialogues = read_lines("\n".join([GOOD, line(ended=None), line(ended=False)]).encode(), Settings()).dialogues
    assert [dialogue.ended for dialogue in dialogues] == [True, True, False]


def test_messages_of_chat_models_are_read_too() -> None:
    text = json.dumps({"messages": [{"role": "system", "content": "s"}, {"role": "Assistant", "content": "a"}]})
    (dialogue,) = read_lines(text.encode(), Settings()).dialogues
    assert [(t.role, t.text, t.by_agent) for t in dialogue.turns] == [("system", "s", False), ("assistant", "a", True)]


def test_turns_of_one_side_may_follow_each_other() -> None:
    assert problems(turns({"role": "system", "text": "s"}, USER, AGENT, AGENT)) == []


def test_a_whole_dialogues_reward_is_added_to_the_agents_last_turn() -> None:
    text = json.dumps({"turns": [AGENT, USER, AGENT, USER], "reward": 3, "rewards": {"sold": 2}})
    (dialogue,) = read_lines(text.encode(), Settings()).dialogues
    # the last turn of the agent has 1 of its own: 1 + 3 = 4
    assert [dict(t.rewards) for t in dialogue.turns] == [{"recorded": 1.0}, {}, {"recorded": 4.0, "sold": 2.0}, {}]


def test_several_rewards_of_a_turn_keep_their_names_and_null_is_none() -> None:
    turn = {**AGENT, "reward": None, "rewards": {"kind": 0.5, "brief": None}}
    (dialogue,) = read_lines(turns(turn).encode(), Settings()).dialogues
    assert dict(dialogue.turns[0].rewards) == {"kind": 0.5}


def test_roles_can_be_named() -> None:
    settings = Settings(agent_roles="Seller", world_roles="buyer")
    text = turns({"role": "buyer", "text": "how much ?"}, {"role": "seller", "text": "ten"})
    assert problems(text, settings=settings) == []
    assert len(problems(GOOD, settings=settings)) == 2


RULES = [
    ("hello", ["a line must be JSON", '"hello"']),
    ('{"turns": [', ["one that breaks off", "character 12"]),
    (f"{GOOD} {GOOD}", ["got more behind it"]),
    (f"{GOOD},", ["a comma behind it; leave the comma out"]),
    ("{'turns': []}", ["got a single quote at character 2", "double ones"]),
    ('{"turns": [], }', ["a comma before the closing bracket"]),
    ('{"turns": [1,]}', ["a comma before the closing bracket"]),
    ('{"id": "a", "id": "b"}', ["every key once", '"id" twice']),
    ("7", ["must be a JSON object", "the number 7"]),
    ("[" * 20_000, ["must be JSON", "recursion"]),
    ('{"id": "a"}', ["must have the key 'turns'", "'id'"]),
    (line(messages=[]), ["'turns' or 'messages', got both"]),
    ('{"turns": {}}', ["turns must be a list of objects, got the object {}"]),
    ('{"turns": []}', ["turns must not be empty"]),
    (turns(USER, "good morning"), ["turns[1] must be an object", "the string"]),
    (turns(USER), ["must have a turn of the agent (agent, assistant, bot)", "got only user"]),
    (turns({**USER, "role": "asistant"}, AGENT), ["turns[0].role: 'asistant' is no role; known: assistant,"]),
    (turns({"text": "hello"}, AGENT), ["turns[0].role must be a string, got none"]),
    (turns(USER, {**AGENT, "text": 5}), ["turns[1].text must be a string, got the number 5"]),
    (turns(USER, {**AGENT, "text": None}), ["turns[1].text must be a string, got the constant null"]),
    (turns(USER, {"role": "agent", "content": "x"}), ["has no key 'content'; the nearest is 'text'"]),
    (turns({**USER, "text": " "}, AGENT), ["only the agent may say nothing"]),
    (turns(USER, {**AGENT, "text": "\ud800"}), ["half a surrogate pair"]),
    (turns(USER, {**AGENT, "reward": "1.5"}), ["turns[1]: reward must be a finite number", "without quotes"]),
    (turns(USER, {**AGENT, "reward": True}), ["must be a finite number, got the constant true"]),
    (turns(USER, {**AGENT, "reward": float("nan")}), ["must be a finite number, got nan"]),
    (turns(USER, {**AGENT, "reward": float("-inf")}), ["must be a finite number, got -inf"]),
    (turns(USER, {**AGENT, "reward": 10**400}), ["at most 1e+09 in size, got a number of 401 digits"]),
    (turns(USER, {"role": "agent", "text": "a", "rewrad": 1}), ["has no key 'rewrad'; the nearest is 'reward'"]),
    (turns(USER, {"Role": "agent", "text": "a"}), ["turns[1] has no key 'Role'; the nearest is 'role'"]),
    (turns({**USER, "reward": 2}, AGENT), ["only the agent's turns carry rewards, got recorded 2", "'user'"]),
    (turns({**USER, "rewards": {"kind": 2}}, AGENT), ["only the agent's turns carry rewards, got kind 2"]),
    (turns(USER, {**AGENT, "rewards": [1]}), ["rewards must be an object of numbers by name, got the list [1]"]),
    (turns(USER, {**AGENT, "rewards": {"a b": 1}}), ["letters, digits and _", '"a b"']),
    (turns(USER, {**AGENT, "rewards": {"custom": 1}}), ["must not be 'custom'"]),
    (turns(USER, {**AGENT, "rewards": {"kind": "x"}}), ["rewards.kind must be a finite number"]),
    (line(reward="high"), ["the dialogue: reward must be a finite number, got the string"]),
    (line(ended="yes"), ["ended must be true or false"]),
    (line(id=7), ["id must be a string, got 7", '"7"']),
    (line(id=" "), ["id must be text that is not empty"]),
    (line(split="trian"), ["split must be one of train, tune, report", "known: train"]),
    (line(split=1), ["split must be one of train, tune, report; 1 is no split"]),
    ('{"turn": []}', ["a line has no key 'turn'; the nearest is 'turns'"]),
    (line(endde=True), ["a line has no key 'endde'; the nearest is 'ended'"]),
]


@pytest.mark.parametrize(("bad", "said"), RULES, ids=[said[0][:40] for _, said in RULES])
def test_a_bad_line_is_reported_with_its_number_and_the_rule(bad: str, said: list[str]) -> None:
    found = problems(GOOD, bad, GOOD)
    assert len(found) == 1
    assert found[0].startswith("line 2: ")
    assert "\n" not in found[0]
    assert [part for part in said if part not in found[0]] == []


def test_a_reward_of_zero_on_a_turn_of_the_world_is_no_problem() -> None:
    assert problems(turns({**USER, "reward": 0, "rewards": {"kind": 0.0}}, AGENT)) == []


def test_all_problems_of_a_line_are_found() -> None:
    bad = json.dumps({"turns": [{"role": "usr", "text": 1}, {"role": "agent", "text": "a", "reward": "b"}], "id": 3})
    found = problems(GOOD, GOOD, bad)
    assert len(found) == 4  # role, text, reward, id
    assert all(problem.startswith("line 3: ") for problem in found)


def test_an_id_stands_once() -> None:
    found = problems(line(id="a"), line(id="b"), line(id="a"))
    assert found == ['line 3: an id must stand once in a file, got "a", which is also on line 1']


def test_a_line_that_is_not_utf8_is_reported_and_the_others_are_read() -> None:
    latin = json.dumps({"turns": [USER, {**AGENT, "text": "café"}]}, ensure_ascii=False).encode("latin-1")
    recordings = read_lines(f"{GOOD}\n".encode() + latin + f"\n{GOOD}\n".encode(), Settings())
    (problem,) = recordings.problems
    assert problem.line == 2
    assert "UTF-8, got the byte 0xe9 at byte" in problem.message
    assert [dialogue.line for dialogue in recordings.dialogues] == [1, 3]


def test_a_byte_order_mark_and_windows_lines_are_read_and_remarked() -> None:
    recordings = read_lines(b"\xef\xbb\xbf" + f"{GOOD}\r\n{GOOD}\r\n".encode(), Settings())
    assert recordings.problems == ()
    assert len(recordings.dialogues) == 2
    mark, ends = recordings.remarks
    assert mark.startswith("line 1 begins with a byte-order mark")
    assert ends.startswith("2 lines, the first of them line 1, end as on Windows")


def test_only_the_line_feed_ends_a_line() -> None:
    text = json.dumps({"turns": [USER, {**AGENT, "text": "a\u2028b\x85c"}]}, ensure_ascii=False)
    recordings = read_lines(f"{text}\n{GOOD}".encode(), Settings())
    assert [dialogue.line for dialogue in recordings.dialogues] == [1, 2]
    assert recordings.dialogues[0].turns[1].text == "a\u2028b\x85c"


def test_blank_lines_are_passed_over_and_counted() -> None:
    recordings = read_lines(f"{GOOD}\n\n \n{GOOD}\n\n".encode(), Settings())
    assert [dialogue.line for dialogue in recordings.dialogues] == [1, 4]
    assert recordings.remarks == ("2 blank lines between others; passed over",)


WHOLE = [
    (b"", ["one dialogue a line, got an empty file", '"turns"']),
    (b" \n\n", ["got an empty file"]),
    (f"[{GOOD},\n{GOOD}]\n".encode(), ["got a JSON array of 2; write every dialogue as one line"]),
    (f"[{GOOD}]".encode(), ["got a JSON array of 1"]),
    (json.dumps(json.loads(GOOD), indent=2).encode(), ["spread over several lines"]),
    (GOOD.encode("utf-16"), ["must be UTF-8, got UTF-16"]),
]


@pytest.mark.parametrize(("data", "said"), WHOLE, ids=[said[0][-30:] for _, said in WHOLE])
def test_what_is_no_file_of_lines_is_one_problem_of_the_whole_file(data: bytes, said: list[str]) -> None:
    recordings = read_lines(data, Settings())
    (problem,) = recordings.problems
    assert recordings.refused is problem
    assert recordings.dialogues == ()
    assert [part for part in said if part not in str(problem)] == []


def test_a_directory_and_a_missing_file_are_problems_that_name_them(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").touch()
    (directory,) = read_file(str(tmp_path), Settings()).problems
    assert "got the directory" in str(directory)
    assert "in it: mine.jsonl" in str(directory)
    (missing,) = read_file(str(tmp_path / "none.jsonl"), Settings()).problems
    assert "must be a file that exists" in str(missing)


def test_a_packed_file_is_read_and_a_torn_one_is_a_problem(tmp_path: Path) -> None:
    packed = gzip.compress(f"{GOOD}\n".encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    (tmp_path / "b.jsonl.gz").write_bytes(packed[:-9])
    assert len(read_file(str(tmp_path / "a.jsonl.gz"), Settings()).dialogues) == 1
    (problem,) = read_file(str(tmp_path / "b.jsonl.gz"), Settings()).problems
    assert "a gzip file must be whole" in str(problem)


def test_keys_that_mean_nothing_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join([line(source="shop"), line(source="shop"), turns(USER, {**AGENT, "who": 1})]))
    assert validate(str(file), Settings())[1].ignored == "source (2 times), who (1 time)"


def test_the_summary_counts_what_is_there(tmp_path: Path) -> None:
    lines = [
        turns(USER, {**AGENT, "text": "a b c"}),  # 1 + 3 = 4 words, return 1
        turns(USER, {"role": "agent", "text": ""}, USER, {**AGENT, "reward": 3}),  # 1 + 0 + 1 + 2 = 4, return 3
        line(id="x", ended=False),  # 1 + 2 = 3 words, return 1
        line(id="y", split="report"),  # 3 words, return 1, the same words as the line before
        "{}",
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    problems_, summary = validate(str(file), Settings())
    assert len(problems_) == 1
    assert (summary.lines, summary.bad_lines, summary.dialogues, summary.turns, summary.agent_turns) == (5, 1, 4, 10, 5)
    assert (summary.empty_turns, summary.named, summary.duplicates, summary.share_ended) == (1, 2, 1, 0.75)
    assert summary.longest == ("line 1", 4)
    assert summary.asked == {"report": 1}
    assert sum(summary.splits.values()) == 4
    assert summary.roles == {"user": 5, "agent (agent)": 5}
    assert summary.words_each is not None
    assert summary.words_each.quantiles == (3.0, 3.0, 3.5, 4.0, 4.0)
    recorded = summary.rewards["recorded"]
    assert recorded.share_without == pytest.approx(0.2)  # one of five turns
    assert recorded.returns.mean == pytest.approx(1.5)  # (1 + 3 + 1 + 1) / 4
    assert recorded.values is not None
    assert recorded.values.quantiles == (1.0, 1.0, 1.0, 1.5, 3.0)
    assert "20% have none" in summary.text()


def test_twenty_problems_are_printed_and_the_others_counted(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(["{}"] * 25 + [GOOD]), encoding="utf-8")
    rows = report(*validate(str(file), Settings())).splitlines()
    assert [row.split(":")[0] for row in rows[:20]] == [f"line {number}" for number in range(1, 21)]
    assert rows[20] == "and 5 more problems"
    assert rows[21].startswith("1 dialogue on 26 lines, and 25 lines with problems")
