"""The generated world: needs no files, is decided by its seed, and its truth is known.

An imperfect guesser makes talking worthwhile: every scene of the pool has a fixed first impression, drawn from a
logistic distribution of scale 1, and gains `FACT_WEIGHT` for each thing said that is the case in it. The tails of that
distribution are exponential, so a fact that few others share divides the number of rivals by the same factor wherever
the true scene stands.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ilql.task import SPLITS
from ilql.tasks.visdial.generated_language import (
    CANNOT_TELL,
    NOTHING_FITS,
    Asked,
    Statement,
    read_answer,
    read_caption,
    read_question,
)
from ilql.tasks.visdial.generated_questioners import QUESTIONERS, STEADINESS, Knowledge, Questioner, next_question
from ilql.tasks.visdial.generated_scenes import Fact, GeneratedScene, draw_scene
from ilql.tasks.visdial.generated_words import NOUNS, NUMBERS, TOPICS
from ilql.tasks.visdial.protocols import (
    Answer,
    Exchange,
    RecordedDialogue,
    Scene,
    VisdialSplit,
    VisdialWorld,
    percentiles,
)
from ilql.tasks.visdial.recordings import read_recordings, write_recordings
from ilql.tasks.visdial.rules import MAX_QUESTIONS, REWARDS, exchanges_until_stop, is_penalised, to_dialogue
from ilql.tasks.visdial.settings import Settings

FACT_WEIGHT = 0.23
"""What a scene gains in the guesser's eyes for each thing said that is the case in it. Calibrated once: the recorded
dialogues then score within 1.0 of the paper's behaviour cloning under all three rewards (docs/log.md)."""


class GeneratedAnswerer:
    """Answers from the facts, now and then unsure or chatty; what it says depends on scene and meaning alone."""

    def __init__(self, scenes: Sequence[GeneratedScene]) -> None:
        self._scenes = {scene.id: scene for scene in scenes}

    def scene(self, scene_id: str) -> GeneratedScene:
        """The whole truth about a scene, for measuring."""
        return self._scenes[scene_id]

    @property
    def nothing_fits(self) -> str:
        """What is answered to a question that makes no sense."""
        return NOTHING_FITS

    def answer(
        self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]], questions: Sequence[str]
    ) -> list[Answer]:
        """See `Answerer`; the histories play no part."""
        answers = []
        for scene_id, _, question in zip(scene_ids, histories, questions, strict=True):
            asked = read_question(question)
            text = None if asked is None else answer_text(self._scenes[scene_id], asked)
            answers.append(Answer(NOTHING_FITS, False) if text is None else Answer(text, True))
        return answers


def answer_text(scene: GeneratedScene, asked: Asked) -> str | None:
    """What is answered, or None where the topic makes no sense for the thing."""
    whim = _whim(f"{scene.id}|{asked.topic}|{asked.noun}|{asked.value}")
    if asked.topic == "object":
        return _existence(scene, asked.noun, whim)
    if asked.noun and asked.topic not in TOPICS[NOUNS[asked.noun].family]:
        return None
    if asked.noun and ("object", asked.noun) not in scene.values:
        return "none" if asked.topic == "count" and not asked.is_check else f"there is no {asked.noun}"
    truth = scene.values.get((asked.topic, asked.noun))
    if truth is None or whim < 0.06:
        return CANNOT_TELL
    if asked.is_check:
        if truth == asked.value:
            return "i think so" if whim < 0.22 else "yes it is" if whim < 0.4 else "yes"
        if asked.topic in ("where", "place"):
            return "no"
        return "i don't think so" if whim < 0.2 else f"no it is {truth}" if whim < 0.4 else "no"
    shown = truth
    if asked.topic == "where":
        relation, anchor = truth.rsplit(" ", 1)
        shown = f"{relation} the {anchor}"
    return f"maybe {shown}" if whim < 0.12 else f"could be {shown}" if whim < 0.18 else shown


def _existence(scene: GeneratedScene, noun: str, whim: float) -> str:
    """The answer to "is there a ..."."""
    count = scene.values.get(("count", noun))
    if count is None:
        return "i don't think so" if whim < 0.15 else "not that i can see" if whim < 0.3 else "no"
    return f"yes {'just one' if count == NUMBERS[0] else count}" if whim < 0.35 else "yes"


@lru_cache(maxsize=1 << 16)
def _whim(key: str) -> float:
    """A number in [0, 1) that looks random and always is the same for the same key, on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big") / 2**56


class GeneratedGuesser:
    """Ranks the scenes of one split by first impression and by how much of what was said is the case in them."""

    def __init__(
        self,
        scenes: Sequence[GeneratedScene],
        impressions: npt.NDArray[np.float64],
        *,
        fact_weight: float = FACT_WEIGHT,
    ) -> None:
        if impressions.shape != (len(scenes),):
            raise ValueError(f"impressions must have shape ({len(scenes)},), got {impressions.shape}")
        self._captions = {scene.id: scene.caption for scene in scenes}
        self._index = {scene.id: index for index, scene in enumerate(scenes)}
        self._impressions = impressions
        self._fact_weight = fact_weight
        having: dict[Fact, list[int]] = {}
        for index, scene in enumerate(scenes):
            for fact in scene.facts:
                having.setdefault(fact, []).append(index)
        self._having = {fact: np.array(indices, dtype=np.intp) for fact, indices in having.items()}

    @property
    def pool(self) -> int:
        """How many scenes are ranked."""
        return len(self._index)

    def ranks(self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]]) -> npt.NDArray[np.float64]:
        """See `Guesser`. What is said twice counts once; to deny a fact counts against those scenes that have it."""
        return np.array(
            [self._rank(scene_id, history) for scene_id, history in zip(scene_ids, histories, strict=True)],
            dtype=np.float64,
        )

    def _rank(self, scene_id: str, history: Sequence[Exchange]) -> float:
        statements: set[Statement] = set(read_caption(self._captions[scene_id]))
        for exchange in history:
            statements.update(read_answer(exchange.question, exchange.answer))
        counts = np.zeros(self.pool, dtype=np.int64)
        for fact, holds in statements:
            indices = self._having.get(fact)
            if indices is not None:
                counts[indices] += 1 if holds else -1
        scores = self._impressions + self._fact_weight * counts
        own = scores[self._index[scene_id]]
        better = np.count_nonzero(scores > own)
        ties = np.count_nonzero(scores == own) - 1
        return float(1 + better + ties / 2)


def converse(
    questioner: Questioner,
    scene: GeneratedScene,
    answerer: GeneratedAnswerer,
    rng: np.random.Generator,
    *,
    steadiness: float = 1.0,
) -> tuple[Exchange, ...]:
    """Ten questions about the scene, and their answers.

    Args:
        questioner: Whose habit the dialogue follows.
        scene: What it is about.
        answerer: Who answers.
        rng: Decides what habits leave open.
        steadiness: The probability that a question follows that habit; the others follow one drawn by the shares.
    """
    shares = np.array([one.share for one in QUESTIONERS])
    knowledge = Knowledge()
    knowledge.hear(read_caption(scene.caption))
    exchanges: list[Exchange] = []
    for _ in range(MAX_QUESTIONS):
        asking = questioner
        if steadiness < 1 and rng.random() >= steadiness:
            asking = QUESTIONERS[int(rng.choice(len(QUESTIONERS), p=shares))]
        question = next_question(asking, knowledge, rng)
        answer = answerer.answer([scene.id], [exchanges], [question])[0].text
        knowledge.hear(read_answer(question, answer))
        exchanges.append(Exchange(question, answer))
    return tuple(exchanges)


def source_digest(settings: Settings, source: str | None) -> str:
    """Empty: the seed in the settings decides everything.

    Raises:
        ValueError: A source was named.
    """
    if source is not None:
        raise ValueError(f"the generated {settings.world!r} world takes no source, got {source!r}")
    return ""


def build(settings: Settings, source: str | None, folder: Path) -> list[str]:
    """Make up the scenes, let the scripted questioners talk about them, and write all of it into `folder`.

    Each split has random numbers of its own, so the size of one does not change another.

    Returns:
        A line for each split: how many scenes and dialogues, what they score and how many bare yes or no are in them.

    Raises:
        ValueError: A source was named.
    """
    source_digest(settings, source)
    notes = []
    sizes = {"train": settings.train_scenes, "tune": settings.tune_scenes, "report": settings.report_scenes}
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng([settings.seed, number])
        scenes = [draw_scene(f"{split}-{index}", rng) for index in range(sizes[split])]
        impressions = rng.logistic(size=len(scenes))
        recorded = _record(scenes, impressions, settings.dialogues_per_scene, rng)
        write_recordings(folder, split, [Scene(scene.id, scene.caption) for scene in scenes], recorded)
        numbers = {fact: number for number, fact in enumerate(dict.fromkeys(f for s in scenes for f in s.facts))}
        (folder / f"{split}_facts.json").write_text(json.dumps(list(numbers)), encoding="utf-8")
        np.savez(
            folder / f"{split}_scenes.npz",
            impressions=impressions,
            facts=np.array([numbers[fact] for scene in scenes for fact in scene.facts], dtype=np.int32),
            ends=np.cumsum([len(scene.facts) for scene in scenes]),
        )
        notes.append(_note(split, recorded, settings))
    return notes


def load(settings: Settings, folder: Path) -> VisdialWorld:
    """The world that `build` wrote. The folder says it all; of the settings nothing is needed."""
    del settings
    return VisdialWorld({split: _load_split(folder, split) for split in SPLITS})


def _load_split(folder: Path, split: str) -> VisdialSplit:
    scenes, recorded = read_recordings(folder, split)
    facts = [Fact(*row) for row in json.loads((folder / f"{split}_facts.json").read_text(encoding="utf-8"))]
    with np.load(folder / f"{split}_scenes.npz", allow_pickle=False) as stored:
        impressions, ends = stored["impressions"], stored["ends"].tolist()
        present = [facts[number] for number in stored["facts"].tolist()]
    generated = [
        GeneratedScene(scene.id, scene.caption, tuple(present[start:end]))
        for scene, start, end in zip(scenes, [0, *ends[:-1]], ends, strict=True)
    ]
    return VisdialSplit(scenes, recorded, GeneratedAnswerer(generated), GeneratedGuesser(generated, impressions))


def _record(
    scenes: Sequence[GeneratedScene],
    impressions: npt.NDArray[np.float64],
    dialogues_per_scene: int,
    rng: np.random.Generator,
) -> list[RecordedDialogue]:
    """Dialogues about each scene, by questioners drawn by their shares."""
    answerer, guesser = GeneratedAnswerer(scenes), GeneratedGuesser(scenes, impressions)
    shares = np.array([questioner.share for questioner in QUESTIONERS])
    recorded = []
    for scene in scenes:
        for drawn in rng.choice(len(QUESTIONERS), size=dialogues_per_scene, p=shares):
            exchanges = converse(QUESTIONERS[int(drawn)], scene, answerer, rng, steadiness=STEADINESS)
            prefixes = [exchanges[:count] for count in range(len(exchanges) + 1)]
            progress = percentiles(guesser, [scene.id] * len(prefixes), prefixes)
            recorded.append(RecordedDialogue(scene.id, exchanges, tuple(progress.tolist())))
    return recorded


def _note(split: str, recorded: Sequence[RecordedDialogue], settings: Settings) -> str:
    """What the recorded dialogues of one split come to, cut where the rules end them."""
    cut = [
        dialogue.exchanges[: exchanges_until_stop(dialogue.percentiles, stop_fraction=settings.stop_fraction)[0]]
        for dialogue in recorded
    ]
    answers = [exchange.answer for exchanges in cut for exchange in exchanges]
    scores = []
    for reward in REWARDS:
        returns = [
            to_dialogue(
                dialogue,
                "",
                reward,
                stop_fraction=settings.stop_fraction,
                penalty=settings.penalty,
                free_last_step=settings.free_last_step,
            ).total_reward
            for dialogue in recorded
        ]
        scores.append(f"{reward} {math.fsum(returns) / len(returns):.2f}")
    bare = sum(is_penalised(answer, "yn") for answer in answers) / len(answers)
    return (
        f"{split}: {len({dialogue.scene_id for dialogue in recorded})} scenes, {len(recorded)} dialogues "
        f"({len(set(cut))} distinct) of {len(answers) / len(cut):.1f} questions; recorded mean return "
        f"{', '.join(scores)}; bare yes/no {bare:.0%}"
    )
