"""Two folders of one store, which see nothing of each other but what lies in the store's copy."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sweeps import train_weights
from sweeps.cli import main
from sweeps.doctor import findings
from sweeps.job import Job, asked_to_stop
from sweeps.journal import StoreError
from sweeps.leases import LeaseLostError
from sweeps.replica import LINK, Replica, read_link
from sweeps.stopping import JobStopped
from sweeps.store import Store, joined
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, Follow, MakeSweep, MakeTrainings, PretendedSweep

BETAS = {"decode.beta": (4.0, 8.0)}


def silently(numbers: Mapping[str, float]) -> None:
    """Nobody listens."""


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the copy is to be: empty."""
    if request.param == "folder":
        return f"file://{tmp_path}/objects"
    address: str = request.getfixturevalue("s3_address")
    return address


@pytest.fixture
def folder_url(tmp_path: Path) -> str:
    """The same, where it is of no matter what is there."""
    return f"file://{tmp_path}/objects"


def member(folder: Path, url: str) -> Store:
    """A folder of the store at an address, joined if need be."""
    return joined(folder, url, durable=False)


def cut_off(folder: Path) -> None:
    """Let a folder look for its copy where there is nothing."""
    link = json.loads((folder / LINK).read_text(encoding="utf-8"))
    link["url"] = link["url"].replace("sweeps-", "no-such-bucket-")
    (folder / LINK).write_text(json.dumps(link), encoding="utf-8")


def put(store: Store, key: str, text: str = "what it holds") -> Path:
    """A stage of one file."""

    def make(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "file.txt").write_text(text, encoding="utf-8")

    return store.build("weights", key, make, {"of": key})


def text_of(store: Store, key: str) -> str | None:
    """What a stage of `put` holds, None if there is none."""
    folder = store.stage("weights", key)
    return None if folder is None else (folder / "inner" / "file.txt").read_text(encoding="utf-8")


class TestJoining:
    def test_a_new_folder_becomes_a_replica_of_the_store_that_is_there(self, tmp_path: Path, url: str) -> None:
        first, second = member(tmp_path / "a", url), member(tmp_path / "b", url)
        assert first.id == second.id
        assert first.replica is not None
        assert second.replica is not None
        assert first.replica.name != second.replica.name
        assert Store(tmp_path / "b").replica is not None  # whoever opens it later need not say where the copy is

    def test_a_store_without_a_copy_has_none(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "a")
        assert store.replica is None
        assert store.send_all() == 0
        store.sync()

    def test_again_changes_nothing(self, tmp_path: Path, folder_url: str) -> None:
        member(tmp_path / "a", folder_url)
        before = (tmp_path / "a" / LINK).read_bytes()
        member(tmp_path / "a", folder_url)
        assert (tmp_path / "a" / LINK).read_bytes() == before

    def test_a_folder_that_holds_another_store_is_refused(self, tmp_path: Path, folder_url: str) -> None:
        member(tmp_path / "a", folder_url)
        Store(tmp_path / "b")
        with pytest.raises(ValueError, match=r"must hold the store .*/b or nothing, it holds another store$"):
            joined(tmp_path / "b", folder_url)
        assert Store(tmp_path / "b").replica is None

    def test_a_store_has_one_copy(self, tmp_path: Path, folder_url: str) -> None:
        member(tmp_path / "a", folder_url)
        with pytest.raises(ValueError, match=r"must have one --remote, that of .*/a is file://.*, got file://"):
            joined(tmp_path / "a", folder_url + "-other")

    @pytest.mark.parametrize(
        "text", ["", "{}", '{"url": "s3://b/x", "replica": "../../x"}', '{"url": 3, "replica": "01234567"}', "[" * 9999]
    )
    def test_a_damaged_link_is_one_line(self, tmp_path: Path, text: str) -> None:
        Store(tmp_path / "a")
        (tmp_path / "a" / LINK).write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"^.*/a/{LINK} must name an object store .* and is damaged"):
            read_link(tmp_path / "a")

    def test_a_mark_that_is_none_is_one_line(self, tmp_path: Path, folder_url: str) -> None:
        (tmp_path / "objects").mkdir()
        (tmp_path / "objects" / "store.json").write_text("{", encoding="utf-8")
        with pytest.raises(ValueError, match=r"^a store's mark must have an id, got b'{'$"):
            joined(tmp_path / "a", folder_url)


class TestRecords:
    def test_what_one_records_the_other_finds_after_both_have_synchronised(self, tmp_path: Path, url: str) -> None:
        first, second = member(tmp_path / "a", url), member(tmp_path / "b", url)
        first.put("note", "1", {"said": "hello"})
        first.sync()
        assert second.get("note", "1") is None
        second.sync()
        assert second.get("note", "1") == {"said": "hello"}
        second.put("note", "1", {"said": "later"})
        second.put("note", "2", {"said": "too"})
        second.sync()
        first.sync()
        assert dict(first.all("note")) == {"1": {"said": "later"}, "2": {"said": "too"}}
        assert first.problems() == second.problems() == []

    def test_a_journal_that_grows_is_got_from_where_it_ended(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        for number in range(5):
            first.put("note", str(number), {"n": number})
            first.sync()
            second.sync()
            assert len(second.all("note")) == number + 1
        journals = [sorted((tmp_path / name / "journals").iterdir()) for name in ("a", "b")]
        assert [file.read_bytes() for file in journals[0]] == [file.read_bytes() for file in journals[1]]

    def test_a_store_that_was_there_before_is_sent_whole(self, tmp_path: Path, url: str) -> None:
        old = Store(tmp_path / "a", durable=False)
        old.put("note", "1", {"said": "hello"})
        put(old, "w1")
        first = member(tmp_path / "a", url)
        assert first.send_all() == 1
        assert first.send_all() == 0
        second = member(tmp_path / "b", url)
        second.sync()
        assert second.get("note", "1") == {"said": "hello"}
        assert text_of(second, "w1") == "what it holds"

    def test_what_a_killed_process_had_not_sent_the_next_one_of_its_folder_sends(
        self, tmp_path: Path, folder_url: str
    ) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        code = f"""
import os, signal
from pathlib import Path
from sweeps.store import Store
Store(Path({str(tmp_path / "a")!r})).put("training", "w1", {{"status": "finished"}})
os.kill(os.getpid(), signal.SIGKILL)
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
        first.sync()
        second.sync()
        assert second.get("training", "w1") is not None

    def test_a_long_journal_is_followed_by_another_and_is_sent_no_more(
        self, tmp_path: Path, folder_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sweeps.store.LONG_JOURNAL", 100)
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        first.put("note", "1", {"said": "a" * 100})
        first.sync()
        (sent,) = (tmp_path / "objects" / "journals").iterdir()
        before = sent.stat().st_mtime_ns
        first.put("note", "1", {"said": "later"})
        first.put("note", "2", {})
        first.sync()
        second.sync()
        assert len(list((tmp_path / "objects" / "journals").iterdir())) == 2
        assert sent.stat().st_mtime_ns == before
        assert dict(second.all("note")) == {"1": {"said": "later"}, "2": {}}

    def test_of_a_journal_whole_lines_are_sent_alone(self, tmp_path: Path, folder_url: str) -> None:
        """An append that fails is cut off again, and what follows stands in its place."""
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        first.put("note", "1", {})
        (journal,) = (tmp_path / "a" / "journals").iterdir()
        whole = journal.read_bytes()
        journal.write_bytes(whole + b'{"sum":"0000')
        first.sync()
        second.sync()
        copied = tmp_path / "objects" / "journals" / journal.name
        when = copied.stat().st_mtime_ns
        first.sync()
        assert copied.stat().st_mtime_ns == when  # a torn line is nothing that could be sent
        journal.write_bytes(whole)
        first.put("note", "2", {})
        first.sync()
        second.sync()
        assert set(second.all("note")) == set(first.all("note")) == {"1", "2"}
        assert second.problems() == second.notes() == []

    def test_the_journal_of_a_process_that_lives_is_left_to_it(self, tmp_path: Path, folder_url: str) -> None:
        first = member(tmp_path / "a", folder_url)
        first.put("note", "1", {})
        (journal,) = (tmp_path / "a" / "journals").iterdir()
        theirs = journal.with_name(journal.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-"))
        theirs.write_bytes(journal.read_bytes())
        first.send_all()
        assert [file.name for file in (tmp_path / "objects" / "journals").iterdir()] == [journal.name]

    def test_a_copy_is_never_shortened_by_who_has_less(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        first.put("note", "1", {})
        first.sync()
        second.sync()
        first.put("note", "2", {})
        first.sync()
        second.send_all()  # which has the first record alone
        third = member(tmp_path / "c", folder_url)
        third.sync()
        assert set(third.all("note")) == {"1", "2"}


class TestStages:
    def test_a_stage_is_there_for_all_and_got_by_who_reads_it(self, tmp_path: Path, url: str) -> None:
        first, second = member(tmp_path / "a", url), member(tmp_path / "b", url)
        made = put(first, "w1")
        assert second.has("weights", "w1")
        assert not (tmp_path / "b" / "stages").exists()
        assert text_of(second, "w1") == "what it holds"
        assert second.about("weights", "w1") == first.about("weights", "w1")
        got = second.stage("weights", "w1")
        assert got is not None
        assert (got / "about.json").read_bytes() == (made / "about.json").read_bytes()

    def test_who_would_build_what_is_there_gets_it(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        put(first, "w1", "the first one's")
        put(second, "w1", "never made")
        assert text_of(second, "w1") == "the first one's"

    def test_what_is_absent_is_looked_for_anew_after_synchronising(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        assert not second.has("weights", "w1")
        put(first, "w1")
        assert not second.has("weights", "w1")  # known for some seconds: nobody is asked again and again
        second.sync()
        assert second.has("weights", "w1")

    def test_one_that_was_changed_on_its_way_is_none_here_and_is_made_and_sent_anew(
        self, tmp_path: Path, folder_url: str
    ) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        put(first, "w1", "A" * 2000)
        packed = tmp_path / "objects" / "stages" / "weights" / "w1.tar"
        packed.write_bytes(packed.read_bytes().replace(b"A" * 2000, b"A" * 1999 + b"B"))
        assert second.stage("weights", "w1") is None
        assert not second.has("weights", "w1")
        assert packed.exists()  # others may have better luck: it may be our disk
        put(second, "w1", "A" * 2000)
        third = member(tmp_path / "c", folder_url)
        assert text_of(third, "w1") == "A" * 2000

    def test_half_an_archive_is_none(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        put(first, "w1", "A" * 5000)
        packed = tmp_path / "objects" / "stages" / "weights" / "w1.tar"
        packed.write_bytes(packed.read_bytes()[:3000])
        assert second.stage("weights", "w1") is None
        assert second.problems() == []

    @pytest.mark.parametrize("name", ["../../../../../evil.txt", "/tmp/evil-by-a-replica.txt", "link"])  # noqa: S108
    def test_an_archive_that_leads_out_is_none_and_writes_nothing_there(
        self, tmp_path: Path, folder_url: str, name: str
    ) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        put(first, "w1")
        (tmp_path / "evil").write_text("evil", encoding="utf-8")
        if name == "link":
            (tmp_path / "link").symlink_to(tmp_path / "evil")
        with tarfile.open(tmp_path / "objects" / "stages" / "weights" / "w1.tar", "w") as archive:
            archive.add(tmp_path / ("link" if name == "link" else "evil"), name)
        before = sorted(tmp_path.rglob("evil*"))
        assert second.stage("weights", "w1") is None
        assert sorted(tmp_path.rglob("evil*")) == before
        assert not Path("/tmp/evil-by-a-replica.txt").exists()  # noqa: S108

    def test_one_that_is_not_whole_here_is_not_sent(self, tmp_path: Path, folder_url: str) -> None:
        old = Store(tmp_path / "a", durable=False)
        (put(old, "w1") / "inner" / "file.txt").write_text("cut", encoding="utf-8")
        first = member(tmp_path / "a", folder_url)
        assert first.send_all() == 0
        assert not first.has("weights", "w1")

    def test_of_two_that_differ_that_counts_which_was_sent_first(self, tmp_path: Path, folder_url: str) -> None:
        old = Store(tmp_path / "a", durable=False)
        put(old, "w1", "made here, and not sent")
        second = member(tmp_path / "b", folder_url)
        put(second, "w1", "made there")
        # The store of a folder that had none gets the id of the copy's: as if its sending had failed.
        (tmp_path / "a" / "store.json").write_bytes((tmp_path / "b" / "store.json").read_bytes())
        first = member(tmp_path / "a", folder_url)
        assert text_of(first, "w1") == "made here, and not sent"
        first.send("weights", "w1")
        assert text_of(first, "w1") == "made there"

    def test_where_that_one_is_unsound_ours_counts(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        put(first, "w1", "A" * 2000)
        packed = tmp_path / "objects" / "stages" / "weights" / "w1.tar"
        packed.write_bytes(packed.read_bytes()[:3000])
        (tmp_path / "alone").mkdir()
        shutil.copytree(
            put(Store(tmp_path / "alone"), "w1", "B" * 2000), tmp_path / "b" / "stages" / "weights" / "w1" / "w1"
        )
        second.send("weights", "w1")
        assert text_of(second, "w1") == "B" * 2000
        assert second.problems() == []
        assert text_of(member(tmp_path / "c", folder_url), "w1") == "B" * 2000

    def test_one_that_another_has_sent_meanwhile_is_not_sent_again(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)

        def make(folder: Path) -> None:
            put(first, "w1", "made there")  # after we have looked, and found none
            (folder / "inner").mkdir()
            (folder / "inner" / "file.txt").write_text("made here", encoding="utf-8")

        second.build("weights", "w1", make, {})
        assert text_of(second, "w1") == text_of(first, "w1") == "made there"

    def test_what_decided_one_is_read_without_getting_it(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        put(first, "w1")
        about = second.about("weights", "w1")
        assert about is not None
        assert about["about"] == {"of": "w1"}
        assert not (tmp_path / "b" / "stages").exists()

    def test_one_that_is_damaged_here_is_got_again(self, tmp_path: Path, folder_url: str) -> None:
        first = member(tmp_path / "a", folder_url)
        file = put(first, "w1") / "inner" / "file.txt"
        file.write_text("cut", encoding="utf-8")
        assert text_of(first, "w1") == "what it holds"
        assert "was damaged" in first.problems()[0]

    def test_one_that_is_dropped_here_is_got_again_by_who_needs_it(self, tmp_path: Path, folder_url: str) -> None:
        first = member(tmp_path / "a", folder_url)
        folder = put(first, "w1")
        first.drop_weights("w1", "none")
        assert not folder.exists()
        assert first.dropped_weights("w1") is None  # nothing has to be trained again for it
        assert text_of(first, "w1") == "what it holds"

    def test_of_many_those_are_lacking_that_are_nowhere(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        put(first, "w1")
        put(second, "w2")
        assert first.lacking("weights", ["w1", "w2", "w3"]) == ["w3"]
        assert first.fetch_all("weights", ["w1", "w2", "w3"]) == 1

    def test_partial_work_goes_to_who_has_none_and_leaves_who_has_some(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        (first.scratch("trajectory", "t1") / "step").write_text("40", encoding="utf-8")
        first.send_scratch("trajectory", "t1")
        second.fetch_scratch("trajectory", "t1")
        assert (second.scratch("trajectory", "t1") / "step").read_text(encoding="utf-8") == "40"
        (second.scratch("trajectory", "t1") / "step").write_text("60", encoding="utf-8")
        second.fetch_scratch("trajectory", "t1")
        assert (second.scratch("trajectory", "t1") / "step").read_text(encoding="utf-8") == "60"
        second.drop_scratch("trajectory", "t1")
        third = member(tmp_path / "c", folder_url)
        third.fetch_scratch("trajectory", "t1")
        assert not third.scratch_path("trajectory", "t1").exists()


class TestLeases:
    def test_each_folder_has_terms_of_its_own(self, tmp_path: Path, folder_url: str, follow: Follow) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        old = first.lease("t1")
        new = follow(first, old)
        assert (old.term, new.term) == (1, 2)
        first.sync()
        second.sync()
        # In one folder, what term 1 writes after term 2 has claimed would never count.
        with second.lease("t1") as theirs:
            assert theirs.term == 1
            second.put("training", "w1", {"status": "finished"}, theirs)
        second.sync()
        first.sync()
        found = first.get("training", "w1")
        assert found is not None
        assert found["status"] == "finished"
        with pytest.raises(LeaseLostError):
            first.check(old)

    def test_one_that_was_taken_in_another_folder_is_not_looked_for_here(self, tmp_path: Path, folder_url: str) -> None:
        first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
        with first.lease("t1") as lease:
            unseen = dataclasses.replace(lease, file=tmp_path / "hidden" / lease.file.name)  # as on another machine
            second.put("training", "w1", {"status": "finished"}, unseen)
        assert second.get("training", "w1") is not None


def test_a_store_that_does_not_answer_asks_no_job_to_stop(
    tmp_path: Path, folder_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(replica: Replica, name: str, **waits: object) -> bytes:
        raise StoreError("the object store does not answer")

    store = member(tmp_path / "a", folder_url)
    monkeypatch.setattr(Replica, "flag", silent)
    assert not asked_to_stop(store, str(tmp_path / "a" / "tune" / "stop"))()


def test_a_job_that_does_not_see_the_file_is_asked_by_a_flag(tmp_path: Path, folder_url: str) -> None:
    first, second = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
    assert first.replica is not None
    stop = tmp_path / "a" / "tune" / "s" / "stop"
    seen_there = tmp_path / "b" / "tune" / "s" / "stop"  # both call their folder by one path, on two machines
    assert not asked_to_stop(second, str(seen_there))()
    first.replica.raise_stop(stop)
    assert asked_to_stop(second, str(seen_there))()
    first.replica.lower_stop(stop)
    assert not asked_to_stop(second, str(seen_there))()


class TestSweep:
    @pytest.fixture
    def sweep(self, make_sweep: MakeSweep, make_trainings: MakeTrainings) -> PretendedSweep:
        """BC, SARSA and ILQL at two expectiles, two betas each."""
        return make_sweep(
            [
                *make_trainings("sarsa", BETAS),
                *make_trainings("ilql", {"train.tau": (0.7, 0.9), **BETAS}),
                *make_trainings("bc"),
            ]
        )

    def test_what_another_folder_does_is_as_if_it_had_been_done_here(
        self, sweep: PretendedSweep, tmp_path: Path, url: str
    ) -> None:
        alone = dataclasses.replace(sweep, store=Store(tmp_path / "alone", durable=False), folder=tmp_path / "alone")
        alone.worker().drive(alone.schedule(seeds=2))

        here, there = member(tmp_path / "a", url), member(tmp_path / "b", url)
        driven = dataclasses.replace(sweep, store=here)
        worker = dataclasses.replace(sweep, store=there).worker()
        schedule = driven.schedule(seeds=2)
        while (found := schedule.next_job()) is not None:
            name, job = found
            assert job.remote == url
            there.sync()
            worker.work(job)
            there.sync()
            schedule.job_ended(name, None)
        assert schedule.is_over

        def told(store: Store) -> list[tuple[object, ...]]:
            return [(row["trial_id"], row["status"], row.get("score")) for row in store.rows("sweep")]

        assert told(here) == told(alone.store)
        assert not (tmp_path / "a" / "stages").exists()  # who only drives has no use for weights
        again = driven.schedule(seeds=2)
        assert again.next_job() is None
        assert again.cached_jobs == 8

    def test_a_job_knows_of_no_copy_where_there_is_none(self, sweep: PretendedSweep) -> None:
        found = sweep.schedule().next_job()
        assert found is not None
        assert found[1].remote is None


class TestJob:
    """Jobs done for real in a folder that has nothing but what the copy gave it."""

    @pytest.fixture
    def elsewhere(self, bench: Bench, folder_url: str, tmp_path: Path) -> Job:
        """A training with its evaluation, for a machine whose folder is `tmp_path / "there"`; the driver's has sent."""
        joined(bench.store.folder, folder_url).send_all()
        trial = bench.trial()
        job = bench.job(trial, trial)
        return dataclasses.replace(job, store=str(tmp_path / "there"), remote=folder_url)

    def test_it_ends_in_the_bits_that_it_has_where_all_is_in_one_folder(
        self, bench: Bench, other_bench: Bench, elsewhere: Job
    ) -> None:
        trial = bench.trial()
        assert run_job(elsewhere, silently) == "finished"
        here = Store(bench.store.folder)
        assert here.get("evaluation", trial.trial_id) is None  # nobody has asked yet
        here.sync()
        assert list(findings(here)) == []  # which has no weights, and needs none
        assert run_job(other_bench.job(trial, trial), silently) == "finished"
        assert dataclasses.replace(bench, store=here).weights(trial) == other_bench.weights(trial)
        assert here.episodes([trial.trial_id]).equals(other_bench.store.episodes([trial.trial_id]))
        assert list(findings(here)) == []

    def test_a_training_without_evaluations_is_known_when_its_job_has_ended(self, bench: Bench, elsewhere: Job) -> None:
        assert run_job(dataclasses.replace(elsewhere, evaluations=()), silently) == "finished"
        here = Store(bench.store.folder)
        here.sync()
        record = here.get("training", bench.trial().weights_id)
        assert record is not None
        assert record["status"] == "finished"

    def test_the_loss_curve_is_read_without_the_weights(self, bench: Bench, elsewhere: Job) -> None:
        trial = bench.trial()
        run_job(elsewhere, silently)
        here = Store(bench.store.folder)
        curve = here.curve(trial.weights_id)
        assert curve is not None
        assert len(curve.read_text(encoding="utf-8").splitlines()) == 6  # of the first of 20 steps, and of every fourth
        assert not (here.folder / "stages" / "weights" / trial.weights_id[:2] / trial.weights_id).exists()
        assert here.has("weights", trial.weights_id)

    def test_what_a_lost_machine_had_sent_of_a_training_another_goes_on_from(
        self, bench: Bench, other_bench: Bench, elsewhere: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(train_weights, "SENT_SECONDS", 0.0)

        def lost(numbers: Mapping[str, float]) -> None:
            if numbers.get("step", 0) >= 12:  # it has checkpoints of steps 5 and 10
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_job(elsewhere, lost)
        told: list[float] = []
        third = dataclasses.replace(elsewhere, store=str(tmp_path / "third"))
        run_job(third, lambda numbers: told.append(numbers.get("step", 0)))
        assert min(step for step in told if step) > 10
        trial = bench.trial()
        run_job(other_bench.job(trial, trial), silently)
        made = Store(tmp_path / "third")
        assert dataclasses.replace(bench, store=made).weights(trial) == other_bench.weights(trial)

    def test_one_that_is_asked_to_stop_by_the_flag_leaves_what_another_goes_on_from(
        self, bench: Bench, elsewhere: Job, tmp_path: Path
    ) -> None:
        here = Store(bench.store.folder)
        assert here.replica is not None
        here.replica.raise_stop(here.folder / "tune" / "s" / "stop")
        asked = dataclasses.replace(elsewhere, stop=str(tmp_path / "there" / "tune" / "s" / "stop"))
        with pytest.raises(JobStopped):
            run_job(asked, silently)
        here.replica.lower_stop(here.folder / "tune" / "s" / "stop")
        third = dataclasses.replace(elsewhere, store=str(tmp_path / "third"))
        assert run_job(third, silently) == "finished"


class TestCommand:
    @pytest.mark.parametrize("said", [["--remote"], []])
    def test_workers_that_train_together_are_refused_before_anything_is_made(
        self, tmp_path: Path, folder_url: str, said: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "a"
        if not said:
            member(folder, folder_url)  # which says so by itself
        remote = [*said, folder_url] if said else []
        words = ["run", "bandit", "--preset", "smoke", "--workers", "2", "--store", str(folder), *remote]
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: --workers must be 1 where machines share no folder, got 2")
        assert folder.exists() == (not said)

    def test_sync_makes_a_new_folder_a_whole_store(
        self, tmp_path: Path, folder_url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = member(tmp_path / "a", folder_url)
        first.build("evaluation", "e1", lambda folder: None, {})
        first.put("evaluation", "e1", {"status": "finished", "reason": None, "score": 1.0})
        first.sync()
        assert main(["sync", "--remote", folder_url, "--store", str(tmp_path / "b")]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"store {tmp_path / 'b'} and its copy at {folder_url}: 0 stages sent, 1 evaluation got; ")
        assert (tmp_path / "b" / "stages" / "evaluation" / "e1" / "e1" / "about.json").is_file()
        assert Store(tmp_path / "b").get("evaluation", "e1") is not None
        assert main(["sync", str(tmp_path / "b")]) == 0

    def test_sync_of_a_store_without_a_copy_is_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Store(tmp_path / "a")
        assert main(["sync", str(tmp_path / "a")]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.splitlines() == [
            f"error: a store that is synchronised must have a copy, {tmp_path / 'a'} has none; --remote names one"
        ]

    def test_the_doctor_finds_a_replica_well(self, tmp_path: Path, folder_url: str) -> None:
        store = member(tmp_path / "a", folder_url)
        store.build("world", "w1", lambda folder: None, {})
        store.sync()
        assert list(findings(store)) == []


def test_the_link_says_where_and_nothing_secret(tmp_path: Path, folder_url: str) -> None:
    member(tmp_path / "a", folder_url)
    link = json.loads((tmp_path / "a" / LINK).read_text(encoding="utf-8"))
    assert link.keys() == {"url", "replica"}
    assert link["url"] == folder_url


def test_a_copy_that_is_gone_is_one_line_and_loses_nothing(tmp_path: Path, s3_address: str) -> None:
    member(tmp_path / "a", s3_address)
    cut_off(tmp_path / "a")
    with pytest.raises(StoreError, match=r"^the object store s3://no-such-bucket-"):
        put(Store(tmp_path / "a"), "w1")
    assert text_of(Store(tmp_path / "a"), "w1") == "what it holds"


def test_a_lease_says_nothing_of_what_another_folder_sends(tmp_path: Path, folder_url: str) -> None:
    here, there = member(tmp_path / "a", folder_url), member(tmp_path / "b", folder_url)
    lease = here.try_lease("key")
    assert lease is not None
    there.put("evaluation", "key", {"status": "failed", "reason": "it was done there"})
    there.sync()
    Store(here.folder).pull()  # by another process of this folder
    assert set(here.some("evaluation", ["key"], lease)) == {"key"}
    lease.release()
