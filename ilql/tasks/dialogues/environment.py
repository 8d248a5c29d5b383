"""Episodes: a user's environment behind ours, or, where there is none, the beginning of a held-out dialogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ilql.task import Reply, TaskFault
from ilql.tasks.dialogues.functions import told
from ilql.tasks.dialogues.payment import RewardFunction, Said, paid
from ilql.tasks.dialogues.schema import CUSTOM, shorten
from ilql.tasks.dialogues.template import unwrap, wrap


class ReplayedEpisode:
    """The beginning of a recorded dialogue and one utterance of the agent: nobody is there to answer it.

    It exists so that samples can be drawn and read. The 0 it pays under every reward is no score.
    """

    def __init__(self, opening: str | None, scene: str, rewards: tuple[str, ...]) -> None:
        self._opening, self._scene, self._rewards = opening, scene, rewards
        self.ended = False

    @property
    def opening(self) -> str | None:
        """What was said before the agent's first turn."""
        return self._opening

    @property
    def scene(self) -> str:
        """The dialogue's id, or its line."""
        return self._scene

    def measures(self) -> Mapping[str, float]:
        """None: nothing happens that could be measured."""
        return {}

    def say(self, text: str) -> Reply:
        """The end, and a 0 that is no score."""
        self.ended = True
        return Reply(None, dict.fromkeys(self._rewards, 0.0), ended=True, understood=bool(text.strip()))


@dataclass(frozen=True)
class Rules:
    """How a user's environment is played.

    Attributes:
        factory: The user's `factory(seed, split)`.
        bounds: The range of a turn's reward, by the name of every reward that the environment pays.
        reward: The user's reward function, or None.
        max_turns: The agent's utterances after which the episode is over at last.
        template: How texts are written for the policy; the environment gets and gives the words alone.
        agent_role: The role of the agent's turns as the policy learnt them.
        agent_roles: All roles under which the policy may write.
        world_role: The role of the world's turns.
    """

    factory: Callable[..., Any]
    bounds: Mapping[str, tuple[float, float]]
    reward: RewardFunction | None
    max_turns: int
    template: str
    agent_role: str
    agent_roles: tuple[str, ...]
    world_role: str


@dataclass
class _Progress:
    """What has happened in an episode: who said what, and the custom reward paid so far."""

    said: list[Said] = field(default_factory=list)
    agent_turns: list[int] = field(default_factory=list)
    custom: float = 0.0


class LiveEpisode:
    """One episode in a user's environment.

    Raises:
        TaskFault: The factory or `reset` raised something or gave what it must not.
    """

    def __init__(self, rules: Rules, seed: int, split: str) -> None:
        self._rules, self._scene = rules, f"{split}-{seed}"
        self._so_far = _Progress()
        self.ended = False
        self._world = _call(lambda: rules.factory(seed, split), "the factory")
        for name in ("reset", "step"):
            if not callable(getattr(self._world, name, None)):
                kind = type(self._world).__name__
                raise TaskFault(
                    f"the factory must give an object with reset() and step(text), got {kind} without {name}"
                )
        self._opening = self._hear(_call(self._world.reset, "reset"), "reset must give what the world says first")

    @property
    def opening(self) -> str | None:
        """What `reset` gave, in the template."""
        return self._opening

    @property
    def scene(self) -> str:
        """The split and the seed: what an environment draws from them is its own affair."""
        return self._scene

    def measures(self) -> Mapping[str, float]:
        """None: what an environment wants to measure it pays as a reward."""
        return {}

    def say(self, text: str) -> Reply:
        """One utterance, and what the environment makes of it.

        The reward function sees the dialogue with the answer. It is paid so that the sum over the episode is always the
        sum over all of the agent's turns in the dialogue so far: one that looks ahead, which recorded dialogues let it
        do, gets its due when the turn it looked for has come.

        Raises:
            TaskFault: The environment or the reward function raised something or gave what it must not.
        """
        rules, so_far = self._rules, self._so_far
        words = unwrap(rules.template, rules.agent_roles, text)
        bare = text if words is None else words
        result = _call(lambda: self._world.step(bare), "step")
        if not isinstance(result, tuple) or len(result) != 3:
            raise TaskFault(f"step must give (reply, reward, ended), got {_shown(result)}")
        reply, reward, ended = result
        if not isinstance(ended, bool | np.bool_):
            raise TaskFault(f"step must say by True or False whether the episode has ended, got {_shown(ended)}")
        try:
            rewards = paid(reward, rules.bounds)
        except ValueError as error:
            raise TaskFault(str(error)) from None
        so_far.agent_turns.append(len(so_far.said))
        so_far.said.append((rules.agent_role, bare))
        answer = self._hear(reply, "step must reply with what the world says")
        if rules.reward is not None:
            total = self._custom(rules.reward)
            rewards[CUSTOM] = total - so_far.custom
            so_far.custom = total
        self.ended = bool(ended) or len(so_far.agent_turns) >= rules.max_turns
        return Reply(answer, rewards, ended=self.ended, understood=words is not None and bool(bare.strip()))

    def _custom(self, reward: RewardFunction) -> float:
        try:
            return math.fsum(reward.pay(self._so_far.said, turn, self._scene) for turn in self._so_far.agent_turns)
        except ValueError as error:
            raise TaskFault(str(error)) from None

    def _hear(self, text: object, rule: str) -> str | None:
        """Note what the world says and give it as the policy reads it; nothing said is None."""
        if text is not None and not isinstance(text, str):
            raise TaskFault(f"{rule}, a string or None, got {_shown(text)}")
        if text is None or not text.strip():
            return None
        self._so_far.said.append((self._rules.world_role, text))
        return wrap(self._rules.template, self._rules.world_role, text)


def _call(what: Callable[[], Any], name: str) -> Any:
    """Whatever a user's code raises is the world's fault, and one line."""
    try:
        return what()
    except TaskFault:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever a user's code raises
        raise TaskFault(f"the environment failed: {name} {told(error)}") from None


def _shown(value: object) -> str:
    return f"{type(value).__name__} {shorten(' '.join(repr(value).split()))}"
