"""Scenes and recorded dialogues on disk: one JSON line each, readable by anybody, the same files in every world."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ilql.tasks.visdial.protocols import Exchange, RecordedDialogue, Scene


def write_recordings(folder: Path, split: str, scenes: Sequence[Scene], recorded: Sequence[RecordedDialogue]) -> None:
    """Write `SPLIT_scenes.jsonl` and `SPLIT_dialogues.jsonl` into `folder`."""
    scene_lines = [json.dumps({"id": scene.id, "caption": scene.caption}) for scene in scenes]
    (folder / f"{split}_scenes.jsonl").write_text("".join(f"{line}\n" for line in scene_lines), encoding="utf-8")
    lines = [
        json.dumps(
            {
                "scene": dialogue.scene_id,
                "dialog": [[exchange.question, exchange.answer] for exchange in dialogue.exchanges],
                "percentiles": dialogue.percentiles,
            }
        )
        for dialogue in recorded
    ]
    (folder / f"{split}_dialogues.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_recordings(folder: Path, split: str) -> tuple[tuple[Scene, ...], tuple[RecordedDialogue, ...]]:
    """The scenes and the recorded dialogues that `write_recordings` wrote, equal to the last bit."""
    scenes = []
    with (folder / f"{split}_scenes.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            scenes.append(Scene(id=row["id"], caption=row["caption"]))
    recorded = []
    met: dict[tuple[str, str], Exchange] = {}  # many are said often; one object for each saves time and memory
    with (folder / f"{split}_dialogues.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            recorded.append(
                RecordedDialogue(
                    scene_id=row["scene"],
                    exchanges=tuple(
                        met.get((question, answer)) or met.setdefault((question, answer), Exchange(question, answer))
                        for question, answer in row["dialog"]
                    ),
                    percentiles=tuple(row["percentiles"]),
                )
            )
    return tuple(scenes), tuple(recorded)
