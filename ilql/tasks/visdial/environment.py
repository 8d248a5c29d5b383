"""Visual dialogue as a task: episodes of question and answer in any of the worlds, and the recorded ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ilql.dialogue import Dialogue
from ilql.task import SPLITS, Environment, Reply
from ilql.tasks.visdial.protocols import Exchange, Scene, VisdialSplit, VisdialWorld, percentiles
from ilql.tasks.visdial.rules import (
    MAX_QUESTIONS,
    REWARDS,
    goal_reached,
    is_penalised,
    lowest_return,
    question_reward,
    to_dialogue,
)
from ilql.tasks.visdial.settings import Settings


class VisdialEnvironment:
    """One episode: a caption, then up to ten questions and their answers; stepped by `VisdialTask.step`.

    Attributes:
        split: The split the scene is from.
        exchanges: What was said so far, without the caption.
        percentiles: The guesser's percentile after the caption and after each exchange; empty until somebody asks for
            it, so that a block of episodes can be placed by one call.
        ended: Whether the episode is over.
    """

    def __init__(self, place: Scene, part: VisdialSplit, split: str) -> None:
        self.split = split
        self.exchanges: list[Exchange] = []
        self.percentiles: list[float] = []
        self.ended = False
        self._place = place
        self._part = part

    @property
    def opening(self) -> str:
        """The caption."""
        return self._place.caption

    @property
    def scene(self) -> str:
        """The scene's name."""
        return self._place.id

    def measures(self) -> Mapping[str, float]:
        """Diagnostics of the episode so far.

        `final_rank` in [1, pool] and `final_percentile` in (0, 1) place the true scene after the last answer;
        `first_percentile` after the caption; `penalised_share` is the share of answers that are exactly yes or no, 0
        before any.

        Raises:
            TaskFault: The guesser had to be asked, and failed.
        """
        if not self.percentiles:
            self.percentiles.append(float(percentiles(self._part.guesser, [self.scene], [()])[0]))
        bare = sum(is_penalised(exchange.answer, "yn") for exchange in self.exchanges)
        return {
            "final_rank": (1.0 - self.percentiles[-1]) * (self._part.guesser.pool + 1),
            "final_percentile": self.percentiles[-1],
            "first_percentile": self.percentiles[0],
            "penalised_share": bare / len(self.exchanges) if self.exchanges else 0.0,
        }


class VisdialTask:
    """A loaded world under the rules of its settings. Implements `ilql.task.Task`."""

    name = "visdial"
    rewards = REWARDS
    max_turns = MAX_QUESTIONS
    playable = True

    def __init__(self, world: VisdialWorld, settings: Settings) -> None:
        self._world = world
        self._settings = settings
        self._orders = {
            split: np.random.default_rng([settings.seed, 100 + number]).permutation(len(world.splits[split].scenes))
            for number, split in enumerate(SPLITS)
        }

    def score_range(self, reward: str) -> tuple[float, float]:
        """The lowest and the highest return an episode can have under `reward`.

        Raises:
            ValueError: There is no such reward.
        """
        _check_reward(reward)
        lowest = lowest_return(reward, penalty=self._settings.penalty, free_last_step=self._settings.free_last_step)
        return lowest, 0.0

    def dialogues(self, split: str, reward: str) -> tuple[Dialogue, ...]:
        """The recorded dialogues of `split`, each cut where the rules end it and paid by `reward`.

        Raises:
            ValueError: There is no such split or reward.
        """
        _check_reward(reward)
        part = self._part(split)
        captions = {scene.id: scene.caption for scene in part.scenes}
        return tuple(
            to_dialogue(
                recorded,
                captions[recorded.scene_id],
                reward,
                stop_fraction=self._settings.stop_fraction,
                penalty=self._settings.penalty,
                free_last_step=self._settings.free_last_step,
            )
            for recorded in part.recorded
        )

    def environment(self, seed: int, split: str) -> VisdialEnvironment:
        """A fresh episode about scene `seed` modulo their number, in an order that is fixed for each split.

        Raises:
            ValueError: There is no such split, or the seed is negative.
        """
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        part = self._part(split)
        order = self._orders[split]
        return VisdialEnvironment(part.scenes[int(order[seed % len(order)])], part, split)

    def references(self, split: str, reward: str, seeds: Sequence[int]) -> Mapping[str, Sequence[float]]:
        """What ten empty questions get in the episodes of some seeds, as `empty_questions`.

        Where an answer that says nothing is not penalised, a method that has learnt only not to be is no better. They
        are played, so the returns are exact. In the remote world there are none: a report asks no servers.

        Raises:
            ValueError: There is no such split or reward, or a seed is negative.
        """
        _check_reward(reward)
        self._part(split)
        if self._settings.world == "remote":
            return {}
        environments = [self.environment(seed, split) for seed in seeds]
        returns = [0.0] * len(environments)
        while rows := [row for row, environment in enumerate(environments) if not environment.ended]:
            replies = self.step([environments[row] for row in rows], [""] * len(rows))
            for row, reply in zip(rows, replies, strict=True):
                returns[row] += reply.rewards[reward]
        return {"empty_questions": returns}

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        """Ask one question in each environment. They are grouped by split; one never depends on the others.

        Spaces around a question do not count and a missing question mark is added. An empty question gets the world's
        "nothing fits" answer and is not understood; it costs as much as any other.

        Raises:
            TaskFault: The world failed; no environment of this call has changed.
            TypeError: An environment is of another task.
            ValueError: An episode is over, or stands in the list twice.
        """
        asked = [_checked(environment) for environment in environments]
        if len({id(environment) for environment in asked}) != len(asked):
            raise ValueError("one step must ask each environment once, got one of them twice")
        questions = [_question(text) for text in utterances]
        if len(asked) != len(questions):
            raise ValueError(f"each environment must get one question, got {len(questions)} for {len(asked)}")
        replies: dict[int, Reply] = {}
        outcomes = []
        for split in SPLITS:
            rows = [row for row, environment in enumerate(asked) if environment.split == split]
            if rows:
                group = [asked[row] for row in rows]
                outcomes.append((rows, *self._ask(self._part(split), group, [questions[row] for row in rows])))
        for rows, exchanges, understood, starts, reached in outcomes:
            for row, exchange, sensible, start, percentile in zip(
                rows, exchanges, understood, starts, reached, strict=True
            ):
                replies[row] = self._reply(asked[row], exchange, start, percentile, understood=sensible)
        return [replies[row] for row in range(len(asked))]

    def _ask(
        self, part: VisdialSplit, group: Sequence[VisdialEnvironment], questions: Sequence[str]
    ) -> tuple[list[Exchange], list[bool], list[float], list[float]]:
        """The exchanges, whether they were understood, the percentiles after the caption and now; changes nothing."""
        scenes = [environment.scene for environment in group]
        starts = [environment.percentiles[0] if environment.percentiles else None for environment in group]
        new = [row for row, start in enumerate(starts) if start is None]
        first = percentiles(part.guesser, [scenes[row] for row in new], [()] * len(new)) if new else ()
        placed = dict(zip(new, map(float, first), strict=True))
        said = [row for row, question in enumerate(questions) if question]
        histories = [environment.exchanges for environment in group]
        answers = (
            part.answerer.answer(
                [scenes[row] for row in said], [histories[row] for row in said], [questions[row] for row in said]
            )
            if said
            else []
        )
        answered = dict(zip(said, answers, strict=True))
        exchanges = [
            Exchange(question, answered[row].text if row in answered else part.answerer.nothing_fits)
            for row, question in enumerate(questions)
        ]
        now = percentiles(
            part.guesser, scenes, [[*history, new_one] for history, new_one in zip(histories, exchanges, strict=True)]
        )
        return (
            exchanges,
            [row in answered and answered[row].understood for row in range(len(group))],
            [placed[row] if start is None else start for row, start in enumerate(starts)],
            [float(value) for value in now],
        )

    def _reply(
        self, environment: VisdialEnvironment, exchange: Exchange, start: float, percentile: float, *, understood: bool
    ) -> Reply:
        """Record the exchange in its environment and say what it earned."""
        if not environment.percentiles:
            environment.percentiles.append(start)
        environment.exchanges.append(exchange)
        environment.percentiles.append(percentile)
        questions = len(environment.exchanges)
        reached = goal_reached(start, percentile, stop_fraction=self._settings.stop_fraction)
        environment.ended = reached or questions == MAX_QUESTIONS
        earned = {
            reward: question_reward(
                exchange.answer,
                reward,
                questions=questions,
                reached=reached,
                penalty=self._settings.penalty,
                free_last_step=self._settings.free_last_step,
            )
            for reward in REWARDS
        }
        return Reply(text=exchange.answer, rewards=earned, ended=environment.ended, understood=understood)

    def _part(self, split: str) -> VisdialSplit:
        if split not in self._world.splits:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        return self._world.splits[split]


def _check_reward(reward: str) -> None:
    if reward not in REWARDS:
        raise ValueError(f"reward must be one of {', '.join(REWARDS)}, got {reward!r}")


def _checked(environment: Environment) -> VisdialEnvironment:
    if not isinstance(environment, VisdialEnvironment):
        raise TypeError(f"a visdial task steps its own environments, got a {type(environment).__name__}")
    if environment.ended:
        raise ValueError(f"an episode that is over takes no more questions, got one about {environment.scene!r}")
    return environment


def _question(text: str) -> str:
    """The question stripped and with its question mark; empty where nothing but marks was said."""
    bare = text.strip()
    if not bare.strip("?").strip():
        return ""
    return bare if bare.endswith("?") else f"{bare} ?"
