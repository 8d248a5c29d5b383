"""What decides a visual-dialogue task besides its source: hashed, so without paths and addresses."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ilql.hyperparameters import check

WORLDS = ("generated", "recorded", "remote")


@dataclass(frozen=True)
class Settings:
    """Which world, and under which rules.

    Attributes:
        world: `generated` (needs no source), `recorded` (the source is a directory or file of human dialogues) or
            `remote` (the source is a file with dialogues and the addresses of servers that answer and guess).
        seed: Decides a generated world, and how the scenes of the other two are split.
        stop_fraction: An episode ends at the first answer that closes this share of the gap between the percentile
            after the caption and 1; in (0, 1].
        penalty: Added to the reward of a question whose answer is a penalised one; not positive.
        free_last_step: Whether the last question costs nothing even if the episode ends only because the turns are
            used up, as published.
        train_scenes: Scenes of the generated world's training split, at least 2; the other worlds take what they find.
        tune_scenes: The same for the split on which settings are chosen.
        report_scenes: The same for the split that tables score.
        dialogues_per_scene: Recorded dialogues about each scene of the generated world, at least 1.
        remote_pool: How many scenes a remote guesser ranks, the true one included, at least 2; only turns a remote
            percentile into a rank, never decides a reward.

    Raises:
        TypeError: A field has another type.
        ValueError: A field is outside its range.
    """

    world: str = "generated"
    seed: int = 0
    stop_fraction: float = 0.5
    penalty: float = -2.0
    free_last_step: bool = True
    train_scenes: int = 3000
    tune_scenes: int = 1000
    report_scenes: int = 1000
    dialogues_per_scene: int = 2
    remote_pool: int = 40_000

    def __post_init__(self) -> None:
        check(self)
        if self.world not in WORLDS:
            raise ValueError(f"world must be one of {', '.join(WORLDS)}, got {self.world!r}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not 0.0 < self.stop_fraction <= 1.0:
            raise ValueError(f"stop_fraction must be in (0, 1], got {self.stop_fraction}")
        if not (math.isfinite(self.penalty) and self.penalty <= 0.0):
            raise ValueError(f"penalty must be finite and not positive, got {self.penalty}")
        for name, least in (
            ("train_scenes", 2),
            ("tune_scenes", 2),
            ("report_scenes", 2),
            ("dialogues_per_scene", 1),
            ("remote_pool", 2),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
