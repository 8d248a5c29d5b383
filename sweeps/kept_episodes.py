"""Episodes of evaluations that are under way, kept so that an interruption loses none that has ended.

An episode is the same, to the bit on a CPU, whatever is played beside it. So those that have ended are noted every few
seconds, and whoever goes on plays the others alone; the scores are the same. They count for the same program and
libraries, on the same sort of device, and lie in the scratch folder of their training, in journals: what was torn or
changed in them is not read, and played again. When the evaluations are recorded they go, also those that failed.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch

from ilql.dialogue import Dialogue, Turn
from ilql.evaluate import Episode, EpisodeId
from sweeps.exact_json import Record, dumps
from sweeps.provenance import code_digest, library_versions
from sweeps.records import Records
from sweeps.spec import TrialSpec
from sweeps.store import Store

NOTED_SECONDS = 10.0
"""How often episodes that have ended are noted: short evaluations never do, and an interruption loses no more."""

FOLDER = "episodes"
"""In a trajectory's scratch folder."""

_KIND = "episode"


class KeptEpisodes:
    """What was played before of some trials, and what is being played of them now.

    As a context it notes what has ended when the block is left by an error, a request to stop among it.

    Args:
        store: Where.
        specs: The trials, of one training and one evaluation: players by their place, seeds by theirs.
        device: Where the networks run.

    Attributes:
        played: The episodes that were played before.
        seconds: What that took, of each trial.
    """

    def __init__(self, store: Store, specs: Sequence[TrialSpec], device: torch.device) -> None:
        self._folder = store.scratch_path("trajectory", specs[0].trajectory_id) / FOLDER
        self._seeds = specs[0].evaluation.seeds
        made_with = dumps([code_digest(), library_versions(), device.type])
        self._made_with = hashlib.sha256(made_with.encode()).hexdigest()[:12]
        self._records = Records(self._folder, durable=False)
        self._trials = [spec.trial_id for spec in specs]
        self.played: dict[EpisodeId, Episode] = {}
        self.seconds = [0.0] * len(specs)
        self._ended: dict[EpisodeId, Episode] = {}
        self._began = self._noted = time.monotonic()
        self._read()

    def end(self, which: EpisodeId, episode: Episode) -> None:
        """An episode has ended."""
        if _is_plain(episode):
            self._ended[which] = episode

    def note(self, *, now: bool = False) -> None:
        """Note those that have ended, if that is due.

        Raises:
            StoreError: The disk did not take them.
        """
        if not self._ended or not (now or time.monotonic() - self._noted >= NOTED_SECONDS):
            return
        share = (time.monotonic() - self._began) / len(self._trials)
        values = {
            self._key(which): {"seconds": self.seconds[which[0]] + share, **_value(episode)}
            for which, episode in self._ended.items()
        }
        self._records.put(_KIND, values)
        self._ended.clear()
        self._noted = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Exception):  # else they are recorded next
                self.note(now=True)
        finally:
            self._records.close()

    def drop(self) -> None:
        """All of it is recorded, or of no use."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        known = self._records.all(_KIND)
        for player in range(len(self._trials)):
            for place, seed in enumerate(self._seeds):
                value = known.get(self._key((player, place)))
                if value is None:
                    continue
                with contextlib.suppress(KeyError, TypeError, ValueError):  # whole, and none of ours: played again
                    self.played[player, place] = _episode(seed, value)
                    self.seconds[player] = max(self.seconds[player], float(value["seconds"]))

    def _key(self, which: EpisodeId) -> str:
        player, place = which
        return f"{self._trials[player]}/{self._seeds[place]}/{self._made_with}"


def _is_plain(episode: Episode) -> bool:
    """True if it comes back as it was: NumPy's numbers become Python's, and a column of both would be another one."""
    numbers = (*episode.returns.values(), *episode.measures.values(), episode.log_ratio)
    return all(isinstance(number, int | float) for number in numbers)


def _value(episode: Episode) -> Record:
    return {
        "scene": episode.scene,
        "returns": list(episode.returns.items()),  # as pairs: a name may be what no key of a record may be
        "turns": episode.turns,
        "said": [[turn.by_agent, turn.text] for turn in episode.transcript.turns],
        "log_ratio": episode.log_ratio,
        "empty": episode.empty,
        "repeated": episode.repeated,
        "broken": episode.broken,
        "measures": list(episode.measures.items()),
    }


def _episode(seed: int, value: Record) -> Episode:
    return Episode(
        seed=seed,
        scene=value["scene"],
        returns=dict(value["returns"]),
        turns=value["turns"],
        transcript=Dialogue(tuple(Turn(text, by_agent=by_agent) for by_agent, text in value["said"]), ended=True),
        log_ratio=value["log_ratio"],
        empty=value["empty"],
        repeated=value["repeated"],
        broken=value["broken"],
        measures=dict(value["measures"]),
    )
