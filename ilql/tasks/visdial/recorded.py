"""The recorded world: real dialogues, answers that somebody gave, and a guesser fitted on what was said.

Its source is a file or directory in one of the layouts of `layouts`. Scenes are split by a seeded hash of their names.
The guesser's feature of a scene is a latent semantic analysis of what a *machine* said about it, never of what people
said; where no machine said anything (layouts *official* and *list*) it is one of the caption and the human dialogue,
because there is nothing else: progress then measures how well a dialogue recalls the recorded one.

`Design` is fixed by calibration before any method was trained; docs/log.md has the numbers.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ilql.task import SPLITS
from ilql.tasks.visdial.calibration import calibrate, describe
from ilql.tasks.visdial.guesser import (
    Regression,
    RidgeGuesser,
    fit_regression,
    latent_axes,
    load_guessers,
    rounded,
    save_guessers,
    transcript,
)
from ilql.tasks.visdial.layouts import Corpus, RecordedScene, digest, find_dialogues, read_dialogues
from ilql.tasks.visdial.neighbours import Nearness, NeighbourAnswerer, collect_pairs, load_answerers, save_answerers
from ilql.tasks.visdial.protocols import (
    RecordedDialogue,
    Scene,
    VisdialSplit,
    VisdialWorld,
    percentiles,
)
from ilql.tasks.visdial.recordings import read_recordings, write_recordings
from ilql.tasks.visdial.settings import Settings
from ilql.tasks.visdial.terms import fit_terms, words, words_and_pairs

CANNOT_TELL = re.compile(r"(i )?(really )?(can't|cant|cannot|can not|couldn't) (really )?(tell|say|see)")
"""Answers by which a person says that the image does not show it."""

CANNOT_TELL_OURS = "i can't tell"
"""Said only where nobody in the data says anything of the kind."""

SHOWN_SKIPS = 3
"""So many of the dialogues that were left out are named in the notes."""

Floats = npt.NDArray[np.float64]

NEARNESS = Nearness(own=0.5, human_bonus=0.1, borrowed=0.4, scene=0.15, scene_weight=0.3, sensible=0.3)
"""Set by how often an answer agrees with people's yes or no to a held-out question (about half by chance): an own one
in 73 % of the cases where the questions are at least .5 alike, else in 56 %; a borrowed one in 69 % from .4 on, else in
56 %. Below .3 are three of four random bags of words, and one in twenty of real questions about other scenes."""


@dataclass(frozen=True)
class Design:
    """How the world is made of the data.

    Attributes:
        tune_share: The share of the scenes on which settings are chosen.
        report_share: The share of the scenes that tables score; the rest is for training.
        most_scenes: So many scenes are used at most, the first by their hash.
        fewest_scenes: So many there must be.
        features: Dimensions of the scene feature that the guesser regresses.
        likeness_features: Dimensions in which scenes are compared when answers are borrowed.
        ridge: Strength of the guesser's ridge penalty.
        folds: Regressions for the training scenes, each fitted on the scenes of the others.
        nearness: When a recorded answer fits.
    """

    tune_share: float = 0.097
    report_share: float = 0.225
    most_scenes: int = 4000
    fewest_scenes: int = 20
    features: int = 16
    likeness_features: int = 64
    ridge: float = 1.0
    folds: int = 5
    nearness: Nearness = NEARNESS


DESIGN = Design()


def source_digest(settings: Settings, source: str | None) -> str:
    """SHA-256 of the file of dialogues that `source` means.

    Raises:
        ValueError: There is no such file, or it cannot be read.
    """
    return digest(find_dialogues(source))


def build(settings: Settings, source: str | None, folder: Path) -> list[str]:
    """Write the world of `source` into `folder`.

    Returns:
        What was read, left out and fallen back on, and the calibration.

    Raises:
        ValueError: The source cannot be read, is none of the layouts, or holds too few dialogues; one line.
    """
    path = find_dialogues(source)
    corpus = read_dialogues(path)
    if len(corpus.scenes) < DESIGN.fewest_scenes:
        raise ValueError(f"{path} must hold at least {DESIGN.fewest_scenes} whole dialogues, got {len(corpus.scenes)}")
    splits = split_scenes(corpus.scenes, seed=settings.seed)
    nothing_fits, said_so = commonest_cannot_tell(splits["train"])
    _write(splits, nothing_fits, folder)
    return [
        *_notes(path, corpus, splits, nothing_fits, said_so),
        *describe(calibrate(load(settings, folder), settings)),
    ]


def load(settings: Settings, folder: Path) -> VisdialWorld:
    """The world that `build` wrote into `folder`."""
    recordings = {split: read_recordings(folder, split) for split in SPLITS}
    scenes = {split: described for split, (described, _) in recordings.items()}
    answerers, guessers = load_answerers(folder, scenes), load_guessers(folder, scenes)
    return VisdialWorld(
        splits={
            split: VisdialSplit(scenes=described, recorded=recorded, answerer=answerers[split], guesser=guessers[split])
            for split, (described, recorded) in recordings.items()
        }
    )


def split_scenes(scenes: Sequence[RecordedScene], *, seed: int) -> dict[str, tuple[RecordedScene, ...]]:
    """The scenes of each split, in the order of a seeded hash of their names.

    A scene's place in that order does not depend on the other scenes nor on their order in the file. The first go to
    training, the last to the report; tune and report get at least two each.
    """
    ordered = sorted(scenes, key=lambda scene: _hash(seed, scene.id))[: DESIGN.most_scenes]
    tune = max(2, round(DESIGN.tune_share * len(ordered)))
    report = max(2, round(DESIGN.report_share * len(ordered)))
    train = len(ordered) - tune - report
    return {
        "train": tuple(ordered[:train]),
        "tune": tuple(ordered[train : train + tune]),
        "report": tuple(ordered[train + tune :]),
    }


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def commonest_cannot_tell(scenes: Sequence[RecordedScene]) -> tuple[str, bool]:
    """What people answer most often when they cannot tell, and whether anybody did; of equals the first by alphabet."""
    said = Counter(
        exchange.answer
        for scene in scenes
        for exchange in scene.human
        if CANNOT_TELL.fullmatch(exchange.answer.lower().replace("’", "'").rstrip("."))
    )
    if not said:
        return CANNOT_TELL_OURS, False
    return min(said, key=lambda answer: (-said[answer], answer)), True


def scene_text(scene: RecordedScene) -> str:
    """What a scene's feature is made of: the machine's description and answers, without the questions.

    Questions are left out because people asked some of them. Without a machine: caption, human questions and answers.
    """
    if scene.description:
        return " ".join([scene.description, *(exchange.answer for exchange in scene.machine)])
    return transcript(scene.caption, scene.human)


def _write(splits: Mapping[str, tuple[RecordedScene, ...]], nothing_fits: str, folder: Path) -> None:
    told_terms = fit_terms(map(scene_text, splits["train"]), split=words, least_texts=2)
    told = {
        split: told_terms.vectors([scene_text(scene) for scene in scenes], sublinear=True)
        for split, scenes in splits.items()
    }
    scenes = {split: [Scene(id=scene.id, caption=scene.caption) for scene in part] for split, part in splits.items()}
    save_guessers(folder, _guessers(splits, _latent(told, DESIGN.features)))
    save_answerers(folder, _answerers(splits, _latent(told, DESIGN.likeness_features), nothing_fits))
    guessers = load_guessers(folder, scenes)
    for split, part in splits.items():
        write_recordings(folder, split, scenes[split], _recorded(part, guessers[split]))


def _latent(told: Mapping[str, sparse.csr_matrix], features: int) -> dict[str, Floats]:
    """Features of the scenes of each split on axes fitted to the training scenes, fewer where those are few."""
    axes = latent_axes(told["train"], features=min(features, min(told["train"].shape) // 2))
    return {split: rounded(vectors @ axes) for split, vectors in told.items()}


def _guessers(
    splits: Mapping[str, tuple[RecordedScene, ...]], features: Mapping[str, Floats]
) -> dict[str, RidgeGuesser]:
    """One guesser for each split: fitted on all training scenes, and out of fold for these themselves."""
    train = splits["train"]
    terms = fit_terms((transcript(scene.caption, scene.human) for scene in train), split=words, least_texts=2)
    vectors = terms.vectors(
        [transcript(scene.caption, scene.human[:asked]) for scene in train for asked in range(len(scene.human) + 1)],
        sublinear=True,
    )
    scene_of = np.repeat(np.arange(len(train)), [len(scene.human) + 1 for scene in train])
    fold_of = np.arange(len(train)) % DESIGN.folds  # their order is that of a hash already

    def fit(rows: npt.NDArray[np.bool_]) -> Regression:
        return fit_regression(vectors[rows], features["train"][scene_of[rows]], ridge=DESIGN.ridge)

    everything = (fit(np.ones(len(scene_of), dtype=np.bool_)),)
    out_of_fold = tuple(fit(fold_of[scene_of] != fold) for fold in range(DESIGN.folds))
    return {
        split: RidgeGuesser(
            scene_ids=tuple(scene.id for scene in scenes),
            captions=tuple(scene.caption for scene in scenes),
            features=features[split],
            fold=fold_of if split == "train" else np.zeros(len(scenes), dtype=np.int64),
            regressions=out_of_fold if split == "train" else everything,
            terms=terms,
        )
        for split, scenes in splits.items()
    }


def _answerers(
    splits: Mapping[str, tuple[RecordedScene, ...]], features: Mapping[str, Floats], nothing_fits: str
) -> dict[str, NeighbourAnswerer]:
    """One answerer for each split; all of them borrow from the people of the training scenes."""
    train = splits["train"]
    terms = fit_terms(
        (exchange.question for scene in train for exchange in (*scene.human, *scene.machine)),
        split=words_and_pairs,
        count_unknown=True,
    )
    lent = collect_pairs(terms, [scene.human for scene in train], [()] * len(train))
    directions = {split: _unit_rows(rows) for split, rows in features.items()}
    answerers = {}
    for split, scenes in splits.items():
        likeness = np.einsum("sk,dk->sd", directions[split], directions["train"], optimize=False)  # no threads in it
        if split == "train":
            np.fill_diagonal(likeness, -1.0)  # nobody borrows from themselves
        answerers[split] = NeighbourAnswerer(
            scene_ids=tuple(scene.id for scene in scenes),
            own=collect_pairs(terms, [scene.human for scene in scenes], [scene.machine for scene in scenes]),
            lent=lent,
            likeness=likeness,
            nearness=DESIGN.nearness,
            nothing_fits=nothing_fits,
            terms=terms,
        )
    return answerers


def _unit_rows(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = rows / np.where(lengths > 0.0, lengths, 1.0)
    return unit


def _recorded(scenes: Sequence[RecordedScene], guesser: RidgeGuesser) -> list[RecordedDialogue]:
    """The human dialogues with the guesser's progress beside them."""
    recorded = []
    for scene in scenes:
        histories = [scene.human[:asked] for asked in range(len(scene.human) + 1)]
        progress = percentiles(guesser, [scene.id] * len(histories), histories)
        recorded.append(
            RecordedDialogue(
                scene_id=scene.id, exchanges=scene.human, percentiles=tuple(float(value) for value in progress)
            )
        )
    return recorded


def _notes(
    path: Path, corpus: Corpus, splits: Mapping[str, tuple[RecordedScene, ...]], nothing_fits: str, said_so: bool
) -> list[str]:
    sizes = ", ".join(f"{split} {len(scenes)}" for split, scenes in splits.items())
    used = sum(map(len, splits.values()))
    notes = [f"read {len(corpus.scenes)} dialogues in the layout {corpus.layout!r} from {path.name}; scenes: {sizes}"]
    if corpus.skipped:
        notes.append(f"skipped {len(corpus.skipped)} dialogues: {'; '.join(corpus.skipped[:SHOWN_SKIPS])}")
    if used < len(corpus.scenes):
        notes.append(f"used {used} of {len(corpus.scenes)} scenes, the first by their hash")
    if not corpus.has_machine_text:
        notes.append(
            "no machine's text: only people answer, and the guesser's features come from caption and human dialogue"
        )
    if not said_so:
        notes.append(
            f"nobody here says that they cannot tell: where nothing fits the world says {nothing_fits!r} itself"
        )
    return notes
