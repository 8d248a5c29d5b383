"""The command line of a runnable question, as a value."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from ilql.hyperparameters import Value
from sweeps.store import store_folder

Plain: TypeAlias = str | int | float | bool
"""What a value on the command line can be."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user asked for.

    Attributes:
        command: The command, for saying how to resume.
        preset: The preset's name.
        store: The store's folder, absolute.
        name: The sweep's name, or None for one made of what was asked.
        world: Which world, or None for the preset's, or the recorded one if there is data.
        data: Directory or file of recorded dialogues, or None.
        inputs: The question's other sources that were given, by name.
        rewards: Training rewards, one sweep each, or None for the question's own.
        evaluation_reward: Evaluation reward, or None for the training reward.
        transfer: True to score what was trained on each reward under all of them.
        model: A pretrained model's folder or hub name, or None for the preset's.
        cut_vocabulary: Whether its vocabulary is cut to the tokens that occur, or None for the preset's.
        chat_template: True to write dialogues as its chat template has them.
        adapter_rank: Rank of the adapters learnt on a frozen model, or None for the preset's.
        methods: Arms to run, or None for the question's main ones.
        refine: Arms whose trainings proposals vary, or None for the question's own.
        convention: Whose conventions the value methods follow, or None for ours.
        columns: Hyperparameters fixed with `--set`.
        vary: A column and the values at each of which everything is done, one sweep each, or None.
        seeds: Training seeds of every cell, or None for the preset's.
        episodes: Episodes on the report scenes, or None for the preset's.
        proposals: Proposals of the refinement, or None for the preset's.
        resources: Fields of `Resources` that were given.
        concurrent: Jobs at a time, or None for as many as fit.
        search_seed: Seed of the proposals.
        tracking: MLflow's tracking URI, or None for its default.
        mirror: False to leave MLflow out.
        plan_only: True to print the plan and stop.
        show: True to print the preset and stop.
    """

    command: tuple[str, ...]
    preset: str
    store: Path
    name: str | None = None
    world: str | None = None
    data: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    rewards: tuple[str, ...] | None = None
    evaluation_reward: str | None = None
    transfer: bool = False
    model: str | None = None
    cut_vocabulary: bool | None = None
    chat_template: bool = False
    adapter_rank: int | None = None
    methods: tuple[str, ...] | None = None
    refine: tuple[str, ...] | None = None
    convention: str | None = None
    columns: Mapping[str, Value]
    vary: tuple[str, tuple[Plain, ...]] | None = None
    seeds: int | None = None
    episodes: int | None = None
    proposals: int | None = None
    resources: Mapping[str, Value]
    concurrent: int | None = None
    search_seed: int = 0
    tracking: str | None = None
    mirror: bool = True
    plan_only: bool = False
    show: bool = False

    @property
    def sources(self) -> dict[str, str]:
        """All sources that were given, by name."""
        return {**({} if self.data is None else {"data": self.data}), **self.inputs}

    def distinction(self, reward: str) -> list[str]:
        """What tells the name of a reward's sweep from the preset's plain one: empty if nothing does."""
        special = {
            "columns": dict(self.columns), "methods": self.methods, "refine": self.refine, "model": self.model,
            "data": self.data, "inputs": dict(self.inputs), "convention": self.convention,
            "reward": reward if self.evaluation_reward else None, "search_seed": self.search_seed,
        }  # fmt: skip
        if self.cut_vocabulary is not None:
            special["cut_vocabulary"] = str(self.cut_vocabulary)
        if self.chat_template:
            special["chat_template"] = True
        if self.adapter_rank is not None:
            special["adapter_rank"] = str(self.adapter_rank)
        if not any(special.values()):
            return []
        return [hashlib.sha256(json.dumps(special, sort_keys=True).encode()).hexdigest()[:6]]


def parse(
    program: str,
    description: str,
    presets: Sequence[str],
    arguments: Sequence[str],
    inputs: Mapping[str, str] | None = None,
) -> Options:
    """Options from a command line; leaves with one line and status 2 if it is wrong.

    Args:
        program: What was called.
        description: What it answers.
        presets: The names of its presets.
        arguments: What was written behind the program's name.
        inputs: Its sources besides `--data`, by name, each with a line that says what it is.
    """
    parser = OneLineParser(prog=program, description=description)
    add = parser.add_argument
    _add_world(parser, presets, inputs, columns="fix a hyperparameter, or with world.FIELD a setting of the world")
    add("--show", action="store_true", help="print the preset and stop")
    add("--plan", action="store_true", help="prepare the world, print what would be trained and evaluated, and stop")
    # A question that reads a reward function has it as --reward.
    add(
        "--rewards",
        *(() if "reward" in (inputs or {}) else ("--reward",)),
        type=_words,
        help="training rewards, and evaluation rewards unless one is given",
    )
    add("--evaluation-reward", help="evaluation reward; another one than in training needs no new training")
    add("--transfer", action="store_true", help="also score what was trained on each reward under all of them")
    add("--model", metavar="DIR", help="a pretrained causal language model: a folder, or a name on the hub")
    add(
        "--cut-vocabulary",
        action=argparse.BooleanOptionalAction,
        help="keep only those of its tokens that occur in the training split",
    )
    add("--chat-template", action="store_true", help="write dialogues as its chat template has them")
    add("--adapter-rank", type=_count(0), help="learn adapters of this rank on a frozen model, shared by all networks")
    add("--methods", type=_words, help="these methods, separated by commas; all for every one there is")
    add("--refine", type=_words, help="the methods whose hyperparameters are searched after the design")
    add("--convention", help="compute ILQL as another implementation does: reference, trlx or lmrl")
    add("--vary", metavar="COLUMN=VALUES", type=_variation, help="do it all at each of these values, such as 0,0.5,1")
    add("--seeds", type=_count(1), help="training seeds of every cell; more can be added later")
    add("--episodes", type=_count(1), help="episodes on the report scenes; more can be added later")
    add("--trials", type=_count(0), help="proposals after the design, for each method that is refined")
    add("--search-seed", type=_count(0), default=0, help="seed of the proposals (default: %(default)s)")
    add("--name", help="the sweep's name in the store")
    add("--concurrent", type=_count(1), help="jobs at a time (default: as many as fit)")
    add("--workers", type=_count(1), help="workers that train together in a job")
    add("--gpus-per-worker", type=_share, help="GPUs of each worker")
    add("--ray-train", action="store_true", help="train in Ray Train worker groups even with one worker on a CPU")
    add("--micro-batch", type=_count(0), help="dialogues per forward pass, for memory")
    add("--tracking-uri", help="MLflow's tracking URI (default: $MLFLOW_TRACKING_URI, else SQLite in the store)")
    add("--no-mlflow", action="store_true", help="do not mirror to MLflow")
    given = parser.parse_args(arguments)
    resources: dict[str, Value] = {
        name: value
        for name, value in (
            ("workers", given.workers),
            ("gpus_per_worker", given.gpus_per_worker),
            ("micro_batch", given.micro_batch),
            ("ray_train", given.ray_train or None),
        )
        if value is not None
    }
    return Options(
        command=tuple(sys.orig_argv),
        preset=given.preset,
        store=store_folder(given.store),
        name=given.name,
        world=given.world,
        data=given.data,
        inputs={name: value for name in inputs or {} if (value := getattr(given, name)) is not None},
        rewards=given.rewards,
        evaluation_reward=given.evaluation_reward,
        transfer=given.transfer,
        model=given.model,
        cut_vocabulary=given.cut_vocabulary,
        chat_template=given.chat_template,
        adapter_rank=given.adapter_rank,
        methods=given.methods,
        refine=given.refine,
        convention=given.convention,
        columns=dict(given.set),
        vary=given.vary,
        seeds=given.seeds,
        episodes=given.episodes,
        proposals=given.trials,
        resources=resources,
        concurrent=given.concurrent,
        search_seed=given.search_seed,
        tracking=given.tracking_uri,
        mirror=not given.no_mlflow,
        plan_only=given.plan,
        show=given.show,
    )


def parse_world(
    parser: OneLineParser,
    presets: Sequence[str],
    arguments: Sequence[str],
    inputs: Mapping[str, str],
    given: argparse.Namespace,
) -> Options:
    """The options that name a world and nothing more; leaves with one line and status 2 if they are wrong.

    Args:
        parser: Has the command's own options.
        presets: As for `parse`, like the next two.
        arguments: What is left of them.
        inputs: The question's sources besides `--data`.
        given: What has been read of the command line.
    """
    _add_world(parser, presets, inputs, columns="a setting of the world, as in training: world.FIELD=VALUE")
    parser.parse_args(arguments, given)
    return Options(
        command=tuple(sys.orig_argv),
        preset=given.preset,
        store=store_folder(given.store),
        world=given.world,
        data=given.data,
        inputs={name: value for name in inputs if (value := getattr(given, name)) is not None},
        columns=dict(given.set),
        resources={},
    )


def _add_world(
    parser: argparse.ArgumentParser, presets: Sequence[str], inputs: Mapping[str, str] | None, *, columns: str
) -> None:
    """Add the options that decide which world it is and where it lies."""
    add = parser.add_argument
    add("--preset", default="laptop", help=f"how big: {', '.join(presets)} (default: %(default)s)")
    add("--data", metavar="DIR", help="recorded dialogues: a directory or file; without it a world is generated")
    for name, meaning in (inputs or {}).items():
        add(f"--{name.replace('_', '-')}", dest=name, metavar="FILE", help=meaning)
    add("--world", help="which world, if not the one that follows from --data")
    add("--set", metavar="COLUMN=VALUE", action="append", default=[], type=assignment, help=columns)
    add("--store", metavar="DIR", help="where results live (default: $SWEEPS_STORE, else ~/.sweeps/store)")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(2, f"{self.prog}: {message}; --help lists the options\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What argparse gives; what is unknown is one line."""
        given, rest = self.parse_known_args(args, namespace)
        if rest:
            self.unrecognised(rest)
        return given

    def unrecognised(self, rest: Sequence[str]) -> NoReturn:
        """Leave with status 2 and the first option that there is not, without the values behind it."""
        name = next((word.partition("=")[0] for word in rest if word.startswith("-")), rest[0])
        known = [option for option in self._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        self.error(f"unrecognised: {name}" + "".join(f"; the nearest is {option}" for option in near))


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise argparse.ArgumentTypeError(f"must be names separated by commas, got {text!r}")
    return words


def assignment(text: str) -> tuple[str, Plain]:
    """COLUMN=VALUE of a `--set`, the value as a number or truth where it reads as one."""
    column, equals, value = text.partition("=")
    if not equals or not column or not (value or column.startswith("world.")):  # a world's setting may be empty text
        raise argparse.ArgumentTypeError(f"must be COLUMN=VALUE, such as train.steps=500, got {text!r}")
    return column.strip(), _value(value.strip())


def _variation(text: str) -> tuple[str, tuple[Plain, ...]]:
    column, equals, values = text.partition("=")
    several = tuple(dict.fromkeys(_value(value.strip()) for value in values.split(",") if value.strip()))
    if not equals or not column.strip() or not several:
        raise argparse.ArgumentTypeError(f"must be COLUMN=VALUES, such as world.noise=0,0.5, got {text!r}")
    return column.strip(), several


def _value(text: str) -> Plain:
    """A number, true, false, inf, or the text itself."""
    if text in ("inf", "infinity"):
        return float("inf")
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return value


class _count:  # noqa: N801  reads as a word in the list above
    """An option's type: a whole number of at least `least`."""

    def __init__(self, least: int) -> None:
        self._least = least

    def __call__(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = self._least - 1
        if value < self._least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {self._least}, got {text!r}")
        return value
