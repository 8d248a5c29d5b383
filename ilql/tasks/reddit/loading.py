"""A task's folder, read: its settings say which rewards are asked for, its judges which can be had."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ilql.tasks.reddit.environment import RedditTask
from ilql.tasks.reddit.judges import Judge, load_judge
from ilql.tasks.reddit.recordings import read_recordings
from ilql.tasks.reddit.rewards import Called, Matching, ModelledVotes, NoisedToxicity, Reward, Toxicity
from ilql.tasks.reddit.settings import Settings

SETTINGS_FILE = "settings.json"
TOXIC, JUDGED_TOXIC, UPVOTES = "toxic", "judged_toxic", "upvotes"
"""Judges, each in a folder of its name where there is one; the first two are measures, too."""


def load(folder: Path) -> RedditTask:
    """The task that `build` wrote into `folder`."""
    settings = Settings(**json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")))
    there = [name for name in (TOXIC, JUDGED_TOXIC, UPVOTES) if (folder / name).is_dir()]
    judges = {name: load_judge(folder / name) for name in there}
    return RedditTask(
        read_recordings(folder),
        make_rewards(settings, judges),
        {name: judge for name, judge in judges.items() if name != UPVOTES},
        settings,
    )


def make_rewards(settings: Settings, judges: Mapping[str, Judge]) -> tuple[Reward, ...]:
    """The rewards that some judges and settings allow, in the order of `rewards.NAMES`."""
    rewards: list[Reward] = []
    if TOXIC in judges:
        clean = Toxicity(judges[TOXIC], settings.doubtful_threshold, settings.toxic_threshold)
        rewards += [clean, NoisedToxicity(clean, settings.seed)]
    if UPVOTES in judges:
        rewards += [ModelledVotes(judges[UPVOTES], name) for name in ("upvotes_real", "upvotes_model")]
    if settings.regex:
        rewards.append(Matching(re.compile(str(settings.regex)), settings.regex_reward))
    if settings.callable:
        rewards.append(Called(settings.callable, low=settings.callable_low, high=settings.callable_high))
    return tuple(rewards)
