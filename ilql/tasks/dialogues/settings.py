"""What decides a world of your own dialogues besides the files: hashed, so without paths."""

from __future__ import annotations

import string
from dataclasses import dataclass

from ilql.hyperparameters import AT_LEAST_ONE, NOT_NEGATIVE, Range, check, hyper

LARGEST_REWARD = 1e9
"""No turn is paid more than this, up or down: single precision keeps eight digits, and a learner fewer."""

OPEN_UNIT = Range(0.0, 1.0, open_low=True, open_high=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the lines of a file become dialogues, and how long an episode may be.

    Raises:
        TypeError: A field has another type.
        ValueError: A field is out of range, or two of them contradict each other.
    """

    seed: int = hyper(0, NOT_NEGATIVE, meaning="decides the splits, and the made-up dialogues where no data is given")
    agent_roles: str = hyper("agent,assistant,bot", meaning="roles of the agent's turns, separated by commas")
    world_roles: str = hyper(
        "user,human,world,environment,system", meaning="roles of the world's turns, separated by commas"
    )
    template: str = hyper(
        "", meaning="how a turn's text is written, such as '{role}: {text}'; empty for the text alone"
    )
    max_turns: int = hyper(20, AT_LEAST_ONE, meaning="the agent's utterances after which an episode is over at last")
    train_share: float = hyper(0.8, OPEN_UNIT, meaning="share of the dialogues that are learnt from")
    tune_share: float = hyper(0.1, OPEN_UNIT, meaning="share on which settings are chosen; tables score the rest")
    skip_bad_lines: bool = hyper(False, meaning="whether a line with a problem is skipped instead of refused")
    lowest_reward: float | None = hyper(
        None,
        Range(-LARGEST_REWARD, LARGEST_REWARD),
        meaning="the least that the environment or the reward function pays for one turn",
    )
    highest_reward: float | None = hyper(
        None,
        Range(-LARGEST_REWARD, LARGEST_REWARD),
        meaning="the most that the environment or the reward function pays for one turn",
    )
    made_up_dialogues: int = hyper(60, Range(3.0), meaning="dialogues that are made up where no data is given")

    def __post_init__(self) -> None:
        check(self)
        if self.train_share + self.tune_share >= 1.0:
            raise ValueError(
                "train_share and tune_share must leave a share to report on, "
                f"got {self.train_share:g} and {self.tune_share:g}"
            )
        both = set(self.roles_of_agent) & set(self.roles_of_world)
        if both:
            raise ValueError(f"a role must be the agent's or the world's, got {', '.join(sorted(both))} among both")
        for name in ("agent_roles", "world_roles"):
            if not _words(getattr(self, name)):
                raise ValueError(f"{name} must name at least one role, got {getattr(self, name)!r}")
        _check_template(self.template)
        lowest, highest = self.lowest_reward, self.highest_reward
        if lowest is not None and highest is not None and lowest > highest:
            raise ValueError(f"lowest_reward must not be above highest_reward, got {lowest:g} and {highest:g}")

    @property
    def roles_of_agent(self) -> tuple[str, ...]:
        """The names of `agent_roles`, in lower case."""
        return _words(self.agent_roles)

    @property
    def roles_of_world(self) -> tuple[str, ...]:
        """The names of `world_roles`, in lower case."""
        return _words(self.world_roles)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip().lower() for word in text.split(",") if word.strip())


def _check_template(template: str) -> None:
    if not template:
        return
    try:
        fields = [
            (name, spec, conversion)
            for _, name, spec, conversion in string.Formatter().parse(template)
            if name is not None
        ]
    except ValueError as error:
        raise ValueError(
            f"template must be text with {{text}} and perhaps {{role}}, got {template!r}: {error}"
        ) from None
    names = [name for name, _, _ in fields]
    if names.count("text") != 1 or set(names) - {"text", "role"} or any(spec or sort for _, spec, sort in fields):
        raise ValueError(
            f"template must have {{text}} once and no other fields but {{role}}, got {template!r}; "
            "an example: {role}: {text}"
        )
