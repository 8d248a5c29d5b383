"""Dialogues that a model writes: what is wrong with descriptions, examples, rewards, models and endpoints."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from bad_dialogues import as_lines, rows
from faults import Fault, Place, Reader
from files import DIGITS, path_faults, text_faults
from line_models import BEGIN_AGENT, REPAIRS, save_line_model
from scratch import scratch

DESCRIPTION = "A repair shop and its customers."
REWARD = "def reward(dialogue, turn):\n    return -float(len(dialogue[turn]['text'].split()))\n"
DOWN = "http://127.0.0.1:9/v1"
"""An address in good form; what is wrong beside it is found before anybody is asked."""

Command = Callable[..., Sequence[str]]


@functools.cache
def shop() -> str:
    """The folder of a model that writes dialogues; made once."""
    return str(save_line_model(scratch("lines"), REPAIRS))


@functools.cache
def clerk() -> str:
    """The folder of a model that rewrites one turn; made once."""
    chain = {BEGIN_AGENT: {" ok": 1.0}, " ok": {"END": 1.0}, "END": {"END": 1.0}}
    return str(save_line_model(scratch("lines"), chain))


@functools.cache
def pay() -> str:
    """A sound reward function; written once."""
    file = scratch("pay") / "pay.py"
    file.write_text(REWARD)
    return f"{file}:reward"


def imagine(path: str, *more: str, model: str | None = None, reward: str | None = None) -> Sequence[str]:
    paid = pay() if reward is None else reward
    words = ["imagine", path, "--model", shop() if model is None else model, "--reward", paid]
    return [*words, "--count", "2", "--max-tokens", "12", *more]


def hindsight(path: str, *more: str, model: str | None = None, reward: str | None = None) -> Sequence[str]:
    paid = pay() if reward is None else reward
    words = ["hindsight", path, "--model", clerk() if model is None else model, "--reward", paid]
    return [*words, "--max-tokens", "4", *more]


def shown(path: str) -> Sequence[str]:
    """Examples that are read."""
    folder = Path(path).parent if len(path) < 200 else scratch("text")
    while not folder.is_dir():
        folder = folder.parent
    (folder / "shop.txt").write_text(DESCRIPTION)
    return imagine(str(folder / "shop.txt"), "--examples", path)


def _shared(command: Command, name: str, content: str) -> tuple[Fault, ...]:
    """What can be wrong with either command's other options."""

    def fault(title: str, why: str, options: Sequence[str], *says: str) -> Fault:
        return Fault(title, why, lambda at: command(at.write(name, content), *options), says)

    def coded(title: str, why: str, code: str, *says: str) -> Fault:
        def make(at: Place) -> Sequence[str]:
            return command(at.write(name, content), reward=f"{at.write('mine.py', code)}:reward")

        return Fault(title, why, make, says)

    def modelled(title: str, why: str, make: Callable[[Place], str], *says: str) -> Fault:
        return Fault(title, why, lambda at: command(at.write(name, content), model=make(at)), says)

    return (
        fault("setting that is none", "misspelt", ["--set", "world.agent_rules=a"], "world.agent_rules",
              "world.agent_roles"),
        fault("column of training", "an option of another command", ["--set", "train.steps=4"], "train.steps"),
        fault("role that no line begins with", "a sentence for a role",
              ["--set", "world.world_roles=a: b,user"], "'a: b'"),
        fault("role of both sides", "settings that contradict each other", ["--set", "world.world_roles=agent"],
              "role", "agent"),
        fault("no tries", "a zero", ["--tries", "0"], "--tries"),
        fault("seed of 5,000 digits", "a file pasted", ["--seed", DIGITS], "--seed"),
        fault("temperature of zero", "greedy was meant", ["--temperature", "0"], "temperature", "0"),
        fault("temperature of NaN", "a division by zero", ["--temperature", "nan"], "temperature", "nan"),
        fault("temperature that is a word", "written out", ["--temperature", "hot"], "--temperature", "'hot'"),
        fault("share above one", "percents for shares", ["--top-p", "90"], "top_p", "90"),
        fault("no tokens", "a zero", ["--max-tokens", "0"], "--max-tokens"),
        fault("key without an endpoint", "an option forgotten", ["--key-variable", "HOME"], "--key-variable",
              "--endpoint"),
        fault("template of an endpoint", "options that contradict each other",
              ["--endpoint", DOWN, "--chat-template"], "--chat-template"),
        fault("address of another protocol", "copied from elsewhere", ["--endpoint", "ftp://host/v1"], "ftp://host/v1"),
        fault("address of a file", "a path for an address", ["--endpoint", "file:///etc/passwd"], "file:///etc/passwd"),
        fault("address without a protocol", "typed by hand", ["--endpoint", "localhost:8000"], "localhost:8000"),
        fault("address with a password", "copied out of a browser", ["--endpoint", "http://ann:hunter2@host/v1"],
              "host", "--key-variable"),
        fault("address with a parameter", "a key in the address", ["--endpoint", "http://host/v1?key=1"],
              "host", "--key-variable"),
        fault("address in two lines", "a line end pasted with it", ["--endpoint", "http://host/v1\n/x"], "host"),
        fault("key in place of its variable", "the wrong paste",
              ["--endpoint", DOWN, "--key-variable", "sk-live-a8f7"], "--key-variable"),
        fault("file that would be overwritten", "a name that is taken", ["-o", __file__], "-o", "bad_imagining.py"),
        fault("copy into no folder", "a misspelt path", ["-o", "/no/such/out.jsonl"], "-o", "/no/such"),
        coded("reward of nothing", "a file of another program", "x = (", "--reward", "SyntaxError"),
        coded("reward that is not there", "misspelt", "def rewrad(d, t): ...", "'reward'", "rewrad"),
        Fault("reward without a name", "the function was forgotten",
              lambda at: command(at.write(name, content), reward=at.write("mine.py", REWARD)), ("--reward",)),
        Fault("reward that is missing", "a misspelt path",
              lambda at: command(at.write(name, content), reward=str(at.folder / "gone.py:reward")),
              ("--reward", "gone.py")),
        modelled("model that is missing", "a misspelt path", lambda at: str(at.folder / "gone"), "--model", "gone"),
        modelled("folder without a model", "the wrong folder", lambda at: str(at.folder), "config.json"),
        modelled("weights that are a pickle", "saved long ago",
                 lambda at: str(Path(at.write("m/config.json", '{"model_type": "gpt2"}')).parent
                                if at.write("m/pytorch_model.bin", b"\x80\x04.") else ""),
                 "pytorch_model.bin", "pickle"),
        fault("template of a model without", "no chat model", ["--chat-template"], "--chat-template"),
    )  # fmt: skip


IMAGINE = Reader(
    "imagine, description",
    sound=lambda at: imagine(at.write("shop.txt", DESCRIPTION)),
    faults=(
        *path_faults(imagine, "shop.txt"),
        *text_faults(imagine, "shop.txt", DESCRIPTION.encode()),
        *_shared(imagine, "shop.txt", DESCRIPTION),
        Fault("byte of Latin-1", "written before Unicode",
              lambda at: imagine(at.write("shop.txt", b"a caf\xe9")), ("shop.txt", "UTF-8")),
        Fault("no dialogues wanted", "a zero",
              lambda at: imagine(at.write("shop.txt", DESCRIPTION), "--count", "0"), ("--count",)),
        Fault("no model", "an option forgotten",
              lambda at: ["imagine", at.write("shop.txt", DESCRIPTION), "--reward", "x.py:y"], ("--model",)),
        Fault("no reward", "an option forgotten",
              lambda at: ["imagine", at.write("shop.txt", DESCRIPTION), "--model", shop()], ("--reward",)),
    ),
)  # fmt: skip

EXAMPLES = Reader(
    "imagine, examples",
    sound=lambda at: shown(at.write("d.jsonl", as_lines())),
    faults=(
        *path_faults(shown, "d.jsonl"),
        *text_faults(shown, "d.jsonl", as_lines().encode()),
        Fault("truncated line", "the writer died",
              lambda at: shown(at.write("d.jsonl", as_lines() + '{"turns": [')), ("d.jsonl", "line 13")),
        Fault("unknown role", "a name instead of a role",
              lambda at: shown(at.write("d.jsonl", as_lines().replace("user", "usre"))), ("usre", "user")),
    ),
)  # fmt: skip

HINDSIGHT = Reader(
    "hindsight, dialogues",
    sound=lambda at: hindsight(at.write("d.jsonl", as_lines())),
    faults=(
        *path_faults(hindsight, "d.jsonl"),
        *text_faults(hindsight, "d.jsonl", as_lines().encode()),
        *_shared(hindsight, "d.jsonl", as_lines()),
        Fault("two dialogues", "a sample", lambda at: hindsight(at.write("d.jsonl", as_lines(rows()[:2]))),
              ("at least 3",)),
        Fault("description that is missing", "a misspelt path",
              lambda at: hindsight(at.write("d.jsonl", as_lines()), "--description", str(at.folder / "gone.txt")),
              ("gone.txt",)),
        Fault("reward that raises", "a fault of its own",
              lambda at: hindsight(at.write("d.jsonl", as_lines()),
                                   reward=f"{at.write('mine.py', 'def pay(d, t): return 1 / 0')}:pay"),
              ("ZeroDivisionError", "mine.py")),
    ),
)  # fmt: skip

READERS = (IMAGINE, EXAMPLES, HINDSIGHT)
