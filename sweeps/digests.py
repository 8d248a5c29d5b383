"""What a report rests on, in digests of twelve hexadecimal digits: records and episodes, data, environments.

All of it as it was recorded: the same store gives the same digests wherever a report is rendered, and by whatever
versions. What code made the rows stands in the rows themselves (`code_digest`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from sweeps.exact_json import Record, dumps_again
from sweeps.frames import EPISODES_FILE
from sweeps.store import Store

DIGITS = 12
WORLDS = ("data.world", "evaluation.world")


def report_digests(store: Store, sweep: str) -> dict[str, tuple[str, ...]]:
    """The digests of a sweep's report, by what they are of; several where rows differ.

    `store`: over the sweep's members, the evaluations and trainings that they name, and the SHA-256 of the evaluations'
    files of episodes, in the order of their keys. `data`: the worlds that were learnt from and played in, whose keys
    are digests of their content. `environment`: the versions of Python and of libraries that rows record, in full
    behind the digest.
    """
    members = store.members(sweep)
    trials = sorted({trial for each in members for trial in (each["trial_id"], each.get("tune_trial_id")) if trial})
    evaluations = store.some("evaluation", trials)
    trainings = store.some("training", sorted({each["weights_id"] for each in members}))
    kinds: tuple[tuple[str, Mapping[str, Record]], ...] = (
        ("member", {each["trial_id"]: each for each in members}),
        ("evaluation", evaluations),
        ("training", trainings),
        ("episodes", {key: {"sha256": _episodes(store, key)} for key in evaluations}),
    )
    # By name: a journal that was compacted keeps no other order.
    lines = (f"{kind} {key} {dumps_again(records[key])}\n" for kind, records in kinds for key in sorted(records))
    worlds = {each["columns"].get(name) for each in members for name in WORLDS}
    found = [each["versions"] for each in (*evaluations.values(), *trainings.values()) if each.get("versions")]
    environments = {dumps_again(versions): versions for versions in found}
    return {
        "store": (_digest(lines),) if members else (),
        "data": tuple(sorted(str(world)[:DIGITS] for world in worlds if world)),
        "environment": tuple(_environment(line, environments[line]) for line in sorted(environments)),
    }


def _environment(line: str, versions: Mapping[str, str]) -> str:
    return f"{_digest([line])} ({', '.join(f'{name} {version}' for name, version in versions.items())})"


def _episodes(store: Store, trial: str) -> str | None:
    files: Mapping[str, Mapping[str, str]] = (store.about("evaluation", trial) or {}).get("files", {})
    return files.get(EPISODES_FILE, {}).get("sha256")


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()[:DIGITS]
