from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import figures
from analysis.ablation import ablation_table
from analysis.ablation_render import body_of
from analysis.bounded import Bounded
from analysis.cells import cells_of
from analysis.comparison import compare_chosen
from analysis.figure_data import LABEL_SHARE, beta_curves, has_grid, heat_map, score_by_cell, table_picture
from analysis.figures import export
from analysis.figures.export import without_lot
from analysis.labels import METHOD_LABELS, in_order, setting_label, value_label
from analysis.overview_data import Parallel, ParallelAxis
from analysis.page import html_table
from analysis.report import write_report
from analysis.runs import RunTable
from analysis.section import Section, TextTable
from analysis.styles import Style
from analysis.text import latex, number, with_error

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]


@pytest.fixture
def grid(run: Make, make_table: MakeTable) -> RunTable:
    """τ .5 (SARSA) and .8, β 4, 8 and ∞, one field failed, and a refinement that belongs to no field."""
    means = {(0.5, 4.0): -6.0, (0.5, 8.0): -5.0, (0.8, 4.0): -4.0, (0.8, math.inf): -7.0}
    return make_table(
        *(
            run("sarsa", [m - 1, m + 1], {"decode.beta": beta})
            if tau == 0.5
            else run("ilql", [m - 1, m + 1], {"train.tau": tau, "decode.beta": beta})
            for (tau, beta), m in means.items()
        ),
        run("ilql", setting={"train.tau": 0.8, "decode.beta": 8.0}, status="failed"),
        run("ilql", [-3.0, -3.0], {"train.tau": 0.83, "decode.beta": 4.0}, origin="refinement"),
        run("bc", [-9.0, -11.0]),
    )


def test_the_table_as_a_picture_says_what_the_table_says(grid: RunTable) -> None:
    table = ablation_table(grid, methods=["ilql", "sarsa", "bc", "cql"], references={"recorded": [-2.0, -4.0]})
    data = table_picture(table)
    assert [(line.label, line.text, line.sigma_text) for line in data.lines] == [  # CQL has no run, and no row
        ("ILQL", "−3.00 ± 0.00", "1.50"),
        ("SARSA", "−5.00 ± 1.00", "0.50"),
        ("BC", "−10.00 ± 1.00", "–"),
        ("Recorded", "−3.00 ± 1.00", "–"),
    ]
    written = body_of(table)
    assert [line[:3] for line in written if line[0] != "CQL"] == [
        (line.label, line.text, line.sigma_text) for line in data.lines
    ]
    assert data.caption.endswith(table.caption)


def test_the_picture_of_the_table_draws_and_writes_every_number(grid: RunTable) -> None:
    figure = figures.draw_table(table_picture(ablation_table(grid)), x_title="score")
    dots, (bars,) = figure.data[:-1], figure.data[-1:]
    assert [(dot.x[0], dot.error_x.array[0]) for dot in dots] == [
        (-3.0, 0.0), (-5.0, pytest.approx(1.0)), (-10.0, pytest.approx(1.0))
    ]  # fmt: skip
    assert list(bars.x) == [1.5, 0.5, None]
    assert [dot.marker.color for dot in dots] == [figures.METHOD_COLOURS[name] for name in ("ilql", "sarsa", "bc")]
    assert list(figure.layout.yaxis.ticktext) == ["<b>ILQL</b> ", "<b>SARSA</b> ", "<b>BC</b> "]
    assert figure.layout.yaxis.range == (2.5, -0.5)  # the first row on top
    assert {"−5.00 ± 1.00", "0.50", "–"} <= {each.text for each in figure.layout.annotations}
    assert figure.layout.paper_bgcolor == "#ffffff"  # to be read on a dark page as well


def test_every_cell_has_its_place_and_methods_stay_apart(grid: RunTable) -> None:
    data = score_by_cell(cells_of(grid), gap=2.0)
    # ILQL: three design cells and a refinement at 0-3; SARSA after a gap of 2 at 6, 7; BC at 10.
    assert [point.position for point in data.points] == [0, 1, 2, 3, 6, 7, 10]
    assert [(slot.method, slot.left, slot.right, slot.cells) for slot in data.slots] == [
        ("ilql", 0, 3, 3),
        ("sarsa", 6, 7, 2),
        ("bc", 10, 10, 1),
    ]
    assert [point.score is None for point in data.points] == [False, True, False, False, False, False, False]
    assert [point.setting for point in data.points if point.best] == ["τ 0.83, β 4", "β 8", ""]


def test_a_slot_shows_mean_and_sigma_of_its_design_cells(grid: RunTable) -> None:
    slots = {slot.method: slot for slot in score_by_cell(cells_of(grid)).slots}
    assert (slots["ilql"].mean, slots["ilql"].sigma) == (-5.5, 1.5)  # design cells −4 and −7
    assert (slots["bc"].mean, slots["bc"].sigma) == (-10.0, None)


def test_a_method_of_one_cell_among_many_gets_room_for_its_name(run: Make, make_table: MakeTable) -> None:
    many = [run("cql", [1.0], {"train.cql_weight": float(weight)}) for weight in range(98)]
    data = score_by_cell(cells_of(make_table(*many, run("psi", [1.0]))), gap=2.0)
    # Widths with gap: 100 and x = s · (100 + x), so x = 100 · s / (1 − s), of which its cell and the gap take 3.
    room = 100 * LABEL_SHARE / (1 - LABEL_SHARE) - 3
    cql, psi = data.slots
    assert (cql.left, cql.right, psi.left) == (0.0, 97.0, 100.0)
    assert psi.right - psi.left == pytest.approx(room)
    assert data.points[-1].position == pytest.approx(100 + room / 2)  # in the middle


def test_more_methods_than_names_fit_are_not_spread(run: Make, make_table: MakeTable) -> None:
    data = score_by_cell(cells_of(make_table(*(run(f"m{index:02}", [1.0]) for index in range(30)))), gap=2.0)
    assert [slot.left for slot in data.slots] == [3.0 * index for index in range(30)]


def test_infinity_is_the_last_beta(grid: RunTable) -> None:
    data = beta_curves(cells_of(grid))
    assert data.betas == (4.0, 8.0, math.inf)
    assert [(c.label, c.positions, [s.value for s in c.scores]) for c in data.curves] == [
        ("τ = 0.5 (SARSA)", (0, 1), [-6.0, -5.0]),
        ("τ = 0.8", (0, 2), [-4.0, -7.0]),
    ]
    assert [(name, score.value) for _, name, score in data.levels] == [("BC", -10.0)]
    assert "β = ∞: no language-model term." in data.caption
    assert "4 runs finished, 1 failed, 0 stopped. 1 refinement cell not drawn." in data.caption


def test_a_field_of_the_heat_map_has_its_score_or_its_reason(grid: RunTable) -> None:
    data = heat_map(cells_of(grid))
    assert data.tau_labels == ("0.5 (SARSA)", "0.8")
    np.testing.assert_array_equal(data.scores, [[-6.0, -5.0, math.nan], [-4.0, math.nan, -7.0]])
    assert data.text == (
        ("−6.00<br>± 1.00", "−5.00<br>± 1.00", "not run"),
        ("−4.00<br>± 1.00", "failed", "−7.00<br>± 1.00"),
    )


def test_a_figure_over_beta_without_beta_names_the_columns(run: Make, make_table: MakeTable) -> None:
    cells = cells_of(make_table(run("bc", [1.0])))
    assert not has_grid(cells)
    with pytest.raises(
        ValueError, match=r"needs a design cell of SARSA with 'decode.beta', or of ILQL with it and 'train.tau'"
    ):
        beta_curves(cells)


def test_several_cells_on_one_field_are_refused_with_what_to_select(run: Make, make_table: MakeTable) -> None:
    setting = {"train.tau": 0.8, "decode.beta": 4.0}
    table = make_table(*(run("ilql", [1.0], {**setting, "train.gamma": gamma}) for gamma in (0.9, 0.99)))
    with pytest.raises(ValueError, match=r"got 2 at tau 0.8, beta 4.0; select among train.gamma"):
        heat_map(cells_of(table))


def test_the_curves_over_beta_are_held_against_cloning_alone(run: Make, make_table: MakeTable) -> None:
    others = [run(name, [-1.0]) for name in ("decision_transformer", "awr", "chai", "bc")]
    curve = [run("ilql", [-2.0], {"train.tau": 0.7, "decode.beta": 4.0}), run("qsft", [-3.0], {"decode.beta": 4.0})]
    kept = run("filtered_bc", [-4.0], {"train.keep": 0.1})
    data = beta_curves(cells_of(make_table(*others, *curve, kept)))
    assert [name for _, name, _ in data.levels] == ["%BC", "BC"]
    assert [curve.label for curve in data.curves] == ["τ = 0.7"]


def test_names_of_many_methods_are_broken_into_lines(run: Make, make_table: MakeTable) -> None:
    few = figures.draw_score_by_cell(score_by_cell(cells_of(make_table(run("mc_returns", [1.0])))), y_title="score")
    assert list(few.layout.xaxis.ticktext) == ["<b>MC returns</b><br>1 cell"]
    all_of_them = make_table(*(run(name, [1.0]) for name in METHOD_LABELS))
    many = figures.draw_score_by_cell(score_by_cell(cells_of(all_of_them)), y_title="score")
    assert "<b>MC<br>returns</b><br>1 cell" in many.layout.xaxis.ticktext


# Machado, Oliveira and Fernandes (2009): linear RGB as full protanopes, deuteranopes and tritanopes see it.
EYES = (
    np.eye(3),
    np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
)
XYZ = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])  # of linear sRGB


def seen(colour: str) -> np.ndarray:
    """CIELAB coordinates of a colour to each of `EYES`, shape (4, 3)."""
    share = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    views = [np.cbrt(XYZ @ np.clip(eye @ linear, 0, 1) / XYZ.sum(axis=1)) for eye in EYES]
    return np.array([(116 * y - 16, 500 * (x - y), 200 * (y - z)) for x, y, z in views])


def test_methods_have_colours_that_every_eye_tells_apart() -> None:
    assert set(figures.METHOD_COLOURS) == set(METHOD_LABELS)
    for one, other in itertools.combinations(figures.METHOD_COLOURS.items(), 2):
        apart = np.linalg.norm(seen(one[1]) - seen(other[1]), axis=1).min()
        assert apart > 15, (one[0], other[0], apart)  # a difference of 2 is just noticed side by side
    for method, colour in figures.METHOD_COLOURS.items():
        assert seen(colour)[:, 0].max() < 82, method  # lightness, where white paper has 100


def test_the_beta_axis_writes_its_categories(grid: RunTable) -> None:
    figure = figures.draw_beta_curves(beta_curves(cells_of(grid)), y_title="score")
    assert list(figure.layout.xaxis.ticktext) == ["4", "8", "∞"]
    assert figure.layout.yaxis.title.text == "score"


def test_the_points_drawn_are_the_scores_with_their_errors(grid: RunTable) -> None:
    figure = figures.draw_score_by_cell(score_by_cell(cells_of(grid)), y_title="score")
    design = next(trace for trace in figure.data if trace.legendgroup == "design cell" and trace.error_y.array)
    assert list(design.y) == [-4.0, -7.0, -6.0, -5.0, -10.0]
    assert list(design.error_y.array) == [pytest.approx(1.0)] * 5


def test_parallel_coordinates_have_a_line_for_every_cell_and_few_traces() -> None:
    scores = tuple(float(score) for score in np.linspace(-1.0, 0.0, 500))
    axis = ParallelAxis("τ", ("0.5", "0.9"), tuple(place % 2 for place in range(500)))
    figure = figures.draw_parallel(Parallel("ilql", (axis,), scores, tuple(0.1 for _ in scores)))
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    ends = [y for trace in lines for y, gap in itertools.pairwise(trace.y) if gap is None]
    assert ends == pytest.approx(np.linspace(0.0, 1.0, 500))  # every line ends at its score's place
    assert lines[-1].line.width > lines[0].line.width
    assert len(figure.data) < 150


def test_a_report_page_needs_no_other_file(sweep: RunTable, tmp_path: Path) -> None:
    comparisons = (compare_chosen(cells_of(sweep), "ilql", "bc"),)
    report = write_report(sweep, tmp_path, rng=np.random.default_rng(0), comparisons=comparisons, static_formats=())
    assert report.notes == ()
    assert [path.relative_to(tmp_path).as_posix() for path in report.paths] == [
        *("report.html", "table.md", "table.tex", "table.csv", "table.json"),
        *("comparisons.md", "comparisons.csv", "comparisons.json"),
        *("honest.md", "honest.tex", "honest.csv", "honest.json"),
        *("figures/table.html", "figures/score_by_cell.html", "figures/beta_curves.html", "figures/heat_map.html"),
        "figures/captions.md",
    ]
    for path in report.paths:
        if path.suffix == ".html":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r'<(script|link|img)[^>]+(src|href)="', text)
            assert text.count("plotly.js v") == 1
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the loss is not finite at step 180" in text
    assert comparisons[0].sentence.replace("'", "&#x27;") in text


def test_what_failed_and_why_is_in_every_file_that_a_reader_or_a_program_opens(sweep: RunTable, tmp_path: Path) -> None:
    write_report(sweep, tmp_path, rng=np.random.default_rng(0), static_formats=())
    said = (tmp_path / "table.md").read_text("utf-8")
    assert "| ILQL   | the loss is not finite at step 180 |    3 |" in said
    failures = json.loads((tmp_path / "table.json").read_text("utf-8"))["failures"]
    assert failures == [{"method": "ilql", "reason": "the loss is not finite at step 180", "runs": 3}]


def test_the_footer_has_the_digests_that_it_is_given(sweep: RunTable, tmp_path: Path) -> None:
    digests = {"store": ("abc",), "data": ("d1", "d2"), "environment": ("e (python 3.11.7)",)}
    report = write_report(sweep, tmp_path, rng=np.random.default_rng(0), digests=digests, static_formats=())
    said = "Code c0de. Store abc. Data d1, d2. Environment e (python 3.11.7)."
    assert said in report.paths[0].read_text("utf-8")
    document = json.loads((tmp_path / "table.json").read_text("utf-8"))
    assert document["digests"] == {name: list(each) for name, each in digests.items()}


def test_comparisons_are_for_programs_too(sweep: RunTable, tmp_path: Path) -> None:
    comparisons = (compare_chosen(cells_of(sweep), "ilql", "bc"),)
    report = write_report(sweep, tmp_path, rng=np.random.default_rng(0), comparisons=comparisons, static_formats=())
    (line,) = csv.DictReader(io.StringIO((tmp_path / "comparisons.csv").read_text("utf-8")))
    found = report.inferences[0]
    assert line["name"] == found.name
    assert float(line["difference_low"]) == found.difference.low
    assert float(line["p_holm"]) == found.p_holm
    document = json.loads((tmp_path / "comparisons.json").read_text("utf-8"))
    assert document["inferences"][0]["difference"]["high"] == found.difference.high
    assert document["comparisons"][0]["score"]["value"] == comparisons[0].score.value
    assert document["comparisons"][0]["sentence"] == comparisons[0].sentence


def test_sections_are_for_programs_too(sweep: RunTable, tmp_path: Path) -> None:
    share = Bounded(0.123456, 0.1, 0.2)
    rows = (("τ", share, "−1.00"), ("β", Bounded(0.5, why="too few seeds"), "2.00"))
    table = TextTable("An analysis, of variance", ("Term", "Share", "sd"), rows, (False, True, True))
    section = Section("what", "What it is", ("Said.",), (table,))
    report = write_report(sweep, tmp_path, rng=np.random.default_rng(0), sections=[section], static_formats=())
    names = {"what.md", "what.json", "what_an_analysis.csv"}
    assert {path.name for path in report.paths if path.name.startswith("what")} == names
    lines = list(csv.DictReader(io.StringIO((tmp_path / "what_an_analysis.csv").read_text("utf-8"))))
    assert lines[0] == {
        "Term": "τ", "Share": "0.123456", "Share low": "0.1", "Share high": "0.2", "Share why": "", "sd": "-1.00",
    }  # fmt: skip
    assert (lines[1]["Share low"], lines[1]["Share why"]) == ("", "too few seeds")
    document = json.loads((tmp_path / "what.json").read_text("utf-8"))
    assert document["text"] == ["Said."]
    assert document["tables"][0]["rows"][0]["Share"] == {"value": 0.123456, "low": 0.1, "high": 0.2, "why": ""}
    assert "| τ    |                    0.12 [0.10, 0.20] | −1.00 |" in (tmp_path / "what.md").read_text("utf-8")
    assert "0.50 (too few seeds for an interval)" in report.paths[0].read_text("utf-8")


def test_the_honest_table_leads_unless_the_papers_is_asked_for(sweep: RunTable, tmp_path: Path) -> None:
    def places(style: Style) -> tuple[int, int]:
        report = write_report(sweep, tmp_path, rng=np.random.default_rng(0), style=style, static_formats=())
        assert report.leads_honestly == (style == "honest")
        text = report.paths[0].read_text(encoding="utf-8")
        return text.index('>Tuned<span class="ends">[95 %]</span></th>'), text.index(">Max score</th>")

    assert list(places("honest")) == sorted(places("honest"))
    assert list(places("paper")) == sorted(places("paper"), reverse=True)


def test_with_one_seed_the_papers_table_leads(grid: RunTable, tmp_path: Path) -> None:
    report = write_report(grid, tmp_path, rng=np.random.default_rng(0), static_formats=())
    assert not report.leads_honestly
    text = report.paths[0].read_text(encoding="utf-8")
    assert text.index(">Max score</th>") < text.index("No honest numbers yet")


def test_a_report_counts_failed_runs_as_it_is_told(sweep: RunTable, tmp_path: Path) -> None:
    def widest(**told: Any) -> float:
        write_report(sweep, tmp_path, rng=np.random.default_rng(0), static_formats=(), **told)
        rows = json.loads((tmp_path / "honest.json").read_text("utf-8"))["rows"]
        return float(max(row["paper_sigma"] or 0 for row in rows))

    # Left out, the failed run moves nothing; the lower it counts, the further it lies from the rest.
    assert widest() < widest(policy="floor", floor=-50.0) < widest(policy="floor", floor=-500.0)


def test_a_report_is_the_same_bytes_twice(sweep: RunTable, tmp_path: Path) -> None:
    first = write_report(sweep, tmp_path / "a", rng=np.random.default_rng(0), static_formats=())
    second = write_report(sweep, tmp_path / "b", rng=np.random.default_rng(0), static_formats=())
    assert [path.read_bytes() for path in first.paths] == [path.read_bytes() for path in second.paths]


def test_a_report_of_nothing_says_so(make_table: MakeTable, tmp_path: Path) -> None:
    report = write_report(make_table(), tmp_path, rng=np.random.default_rng(0), static_formats=())
    assert report.notes == ("No figures: nothing has finished yet.",)
    assert "Nothing has finished yet" in report.paths[0].read_text(encoding="utf-8")


def test_a_report_without_a_grid_keeps_its_other_figure(run: Make, make_table: MakeTable, tmp_path: Path) -> None:
    report = write_report(make_table(run("bc", [1.0, 2.0])), tmp_path, rng=np.random.default_rng(0), static_formats=())
    assert report.notes == ("No figures over β: no design cell of SARSA or ILQL has a β.",)
    assert tmp_path / "figures" / "score_by_cell.html" in report.paths


def test_what_a_row_says_cannot_become_markup(run: Make, make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table(run("bc", [1.0]), run("bc", seed=1, status="failed", reason="<script>alert(1)</script>"))
    report = write_report(table, tmp_path, rng=np.random.default_rng(0), static_formats=())
    assert "&lt;script&gt;alert(1)" in report.paths[0].read_text(encoding="utf-8")


def test_without_a_browser_a_line_says_how_to_get_static_figures(
    grid: RunTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no browser here"))
    report = write_report(grid, tmp_path, rng=np.random.default_rng(0), static_formats=("svg",))
    assert len(report.notes) == 1
    assert "apt-get install chromium" in report.notes[0]
    assert "\n" not in report.notes[0]
    assert not list(tmp_path.rglob("*.svg"))


def test_no_file_but_the_static_figures_says_whether_a_browser_drew_them(
    grid: RunTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(drawn: Mapping[str, figures.Picture], folder: Path, formats: Sequence[str]) -> list[Path]:
        paths = [folder / f"{name}.{suffix}" for name in drawn for suffix in formats]
        for path in paths:
            path.touch()
        return paths

    def written(folder: Path) -> dict[Path, bytes]:
        report = write_report(grid, folder, rng=np.random.default_rng(0), static_formats=("svg", "png"))
        return {path.relative_to(folder): path.read_bytes() for path in report.paths}

    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no browser here"))
    without = written(tmp_path / "without")
    monkeypatch.setattr(figures, "write_static", draw)
    drawn = written(tmp_path / "drawn")
    assert {path.suffix for path in drawn.keys() - without.keys()} == {".svg", ".png"}
    assert without == {path: drawn[path] for path in without}


def test_a_browser_that_hangs_is_ended_and_costs_the_static_figures_alone(
    grid: RunTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kaleido")
    browser, number = tmp_path / "browser", tmp_path / "number"
    browser.write_text(f"#!/bin/sh\necho $$ >{number}\nexec sleep 600\n", encoding="utf-8")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    monkeypatch.setattr(export, "BROWSER_SECONDS", 3.0)
    (tmp_path / "to").mkdir()
    report = write_report(grid, tmp_path / "to", rng=np.random.default_rng(0), static_formats=("svg",))
    assert "had not drawn them after 3 s" in report.notes[0]
    assert not list(tmp_path.rglob("*.svg"))
    assert report.paths[0].is_file()
    state = Path(f"/proc/{int(number.read_text())}/stat")
    assert not state.exists() or ") Z " in state.read_text()  # a zombie is a process that was ended


@pytest.mark.skipif(shutil.which("chromium") is None, reason="static figures need Chromium on the PATH")
def test_static_figures_come_in_three_formats(grid: RunTable, tmp_path: Path) -> None:
    figure = figures.draw_heat_map(heat_map(cells_of(grid)), value_title="score")
    paths = figures.write_static({"heat_map": figures.picture(figure)}, tmp_path)
    assert [path.name for path in paths] == ["heat_map.svg", "heat_map.png", "heat_map.pdf"]
    assert [path.read_bytes()[:4] for path in paths] == [b"<svg", b"\x89PNG", b"%PDF"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="static figures need Chromium on the PATH")
def test_a_figure_drawn_twice_is_the_same_file(grid: RunTable, tmp_path: Path) -> None:
    cells, made = cells_of(grid), []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        drawn = {
            "map": figures.draw_heat_map(heat_map(cells), value_title="score"),  # its colours are a gradient with an id
            "curves": figures.draw_beta_curves(beta_curves(cells), y_title="score"),
        }
        pictures = {name: figures.picture(figure) for name, figure in drawn.items()}
        made.append([path.read_bytes() for path in figures.write_static(pictures, folder, ["svg"])])
    assert made[0] == made[1]
    assert b"defs-" in made[0][0]


def test_ids_drawn_by_lot_are_made_of_the_name_and_no_number_is_taken_for_one() -> None:
    svg = '<svg><defs id="defs-012345"><clipPath id="clip012345xy"/></defs><path d="M012345,1"/></svg>'
    made = without_lot(svg, "map")
    assert made == without_lot(svg.replace("-012345", "-abcdef").replace("clip012345", "clipabcdef"), "map")
    assert made != without_lot(svg, "curves")
    assert "M012345,1" in made
    assert without_lot("<svg/>", "map") == "<svg/>"


def test_an_unknown_static_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown figure format 'gif'; known: svg, png, pdf"):
        figures.write_static({}, tmp_path, ["gif"])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="a page's widths need Chromium on the PATH")
def test_the_honest_table_fits_a_window_of_1200_pixels(sweep: RunTable, tmp_path: Path) -> None:
    report = write_report(sweep, tmp_path / "report", rng=np.random.default_rng(0), static_formats=())
    tables = re.search(r"<body>.*?</table></div>", report.paths[0].read_text("utf-8"), re.DOTALL)
    style = re.search(r"<style>.*?</style>", report.paths[0].read_text("utf-8"), re.DOTALL)
    assert tables is not None
    assert style is not None
    assert "σ of decoding" in tables.group()
    measure = (
        "<script>const e = document.querySelector('.scroll');"
        "document.write('<i>' + [innerWidth, e.scrollWidth, e.clientWidth].join(' ') + '</i>')</script>"
    )
    alone = tmp_path / "alone.html"
    wide = tables.group().replace("−5.80", "−10.8012")  # small errors have four decimals
    alone.write_text(f"<!DOCTYPE html><html><head>{style.group()}</head>{wide}{measure}", "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    seen = subprocess.run(
        ["chromium", *options, "--window-size=1200,1000", "--dump-dom", alone.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    found = re.search(r"<i>(\d+) (\d+) (\d+)</i>", seen)
    assert found is not None
    window, content, shown = map(int, found.groups())
    assert window == 1200
    assert content <= shown


def test_an_interval_may_stand_below_its_number() -> None:
    stacked = html_table(("x [95 %]",), [("1 [0, 2]",), ("–",)], (True,), stacked=True)
    assert '<td class="number">1<span class="ends">[0, 2]</span></td>' in stacked
    assert '<th class="number">x<span class="ends">[95 %]</span></th>' in stacked
    assert '<td class="number">–</td>' in stacked
    assert '<td class="number">1 [0, 2]</td>' in html_table(("x",), [("1 [0, 2]",)], (True,))


def test_numbers_are_written_one_way() -> None:
    assert with_error(-5.689, 0.131) == "−5.69 ± 0.13"
    assert number(-0.001) == "0.00"
    assert with_error(None, None) == "–"
    assert with_error(1.0, None) == "1.00 ± –"
    assert setting_label({"train.tau": 0.8, "decode.beta": math.inf, "train.keep": 0.1}) == "τ 0.8, β ∞, kept 10 %"
    assert setting_label({"train.awr_beta": 4.0, "decode.candidates": 16, "decode.target_return": -11.0}) == (
        "AWR β 4, N 16, target return −11"
    )
    assert value_label(1e-4) == "0.0001"
    assert latex("50 % of a_b −1 ± σ") == r"50 \% of a\_b $-$1 $\pm$ $\sigma$"


def test_unknown_methods_follow_the_known_ones() -> None:
    assert in_order(METHOD_LABELS) == tuple(METHOD_LABELS)
    assert list(METHOD_LABELS.values())[:8] == [
        "ILQL",
        "CQL",
        "ψ",
        "SARSA",
        "DT",
        "ILQL (AWR)",
        "%BC",
        "BC",
    ]  # the paper's
    assert in_order(["zeta", "bc", "alpha", "ilql", "bc"]) == ("ilql", "bc", "alpha", "zeta")


def test_the_caption_counts_runs(grid: RunTable) -> None:
    assert ablation_table(grid).caption == (
        "Ablation on visdial: trained on reward yn, scored by reward yn on the report scenes (2 episodes per run); "
        "6 finished runs, 1 failed, 0 stopped."
    )
