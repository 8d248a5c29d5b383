"""What is wrong with a store, one line for each finding, and what to do about it.

Nothing here changes anything. None of what is found stops a reader: a row that lacks what it stands on is left out or
made again when its command is run again.
"""

from __future__ import annotations

from collections.abc import Iterator

from sweeps.store import Store

RECORDED = {"weights": "training", "evaluation": "evaluation"}
"""The kinds of stages that a record of the same key belongs to, and that record's kind."""

AGAIN = "the sweep's command, run again, makes it anew"


def findings(store: Store, *, deep: bool = True) -> list[str]:
    """Every inconsistency of a store, one line each; empty if all is well.

    Args:
        store: Which.
        deep: Whether every file's bytes are compared with their digest; else only its size.
    """
    return [*store.problems(), *_stages(store, deep=deep), *_rows(store), *_leases(store)]


def _stages(store: Store, *, deep: bool) -> Iterator[str]:
    """Stages that do not count as whole though they have their name, and files that were altered."""
    for kind, key in store.stages():
        if store.stage(kind, key) is None:
            yield f"stage {kind}/{key}: is not whole and counts as missing; {AGAIN}"
        elif deep:
            yield from (f"stage {kind}/{key}: {line}" for line in store.altered(kind, key))


def _rows(store: Store) -> Iterator[str]:
    """Finished rows without what they stand on, and what stands without a row."""
    for kind, record in RECORDED.items():
        finished = {key for key, value in store.all(record).items() if value.get("status") == "finished"}
        there = {key for of, key in store.stages() if of == kind}
        for key in sorted(finished - there):
            if kind == "weights" and store.dropped_weights(key) is not None:
                continue
            yield f"{record} {key}: finished, but its stage {kind} is gone; {AGAIN}"
        for key in sorted(there - store.all(record).keys()):
            yield f"stage {kind}/{key}: has no record, its writer was killed before that; {AGAIN}"
    sweeps = store.all("sweep")
    for member in store.members():
        if member["sweep"] not in sweeps:
            yield f"member {member['trial_id']}: belongs to {member['sweep']}, which has no record; {AGAIN}"


def _leases(store: Store) -> Iterator[str]:
    """Leases whose holder is known to be dead."""
    for key, term, holder in store.leases():
        if holder is None:
            yield f"lease {key}, term {term}: does not say whose it is; whoever needs it waits a minute, then takes it"
        elif holder.is_dead():
            who = f"process {holder.number} of {holder.host}"
            yield f"lease {key}, term {term}: {who} died with it; whoever needs it takes it at once"
