"""One setting varied: methods down, values across, and a line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.ablation import ablation_table
from analysis.report import write_section
from analysis.section import section_markdown
from analysis.varied import Varied, varied_section

Make = Callable[..., Any]


@pytest.fixture
def ablations(run: Make, make_table: Make) -> list[Varied]:
    """Without noise ILQL has −1 and BC −4; with it ILQL has −3, and BC was not run."""
    quiet = make_table(run("ilql", [0.0, -2.0], {"decode.beta": 4.0}), run("bc", [-3.0, -5.0]))
    noisy = make_table(run("ilql", [-2.0, -4.0], {"decode.beta": 4.0}))
    return [Varied(0.0, ablation_table(quiet)), Varied(0.5, ablation_table(noisy))]


def test_methods_stand_down_and_values_across(ablations: list[Varied]) -> None:
    section = varied_section("world.noise", ablations)
    assert section.tables[0].header == ("Method", "0", "0.5")
    assert section.tables[0].rows == (("ILQL", "−1.00 ± 1.00", "−3.00 ± 1.00"), ("BC", "−4.00 ± 1.00", "–"))
    assert "Max score by noise" in section_markdown(section)


def test_a_line_leaves_out_what_was_not_run(ablations: list[Varied]) -> None:
    figure, _ = varied_section("world.noise", ablations).figures["over_world_noise"]
    assert [(line.name, list(line.x), list(line.y)) for line in figure.data] == [
        ("ILQL", [0, 1], [-1.0, -3.0]), ("BC", [0], [-4.0])
    ]  # fmt: skip
    assert list(figure.layout.xaxis.ticktext) == ["0", "0.5"]


def test_it_is_written_as_a_page_as_text_and_for_programs(ablations: list[Varied], tmp_path: Path) -> None:
    page, text, *tables = write_section(varied_section("world.noise", ablations), tmp_path / "new")
    assert (page.name, text.name) == ("over_world_noise.html", "over_world_noise.md")
    names = [path.name for path in tables]
    assert names == [
        "over_world_noise.json",
        "over_world_noise_max_score_by_noise.csv",
        "over_world_noise_sigma_by_noise.csv",
    ]
    assert "over_world_noise" in page.read_text(encoding="utf-8")
    assert text.read_text(encoding="utf-8").startswith("### Over noise")


def test_nothing_varied_is_refused() -> None:
    with pytest.raises(ValueError, match=r"an ablation over world.noise needs at least one value, got none"):
        varied_section("world.noise", [])
