"""A store's copy in an object store, by which machines that share no folder work on one store.

Each machine has a store folder of its own, a *replica*: complete in form, and filled as far as was needed. Of what a
store holds, records are written by one writer each and only appended, and stages are whole, never changed and named by
what decides them. So nothing is ever merged: a replica sends what it made, and gets what it lacks.

    remote.json                  in the folder: the address, and the replica's own name
    .remote.lock                 in the folder: held while journals of others are copied into it
    .remote-<random>/            in the folder: an archive on its way

    store.json                   under the address: the store's mark
    journals/<writer>.jsonl      as in the folder, as far as their writers have sent them
    stages/<kind>/<key>.tar      a stage's folder
    stages/<kind>/<key>.about.json    what decided it, and its digests: there once the archive is
    scratch/<kind>/<key>.tar     partial work that another machine can go on from
    flags/<name>                 there or not, with a word in it: what drivers tell jobs, and nodes drivers

A lease is a replica's own: machines that share no folder cannot keep each other from the same work. What both make is
in a folder of its own until it is whole, and then that counts which the copy has (`Stages.send`). Nothing that was sent
is removed from a copy by us, but partial work that is done.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from cluster.redaction import without_secrets
from ilql.files import FOLDER, NOTHING, kind_of, sync
from sweeps.journal import SUFFIX, StoreError, is_anothers

if TYPE_CHECKING:
    from sweeps.objects import Objects

LINK = "remote.json"
"""In a store's folder: where its copy is."""

MARK = "store.json"
"""The file by which a folder is known for a store; the object of that name says which store an address holds."""

ABSENT_SECONDS = 5.0
"""So long a stage that was looked for and was not there is taken for absent, unless `pull` was called since."""

LONG_WAITS = (1.0, 5.0, 20.0, 80.0, 300.0)
"""Seconds between the tries of who has patience: as long as a job has in all its tries."""

AT_ONCE_SECONDS = 1.0
"""Who puts a mark looks so much later whether it is the one that stayed."""

ROOM = ".remote-"
"""How a folder's name begins in which an archive is made or read; left behind only by a process that was killed."""

ADDRESS = "the address of an object store must be like s3://bucket/prefix, gs://bucket/prefix or file:///folder"
_SECRET = (
    "access_key", "secret_key", "session_token", "account_key", "sas_token", "client_secret", "password", "sig",
    "signature",
)  # fmt: skip
JOURNALS = "journals"
_ABOUT = ".about.json"
_CHUNK = 1 << 20
_NAME = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class Link:
    """What a folder says of its store's copy.

    Attributes:
        url: The address.
        name: The replica's own name, eight hexadecimal digits: no other folder has it.
    """

    url: str
    name: str


def read_link(folder: Path) -> Link | None:
    """Where the copy of the store in a folder is, None where it has none.

    Raises:
        ValueError: The file that says so is damaged, or cannot be read.
    """
    file = folder / LINK
    try:
        found = json.loads(file.read_bytes())
        link = Link(found["url"], found["replica"])
        if not _NAME.fullmatch(link.name):
            raise ValueError(link.name)
        check_address(link.url)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        raise ValueError(f"the store {folder} cannot be opened: {LINK} cannot be read: {fault.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(
            f"{file} must name an object store and this folder's replica, and is damaged; without the file this folder "
            "is a store of its own, and --remote writes it anew"
        ) from None
    return link


def adopt(folder: Path, url: str, *, first: bool) -> None:
    """Give a new or empty folder the mark of the store at an address, if that holds one.

    Args:
        folder: Which.
        url: The address.
        first: Whether the address was just written by hand: then nothing is tried for long.

    Raises:
        ValueError: The address is none, or what it holds as a mark is none.
        StoreError: The object store does not answer.
    """
    theirs = _opened(url, first=first).read(MARK)
    is_new = kind_of(folder) == NOTHING or (kind_of(folder) == FOLDER and not any(folder.glob("[!.]*")))
    if theirs is not None and is_new and _id(theirs):
        _make_new(folder / MARK, theirs)


def link(folder: Path, url: str, *, first: bool) -> None:
    """Make the store in a folder one of those that have the copy at an address, which may hold nothing yet.

    Args:
        folder: As for `adopt`, like the others.
        url: The address.
        first: Whether it was just written by hand.

    Raises:
        ValueError: The address is none, or holds another store, or the folder's store has another copy.
        StoreError: The object store does not answer, or refuses.
    """
    objects, linked = _opened(url, first=first), read_link(folder)
    if linked is not None and linked.url != url:
        raise ValueError(
            f"a store must have one --remote, that of {folder} is {linked.url}, got {url}; to move it, copy all "
            f"objects, and remove {folder / LINK}"
        )
    ours = _id((folder / MARK).read_bytes())
    if objects.read(MARK) is None:
        objects.put(MARK, (folder / MARK).read_bytes())
        time.sleep(AT_ONCE_SECONDS)
    if _id(objects.read(MARK) or b"") != ours:  # also where two have begun within that second
        raise ValueError(f"{url} must hold the store {folder} or nothing, it holds another store")
    if linked is None:
        _make_new(folder / LINK, json.dumps({"url": url, "replica": secrets.token_hex(4)}).encode() + b"\n")


class Replica:
    """What one folder has in common with its store's copy. May be used by several threads.

    Whatever asks the copy raises `StoreError` where that does not answer.

    Args:
        folder: The store's folder.
        link: What it says of the copy.

    Attributes:
        name: The replica's own name.
        url: Where the copy is.

    Raises:
        ValueError: The address cannot be opened.
    """

    def __init__(self, folder: Path, link: Link) -> None:
        self.name, self.url = link.name, link.url
        self._folder, self._objects = folder, _opened(link.url)
        self._there: set[tuple[str, str]] = set()
        self._unsound: set[tuple[str, str]] = set()
        self._absent: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def be_patient(self) -> None:
        """From now on, wait minutes for an object store that does not answer."""
        self._objects.waits = LONG_WAITS

    # Journals

    def pull(self) -> None:
        """Get what others have recorded, and look anew for what was not there.

        Raises:
            StoreError: The object store does not answer, or the folder's disk does not take it.
        """
        self._pull(self._objects.names(JOURNALS))

    def sync(self, own: Path | None) -> None:
        """Send this process's journal, and those that no process of this machine writes any more; then as `pull`.

        Whoever was killed had told nobody of what it had recorded: what it left is sent by the next one here.

        Args:
            own: The journal that this process writes, if any.

        Raises:
            StoreError: As for `pull`.
        """
        sizes = self._objects.names(JOURNALS)
        for journal in sorted((self._folder / JOURNALS).glob(f"*{SUFFIX}")):
            name = f"{JOURNALS}/{journal.name}"
            if _size(journal) <= sizes.get(name, 0) or (journal != own and is_anothers(journal.stem)):
                continue
            content = _whole_lines(journal)
            if len(content) > sizes.get(name, 0):
                self._objects.put(name, content)
                sizes[name] = len(content)
        self._pull(sizes)

    def _pull(self, sizes: Mapping[str, int]) -> None:
        self._absent.clear()
        with self._locked():
            for name, size in sizes.items():
                file = self._folder / name
                if file.suffix == SUFFIX and Path(name).parent.as_posix() == JOURNALS and size > _size(file):
                    self._get_rest(name, file)

    # Stages

    def has(self, kind: str, key: str) -> bool:
        """Whether the copy has a stage; that it has none may be some seconds old."""
        what = kind, key
        if what in self._there:
            return True
        if what in self._unsound or time.monotonic() - self._absent.get(what, -ABSENT_SECONDS) < ABSENT_SECONDS:
            return False
        found = self._objects.size(_about(kind, key)) is not None
        if found:
            self._there.add(what)
        else:
            self._absent[what] = time.monotonic()
        return found

    def has_now(self, kind: str, key: str) -> bool:
        """Whether the copy has a stage, asked anew unless it is known to have it."""
        self._absent.pop((kind, key), None)
        return self.has(kind, key)

    def know(self, kind: str) -> None:
        """Ask at once for all stages of a kind, where many are to be asked for."""
        for name in self._objects.names(f"stages/{kind}"):
            what = kind, Path(name).name.removesuffix(_ABOUT)
            if name.endswith(_ABOUT) and what not in self._unsound:
                self._there.add(what)

    def about(self, kind: str, key: str) -> bytes | None:
        """The stage's about.json, None if there is none; the rest is not got for it."""
        return self._objects.read(_about(kind, key)) if self.has(kind, key) else None

    def fetch(self, kind: str, key: str, folder: Path) -> bool:
        """Copy a stage into an empty folder; False if there is none that is whole as an archive."""
        return self.has(kind, key) and self._unpack(_stage(kind, key), folder)

    def distrust(self, kind: str, key: str) -> None:
        """What came of a stage was unsound, perhaps on its way alone: here it counts for none, and is sent anew."""
        self._unsound.add((kind, key))
        self._there.discard((kind, key))

    def send(self, kind: str, key: str, folder: Path) -> None:
        """Send a stage: its archive, and then its about.json, by which it is known to be there."""
        self._pack(folder, _stage(kind, key))
        self._objects.put(_about(kind, key), folder / "about.json")
        self._unsound.discard((kind, key))
        self._absent.pop((kind, key), None)
        self._there.add((kind, key))

    # Partial work

    def fetch_scratch(self, kind: str, key: str, folder: Path) -> bool:
        """Copy partial work into a new folder; False if none was sent that is a whole archive."""
        return self._unpack(_scratch(kind, key), folder)

    def send_scratch(self, kind: str, key: str, folder: Path) -> None:
        """Send partial work as it is now, in the place of what was sent before."""
        self._pack(folder, _scratch(kind, key))

    def drop_scratch(self, kind: str, key: str) -> None:
        """Remove partial work from the copy."""
        self._objects.remove(_scratch(kind, key))

    # Flags

    def raise_stop(self, file: Path) -> None:
        """Let machines that do not see a file of the folder know that it is there."""
        self.raise_flag(file.relative_to(self._folder).as_posix())

    def lower_stop(self, file: Path) -> None:
        """Let them know that it is no more."""
        self.lower_flags(file.relative_to(self._folder).as_posix())

    def raise_flag(self, name: str, content: bytes = b"1") -> None:
        """Let everybody see a flag."""
        self._objects.put(f"flags/{name}", content)

    def flag(self, name: str, *, waits: Sequence[float] | None = None) -> bytes | None:
        """A flag's content, None if it is not there; `waits` as for `Objects.read`."""
        return self._objects.read(f"flags/{name}", waits=waits)

    def lower_flags(self, begins: str) -> None:
        """Remove the flags whose names begin so."""
        folder = begins.rpartition("/")[0]
        for name in self._objects.names(f"flags/{folder}"):
            if name.startswith(f"flags/{begins}"):
                self._objects.remove(name)

    def _get_rest(self, name: str, file: Path) -> None:
        """Make a journal of somebody else's as long as its copy, which its readers see at once or not at all."""
        try:
            before = file.read_bytes() if file.is_file() else b""
            rest = self._objects.read(name, begin=len(before))
            if not rest:
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
            try:
                temporary.write_bytes(before + rest)
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as fault:
            raise StoreError(f"the journal {file} could not be written: {fault.strerror or fault}") from fault

    def _pack(self, folder: Path, name: str) -> None:
        with self._room() as room:
            packed = room / "packed.tar"
            with tarfile.open(packed, "w") as archive:
                for path in sorted(folder.rglob("*")):
                    archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
            self._objects.put(name, packed)

    def _unpack(self, name: str, folder: Path) -> bool:
        with self._room() as room:
            packed = room / "packed.tar"
            if not self._objects.get(name, packed):
                return False
            try:
                with tarfile.open(packed, "r:") as archive:
                    return _write_members(archive, folder)
            except (tarfile.TarError, EOFError):  # its sender's disk failed in it
                return False

    @contextlib.contextmanager
    def _room(self) -> Iterator[Path]:
        """A folder for an archive on its way, on the store's own disk, which has room for such things."""
        try:
            with tempfile.TemporaryDirectory(prefix=ROOM, dir=self._folder) as room:
                yield Path(room)
        except OSError as fault:
            raise StoreError(
                f"the store {self._folder} could not exchange stages with its copy: {fault.strerror or fault}"
            ) from fault

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone, among all processes that have this folder, at copying journals into it."""
        with self._lock:
            file = self._folder / ".remote.lock"
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as fault:
                raise StoreError(f"the lock {file} could not be made: {fault.strerror}") from fault
            try:
                with contextlib.suppress(OSError):  # where there are no locks two may copy one journal at once
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)


def check_address(url: str) -> str:
    """Give an address back.

    Raises:
        ValueError: It is none, or has a secret in it.
    """
    parts = urlsplit(url)
    if not parts.scheme or not (parts.netloc or parts.path.strip("/")):
        raise ValueError(f"{ADDRESS}, got {without_secrets(url)!r}")
    named = {key.lower() for key, _ in parse_qsl(parts.query)}
    key = parts.scheme == "s3" and parts.username is not None  # elsewhere a name there is an account's
    if key or parts.password is not None or named & set(_SECRET):
        raise ValueError(
            "the address of an object store must have no keys in it, for it is written down and shown; give them by "
            f"the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ...), got {without_secrets(url)}"
        )
    return url


def _opened(url: str, *, first: bool = False) -> Objects:
    """The object store at an address. At `first` it may be misspelt: what does not answer is said at once."""
    from sweeps.objects import WAITS, Objects  # noqa: PLC0415  pyarrow takes a fifth of a second: most stores need none

    return Objects(check_address(url), waits=() if first else WAITS)


def _stage(kind: str, key: str) -> str:
    return f"stages/{kind}/{key}.tar"


def _about(kind: str, key: str) -> str:
    return f"stages/{kind}/{key}{_ABOUT}"


def _scratch(kind: str, key: str) -> str:
    return f"scratch/{kind}/{key}.tar"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _id(mark: bytes) -> object:
    try:
        return json.loads(mark)["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"a store's mark must have an id, got {mark[:60]!r}") from None


def _make_new(file: Path, content: bytes) -> None:
    """A file that is there whole or not at all, and once: who comes second keeps the first one's.

    On a file system without hard links it takes its place.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        sync(temporary)
        try:
            os.link(temporary, file)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            temporary.replace(file)
        sync(file.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _write_members(archive: tarfile.TarFile, folder: Path) -> bool:
    """Write the plain files of an archive into a folder; False if it has something else, or a name that leads out."""
    folder.mkdir(parents=True, exist_ok=True)
    for member in archive:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
            return False
        place = folder / name
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        content = archive.extractfile(member)
        assert content is not None, "a plain file has content"
        with content, place.open("wb") as file:
            shutil.copyfileobj(content, file, _CHUNK)
            if file.tell() != member.size:
                return False
    return True


def _whole_lines(journal: Path) -> bytes:
    """What is whole of a journal: of an append that goes on, or was cut off, nothing."""
    content = journal.read_bytes()
    return content[: content.rfind(b"\n") + 1]
