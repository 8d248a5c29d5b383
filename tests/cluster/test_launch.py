"""Launch files: checked by the tools they are for where those are Python or can be pretended, else by what matters."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from services import environment, marked, wait_for

from cluster.launch import KINDS, Order, docker, kuberay, ray_up, slurm
from sweeps import cli
from sweeps.store import Store

ROOT = Path(__file__).resolve().parents[2]

# The fields that KubeRay's types have (ray-operator/apis/ray/v1, release 1.5), as far as we could use them: a misspelt
# one would be dropped in silence. Its CRDs come in no package that can be installed here, so this is no full check.
RAY_JOB = {
    "entrypoint", "backoffLimit", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "rayClusterSpec", "activeDeadlineSeconds", "runtimeEnvYAML", "submitterPodTemplate", "suspend",
}  # fmt: skip
RAY_CLUSTER = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling"}
HEAD = {"rayStartParams", "template", "serviceType"}
WORKERS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "numOfHosts"}


def order(**changes: Any) -> Order:
    return Order(**{"environment": sys.prefix, "project": str(ROOT), **changes})


def clusters(files: dict[str, str]) -> list[dict[str, Any]]:
    job, cluster = (yaml.safe_load(files[name]) for name in ("kuberay-job.yaml", "kuberay-cluster.yaml"))
    assert (job["apiVersion"], job["kind"], cluster["kind"]) == ("ray.io/v1", "RayJob", "RayCluster")
    assert job["spec"].keys() <= RAY_JOB
    return [job["spec"]["rayClusterSpec"], cluster["spec"]]


class TestKubeRay:
    def test_both_manifests_have_the_fields_of_kuberays_types(self) -> None:
        for spec in clusters(kuberay(order(machines=4, gpus=8, memory=512))):
            assert spec.keys() <= RAY_CLUSTER
            assert spec["headGroupSpec"].keys() <= HEAD
            (workers,) = spec["workerGroupSpecs"]
            assert workers.keys() <= WORKERS
            assert (workers["minReplicas"], workers["replicas"], workers["maxReplicas"]) == (4, 4, 4)
            (container,) = workers["template"]["spec"]["containers"]
            limits = {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"}
            assert container["resources"] == {"limits": limits, "requests": limits}  # Kubernetes wants GPUs equal

    def test_head_and_workers_see_the_store_under_one_path_and_share_a_token(self) -> None:
        for spec in clusters(kuberay(order(store="/data/run/store", claim="big-one"))):
            assert spec["authOptions"] == {"mode": "token"}
            pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
            for pod in (each["template"]["spec"] for each in pods):
                (container,) = pod["containers"]
                assert {"name": "SWEEPS_STORE", "value": "/data/run/store"} in container["env"]
                assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/data/run"}]
                assert pod["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": "big-one"}}]
                assert container["envFrom"] == []

    @pytest.mark.parametrize("remote", [("--remote", "s3://bucket/prefix"), ("--remote=s3://bucket/prefix",)])
    def test_with_an_object_store_each_pod_has_a_folder_of_its_own_and_the_keys(self, remote: tuple[str, ...]) -> None:
        made = order(command=("sweeps/visdial_ablation.py", *remote), secret="s3-keys")  # noqa: S106  the name of one
        assert f"-- python {shlex.join(made.command)}\n" in kuberay(made)["kuberay-cluster.yaml"]
        for spec in clusters(kuberay(made)):
            for pod in (each["template"]["spec"] for each in (spec["headGroupSpec"], *spec["workerGroupSpecs"])):
                assert pod["volumes"] == [{"name": "shared", "emptyDir": {}}]
                assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]

    def test_every_start_parameter_is_text_as_kuberay_wants_it(self) -> None:
        for spec in clusters(kuberay(order())):
            for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
                assert all(isinstance(value, str) for value in group["rayStartParams"].values())

    def test_the_entrypoint_keeps_its_words_apart(self) -> None:
        files = kuberay(order(command=("sweeps/wordle_ablation.py", "--name", "two words")))
        job = yaml.safe_load(files["kuberay-job.yaml"])
        assert job["spec"]["entrypoint"] == "python /opt/ilql-ablations/sweeps/wordle_ablation.py --name 'two words'"

    def test_without_gpus_none_is_asked_for(self) -> None:
        assert "nvidia" not in "".join(kuberay(order(gpus=0)).values())


class TestRayUp:
    def test_ray_accepts_it_by_its_own_schema(self) -> None:
        from ray.autoscaler._private.util import prepare_config, validate_config

        config = yaml.safe_load(ray_up(order(hosts=("10.0.0.1", "10.0.0.2", "10.0.0.3")))["ray-up.yaml"])
        validate_config(prepare_config(config))
        assert config["provider"] == {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}

    def test_nothing_in_it_ends_the_ray_of_others(self) -> None:
        # Neither what Ray runs by itself nor what the file tells its reader to run; `ray down` runs `ray stop`.
        text = ray_up(order(hosts=("10.0.0.1",)))["ray-up.yaml"]
        config = yaml.safe_load(text)
        commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
        told = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
        assert [line.split()[:2] for line in told if line.startswith("ray")] == [
            ["ray", "get-auth-token"], ["ray", "up"], ["ray", "exec"], ["ray", "exec"],
        ]  # fmt: skip
        assert not any("ray stop" in command or "ray down" in command for command in [*commands, *told])
        assert all("RAY_AUTH_MODE=token" in command for command in commands if "ray start" in command)

    def test_the_line_that_ends_it_ends_the_process_that_was_started(self, tmp_path: Path) -> None:
        text = ray_up(order(hosts=("10.0.0.1",)))["ray-up.yaml"]
        start = yaml.safe_load(text)["head_start_ray_commands"][-1]
        end = shlex.split([line for line in text.splitlines() if "ray exec" in line][-1].removeprefix("#"))[-1]
        written = str(tmp_path / "head.pid")
        (noted,) = re.findall(r"echo \$! > (\S+);", start)
        head = subprocess.Popen(["sleep", "60"])
        Path(written).write_text(f"{head.pid}\n", encoding="utf-8")
        subprocess.run(["bash", "-c", end.replace(noted, written)], check=True)
        assert noted in end
        assert head.wait(timeout=10) == -signal.SIGTERM

    def test_what_is_run_there_survives_both_shells(self) -> None:
        # The one here, which reads the line, and the one there, which reads what `ray exec` was given.
        words = ("sweeps/dialogue_ablation.py", "--set", "world.template={role}: it's {text}")
        text = ray_up(order(hosts=("10.0.0.1",), command=words, environment="/opt/venv"))["ray-up.yaml"]
        line = next(line for line in text.splitlines() if "ray exec" in line)
        ray, verb, file, session = shlex.split(line.removeprefix("#"))
        assert (ray, verb, file) == ("ray", "exec", "ray-up.yaml")
        assert shlex.split(session)[-4:] == ["/opt/venv/bin/python", *words]


class TestDockerfile:
    def test_it_copies_the_four_packages_and_pins_what_the_lock_pins(self) -> None:
        text = docker(order())["Dockerfile"]
        copied = {line.split()[1] for line in text.splitlines() if line.startswith("COPY ")}
        assert {"analysis", "cluster", "ilql", "sweeps"} <= copied
        assert all((ROOT / name).exists() for name in copied)
        assert "tests" not in copied
        pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
        assert f"torch=={pinned['torch']}\n" in text.replace(" ", "\n")
        assert text.count("--constraint constraints.txt") == 2

    def test_what_runs_in_it_is_nobodys_root(self) -> None:
        lines = docker(order())["Dockerfile"].splitlines()
        assert lines.index("USER 1000") > max(place for place, line in enumerate(lines) if line.startswith("RUN"))

    def test_hadolint_finds_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "Dockerfile").write_text(docker(order())["Dockerfile"])
        assert found_by("hadolint", tmp_path / "Dockerfile") == (0, "")

    def test_hadolint_would_find_something(self, tmp_path: Path) -> None:
        text = docker(order())["Dockerfile"].replace("USER 1000", "RUN cd /tmp && sudo ls")
        (tmp_path / "Dockerfile").write_text(text)
        status, said = found_by("hadolint", tmp_path / "Dockerfile")
        assert status == 1
        assert "DL3004" in said


class TestShell:
    def test_shellcheck_finds_nothing_in_what_every_change_must_pass(self) -> None:
        assert found_by("shellcheck", ROOT / ".ci" / "run") == (0, "")

    @pytest.mark.parametrize("gpus", [0, 8])
    def test_shellcheck_finds_nothing_in_slurms_script(self, tmp_path: Path, gpus: int) -> None:
        (tmp_path / "slurm.sh").write_text(slurm(order(machines=2, gpus=gpus))["slurm.sh"])
        assert found_by("shellcheck", tmp_path / "slurm.sh") == (0, "")

    def test_shellcheck_finds_nothing_in_what_ray_up_runs(self, tmp_path: Path) -> None:
        config = yaml.safe_load(ray_up(order(hosts=("10.0.0.1", "10.0.0.2")))["ray-up.yaml"])
        commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
        files = [tmp_path / f"{place}.sh" for place in range(len(commands))]
        for file, command in zip(files, commands, strict=True):
            file.write_text(f"#!/usr/bin/env bash\n{command}\n")
        assert found_by("shellcheck", *files) == (0, "")

    def test_shellcheck_would_find_something(self, tmp_path: Path) -> None:
        text = slurm(order())["slurm.sh"].replace('"${ray[@]}"', "${ray[@]}")
        (tmp_path / "slurm.sh").write_text(text)
        status, said = found_by("shellcheck", tmp_path / "slurm.sh")
        assert status == 1
        assert "SC2068" in said


def found_by(program: str, *files: Path) -> tuple[int, str]:
    """A program's status, and what it says of some files; both are of the extra `dev`, and so beside Python."""
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    path = shutil.which(program, path=beside)
    assert path is not None, f"{program} must be installed, as the extra dev has it"
    done = subprocess.run([path, *files], check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


SBATCH = """#!{python}
# Slurm's sbatch on two machines that are both this one: reads the directives, and runs the script as the batch step.
import os, subprocess, sys
(script,) = sys.argv[1:]
directives = dict(
    line.removeprefix("#SBATCH --").split("=", 1) if "=" in line else (line.removeprefix("#SBATCH --"), "")
    for line in open(script).read().splitlines() if line.startswith("#SBATCH --")
)
assert directives["nodes"] == "2", directives
given = {{"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "pair[1-2]", "SLURM_JOB_NUM_NODES": "2",
         "SLURM_CPUS_PER_TASK": directives["cpus-per-task"]}}
if "gpus-per-node" in directives:
    given["SLURM_GPUS_ON_NODE"] = directives["gpus-per-node"]
sys.exit(subprocess.run(["bash", script], env=os.environ | given).returncode)
"""
SCONTROL = """#!{python}
import sys
assert sys.argv[1:] == ["show", "hostnames", "pair[1-2]"], sys.argv
print("localhost\\n127.0.0.1")
"""
SRUN = """#!{python}
# Slurm's srun for one task: the command on the machine that is named. A signal to it reaches the task.
import os, sys
options = []
words = sys.argv[1:]
while words[0].startswith("--"):
    options.append(words.pop(0))
assert "--overlap" in options and "--nodes=1" in options and "--ntasks=1" in options, options
assert {{"--nodelist=localhost", "--nodelist=127.0.0.1"}} & set(options), options
open(os.environ["SRUN_LOG"], "a").write(" ".join(options) + "\\n")
os.execvp(words[0], words)
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_slurm_script_runs_a_sweep_on_two_machines_and_leaves_nothing_behind(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("srun", SRUN)):
        (bin_ / name).write_text(text.format(python=sys.executable))
        (bin_ / name).chmod(stat.S_IRWXU)
    small = ("sweeps/bandit_ablation.py", "--preset", "smoke", "--methods", "bc", "--trials", "0", "--episodes", "64",
             "--no-mlflow", "--name", "by-slurm")  # fmt: skip
    asked = order(command=small, machines=2, gpus=0, cpus=1, store=str(tmp_path / "shared" / "store"))
    (tmp_path / "slurm.sh").write_text(slurm(asked)["slurm.sh"])
    mark = f"slurm-{os.getpid()}"
    given = environment(mark)
    given |= {"PATH": f"{bin_}{os.pathsep}{given['PATH']}", "SRUN_LOG": str(tmp_path / "srun.log")}
    del given["RAY_AUTH_MODE"]  # the script sets it
    done = subprocess.run(
        ["sbatch", tmp_path / "slurm.sh"], env=given, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((tmp_path / "srun.log").read_text().splitlines()) == 2
    assert "Ablation on bandit" in done.stdout
    (row,) = Store(tmp_path / "shared" / "store").rows("by-slurm")
    assert row["status"] == "finished"
    wait_for(lambda: not marked(mark), 60, "all that was started had ended")


class TestOrders:
    @pytest.mark.parametrize(
        ("field", "value", "meaning"),
        [
            ("name", "My Sweep", "--name must be a word of small letters"),
            ("image", "image; rm -rf /", "--image must be an image's reference"),
            ("store", "relative/store", "--store must be an absolute path"),
            ("store", "/shared/$(id)", "--store must be an absolute path"),
            ("store", "/store", "--store must be a folder of a shared one"),
            ("time", "a day", "--time must be hours:minutes:seconds"),
            ("gpus", -1, "--gpus must be at least 0, got -1"),
            ("machines", 0, "--machines must be at least 1, got 0"),
            ("cpus", 0, "--cpus must be at least 1, got 0"),
            ("hosts", ("a b",), "--hosts must be machines' names"),
            ("command", ("sweeps/visdial_ablation.py", "two\nlines"), "the command must be a question's file"),
        ],
    )
    def test_a_wrong_one_is_refused(self, field: str, value: object, meaning: str) -> None:
        with pytest.raises(ValueError, match=meaning.replace("'", ".")):
            order(**{field: value})

    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_every_place_of_every_template_is_filled(self, kind: str) -> None:
        for text in KINDS[kind](order(hosts=("a", "b"))).values():
            assert "<<" not in text


class TestCommand:
    def test_it_writes_what_it_says_and_not_twice(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        asked = ["launch", "slurm", "--out", str(tmp_path), "--machines", "3", "--run", "wordle --preset smoke"]
        assert cli.main(asked) == 0
        assert capsys.readouterr().out == f"wrote {tmp_path / 'slurm.sh'}\n"
        text = (tmp_path / "slurm.sh").read_text()
        assert "#SBATCH --nodes=3\n" in text
        assert text.endswith("python sweeps/wordle_ablation.py --preset smoke\n")
        assert cli.main(asked) == 2
        assert "is not written over one that is there" in capsys.readouterr().err
        assert cli.main([*asked, "--force"]) == 0

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["slurm", "--run", "wordel"], "error: 'wordel' is no question; known: "),
            (["ray-up"], "error: --hosts must name the machines, the head first"),
            (["kuberay", "--image", "A B"], "error: --image must be an image's reference"),
            (["slurm", "--run", "visdial 'x"], "error: --run must be a question and its options"),
            (["slurm", "--run", "visdial --preset papre"], "error: 'papre' is no preset; "),
            (
                ["slurm", "--gpus", "0"],
                "error: a job needs 1 GPUs, what is launched has 0; --gpus-per-worker 0 trains on",
            ),
            (
                ["kuberay", "--run", "visdial --workers 3 --gpus-per-worker 2", "--gpus", "3"],
                "error: a job needs 3 workers with 1 CPU and 2 GPUs each, and a worker is all on one machine; what is "
                "launched has room for 2 of them",
            ),
        ],
    )
    def test_what_is_wrong_is_one_line(
        self, words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["launch", *words, "--out", str(tmp_path / "out")]) == 2
        err = capsys.readouterr().err
        assert err.startswith(line)
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()

    def test_a_container_looks_for_no_file_that_lies_beside_us(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mine.jsonl").write_text("")
        run = ["--gpus", "0", "--out", str(tmp_path / "out"), "--run"]
        settings = "dialogue --preset laptop --gpus-per-worker 0 --data "
        assert cli.main(["launch", "kuberay", *run, settings + "mine.jsonl"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: --data must be an absolute path that is there in the container, on the volume")
        assert err.endswith("got mine.jsonl\n")
        assert not (tmp_path / "out").exists()
        assert cli.main(["launch", "kuberay", *run, settings + "/shared/mine.jsonl"]) == 0

    def test_options_that_the_question_has_not_are_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            cli.main(["launch", "slurm", "--run", "visdial --seds 3", "--out", str(tmp_path / "out")])
        err = capsys.readouterr().err
        assert err.startswith("sweeps launch --run: unrecognised: --seds; the nearest is --seeds")
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_the_templates_are_in_an_installed_distribution() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["cluster.launch"]
    templates = {path for path in (ROOT / "cluster" / "launch").iterdir() if path.suffix != ".py" and path.is_file()}
    assert {path for pattern in patterns for path in (ROOT / "cluster" / "launch").glob(pattern)} == templates


def commands_of(page: str, program: str) -> list[list[str]]:
    """The commands of a program in a page's blocks."""
    import shlex

    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = text.split("```")[1::2]
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{program} ")]


def test_every_launch_and_plan_of_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [command for command in commands_of("cluster.md", "sweeps") if command[0] in ("launch", "plan")]
    assert {command[1] for command in commands if command[0] == "launch"} == set(KINDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEPS_STORE", str(tmp_path / "store"))
    for command in commands:
        assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "32 jobs at a time (1 worker with 1 CPU and 1 GPU each)" in said
    assert {path.name for path in (tmp_path / "launch").iterdir()} == {
        "slurm.sh", "kuberay-job.yaml", "kuberay-cluster.yaml", "ray-up.yaml"
    }  # fmt: skip
    assert (tmp_path / "Dockerfile").is_file()
