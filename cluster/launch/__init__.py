"""Launch files: what starts a cluster and a sweep on it, for KubeRay, Slurm, `ray up` and a container image.

Each is a template of this folder with places `<<NAME>>`, filled from an `Order`, whose values are checked: none of them
can end a line, a string or a command.
"""

from __future__ import annotations

import importlib.resources
import json
import platform
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from cluster.shapes import Machine

_PLACE = re.compile(r"<<([A-Z_]+)>>")

_IN_IMAGE = "/opt/ilql-ablations"
_TORCH_INDEX = "https://pypi.org/simple"

_FORMS = {
    "name": (r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", "a word of small letters, digits and '-', such as sweep-1"),
    "image": (r"[a-z0-9]([a-z0-9._/:@-]*[a-z0-9])?", "an image's reference, such as registry.example.org/ilql:0.1"),
    "claim": (r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a PersistentVolumeClaim's name"),
    "secret": (r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?", "a Secret's name"),
    "store": (r"/[A-Za-z0-9._/-]+", "an absolute path of letters, digits, '.', '_', '-'"),
    "environment": (r"/[A-Za-z0-9._/-]+", "an absolute path of letters, digits, '.', '_', '-'"),
    "project": (r"/[A-Za-z0-9._/-]+", "an absolute path of letters, digits, '.', '_', '-'"),
    "time": (r"(\d+-)?\d{1,2}:\d{2}:\d{2}", "hours:minutes:seconds, or days-hours:minutes:seconds"),
    "user": (r"[a-z_][a-z0-9_-]*", "a user's name"),
}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be launched.

    Attributes:
        command: Question and options, as behind `python`: `("sweeps/visdial_ablation.py", "--preset", "paper")`.
        name: Of the cluster or job.
        machines: Worker machines, at least 1; for Slurm and `ray up` the head is one of them.
        gpus: GPUs of each.
        cpus: CPUs of each; None takes eight for each GPU, and eight without any.
        memory: GiB of each.
        store: The store, on storage that all machines share under this path.
        image: The container image; KubeRay and docker.
        claim: The volume claim that is mounted where the store is, unless the command has a `--remote`: then each pod
            has a folder of its own there; KubeRay.
        secret: The Secret whose entries all pods have in their environment, such as an object store's keys, or "";
            KubeRay.
        hosts: The machines, the head first; `ray up`.
        user: Who logs in to them; `ray up`.
        time: How long it may take; Slurm.
        environment: The virtual environment, at the same path everywhere; Slurm and `ray up`.
        project: The checkout, at the same path everywhere; Slurm and `ray up`.

    Raises:
        ValueError: A value is none that it may be; one line.
    """

    command: tuple[str, ...] = ("sweeps/visdial_ablation.py", "--preset", "paper")
    name: str = "sweep"
    machines: int = 2
    gpus: int = 1
    cpus: int | None = None
    memory: int = 64
    store: str = "/shared/store"
    image: str = "ilql-ablations:0.1.0"
    claim: str = "shared"
    secret: str = ""
    hosts: tuple[str, ...] = ()
    user: str = "ray"
    time: str = "24:00:00"
    environment: str = sys.prefix
    project: str = field(default_factory=lambda: str(Path.cwd()))

    def __post_init__(self) -> None:
        for name, (form, meaning) in _FORMS.items():
            value = getattr(self, name)
            if not re.fullmatch(form, value):
                raise ValueError(f"--{name} must be {meaning}, got {value!r}")
        for name, least in (("machines", 1), ("gpus", 0), ("memory", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if self.cpus is not None and self.cpus < 1:
            raise ValueError(f"--cpus must be at least 1, got {self.cpus}")
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"--hosts must be machines' names or addresses, got {host!r}")
        if not self.command or not all(word.isprintable() and word for word in self.command):
            raise ValueError(f"the command must be a question's file and its options, got {self.command}")
        if Path(self.store).parent == Path("/"):
            raise ValueError(f"--store must be a folder of a shared one, such as /shared/store, got {self.store}")

    @property
    def all_cpus(self) -> int:
        """CPUs of each machine."""
        return self.cpus or 8 * max(1, self.gpus)

    @property
    def workers(self) -> list[Machine]:
        """What the worker machines will have."""
        return [Machine(cpus=self.all_cpus, gpus=self.gpus)] * self.machines

    def places(self) -> dict[str, str]:
        """The values of the templates' places that are the same in all of them."""
        return {
            "NAME": self.name,
            "MACHINES": str(self.machines),
            "CPUS": str(self.all_cpus),
            "MEMORY": str(self.memory),
            "STORE": self.store,
            "IMAGE": self.image,
            "TIME": self.time,
            "ENVIRONMENT": self.environment,
            "PROJECT": self.project,
            "RAY_VERSION": version("ray"),
            "TORCH": version("torch").partition("+")[0],
            "TORCH_INDEX": _TORCH_INDEX,
            "PYTHON": ".".join(platform.python_version_tuple()[:2]),
        }


def kuberay(order: Order) -> dict[str, str]:
    """A RayJob, which runs the sweep on a cluster of its own, and a RayCluster, which stays; by file name."""
    gpus = f', nvidia.com/gpu: "{order.gpus}"' if order.gpus else ""
    apart = any(word == "--remote" or word.startswith("--remote=") for word in order.command)
    own = {
        "VOLUME": "emptyDir: {}" if apart else f"persistentVolumeClaim: {{claimName: {order.claim}}}",
        "SECRETS": f"[{{secretRef: {{name: {order.secret}}}}}]" if order.secret else "[]",
        "MOUNT": str(Path(order.store).parent),
        "GPU_RESOURCE": gpus,
    }
    needs = "an object store" if apart else "a claim that all pods may write to at once (ReadWriteMany)"
    spec = _filled("kuberay-spec.yaml", order.places() | own).rstrip("\n")
    question, *options = order.command
    inside = ("python", question if question.startswith("/") else f"{_IN_IMAGE}/{question}", *options)
    return {
        "kuberay-job.yaml": _filled(
            "kuberay-job.yaml",
            order.places()
            | {
                "STORAGE": needs,
                "ENTRYPOINT": json.dumps(shlex.join(inside)),
                "CLUSTER_OF_JOB": _indented(spec, 4),
            },
        ),
        "kuberay-cluster.yaml": _filled(
            "kuberay-cluster.yaml",
            order.places()
            | {"STORAGE": needs, "COMMAND": shlex.join(("python", *order.command)), "CLUSTER": _indented(spec, 2)},
        ),
    }


def slurm(order: Order) -> dict[str, str]:
    """A script for `sbatch`; by file name."""
    directive = f"#SBATCH --gpus-per-node={order.gpus}" if order.gpus else "# No GPUs."
    own = {"COMMAND": shlex.join(("python", *order.command)), "GPU_DIRECTIVE": directive}
    return {"slurm.sh": _filled("slurm.sh", order.places() | own)}


def ray_up(order: Order) -> dict[str, str]:
    """A configuration for `ray up` on machines that one has; by file name.

    Raises:
        ValueError: There are no hosts.
    """
    if not order.hosts:
        raise ValueError("--hosts must name the machines, the head first, such as --hosts node-1,node-2, got none")
    head, *others = order.hosts
    told = f"RAY_AUTH_MODE=token RAY_ADDRESS={head}:6379 SWEEPS_STORE={order.store}"
    command = shlex.join((f"{order.environment}/bin/python", *order.command))
    own = {
        "HEAD": head,
        "WORKERS": str(len(others)),
        "WORKER_IPS": ", ".join(others),
        "USER": order.user,
        "SESSION": shlex.quote(f"cd {order.project} && {told} {command}"),
    }
    return {"ray-up.yaml": _filled("ray-up.yaml", order.places() | own)}


def docker(order: Order) -> dict[str, str]:
    """A Dockerfile for the checkout's root; by file name."""
    return {"Dockerfile": _filled("Dockerfile", order.places())}


KINDS: Mapping[str, Callable[[Order], dict[str, str]]] = {
    "kuberay": kuberay,
    "slurm": slurm,
    "ray-up": ray_up,
    "docker": docker,
}
"""What can be launched on, by the name it has on the command line."""


def _filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its places filled."""
    text = (importlib.resources.files(__name__) / template).read_text(encoding="utf-8")
    return _PLACE.sub(lambda place: values[place[1]], text)


def _indented(text: str, columns: int) -> str:
    return "\n".join(" " * columns + line if line else line for line in text.splitlines())
