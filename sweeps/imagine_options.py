"""The options that `imagine` and `hindsight` share, and what both say at their end."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.text import count
from ilql.files import FILE, kind_of, user_path
from ilql.sampling import Sampling
from sweeps.command import add_json, add_store, print_json
from sweeps.command_line import LARGEST_SEED, assignment, whole_number
from sweeps.paths import new_file, store_at
from sweeps.store import Store

if TYPE_CHECKING:  # torch comes with them
    from ilql.tasks.dialogues import Settings
    from sweeps.offline_data import Outcome
    from sweeps.replies import Writer


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add who writes, how it draws, what is paid, and where it goes."""
    add, default = parser.add_argument, Sampling()
    add("--model", metavar="DIR", required=True, help="a model's folder or hub name; with --endpoint, its name there")
    add("--reward", metavar="FILE", required=True, help="what turns are paid: FILE.py:FUNCTION or MODULE:FUNCTION")
    add("--chat-template", action="store_true", help="ask a model of a folder as its chat template has it")
    add("--endpoint", metavar="URL", help="an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")
    add("--key-variable", metavar="NAME", help="the environment variable with the endpoint's key; never the key itself")
    add("--timeout", type=whole_number(1, 3600), default=120, help="seconds for one request (default: %(default)s)")
    add("--concurrent", type=whole_number(1, 256), default=4, help="requests at a time (default: %(default)s)")
    add("--temperature", type=float, default=default.temperature, help="of drawing (default: %(default)s)")
    add("--top-p", type=float, default=default.top_p, help="share of probability drawn from (default: %(default)s)")
    longest = whole_number(1, 10**6)
    add("--max-tokens", type=longest, default=default.max_tokens, help="the longest reply (default: %(default)s)")
    add("--seed", type=whole_number(0, LARGEST_SEED), default=0, help="of drawing (default: %(default)s)")
    add(
        "--set",
        metavar="world.FIELD=VALUE",
        action="append",
        default=[],
        type=assignment,
        help="as in `sweeps validate`",
    )
    add("-o", "--out", type=Path, metavar="FILE.jsonl", help="copy the dialogues there; a new file")
    add_store(parser)
    add_json(parser)


def settings_of(given: argparse.Namespace) -> Settings:
    """The dialogues' settings: whose roles are whose, how many turns, which splits.

    Raises:
        ValueError, TypeError, KeyError: There is no such setting, or a value is none.
    """
    from ilql.hyperparameters import make  # noqa: PLC0415
    from ilql.tasks.dialogues import Settings  # noqa: PLC0415

    fields = {column.removeprefix("world."): value for column, value in given.set}
    return make(Settings, fields, owner="a dialogues world", prefix="world")


def writer_of(given: argparse.Namespace) -> Writer:
    """Who writes.

    Raises:
        ValueError: There is no such model, the address is none, or two options contradict each other.
    """
    from ilql.model_folder import find_model  # noqa: PLC0415
    from sweeps.endpoint import Endpoint  # noqa: PLC0415
    from sweeps.writers import EndpointWriter, LocalWriter  # noqa: PLC0415

    sampling = Sampling(temperature=given.temperature, top_p=given.top_p, max_tokens=given.max_tokens)
    if given.endpoint is None:
        if given.key_variable is not None:
            raise ValueError("--key-variable must come with --endpoint, got none")
        return LocalWriter(find_model(given.model), given.chat_template, sampling)
    if given.chat_template:
        raise ValueError("--chat-template must come with a model's folder; an endpoint has its own")
    endpoint = Endpoint(given.endpoint, given.model, timeout_seconds=float(given.timeout))
    return EndpointWriter(endpoint, given.key_variable, sampling, given.concurrent)


def read_text(what: str, name: str) -> str:
    """A text file's words, without the white space around them.

    Raises:
        ValueError: It cannot be read, is no UTF-8, or is empty.
    """
    path = user_path(name)
    if (kind := kind_of(path)) != FILE:
        raise ValueError(f"{what} must be a file of text, got {kind}: {name}")
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as fault:
        raise ValueError(f"{what} must be a file that can be read, got {name}: {fault.strerror}") from None
    except UnicodeDecodeError as fault:
        raise ValueError(f"{what} must be UTF-8, got another byte at {fault.start} in {name}") from None
    if not text or "\0" in text:
        got = "zero bytes" if text else "an empty file"
        raise ValueError(f"{what} must say something, got {got}: {name}")
    return text


def run(given: argparse.Namespace, make: Callable[[Store, Callable[[str], None]], Outcome]) -> int:
    """Let the dialogues be made, tell what came of it, and copy them where they were asked for; the exit status.

    Raises:
        ValueError: Something is where the copy is to be, or no dialogue came of it.
    """
    out = None if given.out is None else new_file("-o", given.out)

    def say(line: str) -> None:
        if not given.json:
            print(line, flush=True)  # noqa: T201

    outcome = make(Store(store_at(given.store)), say)
    if not outcome.dialogues:
        why = "; ".join(f"{number} × {reason}" for reason, number in outcome.refused.items())
        raise ValueError(
            f"a model must write dialogues as they are asked for, got none: {why} ({outcome.refused_file})"
        )
    file = outcome.data
    if out is not None:
        _copy(outcome.data, out)
        file = out
    if given.json:
        print_json(
            {
                "key": outcome.key,
                "file": str(file),
                "refused_file": str(outcome.refused_file),
                "dialogues": outcome.dialogues,
                "refused": outcome.refused,
                "reproducible": outcome.reproducible,
                "notes": outcome.notes,
            }
        )
        return 0
    for line in outcome.lines():
        say(line)
    say(f"{count(outcome.dialogues, 'dialogue')} in {file}")
    sets = "".join(f" --set {column}={value}" for column, value in given.set)
    say(f"go on with `sweeps validate {file}{sets}`, then `python sweeps/dialogue_ablation.py --data {file}{sets}`")
    return 0


def _copy(source: Path, target: Path) -> None:
    """Copy whole or not at all.

    Raises:
        ValueError: There is no such place.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(source.read_bytes())
        temporary.replace(target)
    except OSError as fault:
        raise ValueError(f"-o must name a file that can be written, got {target}: {fault.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
