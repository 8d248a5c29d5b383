"""The pages as a site: it builds, every link leads somewhere, and looking at it asks nobody on the network."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed beside this Python: run make test"
)


def build(tree: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        check=False, cwd=tree, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_folder_and_both_outside_it_are_built(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"index", "contributing"}
    assert {path.stem for path in site.glob("*.html")} - {"404"} == pages
    assert "<h1" in (site / "index.html").read_text(encoding="utf-8")


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
    for page in site.glob("*.html"):
        assert loads.findall(page.read_text(encoding="utf-8")) == [], page.name
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)]*", sheet.read_text(encoding="utf-8")) == []


def test_fences_became_blocks_and_tables_became_tables(site: Path) -> None:
    for page in site.glob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "```" not in text, page.name
        assert "| ---" not in text, page.name


def test_a_page_that_is_named_is_a_link(site: Path) -> None:
    assert '<a href="adding.html">docs/adding.md</a>' in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "link", "said"),
    [
        ("scale.md", "[x](nowhere.md)", "'nowhere.md'"),
        ("scale.md", "[x](security.md#nothing-like-this)", "nothing-like-this"),
        ("scale.md", "docs/nowhere.md", "'nowhere.md'"),
        ("../README.md", "[x](docs/nowhere.md)", "'nowhere.md'"),
        ("../README.md", "![a picture](docs/nowhere.svg)", "'nowhere.svg'"),
        ("new.md", "in no menu", "new.md"),
    ],
)
def test_what_leads_nowhere_fails(page: str, link: str, said: str, tmp_path: Path) -> None:
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "docs" / page).open("a", encoding="utf-8") as file:
        file.write(f"\n\n{link}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stderr


def test_the_readmes_table_its_picture_and_what_stands_for_that_say_the_same() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    picture = (ROOT / "docs" / "ablation.svg").read_text(encoding="utf-8")
    (instead,) = re.findall(r"!\[(.*)\]\(docs/ablation\.svg\)", readme)
    table = readme.partition("## The table")[2].partition("| ILQL ")[2]
    rows = [
        [cell.strip() for cell in row.strip("| ").split("|")] for row in f"ILQL {table}".split("\n\n")[0].split("\n")
    ]
    assert len(rows) == 8
    for method, score, _, sigma, *_ in rows:
        assert f"{method} {score}" in instead
        assert f", σ {sigma}" in instead or sigma == "–"
        assert all(f">{text}<" in picture for text in (method, score, sigma))
