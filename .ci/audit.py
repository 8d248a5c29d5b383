"""Look the fixed versions up among known vulnerabilities with pip-audit, and say so where they could not be looked up.

pip-audit says "No known vulnerabilities found" also where it could ask nobody: each package is then skipped. Here a
package that was skipped counts as not looked up. Status 1 if a vulnerability is known, else 0: no check fails for want
of a network.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"


def main() -> int:
    """Audit one package to see whether there is anybody to ask, then all of them; returns the exit status."""
    lines = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    for asked in (lines[:1], lines):
        found = audit(asked)
        if not looked_up(found):
            break
    status, said = verdict(found, asked=len(lines))
    sys.stdout.write(f"{said}\n")
    return status


def audit(requirements: Sequence[str]) -> list[Mapping[str, Any]] | None:
    """What pip-audit found of each `name==version`; None if it came to no end."""
    with tempfile.TemporaryDirectory() as folder:
        listed, found = Path(folder) / "listed.txt", Path(folder) / "found.json"
        listed.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [
            sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip", "--timeout", "10",
            "--progress-spinner", "off", "-f", "json", "-o", str(found),
        ]  # fmt: skip
        try:
            subprocess.run(command, check=False, capture_output=True, timeout=300)
            return list(json.loads(found.read_text(encoding="utf-8"))["dependencies"])
        except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
            return None


def looked_up(found: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """Those of the packages that somebody was asked about."""
    return [each for each in found or () if "skip_reason" not in each]


def verdict(found: Sequence[Mapping[str, Any]] | None, *, asked: int) -> tuple[int, str]:
    """Exit status and what is to be said, of the `asked` packages that there are."""
    audited = looked_up(found)
    if not audited:
        return 0, f"pip-audit could not look up any of {asked} packages here: nothing is known of their vulnerabilities"
    known = [f"{each['name']} {each['version']}: {flaw['id']}" for each in audited for flaw in each["vulns"]]
    rest = f"; {asked - len(audited)} could not be looked up" if len(audited) < asked else ""
    said = f"pip-audit: {len(known)} known vulnerabilities in {len(audited)} packages{rest}"
    return int(bool(known)), "\n".join([said, *known])


if __name__ == "__main__":
    sys.exit(main())
