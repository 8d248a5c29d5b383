"""What policies said, to be read, and in numbers: a section of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from analysis.cells import best_cell, cells_of
from analysis.labels import measure_label, method_label
from analysis.section import Section, TextTable
from analysis.text import number, with_error
from analysis.variety import distinct_n
from sweeps.run_tables import run_table
from sweeps.store import Store

EPISODES, UTTERANCES = 4, 2
"""Episodes that are shown, and how many of the agent's utterances of each."""

LONGEST = 240
"""Characters of a text that is shown."""

_ALWAYS = {"measure.turns", "measure.empty_share", "measure.repeated_share", "measure.broken_share"}


def samples_section(store: Store, sweep: str) -> Section | None:
    """What the best cell of every arm said in the first episodes; None where nothing has finished."""
    best = best_rows(store, sweep)
    if not best:
        return None
    said: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for arm, row in best.items():
        episodes = store.episodes([row["trial_id"]], columns=["episode_seed", "transcript"]).sort("episode_seed")
        shown = episodes.head(EPISODES).iter_rows(named=True)
        said[arm] = {each["episode_seed"]: json.loads(each["transcript"]) for each in shown}
    tables = []
    for seed in sorted({seed for episodes in said.values() for seed in episodes}):
        first = next(turns[seed] for turns in said.values() if seed in turns)
        opening = [turn["text"] for turn in first[:1] if not turn["by_agent"]]
        rows = [("heard", _short(text)) for text in opening]
        rows += [(method_label(arm), _utterances(episodes[seed])) for arm, episodes in said.items() if seed in episodes]
        tables.append(TextTable(f"Episode {seed}", ("Who", "What"), tuple(rows), (False, False)))
    text = f"The best cell of each method, in the first {EPISODES} of the report's episodes, its first utterances."
    measured = _measured(store, best)
    return Section(name="samples", title="What they say", text=(text,), tables=(measured, *tables), printed=True)


def _measured(store: Store, best: Mapping[str, dict[str, Any]]) -> TextTable:
    """Of every arm's best cell its score, its measures, and how varied its utterances are."""
    estimated = any(row["estimated"] for row in best.values())
    shown = set() if estimated else {name for row in best.values() for name in row if name.startswith("measure.")}
    measures = sorted(shown - _ALWAYS)  # of estimates another section shows them
    rows = []
    for arm, row in best.items():
        transcripts = store.episodes([row["trial_id"]], columns=["transcript"])["transcript"]
        texts = [turn["text"] for each in transcripts for turn in json.loads(each) if turn["by_agent"]]
        varied = distinct_n(texts, 2)
        numbers = [number(row.get(name)) for name in measures]
        rows.append(
            (
                method_label(arm),
                with_error(row["score"], row["score_error"], believed=row["doubt"] is None),
                number(varied),
                *numbers,
            )
        )
    header = ("Method", "Estimate" if estimated else "Score", "Distinct-2", *(measure_label(name) for name in measures))
    title = (
        "The best cell of each method in numbers; distinct-2: different pairs of words in all it said, by their number"
    )
    return TextTable(title, header, tuple(rows), (False, *([True] * (len(header) - 1))))


def best_rows(store: Store, sweep: str) -> dict[str, dict[str, Any]]:
    """Of every arm's best cell its first seed's trial with the cell's means over seeds, in the order of tables.

    The best cell is the table's. `score_error` is the standard error of the score over episodes, as there: seeds are
    averaged per episode. `doubt` says why an estimate is not believed, where it is not.
    """
    table = run_table(store, sweep)
    cells = cells_of(table)
    trials = {(row["cell_id"], row["seed"]): row["trial_id"] for row in table.runs.iter_rows(named=True)}
    rows = {}
    for arm in dict.fromkeys(cell.method for cell in cells):
        best = best_cell(cell for cell in cells if cell.method == arm)
        if best is None or best.score is None:
            continue
        rows[arm] = {
            "arm": arm,
            "cell_id": best.cell_id,
            "trial_id": trials[best.cell_id, best.seeds[0]],
            "score": best.score.value,
            "score_error": best.score.standard_error,
            "doubt": best.doubt,
            "estimated": table.estimated,
            **best.measures,
        }
    return rows


def _utterances(turns: list[dict[str, Any]]) -> str:
    own = [turn["text"] for turn in turns if turn["by_agent"]]
    shown = " · ".join(_short(text) or "(nothing)" for text in own[:UTTERANCES])
    return f"{shown} · …" if len(own) > UTTERANCES else shown


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
