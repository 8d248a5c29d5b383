"""What can become of a sound input: bytes that flip, are lost, come in or come twice; values that are others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

ODD: Sequence[Any] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**40, 0.5, -2.5, float("nan"), float("inf"), "", " ", "x", "\0",
    "é", "\ud83d", "\x1b[1m", "a\nb", "../../x", "0", "x" * 5000, [], [[]], [1, 2], ["a"], {}, {"a": 1}, {"": None},
)  # fmt: skip
"""What stands where something else should."""

PIECES = (
    b"\0",
    b"\xff",
    b"\n",
    b"\r\n",
    b'"',
    b"'",
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"-",
    b"9" * 30,
    b"1e999",
    b"NaN",
    b"null",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xed\xa0\xbd",
    b"\x1f\x8b",
    b"\xe2\x80\xa8",
    b"[" * 3000,
)
"""What comes in."""  # fmt: skip


OF_YAML = (
    b"&a ", b"*a", b"<<: ", b"!!int ", b"!x ", b"? ", b"- ", b"|\n", b">-\n", b"---\n", b"...\n", b"%YAML 1.1\n", b"# ",
    b"\t", b"1:30", b"0x_", b"2001-13-40", b"~", b"=", b"yes", b".nan", b"{a: &a {b: *a}}", b'"\\UFFFFFFFF"', b"  ",
)  # fmt: skip
"""What comes into YAML besides."""


@st.composite
def bytes_of(draw: st.DrawFn, sound: bytes, pieces: Sequence[bytes] = PIECES) -> bytes:
    """The bytes after one to four accidents, in which one of the pieces may come in."""
    content = sound
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.integers(1, 40)))
        match draw(st.sampled_from(("flip", "cut", "lose", "insert", "twice", "zeros"))):
            case "flip" if begin < len(content):
                turned = content[begin] ^ (1 << draw(st.integers(0, 7)))
                content = content[:begin] + bytes([turned]) + content[begin + 1 :]
            case "cut":
                content = content[:begin]
            case "lose":
                content = content[:begin] + content[end:]
            case "insert":
                content = content[:begin] + draw(st.sampled_from(pieces)) + content[begin:]
            case "twice":
                content = content[:end] + content[begin:]
            case "zeros":
                content = content[:begin] + bytes(end - begin) + content[end:]
    return content


@st.composite
def value_of(draw: st.DrawFn, sound: Any) -> Any:
    """The JSON value after one to three accidents: a part is gone, another, twice, or has another name."""
    whole = [copy.deepcopy(sound)]  # so that the value itself has a place, too
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(whole))
        inside, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(("drop", "other", "other", "name", "twice"))):
            case "drop" if inside is not whole:
                del inside[key]
            case "name" if isinstance(inside, dict):
                inside[f"{key}s"] = inside.pop(key)
            case "twice" if isinstance(inside, list) and inside is not whole:
                inside.insert(key, copy.deepcopy(inside[key]))
            case _:
                inside[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return whole[0]


def _places(value: Any) -> Any:
    """Every list or object within a value, and a key of it."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


WORDS = (
    "", "0", "1", "-1", "2", "1.5", "nan", "inf", "9" * 30, "all", "bc", "ilql,bc", "iqll", ",", "standard", "yn", "x",
    "smoke", "laptop", "sound", "tune", "train.tau=0.5", "train.steps=5", "train.steps=", "=", "a=b=c",
    "decode.beta=inf",
    "world.dialogues=4", "world.dialogues=4,8", "world.dialogues=[", "behaviour.steps=3", "../x", "a b", "é", "\ud83d",
    "a\nb", "\x1b[1m", "-", "--", "--seeds=3", "trlx", "lmrl", "/no/such", "pull",
)  # fmt: skip
"""What stands behind an option, or where one should."""

OPTIONS = (
    "--methods", "--refine", "--rewards", "--reward", "--evaluation-reward", "--transfer", "--set", "--vary", "--seeds",
    "--episodes", "--trials", "--search-seed", "--name", "--convention", "--world", "--data", "--concurrent",
    "--workers", "--gpus-per-worker", "--micro-batch", "--ray-train", "--tracking-uri", "--no-mlflow", "--show",
    "--cut-vocabulary", "--no-cut-vocabulary", "--preset", "--help", "--sett", "-x",
)  # fmt: skip

COMMANDS = ("list", "status", "remove", "reply", "export", "advantages", "doctor", "play", "rescore", "validate",
            "plan", "imagine", "hindsight", "lsit", "")  # fmt: skip

MORE = ("--store", "--split", "--dialogues", "--seed", "--trial", "--quick", "--style", "--failed", "--rewards",
        "--set", "--model", "--reward", "--endpoint", "--key-variable", "--examples", "--count", "--help", "bandit",
        "TRIAL")  # fmt: skip


@st.composite
def options(draw: st.DrawFn) -> list[str]:
    """A command line of a question: options with and without what belongs behind them."""
    words: list[str] = []
    for option in draw(st.lists(st.sampled_from(OPTIONS), max_size=5)):
        words.append(option)
        words += draw(st.lists(st.sampled_from(WORDS), max_size=2 if draw(st.booleans()) else 1))
    return words


@st.composite
def commands(draw: st.DrawFn, trials: Sequence[str]) -> list[str]:
    """A command line of `sweeps`; `TRIAL` stands for the id of one of the trials."""
    drawn = draw(st.lists(st.sampled_from((*WORDS, *MORE)), max_size=6))
    trial = st.sampled_from(tuple(trials))
    return [draw(st.sampled_from(COMMANDS)), *(draw(trial) if word == "TRIAL" else word for word in drawn)]
