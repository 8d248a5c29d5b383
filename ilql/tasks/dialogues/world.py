"""The built world: what lies in its folder, and the task that is loaded from there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ilql.dialogue import Dialogue
from ilql.task import SPLITS, Environment, Reply
from ilql.tasks.dialogues import functions
from ilql.tasks.dialogues.environment import LiveEpisode, ReplayedEpisode, Rules
from ilql.tasks.dialogues.paid import PaidDialogue, PaidTurn
from ilql.tasks.dialogues.payment import RewardFunction
from ilql.tasks.dialogues.schema import CUSTOM
from ilql.tasks.dialogues.settings import Settings

WORLD_FILE = "world.json"
DIALOGUES_FILE = "dialogues.json"


@dataclass(frozen=True)
class World:
    """All that a folder says besides the dialogues.

    Attributes:
        settings: As the user gave them.
        rewards: The names of the rewards, `recorded` first.
        ranges: The lowest and the highest return of an episode or a recorded dialogue, by the reward's name.
        bounds: The lowest and the highest reward of one live turn, by the reward's name.
        agent_role: The agent's commonest role in the data, under which it plays.
        world_role: The world's.
        environment: Where the user's factory is found, or None: then the task cannot be played.
        reward: Where the user's reward function is found, or None.
    """

    settings: Settings
    rewards: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    bounds: Mapping[str, tuple[float, float]]
    agent_role: str
    world_role: str
    environment: Mapping[str, str | None] | None
    reward: Mapping[str, str | None] | None


def write(folder: Path, world: World, dialogues: Mapping[str, Sequence[PaidDialogue]]) -> None:
    """Write a world and the dialogues of every split."""
    (folder / WORLD_FILE).write_text(json.dumps(dataclasses.asdict(world)), encoding="utf-8")
    stored = {split: [_row(dialogue) for dialogue in dialogues[split]] for split in SPLITS}
    (folder / DIALOGUES_FILE).write_text(json.dumps(stored), encoding="utf-8")


def _row(dialogue: PaidDialogue) -> list[object]:
    """A dialogue as JSON, its turns as lists: a folder is read by every worker, and names would be half of it."""
    turns = [[turn.text, turn.by_agent, list(turn.rewards)] for turn in dialogue.turns]
    return [dialogue.scene, dialogue.ended, turns]


def load(folder: Path) -> DialoguesTask:
    """The task of a folder; the user's functions are imported again.

    Raises:
        ValueError: A user's module that is imported by name is not installed here, or an earlier version has cut the
            dialogues by words.
    """
    stored = json.loads((folder / WORLD_FILE).read_text(encoding="utf-8"))
    if words := stored["settings"].pop("window_words", 0):
        raise ValueError(
            f"a world must hold whole dialogues, got one that an earlier version has cut after {words} words: run its "
            "question again"
        )
    world = World(
        settings=Settings(**stored["settings"]),
        rewards=tuple(stored["rewards"]),
        ranges={name: (low, high) for name, (low, high) in stored["ranges"].items()},
        bounds={name: (low, high) for name, (low, high) in stored["bounds"].items()},
        agent_role=stored["agent_role"],
        world_role=stored["world_role"],
        environment=stored["environment"],
        reward=stored["reward"],
    )
    held = json.loads((folder / DIALOGUES_FILE).read_text(encoding="utf-8"))
    dialogues = {
        split: tuple(
            PaidDialogue(
                scene=scene,
                turns=tuple(PaidTurn(text, by_agent, tuple(rewards)) for text, by_agent, rewards in turns),
                ended=ended,
            )
            for scene, *_, ended, turns in held[split]  # earlier versions have a mark between
        )
        for split in SPLITS
    }
    return DialoguesTask(world, dialogues, _rules(world, folder))


def _rules(world: World, folder: Path) -> Rules | None:
    """How the environment is played, or None where there is none."""
    if world.environment is None:
        return None
    reward = None
    if world.reward is not None:
        reward = RewardFunction(functions.load("reward", world.reward, folder), *world.bounds[CUSTOM])
    roles = (world.agent_role, *world.settings.roles_of_agent)
    return Rules(
        factory=functions.load("environment", world.environment, folder),
        bounds={name: bounds for name, bounds in world.bounds.items() if reward is None or name != CUSTOM},
        reward=reward,
        max_turns=world.settings.max_turns,
        template=world.settings.template,
        agent_role=world.agent_role,
        agent_roles=tuple(dict.fromkeys(roles)),
        world_role=world.world_role,
    )


class DialoguesTask:
    """Your own dialogues, and your environment where there is one. Implements `ilql.task.Task`.

    Attributes:
        name: `dialogues`.
        rewards: `recorded`, those of the data's `rewards`, and `custom` where there is a reward function.
        playable: True where there is an environment. Without one an episode is the beginning of a held-out dialogue
            and one utterance, and its reward of 0 is no score.
        max_turns: The setting, or 1 where the task cannot be played.
    """

    name = "dialogues"

    def __init__(self, world: World, dialogues: Mapping[str, Sequence[PaidDialogue]], rules: Rules | None) -> None:
        self.rewards = world.rewards
        self.playable = rules is not None
        self.max_turns = world.settings.max_turns if rules is not None else 1
        self._world, self._dialogues, self._rules = world, dialogues, rules
        self._orders = {
            split: np.random.default_rng([world.settings.seed, 100 + number]).permutation(len(dialogues[split]))
            for number, split in enumerate(SPLITS)
        }

    def score_range(self, reward: str) -> tuple[float, float]:
        """The lowest and the highest return under `reward`, of the recorded dialogues and of every episode.

        With an environment, `max_turns` times what one turn may be paid. Where nobody has said what that is, it is
        wide rather than wrong: `LARGEST_REWARD` a turn.

        Raises:
            ValueError: There is no such reward.
        """
        self._place(reward)
        return self._world.ranges[reward]

    def dialogues(self, split: str, reward: str) -> tuple[Dialogue, ...]:
        """The recorded dialogues of `split`.

        Raises:
            ValueError: There is no such split or reward.
        """
        self._check_split(split)
        place = self._place(reward)
        return tuple(dialogue.under(place) for dialogue in self._dialogues[split])

    def environment(self, seed: int, split: str) -> LiveEpisode | ReplayedEpisode:
        """An episode of the user's environment or, without one, the beginning of a recorded dialogue to draw samples.

        Recorded dialogue `seed` modulo their number is taken, in an order that is fixed for each split.

        Raises:
            ValueError: There is no such split, or the seed is negative.
            TaskFault: The environment cannot begin.
        """
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self._check_split(split)
        if self._rules is not None:
            return LiveEpisode(self._rules, seed, split)
        order = self._orders[split]
        beginning = self._dialogues[split][int(order[seed % len(order)])]
        return ReplayedEpisode(beginning.opening, beginning.scene, self.rewards)

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        """Say one utterance in each environment.

        Raises:
            TaskFault: The user's environment or reward function failed, or gave what it must not.
            TypeError: An environment is of another task.
            ValueError: An episode is over, or stands in the list twice.
        """
        if len(environments) != len(utterances):
            raise ValueError(f"each environment must get one utterance, got {len(utterances)} for {len(environments)}")
        if len({id(environment) for environment in environments}) != len(environments):
            raise ValueError("one step must go to each environment once, got one of them twice")
        episodes = [_checked(environment) for environment in environments]
        return [episode.say(text) for episode, text in zip(episodes, utterances, strict=True)]

    def references(self, split: str, reward: str, seeds: Sequence[int]) -> Mapping[str, Sequence[float]]:
        """What the recorded dialogues that these episodes begin like returned; nothing where an environment answers.

        Of a user's environment nobody knows what the best would get.
        """
        self._check_split(split)
        place = self._place(reward)
        if self.playable:
            return {}
        returns = {dialogue.scene: dialogue.under(place).total_reward for dialogue in self._dialogues[split]}
        return {"recorded": [returns[self.environment(seed, split).scene] for seed in seeds]}

    def _place(self, reward: str) -> int:
        if reward not in self.rewards:
            raise ValueError(f"reward must be one of {', '.join(self.rewards)}, got {reward!r}")
        return self.rewards.index(reward)

    def _check_split(self, split: str) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")


def _checked(environment: Environment) -> LiveEpisode | ReplayedEpisode:
    if not isinstance(environment, LiveEpisode | ReplayedEpisode):
        raise TypeError(f"a dialogues task steps its own environments, got a {type(environment).__name__}")
    if environment.ended:
        raise ValueError(f"an episode that is over takes no more utterances, got one of {environment.scene!r}")
    return environment
