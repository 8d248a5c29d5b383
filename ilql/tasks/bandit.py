"""A two-armed bandit, one token long: a world whose answers are known.

The agent says `a` or `b`; `b` pays 1 and `a` pays 0. The recorded data holds both equally often. Then Q of the good arm
is 1 and of the bad arm 0; V, the τ-expectile of a fair coin's 0 and 1, is τ (from τ(1 − V)/2 = (1 − τ)V/2); and the
tilted policy ½·exp(βQ) takes the good arm with probability 1/(1 + exp(−β)). Every layer is tested against this
arithmetic.

So that an utterance is exactly one action, the world opens with a word and each arm is one letter; the end token after
it is an action, too, and pays the utterance's reward. With γ = 1 the letter's Q is that reward.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ilql.dialogue import Dialogue, Turn
from ilql.hyperparameters import AT_LEAST_ONE, check, hyper
from ilql.task import SPLITS, Environment, Reply, TaskKind

ARMS = {"a": 0.0, "b": 1.0}
REWARD = "standard"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides a bandit."""

    dialogues: int = hyper(64, AT_LEAST_ONE, meaning="recorded pulls of a split, half of them of each arm")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Pull:
    """One episode: nothing is hidden, so nothing is random."""

    seed: int
    opening: str | None = "pull"

    @property
    def scene(self) -> str:
        """Every pull is alike; the seed names it."""
        return f"pull-{self.seed}"

    def measures(self) -> Mapping[str, float]:
        """None."""
        return {}


@dataclass(frozen=True)
class Bandit:
    """The task."""

    settings: Settings
    name: str = "bandit"
    rewards: tuple[str, ...] = (REWARD,)
    max_turns: int = 1
    playable: bool = True

    def score_range(self, reward: str) -> tuple[float, float]:
        """From the bad arm to the good one."""
        return (0.0, 1.0)

    def dialogues(self, split: str, reward: str) -> tuple[Dialogue, ...]:
        """Pulls of `a` and `b` in turn."""
        if split not in SPLITS or reward != REWARD:
            raise ValueError(f"a bandit has splits {SPLITS} and the reward {REWARD!r}, got {split!r} and {reward!r}")
        return tuple(
            Dialogue((Turn("pull", by_agent=False), Turn(arm, by_agent=True, reward=ARMS[arm])), ended=True)
            for arm in ("ab"[i % 2] for i in range(self.settings.dialogues))
        )

    def environment(self, seed: int, split: str) -> Environment:
        """One pull."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        return Pull(seed)

    def references(self, split: str, reward: str, seeds: Sequence[int]) -> Mapping[str, Sequence[float]]:
        """None: what every player gets is arithmetic."""
        return {}

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        """Pay the arm; anything that is no arm pays what the bad one does."""
        assert len(environments) == len(utterances)
        return [
            Reply(None, {REWARD: ARMS.get(said.strip(), 0.0)}, ended=True, understood=said.strip() in ARMS)
            for said in utterances
        ]


def source_digest(settings: Settings, sources: Mapping[str, str]) -> str:
    """Empty: the settings decide everything.

    Raises:
        ValueError: A source was named.
    """
    if sources:
        raise ValueError(f"a bandit reads no data, got {', '.join(sources.values())}")
    return ""


def build(settings: Settings, sources: Mapping[str, str], folder: Path) -> list[str]:
    """Write the settings; there is nothing else."""
    source_digest(settings, sources)
    (folder / "settings.json").write_text(json.dumps(dataclasses.asdict(settings)), encoding="utf-8")
    return []


def load(folder: Path) -> Bandit:
    """The bandit of a folder."""
    return Bandit(Settings(**json.loads((folder / "settings.json").read_text(encoding="utf-8"))))


KIND = TaskKind(
    name="bandit",
    version=1,
    settings=Settings,
    source_digest=source_digest,
    build=build,
    load=load,
    example=Settings(dialogues=16),
)
