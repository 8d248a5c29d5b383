"""Comparisons and sections for programs: JSON of all that they know, CSV of their tables, as of the ablation table.

Full precision, empty or null where there is no number, `inf` for infinity. A cell with an interval is four: its value,
its low and its high end, and why it has none.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.bounded import Bounded
from analysis.comparison import Comparison
from analysis.family import Inference
from analysis.section import Section, TextTable

_SPELT = {"σ": "sigma", "β": "beta", "τ": "tau", "γ": "gamma", "Φ": "phi"}
ENDS = ("low", "high", "why")


def comparisons_csv(inferences: Sequence[Inference]) -> str:
    """One line per comparison: `difference_low` is the low end of its difference."""
    lines = [_flat(dataclasses.asdict(each)) for each in inferences]
    buffer = io.StringIO()
    header = dict.fromkeys(name for line in lines for name in line)
    writer = csv.DictWriter(buffer, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def comparisons_json(inferences: Sequence[Inference], comparisons: Sequence[Comparison]) -> str:
    """What each comparison says of other training seeds, and of these trained models with both cells."""
    said = [{"sentence": each.sentence, **dataclasses.asdict(each)} for each in comparisons]
    return _dumps({"inferences": list(map(dataclasses.asdict, inferences)), "comparisons": said})


def section_json(section: Section) -> str:
    """A section's text and tables, a mapping by column for each row, and the captions of its figures."""
    tables = [
        {"title": table.title, "rows": [dict(zip(table.header, row, strict=True)) for row in table.rows]}
        for table in section.tables
    ]
    captions = {name: caption for name, (_, caption) in section.figures.items()}
    document = {"name": section.name, "title": section.title, "text": section.text, "tables": tables}
    return _dumps({**document, "figures": captions})


def section_csv(section: Section) -> dict[str, str]:
    """The CSV of each of a section's tables, by the stem of its file: the section's name, then the table's title."""
    found: dict[str, str] = {}
    for table in section.tables:
        stem = f"{section.name}_{_stem(table.title)}"
        alike = sum(re.fullmatch(rf"{re.escape(stem)}(_\d+)?", other) is not None for other in found)
        found[f"{stem}_{alike + 1}" if alike else stem] = table_csv(table)
    return found


def table_csv(table: TextTable) -> str:
    """One line per row, with columns of their own for the ends of a column's intervals; a minus sign is a hyphen."""
    bounded = [any(isinstance(row[place], Bounded) for row in table.rows) for place in range(len(table.header))]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    named = zip(table.header, bounded, strict=True)
    writer.writerow([each for name, ends in named for each in (name, *(f"{name} {end}" for end in ENDS if ends))])
    for row in table.rows:
        line: list[object] = []
        for entry, ends, numeric in zip(row, bounded, table.numeric, strict=True):
            if isinstance(entry, Bounded):
                line += [entry.value, entry.low, entry.high, entry.why]
            else:
                line += [entry.replace("−", "-") if numeric else entry, *([""] * len(ENDS) if ends else [])]
        writer.writerow(line)
    return buffer.getvalue()


def _stem(title: str) -> str:
    """`Analysis of variance, on …` as `analysis_of_variance`: what stands behind a comma or in brackets is left out."""
    spelt = "".join(_SPELT.get(letter, letter) for letter in re.split(r"[,(]", title)[0])
    return re.sub(r"[^a-z0-9]+", "_", spelt.lower()).strip("_")


def _flat(value: Mapping[str, object], before: str = "") -> dict[str, object]:
    """`difference` by its own name, its other fields behind it; pairs by their number."""
    found: dict[str, object] = {}
    for name, each in value.items():
        own = f"{before}{name}"
        if isinstance(each, Mapping):
            found |= {key.removesuffix("_value"): inner for key, inner in _flat(each, f"{own}_").items()}
        elif isinstance(each, list | tuple):
            found |= _flat({str(place): inner for place, inner in enumerate(each)}, f"{own}_")
        else:
            found[own] = each
    return found


def _dumps(document: Mapping[str, object]) -> str:
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, Bounded):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
