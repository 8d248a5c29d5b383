"""Token advantages: made beside an evaluation, shown in its sweep's report, or asked for by themselves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from analysis.advantages import Spoken, advantage_section, utterances_of
from analysis.cells import Cell, best_cell
from analysis.labels import method_label
from analysis.section import Section, section_markdown
from analysis.text import number
from ilql.batch import collate, dialogue_numbers
from ilql.dialogue import Dialogue
from ilql.methods import known_methods
from ilql.tokens import Tokenizer
from sweeps.reading import read_as
from sweeps.spec import TrialSpec
from sweeps.stages import load_module, load_task, load_tokenizer_stage
from sweeps.store import Store

ADVANTAGES_FILE = "advantages.jsonl"
"""In an evaluation's folder: one JSON line per episode, with the agent's tokens and their advantages Q̄ − V."""

EPISODES = 32
"""Episodes of an evaluation whose advantages are kept."""

BATCH = 16
"""Dialogues per forward pass."""


def advantages_of(
    spec: TrialSpec, module: nn.Module, dialogues: Sequence[Dialogue], tokenizer: Tokenizer, device: torch.device
) -> list[Spoken]:
    """The agent's tokens of each dialogue and what the trial's values make of them.

    Args:
        spec: The trial; its method has token values.
        module: Its trained module.
        dialogues: What was said.
        tokenizer: Its tokeniser.
        device: Where the module runs.
    """
    assert spec.kind.values is not None
    module.to(device)
    sequences = read_as(spec, dialogues, tokenizer).sequences
    spoken = []
    for begin in range(0, len(sequences), BATCH):
        batch = collate(sequences[begin : begin + BATCH], pad=tokenizer.structural("pad")).to(device)
        advantage = spec.kind.values(module, batch).advantage
        for actions, mask, values in zip(batch.actions, batch.action_mask, advantage, strict=True):
            pieces = tuple(tokenizer.piece(token) for token in actions[mask].tolist())
            spoken.append(Spoken(pieces, tuple(values[mask].tolist())))
    numbered = zip(dialogue_numbers(sequences), spoken, strict=True)
    return [_joined([each for _, each in group]) for _, group in itertools.groupby(numbered, lambda pair: pair[0])]


def _joined(windows: Sequence[Spoken]) -> Spoken:
    """What was said in all windows of a dialogue."""
    pieces = itertools.chain.from_iterable(each.pieces for each in windows)
    return Spoken(tuple(pieces), tuple(itertools.chain.from_iterable(each.advantages for each in windows)))


def write_advantages(spoken: Sequence[Spoken], seeds: Sequence[int], folder: Path) -> None:
    """Write what was said in some episodes, by their seeds, into an evaluation's folder."""
    lines = [
        json.dumps({"episode_seed": seed, "tokens": each.pieces, "advantages": each.advantages}) + "\n"
        for seed, each in zip(seeds, spoken, strict=True)
    ]
    (folder / ADVANTAGES_FILE).write_text("".join(lines), encoding="utf-8")


def read_advantages(folder: Path) -> list[Spoken]:
    """What `write_advantages` wrote; nothing where it wrote nothing."""
    file = folder / ADVANTAGES_FILE
    if not file.is_file():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Spoken(tuple(row["tokens"]), tuple(row["advantages"])) for row in rows]


def report_section(store: Store, runs: pl.DataFrame, cells: Sequence[Cell]) -> Section | None:
    """The section on the best cell of the first method of the table that has token values, ILQL where it is run.

    Args:
        store: Where the evaluations are.
        runs: The sweep's rows.
        cells: Its cells, in the table's order.
    """
    for method in dict.fromkeys(cell.method for cell in cells):
        best = best_cell([cell for cell in cells if cell.method == method])
        if best is None:
            continue
        rows = runs.filter((pl.col("cell_id") == best.cell_id) & (pl.col("status") == "finished")).sort("seed")
        row = rows.row(0, named=True)
        folder = store.stage("evaluation", row["trial_id"])
        spoken = [] if folder is None else read_advantages(folder)
        if any(each.pieces for each in spoken):
            whose = ", ".join(part for part in (method_label(method), best.setting(_told(best))) if part)
            return advantage_section(spoken, whose=whose, what="its own episodes")
    return None


def show_advantages(store: Store, spec: TrialSpec, *, split: str, dialogues: int) -> str:
    """Recorded dialogues as a trial's values see them: tokens with their advantages, then the ends of the rankings.

    Args:
        store: Where the trial's weights are.
        spec: The trial.
        split: Which recorded dialogues.
        dialogues: How many of them.

    Raises:
        ValueError: The method has no values for tokens.
    """
    if spec.kind.values is None:
        having = ", ".join(name for name, method in known_methods().items() if method.values is not None)
        raise ValueError(f"advantages need a method with values for tokens ({having}), got {spec.method}")
    task, tokenizer = load_task(store, spec.data.task, spec.data.world), load_tokenizer_stage(store, spec)
    recorded = task.dialogues(split, spec.data.reward)[:dialogues]
    spoken = advantages_of(spec, load_module(store, spec), recorded, tokenizer, torch.device("cpu"))
    lines = [" ".join(f"{piece.strip() or '␣'} {number(value)}" for piece, value in _tokens(utterance))
             for each in spoken[:2] for utterance in utterances_of(each)]  # fmt: skip
    section = advantage_section(spoken, whose=f"{spec.method} {spec.trial_id[:8]}", what=f"recorded, {split} scenes")
    return "\n".join(lines) + "\n\n" + ("" if section is None else section_markdown(section))


def _tokens(utterance: Spoken) -> Sequence[tuple[str, float]]:
    return list(zip(utterance.pieces, utterance.advantages, strict=True))


def _told(cell: Cell) -> list[str]:
    """The hyperparameters that name a cell in a sentence."""
    asked: dict[str, Any] = {"train.tau": None, "train.cql_weight": None, "decode.beta": None}
    return [name for name in asked if cell.has(name)]
