"""The command line of a runnable question, as a value."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.redaction import without_secrets
from ilql.hyperparameters import Search, Value
from sweeps.command_line import (
    LARGEST_SEED,
    OneLineParser,
    Plain,
    Said,
    assignment,
    columns_said,
    name_list,
    share,
    sweep_name,
    variation,
    whole_number,
)
from sweeps.paths import store_at

COLUMNS = (
    "COLUMN=VALUE, or --set COLUMN=VALUE, fixes a column, also one that the design varies; COLUMN=VALUE,VALUE,... "
    "makes the design vary it over these; COLUMN=LOW..HIGH, of numbers in training, lets proposals (--trials) search "
    "between the ends, on a logarithmic scale where these are above 0 and a factor of 10 or more apart; "
    "ARM.COLUMN=... says so of one arm."
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user asked for.

    As `parse` gives them `columns`, `overrides` and `searched` are empty: `sweeps.asked.settled` sorts what was said of
    columns into these three. *Settled* options are those.

    Attributes:
        command: The command, for saying how to resume; `***` in place of passwords.
        preset: The preset's name.
        store: The store's folder, absolute.
        remote: The address of its copy in an object store, where machines share no folder, or None.
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
        behaviour_per_seed: True for a behaviour policy of its own at every training seed.
        methods: Arms to run, or None for the question's main ones.
        refine: Arms whose trainings proposals vary, or None for the question's own.
        convention: Whose conventions the value methods follow, or None for ours.
        columns: Hyperparameters and settings of the world and of cloning that are fixed, by column.
        overrides: Columns of the design and the values they take instead, by `COLUMN` or `ARM.COLUMN`.
        searched: Columns that proposals search and where, by `COLUMN` or `ARM.COLUMN`.
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
        cluster: The description of a cluster that the plan is to be for, or None.
        show: True to print the preset and the design, and stop.
        as_json: True to print the plan for programs.
    """

    command: tuple[str, ...]
    preset: str
    store: Path
    remote: str | None = None
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
    behaviour_per_seed: bool = False
    methods: tuple[str, ...] | None = None
    refine: tuple[str, ...] | None = None
    convention: str | None = None
    columns: Mapping[str, Value] = field(default_factory=dict)
    overrides: Said = field(default_factory=dict)
    searched: Mapping[str, Search] = field(default_factory=dict)
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
    cluster: str | None = None
    show: bool = False
    as_json: bool = False

    @property
    def sources(self) -> dict[str, str]:
        """All sources that were given, by name."""
        return {**({} if self.data is None else {"data": self.data}), **self.inputs}

    def distinction(self, reward: str) -> list[str]:
        """What tells the name of a reward's sweep from the preset's plain one: empty if nothing does."""
        special: dict[str, Any] = {
            "columns": dict(self.columns), "methods": self.methods, "refine": self.refine, "model": self.model,
            "data": self.data, "inputs": dict(self.inputs), "convention": self.convention,
            "reward": reward if self.evaluation_reward else None, "search_seed": self.search_seed,
        }  # fmt: skip
        if self.cut_vocabulary is not None:
            special["cut_vocabulary"] = str(self.cut_vocabulary)
        if self.chat_template:
            special["chat_template"] = True
        if self.overrides:
            special["overrides"] = dict(self.overrides)
        if self.searched:
            special["searched"] = {name: dataclasses.asdict(search) for name, search in self.searched.items()}
        if self.adapter_rank is not None:
            special["adapter_rank"] = str(self.adapter_rank)
        if self.behaviour_per_seed:
            special["behaviour_per_seed"] = True
        if not any(special.values()):
            return []
        return [hashlib.sha256(json.dumps(special, sort_keys=True).encode()).hexdigest()[:6]]


def parse(
    program: str,
    description: str,
    presets: Sequence[str],
    arguments: Sequence[str],
    inputs: Mapping[str, str] | None = None,
) -> tuple[Options, Said]:
    """Options from a command line, and what it says of columns; leaves with one line and status 2 if it is wrong.

    Where a column belongs depends on the design, which `sweeps.asked.options_of` knows.

    Args:
        program: What was called.
        description: What it answers.
        presets: The names of its presets.
        arguments: What was written behind the program's name.
        inputs: Its sources besides `--data`, by name, each with a line that says what it is.
    """
    parser = OneLineParser(prog=program, description=description, epilog=COLUMNS)
    add_question_options(parser, presets, inputs or {}, rewards=reward_options(inputs or {}))
    given, rest = parser.parse_known_args(arguments)
    said = _all_said(parser, given, rest)
    _check_varied(parser, given, said)
    plan_only = given.plan or given.cluster is not None
    if given.json and not plan_only:
        parser.error("--json is of a plan: `sweeps rows` has a sweep's rows")
    resources: dict[str, Value] = {
        name: value
        for name, value in (
            ("workers", given.workers),
            ("least_workers", given.least_workers),
            ("gpus_per_worker", given.gpus_per_worker),
            ("micro_batch", given.micro_batch),
            ("recompute", given.recompute or None),
            ("shard", given.shard or None),
            ("ray_train", given.ray_train or None),
        )
        if value is not None
    }
    options = Options(
        command=tuple(map(without_secrets, sys.orig_argv)),
        preset=given.preset,
        store=store_at(given.store),
        remote=given.remote or os.environ.get("SWEEPS_REMOTE") or None,
        name=given.name,
        world=given.world,
        data=given.data,
        inputs=given_of(given, inputs or {}),
        rewards=given.rewards,
        evaluation_reward=given.evaluation_reward,
        transfer=given.transfer,
        model=given.model,
        cut_vocabulary=given.cut_vocabulary,
        chat_template=given.chat_template,
        adapter_rank=given.adapter_rank,
        behaviour_per_seed=given.behaviour_per_seed,
        methods=given.methods,
        refine=given.refine,
        convention=given.convention,
        vary=given.vary,
        seeds=given.seeds,
        episodes=given.episodes,
        proposals=given.trials,
        resources=resources,
        concurrent=given.concurrent,
        search_seed=given.search_seed,
        tracking=given.tracking_uri,
        mirror=not given.no_mlflow,
        plan_only=plan_only,
        cluster=given.cluster,
        show=given.show,
        as_json=given.json,
    )
    return options, said


def add_question_options(
    parser: argparse.ArgumentParser, presets: Sequence[str], inputs: Mapping[str, str], *, rewards: Sequence[str]
) -> None:
    """Add the options of a question.

    Args:
        parser: To which.
        presets: The names of its presets.
        inputs: Its sources besides `--data`, by name, each with a line that says what it is.
        rewards: How the option that names rewards is spelt.
    """
    add = parser.add_argument
    add_world(parser, presets, inputs, columns="fix a hyperparameter, or with world.FIELD a setting of the world")
    add("--show", action="store_true", help="print the preset and the design, and stop")
    add("--plan", action="store_true", help="prepare the world, print what would be trained and evaluated, and stop")
    add("--json", action="store_true", help="with --plan: print it as JSON, for programs")
    add("--cluster", metavar="4x8:80GB", help="with --plan: what it takes of such a cluster, MACHINESxGPUS:MEMORY")
    add(
        *rewards,
        type=name_list,
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
    add("--adapter-rank", type=whole_number(0, 10**4), help="learn adapters of this rank on a frozen model")
    add("--methods", type=name_list, help="these methods, separated by commas; all for every one there is")
    add(
        "--refine",
        type=name_list,
        help="methods whose hyperparameters are searched after the design; unless named, also those with an interval",
    )
    add("--convention", help="compute ILQL as another implementation does: reference, trlx or lmrl")
    add("--vary", metavar="COLUMN=VALUES", type=variation, help="do it all at each of these values, such as 0,0.5,1")
    add("--seeds", type=whole_number(1, 1000), help="training seeds of every cell; more can be added later")
    add(
        "--behaviour-per-seed",
        action="store_true",
        help="clone a behaviour policy for every training seed, where all share the first one's otherwise",
    )
    add("--episodes", type=whole_number(1, 10**6), help="episodes on the report scenes; more can be added later")
    add("--trials", type=whole_number(0, 10**4), help="proposals after the design, for each method that is refined")
    add(
        "--search-seed",
        type=whole_number(0, LARGEST_SEED),
        default=0,
        help="seed of the proposals (default: %(default)s)",
    )
    add("--name", type=sweep_name, help="the sweep's name in the store")
    add(
        "--remote",
        metavar="URL",
        help="an object store, s3://bucket/prefix, by which machines that share no folder work on one store "
        "(default: $SWEEPS_REMOTE)",
    )
    add("--workers", type=whole_number(1, 10**4), help="workers that train together in a job")
    add(
        "--least-workers",
        type=whole_number(1, 10**4),
        help="train with as few where there is room for no more, as after a lost machine (default: wait for all)",
    )
    add("--ray-train", action="store_true", help="train in Ray Train worker groups even with one worker on a CPU")
    add("--micro-batch", type=whole_number(0, 10**6), help="dialogues per forward pass, for memory")
    add("--recompute", action="store_true", help="make activations again in the backward pass, for memory")
    add("--shard", action="store_true", help="let each worker hold but a part of every transformer block, for memory")
    add_machines(parser)


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
    add_world(parser, presets, inputs)
    parser.parse_args(arguments, given)
    return Options(
        command=tuple(map(without_secrets, sys.orig_argv)),
        preset=given.preset,
        store=store_at(given.store),
        world=given.world,
        data=given.data,
        inputs=given_of(given, inputs),
        columns=dict(given.set),
        resources={},
    )


def add_world(
    parser: argparse.ArgumentParser,
    presets: Sequence[str],
    inputs: Mapping[str, str],
    *,
    columns: str = "a setting of the world, as in training: world.FIELD=VALUE",
) -> None:
    """Add the options that decide which world it is and where it lies."""
    add = parser.add_argument
    add("--preset", default="laptop", help=f"how big: {', '.join(presets)} (default: %(default)s)")
    add_sources(parser, inputs, "recorded dialogues: a directory or file; without it a world is generated")
    add("--world", help="which world, if not the one that follows from --data")
    add_set(parser, columns)
    add("--store", metavar="DIR", help="where results live (default: $SWEEPS_STORE, else ~/.sweeps/store)")


def add_sources(parser: argparse.ArgumentParser, inputs: Mapping[str, str], data: str) -> None:
    """Add the options that name what a world is built from; `given_of` reads them.

    Args:
        parser: To which.
        inputs: The question's sources besides `--data`, by name, each with a line that says what it is.
        data: What `--data` is.
    """
    parser.add_argument("--data", metavar="DIR", help=data)
    for name, meaning in inputs.items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="FILE", help=meaning)


def given_of(given: argparse.Namespace, names: Iterable[str]) -> dict[str, str]:
    """Those of the options that were given."""
    return {name: value for name in names if (value := getattr(given, name)) is not None}


def add_set(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add `--set`, of which there may be many."""
    parser.add_argument("--set", metavar="COLUMN=VALUE", action="append", default=[], type=assignment, help=meaning)


def reward_options(inputs: Mapping[str, str]) -> list[str]:
    """How the option that names rewards is spelt: a question that reads a reward function has that as `--reward`."""
    return ["--rewards"] if "reward" in inputs else ["--rewards", "--reward"]


def add_machines(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much runs at a time, on what, and where it is shown: they decide no number."""
    add = parser.add_argument
    add("--concurrent", type=whole_number(1, 10**4), help="jobs at a time (default: as many as fit)")
    add("--gpus-per-worker", type=share, help="GPUs of each worker")
    add("--tracking-uri", help="MLflow's tracking URI (default: $MLFLOW_TRACKING_URI, else SQLite in the store)")
    add("--no-mlflow", action="store_true", help="do not mirror to MLflow")


def _all_said(parser: OneLineParser, given: argparse.Namespace, rest: Sequence[str]) -> Said:
    """What is said of columns, with `--set` or without; leaves with one line where that is both of one column."""
    found: dict[str, tuple[Plain, ...]] = {name: (value,) for name, value in given.set}
    for name, values in columns_said(parser, rest).items():
        if name in found:
            parser.error(f"a column must be said once, got {name} and --set {name}")
        found[name] = values
    return found


def _check_varied(parser: OneLineParser, given: argparse.Namespace, said: Said) -> None:
    """Leave with one line where a column is varied that is fixed, or where its values make names that are none."""
    if given.vary is None:
        return
    column, values = given.vary
    if column in said:
        parser.error(f"--vary may not vary a column that is said beside it, got {column}")
    for value in values if given.name is not None else ():
        try:
            sweep_name(f"{given.name}-{value}")
        except argparse.ArgumentTypeError as fault:
            parser.error(f"--name with a value of --vary {fault}")
