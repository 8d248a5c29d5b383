"""What a visual-dialogue world is made of: scenes, recorded dialogues, somebody who answers and somebody who guesses.

The agent reads a caption and asks questions about a scene that it cannot see. An *answerer* sees the scene and answers;
a *guesser* reads caption and exchanges and ranks every scene of a pool by how well it fits. Three worlds stand behind
these two protocols, a generated, a recorded and a remote one; `rules` and `environment` make rewards and episodes from
them, the same way for all three.

Each world is a module with three functions, which `ilql.tasks.visdial` dispatches to:

- `source_digest(settings, source) -> str`: a digest of what the source holds, `""` where the world needs none;
- `build(settings, source, folder) -> list[str]`: writes the folder (JSON lines by `recordings`, arrays as npz), returns
  notes for the user; raises ValueError in one line on bad input;
- `load(settings, folder) -> VisdialWorld`: reads that folder and nothing else, in about two seconds at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ilql.task import SPLITS


@dataclass(frozen=True)
class Exchange:
    """One question, with its question mark, and the answer it got."""

    question: str
    answer: str


@dataclass(frozen=True)
class Scene:
    """Something to ask about: its name, unique in its world, and the caption that opens every dialogue about it."""

    id: str
    caption: str


@dataclass(frozen=True)
class Answer:
    """What the answerer said, and whether the question was one it could make sense of."""

    text: str
    understood: bool


@dataclass(frozen=True)
class RecordedDialogue:
    """A dialogue as somebody had it, uncut, with the guesser's progress beside it.

    Attributes:
        scene_id: The scene it is about.
        exchanges: Question and answer, in order; at least one.
        percentiles: The guesser's percentile of the true scene after the caption alone and after each exchange, so one
            more than there are exchanges; each in [0, 1].

    Raises:
        ValueError: There is no exchange, or the percentiles are not one more, or one lies outside [0, 1].
    """

    scene_id: str
    exchanges: tuple[Exchange, ...]
    percentiles: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.exchanges:
            raise ValueError(f"a recorded dialogue must have at least one exchange, got none about {self.scene_id!r}")
        if len(self.percentiles) != len(self.exchanges) + 1:
            raise ValueError(
                f"a dialogue of {len(self.exchanges)} exchanges must have {len(self.exchanges) + 1} percentiles, "
                f"got {len(self.percentiles)}"
            )
        outside = [p for p in self.percentiles if not 0.0 <= p <= 1.0]
        if outside:
            raise ValueError(f"percentiles must be in [0, 1], got {outside[0]}")


class Answerer(Protocol):
    """Sees the scenes and answers questions about them."""

    def answer(
        self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]], questions: Sequence[str]
    ) -> list[Answer]:
        """One answer for each row; equal rows get equal answers, whatever stands in the other rows.

        Args:
            scene_ids: The scene of each row.
            histories: What was said before, without the caption, oldest first.
            questions: The new question: stripped, not empty, ending in "?"; otherwise as the agent made it.

        Raises:
            TaskFault: The answerer failed (only one that lives outside of this process can).
        """
        ...

    @property
    def nothing_fits(self) -> str:
        """What is answered where a question makes no sense, and to an empty one."""
        ...


class Guesser(Protocol):
    """Reads caption and exchanges and ranks the pool's scenes by how well they fit."""

    @property
    def pool(self) -> int:
        """How many scenes are ranked, the true one counted once (8.B28: it is not among its own distractors)."""
        ...

    def ranks(self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]]) -> npt.NDArray[np.float64]:
        """The rank of the true scene in each row, in [1, pool], shape (rows,); 1 is best.

        Tie rule: 1 + the number of distractors that fit strictly better + half the number of those that fit equally
        well, which is the mean rank over all orders of the tied ones. So no order of the pool can help or harm.
        Equal rows get equal ranks, whatever stands in the other rows.

        Args:
            scene_ids: The true scene of each row.
            histories: The exchanges so far, without the caption; empty where only the caption is known.

        Raises:
            TaskFault: The guesser failed (only one that lives outside of this process can).
        """
        ...


def percentiles(
    guesser: Guesser, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]]
) -> npt.NDArray[np.float64]:
    """Progress p = 1 - rank / (pool + 1) of each row, shape (rows,), in (0, 1), as the paper's server counts it."""
    ranks = guesser.ranks(scene_ids, histories)
    progress: npt.NDArray[np.float64] = 1.0 - ranks / (guesser.pool + 1)
    return progress


@dataclass(frozen=True)
class VisdialSplit:
    """The part of a world that one split sees.

    Attributes:
        scenes: Its scenes, at least one; no other split has any of them.
        recorded: The recorded dialogues about them.
        answerer: Answers about these scenes.
        guesser: Ranks these scenes; `guesser.pool` is their number, except in the remote world.

    Raises:
        ValueError: There is no scene, two share an id, or a dialogue is about a scene of elsewhere.
    """

    scenes: tuple[Scene, ...]
    recorded: tuple[RecordedDialogue, ...]
    answerer: Answerer
    guesser: Guesser

    def __post_init__(self) -> None:
        known = {scene.id for scene in self.scenes}
        if not known or len(known) != len(self.scenes):
            raise ValueError(
                f"a split must have scenes with distinct ids, got {len(self.scenes)} scenes with {len(known)} ids"
            )
        strangers = [dialogue.scene_id for dialogue in self.recorded if dialogue.scene_id not in known]
        if strangers:
            raise ValueError(f"a recorded dialogue must be about a scene of its own split, got {strangers[0]!r}")


@dataclass(frozen=True)
class VisdialWorld:
    """A whole world, loaded.

    Attributes:
        splits: One part for each of `ilql.task.SPLITS`.

    Raises:
        ValueError: A split is missing or unknown, or a scene stands in two splits.
    """

    splits: Mapping[str, VisdialSplit]

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"a world must have the splits {', '.join(SPLITS)}, got {', '.join(self.splits)}")
        ids = [scene.id for part in self.splits.values() for scene in part.scenes]
        if len(set(ids)) != len(ids):
            raise ValueError(f"no scene may stand in two splits, got {len(ids) - len(set(ids))} that do")
