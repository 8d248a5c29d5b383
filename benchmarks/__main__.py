"""Run benchmarks, each in a process of its own; print the table and keep the numbers in `benchmarks/results`.

```
python -m benchmarks                    all but the long ones
python -m benchmarks --long             the long ones
python -m benchmarks training_step      these
python -m benchmarks --quick            at the smallest size, which shows that they run and measures nothing
python -m benchmarks --table            print what was measured last
```
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import benchmarks
from benchmarks.measure import Benchmark, Line

RESULTS = Path(__file__).resolve().parent / "results"
LIBRARIES = ("torch", "transformers", "ray", "optuna", "mlflow", "polars")
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One thread a side: a worker of a sweep has one core."""


def known() -> dict[str, Benchmark]:
    """Every file of this folder that presents a benchmark, by name."""
    found = {}
    for info in sorted(pkgutil.iter_modules(benchmarks.__path__), key=lambda each: each.name):
        if info.name.startswith("_"):
            continue
        benchmark = getattr(importlib.import_module(f"benchmarks.{info.name}"), "BENCHMARK", None)
        if isinstance(benchmark, Benchmark):
            found[benchmark.name] = benchmark
    return found


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status says whether everything ran, not whether goals were met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="which; all that are not long without one")
    parser.add_argument("--long", action="store_true", help="the long ones")
    parser.add_argument("--quick", action="store_true", help="at the smallest size, to see that they run")
    parser.add_argument("--table", action="store_true", help="print the results that are there")
    parser.add_argument("--out", type=lambda said: Path(said).resolve(), default=RESULTS, help="folder of the results")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    there = known()
    unknown = [name for name in asked.names if name not in there]
    if unknown:
        print(f"error: a benchmark must be one of {', '.join(there)}, got {unknown[0]}", file=sys.stderr)
        return 2
    chosen = asked.names or [name for name, each in there.items() if each.long == asked.long]
    if asked.here:
        (name,) = chosen
        _measure(there[name], asked.out, quick=asked.quick)
        return 0
    failed = []
    for name in () if asked.table else chosen:
        print(f"{name}: {there[name].question}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks", name, "--here", "--out", str(asked.out)]
        command += ["--quick"] if asked.quick else []
        if subprocess.run(command, env=os.environ | THREADS, cwd=RESULTS.parents[1], check=False).returncode:
            failed.append(name)
    print(table(asked.out, [name for name in chosen if name not in failed]))
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return 1 if failed else 0


def _measure(benchmark: Benchmark, out: Path, *, quick: bool) -> None:
    began = time.perf_counter()
    lines = benchmark.run(quick)
    result = {
        "benchmark": benchmark.name,
        "question": benchmark.question,
        "quick": quick,
        "lines": [asdict(line) | {"ratio": line.ratio, "met": line.met} for line in lines],
        "seconds": round(time.perf_counter() - began, 1),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{benchmark.name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


def commit() -> str:
    """The commit, with a + where files differ from it; `unknown` outside a repository."""
    git = ["git", "-C", str(RESULTS.parents[1])]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", ".", ":!benchmarks/results", ":!docs"],
        capture_output=True,
        text=True,
        check=False,
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else "unknown"


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = platform.processor()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        model = next((x.split(":", 1)[1].strip() for x in cpu.read_text().splitlines() if "model name" in x), model)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform(), "load_after": load}


def table(folder: Path, names: Sequence[str]) -> str:
    """The results of some benchmarks, as Markdown."""
    rows = [("Measured", "Ours", "The other side", "Ratio (spread)", "Goal", "Met"), ("---",) * 6]
    notes = []
    for name in names:
        if not (folder / f"{name}.json").is_file():
            continue
        result = json.loads((folder / f"{name}.json").read_text("utf-8"))
        for kept in result["lines"]:
            line = Line(**{key: value for key, value in kept.items() if key not in ("ratio", "met")})
            sign = "≥" if line.at_least else "≤"
            rows.append(
                (
                    line.name,
                    f"{_number(statistics.median(line.ours))} {line.unit}",
                    f"{_number(statistics.median(line.other))} {line.unit}: {line.other_is}",
                    f"{_number(line.ratio)} ({_number(min(line.ratios))} to {_number(max(line.ratios))})",
                    f"{sign} {_number(line.goal)}",
                    "quick" if result["quick"] else "yes" if line.met else "no",
                )
            )
            if line.note:
                notes.append(f"{line.name}: {line.note}")
        stamp = f"{name}: {result['when']}, commit {result['commit']}, {result['machine']['processor']}, "
        notes.append(stamp + f"{result['machine']['cores']} cores, {result['seconds']} s")
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([text, "", *notes])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
