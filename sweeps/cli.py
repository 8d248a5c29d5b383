"""The command line: one line for a user's mistake, a status that says how it went, and fast starts.

    sweeps run QUESTION [OPTIONS]    sweeps list          sweeps report SWEEP
    sweeps plan QUESTION [OPTIONS]   sweeps status SWEEP  sweeps remove SWEEP
    sweeps reply TRIAL TEXT ...      sweeps doctor        sweeps advantages TRIAL
    sweeps gc [--keep RULE] [--dry-run]    sweeps mirror [SWEEP]
    sweeps export TRIAL FOLDER [--model DIR]
    sweeps play TASK [--trial TRIAL] [--seed N] [OPTIONS]
    sweeps validate FILE [--set world.FIELD=VALUE]
    sweeps rescore SWEEP --rewards NAME [OPTIONS]

QUESTION is a file of this folder whose name ends in `_ablation`, without that ending. Heavy libraries are imported by
the commands that need them.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import pkgutil
import select
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.text import count
from ilql.task import SPLITS, TaskFault
from sweeps.journal import StoreError
from sweeps.options import OneLineParser, assignment, parse, parse_world
from sweeps.store import MARK, Store, store_folder

if TYPE_CHECKING:
    from analysis.ablation import Mode
    from sweeps.question import Question

QUESTION_ENDING = "_ablation"
WRONG_INPUT = 2
PIPE_CLOSED = 141
"""The exit status of what wrote to a reader who had gone, as `| head` does, as shells have it."""


def run_command(question: Question, program: str, arguments: Sequence[str]) -> int:
    """Run a question with a command line's arguments; returns the exit status."""

    def run() -> int:
        from sweeps.experiment import run_question  # noqa: PLC0415
        from sweeps.question import chosen_preset  # noqa: PLC0415

        options = parse(program, question.name + " ablation", list(question.presets), arguments, question.inputs)
        if options.show:
            print(json.dumps(chosen_preset(question, options).shown(), indent=2, default=str))
            return 0
        return run_question(question, options, lambda line: print(line, flush=True))

    return _guarded(run, stopped="stopped; the same command goes on from here")


def main(arguments: Sequence[str] | None = None) -> int:
    """The `sweeps` command; returns the exit status."""
    parser = OneLineParser(prog="sweeps", description="Sweep and ablate offline RL for language models.")
    commands = parser.add_subparsers(dest="command", required=True)
    asking: dict[str, OneLineParser] = {}
    for name, text, what, meaning in (
        ("run", "answer a question, resuming what is there", "question", f"one of: {', '.join(question_names())}"),
        ("plan", "print what it would cost", "question", f"one of: {', '.join(question_names())}"),
        ("play", "play an episode, or watch a trial play it", "task", "a task that a question asks about"),
        ("rescore", "a sweep's table under another reward, from its transcripts", "sweep", "a sweep of the store"),
    ):
        # What else it takes depends on this one word: so does its help, and without the word there is a short one.
        asking[name] = commands.add_parser(
            name,
            help=text,
            add_help=False,
            allow_abbrev=False,
            usage=f"sweeps {name} {what.upper()} [OPTIONS]",
            description=text,
            epilog=f"`sweeps {name} {what.upper()} --help` lists the options.",
        )
        asking[name].add_argument(what, nargs="?", help=meaning)
    _add_play(asking["play"])
    command = commands.add_parser("validate", help="what is wrong with a file of dialogues, and what is in it")
    command.add_argument("file", help="dialogues, one JSON object a line: docs/your_dialogues.md")
    command.add_argument("--set", metavar="world.FIELD=VALUE", action="append", default=[], type=assignment)
    for name, text in (
        ("list", "the sweeps of the store"),
        ("status", "what a sweep has done"),
        ("report", "write a sweep's table and figures anew"),
        ("remove", "forget a sweep; results that others share stay"),
        ("reply", "let a trained policy speak"),
        ("export", "write a trained policy as a Hugging Face folder"),
        ("advantages", "recorded dialogues as a trial's values see them, token by token"),
        ("doctor", "what is wrong with the store"),
        ("gc", "free what can be made again; rows, episodes and transcripts stay"),
        ("mirror", "bring MLflow up to date from the store alone"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--store", metavar="DIR", help="default: $SWEEPS_STORE, else ~/.sweeps/store")
        if name in ("status", "report", "remove"):
            command.add_argument("sweep")
        if name == "report":
            command.add_argument(
                "--paper", action="store_true", help="count SARSA's cells in ILQL's row, as the paper does"
            )
        if name == "doctor":
            _add_where(command)
            command.add_argument("--quick", action="store_true", help="compare files' sizes only, not their digests")
        if name == "gc":
            _add_where(command)
            command.add_argument(
                "--keep",
                default="sweeps",
                metavar="RULE",
                help="what stays: `sweeps`, what any sweep of the store needs (the default); `best:K`, the weights of "
                "each sweep's K best cells of every arm, by their score on the tune scenes; `none`",
            )
            command.add_argument("--dry-run", action="store_true", help="say what would be freed, and free nothing")
            command.add_argument("--restore", metavar="TRIAL", help="train again what was dropped of a row's weights")
        if name == "mirror":
            command.add_argument("where", nargs="?", metavar="SWEEP", help="one sweep, or a store's folder; else all")
            command.add_argument("--tracking", metavar="URI", help="default: as for a sweep's own mirror")
        if name in ("reply", "advantages", "export"):
            command.add_argument("trial", help="a row's trial_id, or its beginning")
        if name == "export":
            command.add_argument("folder", help="new, or empty")
            command.add_argument("--model", metavar="DIR", help="what it began as, where its vocabulary is cut")
        if name == "advantages":
            command.add_argument("--split", default="report", choices=SPLITS, help="which dialogues (default: report)")
            command.add_argument("--dialogues", type=int, default=200, help="how many (default: %(default)s)")
        if name == "reply":
            command.add_argument(
                "text", nargs="+", help="what was said so far, the world's and the agent's turns in turn"
            )
    given, rest = parser.parse_known_args(arguments)
    for what in ("question", "task", "sweep"):
        if getattr(given, what, "") is None:
            if {"--help", "-h"} & set(rest):
                asking[given.command].print_help()
                return 0
            asking[given.command].error(f"the following arguments are required: {what}")
    if given.command in ("run", "plan"):
        extra = ["--plan"] if given.command == "plan" else []
        return _guarded(lambda: run_command(_question(given.question), f"sweeps run {given.question}", rest + extra))
    if given.command == "play":
        return _guarded(lambda: _play(given, rest))
    if given.command == "rescore":
        return _guarded(lambda: _rescore(given.sweep, rest))
    if rest:
        commands.choices[given.command].unrecognised(rest)
    if given.command == "validate":
        return _guarded(lambda: _validate(given.file, dict(given.set)))
    return _guarded(lambda: _COMMANDS[given.command](_store(given), given))


def _add_where(command: argparse.ArgumentParser) -> None:
    command.add_argument("where", nargs="?", metavar="STORE", help="the store's folder, in place of --store")


def _store(given: argparse.Namespace) -> Store:
    """The store a command is about; what is to be examined must be there already."""
    where = getattr(given, "where", None)
    if given.command == "mirror" and where is not None and not (Path(where) / MARK).is_file():
        where = None  # a sweep
    folder = store_folder(where or given.store)
    if given.command in ("doctor", "gc", "mirror") and not (folder / MARK).is_file():
        raise ValueError(f"a store's folder must hold a {MARK}, got {folder}, which has none")
    return Store(folder)


def question_names() -> list[str]:
    """The runnable questions of this folder."""
    modules = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return [name.removesuffix(QUESTION_ENDING) for name in modules if name.endswith(QUESTION_ENDING)]


def _question(name: str) -> Question:
    if name not in question_names():
        from ilql.hyperparameters import unknown  # noqa: PLC0415

        raise KeyError(unknown(name, "question", question_names()))
    found: Question = importlib.import_module(f"sweeps.{name}{QUESTION_ENDING}").QUESTION
    return found


def _play(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.play import check_trial, play_by_hand, task_to_play, watch  # noqa: PLC0415

    questions = {question.task: question for question in map(_question, reversed(question_names()))}
    if given.task not in questions:
        from ilql.hyperparameters import unknown  # noqa: PLC0415

        raise KeyError(unknown(given.task, "task", questions))
    question = questions[given.task]
    parser = OneLineParser(prog=f"sweeps play {given.task}", description="Play an episode, or watch a trial play it.")
    _add_play(parser)
    options = parse_world(parser, list(question.presets), rest, question.inputs, given)
    store = Store(options.store)
    if given.trial is not None:
        check_trial(store, given.trial, given.task)
        watch(store, given.trial, given.split, given.seed, print)
    else:
        task = task_to_play(question, options, store, print)
        # polars takes the signal too, and lets reading a line go on after it: Ctrl-C would wait for Enter.
        signal.signal(signal.SIGINT, _interrupt)
        play_by_hand(task, given.split, given.seed, _typed, print)
    return 0


def _add_play(parser: argparse.ArgumentParser) -> None:
    """Add what says which episode is played, and by whom."""
    add = parser.add_argument
    add(
        "--trial",
        help="watch the policy of this row of `sweeps status`, by its id or the id's beginning; else you play",
    )
    add("--seed", type=int, default=0, help="which episode (default: %(default)s)")
    add("--split", default="report", choices=SPLITS, help="whose scenes (default: %(default)s)")


def _rescore(sweep: str, rest: Sequence[str]) -> int:
    from sweeps.reporting import print_report  # noqa: PLC0415
    from sweeps.rescore import rescore  # noqa: PLC0415

    place = OneLineParser(add_help=False, allow_abbrev=False)
    place.add_argument("--store")
    store = Store(store_folder(place.parse_known_args(rest)[0].store))
    record = store.get("sweep", sweep)
    if record is None:
        raise ValueError(_no_sweep(store, sweep))
    question = _question(str(record["question"]))
    options = parse(f"sweeps rescore {sweep}", "rescore", list(question.presets), rest, question.inputs)
    say = lambda line: print(line, flush=True)  # noqa: E731
    print_report(rescore(store, sweep, question, options, say), (), say)
    return 0


def _validate(file: str, said: Mapping[str, object]) -> int:
    from ilql.hyperparameters import make  # noqa: PLC0415
    from ilql.tasks.dialogues import Settings, validate  # noqa: PLC0415
    from ilql.tasks.dialogues.validate import report, usable  # noqa: PLC0415

    fields = {column.removeprefix("world."): value for column, value in said.items()}
    settings = make(Settings, fields, owner="a dialogues world", prefix="world")
    problems, summary = validate(file, settings)
    print(report(problems, summary))
    return 0 if usable(problems, summary, settings) else WRONG_INPUT


def _typed(prompt: str) -> str | None:
    """A line from the terminal; None at its end, or at Ctrl-C."""
    try:
        return input(prompt)
    except (EOFError, KeyboardInterrupt):
        print()  # what is said next is no part of the prompt's line
        return None


def _list(store: Store, given: argparse.Namespace) -> int:
    infos = store.sweeps()
    print(f"store {store.folder}: {count(len(infos), 'sweep')}")
    for info in infos:
        methods = ", ".join(info.methods)
        print(f"  {info.name}  {info.done} of {count(info.wanted, 'evaluation')}, {info.failed} failed  ({methods})")
    return 0


def _status(store: Store, given: argparse.Namespace) -> int:
    info = next((info for info in store.sweeps() if info.name == given.sweep), None)
    if info is None:
        raise ValueError(_no_sweep(store, given.sweep))
    print(f"{info.name}: {info.done} of {count(info.wanted, 'evaluation')} done, {info.failed} failed")
    rows = store.rows(info.name)
    settings = _settings_apart(rows)
    table = [("trial", "method", "seed", "status", "score", "settings", "reason")] if rows else []
    for row in rows:
        score = "" if row.get("score") is None else f"{row['score']:.3f}"
        cell = str(row["trial_id"]), str(row["arm"]), str(row["seed"]), str(row["status"])
        table.append((*cell, score, settings[row["trial_id"]], row["reason"] or ""))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    return 0


def _settings_apart(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By trial, the hyperparameters that tell it from its method's other rows, as tables write them."""
    from analysis.labels import hyperparameter_rank, setting_label  # noqa: PLC0415

    values: dict[tuple[str, str], set[object]] = {}
    for row in rows:
        for column in filter(lambda name: name.startswith(("train.", "decode.")), row):
            values.setdefault((row["arm"], column), set()).add(row[column])
    columns = sorted({column for _, column in values}, key=hyperparameter_rank)
    return {
        row["trial_id"]: setting_label({c: row[c] for c in columns if len(values.get((row["arm"], c), ())) > 1})
        for row in rows
    }


def _report(store: Store, given: argparse.Namespace) -> int:
    from sweeps.reporting import print_report, write_sweep_report  # noqa: PLC0415

    asked = (store.get("sweep", given.sweep) or {}).get("question")
    mode: Mode = "paper" if given.paper else "default"
    if asked in question_names():
        question = _question(asked)
        report = write_sweep_report(store, given.sweep, question.against, sections=question.sections, mode=mode)
    else:
        report = write_sweep_report(store, given.sweep, (), mode=mode)
    print_report(*report, lambda line: print(line, flush=True))
    return 0


def _remove(store: Store, given: argparse.Namespace) -> int:
    if store.get("sweep", given.sweep) is None:
        raise ValueError(_no_sweep(store, given.sweep))
    removed = count(store.remove_sweep(given.sweep), "row")
    print(f"removed the sweep {given.sweep} with {removed}; their results stay in the store")
    return 0


def _reply(store: Store, given: argparse.Namespace) -> int:
    from sweeps.policy import load_policy  # noqa: PLC0415

    policy = load_policy(given.trial, store)
    print(policy.reply([(text, place % 2 == 1) for place, text in enumerate(given.text)]))
    return 0


def _export(store: Store, given: argparse.Namespace) -> int:
    from sweeps.policy import export_policy  # noqa: PLC0415

    export_policy(given.trial, Path(given.folder), store, model=given.model)
    print(f"wrote {given.folder}")
    return 0


def _advantages(store: Store, given: argparse.Namespace) -> int:
    from sweeps.advantages import show_advantages  # noqa: PLC0415
    from sweeps.policy import find_trial  # noqa: PLC0415

    print(show_advantages(store, find_trial(given.trial, store), split=given.split, dialogues=given.dialogues))
    return 0


def _doctor(store: Store, given: argparse.Namespace) -> int:
    from sweeps.doctor import findings  # noqa: PLC0415

    problems = findings(store, deep=not given.quick)
    print(f"store {store.folder}: {count(len(problems), 'problem')}")
    for problem in problems:
        print(f"  {problem}")
    return 1 if problems else 0


def _gc(store: Store, given: argparse.Namespace) -> int:
    from sweeps import gc  # noqa: PLC0415
    from sweeps.policy import wanted_trial  # noqa: PLC0415

    say = lambda line: print(line, flush=True)  # noqa: E731
    print(f"store {store.folder}")
    if given.restore is not None:
        trained = gc.restore(store, wanted_trial(given.restore, store), say)
        print(f"trained {trained} again" if trained else "its weights are there")
        return 0
    rule = gc.Rule.parse(given.keep)
    if given.dry_run:
        for line in gc.lines(gc.find(store, rule), each=True):
            print(f"  would free {line}")
        return 0
    for line in gc.lines(gc.free(store, rule, say)):
        print(f"  freed {line}")
    return 0


def _mirror(store: Store, given: argparse.Namespace) -> int:
    from sweeps.tracking import remirror  # noqa: PLC0415

    asked = None if given.where is None or Path(given.where).absolute() == store.folder else [given.where]
    if asked is not None and store.get("sweep", asked[0]) is None:
        raise ValueError(_no_sweep(store, asked[0]))
    behind = remirror(store, given.tracking, asked)
    done = len(asked or store.sweeps()) - len(behind)
    print(f"store {store.folder}: MLflow has {count(done, 'sweep')} whole")
    for name in behind:
        print(f"  {name} could not be sent; the same command tries again")
    return 1 if behind else 0


_COMMANDS: dict[str, Callable[[Store, Any], int]] = {
    "list": _list,
    "status": _status,
    "report": _report,
    "remove": _remove,
    "reply": _reply,
    "export": _export,
    "advantages": _advantages,
    "doctor": _doctor,
    "gc": _gc,
    "mirror": _mirror,
}


def _no_sweep(store: Store, name: str) -> str:
    from ilql.hyperparameters import unknown  # noqa: PLC0415

    return unknown(name, "sweep of this store", [info.name for info in store.sweeps()])


def _interrupt(number: int, frame: object) -> None:
    """Answer a request to end as Ctrl-C, also where that is ignored, as in the background of a shell."""
    raise KeyboardInterrupt


def _reader_has_gone() -> bool:
    """True if it is our own output that nobody reads, and not a connection that has broken."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _guarded(run: Callable[[], int], *, stopped: str = "stopped") -> int:
    """Run; what the user can mend becomes one line and status 2, whatever else is wrong stays a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = run()
        sys.stdout.flush()  # here, and not when Python ends: a reader who has gone is no fault
        return status
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    except BrokenPipeError as error:
        if not _reader_has_gone():
            print(f"error: {error}", file=sys.stderr)
            return WRONG_INPUT
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to say goes nowhere
        return PIPE_CLOSED
    except (ValueError, KeyError, TypeError, ConnectionError, StoreError, TaskFault) as error:
        if os.environ.get("SWEEPS_TRACEBACK"):
            raise
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        print(f"error: {message.splitlines()[0] if message else type(error).__name__}", file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: the disk must take what is written, got {error.strerror}{where}", file=sys.stderr)
        return WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
