"""Wordle: find a word of five letters in six guesses, told by colours how close each was.

The words come with the world; what the games are and by which rules they are played its settings say (`settings`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ilql.task import SPLITS, TaskKind
from ilql.tasks.wordle.data import Recorded, describe, load_recorded, save, scripted_games
from ilql.tasks.wordle.environment import WordleTask
from ilql.tasks.wordle.game import make_game
from ilql.tasks.wordle.human import human_games, read_counts
from ilql.tasks.wordle.patterns import ALPHABET, COLOURS
from ilql.tasks.wordle.settings import Settings
from ilql.tasks.wordle.words import read_text, words_of

WORLD_FILE = "world.json"

INPUTS = {
    "words": "a file of words of five letters, one a line, from which targets are drawn",
    "counts": "for world human: a CSV file puzzle,word,n1,n2,n3,n4,n5,n6,nX of how many people took so many tries",
}


def source_digest(settings: Settings, sources: Mapping[str, str]) -> str:
    """A digest of the words and, in the human world, of the file of counts.

    The embedded words count, too: another version of their package may be another world.

    Raises:
        ValueError: A source cannot be read, is missing, or is one that this world has no use for.
    """
    _check_sources(settings, sources)
    digest = hashlib.sha256("\n".join(words_of(sources)[0]).encode())
    if "counts" in sources:
        digest.update(b"\n\n" + read_text(Path(sources["counts"]), "counts").encode())
    return digest.hexdigest()


def build(settings: Settings, sources: Mapping[str, str], folder: Path) -> list[str]:
    """Write the words, the settings and the games into `folder`; the notes say what is in it.

    Raises:
        ValueError: A source cannot be read, is missing, or is one that this world has no use for.
    """
    _check_sources(settings, sources)
    words, notes = words_of(sources)
    game = make_game(words, settings.rules)
    recorded: dict[str, Recorded] = {}
    if settings.world == "human":
        counts = read_counts(Path(sources["counts"]), game.number)
        notes.append(f"{len(counts.answers)} puzzles, {int(counts.tries.sum()):,} games reported")
        if counts.skipped:
            notes.append(f"{counts.skipped} puzzles skipped: nobody reported a game of them")
        for split in SPLITS:
            recorded[split], distance = human_games(game, settings, counts, split)
            notes += distance
    else:
        recorded = {split: scripted_games(game, settings, split) for split in SPLITS}
    for split, games in recorded.items():
        save(games, folder / f"{split}.npz")
        notes.append(describe(games, split))
    about = {"settings": dataclasses.asdict(settings), "words": words}
    (folder / WORLD_FILE).write_text(json.dumps(about), encoding="utf-8")
    return notes


def load(folder: Path) -> WordleTask:
    """The task that `build` wrote into `folder`."""
    about = json.loads((folder / WORLD_FILE).read_text(encoding="utf-8"))
    settings = Settings(**about["settings"])
    recorded = {split: load_recorded(folder / f"{split}.npz") for split in SPLITS}
    return WordleTask(make_game(about["words"], settings.rules), settings, recorded)


def _check_sources(settings: Settings, sources: Mapping[str, str]) -> None:
    for name, path in sources.items():
        if name not in INPUTS:
            raise ValueError(f"a wordle world reads {' and '.join(INPUTS)}, got {name} {path!r}")
    if settings.world == "human" and "counts" not in sources:
        raise ValueError(f"world 'human' needs counts, {INPUTS['counts'].removeprefix('for world human: ')}; got none")
    if settings.world != "human" and "counts" in sources:
        raise ValueError(f"counts are for world 'human', got {sources['counts']!r} for world {settings.world!r}")


KIND = TaskKind(
    name="wordle",
    version=1,
    settings=Settings,
    source_digest=source_digest,
    build=build,
    load=load,
    example=Settings(train_games=20, tune_games=5, report_games=5),
    inputs=INPUTS,
    symbols=(*ALPHABET, *COLOURS),
)
