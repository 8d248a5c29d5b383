"""Table, comparisons and figures of a sweep, from the store alone, and how they are printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from analysis import honest_render
from analysis.ablation_render import to_markdown
from analysis.cells import Cell, best_cell, cells_of
from analysis.comparison import Comparison, cells_with, compare_chosen, compare_fixed, comparison_markdown
from analysis.family import family_markdown
from analysis.figures import STATIC_FORMATS
from analysis.labels import in_order, method_label
from analysis.measured import MEASURE, with_measures
from analysis.published import beside_published
from analysis.report import ONE_SEED, Report, write_report
from analysis.runs import RunTable
from analysis.section import Section, section_markdown
from analysis.statements import Evidence, statements
from analysis.styles import Policy, Style
from analysis.text import count, number
from sweeps.advantages import report_section
from sweeps.curve import HELD_OUT_LOSS
from sweeps.digests import report_digests
from sweeps.doubts import RULE
from sweeps.importance import adaptive_importances
from sweeps.names import report_folder, stands_for_all
from sweeps.one_thread import one_thread
from sweeps.record_shapes import arm_of
from sweeps.references import references_of, score_range
from sweeps.run_tables import run_table
from sweeps.signals import loss_by_step, rung_pairs, signals_of, stored_curves
from sweeps.store import Store
from sweeps.transcripts import write_transcripts

ESTIMATED = (
    "Scores are fitted-Q estimates and no returns: nothing was played. ± is over the beginnings of held-out dialogues; "
    "it holds neither the chance in recorded rewards nor what the fit cannot know, so methods are not compared."
)

INTERVAL_SEED = 0
"""Of what draws the intervals: the same rows give the same report."""

MakeSection = Callable[[Store, str], Section | None]
"""Makes a section of a sweep's report, or none where there is nothing to say yet. Takes the store, the sweep's name."""


@dataclass(frozen=True)
class Against:
    """A comparison that a question asks for.

    Attributes:
        arm: Who is hoped to be better.
        baseline: Whom it is held against.
        fixed: Columns of one cell of the arm, fixed beforehand, to show beside the cell chosen on the tune scenes.
        baseline_fixed: The same of the baseline; None takes the arm's, as far as the baseline has such a cell.
    """

    arm: str
    baseline: str
    fixed: Mapping[str, str | int | float | bool]
    baseline_fixed: Mapping[str, str | int | float | bool] | None = None


@one_thread
def write_sweep_report(
    store: Store,
    sweep: str,
    against: Sequence[Against],
    *,
    sections: Sequence[MakeSection] = (),
    style: Style = "honest",
    policy: Policy = "exclude",
    folder: Path | None = None,
    static_formats: Sequence[str] = STATIC_FORMATS,
) -> tuple[Report, tuple[Comparison, ...]]:
    """Table, comparisons and figures of a sweep, from the store alone.

    Args:
        store: Where the rows are.
        sweep: The sweep's name.
        against: The comparisons that are asked for.
        sections: What else the report is to have: sections made from the store.
        style: Which table the report leads with; see `analysis.report.write_report`.
        policy: What a failed run counts as in the honest table; `floor` is the lowest score that the task can give.
        folder: Where to; `<store>/reports/<sweep>/` unless another is named.
        static_formats: As for `write_report`; each takes a browser about a second a figure.

    Raises:
        ValueError: There is no such sweep.
    """
    _get_what_is_read(store, sweep)
    table = run_table(store, sweep, whole_cost=True)
    cells = cells_of(table)
    estimated = table.estimated
    made = [] if estimated else [comparisons_of(cells, asked) for asked in against]
    comparisons = tuple(_measured(store, table, comparison) for found, _ in made for comparison in found)
    missing = [line for _, lines in made for line in lines]
    store.compact()
    folder = folder or report_folder(store.folder, sweep)
    of_design = [] if (added := added_note(store, sweep)) is None else [added]
    notes = of_design if (shared := shared_policy_note(store, sweep)) is None else [*of_design, shared]
    stated = [] if estimated else statements(table, cells, evidence_of(store, sweep, cells, of_design))
    references = references_of(store, sweep)
    parts = [*stated, report_section(store, table.runs, cells), *(make(store, sweep) for make in sections)]
    folder.mkdir(parents=True, exist_ok=True)
    said = None if estimated else write_transcripts(store, sweep, cells, folder)
    report = write_report(
        table,
        folder,
        rng=np.random.default_rng(INTERVAL_SEED),
        cells=cells,
        style=style,
        policy=policy,
        floor=score_range(store, sweep)[0] if policy == "floor" else None,
        comparisons=comparisons,
        sections=[section for section in parts if section is not None],
        references=references,
        notes=(*notes, *_estimate_notes(cells, references)) if estimated else notes,
        digests=report_digests(store, sweep),
        static_formats=static_formats,
        links=[] if said is None else [("what every cell said, beside another's", said.name)],
    )
    paths = report.paths if said is None else (*report.paths, said)
    report = dataclasses.replace(report, paths=paths, notes=(*report.notes, *missing))
    return report, comparisons


def _get_what_is_read(store: Store, sweep: str) -> None:
    """Get from a store's copy, at once, what one look after the other would get."""
    if store.replica is None:
        return
    members = store.members(sweep)
    trials = sorted({trial for each in members for trial in (each["trial_id"], each.get("tune_trial_id")) if trial})
    store.fetch_all("evaluation", trials)
    store.fetch_all("curve", sorted({each["weights_id"] for each in members}))


def _estimate_notes(cells: Sequence[Cell], references: Mapping[str, Sequence[float]]) -> list[str]:
    """What a reader has to know of scores that are estimates."""
    notes = [ESTIMATED]
    if any(cell.doubt is not None for cell in cells):
        notes.append(RULE)
    clone, recorded = best_cell(cell for cell in cells if cell.method == "bc"), references.get("recorded")
    if recorded and clone is not None and clone.score is not None:
        off = number(clone.score.value - fmean(recorded))
        notes.append(
            f"{method_label('bc')} speaks as the recorded agent does, so its estimate should be near "
            f"{method_label('recorded')}; it is {off} from it, and others may be as far off."
        )
    return notes


def evidence_of(store: Store, sweep: str, cells: Sequence[Cell], design_notes: Sequence[str] = ()) -> Evidence:
    """What the store knows of a sweep beyond its rows: curves, scores at rungs, importances of what was searched."""
    curves = stored_curves(store, sweep, cells)
    return Evidence(
        adaptive=adaptive_importances(store, sweep),
        signals=signals_of(curves),
        losses=loss_by_step(curves),
        held_out=loss_by_step(curves, HELD_OUT_LOSS),
        rungs=rung_pairs(store, sweep),
        design_notes=design_notes,
    )


def added_note(store: Store, sweep: str) -> str | None:
    """How many design cells `sweeps eval` has added, by arm, as a footnote; None where it has added none."""
    cells: dict[str, set[str]] = {}
    for member in store.members(sweep):
        if member.get("added") and member["origin"] == "design":
            cells.setdefault(member["arm"], set()).add(member["cell_id"])
    if not cells:
        return None
    counted = ", ".join(f"{method_label(arm)} {count(len(cells[arm]), 'cell')}" for arm in in_order(cells))
    return (
        "Added by `sweeps eval` after the sweep was planned, and counted in every σ and analysis of variance like "
        "design cells, although values that are chosen with scores in sight crowd near the best: "
        f"{counted}."
    )


def shared_policy_note(store: Store, sweep: str) -> str | None:
    """Which arms have one behaviour policy for several training seeds, as a footnote; None where none has."""
    seeds: dict[str, set[int]] = {}
    policies: dict[str, set[object]] = {}
    for member in store.members(sweep):
        if (policy := member["columns"].get("behaviour.seed")) is not None:
            seeds.setdefault(arm_of(member), set()).add(member["seed"])
            policies.setdefault(arm_of(member), set()).add(policy)
    shared = [method_label(arm) for arm in in_order(seeds) if len(seeds[arm]) > 1 and len(policies[arm]) == 1]
    if not shared:
        return None
    return (
        f"All training seeds of {', '.join(shared)} have one behaviour policy, BC's at its first seed: what is said "
        "over their seeds is said of trainings from that policy, and beside BC it has that one clone's luck. "
        "--behaviour-per-seed clones one for every seed."
    )


def comparisons_of(cells: Sequence[Cell], asked: Against) -> tuple[list[Comparison], list[str]]:
    """What is asked for, as far as its cells have finished runs, and a line for each part that cannot be said.

    Nothing is said of arms that the sweep does not run, and no pair of cells twice; but a pair that is chosen may
    be the one that was fixed, too, which says something else of other seeds.
    """
    arm, baseline = asked.arm, asked.baseline
    if not {arm, baseline} <= {cell.method for cell in cells}:
        return [], []
    wanted: list[Callable[[], Comparison]] = [lambda: compare_chosen(cells, arm, baseline)]
    if cells_with([cell for cell in cells if cell.method == arm], asked.fixed):
        fixed = asked.baseline_fixed
        wanted.append(lambda: compare_fixed(cells, arm, baseline, asked.fixed, baseline_fixed=fixed))
    found: list[Comparison] = []
    missing: list[str] = []
    for make in wanted:
        try:
            comparison = make()
        except ValueError as error:  # a run has failed, none has a tune score yet, or several are at the fixed point
            missing.append(f"no comparison of {arm} and {baseline}: {error}")
            continue
        if (comparison.pair, comparison.is_chosen) not in [(other.pair, other.is_chosen) for other in found]:
            found.append(comparison)
    return found, list(dict.fromkeys(missing))


def _measured(store: Store, table: RunTable, comparison: Comparison) -> Comparison:
    """The comparison with the errors of what its cells measured; only their episodes are read for it."""
    runs = table.runs.filter(table.runs["cell_id"].is_in(comparison.pair) & (table.runs["status"] == "finished"))
    trials = runs["trial_id"].unique(maintain_order=True).to_list()
    measures = [name for name in store.episodes(trials[:1]).columns if name.startswith(MEASURE)]
    if not measures:
        return comparison
    return with_measures(comparison, runs, store.episodes(trials, columns=["episode_seed", "scene", *measures]))


def files_to_show(report: Report) -> list[Path]:
    """The report's files that stand for all of it."""
    return [path for path in report.paths if stands_for_all(path)]


def print_report(report: Report, comparisons: Sequence[Comparison], say: Callable[[str], None]) -> None:
    """The tables in the order of the report's style, the comparisons and where the files are."""
    say("")
    paper = [text for text in (to_markdown(report.table), beside_published(report.table)) if text is not None]
    honest = report.honest
    beside = [] if honest is None else [honest_render.to_markdown(honest) if honest.possible else ONE_SEED]
    for text in (*beside, *paper) if report.leads_honestly else (*paper, *beside):
        say(text)
    if any(inference.p is not None for inference in report.inferences):
        say(family_markdown(report.inferences))
    for comparison in comparisons:
        say(comparison_markdown(comparison))
    for section in report.sections:
        if section.printed:
            say(section_markdown(section))
    for note in report.notes:
        say(note)
    say(f"report  {report.paths[0]}")
    for path in report.paths[1:]:
        say(f"        {path}")
