"""How many jobs fit machines that are only described."""

from __future__ import annotations

import pytest

from cluster.shapes import GIB, Machine, Need, described, gpu_share, places, worker_places, workers_that_fit

EIGHT = Machine(cpus=64, gpus=8)


class TestPlaces:
    def test_a_job_without_gpus_takes_a_cpu(self) -> None:
        assert places([Machine(cpus=2), Machine(cpus=3)], Need()) == 5

    def test_shares_of_a_gpu_never_reach_over_two(self) -> None:
        # Of .4 two fit a GPU and .2 is left: 8 × 2, and not 8 / .4 = 20.
        assert worker_places(EIGHT, Need(gpus=0.4)) == 16

    @pytest.mark.parametrize("several", [2, 3, 4, 5, 6, 7, 8])
    def test_so_many_equal_shares_fill_a_gpu(self, several: int) -> None:
        assert worker_places(EIGHT, Need(gpus=1 / several)) == min(64, 8 * several)

    def test_cpus_bound_what_gpus_would_hold(self) -> None:
        assert worker_places(Machine(cpus=4, gpus=8), Need(gpus=0.5)) == 4

    def test_whole_gpus_stay_on_one_machine_per_worker(self) -> None:
        assert places([Machine(cpus=8, gpus=3), Machine(cpus=8, gpus=3)], Need(gpus=2)) == 2  # one GPU of each is left

    def test_workers_of_a_job_may_stand_on_several_machines(self) -> None:
        assert places([Machine(cpus=8, gpus=3), Machine(cpus=8, gpus=3)], Need(workers=6, gpus=1)) == 1
        assert places([Machine(cpus=8, gpus=3), Machine(cpus=8, gpus=2)], Need(workers=6, gpus=1)) == 0

    def test_a_job_that_makes_do_with_fewer_workers_has_a_place_where_none_of_all_has(self) -> None:
        need = Need(workers=4, gpus=1, least_workers=2)
        rooms = [[Machine(cpus=8, gpus=gpus)] for gpus in (1, 2, 3, 4, 7, 8)]
        assert [places(machines, need) for machines in rooms] == [0, 1, 1, 1, 1, 2]
        assert [workers_that_fit(machines, need) for machines in rooms] == [2, 2, 3, 4, 4, 4]
        assert [workers_that_fit(machines, Need(workers=4, gpus=1)) for machines in rooms] == [4] * 6
        assert str(need) == "2 to 4 workers with 1 CPU and 1 GPU each"

    def test_a_head_without_cpus_has_no_place(self) -> None:
        assert places([Machine(cpus=0), Machine(cpus=2)], Need()) == 2


class TestShares:
    def test_a_small_training_shares_a_gpu(self) -> None:
        assert gpu_share(10 * GIB, 80 * GIB) == 1 / 7  # of 72 GiB that may be planned with

    def test_what_just_fits_has_it_alone_and_what_does_not_needs_several(self) -> None:
        assert gpu_share(72 * GIB, 80 * GIB) == 1
        assert gpu_share(73 * GIB, 80 * GIB) == 2

    def test_no_memory_is_refused(self) -> None:
        with pytest.raises(ValueError, match="memory must be positive, got 0 and 8 bytes"):
            gpu_share(0, 8)


class TestDescriptions:
    def test_machines_gpus_and_memory(self) -> None:
        assert described("4x8:80GB") == (Machine(cpus=64, gpus=8, gpu_bytes=80 * GIB),) * 4

    def test_cpus_and_speed_may_be_said_and_kinds_joined(self) -> None:
        gpu = Machine(cpus=16, gpus=1, gpu_bytes=24 * GIB, gpu_flops=67e12)
        assert described("1x1:24GB:16cpu:67TF + 2x0:32cpu") == (gpu, Machine(cpus=32), Machine(cpus=32))

    @pytest.mark.parametrize("text", ["", "4", "x8", "0x8:80GB", "4x0", "4x8:80", "4x8:80GB:", "4x8;rm", "-1x8"])
    def test_what_is_none_is_refused_with_examples(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"such as 4x8:80GB, 2x1:24GB:16cpu or 10x0:32cpu, got"):
            described(text)

    @pytest.mark.parametrize("text", ["100001x1", "100000x1+1x1", "9" * 30 + "x8:80GB"])
    def test_more_machines_than_anybody_means_are_refused(self, text: str) -> None:
        assert len(described("100000x1")) == 100_000
        with pytest.raises(ValueError, match="at most 100,000 machines, got"):
            described(text)


@pytest.mark.parametrize(
    ("need", "rule"),
    [
        ({"workers": 0}, "a job must have workers"),
        ({"cpus": 0.0}, "a job must have workers and each of them CPUs"),
        ({"workers": 2, "least_workers": 3}, "a job must make do with 1 to 2 of its workers, got 3"),
        ({"workers": 2, "least_workers": 0}, "a job must make do with 1 to 2 of its workers, got 0"),
        ({"gpus": -1.0}, "a share of one or a whole number, got -1"),
        ({"gpus": 1.5}, "a share of one or a whole number, got 1.5"),
        ({"gpus": 0.00009}, "a worker's share of a GPU must be at least 0.0001, got 9e-05"),
    ],
)
def test_a_need_that_ray_would_not_serve_is_refused(need: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Need(**need)  # type: ignore[arg-type]
