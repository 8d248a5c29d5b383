"""Which machines a sweep may use: what is compared, and what is said of those that differ."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.faults import Fault
from cluster.nodes import Node
from cluster.shapes import Machine, Need
from sweeps.machines import (
    ASIDE_SECONDS,
    CHECKED,
    Asked,
    Fleet,
    Seen,
    Share,
    check_fits,
    difference,
    look,
    survey,
)
from sweeps.provenance import OPTIONAL, code_digest, library_versions
from sweeps.store import Store, joined

HERE = Seen(dict.fromkeys(CHECKED, "1.2.3"), "abc")


@dataclass
class Cluster:
    """A pretended one: which nodes are alive, which are kept without work, the time, and what was said."""

    alive: list[Node]
    reserved: list[str] = field(default_factory=list)
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)

    def fleet(self, store: Path) -> Fleet:
        """Its nodes, as a sweep uses them."""
        return Fleet(Store(store), self.said.append, own=False, on_gpus=False, clock=lambda: self.seconds)


class TestDifferences:
    def test_equal_machines_have_none(self) -> None:
        assert difference(HERE, dataclasses.replace(HERE, answer="found")) is None

    @pytest.mark.parametrize("name", CHECKED)
    def test_each_version_that_is_checked_is_named_with_both(self, name: str) -> None:
        other = dataclasses.replace(HERE, versions={**HERE.versions, name: "1.2.4"})
        assert difference(HERE, other) == f"has {name} 1.2.4, the driver has 1.2.3"

    def test_a_build_is_no_version(self) -> None:
        cpu, cuda = (
            dataclasses.replace(HERE, versions={**HERE.versions, "torch": f"2.13.0{build}"}) for build in ("+cpu", "")
        )
        assert difference(cpu, cuda) is None

    def test_a_library_that_is_missing_differs(self) -> None:
        versions = {name: version for name, version in HERE.versions.items() if name != "torch"}
        assert difference(HERE, Seen(versions, "abc")) == "has torch none, the driver has 1.2.3"

    def test_other_code_differs(self) -> None:
        assert difference(HERE, Seen(HERE.versions, "abd")) == ("has our packages with digest abd, the driver has abc")

    def test_all_that_is_checked_is_looked_up(self) -> None:
        assert {"peft", "safetensors", "gguf", "accelerate"} <= set(CHECKED)
        assert set(CHECKED) - set(OPTIONAL) <= library_versions().keys() <= {*CHECKED, "optuna"}

    @pytest.mark.parametrize("name", OPTIONAL)
    def test_an_extra_that_no_machine_has_is_no_difference_and_one_that_some_have_is(self, name: str) -> None:
        without = Seen({each: version for each, version in HERE.versions.items() if each != name}, "abc")
        assert difference(without, without) is None
        assert difference(without, HERE) == f"has {name} 1.2.3, the driver has none"

    def test_an_extra_that_is_not_installed_has_no_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sweeps.provenance.OPTIONAL", ("safetensors", "a-library-that-nobody-has"))
        found = library_versions.__wrapped__()
        assert found["safetensors"] == importlib.metadata.version("safetensors")
        assert "a-library-that-nobody-has" not in found


class TestLooking:
    def test_what_the_driver_left_is_written_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "nodes").mkdir()
        (tmp_path / "nodes" / "token").write_text("secret")
        seen = look(Asked(str(tmp_path), "token"))
        assert seen.answer is not None
        assert (tmp_path / "nodes" / seen.answer).read_text() == "secret"
        assert (seen.versions, seen.code) == (library_versions(), code_digest())

    def test_where_nothing_was_left_nothing_is_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sweeps.machines._ARRIVAL_SECONDS", 0.0)
        assert look(Asked(str(tmp_path / "store"), "token")).answer is None
        assert not (tmp_path / "store").exists()


class TestLookingAtACopy:
    """Nodes that share no folder see what the driver leaves in the store's copy."""

    def ask(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> dict[Node, str]:
        """What is wrong with a node whose folder is another one, and which looks for the copy at an address."""
        node = Node("aa" * 14, "host", "192.0.2.1", Machine(cpus=2))
        store = joined(tmp_path / "driver", f"file://{tmp_path}/objects")
        monkeypatch.setattr("sweeps.machines.alive_nodes", lambda: [node])
        there = dataclasses.replace
        monkeypatch.setattr(
            "sweeps.machines.call_on_nodes",
            lambda look, asked, nodes: {node: look(there(asked, store=str(tmp_path / "node"), remote=url))},
        )
        return survey(store, [node])

    def test_one_that_reaches_it_is_used_and_has_begun_its_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.ask(monkeypatch, tmp_path, f"file://{tmp_path}/objects") == {}
        assert Store(tmp_path / "node").id == Store(tmp_path / "driver").id
        assert not list((tmp_path / "objects").glob("flags/nodes/*"))

    def test_one_that_reaches_another_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (line,) = self.ask(monkeypatch, tmp_path, f"file://{tmp_path}/others").values()
        assert line.startswith(
            "all machines must reach the store's copy, the node host (192.0.2.1, node aaaaaaaa) does"
        )
        assert line.endswith("it does not find there what the driver left")

    def test_one_that_cannot_open_it_is_refused_with_the_reason(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (line,) = self.ask(monkeypatch, tmp_path, "ftp://host/x").values()
        assert "does not: the address of an object store must be like s3://bucket/prefix" in line


class TestSurvey:
    """Of nodes that answer, or do not."""

    NODE, GONE = (Node(id_, "host", "192.0.2.1", Machine(cpus=2)) for id_ in ("aa" * 14, "bb" * 14))

    @pytest.fixture
    def alive(self, monkeypatch: pytest.MonkeyPatch) -> list[Node]:
        """The nodes that the cluster takes for alive once all were asked; none of them can run anything."""
        fault = Fault("machine", "TaskUnschedulableError", "the node does not exist any more")
        alive: list[Node] = []
        monkeypatch.setattr("sweeps.machines.alive_nodes", lambda: alive)
        monkeypatch.setattr("sweeps.machines.call_on_nodes", lambda function, item, nodes: dict.fromkeys(nodes, fault))
        return alive

    def test_a_node_that_is_there_and_cannot_run_our_code_is_refused(self, tmp_path: Path, alive: list[Node]) -> None:
        alive.append(self.NODE)
        assert list(survey(Store(tmp_path), [self.NODE])) == [self.NODE]

    def test_a_node_that_died_before_it_answered_is_not_refused(self, tmp_path: Path, alive: list[Node]) -> None:
        alive.append(self.NODE)
        assert list(survey(Store(tmp_path), [self.NODE, self.GONE])) == [self.NODE]
        alive.clear()
        assert survey(Store(tmp_path), [self.GONE]) == {}

    def test_gpus_need_a_torch_that_is_built_for_them_where_they_are_to_train(
        self, tmp_path: Path, alive: list[Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain, with_gpus = self.NODE, Node("cc" * 14, "big", "192.0.2.2", Machine(cpus=2, gpus=1))
        alive += [plain, with_gpus]
        monkeypatch.setattr(
            "sweeps.machines.call_on_nodes",
            lambda look, asked, nodes: {node: dataclasses.replace(look(asked), for_gpus=False) for node in nodes},
        )
        assert survey(Store(tmp_path), alive) == {}
        refused = survey(Store(tmp_path), alive, on_gpus=True)
        assert list(refused) == [with_gpus]
        assert "needs a torch that is built for them, the node big (192.0.2.2, node cccccccc) has" in refused[with_gpus]


class TestNodesThatLoseWhatTheyGet:
    """Three nodes of two CPUs each, asked and well; what is reserved of one is its id."""

    IDS = ("aa" * 14, "bb" * 14, "cc" * 14)

    @pytest.fixture
    def cluster(self, monkeypatch: pytest.MonkeyPatch) -> Cluster:
        cluster = Cluster([Node(id_, "host", "192.0.2.1", Machine(cpus=2)) for id_ in self.IDS])
        monkeypatch.setattr("sweeps.machines.alive_nodes", lambda: list(cluster.alive))
        monkeypatch.setattr("sweeps.machines.survey", lambda store, nodes, on_gpus: {})
        monkeypatch.setattr("sweeps.machines.set_aside", lambda node: cluster.reserved.append(node.id) or node.id)
        monkeypatch.setattr("sweeps.machines.let_back", cluster.reserved.remove)
        return cluster

    def test_after_three_in_a_row_one_gets_none_for_ten_minutes_and_is_tried_with_one(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        fleet = cluster.fleet(tmp_path)
        share = Share(fleet, Need(), None)
        for losses, places in ((1, 6), (2, 6), (3, 4)):
            share.lost([self.IDS[0]])
            fleet.look()
            assert (losses, share()) == (losses, places)
        assert cluster.reserved == [self.IDS[0]]
        cluster.seconds += ASIDE_SECONDS - 1
        fleet.look()
        assert share() == 4
        cluster.seconds += 2
        fleet.look()
        assert (share(), cluster.reserved) == (6, [])
        share.lost([self.IDS[0]])
        fleet.look()
        assert (share(), cluster.reserved) == (4, [self.IDS[0]])
        name = "the node host (192.0.2.1, node aaaaaaaa)"
        aside = f"{name} has lost 3 jobs in a row; it gets none for 10 min"
        assert cluster.said == [aside, f"{name} gets jobs again", aside]

    def test_a_job_that_it_does_in_between_makes_it_well(self, cluster: Cluster, tmp_path: Path) -> None:
        fleet = cluster.fleet(tmp_path)
        for _ in range(4):
            fleet.lost([self.IDS[0]] * 2)
            fleet.done(self.IDS)
            fleet.look()
        assert cluster.said == []

    def test_the_last_that_jobs_fit_is_never_set_aside_and_one_that_is_comes_back_when_it_would_be_the_last(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        cluster.alive[2] = Node(self.IDS[2], "head", "192.0.2.2", Machine(cpus=0))  # no job of ours fits it
        fleet = cluster.fleet(tmp_path)
        fleet.lost([*self.IDS[:2]] * 3)
        fleet.look()
        assert cluster.reserved == [self.IDS[0]]
        del cluster.alive[1]
        fleet.look()
        assert cluster.reserved == []
        assert cluster.said[1:] == [
            "the node host (192.0.2.1, node bbbbbbbb) is gone; what it was at is done elsewhere",
            "the node host (192.0.2.1, node aaaaaaaa) gets jobs again",
        ]

    def test_a_group_that_lost_the_node_it_needs_is_told_of_once_each_time(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        # Three nodes of two CPUs each, for a group of five; without one there is room for four.
        fleet, need, last = cluster.fleet(tmp_path), Need(workers=5), cluster.alive[2]
        assert fleet.places(need, None) == 1
        fleet.look()
        assert cluster.said == []
        cluster.alive.remove(last)
        for _ in range(3):
            fleet.look()
        cluster.alive.append(last)
        fleet.look()
        cluster.alive[1:] = []
        fleet.look()
        lines = [line for line in cluster.said if line.startswith("no job")]
        assert lines == [
            f"no job fits any more: each needs 5 workers with 1 CPU each, and there is room for {room} of these; "
            f"jobs wait for a node; the same command with --workers {room} goes on from their checkpoints"
            for room in (4, 2)
        ]
        assert fleet.places(need, None) == 1  # for what is to come back

    def test_of_a_group_that_makes_do_with_fewer_it_is_told_how_many_there_is_room_for(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        # Three nodes of two CPUs each, for a group of six to four: all, four, too few, four again, all.
        fleet, need, others = cluster.fleet(tmp_path), Need(workers=6, least_workers=4), cluster.alive[1:]
        for alive in (3, 2, 2, 1, 2, 3):
            cluster.alive[1:] = others[: alive - 1]
            assert Share(fleet, need, None)() == 1
            fleet.look()
        lines = [line for line in cluster.said if "workers" in line]
        room = "jobs that begin from now on have {} of 6 workers: there is room for so many".format
        none = (
            "no job fits any more: each needs 4 to 6 workers with 1 CPU each, and there is room for 2 of these; jobs "
            "wait for a node; the same command with --workers 2 --least-workers 2 goes on from their checkpoints"
        )
        assert lines == [room(4), none, room(4), room(6)]

    def test_a_cluster_of_one_goes_on(self, cluster: Cluster, tmp_path: Path) -> None:
        del cluster.alive[1:]
        fleet = cluster.fleet(tmp_path)
        fleet.lost([self.IDS[0]] * 9)
        fleet.look()
        assert (cluster.reserved, cluster.said) == ([], [])

    def test_one_that_goes_while_it_is_aside_has_not_joined_when_it_comes_again_as_another(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        fleet = cluster.fleet(tmp_path)
        fleet.lost([self.IDS[0]] * 3)
        fleet.look()
        del cluster.alive[0]
        fleet.look()
        cluster.seconds += 2 * ASIDE_SECONDS
        fleet.look()
        assert cluster.said[1:] == ["the node host (192.0.2.1, node aaaaaaaa) is gone"]
        assert fleet.places(Need(), None) == 4


class TestRoom:
    def test_what_fits_is_accepted(self) -> None:
        check_fits([Machine(cpus=8, gpus=1)], Need(gpus=0.5))

    def test_a_lack_of_gpus_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"needs 4 GPUs \(4 workers × 1\), the cluster has 2; --gpus-per-worker 0"):
            check_fits([Machine(cpus=8, gpus=2)], Need(workers=4, gpus=1))

    def test_a_lack_of_cpus_is_named(self) -> None:
        with pytest.raises(ValueError, match="needs 4 CPUs, the cluster has 2; --workers sets"):
            check_fits([Machine(cpus=2)], Need(workers=4))

    def test_of_a_group_that_makes_do_with_fewer_the_fewest_are_asked_for(self) -> None:
        check_fits([Machine(cpus=3)], Need(workers=4, least_workers=3))
        with pytest.raises(ValueError, match="needs 3 CPUs, the cluster has 2; --workers sets"):
            check_fits([Machine(cpus=2)], Need(workers=4, least_workers=3))
        with pytest.raises(ValueError, match=r"needs 3 to 4 workers .* is all on one machine; .* room for 2"):
            check_fits([Machine(cpus=1.5), Machine(cpus=1.5)], Need(workers=4, least_workers=3))
        with pytest.raises(ValueError, match=r"needs 2 CPUs, the cluster has 1"):
            check_fits([Machine(cpus=1, gpus=3)], Need(workers=4, gpus=1, least_workers=2))

    def test_enough_in_sum_and_too_little_on_each_is_named(self) -> None:
        with pytest.raises(
            ValueError, match=r"1 CPU and 2 GPUs each, .* has room for 0 of them, --gpus-per-worker takes"
        ):
            check_fits([Machine(cpus=8, gpus=1), Machine(cpus=8, gpus=1)], Need(gpus=2))

    def test_a_share_of_a_gpu_does_not_reach_over_two(self) -> None:
        # Three times 0.6 is less than two GPUs, and each of them has room for one.
        with pytest.raises(ValueError, match=r"3 workers .* has room for 2 of them, --workers takes fewer"):
            check_fits([Machine(cpus=8, gpus=2)], Need(workers=3, gpus=0.6))

    def test_workers_whose_cpus_are_where_the_gpus_are_not_are_named(self) -> None:
        with pytest.raises(ValueError, match=r"2 workers with 1 CPU and 1 GPU each, .* has room for 1 of them"):
            check_fits([Machine(cpus=1, gpus=4), Machine(cpus=8)], Need(workers=2, gpus=1))

    def test_whose_machines_they_are_and_what_else_could_be_done_is_said(self) -> None:
        with pytest.raises(ValueError, match=r"a job needs 1 GPUs, this machine has 0; .* on CPUs, buy one$"):
            check_fits([Machine(cpus=2)], Need(gpus=1), whose="this machine", hint="buy one")
