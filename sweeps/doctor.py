"""What is wrong with a store, one line for each finding, and what to do about it.

Nothing here changes anything. None of what is found stops a reader: a row that lacks what it stands on is left out or
made again when its command is run again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from ilql.checkpoint import CheckpointError, check_checkpoint
from sweeps.exact_json import Record
from sweeps.leftovers import lines as leftover_lines
from sweeps.plain_files import read_plain
from sweeps.spec import TrialSpec
from sweeps.store import Store, StoreError

RECORDED = {"weights": "training", "evaluation": "evaluation"}
"""The kinds of stages that a record of the same key belongs to, and that record's kind."""

AGAIN = "the sweep's command, run again, makes it anew"

_CLOSE = 1e-9
"""Relative: two ways to sum the same returns differ by less."""

_LONGEST_STUDY = 1 << 30  # bytes


def findings(store: Store, *, deep: bool = True) -> list[str]:
    """Every inconsistency of a store, one line each; empty if all is well.

    Args:
        store: Which.
        deep: Whether every file's bytes are compared with their digest, and every score with its episodes; else only
            files' sizes.

    Raises:
        StoreError: The disk does not give what is there.
    """
    found = [*store.problems(), *_stages(store, deep=deep), *_rows(store), *_members(store), *_leases(store)]
    found += [*_checkpoints(store, deep=deep), *_copies(store), *_strangers(store)]
    return [*found, *_scores(store)] if deep else found


def notes(store: Store) -> list[str]:
    """What looks like a fault and is none, and what is left over, one line each."""
    return [*store.notes(), *leftover_lines(store)]


def _stages(store: Store, *, deep: bool) -> Iterator[str]:
    """Stages that do not count as whole though they have their name, and files that were altered."""
    for kind, key in store.stages():
        flaw = store.stage_flaw(kind, key)
        if flaw is not None:
            yield f"stage {kind}/{key}: is not whole and counts as missing: {flaw}; {AGAIN}"
        elif deep:
            yield from (f"stage {kind}/{key}: {line}" for line in store.altered(kind, key))


def _rows(store: Store) -> Iterator[str]:
    """Finished rows without what they stand on, and what stands without a row."""
    for kind, record in RECORDED.items():
        finished = {key for key, value in store.all(record).items() if value.get("status") == "finished"}
        there = {key for of, key in store.stages() if of == kind}
        for key in store.lacking(kind, sorted(finished - there)):
            if kind == "weights" and store.dropped_weights(key) is not None:
                continue
            yield f"{record} {key}: finished, but its stage {kind} is gone; {AGAIN}"
        for key in sorted(there - store.all(record).keys()):
            yield f"stage {kind}/{key}: has no record, its writer was killed before that; {AGAIN}"
    sweeps = store.all("sweep")
    for member in store.members():
        if member["sweep"] not in sweeps:
            yield f"member {member['trial_id']}: belongs to {member['sweep']}, which has no record; {AGAIN}"


def _members(store: Store) -> Iterator[str]:
    """Places whose trial cannot be read, or is another than they say, and what their trials start from that is gone."""
    missing: dict[tuple[str, str], int] = {}
    for member in store.members():
        if member.get("spec") is None:
            continue  # of a version that did not keep it
        name = f"member {member['trial_id']} of {member['sweep']}"
        try:
            spec = TrialSpec.from_json(member["spec"])
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as fault:
            said = str(fault).partition("\n")[0][:100]
            yield f"{name}: its trial cannot be read by this version ({said}); it is neither played nor trained again"
            continue
        if spec.trial_id != member["trial_id"]:
            continue  # of another version, which has other keys
        if (spec.weights_id, spec.cell_id) != (member["weights_id"], member["cell_id"]):
            yield f"{name}: says other weights or another cell than its trial has; {AGAIN}"
        for needed in _started_from(spec):
            if needed not in missing and store.has(*needed):
                missing[needed] = 0
            elif missing.get(needed) != 0:
                missing[needed] = missing.get(needed, 0) + 1
    for (kind, key), members in missing.items():
        if members:
            yield f"stage {kind}/{key}: is gone, and {members} of the rows start from it; {AGAIN}"


def _started_from(spec: TrialSpec) -> tuple[tuple[str, str], ...]:
    """Kind and key of the stages that a trial starts from and that are never freed."""
    worlds = dict.fromkeys((spec.data.world, spec.evaluation.world))
    return (
        *(("world", world) for world in worlds),
        ("tokenizer", spec.tokenizer_key),
        ("backbone", spec.backbone_key),
    )


def _scores(store: Store) -> Iterator[str]:
    """Evaluations whose score is not the mean return of their episodes."""
    for key, record in sorted(store.all("evaluation").items()):
        if record["status"] != "finished" or not store.has("evaluation", key):
            continue
        try:
            returns = store.episodes([key], ["return"])["return"].to_list()
            mean = math.fsum(returns) / len(returns)
        except (StoreError, ValueError, TypeError, OverflowError, ZeroDivisionError) as fault:
            said = str(fault).partition("\n")[0][:160]
            yield f"evaluation {key}: its episodes cannot be read ({said}); {_both_anew(store, key)}"
            continue
        if not _agrees(record, mean, len(returns)):
            yield (
                f"evaluation {key}: its score is {record['score']}, and {mean} is the mean of its {len(returns)} "
                f"episodes; {_both_anew(store, key)}"
            )


def _agrees(record: Record, mean: float, episodes: int) -> bool:
    score = float(record["score"])
    same = math.isclose(score, mean, rel_tol=_CLOSE, abs_tol=_CLOSE) or (math.isnan(score) and math.isnan(mean))
    return same and record.get("episodes") in (None, episodes)


def _both_anew(store: Store, key: str) -> str:
    return f"remove {store.stage('evaluation', key)}, and the sweep's command makes both anew"


def _checkpoints(store: Store, *, deep: bool) -> Iterator[str]:
    """Checkpoints that a training would pass over."""
    for folder in sorted(store.folder.glob("scratch/trajectory/*/*/checkpoints/step-*")):
        if not deep and folder.is_dir():
            continue
        try:
            check_checkpoint(folder)
        except (CheckpointError, OSError) as fault:
            said = str(fault).partition("\n")[0]
            yield f"checkpoint {folder.relative_to(store.folder)}: is passed over for the one before it ({said})"


def _copies(store: Store) -> Iterator[str]:
    """Copies of what is in the store, for other programs, that those cannot read, and what is left of writing them."""
    flaw = store.table_flaw()
    if flaw is not None:
        yield f"rows/runs.parquet: {flaw}; `sweeps report` writes it anew"
    for path in store.begun():
        name = path.relative_to(store.folder)
        yield f"{name}: was not completed (its writer was killed, or is at it now); `sweeps gc` removes it in an hour"
    for study in sorted(store.folder.glob("optuna/*.log")):
        if (said := _study_flaw(study)) is not None:
            yield f"optuna/{study.name}: {said}; the sweep's command, run again, writes it anew"


def _study_flaw(study: Path) -> str | None:
    """Why a study's journal cannot be read, in a few words; None if it can."""
    try:
        lines = read_plain(study, longest=_LONGEST_STUDY).splitlines()
    except OSError as fault:
        return f"cannot be read ({fault.strerror})"
    for number, line in enumerate(lines, 1):
        try:
            sound = isinstance(json.loads(line), dict)
        except (ValueError, RecursionError):
            sound = False
        if not sound:
            return f"line {number} is none of a study's"
    return None


def _strangers(store: Store) -> Iterator[str]:
    """What nobody of ours put into the store's folders."""
    for name in store.strangers():
        if name in ("leases", "stages"):
            yield f"{name}: must be a folder, and nothing new can be made; move it away"
        else:
            yield f"{name}: is none of ours, and is not read; remove it"


def _leases(store: Store) -> Iterator[str]:
    """Leases whose holder is known to be dead."""
    for key, term, holder in store.leases():
        if holder is None:
            yield f"lease {key}, term {term}: does not say whose it is; whoever needs it waits a minute, then takes it"
        elif holder.is_dead():
            who = f"process {holder.number} of {holder.host}"
            yield f"lease {key}, term {term}: {who} died with it; whoever needs it takes it at once"
