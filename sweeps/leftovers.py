"""What lies in a store and is of no use to anybody, because whoever made it was killed: found, and who may remove it.

None of it is a fault, and none is read: a rerun, or `sweeps gc`, removes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.leases import is_key
from sweeps.store import Store


@dataclass(frozen=True)
class Leftover:
    """Something that nobody will use.

    Attributes:
        path: Where it lies.
        what: What it is, in a few words.
        lease: The key of the lease that is held while it is used.
    """

    path: Path
    what: str
    lease: str


def leftovers(store: Store) -> Iterator[Leftover]:
    """What killed processes left that nobody who lives, or may live, uses."""
    for folder in sorted(store.folder.glob("scratch/group/*/*")):
        if is_key(folder.name) and not _is_held(store, folder.name):
            yield Leftover(folder, "what Ray Train noted of a training that was killed", folder.name)


def lines(store: Store) -> list[str]:
    """Each in a line, with what removes it."""
    return [
        f"{each.path.relative_to(store.folder)}: is left over, {each.what}; `sweeps gc` removes it"
        for each in leftovers(store)
    ]


def _is_held(store: Store, key: str) -> bool:
    """True unless nobody has a lease, or whoever has it is known to be dead."""
    holder = store.holder(key)
    return holder is not None and not holder.is_dead()
