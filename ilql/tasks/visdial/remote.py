"""The remote world: servers answer and guess, so that the paper's own answerer and guesser can be used.

The source is one JSON file:

    {"servers": ["http://127.0.0.1:5000", ...],
     "dialogues": [{"caption": "...", "dialog": [{"question": "...", "answer": "..."}, ...],
                    "id": "...", "img_features": [...], "percentiles": [...]}, ...]}

`id`, `img_features` and `percentiles` are optional. Dialogues of one `id` are about one scene; without it each has a
scene of its own. Image features go to the servers as they stand here, so normalise them as the servers expect
(the released ones want rows of Euclidean length 1). `percentiles` are those after the caption and after each answer;
where they are missing the servers are asked while building. Scenes are shuffled by the seed and split 60 : 20 : 20.

The digest of the source leaves the servers out: where the same world is served decides no number. A folder remembers
the addresses it was built with; the variable `ILQL_VISDIAL_SERVERS` (addresses between commas) overrides them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ilql.files import FILE, is_writable, kind_of, parse_json, user_path
from ilql.task import SPLITS, TaskFault
from ilql.tasks.visdial.protocols import Answer, Exchange, RecordedDialogue, Scene, VisdialSplit, VisdialWorld
from ilql.tasks.visdial.recordings import read_recordings, write_recordings
from ilql.tasks.visdial.remote_client import Servers
from ilql.tasks.visdial.settings import Settings

SERVERS_VARIABLE = "ILQL_VISDIAL_SERVERS"
REMEMBERED_PERCENTILES = 1 << 15
NOTHING_FITS = "i don't know"
SHARES = {"train": 0.6, "tune": 0.2, "report": 0.2}

Features = Mapping[str, tuple[float, ...]]
"""Image features by scene; empty where there are none."""


@dataclass(frozen=True)
class RemoteSource:
    """What a source file says; percentiles are None where the servers must be asked."""

    servers: tuple[str, ...]
    scenes: tuple[Scene, ...]
    features: Features
    dialogues: tuple[tuple[str, tuple[Exchange, ...], tuple[float, ...] | None], ...]


class RemoteWorld:
    """Answerer and guesser in one, since the servers answer and place the scene in one reply.

    The guesser's percentile of a history is the one after the caption plus the progress of each answer. A bounded
    number of them is remembered; one that was forgotten is asked for again.
    """

    def __init__(self, servers: Servers, scenes: Sequence[Scene], features: Features, *, pool: int) -> None:
        self._servers = servers
        self._captions = {scene.id: scene.caption for scene in scenes}
        self._features = features
        self._pool = pool
        self._remembered: OrderedDict[tuple[str, tuple[Exchange, ...]], float] = OrderedDict()
        self._checked = False

    @property
    def nothing_fits(self) -> str:
        """What an empty question is answered; the servers are not asked."""
        return NOTHING_FITS

    @property
    def pool(self) -> int:
        """How many scenes the servers rank, as the settings say."""
        return self._pool

    def answer(
        self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]], questions: Sequence[str]
    ) -> list[Answer]:
        """See `Answerer`. The servers never say that they did not understand.

        Raises:
            TaskFault: The servers failed.
        """
        self._check_once(scene_ids)
        before = self.percentiles(scene_ids, histories)
        requests = [
            self._request(scene_id, history, question)
            for scene_id, history, question in zip(scene_ids, histories, questions, strict=True)
        ]
        answers = []
        for scene_id, history, question, percentile, (text, step) in zip(
            scene_ids, histories, questions, before, self._servers.answers(requests), strict=True
        ):
            self._remember(scene_id, (*history, Exchange(question, text)), percentile + step)
            answers.append(Answer(text, understood=True))
        return answers

    def ranks(self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]]) -> npt.NDArray[np.float64]:
        """See `Guesser`; a rank is what the percentile makes of the pool, not always whole.

        Raises:
            TaskFault: The servers failed.
        """
        ranks: npt.NDArray[np.float64] = (1.0 - np.array(self.percentiles(scene_ids, histories))) * (self._pool + 1)
        return ranks

    def percentiles(self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]]) -> list[float]:
        """The servers' percentile of each row, in [0, 1].

        Raises:
            TaskFault: The servers failed, or their steps lead out of [0, 1].
        """
        self._check_once(scene_ids)
        wanted = [
            (scene_id, tuple(history[:length]))
            for scene_id, history in zip(scene_ids, histories, strict=True)
            for length in range(len(history) + 1)
        ]
        known = {key: self._remembered[key] for key in wanted if key in self._remembered}
        missing = [key for key in dict.fromkeys(wanted) if key not in known]
        steps = self._servers.percentile_steps([self._request(*key) for key in missing])
        for (scene_id, history), step in zip(missing, steps, strict=True):  # shorter histories stand first
            total = step + (known[scene_id, history[:-1]] if history else 0.0)
            known[scene_id, history] = self._remember(scene_id, history, total)
        return [known[scene_id, tuple(history)] for scene_id, history in zip(scene_ids, histories, strict=True)]

    def check(self, scene_id: str) -> list[str]:
        """Ask every server after the caption of this scene; one line for each that failed.

        Raises:
            TaskFault: None is well.
        """
        self._checked = True
        return self._servers.check(self._request(scene_id, ()))

    def _check_once(self, scene_ids: Sequence[str]) -> None:
        """Before the first request of a process, find out who is well, so that each wedged server costs one wait."""
        if scene_ids and not self._checked:
            self.check(scene_ids[0])

    def _remember(self, scene_id: str, history: tuple[Exchange, ...], percentile: float) -> float:
        if not -1e-6 <= percentile <= 1.0 + 1e-6:
            raise TaskFault(f"a server's steps must lead to a percentile in [0, 1], got {percentile} for {scene_id!r}")
        clipped = min(max(percentile, 0.0), 1.0)
        self._remembered[scene_id, history] = clipped
        while len(self._remembered) > REMEMBERED_PERCENTILES:
            self._remembered.popitem(last=False)
        return clipped

    def _request(self, scene_id: str, history: Sequence[Exchange], question: str | None = None) -> dict[str, str]:
        """The form's fields; with a question it is one for `/step_rank`, else for `/fetch_reward_rank`."""
        said = []
        for exchange in history:
            said.append({"speaker": "question", "text": exchange.question})
            said.append({"speaker": "answer", "text": exchange.answer})
        form = {
            "caption": self._captions[scene_id],
            "img_features": json.dumps(self._features.get(scene_id, ())),
        }
        if question is None:
            return {"history": json.dumps(said), **form}
        said.append({"speaker": "question", "text": question})
        kwargs = json.dumps({"inference": "greedy", "beamSize": 1})
        return {"history": json.dumps(said), **form, "generation_kwargs": kwargs}


def read_source(source: str | None) -> RemoteSource:
    """What the source file says.

    Raises:
        ValueError: It cannot be read or is not what this module's docstring says; one line that names the place.
    """
    if source is None:
        raise ValueError("the remote world must have a source file with servers and dialogues, got none")
    content = _content(source)
    servers = content.get("servers", [])
    if not isinstance(servers, list) or not all(isinstance(address, str) for address in servers):
        raise ValueError(f"{source}: 'servers' must be a list of addresses, got {servers!r}")
    scenes: dict[str, Scene] = {}
    features: dict[str, tuple[float, ...]] = {}
    dialogues = []
    for number, row in enumerate(content["dialogues"]):
        try:
            scene = Scene(id=str(row.get("id", number)), caption=str(row["caption"]))
            exchanges = tuple(Exchange(str(said["question"]), str(said["answer"])) for said in row["dialog"])
            percentiles = None if row.get("percentiles") is None else tuple(map(float, row["percentiles"]))
            shown = tuple(map(float, row.get("img_features", ())))
            checked = RecordedDialogue(scene.id, exchanges, percentiles or (0.0,) * (len(exchanges) + 1))
            _check_plain(scene, exchanges, shown)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as fault:
            raise ValueError(f"{source}: dialogue {number} cannot be read: {type(fault).__name__} {fault}") from fault
        if scenes.setdefault(scene.id, scene) != scene or features.setdefault(scene.id, shown) != shown:
            raise ValueError(f"{source}: dialogue {number} gives scene {scene.id!r} another caption or other features")
        dialogues.append((scene.id, checked.exchanges, percentiles))
    if len(scenes) < len(SPLITS):
        raise ValueError(f"{source} must have at least {len(SPLITS)} scenes, one for each split, got {len(scenes)}")
    return RemoteSource(tuple(servers), tuple(scenes.values()), features, tuple(dialogues))


def _content(source: str) -> Mapping[str, Any]:
    """The file's object, whose `dialogues` are a list.

    Raises:
        ValueError: It is none.
    """
    path = user_path(source)
    if (kind := kind_of(path)) != FILE:
        raise ValueError(f"{source} must be a readable JSON file, got {kind}")
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ValueError(f"{source} must be a readable JSON file: {fault}") from fault
    if not isinstance(content, dict) or not isinstance(content.get("dialogues"), list):
        raise ValueError(f"{source} must be an object with 'servers' and 'dialogues', got a {type(content).__name__}")
    return content


def _check_plain(scene: Scene, exchanges: Sequence[Exchange], features: Sequence[float]) -> None:
    """Refuse texts that no file can hold, and features that are no numbers.

    Raises:
        ValueError: There is one.
    """
    for text in (scene.id, scene.caption, *(part for said in exchanges for part in (said.question, said.answer))):
        if not is_writable(text):
            raise ValueError(f"a text must be whole, got half of a surrogate pair in {ascii(text)[:40]}")
    if not all(map(math.isfinite, features)):
        raise ValueError("img_features must be finite numbers")


def source_digest(settings: Settings, source: str | None) -> str:
    """SHA-256 of the scenes and dialogues, the servers left out.

    Raises:
        ValueError: The source cannot be read.
    """
    del settings
    content = read_source(source)
    rows = [
        [[scene.id, scene.caption, content.features[scene.id]] for scene in content.scenes],
        [
            [scene_id, [[said.question, said.answer] for said in exchanges], percentiles]
            for scene_id, exchanges, percentiles in content.dialogues
        ],
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def build(settings: Settings, source: str | None, folder: Path) -> list[str]:
    """Write scenes, dialogues, features and the servers' addresses; ask the servers for percentiles that are missing.

    Raises:
        ValueError: The source cannot be read, or the servers fail while they are needed.
    """
    content = read_source(source)
    try:
        servers = Servers(_addresses(content.servers))
    except ValueError as fault:
        raise ValueError(f"{SERVERS_VARIABLE if SERVERS_VARIABLE in os.environ else source}: {fault}") from None
    world = RemoteWorld(servers, content.scenes, content.features, pool=settings.remote_pool)
    try:
        notes = [f"a server is not well and rests: {line}" for line in world.check(content.scenes[0].id)]
        recorded = []
        for scene_id, exchanges, percentiles in content.dialogues:
            prefixes = [exchanges[:length] for length in range(len(exchanges) + 1)]
            progress = percentiles or tuple(world.percentiles([scene_id] * len(prefixes), prefixes))
            recorded.append(RecordedDialogue(scene_id, exchanges, progress))
    except TaskFault as fault:
        raise ValueError(str(fault)) from fault
    asked = sum(percentiles is None for _, _, percentiles in content.dialogues)
    for split, scenes in _split(content.scenes, settings.seed).items():
        ids = {scene.id for scene in scenes}
        write_recordings(folder, split, scenes, [dialogue for dialogue in recorded if dialogue.scene_id in ids])
    (folder / "features.json").write_text(json.dumps(content.features), encoding="utf-8")
    (folder / "servers.json").write_text(json.dumps(content.servers), encoding="utf-8")
    return [*notes, f"{len(recorded)} dialogues; the servers were asked for the percentiles of {asked} of them"]


def load(settings: Settings, folder: Path) -> VisdialWorld:
    """The world that `build` wrote; the servers are first asked when they are needed.

    Raises:
        ValueError: There is no server's address, or one is none.
    """
    servers = Servers(_addresses(json.loads((folder / "servers.json").read_text(encoding="utf-8"))))
    rows = json.loads((folder / "features.json").read_text(encoding="utf-8"))
    features = {scene_id: tuple(values) for scene_id, values in rows.items()}
    splits = {}
    for split in SPLITS:
        scenes, recorded = read_recordings(folder, split)
        world = RemoteWorld(servers, scenes, features, pool=settings.remote_pool)
        splits[split] = VisdialSplit(scenes, recorded, answerer=world, guesser=world)
    return VisdialWorld(splits)


def _addresses(stored: Sequence[str]) -> list[str]:
    override = os.environ.get(SERVERS_VARIABLE, "")
    return [address.strip() for address in override.split(",") if address.strip()] or list(stored)


def _split(scenes: Sequence[Scene], seed: int) -> dict[str, list[Scene]]:
    """The scenes shuffled and dealt out by `SHARES`; every split gets at least one."""
    order = np.random.default_rng(seed).permutation(len(scenes))
    tune, report = (max(1, round(SHARES[split] * len(scenes))) for split in ("tune", "report"))
    cuts = {"tune": order[:tune], "report": order[tune : tune + report], "train": order[tune + report :]}
    return {split: [scenes[int(index)] for index in cuts[split]] for split in SPLITS}
