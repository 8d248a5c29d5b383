"""Stage folders: what is too large for a journal, kept under the key of what decided it, whole or not at all.

stages/<kind>/<key[:2]>/<key>/              complete: its files and about.json, made in one rename
stages/<kind>/<key[:2]>/.building@<key>@…   being made; left behind only by a process that was killed
stages/<kind>/<key[:2]>/.damaged@<key>@…    was complete, then lost or changed the size of a file; set aside
stages/<kind>/<key[:2]>/.dropped@<key>@…    was complete, and is being removed; left behind only as `.building` is
scratch/<kind>/<key[:2]>/<key>/             partial work to resume from: checkpoints, curves, episodes
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from ilql.files import sync
from sweeps.exact_json import JSON, Record, dumps, loads
from sweeps.journal import StoreError, lives, process_name, utc
from sweeps.plain_files import read_plain
from sweeps.replica import Replica

ABOUT = "about.json"
_LONGEST_ABOUT = 1 << 26  # bytes
_DIGEST = re.compile(rb',"digest":"([0-9a-f]{64})"\}\n?\Z')  # the last field of an about.json, of all before it
_BUILDING, _DAMAGED, _DROPPED, _DONE = ".building", ".damaged", ".dropped", ".done"
_ABANDONED_SECONDS = 3600.0  # a leftover this old, by a process of this host that lives no more, is swept
_AT_ONCE = 16  # stages that are got at a time: what takes long is the way there and back
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,159}")  # 255 bytes fit, with what is put around it
_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


class Stages:
    """The stages and scratch folders under `folder`.

    Args:
        folder: The store's folder.
        durable: True if a stage counts as built only when the disk has all of it.
        replica: Where stages are sent when they are built, and got from when they are not here; None for nowhere.
    """

    def __init__(self, folder: Path, *, durable: bool, replica: Replica | None = None) -> None:
        self._stages = folder / "stages"
        self._scratch = folder / "scratch"
        self._durable = durable
        self._replica = replica

    def find(self, kind: str, key: str) -> Path | None:
        """The stage's folder if it is complete: it has its own about.json, and every file that it names, at its size.

        What was copied or renamed to another stage's place is none: its about.json says what it is. A stage that is not
        here is got from the store's copy, if there is one that has it.

        Raises:
            StoreError: The copy does not answer, or the disk did not take the stage.
        """
        folder = _place(self._stages, kind, key)
        return folder if _is_whole(folder) or self._fetch(kind, key, folder) else None

    def here(self, kind: str, key: str) -> Path | None:
        """The stage's folder if it is complete here."""
        folder = _place(self._stages, kind, key)
        return folder if _is_whole(folder) else None

    def fetch_all(self, kind: str, keys: Iterable[str]) -> int:
        """Get those of many stages that are not here and that the store's copy has, several at a time; how many."""
        if self._replica is None:
            return 0
        missing = [key for key in keys if not _is_whole(_place(self._stages, kind, key))]
        if missing:
            self._replica.know(kind)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return sum(folder is not None for folder in threads.map(lambda key: self.find(kind, key), missing))

    def lacking(self, kind: str, keys: Iterable[str]) -> list[str]:
        """Those of many stages that are complete nowhere."""
        missing = [key for key in keys if not _is_whole(_place(self._stages, kind, key))]
        if missing and self._replica is not None:
            self._replica.know(kind)
            missing = [key for key in missing if not self._replica.has(kind, key)]
        return missing

    def has(self, kind: str, key: str) -> bool:
        """Whether the stage is complete, here or in the store's copy; it is not got for that.

        Raises:
            StoreError: The copy does not answer.
        """
        here = _is_whole(_place(self._stages, kind, key))
        return here or (self._replica is not None and self._replica.has(kind, key))

    def flaw(self, kind: str, key: str) -> str | None:
        """Why what has a stage's name is not complete, in a few words; None if it is."""
        try:
            _whole(_place(self._stages, kind, key))
        except _NotWholeError as fault:
            return str(fault)
        return None

    def about(self, kind: str, key: str) -> Record | None:
        """The stage's about.json, or None if the stage is complete neither here nor in the store's copy.

        Its fields are `kind`, `key`; `about`: what decided it; `notes`: what `make` returned; `builder`: host, process
        and a random number; `seconds` it took; `finished_at`, UTC; `files`: bytes and SHA-256 by path; `digest`: that
        of the text before it, which stages of earlier versions do not have.
        """
        place = _place(self._stages, kind, key)
        try:
            return _whole(place)
        except _NotWholeError:
            return self._about_in_copy(kind, key)

    def build(
        self,
        kind: str,
        key: str,
        make: Callable[[Path], Mapping[str, JSON] | None],
        about: Mapping[str, JSON],
    ) -> Path:
        """The stage's folder, made now unless it is complete already.

        `make` fills an empty folder with plain files and returns notes for about.json, or None. If someone else
        completes the stage meanwhile, theirs is used and ours is dropped. If `make` raises, nothing is left behind.
        The scratch folder of the stage is removed once it is complete.

        Raises:
            StoreError: The disk did not take it.
            ValueError: `make` left something that is no plain file, or a file named about.json.
        """
        final = _place(self._stages, kind, key)
        if not _is_whole(final) and not self._fetch(kind, key, final):
            try:
                self._build(kind, key, final, make, about)
            except OSError as fault:
                if fault.errno not in _DISK_FAULTS:
                    raise
                raise StoreError(f"the stage {kind}/{key} could not be written: {os.strerror(fault.errno)}") from fault
        self._drop_scratch(kind, key)
        self.send(kind, key)
        return final

    def send(self, kind: str, key: str) -> bool:
        """Send a stage that is complete here to the store's copy, if there is one that lacks it; True if it was sent.

        Where the copy has another machine's, with other content (a GPU's last digits), that takes the place of ours:
        what one key means is one thing. Of two that are sent in one moment the later stays, and the other machine keeps
        its own until it is asked to send it again.

        Raises:
            StoreError: The copy does not answer, or the disk did not take the other one; ours is there still.
        """
        folder = _place(self._stages, kind, key)
        if self._replica is None or not _is_whole(folder):
            return False
        theirs = self._about_in_copy(kind, key) if self._replica.has_now(kind, key) else None
        if theirs is not None and theirs["files"] == _whole(folder)["files"]:
            return False
        if theirs is not None:
            aside = folder.with_name(f"{_DROPPED}@{key}@{process_name()}")
            folder.rename(aside)
            try:
                if self._fetch(kind, key, folder):
                    return False
            finally:
                if not _is_whole(folder):  # theirs is unsound, or does not come
                    aside.rename(folder)
        self._replica.send(kind, key, folder)
        return True

    def send_all(self) -> int:
        """Send all that is complete here and that the store's copy lacks; how many stages that were."""
        if self._replica is None:
            return 0
        named = list(self.named())
        for kind in {kind for kind, _ in named}:
            self._replica.know(kind)
        return sum(self.send(kind, key) for kind, key in named if not self._replica.has(kind, key))

    def _about_in_copy(self, kind: str, key: str) -> Record | None:
        """The stage's about.json as the store's copy has it; None if it has none that is sound."""
        found = None if self._replica is None else self._replica.about(kind, key)
        try:
            return None if found is None else _said(found, (kind, key))
        except _NotWholeError:
            return None

    def drop(self, kind: str, key: str) -> None:
        """Remove a stage: first out of sight, so that nobody finds half of it; what there is not is no fault.

        What the store's copy has of it stays there, and is got again by whoever needs it.
        """
        final = _place(self._stages, kind, key)
        dropped = final.with_name(f"{_DROPPED}@{key}@{process_name()}")
        with contextlib.suppress(FileNotFoundError):
            final.rename(dropped)
            if self._durable:
                sync(final.parent)
            shutil.rmtree(dropped, ignore_errors=True)

    def leftovers(self) -> Iterator[Path]:
        """The folders that nobody will use: of builders that are known to be dead, and what was set aside."""
        for mark in (_DAMAGED, _DROPPED):
            yield from sorted(self._stages.glob(f"*/*/{mark}@*"))
        yield from sorted(self._scratch.glob(f"*/*/{_DONE}@*"))
        for folder in sorted(self._stages.glob(f"*/*/{_BUILDING}@*")):
            if _is_abandoned(folder):
                yield folder

    def scratch(self, kind: str, key: str) -> Path:
        """A folder for partial work on an unfinished stage, made if need be. Its one user at a time is not enforced."""
        folder = self.scratch_path(kind, key)
        _make_folder(folder)
        return folder

    def scratch_path(self, kind: str, key: str) -> Path:
        """Where the scratch folder is, or would be."""
        return _place(self._scratch, kind, key)

    def named(self) -> Iterator[tuple[str, str]]:
        """Kind and key of every folder with a stage's name, whole or not."""
        for folder in sorted(self._stages.glob("*/*/[!.]*")):
            if _is_place(folder):
                yield folder.parent.parent.name, folder.name

    def strangers(self) -> Iterator[str]:
        """What lies among the stages and has no stage's name, by its path in the store."""
        if self._stages.exists() and not self._stages.is_dir():
            yield self._stages.name
        for path in sorted((*self._stages.glob("*"), *self._stages.glob("*/*"), *self._stages.glob("*/*/[!.]*"))):
            level = len(path.relative_to(self._stages).parts)
            if (level < 3 and not path.is_dir()) or (level == 3 and not _is_place(path)):
                yield path.relative_to(self._stages.parent).as_posix()

    def altered(self, kind: str, key: str) -> Iterator[str]:
        """What the files of a complete stage are not, or no longer: one line for each that its about.json denies."""
        folder, about = _place(self._stages, kind, key), self.about(kind, key)
        if about is None:
            return
        try:
            there = _digests(folder, besides=ABOUT)
        except ValueError as stranger:
            yield str(stranger)
            return
        for name, file in sorted(about["files"].items()):
            if there.get(name) != file:
                yield f"{name} is not what was written; remove the folder {folder}"
        for name in sorted(there.keys() - about["files"].keys()):
            yield f"holds {name}, which nobody put there; it is not read"

    def problems(self) -> list[str]:
        """The folders of stages that were never completed or were found damaged, one line each."""
        meaning = {
            _BUILDING: "was not completed (its builder was killed, or is at it now)",
            _DAMAGED: "was damaged",
            _DROPPED: "was dropped, and its remover was killed in it",
        }
        return [
            f"stage {folder.parent.parent.name}/{folder.name.split('@')[1]}: a copy {text}: {folder}; "
            "`sweeps gc` removes what nobody uses"
            for mark, text in meaning.items()
            for folder in sorted(self._stages.glob(f"*/*/{mark}@*"))
        ]

    def _build(
        self,
        kind: str,
        key: str,
        final: Path,
        make: Callable[[Path], Mapping[str, JSON] | None],
        about: Mapping[str, JSON],
    ) -> None:
        _make_folder(final.parent)
        _sweep_abandoned(final)
        builder = process_name()
        building = final.with_name(f"{_BUILDING}@{key}@{builder}")
        building.mkdir()
        try:
            started = time.monotonic()
            notes = make(building)
            if (building / ABOUT).exists():
                raise ValueError(f"{ABOUT} is written by the store, not by the builder of a stage")
            files = _digests(building)
            text = dumps(
                {
                    "kind": kind,
                    "key": key,
                    "about": about,
                    "notes": notes,
                    "builder": builder,
                    "seconds": time.monotonic() - started,
                    "finished_at": utc(),
                    "files": files,
                }
            )
            digest = hashlib.sha256(text.encode()).hexdigest()
            (building / ABOUT).write_text(f'{text[:-1]},"digest":"{digest}"}}\n')
            if self._durable:
                _sync(building)
            _publish(building, final, builder)
            if self._durable:
                sync(final.parent)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _fetch(self, kind: str, key: str, final: Path) -> bool:
        """Get a stage from the store's copy; False if it has none that is complete."""
        if self._replica is None or not self._replica.has(kind, key):
            return False
        _make_folder(final.parent)
        _sweep_abandoned(final)
        builder = process_name()
        building = final.with_name(f"{_BUILDING}@{key}@{builder}")
        inside = _place(building, kind, key)  # an about.json is of the place it lies in
        try:
            inside.mkdir(parents=True)
            if not self._replica.fetch(kind, key, inside) or not _is_as_written(inside):
                self._replica.distrust(kind, key)  # whoever needs it here makes it, and sends that
                return False
            if self._durable:
                _sync(inside)
            _publish(inside, final, builder)
            if self._durable:
                sync(final.parent)
        except OSError as fault:
            raise StoreError(f"the stage {kind}/{key} could not be written: {fault.strerror or fault}") from fault
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return True

    def _drop_scratch(self, kind: str, key: str) -> None:
        folder = self.scratch_path(kind, key)
        done = folder.with_name(f"{_DONE}@{key}@{process_name()}")
        with contextlib.suppress(OSError):  # there is none, or somebody else is removing it
            folder.rename(done)  # first out of sight, so that nobody resumes from half a checkpoint
        for each in folder.parent.glob(f"{_DONE}@{key}@*"):
            shutil.rmtree(each, ignore_errors=True)


def _place(root: Path, kind: str, key: str) -> Path:
    for what, name in (("kind", kind), ("key", key)):
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"a stage's {what} must be made of letters, digits, '.', '_', '=' and '-', got {name[:99]!r}"
            )
    return root / kind / key[:2] / key


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        StoreError: It cannot be made: a full disk, or a file where one of them should be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise StoreError(f"the folder {folder} could not be made: {fault.strerror}") from fault


def _is_place(folder: Path) -> bool:
    """True for a path that ends as a stage's does."""
    kind, key = folder.parent.parent.name, folder.name
    return folder.parent.name == key[:2] and all(_NAME.fullmatch(name) for name in (kind, key))


class _NotWholeError(ValueError):
    """What has a stage's name is not complete."""


def _read_about(folder: Path) -> Record:
    """What an about.json says, if it is one of ours, and of this stage.

    Raises:
        _NotWholeError: It is not.
    """
    try:
        text = read_plain(folder / ABOUT, longest=_LONGEST_ABOUT)
    except OSError as fault:
        raise _NotWholeError(f"{ABOUT} cannot be read ({fault.strerror})") from None
    return _said(text, (folder.parent.parent.name, folder.name))


def _said(text: bytes, named: tuple[str, str]) -> Record:
    """What the text of an about.json says, if it is one of ours, and of the stage that is named, kind and key.

    Raises:
        _NotWholeError: It is not.
    """
    digest = _DIGEST.search(text, max(0, len(text) - 100))
    if digest is not None and hashlib.sha256(text[: digest.start()] + b"}").hexdigest().encode() != digest[1]:
        raise _NotWholeError(f"{ABOUT} was changed")
    try:
        about = loads(text)
    except (ValueError, TypeError, RecursionError):
        raise _NotWholeError(f"{ABOUT} is no JSON of ours") from None
    if not isinstance(about, dict):
        raise _NotWholeError(f"{ABOUT} is no JSON of ours")
    if digest is None and "digest" in about:
        raise _NotWholeError(f"{ABOUT} was changed")
    if (about.get("kind"), about.get("key")) != named:
        other = f"{about.get('kind')!a:.40}/{about.get('key')!a:.60}".replace("'", "")
        raise _NotWholeError(f"{ABOUT} is of {other}: the folder is another's, or another version's")
    for name, sorts in _ABOUT_FIELDS.items():
        if not isinstance(about.get(name), sorts):
            raise _NotWholeError(f"{ABOUT} lacks a sound {name!r}")
    return about


_ABOUT_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "about": dict, "notes": (dict, type(None)), "builder": str, "seconds": (int, float), "finished_at": str,
    "files": dict,
}  # fmt: skip


def _whole(folder: Path) -> Record:
    """What the about.json of a complete stage says.

    Raises:
        _NotWholeError: The stage is not complete.
    """
    about = _read_about(folder)
    for name, file in about["files"].items():
        if not (isinstance(file, dict) and type(file.get("bytes")) is int and isinstance(file.get("sha256"), str)):
            raise _NotWholeError(f"{ABOUT} says no size and digest of {name!a:.60}")
        try:
            seen = (folder / name).stat() if _is_within(name) else None
        except (OSError, ValueError):
            raise _NotWholeError(f"{name!a:.60} is gone") from None
        if seen is None or not stat.S_ISREG(seen.st_mode):
            raise _NotWholeError(f"{name!a:.60} is no file of it")
        if seen.st_size != file["bytes"]:
            raise _NotWholeError(f"{name!a:.60} has {seen.st_size} bytes, not {file['bytes']}")
    return about


def _is_whole(folder: Path) -> bool:
    try:
        _whole(folder)
    except _NotWholeError:
        return False
    return True


def _is_as_written(folder: Path) -> bool:
    """True for a complete stage whose files have the digests that its about.json says."""
    try:
        return bool(_whole(folder)["files"] == _digests(folder, besides=ABOUT))
    except ValueError:
        return False


def _is_within(name: str) -> bool:
    """True if a file's name in about.json leads to no place outside of the stage."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _publish(building: Path, final: Path, builder: str) -> None:
    while True:
        try:
            building.rename(final)
        except OSError as fault:
            if fault.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:  # the last: a file has its name
                raise
        else:
            return
        if _is_whole(final):
            return  # somebody else was first; equal keys mean equal content
        with contextlib.suppress(FileNotFoundError):  # somebody else was first in this
            final.rename(final.with_name(f"{_DAMAGED}@{final.name}@{builder}"))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"a stage must hold plain files only, got {path.relative_to(folder)}")
        if path.is_file():
            yield path


def _digests(folder: Path, *, besides: str | None = None) -> dict[str, dict[str, JSON]]:
    digests: dict[str, dict[str, JSON]] = {}
    for path in _files(folder):
        if path == folder / (besides or ""):
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        digests[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return digests


def _sync(folder: Path) -> None:
    folders = [folder]
    for path in folder.rglob("*"):
        if path.is_dir():
            folders.append(path)
            continue
        sync(path)
    for each in folders:
        sync(each)


def _sweep_abandoned(final: Path) -> None:
    """Remove what killed builders of this stage left: theirs are dead processes of this host, an hour or more ago."""
    for folder in final.parent.glob(f"{_BUILDING}@{final.name}@*"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    here = process_name().rsplit("-", 2)[0]
    named = re.fullmatch(r"(.*)-([0-9]{1,9})-[^-]*", folder.name.rsplit("@", 1)[1])
    if named is None:  # no builder of ours
        return False
    host, process = named.groups()
    # Containers may share a host's name but not its process ids, hence also the age.
    return host == here and is_old(folder) and not lives(int(process))


def is_old(path: Path) -> bool:
    """True if what lies there was last changed so long ago that nobody writes it any more."""
    try:
        return time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False
