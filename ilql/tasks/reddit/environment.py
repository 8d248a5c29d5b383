"""The comments task: a parent is said, the agent writes one comment, and that is the episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ilql.dialogue import Dialogue, Turn
from ilql.hyperparameters import unknown
from ilql.task import SPLITS, Environment, Reply
from ilql.tasks.reddit.judges import Judge
from ilql.tasks.reddit.recordings import Recording
from ilql.tasks.reddit.rewards import Reward, noised
from ilql.tasks.reddit.settings import Settings
from ilql.tasks.reddit.texts import word_count

WORDS = "words"


@dataclass(frozen=True)
class _Scene:
    """What an episode can be about.

    Attributes:
        name: Its name in the task.
        opening: The parent, or None where the agent opens.
        rows: The recorded comments it was met with, by their place in the split.
    """

    name: str
    opening: str | None
    rows: tuple[int, ...]


class CommentEnvironment:
    """One episode; stepped by `RedditTask.step`.

    Attributes:
        opening: The parent, or None where the agent opens.
        scene: The parent's name in the task.
        ended: Whether the comment was written.
    """

    def __init__(self, opening: str | None, scene: str, measures: Mapping[str, float]) -> None:
        self.opening = opening
        self.scene = scene
        self.ended = False
        self._measures = dict(measures)

    def measures(self) -> Mapping[str, float]:
        """Diagnostics of the comment, all 0 before it.

        `words` is its length. `toxic` is the probability by the classifier that the toxicity rewards are made of, and
        `judged_toxic` the one by a second, independent judge; a task without one of them has no such measure.
        """
        return dict(self._measures)

    def end(self, measures: Mapping[str, float]) -> None:
        """Close the episode."""
        self.ended = True
        self._measures = dict(measures)


class RedditTask:
    """A loaded world. Implements `ilql.task.Task`.

    Args:
        recordings: The recorded comments of every split.
        rewards: The rewards, the default first; `recordings` hold the values of each.
        judges: Who measures, by the measure's name.
        settings: Seed and label noise.
    """

    name = "reddit"
    max_turns = 1
    playable = True

    def __init__(
        self,
        recordings: Mapping[str, Recording],
        rewards: Sequence[Reward],
        judges: Mapping[str, Judge],
        settings: Settings,
    ) -> None:
        self._recordings, self._judges, self._settings = recordings, judges, settings
        self._rewards = {reward.name: reward for reward in rewards}
        self._scenes = {
            split: _scenes(split, recordings[split], np.random.default_rng([settings.seed, 100 + number]))
            for number, split in enumerate(SPLITS)
        }

    @property
    def rewards(self) -> tuple[str, ...]:
        """The names of the rewards that the sources allow, the default first."""
        return tuple(self._rewards)

    def score_range(self, reward: str) -> tuple[float, float]:
        """The least and the most a comment can earn.

        Raises:
            KeyError: There is no such reward.
        """
        found = self._reward(reward)
        return found.low, found.high

    def dialogues(self, split: str, reward: str) -> tuple[Dialogue, ...]:
        """The recorded comments of `split`, each after its parent where it has one.

        Those of the training split carry the label noise that the settings ask for; those of the others never do.

        Raises:
            KeyError: There is no such split or reward.
        """
        paying, recording = self._reward(reward), self._recording(split)
        values: Sequence[float] = recording.values[reward]
        if split == "train":
            settings = self._settings
            values = noised(paying, recording.texts, values, noise=settings.noise, seed=settings.seed)
        return tuple(
            Dialogue((*_opened(parent), Turn(text, by_agent=True, reward=value)), ended=True)
            for text, parent, value in zip(recording.texts, recording.parents, values, strict=True)
        )

    def environment(self, seed: int, split: str) -> CommentEnvironment:
        """A fresh episode about scene `seed` modulo their number, in an order that is fixed for each split.

        Raises:
            KeyError: There is no such split.
            ValueError: The seed is negative.
        """
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self._recording(split)
        scenes = self._scenes[split]
        scene = scenes[seed % len(scenes)]
        return CommentEnvironment(scene.opening, scene.name, dict.fromkeys((WORDS, *self._judges), 0.0))

    def references(self, split: str, reward: str, seeds: Sequence[int]) -> Mapping[str, Sequence[float]]:
        """What the recorded authors earn in these episodes, judged as an agent's comments are.

        Those whom a judge learnt from are judged by folds of it that had not seen them.

        Where a parent was answered several times, consecutive rounds through the scenes take one answer after another.

        Raises:
            KeyError: There is no such split or reward.
        """
        self._reward(reward)
        values = self._recording(split).values["upvotes_model" if reward == "upvotes_real" else reward]
        scenes = self._scenes[split]
        found = []
        for seed in seeds:
            rows = scenes[seed % len(scenes)].rows
            found.append(values[rows[seed // len(scenes) % len(rows)]])
        return {"recorded": found}

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        """Write one comment in each environment. An empty one is not understood and earns the least there is.

        Raises:
            TaskFault: A reward could not be said; no environment of this call has changed.
            TypeError: An environment is of another task.
            ValueError: An episode is over, or there is not one comment for each environment.
        """
        writing = [_checked(environment) for environment in environments]
        if len(writing) != len(utterances):
            raise ValueError(f"each environment must get one comment, got {len(utterances)} for {len(writing)}")
        parents = [environment.opening for environment in writing]
        values = {name: self.score(utterances, parents, name) for name in self._rewards}
        measured = {name: _probabilities(judge, utterances) for name, judge in self._judges.items()}
        replies = []
        for place, (environment, text) in enumerate(zip(writing, utterances, strict=True)):
            environment.end(
                {WORDS: float(word_count(text)), **{name: found[place] for name, found in measured.items()}}
            )
            earned = {name: found[place] for name, found in values.items()}
            replies.append(Reply(None, earned, ended=True, understood=bool(text.strip())))
        return replies

    def score(self, texts: Sequence[str], parents: Sequence[str | None], reward: str) -> list[float]:
        """What texts would earn at play as comments on `parents`, so that stored transcripts can be scored anew.

        Under `upvotes_real` every text is judged by the model, as at play, whether it was once recorded or not. Equal
        texts earn the same, and one without a word earns the least.

        Raises:
            KeyError: There is no such reward.
            TaskFault: The reward could not be said.
            ValueError: There is not one parent for each text.
        """
        paying = self._reward(reward)
        if len(texts) != len(parents):
            raise ValueError(f"each text must have a parent or None, got {len(parents)} for {len(texts)}")
        said = [place for place, text in enumerate(texts) if text.strip()]
        found = paying.score([texts[place] for place in said], [parents[place] for place in said])
        values = [paying.low] * len(texts)
        for place, value in zip(said, found, strict=True):
            values[place] = value
        return values

    def _reward(self, name: str) -> Reward:
        if name not in self._rewards:
            raise KeyError(unknown(name, "reward of these comments", self._rewards))
        return self._rewards[name]

    def _recording(self, split: str) -> Recording:
        if split not in SPLITS:
            raise KeyError(unknown(split, "split", SPLITS))
        return self._recordings[split]


def _scenes(split: str, recording: Recording, rng: np.random.Generator) -> list[_Scene]:
    """The scenes of a split, shuffled: each parent once, and each comment without one once.

    So agents open as often as the recorded authors did, as far as parents were answered once.
    """
    rows: dict[str, list[int]] = {}
    scenes = []
    for row, parent in enumerate(recording.parents):
        if parent is None:
            scenes.append(_Scene(f"{split}-alone-{row}", None, (row,)))
        else:
            rows.setdefault(parent, []).append(row)
    scenes += [_Scene(f"{split}-{found[0]}", parent, tuple(found)) for parent, found in rows.items()]
    return [scenes[place] for place in rng.permutation(len(scenes))]


def _probabilities(judge: Judge, texts: Sequence[str]) -> list[float]:
    """What a judge says of each text; 0 of one without a word, which no judge ever learnt from."""
    said = iter(judge.probabilities([text for text in texts if text.strip()]))
    return [next(said) if text.strip() else 0.0 for text in texts]


def _opened(parent: str | None) -> tuple[Turn, ...]:
    return () if parent is None else (Turn(parent, by_agent=False),)


def _checked(environment: Environment) -> CommentEnvironment:
    if not isinstance(environment, CommentEnvironment):
        raise TypeError(f"an environment must be one of the comments task, got a {type(environment).__name__}")
    if environment.ended:
        raise ValueError(f"an episode must not be stepped after its end, got one about {environment.scene}")
    return environment
