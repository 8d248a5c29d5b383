"""What MkDocs is told that mkdocs.yml cannot say: README.md is the site's start, and a page that is named is a link."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages that lie outside docs/, and what the site calls them."""

FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"(?<![\w/(\[`])`?docs/(\w+\.md)`?(?!\])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the site, with the pages that lie outside its folder."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """A page whose links are those of the site; a strict build fails where one leads nowhere."""
    code = FENCED.findall(markdown)
    text = [site_links(part) for part in FENCED.split(markdown)]
    return "".join(part for pair in zip(text, [*code, ""], strict=True) for part in pair)


def site_links(text: str) -> str:
    """Text without blocks of code, its links as the site's folder has them, and `docs/page.md` a link as well."""
    text = re.sub(r"\]\((?:\.\./)?docs/", "](", text)
    for source, page in OUTSIDE.items():
        text = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}", f"]({page}", text)
    return NAMED.sub(r"[docs/\1](\1)", text)
