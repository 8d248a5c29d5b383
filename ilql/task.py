"""The world a policy speaks with: what a task must offer, and the faults it may report.

A task is built once from its settings and its sources (files, a seed, servers) into a folder, and loaded from that
folder by every process that needs it. Building may be slow and may need the sources; loading must be quick and needs
only the folder. So a worker on another machine never asks for the user's path, and the folder can be a
content-addressed stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ilql.dialogue import Dialogue

SPLITS = ("train", "tune", "report")
"""Scenes are split three ways: methods learn on the first, settings are chosen on the second, tables score the
third."""


class TaskFault(RuntimeError):  # noqa: N818  a fault is whose it was, as in cluster.faults
    """The world failed, not the policy: an unreachable or wedged server, a reply that is not one.

    An evaluation that meets it is recorded as failed with this reason; it never becomes a low score.
    """


@dataclass(frozen=True)
class Reply:
    """What the world does after one utterance of the agent.

    Attributes:
        text: The world's answer, or None where it says nothing (the episode then ends or the agent goes on).
        rewards: The utterance's reward under every reward of the task, keyed by the reward's name.
        ended: True if the episode is over.
        understood: False if the utterance was no sensible one to this world: empty, unreadable or fitting nothing.
    """

    text: str | None
    rewards: Mapping[str, float]
    ended: bool
    understood: bool = True


class Environment(Protocol):
    """One episode in progress. Equal seeds give equal episodes to equal utterances."""

    @property
    def opening(self) -> str | None:
        """What the world says before the agent's first turn, or None where the agent opens."""
        ...

    @property
    def scene(self) -> str:
        """A name of what the episode is about; episodes of one scene share it."""
        ...

    def measures(self) -> Mapping[str, float]:
        """Diagnostics of the episode so far, finite numbers keyed by name, equal keys in every episode of a task."""
        ...


class Task(Protocol):
    """A world, loaded and ready: recorded dialogues to learn from and environments to play in.

    Attributes:
        name: The task's name in `ilql.tasks`.
        rewards: The names of its reward functions, the default first.
        max_turns: The largest number of utterances the agent can make in one episode.
        playable: False where nobody is there to answer: an episode is then the beginning of a recorded dialogue and one
            utterance, whose reward is no score, and policies are judged by estimates.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    @property
    def rewards(self) -> tuple[str, ...]:
        """See above."""
        ...

    @property
    def max_turns(self) -> int:
        """See above."""
        ...

    @property
    def playable(self) -> bool:
        """See above."""
        ...

    def score_range(self, reward: str) -> tuple[float, float]:
        """The lowest and the highest return an episode can have under `reward`."""
        ...

    def dialogues(self, split: str, reward: str) -> tuple[Dialogue, ...]:
        """The recorded dialogues of `split`, their agent's turns carrying the rewards of `reward`.

        Every split has the same dialogues, in the same order, under every reward.
        """
        ...

    def environment(self, seed: int, split: str) -> Environment:
        """A fresh episode of `split`. The seed decides the scene and every random choice of the world.

        Consecutive seeds go through different scenes as long as there are any, so a block of episodes repeats none.
        """
        ...

    def references(self, split: str, reward: str, seeds: Sequence[int]) -> Mapping[str, Sequence[float]]:
        """Returns of others in the episodes of these seeds, for comparison: a scripted player's, people's; often none.

        Names are words that a table can print, such as `optimal`.
        """
        ...

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        """Say one utterance in each environment; what one environment replies never depends on the others.

        Raises:
            TaskFault: The world failed.
        """
        ...


@dataclass(frozen=True)
class TaskKind:
    """A file or folder of `ilql.tasks` presents itself by one such value named `KIND`.

    Attributes:
        name: The task's name.
        version: Raised when the meaning of building, rewards or replies changes; part of every key that depends on it.
        settings: A frozen dataclass of JSON values: what decides the world besides its sources. No paths, no addresses.
        source_digest: A digest of the sources the settings are applied to (`""` where there are none). Takes the
            settings and the sources as the user named them, by input: `data` is what `--data` names. Raises ValueError
            in one line if one cannot be read, or is none that this world knows.
        build: Writes the task's folder. Takes settings, sources and an existing empty folder. Raises ValueError in one
            line on bad input. Returns notes for the user: what was skipped and why, how it is calibrated.
        load: The task from its folder.
        example: Settings of the smallest instance that needs no source, for tests.
        inputs: Its sources besides `data`, by name, each with a line that says what it is; `words` is given as
            `--words`.
        symbols: Where the task's text has an alphabet of its own, all of it: each symbol is then one token.
        windows: Whether dialogues that are longer than a training reads at once are cut into windows (`ilql.windows`);
            else they end there, without their last rewards.
        references: Raised when others (`Task.references`) play otherwise; part of the key of their returns alone.
    """

    name: str
    version: int
    settings: type[Any]
    source_digest: Callable[[Any, Mapping[str, str]], str]
    build: Callable[[Any, Mapping[str, str], Path], list[str]]
    load: Callable[[Path], Task]
    example: Any
    inputs: Mapping[str, str] = field(default_factory=dict)
    symbols: tuple[str, ...] = ()
    windows: bool = False
    references: int = 1
