"""What lies in a store and is of no use to anybody: found, and who may remove it. It is no fault, and is never read.

A process that was killed leaves what it would have removed: what Ray Tune and Ray Train noted for it, and the files by
which nodes were asked whether they see the store. `sweeps gc` removes that, where a rerun has not. What nobody of ours
put there is named, and stays.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.artefacts import is_old
from sweeps.leases import driver_key, is_key
from sweeps.replica import LINK
from sweeps.store import MARK, Store

_OURS = frozenset({
    MARK, LINK, "journals", "stages", "scratch", "leases", "rows", "reports", "optuna", "tune", "nodes", "mlflow.db",
    "mlflow.db-journal", "mlflow.db-wal", "mlflow.db-shm", "mlflow-artifacts",
})  # fmt: skip
"""What a store's folder holds (`sweeps.store`), with what SQLite puts beside its database."""

_PARTIAL = frozenset({"weights", "trajectory", "group", "replies"})
"""The kinds of partial work."""


@dataclass(frozen=True)
class Leftover:
    """Something that nobody will use.

    Attributes:
        path: Where it lies.
        what: What it is, in a few words.
        lease: The key of the lease that is held while it is used; None where that is not known, and it is old instead.
    """

    path: Path
    what: str
    lease: str | None


def leftovers(store: Store, ours: Container[str] = ()) -> Iterator[Leftover]:
    """What killed processes left that nobody who lives, or may live, uses.

    Args:
        store: Where.
        ours: Keys of leases that the caller holds.
    """
    for folder in sorted(store.folder.glob("scratch/group/*/*")):
        if is_key(folder.name) and not _is_held(store, folder.name, ours):
            yield Leftover(folder, "what Ray Train noted of a training that was killed", folder.name)
    for folder in sorted(store.folder.glob("tune/*")):
        key = driver_key(folder.name)
        if not _is_held(store, key, ours):
            yield Leftover(folder, "what Ray Tune noted for a driver that was killed, pickles among it", key)
    for file in sorted(store.folder.glob("nodes/*")):
        if is_old(file):
            yield Leftover(file, "by which a driver that was killed asked nodes whether they see the store", None)


def strangers(store: Store) -> Iterator[Path]:
    """What lies in a store's own folder, and among the partial work, and is none of ours; hidden files are left out."""
    yield from sorted(path for path in store.folder.glob("[!.]*") if path.name not in _OURS)
    scratch = store.folder / "scratch"
    for path in sorted((*scratch.glob("[!.]*"), *scratch.glob("*/[!.]*"), *scratch.glob("*/*/[!.]*"))):
        kind, *below = path.relative_to(scratch).parts
        if kind not in _PARTIAL:
            if not below:  # what lies in it is named with it
                yield path
        elif not path.is_dir() or (len(below) == 2 and below[0] != below[1][:2]):
            yield path


def lines(store: Store) -> list[str]:
    """Each in a line, with what removes it."""
    left = [
        f"{each.path.relative_to(store.folder)}: is left over, {each.what}; `sweeps gc` removes it"
        for each in leftovers(store)
    ]
    return left + [
        f"{path.relative_to(store.folder)}: is none of ours, and is not read; `sweeps gc` leaves it alone, and you may "
        "remove it"
        for path in strangers(store)
    ]


def _is_held(store: Store, key: str, ours: Container[str]) -> bool:
    """True unless nobody else has a lease, or whoever has it is known to be dead."""
    holder = None if key in ours else store.holder(key)
    return holder is not None and not holder.is_dead()
