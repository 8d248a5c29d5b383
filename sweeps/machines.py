"""The machines a sweep may use: those that have the driver's code and versions, see its store, and do what they get.

A node is asked before it gets work. The driver leaves a file of random content in the store; each node reads it there
and writes what it read into a file beside it, which the driver reads: so both see the same folder. Where the store has
a copy, by which machines that share no folder work on it, both files lie there. A cluster that has a node which cannot
be used is refused at once. One that joins later is left out instead, and said so.

A node that lives and kills whatever it is given is free sooner than all others, and would take every try of many jobs.
So one that has lost several in a row gets none for a while, as long as others are left that jobs fit.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from cluster.faults import Fault
from cluster.nodes import Node, Reserved, alive_nodes, call_on_nodes, let_back, set_aside
from cluster.shapes import Machine, Need, places, worker_room, workers_that_fit
from sweeps.job import opened_store
from sweeps.journal import StoreError
from sweeps.provenance import LIBRARIES, OPTIONAL, code_digest, library_versions
from sweeps.store import Store

CHECKED = ("python", *(name for name in LIBRARIES if name != "optuna"), *OPTIONAL)
"""What must be of one version everywhere, or nowhere: it decides numbers, or whether processes understand each other.

Optuna proposes on the driver alone.
"""

LOOK_SECONDS = 2.0
"""How often a running sweep looks for nodes that have come or gone, or that lose what they are given."""

LOSSES = 3
"""After so many lost jobs in a row, with none done in between, a node gets no more: fewer than the tries of a job."""

ASIDE_SECONDS = 600.0
"""For so long; then it may show with one job that it is well again. Longer than a job waits between its tries."""

_NOT_FOR_GPUS = "training on GPUs needs a torch that is built for them, {whose} has torch {torch}, which is not"
_ARRIVAL_SECONDS = 10.0  # a network file system may show a new file late


@dataclass(frozen=True)
class Asked:
    """What a node is asked.

    Attributes:
        store: The store's folder.
        token: The name of the driver's file in it, beside which the node writes.
        remote: The address of the store's copy, if it has one: the files are there.
    """

    store: str
    token: str
    remote: str | None = None


@dataclass(frozen=True)
class Seen:
    """What a node has.

    Attributes:
        versions: Of python and the libraries, by name.
        code: Digest of our four packages.
        answer: The name of the file that it wrote beside the driver's; None if it did not find that.
        for_gpus: Whether its torch is built for GPUs.
        fault: Why it did not answer, where that is known.
    """

    versions: Mapping[str, str]
    code: str
    answer: str | None = None
    for_gpus: bool = True
    fault: str | None = None


def built_for_gpus() -> bool:
    """Whether this machine's torch is built for GPUs, whether or not it has any."""
    return torch.version.cuda is not None or torch.version.hip is not None


def look(asked: Asked) -> Seen:
    """What this machine has; runs on a node."""
    if asked.remote is not None:
        return _look_away(asked, asked.remote)
    folder = Path(asked.store) / "nodes"
    file, answer = folder / asked.token, f"{asked.token}.{secrets.token_hex(8)}"
    until = time.monotonic() + _ARRIVAL_SECONDS
    while not file.is_file():
        if time.monotonic() > until:
            return Seen(library_versions(), code_digest())
        time.sleep(0.2)
    try:
        (folder / answer).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError:  # it may be seen, but not written
        return Seen(library_versions(), code_digest())
    return Seen(library_versions(), code_digest(), answer, built_for_gpus())


def _look_away(asked: Asked, remote: str) -> Seen:
    """The same where the store has a copy; begins its folder here."""
    answer = f"{asked.token}.{secrets.token_hex(8)}"
    try:
        replica = opened_store(asked.store, remote).replica
        assert replica is not None, "a folder that was joined has a copy"
        content = replica.flag(f"nodes/{asked.token}")
        if content is None:
            return Seen(library_versions(), code_digest(), fault="it does not find there what the driver left")
        replica.raise_flag(f"nodes/{answer}", content)
    except (StoreError, ValueError) as fault:
        return Seen(library_versions(), code_digest(), fault=str(fault))
    return Seen(library_versions(), code_digest(), answer, built_for_gpus())


def difference(driver: Seen, node: Seen) -> str | None:
    """What a node has otherwise than the driver, in words; None if nothing of what is checked.

    A build's name (`+cpu`, `+cu130`) is no difference: machines without a GPU may have a smaller torch.
    """
    for name in CHECKED:
        ours, theirs = driver.versions.get(name, "none"), node.versions.get(name, "none")
        if ours.partition("+")[0] != theirs.partition("+")[0]:
            return f"has {name} {theirs}, the driver has {ours}"
    if driver.code != node.code:
        return f"has our packages with digest {node.code}, the driver has {driver.code}"
    return None


def survey(store: Store, nodes: Sequence[Node], *, on_gpus: bool = False) -> dict[Node, str]:
    """Of some nodes, those that a sweep may not use (`on_gpus`: not on its GPUs), each with what is wrong in one line.

    A node that went away is not among them: a cluster takes one that lost its power for alive until it has missed its
    heartbeats, and whoever runs a command again just after that must not be refused for it.
    """
    driver = Seen(library_versions(), code_digest())
    wrong: dict[Node, str] = {}
    remote = None if store.replica is None else store.replica.url
    with _token(store) as (token, says):
        answers = call_on_nodes(look, Asked(str(store.folder), token, remote), nodes)
        here = {node.id for node in alive_nodes()}  # after their answers: a dead node's fault comes when it is found so
        for node, seen in answers.items():
            if isinstance(seen, Fault) and node.id not in here:
                continue
            if isinstance(seen, Fault):
                wrong[node] = f"the node {node} must be able to run our code, got {seen.error}: {seen.reason}"
            elif (differs := difference(driver, seen)) is not None:
                wrong[node] = f"all machines must have the same versions, the node {node} {differs}"
            elif seen.answer is None or not says(seen.answer):
                wrong[node] = _unseen(store, node, seen)
            elif on_gpus and node.machine.gpus and not seen.for_gpus:
                wrong[node] = _NOT_FOR_GPUS.format(whose=f"the node {node}", torch=seen.versions.get("torch"))
    return wrong


def _unseen(store: Store, node: Node, seen: Seen) -> str:
    if store.replica is None:
        return (
            f"the store must be a folder that all machines share under one path; the node {node} does not see the "
            f"driver's {store.folder} (--remote names an object store in place of that)"
        )
    return (
        f"all machines must reach the store's copy, the node {node} does not: "
        f"{seen.fault or 'what it left there is not found'}"
    )


@contextlib.contextmanager
def _token(store: Store) -> Iterator[tuple[str, Callable[[str], bool]]]:
    """A file in the store, gone afterwards with all answers to it: its name, and what tells an answer from others."""
    name, content = secrets.token_hex(8), secrets.token_hex(16)
    if (replica := store.replica) is not None:
        replica.raise_flag(f"nodes/{name}", content.encode())
        try:
            yield name, lambda answer: replica.flag(f"nodes/{answer}") == content.encode()
        finally:
            replica.lower_flags(f"nodes/{name}")
        return
    folder = store.folder / "nodes"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")
    try:
        yield name, lambda answer: _says(folder / answer, content)
    finally:
        for file in folder.glob(f"{name}*"):
            file.unlink(missing_ok=True)


def _says(file: Path, content: str) -> bool:
    until = time.monotonic() + _ARRIVAL_SECONDS
    while True:
        with contextlib.suppress(OSError):
            if file.read_text(encoding="utf-8") == content:
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.2)


@dataclass(frozen=True)
class _Aside:
    """A node that gets no jobs for a while.

    Attributes:
        node: It.
        reserved: What keeps them away.
        until: When it gets some again, by our clock.
    """

    node: Node
    reserved: Reserved
    until: float


class Fleet:
    """The nodes that sweeps use, while the block lasts: of a cluster that somebody else started, as they come and go.

    Args:
        store: The store.
        say: Told of nodes that came, went, or are left out.
        own: True for a cluster of this process: one node, this machine.
        on_gpus: Whether jobs are to run on GPUs.
        clock: Seconds that only grow.

    Raises:
        ValueError: A node of the cluster as it is now cannot be used.
    """

    def __init__(
        self,
        store: Store,
        say: Callable[[str], None],
        *,
        own: bool,
        on_gpus: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._say, self._own, self._on_gpus, self._clock = store, say, own, on_gpus, clock
        self._left_out: dict[str, object] = {}
        self._aside: dict[str, _Aside] = {}
        self._lost = Counter[str]()  # jobs in a row, by node
        self._need = Need()
        self._told: tuple[Need, int | None] = self._need, 1  # of how many workers jobs could be, when last looked
        self._had_room = True  # when last looked: `check_fits` was asked before
        nodes = alive_nodes()
        if own and on_gpus and any(node.machine.gpus for node in nodes) and not built_for_gpus():
            raise ValueError(_NOT_FOR_GPUS.format(whose="this machine", torch=torch.__version__))
        if not own and (wrong := survey(store, nodes, on_gpus=on_gpus)):
            raise ValueError(next(iter(wrong.values())))
        here = {node.id for node in alive_nodes()}
        self._used = {node.id: node for node in nodes if node.id in here}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleet", daemon=True)

    @property
    def machines(self) -> list[Machine]:
        """What the nodes have."""
        return [node.machine for node in list(self._used.values())]

    def places(self, need: Need, wanted: int | None) -> int:
        """How many jobs may run at a time now, at most `wanted`; at least 1, for what is to come back."""
        self._need = need
        fit = places(self.machines, need)
        return max(1, min(fit, wanted or fit))

    def lost(self, nodes: Iterable[str]) -> None:
        """A job was lost under nodes of these ids."""
        self._lost.update(nodes)

    def done(self, nodes: Iterable[str]) -> None:
        """A job has come to an end of its own on nodes of these ids."""
        for node in nodes:
            self._lost.pop(node, None)

    def __enter__(self) -> Self:
        if not self._own:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if not self._own:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            # A cluster in trouble may refuse to say; what it says next time counts.
            with contextlib.suppress(Exception):
                self.look()

    def look(self) -> None:
        """See which nodes have come or gone, and which lose what they get."""
        alive = {node.id: node for node in alive_nodes()}
        for gone in self._used.keys() - alive.keys():
            self._say(f"the node {self._used.pop(gone)} is gone; what it was at is done elsewhere")
        for gone in self._aside.keys() - alive.keys():
            self._say(f"the node {self._aside.pop(gone).node} is gone")
        known = self._used.keys() | self._aside.keys() | self._left_out.keys()
        came = [node for id_, node in alive.items() if id_ not in known]
        wrong = survey(self._store, came, on_gpus=self._on_gpus) if came else {}
        for node in came:
            if node in wrong:
                self._left_out[node.id] = set_aside(node)
                self._say(f"left out: {wrong[node]}")
            else:
                self._used[node.id] = node
                self._say(f"the node {node} has joined")
        self._let_back()
        self._set_aside()
        self._tell_of_room()
        self._tell_of_workers()

    def _let_back(self) -> None:
        """Give jobs again to nodes whose time is over; to all, if jobs fit no others."""
        for id_, aside in list(self._aside.items()):
            if self._clock() > aside.until or not self._fits(self._used.values()):
                let_back(aside.reserved)
                del self._aside[id_]
                self._used[id_] = aside.node
                self._lost[id_] = LOSSES - 1
                self._say(f"the node {aside.node} gets jobs again")

    def _set_aside(self) -> None:
        """Give no more to nodes that have lost what they had, unless jobs fit no others."""
        for id_, node in list(self._used.items()):
            others = [other for other in self._used.values() if other != node]
            if self._lost[id_] < LOSSES or not self._fits(others):
                continue
            until = self._clock() + ASIDE_SECONDS
            self._aside[id_] = _Aside(self._used.pop(id_), set_aside(node), until)
            minutes = f"{ASIDE_SECONDS / 60:.0f} min"
            self._say(f"the node {node} has lost {self._lost[id_]} jobs in a row; it gets none for {minutes}")

    def _tell_of_room(self) -> None:
        """Say so, once, when no job as they are now fits what is left: whoever is to act on it need not wait."""
        had_room, self._had_room = self._had_room, self._fits(self._used.values())
        if had_room and not self._had_room:
            room = worker_room(self.machines, self._need)
            as_few = f" --least-workers {room}" if self._need.least_workers is not None else ""
            fewer = f"; the same command with --workers {room}{as_few} goes on from their checkpoints" if room else ""
            self._say(
                f"no job fits any more: each needs {self._need}, and there is room for {room} of these; "
                f"jobs wait for a node{fewer}"
            )

    def _tell_of_workers(self) -> None:
        """Say so when jobs begin with another number of workers than they did."""
        need, before = self._told
        now = workers_that_fit(self.machines, self._need) if self._had_room else None
        if now is not None and now != (before if need == self._need else self._need.workers):
            self._say(
                f"jobs that begin from now on have {now} of {self._need.workers} workers: there is room for so many"
            )
        self._told = self._need, now

    def _fits(self, nodes: Iterable[Node]) -> bool:
        """Whether a job as they are now fits some nodes."""
        return places([node.machine for node in nodes], self._need) > 0


@dataclass(frozen=True)
class Share:
    """The `Places` (`sweeps.search`) of one sweep on a fleet: how many of its jobs may run, asked again and again.

    Attributes:
        fleet: Of what.
        need: What a job needs.
        wanted: At most so many; None for as many as fit.
    """

    fleet: Fleet
    need: Need
    wanted: int | None

    def __call__(self) -> int:
        """How many just now, at least 1."""
        return self.fleet.places(self.need, self.wanted)

    def lost(self, nodes: Sequence[str]) -> None:
        """A job was lost under these nodes."""
        self.fleet.lost(nodes)

    def done(self, nodes: Sequence[str]) -> None:
        """A job ended well on these nodes, or by its own fault."""
        self.fleet.done(nodes)


def check_fits(machines: Sequence[Machine], need: Need, *, whose: str = "the cluster", hint: str = "") -> None:
    """Do nothing if a job fits some machines.

    Args:
        machines: Which.
        need: What the job needs.
        whose: What the machines are called together.
        hint: What else could be done where it does not fit, in words.

    Raises:
        ValueError: It does not; the message says what is missing.
    """
    if places(machines, need):
        return
    cpus, gpus = sum(machine.cpus for machine in machines), sum(machine.gpus for machine in machines)
    more = f", {hint}" if hint else ""
    if gpus < need.fewest * need.gpus:
        each = f" ({need.fewest} workers × {need.gpus:g})" if need.fewest > 1 else ""
        raise ValueError(
            f"a job needs {need.fewest * need.gpus:g} GPUs{each}, {whose} has {gpus:g}; "
            f"--gpus-per-worker 0 trains on CPUs{more}"
        )
    if cpus < need.fewest * need.cpus:
        raise ValueError(
            f"a job needs {need.fewest * need.cpus:g} CPUs, {whose} has {cpus:g}; --workers sets how many it uses{more}"
        )
    room = worker_room(machines, need)
    raise ValueError(
        f"a job needs {need}, and a worker is all on one machine; {whose} has room for {room} of them, "
        f"{'--workers' if room else '--gpus-per-worker'} takes fewer{more}"
    )
