"""A report: the ablation table, comparisons and figures of a run table, written to a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from analysis import figures, honest_render
from analysis.ablation import AblationTable, ablation_table
from analysis.ablation_render import (
    FAILURES_HEADER,
    FAILURES_NUMERIC,
    NUMERIC,
    body_of,
    failure_rows,
    header_of,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)
from analysis.cells import Cell, cells_of
from analysis.comparison import Comparison, comparison_markdown, comparison_rows
from analysis.family import HEADER as FAMILY_HEADER
from analysis.family import NUMERIC as FAMILY_NUMERIC
from analysis.family import Inference, family, family_markdown, family_notes, family_rows
from analysis.figure_data import beta_curves, has_grid, heat_map, score_by_cell, table_picture
from analysis.honest_table import HonestTable, honest_table
from analysis.machine_readable import comparisons_csv, comparisons_json, section_csv, section_json
from analysis.page import PageFigure, figure_section, html_table, links_html, notes_html, page
from analysis.runs import RunTable
from analysis.section import Section, section_markdown
from analysis.styles import Policy, Style


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        table: The ablation table in it.
        paths: Every file, the page with everything first.
        notes: What a reader should be told: a figure that could not be drawn and why, how to get static figures.
        sections: What it has beside table and comparisons.
        honest: The honest table in it; None where scores are estimates, or nothing has finished.
        inferences: What each comparison says of other training seeds and scenes.
    """

    table: AblationTable
    paths: tuple[Path, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...] = ()
    honest: HonestTable | None = None
    inferences: tuple[Inference, ...] = ()

    @property
    def leads_honestly(self) -> bool:
        """Whether the honest table stands before the paper's: asked for, and possible."""
        return _leads_honestly(self.table.style, self.honest)


ONE_SEED = (
    "No honest numbers yet: with one training seed per cell, the luck of a training cannot be told from its setting. "
    "The same command with --seeds 3 adds the trainings that are missing."
)
"""Stands where the honest table would."""

HONEST_HEADING = "Tuned, and without the luck of seeds"
PAPER_HEADING = "As the paper counts: the best cell, and σ over all of them"
"""Of the two tables; the paper's needs none where it leads."""

FIGURE_FILES = "Each figure is in figures/ by itself: as HTML, and as SVG, PNG or PDF where a browser drew it."
"""The same on every machine, as the page is."""


def write_report(
    table: RunTable,
    folder: Path,
    *,
    rng: np.random.Generator,
    cells: Sequence[Cell] | None = None,
    style: Style = "honest",
    policy: Policy = "exclude",
    floor: float | None = None,
    comparisons: Sequence[Comparison] = (),
    sections: Sequence[Section] = (),
    references: Mapping[str, Sequence[float]] | None = None,
    notes: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (),
    digests: Mapping[str, Sequence[str]] | None = None,
    static_formats: Sequence[str] = figures.STATIC_FORMATS,
) -> Report:
    """Write the report of all runs in `table` to `folder`, and say which files it consists of.

    `report.html` holds everything and needs no other file; `table.md`, `.tex`, `.csv` and `.json` hold the table,
    `honest.md` and so on the honest one beside it where a cell has several training seeds, `comparisons.md`,
    `.csv` and `.json` the comparisons, `SECTION.md` and `.json` each section and `SECTION_TABLE.csv` each of its tables
    if there are any, `figures/NAME.html` one interactive figure each,
    `figures/NAME.svg` (and png, pdf) static ones where a browser is found, and `figures/captions.md` what they show.
    Files of an earlier report are overwritten. No file but the static figures depends on whether these are drawn.

    Args:
        table: Runs that share task, rewards, split and episodes.
        folder: Made if it does not exist.
        rng: Draws intervals; the same one gives the same report.
        cells: `cells_of(table)` where it is at hand already.
        style: `honest` leads with the honest table where a cell has several training seeds, and has the paper's behind
            it; `paper` leads with the paper's, which then counts cells as the paper does. Both have the same files.
        policy: What a failed run counts as in the honest table.
        floor: The lowest return there can be; needed for the policy `floor`.
        comparisons: Paired statements to put on the page.
        sections: What else it is to say and show, behind the comparisons.
        references: See `ablation_table`.
        notes: What else a reader of the tables has to know: further footnotes of both.
        links: Other files of the folder to name on the page: what each is, and its address.
        digests: Of what the report rests on beside the code, by what they are of: `store`, `data`, `environment`.
        static_formats: Some of svg, png, pdf; none for no static figures and no browser.

    Raises:
        ValueError: The runs differ in what they were trained or judged on, a format is unknown, or the policy `floor`
            has no floor.
        OSError: The folder cannot be written.
    """
    cells = cells_of(table) if cells is None else cells
    ablation = ablation_table(table, style=style, cells=cells, references=references, notes=notes, digests=digests)
    (folder / "figures").mkdir(parents=True, exist_ok=True)

    unsaid = table.estimated or not any(cell.seeds for cell in cells)
    honest = None if unsaid else honest_table(cells, rng, policy=policy, floor=floor, notes=notes)
    inferences = family(cells, comparisons, rng)
    paths = _write_tables(ablation, comparisons, inferences, folder)
    if honest is not None and honest.possible:
        paths += _write_honest(honest, folder)
    for each in sections:
        paths += _write_section_files(each, folder)
    made, told = _figures(ablation, cells)
    for each in sections:
        made |= each.figures
    drawn = {name: figures.picture(figure) for name, (figure, _) in made.items()}
    static, note = _static(drawn, folder / "figures", static_formats)

    placed = [PageFigure(name, figures.figure_html(drawn[name], name), caption) for name, (_, caption) in made.items()]
    script = figures.plotly_script() if placed else ""
    for figure in placed:
        title = figure.name.replace("_", " ").capitalize()
        content = f"<h1>{title}</h1>\n{figure_section(figure)}"
        paths.append(_written(folder / "figures" / f"{figure.name}.html", page(title, content, script=script)))
    if placed:
        captions = "\n\n".join(f"**{figure.name}** {figure.caption}" for figure in placed)
        paths.append(_written(folder / "figures" / "captions.md", captions + "\n"))
    body = _body(table, ablation, honest, comparisons, inferences, sections, placed, told, links)
    whole = _written(folder / "report.html", page(_title(ablation), body, script=script))
    told += [note] if note else []  # of this machine, so no word of it is on the page
    return Report(ablation, (whole, *paths, *static), tuple(told), tuple(sections), honest, inferences)


def _write_tables(
    ablation: AblationTable, comparisons: Sequence[Comparison], inferences: Sequence[Inference], folder: Path
) -> list[Path]:
    writers: Mapping[str, Callable[[AblationTable], str]] = {
        "md": to_markdown,
        "tex": to_latex,
        "csv": to_csv,
        "json": to_json,
    }
    paths = [_written(folder / f"table.{suffix}", render(ablation)) for suffix, render in writers.items()]
    if comparisons:
        parts = [family_markdown(inferences), *map(comparison_markdown, comparisons)]
        paths.append(_written(folder / "comparisons.md", "\n".join(parts)))
        paths.append(_written(folder / "comparisons.csv", comparisons_csv(inferences)))
        paths.append(_written(folder / "comparisons.json", comparisons_json(inferences, comparisons)))
    return paths


def _write_section_files(section: Section, folder: Path) -> list[Path]:
    """The section to be read, as JSON, and each of its tables as CSV."""
    return [
        _written(folder / f"{section.name}.md", section_markdown(section)),
        _written(folder / f"{section.name}.json", section_json(section)),
        *(_written(folder / f"{stem}.csv", text) for stem, text in section_csv(section).items()),
    ]


def _write_honest(honest: HonestTable, folder: Path) -> list[Path]:
    writers: Mapping[str, Callable[[HonestTable], str]] = {
        "md": honest_render.to_markdown,
        "tex": honest_render.to_latex,
        "csv": honest_render.to_csv,
        "json": honest_render.to_json,
    }
    return [_written(folder / f"honest.{suffix}", render(honest)) for suffix, render in writers.items()]


def _figures(ablation: AblationTable, cells: Sequence[Cell]) -> tuple[dict[str, tuple[figures.Figure, str]], list[str]]:
    """The figures with their captions, by name, and a note for each that there is nothing to draw for."""
    made: dict[str, tuple[figures.Figure, str]] = {}
    if not any(cell.seeds for cell in cells):
        return made, [f"No figures: nothing has finished{'' if ablation.failed else ' yet'}."]
    what = "Estimated return" if ablation.estimated else "Mean return per episode"
    title = f"{what} (reward {ablation.evaluation_reward})"
    where = f" {ablation.task}, reward {ablation.evaluation_reward}, {ablation.split} scenes."
    picture, points = table_picture(ablation), score_by_cell(cells, estimated=ablation.estimated)
    best = f"Max {'estimate' if ablation.estimated else 'score'} (reward {ablation.evaluation_reward})"
    made["table"] = (figures.draw_table(picture, x_title=best), picture.caption)
    made["score_by_cell"] = (figures.draw_score_by_cell(points, y_title=title), points.caption + where)
    if not has_grid(cells):
        return made, ["No figures over β: no design cell of SARSA or ILQL has a β."]
    try:
        curves = beta_curves(cells, estimated=ablation.estimated)
        grid = heat_map(cells, estimated=ablation.estimated)
    except ValueError as several:  # a grid over more than tau and beta has no single score per field
        return made, [f"No figures over β: {several}."]
    made["beta_curves"] = (figures.draw_beta_curves(curves, y_title=title), curves.caption + where)
    made["heat_map"] = (figures.draw_heat_map(grid, value_title=title), grid.caption + where)
    return made, []


def _static(
    drawn: Mapping[str, figures.Picture], folder: Path, formats: Sequence[str]
) -> tuple[list[Path], str | None]:
    try:
        return figures.write_static(drawn, folder, formats), None
    except RuntimeError as missing:
        reason = str(missing).strip().partition("\n")[0]
        return [], (
            "No static figures: they need kaleido (pip install 'ilql-ablations[figures]') and Chrome or Chromium "
            f"(apt-get install chromium, or its path in BROWSER_PATH). {reason}"
        )


def _title(ablation: AblationTable) -> str:
    return "Ablation" if ablation.task is None else f"Ablation: {ablation.task}, reward {ablation.evaluation_reward}"


def _body(
    table: RunTable,
    ablation: AblationTable,
    honest: HonestTable | None,
    comparisons: Sequence[Comparison],
    inferences: Sequence[Inference],
    sections: Sequence[Section],
    placed: Sequence[PageFigure],
    notes: Sequence[str],
    links: Sequence[tuple[str, str]],
) -> str:
    parts = [f"<h1>{escape(_title(ablation))}</h1>", f'<p class="lead">{escape(ablation.caption)}</p>']
    if _leads_honestly(ablation.style, honest):
        parts += [*_honest_body(honest), f"<h2>{PAPER_HEADING}</h2>", *_paper_body(ablation)]
    else:
        parts += [*_paper_body(ablation), *_honest_body(honest)]
    if links:
        parts.append(f"<p>To be read: {links_html(links)}</p>")
    if comparisons:
        files = [(f"comparisons.{suffix}", f"comparisons.{suffix}") for suffix in ("md", "csv", "json")]
        parts.append("<h2>Paired comparisons</h2>")
        parts.append(html_table(FAMILY_HEADER, family_rows(inferences), FAMILY_NUMERIC))
        parts.append(notes_html(family_notes(inferences)))
        parts.append(f"<p>The comparisons as files: {links_html(files)}</p>")
        for comparison in comparisons:
            header, rows = comparison_rows(comparison)
            table_html = html_table(header, rows, (False, True, True, True))
            parts += [f"<p>{escape(comparison.sentence)}</p>", table_html]
    of_sections = {name for section in sections for name in section.figures}
    own = [figure for figure in placed if figure.name not in of_sections]
    if own:
        parts += ["<h2>Figures</h2>", *map(figure_section, own)]
    for section in sections:
        parts += _section_body(section, [figure for figure in placed if figure.name in section.figures])
    if ablation.failures:
        parts += ["<h2>What failed</h2>", html_table(FAILURES_HEADER, failure_rows(ablation), FAILURES_NUMERIC)]
    said = [_footer(table, ablation), *([FIGURE_FILES] if placed else []), *notes]
    parts.append(f"<footer>{'<br>'.join(map(escape, said))}</footer>")
    return "\n".join(parts)


def _leads_honestly(style: Style, honest: HonestTable | None) -> bool:
    return style == "honest" and honest is not None and honest.possible


def _paper_body(ablation: AblationTable) -> list[str]:
    files = [(f"table.{suffix}", f"table.{suffix}") for suffix in ("md", "tex", "csv", "json")]
    return [
        html_table(header_of(ablation), body_of(ablation), NUMERIC),
        notes_html(ablation.footnotes),
        f"<p>The table as a file: {links_html(files)}</p>",
    ]


def _honest_body(honest: HonestTable | None) -> list[str]:
    if honest is None:
        return []
    if not honest.possible:
        return [f"<p>{escape(ONE_SEED)}</p>"]
    files = [(f"honest.{suffix}", f"honest.{suffix}") for suffix in ("md", "tex", "csv", "json")]
    body = honest_render.body_of(honest)
    return [
        f"<h2>{HONEST_HEADING}</h2>",
        html_table(honest_render.HEADER, body, honest_render.NUMERIC, stacked=True),
        notes_html(honest.footnotes),
        f"<p>The table as a file: {links_html(files)}</p>",
    ]


def _section_body(section: Section, placed: Sequence[PageFigure]) -> list[str]:
    captions = {figure.caption for figure in placed}
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in section.text if text not in captions]
    parts += map(figure_section, placed)
    for each in section.tables:
        parts += [f"<p>{escape(each.title)}:</p>", html_table(each.header, each.texts, each.numeric)]
    files = [f"{section.name}.md", f"{section.name}.json", *(f"{stem}.csv" for stem in section_csv(section))]
    parts.append(f"<p>As files: {links_html([(name, name) for name in files])}</p>")
    return parts


def write_section(section: Section, folder: Path) -> tuple[Path, ...]:
    """Write a section as a page of its own, `NAME.html`, and as a report does; returns the paths, the page first."""
    folder.mkdir(parents=True, exist_ok=True)
    placed = [
        PageFigure(name, figures.figure_html(figures.picture(figure), name), caption)
        for name, (figure, caption) in section.figures.items()
    ]
    script = figures.plotly_script() if placed else ""
    body = "\n".join(_section_body(section, placed))
    whole = _written(folder / f"{section.name}.html", page(section.title, body, script=script))
    return whole, *_write_section_files(section, folder)


def _footer(table: RunTable, ablation: AblationTable) -> str:
    sweeps = sorted(set(table.runs["sweep"].to_list()))
    names = f"{'Sweep' if len(sweeps) == 1 else 'Sweeps'} {', '.join(sweeps)}. " if sweeps else ""
    named = {"code": ablation.code_digests, **ablation.digests}
    digests = "".join(f" {name.capitalize()} {', '.join(each)}." for name, each in named.items() if each)
    return f"{names}{table.took()}{digests}"


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
