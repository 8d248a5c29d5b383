"""Files that become one lease after another: never two at once, never another process's, and none is left for good."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps import slips
from sweeps.doctor import findings
from sweeps.journal import StoreError
from sweeps.leases import Lease, Leases
from sweeps.slips import Slips
from sweeps.store import Store


def slips_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".slip-*"))


def number_of(lease: Lease) -> int:
    """Of its file, on the disk."""
    return lease.file.stat().st_ino


def test_a_file_is_one_lease_after_another(tmp_path: Path) -> None:
    ours = Leases(tmp_path)
    with ours.wait("one") as one:
        first, said = number_of(one), one.content
    with ours.wait("two") as two:
        assert number_of(two) == first
        assert two.file.read_bytes() == two.content != said
        two.check()
    assert len(slips_of(tmp_path)) == 1


def test_two_leases_at_once_are_two_files(tmp_path: Path) -> None:
    ours = Leases(tmp_path)
    with ours.wait("one") as one, ours.wait("two") as two:
        assert number_of(one) != number_of(two)
        one.check()
        two.check()
    assert len(slips_of(tmp_path)) == 2


def test_one_that_was_refused_is_used_for_the_next(tmp_path: Path) -> None:
    theirs, ours = Leases(tmp_path), Leases(tmp_path)
    held = theirs.wait("key")
    for _ in range(3):
        assert ours.take("key") is None
    with ours.wait("other"):
        assert len(slips_of(tmp_path)) == 2
    held.check()


def test_who_was_followed_uses_its_file_again_and_the_follower_keeps_its_own(tmp_path: Path) -> None:
    ours = Leases(tmp_path)
    lost = ours.wait("key")
    first = number_of(lost)
    follower = Leases(tmp_path, patience=-1.0).wait("key")
    lost.release()
    with ours.wait("other") as other:
        assert number_of(other) == first
        follower.check()
        assert follower.file.read_bytes() == follower.content


def test_one_that_has_its_name_still_is_used_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Leases(tmp_path)
    lease = ours.wait("key")
    monkeypatch.setattr("sweeps.leases.remove", lambda file: None)
    lease.release()
    monkeypatch.undo()
    with ours.wait("other") as other:
        assert number_of(other) != number_of(lease)
        assert lease.file.read_bytes() == lease.content


@pytest.mark.parametrize("fault", [FileExistsError(errno.EEXIST, "there"), OSError(errno.EIO, "no answer")])
def test_a_link_that_was_made_and_whose_answer_was_lost_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError
) -> None:
    link = os.link

    def lose(*given: Any) -> None:
        link(*given)
        raise fault

    ours = Leases(tmp_path)
    ours.wait("key").release()  # its folder is there
    monkeypatch.setattr(os, "link", lose)
    lease = ours.take("key")
    assert lease is not None
    lease.check()
    lease.release()
    assert list(tmp_path.rglob("key*")) == []


def test_what_a_disk_says_for_another_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "link", full)
    ours = Leases(tmp_path)
    with pytest.raises(StoreError, match=r"key\.1 could not be written: Disk quota exceeded"):
        ours.take("key")
    assert list(tmp_path.rglob("key*")) == []
    monkeypatch.undo()
    with ours.wait("key"):
        assert len(slips_of(tmp_path)) == 1


def test_where_links_are_not_counted_leases_are_held_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def one_link(*given: Any, **named: Any) -> os.stat_result:
        found = list(stat(*given, **named))
        found[3] = 1
        return os.stat_result(found)

    monkeypatch.setattr(os, "stat", one_link)
    ours = Leases(tmp_path)
    for _ in range(2):
        with ours.wait("key") as lease:
            lease.check()
            assert Leases(tmp_path).take("key") is None


def test_one_whose_own_name_is_gone_is_used_no_more_while_it_has_another(tmp_path: Path) -> None:
    made = Slips(tmp_path)
    slip = made.take(b"first")
    slip.name(str(tmp_path / "a"))
    Path(slip.path).unlink()
    slip.give_back()
    assert made.take(b"second") is not slip
    assert (tmp_path / "a").read_bytes() == b"first"


def test_shorter_bytes_take_the_place_of_longer_ones(tmp_path: Path) -> None:
    made = Slips(tmp_path)
    slip = made.take(b"longer")
    slip.name(str(tmp_path / "a"))
    (tmp_path / "a").unlink()
    slip.give_back()
    again = made.take(b"short")
    assert again is slip
    assert Path(slip.path).read_bytes() == b"short"


def test_a_fork_leaves_its_parents_alone(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from sweeps.leases import Leases
ours = Leases(Path({str(tmp_path)!r}))
ours.wait("before").release()
held = ours.wait("held")
child = os.fork()
if child == 0:
    held.release()  # as whatever holds it in the parent may do when the child ends
    lease = ours.wait("child")
    os._exit(0 if lease.file.read_bytes() == lease.content and str(os.getpid()).encode() in lease.content else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for key in ("one", "two"):
    lease = ours.wait(key)
    lease.check()
    assert b"%d@" % os.getpid() in lease.file.read_bytes()
    assert lease.file.stat().st_ino != Path({str(tmp_path)!r}, "ch", "child.1").stat().st_ino
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def end(folder: Path, how: str) -> None:
    """Have a process give a lease back, and end."""
    code = f"""
import os
from pathlib import Path
from sweeps.leases import Leases
ours = Leases(Path({str(folder)!r}))
ours.wait("key").release()
{how}
"""
    subprocess.run([sys.executable, "-c", code], check=False)


def test_who_ends_leaves_none_and_who_is_killed_leaves_one_until_it_is_old(tmp_path: Path) -> None:
    end(tmp_path, "")
    assert slips_of(tmp_path) == []
    end(tmp_path, "os._exit(9)")
    (left,) = slips_of(tmp_path)
    assert list(Leases(tmp_path).strangers()) == []
    ours = Leases(tmp_path)
    with ours.wait("key"):
        assert left in slips_of(tmp_path)
    long_ago = time.time() - slips.SWEPT_SECONDS - 60
    os.utime(tmp_path / left, (long_ago, long_ago))
    with Leases(tmp_path).wait("key"):
        assert left not in slips_of(tmp_path)


def test_who_lives_and_whose_file_was_swept_makes_another(tmp_path: Path) -> None:
    ours = Leases(tmp_path)
    ours.wait("key").release()
    (swept,) = slips_of(tmp_path)
    (tmp_path / swept).unlink()
    for _ in range(2):
        with ours.wait("key") as lease:
            lease.check()
    assert len(slips_of(tmp_path)) == 1


def test_a_lease_whose_file_was_swept_while_it_was_held_is_held_and_given_back(tmp_path: Path) -> None:
    ours = Leases(tmp_path)
    with ours.wait("key") as lease:
        (swept,) = slips_of(tmp_path)
        (tmp_path / swept).unlink()
        lease.check()
        assert Leases(tmp_path).take("key") is None
    assert list(tmp_path.rglob("key*")) == []
    with ours.wait("key") as lease:
        lease.check()


def test_a_store_names_none_as_a_fault(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.lease("key").release()
    assert len(slips_of(store.folder / "leases")) == 1
    assert list(findings(store)) == []
