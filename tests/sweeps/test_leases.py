"""Leases: one holder at a time, the dead are followed, and who was followed finds out."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sweeps import leases
from sweeps.journal import StoreError
from sweeps.leases import Lease, LeaseLostError, Leases

PATIENCE = 0.3


@pytest.fixture(autouse=True, params=["links", "no links"])
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On file systems that have hard links, and on those that have none."""

    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no links":
        monkeypatch.setattr(os, "link", link)


def silent(lease: Lease) -> Lease:
    """A holder whose process lives and no longer touches its file, as one that is stopped or cut off."""
    leases._HEART.drop(lease)
    return lease


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process is on another machine."""
    monkeypatch.setattr(leases, "_machine", lambda: "another machine")


def dead(folder: Path, key: str) -> None:
    """Have a process of this machine take a key and die."""
    code = f"""
import os
from pathlib import Path
from sweeps.leases import Leases
assert Leases(Path({str(folder)!r})).take({key!r}) is not None
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    ours, theirs = Leases(tmp_path), Leases(tmp_path)
    lease = ours.take("key")
    assert lease is not None
    assert lease.term == 1
    assert theirs.take("key") is None
    assert ours.take("key") is None
    assert theirs.take("other") is not None
    lease.check()
    lease.release()
    assert theirs.take("key") is not None


def test_a_lease_given_back_leaves_no_file(tmp_path: Path) -> None:
    with Leases(tmp_path).wait("key"):
        assert [path.name for path in tmp_path.rglob("key*")] == ["key.1"]
    assert list(tmp_path.rglob("key*")) == []


def test_a_dead_holder_is_followed_at_once(tmp_path: Path) -> None:
    dead(tmp_path, "key")
    begin = time.monotonic()
    lease = Leases(tmp_path).take("key")
    assert lease is not None
    assert lease.term == 2
    assert time.monotonic() - begin < leases.PATIENCE_SECONDS / 10
    assert [path.name for path in tmp_path.rglob("key*")] == ["key.2"]


def test_a_silent_holder_of_another_machine_is_followed_after_a_while_and_finds_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Leases(tmp_path).take("key")
    assert ours is not None
    silent(ours)
    elsewhere(monkeypatch)
    theirs = Leases(tmp_path, patience=PATIENCE)
    assert theirs.take("key") is None
    begin = time.monotonic()
    follower = theirs.wait("key")
    assert time.monotonic() - begin >= PATIENCE
    assert follower.term == 2
    with pytest.raises(LeaseLostError, match="the lease on key was taken over"):
        ours.check()
    ours.release()
    follower.check()


def test_a_holder_that_is_heard_of_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Leases(tmp_path).take("key")
    assert ours is not None
    elsewhere(monkeypatch)
    theirs = Leases(tmp_path, patience=PATIENCE)
    for _ in range(8):
        assert theirs.take("key") is None
        time.sleep(PATIENCE / 4)
        ours.touch()
    ours.check()


def test_a_holder_elsewhere_is_settled_by_its_next_touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Leases(tmp_path).take("key")
    assert ours is not None
    elsewhere(monkeypatch)
    looks: list[None] = []

    def each() -> None:
        looks.append(None)
        ours.touch()

    assert Leases(tmp_path, patience=60.0).settle("key", each=each) is None
    assert len(looks) == 1
    ours.check()


def test_a_silent_holder_elsewhere_is_settled_by_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Leases(tmp_path).take("key")
    assert ours is not None
    silent(ours)
    elsewhere(monkeypatch)
    lease = Leases(tmp_path, patience=PATIENCE).settle("key")
    assert lease is not None
    assert lease.term == 2


def test_a_holder_here_is_settled_at_once(tmp_path: Path) -> None:
    assert Leases(tmp_path).take("key") is not None
    waited: list[None] = []
    assert Leases(tmp_path).settle("key", each=lambda: waited.append(None)) is None
    assert waited == []


def test_the_heart_touches_what_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(leases, "_HEART", leases._Heart())
    lease = Leases(tmp_path).take("key")
    assert lease is not None
    (file,) = tmp_path.rglob("key.1")
    os.utime(file, (1, 1))
    deadline = time.monotonic() + 20
    while file.stat().st_mtime < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_holder_that_is_vouched_for_no_more_is_followed_though_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(leases, "_HEART", leases._Heart())
    here = Leases(tmp_path, patience=0.5)
    hung, well = here.take("hung"), here.take("well")
    assert hung is not None
    assert well is not None
    hung.vouch(0.1)
    well.vouch(600.0)
    deadline = time.monotonic() + 30
    while (follower := here.take("hung")) is None:
        assert here.take("well") is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    well.check()
    with pytest.raises(LeaseLostError):
        hung.check()
    follower.release()


def test_a_process_that_was_forked_has_a_heart_of_its_own(tmp_path: Path) -> None:
    code = f"""
import os, time
from pathlib import Path
from sweeps import leases
leases.HEARTBEAT_SECONDS = 0.05
ours = leases.Leases(Path({str(tmp_path)!r}))
assert ours.take("parent") is not None
child = os.fork()
if child == 0:
    lease = ours.take("child")
    assert ours.holder("child").number == str(os.getpid()) != ours.holder("parent").number
    os.utime(lease.file, (1, 1))
    deadline = time.monotonic() + 20
    while lease.file.stat().st_mtime < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os._exit(0 if lease.file.stat().st_mtime > 2 else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_a_released_key_is_not_freed_twice(tmp_path: Path) -> None:
    first = Leases(tmp_path).take("key")
    assert first is not None
    first.release()
    second = Leases(tmp_path).take("key")
    assert second is not None
    assert second.term == 1  # the first one's file is gone, and with it its number
    first.release()
    second.check()
    with pytest.raises(LeaseLostError):
        first.check()


def test_terms_are_above_what_readers_know(tmp_path: Path) -> None:
    lease = Leases(tmp_path).take("key", above=lambda: 6)
    assert lease is not None
    assert lease.term == 7


def test_a_file_without_a_word_in_it_is_waited_for_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "ke").mkdir()
    (tmp_path / "ke" / "key.3").touch()  # its maker was killed before it wrote
    theirs = Leases(tmp_path, patience=PATIENCE)
    assert theirs.take("key") is None
    assert theirs.holder("key") is None
    assert theirs.wait("key").term == 4


def test_who_holds_what(tmp_path: Path) -> None:
    ours = Leases(tmp_path)
    lease = ours.take("key")
    assert lease is not None
    holder = ours.holder("key")
    assert holder is not None
    assert holder.process.startswith(f"{os.getpid()}@")
    assert not holder.is_dead()
    assert [(key, term) for key, term, _ in ours.all()] == [("key", 1)]
    lease.release()
    assert ours.holder("key") is None
    assert list(ours.all()) == []


def test_a_later_process_of_the_same_id_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Leases(tmp_path)
    lease = ours.take("key")
    assert lease is not None
    monkeypatch.setattr(leases, "_process", lambda number: f"{number}@another time")
    holder = ours.holder("key")
    assert holder is not None
    assert holder.is_dead()


def test_the_time_a_process_began_is_part_of_what_it_is() -> None:
    one, other = (subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2))
    try:
        number, _, began = str(leases._process(one.pid)).partition("@")
        assert number == str(one.pid)
        assert int(began) <= int(str(leases._process(other.pid)).partition("@")[2])
        assert int(began) > int(str(leases._process(os.getpid())).partition("@")[2])  # in hundredths of a second
    finally:
        for each in (one, other):
            each.communicate(b"\n")


def test_a_process_that_nobody_has_buried_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        deadline = time.monotonic() + 60
        while leases._process(child.pid) is not None:  # it has ended, and is a zombie until it is waited for
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert Path(f"/proc/{child.pid}").exists()


def test_of_a_process_of_another_machine_nobody_knows_that_it_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead(tmp_path, "key")
    elsewhere(monkeypatch)
    ours = Leases(tmp_path)
    holder = ours.holder("key")
    assert holder is not None
    assert not holder.is_dead()
    assert ours.take("key") is None


def test_a_holder_whose_follower_has_not_cleared_up_yet_holds_nothing(tmp_path: Path) -> None:
    lease = Leases(tmp_path).take("key")
    assert lease is not None
    (tmp_path / "ke" / "key.2").touch()  # its follower is between making its file and removing ours
    with pytest.raises(LeaseLostError):
        lease.check()


def fail(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_who_cannot_remove_whom_it_follows_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(tmp_path, "key")
    unlink = os.unlink

    def unlink_all_but(path: str, *how: Any, **named: Any) -> None:
        if path.endswith("key.1"):
            fail()
        unlink(path, *how, **named)

    ours = Leases(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink_all_but)
        with pytest.raises(StoreError, match=r"key\.2 could not be written: Input/output error"):
            ours.take("key")
    assert [path.name for path in tmp_path.rglob("key*")] == ["key.1"]
    assert [beat for beat in leases._HEART._beats.values() if beat.lease.file.parent.parent == tmp_path] == []
    lease = ours.take("key")
    assert lease is not None
    assert lease.term == 2


def test_who_can_begin_no_thread_holds_nothing_and_may_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(leases, "_HEART", leases._Heart())
    start, ours = threading.Thread.start, Leases(tmp_path)

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        ours.take("key")
    assert list(tmp_path.rglob("key*")) == []
    monkeypatch.setattr(threading.Thread, "start", start)
    lease = ours.take("key")
    assert lease is not None
    os.utime(lease.file, (1, 1))
    deadline = time.monotonic() + 20
    while lease.file.stat().st_mtime < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)


Terms = list[int]


@pytest.mark.parametrize(
    ("looks", "claimed"),
    [
        pytest.param([[]], 0, id="at the first term"),
        pytest.param([None, []], 3, id="at a later one"),
    ],
)
def test_who_saw_too_little_of_the_folder_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[Terms | None], claimed: int
) -> None:
    held = Leases(tmp_path).take("key", above=lambda: 4)
    assert held is not None
    whole = leases._terms

    def shown(folder: str, key: str) -> Terms:  # by a network's cache
        look = looks.pop(0) if looks else None
        return whole(folder, key) if look is None else look

    monkeypatch.setattr(leases, "_terms", shown)
    assert Leases(tmp_path).take("key", above=lambda: claimed) is None
    assert looks == []
    assert [path.name for path in tmp_path.rglob("key*")] == ["key.5"]
    held.check()


def test_a_first_term_beside_a_later_one_takes_nothing_from_anybody(tmp_path: Path) -> None:
    held = Leases(tmp_path).take("key", above=lambda: 1)
    assert held is not None
    assert Leases(tmp_path).take("key") is None
    assert [path.name for path in tmp_path.rglob("key*")] == ["key.2"]
    held.check()


def test_who_was_followed_between_asking_for_terms_and_making_its_file_gives_way(tmp_path: Path) -> None:
    told = [2, 2, 5]  # by others, who came and gave it back: behind our first term, and before and behind our third
    assert Leases(tmp_path).take("key", above=lambda: told.pop(0)) is None
    assert (told, list(tmp_path.rglob("key*"))) == ([], [])


def test_who_cannot_ask_for_terms_holds_nothing(tmp_path: Path) -> None:
    def fail() -> int:
        raise StoreError("the journals could not be read")

    with pytest.raises(StoreError, match="the journals could not be read"):
        Leases(tmp_path).take("key", above=fail)
    assert list(tmp_path.rglob("key*")) == []
    assert Leases(tmp_path).take("key") is not None


def test_who_slept_before_making_its_file_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = leases._holder

    def sleep() -> bytes:
        monkeypatch.setattr(leases, "_holder", holder)
        assert Leases(tmp_path).take("key") is not None  # somebody came meanwhile
        return holder()

    monkeypatch.setattr(leases, "_holder", sleep)
    assert Leases(tmp_path).take("key") is None


def test_who_slept_between_making_its_file_and_looking_again_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, ours = leases._terms, Leases(tmp_path)

    def sleep(folder: str, key: str) -> list[int]:
        monkeypatch.setattr(leases, "_terms", look)
        Leases(tmp_path, patience=-1.0).wait("key").release()  # a follower came, had it, and gave it back
        return look(folder, key)

    monkeypatch.setattr(leases, "_terms", sleep)
    lease = ours.take("key")  # it knows nothing of what it made first, and makes it again: nobody has it now
    assert lease is not None
    assert list(lease.file.parent.iterdir()) == [lease.file]
    lease.check()


def test_who_slept_and_whose_name_another_has_meanwhile_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, ours, theirs = leases._terms, Leases(tmp_path), Leases(tmp_path)
    held = []

    def sleep(folder: str, key: str) -> list[int]:
        monkeypatch.setattr(leases, "_terms", look)
        Leases(tmp_path, patience=-1.0).wait("key").release()  # a follower came, had it, and gave it back
        held.append(theirs.wait("key"))
        return look(folder, key)

    monkeypatch.setattr(leases, "_terms", sleep)
    assert ours.take("key") is None
    held[0].check()


def _take_all(folder: str, keys: int, seed: int) -> list[tuple[int, int]]:
    """Take keys in an order of one's own; returns those that were got, with their terms, and gives none back."""
    own, got = Leases(Path(folder)), []
    for place in range(keys):
        key = (place * 7 + seed * 13) % keys
        if (lease := own.take(f"{key:04x}")) is not None:
            got.append((key, lease.term))
    time.sleep(1.0)  # whoever dies is followed: live until all have had their turn
    return got


def test_of_several_processes_one_gets_it(tmp_path: Path) -> None:
    workers, keys = 4, 300
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.5] * workers))  # all are there before the first begins
        got = [pool.submit(_take_all, str(tmp_path), keys, seed) for seed in range(workers)]
        found = Counter(key for each in got for key, _ in each.result())
    assert found == Counter(range(keys))


def test_threads_of_a_process_exclude_each_other(tmp_path: Path) -> None:
    got: list[int] = []

    def take_all() -> None:
        own = Leases(tmp_path)
        got.extend(key for key in range(200) if own.take(f"{key:04x}") is not None)

    threads = [threading.Thread(target=take_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(200))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", ["pipe", "folder", "endless", "nothing"])
def test_what_has_a_leases_name_and_is_none_is_waited_for_as_any_other_and_followed(tmp_path: Path, what: str) -> None:
    (tmp_path / "ke").mkdir()
    file = tmp_path / "ke" / "key.1"
    {
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "endless": lambda: file.symlink_to("/dev/zero"),
        "nothing": file.touch,
    }[what]()
    ours = Leases(tmp_path, patience=PATIENCE)
    assert list(ours.all()) == [("key", 1, None)]
    assert (ours.holder("key"), ours.take("key")) == (None, None)
    lease = ours.wait("key")
    lease.check()
    assert (lease.term, list(ours.strangers())) == (2, [])


@pytest.mark.timeout(30)
def test_a_pipe_in_place_of_ones_lease_is_not_waited_for(tmp_path: Path) -> None:
    lease = Leases(tmp_path).wait("key")
    lease.file.unlink()
    os.mkfifo(lease.file)
    with pytest.raises(LeaseLostError):
        lease.check()
    lease.release()


@pytest.mark.parametrize("place", [".", "ke"])
def test_a_file_where_leases_should_lie_is_one_line(tmp_path: Path, place: str) -> None:
    file = tmp_path / "leases" / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    ours = Leases(tmp_path / "leases")
    for ask in (ours.take, ours.holder):
        with pytest.raises(StoreError, match="leases must lie in a folder"):
            ask("key")
    assert list(ours.all()) == []
    assert list(ours.strangers()) == [file]


def test_what_lies_among_leases_and_is_none_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ke").mkdir()
    for name in ("key.one", "key.01", "key", "a b.1", "other.1"):
        (tmp_path / "ke" / name).write_text("x")
    ours = Leases(tmp_path)
    assert sorted(path.name for path in ours.strangers()) == ["a b.1", "key", "key.01", "key.one", "other.1"]
    assert ours.wait("key").term == 1
