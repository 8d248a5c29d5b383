"""What a described cluster would have to give: sizes of networks, memory of a step, hours, disk."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster.shapes import GIB, Machine, described
from ilql.language_model import Architecture, build_language_model
from sweeps.forecast import CPU_PEAK, PROCESS_BYTES, forecast
from sweeps.job import Resources
from sweeps.plan import Remaining
from sweeps.sizes import Networks, networks_of
from sweeps.stages import build_module, load_backbone

if TYPE_CHECKING:
    from conftest import Bench, MakeTrial

ROOT = Path(__file__).resolve().parents[2]


class TestNetworks:
    @pytest.mark.parametrize("method", ["bc", "sarsa", "ilql", "cql", "decision_transformer"])
    def test_parameters_are_those_of_the_real_module(self, bench: Bench, method: str) -> None:
        spec = bench.trial(method)
        real = build_module(bench.store, spec)
        found = networks_of(spec, load_backbone(bench.store, spec).to("meta"))
        assert found.trained == sum(p.numel() for p in real.parameters() if p.requires_grad)
        assert found.frozen == sum(p.numel() for p in real.parameters() if not p.requires_grad)

    def test_a_policy_from_a_critic_holds_the_critic(self, make_trial: MakeTrial) -> None:
        model = build_language_model(Architecture(layers=1, width=16, heads=2, context=16), vocabulary=64, seed=0)
        policy, critic = (networks_of(make_trial(name), model.to("meta")) for name in ("awr", "ilql"))
        assert policy.frozen == critic.trained + critic.frozen

    @pytest.mark.parametrize("method", ["awr", "chai", "psi", "qsft", "utterance_ilql", "mc_returns"])
    def test_every_other_method_has_sizes(self, make_trial: MakeTrial, method: str) -> None:
        model = build_language_model(Architecture(layers=1, width=16, heads=2, context=16), vocabulary=64, seed=0)
        found = networks_of(make_trial(method), model.to("meta"))
        assert found.trained > 0
        assert found.step_flops(dialogues=2, tokens=8) > 0


NETWORKS = Networks(
    trained=100, frozen=40, read=10, products=90, frozen_products=30,
    in_blocks=61, frozen_in_blocks=30, layers=2, width=5, heads=1,
)  # fmt: skip


def test_a_step_holds_sixteen_bytes_a_trained_parameter_four_a_frozen_one_and_the_activations() -> None:
    # 16 × 100 + 4 × 40 = 1760; 3 dialogues × 7 tokens × 2 layers × (16 × 5 + 1 head × 7 tokens) × 4 bytes = 14,616
    assert NETWORKS.memory_bytes(dialogues=3, tokens=7) == 1_760 + 14_616
    # Made again: 3 × 7 × (2 layers × 5 + 16 × 5 + 7) × 4 bytes = 8,148
    assert NETWORKS.memory_bytes(dialogues=3, tokens=7, recompute=True) == 1_760 + 8_148


def test_of_shared_out_blocks_each_worker_holds_its_part_and_two_of_them_while_they_run() -> None:
    held = NETWORKS.on_each_of(2)
    # 100 − 61 + ⌈61/2⌉ = 70, and 40 − 30 + 15 = 25: 16 × 70 + 4 × 25 = 1,220
    assert held.memory_bytes(dialogues=0, tokens=7) == 1_220
    assert (held.in_blocks, held.frozen_in_blocks) == (31, 15)
    # A block has ⌈61/2⌉ = 31 numbers: two blocks and one's gradients, of 4 bytes each.
    assert NETWORKS.running_blocks_bytes() == 4 * 3 * 31


def test_what_is_only_read_is_not_stored() -> None:
    assert NETWORKS.stored_bytes() == 4 * (100 + 40 - 10)


def test_a_step_takes_six_operations_a_weight_and_token_two_for_frozen_ones_and_attentions_own() -> None:
    # 21 tokens × (6 × 90 + 2 × 30 + 12 × 2 × 5 × 7) = 21 × 1,440
    assert NETWORKS.step_flops(dialogues=3, tokens=7) == 21 * 1_440
    assert NETWORKS.token_flops() == 2 * 120


MEASURE = """
import sys
sys.path.insert(0, {root!r})
from benchmarks.public_step import Sizes
from benchmarks.step_memory import measure_here
sizes = Sizes(layers=6, width=256, heads=4, vocabulary=512, dialogues=24, tokens=192, used=512)
print(measure_here("ours", sizes, sizes.dialogues)[0])
"""


def test_the_formula_is_near_a_measured_step(make_trial: MakeTrial) -> None:
    """ILQL's step on a CPU, in a process of its own, of which the most that was resident counts."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(root=str(ROOT))], capture_output=True, text=True, check=True, timeout=280
    )
    measured = int(done.stdout)
    model = build_language_model(Architecture(layers=6, width=256, heads=4, context=1024), vocabulary=512, seed=0)
    expected = networks_of(make_trial("ilql"), model.to("meta")).memory_bytes(dialogues=24, tokens=192)
    assert 0.7 < measured / expected < 1.3, (measured / 2**20, expected / 2**20)


def left(bench: Bench, *trials: Any) -> Remaining:
    return Remaining({}, {}, list(trials), list(trials))


class TestForecast:
    def test_hours_are_counted_where_nothing_was_measured_and_the_interval_says_so(self, bench: Bench) -> None:
        spec = bench.trial("ilql")
        found = forecast(bench.store, left(bench, spec), Resources(), [Machine(cpus=4)])
        assert found.places == 4
        assert found.hours.low < found.hours.expected < found.hours.high
        assert f"a peak of {CPU_PEAK / 1e12:.3g} TFLOP/s" in found.hours.by
        assert "nothing comparable was measured" in found.hours.by

    def test_twice_the_speed_is_half_the_hours(self, bench: Bench) -> None:
        spec, gpu = bench.trial("ilql"), Resources(gpus_per_worker=1.0)
        one, two = (
            forecast(bench.store, left(bench, spec), gpu, described(f"1x1:80GB:8cpu:{speed}TF")).hours.expected
            for speed in (20, 40)
        )
        assert one == pytest.approx(2 * two)

    def test_hours_are_by_rows_of_the_same_model_and_device_where_there_are_three_of_each(self, bench: Bench) -> None:
        spec = bench.trial("ilql")
        for number, seconds in enumerate((1.0, 2.0, 3.0)):
            done = {"status": "finished", "backbone": spec.backbone_key, "gpus": 0.0}
            bench.store.put("training", f"t{number}", done | {"train_seconds": seconds * 10, "steps": 10})
            bench.store.put("evaluation", f"e{number}", done | {"evaluate_seconds": 8.0, "episodes": 8, "score": 0.0})
        todo = left(bench, spec)
        found = forecast(bench.store, todo, Resources(), [Machine(cpus=4)])
        # The behaviour policy's own row, on a CPU, too, is a fourth training.
        rates = [
            r["train_seconds"] / r["steps"] for r in bench.store.all("training").values() if r.get("train_seconds")
        ]
        mean = sum(rates) / len(rates)
        assert found.hours.expected == pytest.approx((20 * mean + 8 * 1.0) / 3600)
        assert found.hours.low < found.hours.expected < found.hours.high
        assert found.hours.by.startswith(f"by the rates of {len(rates)} trainings and 3 evaluations in this store")
        on_gpu = forecast(bench.store, todo, Resources(gpus_per_worker=1.0), described("1x1:80GB"))
        assert "nothing comparable was measured" in on_gpu.hours.by  # rows of CPUs say nothing of a GPU

    @pytest.mark.parametrize(
        ("recorded", "planned", "training", "playing"),
        [
            # A step took 2 s of one GPU, an episode 1 s of one.
            ({"workers": 1, "gpus": 1.0}, {"workers": 8, "gpus_per_worker": 1.0}, 2.0, 1.0),
            # Four shared one, and each took so long.
            ({"workers": 1, "gpus": 0.25}, {"workers": 1, "gpus_per_worker": 1.0}, 0.5, 0.25),
            # A step took 2 s of two CPUs; an evaluation's record has one worker, which is the one that plays.
            ({"workers": 2, "gpus": 0.0}, {"workers": 4}, 4.0, 1.0),
        ],
    )
    def test_hours_are_of_the_devices_that_the_records_held(
        self, bench: Bench, recorded: dict[str, float], planned: dict[str, Any], training: float, playing: float
    ) -> None:
        spec = bench.trial("ilql")
        for key in bench.store.all("training"):
            bench.store.remove("training", key)  # the behaviour policy's, which took what it took
        for number in range(3):
            done = {"status": "finished", "backbone": spec.backbone_key, **recorded}
            bench.store.put("training", f"t{number}", done | {"train_seconds": 20.0, "steps": 10})
            bench.store.put(
                "evaluation", f"e{number}", done | {"workers": 1, "evaluate_seconds": 8.0, "episodes": 8, "score": 0.0}
            )
        found = forecast(bench.store, left(bench, spec), Resources(**planned), described("8x8:80GB"))
        assert found.hours.expected == pytest.approx((20 * training + 8 * playing) / 3600)

    def test_an_evaluation_that_does_not_say_its_share_of_a_gpu_had_that_of_today(self, bench: Bench) -> None:
        spec, share = bench.trial("ilql"), Resources(gpus_per_worker=0.25)
        for number in range(3):
            done = {"status": "finished", "backbone": spec.backbone_key, "gpus": 1.0}
            bench.store.put("evaluation", f"e{number}", done | {"evaluate_seconds": 8.0, "episodes": 8, "score": 0.0})
        found = forecast(bench.store, Remaining({}, {}, [], [spec]), share, described("1x1:80GB"))
        assert found.hours.expected == pytest.approx(8 * 0.25 / 3600)

    def test_small_trainings_are_told_to_share_a_gpu_as_far_as_there_are_cpus(self, bench: Bench) -> None:
        found = forecast(
            bench.store, left(bench, bench.trial("ilql")), Resources(gpus_per_worker=1.0), described("1x2:80GB:8cpu")
        )
        assert found.memory_bytes["CUDA itself"] == PROCESS_BYTES
        assert "--gpus-per-worker 0.25 lets 4 trainings share one" in "\n".join(found.lines())

    def test_what_does_not_fit_a_gpu_is_said(self, bench: Bench) -> None:
        found = forecast(
            bench.store, left(bench, bench.trial("ilql")), Resources(gpus_per_worker=1.0), described("1x1:0.5GB:8cpu")
        )
        assert "that is more than 0.5 GiB, a GPU's" in "\n".join(found.lines())
        assert sum(found.memory_bytes.values()) > GIB / 2

    def test_shared_out_blocks_take_less_of_each(self, bench: Bench) -> None:
        todo, machines = left(bench, bench.trial("ilql")), described("1x2:80GB:8cpu")
        gpus = {"workers": 2, "gpus_per_worker": 1.0}
        whole, cut = (
            forecast(bench.store, todo, Resources(**gpus, shard=shard), machines).memory_bytes
            for shard in (False, True)
        )
        module = build_module(bench.store, bench.trial("ilql"))
        blocks = sum(p.numel() for name, p in module.named_parameters() if ".h." in name and p.requires_grad)
        assert whole["weights"] - cut["weights"] == 4 * (blocks - math.ceil(blocks / 2)) > 0
        assert whole["targets and others"] > cut["targets and others"]
        assert whole["activations"] == cut["activations"]
        assert "blocks that run" in cut

    def test_a_group_that_makes_do_with_fewer_is_planned_with_as_many_as_fit(self, bench: Bench) -> None:
        todo, gpus = left(bench, bench.trial("ilql")), {"workers": 4, "gpus_per_worker": 1.0}
        fewer = forecast(bench.store, todo, Resources(**gpus, least_workers=2), described("1x3:80GB"))
        three = forecast(bench.store, todo, Resources(workers=3, gpus_per_worker=1.0), described("1x3:80GB"))
        assert (fewer.places, fewer.memory_bytes, fewer.hours) == (1, three.memory_bytes, three.hours)
        with pytest.raises(ValueError, match="a job needs 4 GPUs"):
            forecast(bench.store, todo, Resources(**gpus), described("1x3:80GB"))

    def test_disk_counts_weights_episodes_and_checkpoints_of_those_that_run(self, bench: Bench) -> None:
        spec = bench.trial("bc", seed=1)
        found = forecast(bench.store, left(bench, spec), Resources(), [Machine(cpus=4)])
        real = build_module(bench.store, spec)
        size = sum(p.numel() for p in real.parameters())
        assert found.disk_bytes == {
            "weights": 4 * size, "episodes": 600 * 8, "checkpoints while it runs": 2 * 4 * 3 * size
        }  # fmt: skip

    def test_nothing_is_left_of_what_is_done(self, bench: Bench) -> None:
        found = forecast(bench.store, Remaining({}, {}, [], []), Resources(), [Machine(cpus=1)])
        assert (found.trainings, found.evaluations, found.hours.expected) == (0, 0, 0.0)
        assert found.lines()
