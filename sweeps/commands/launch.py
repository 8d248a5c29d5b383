"""`sweeps launch WHERE`: write the files that start a cluster and a sweep on it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.command import Command
from sweeps.paths import output_folder

if TYPE_CHECKING:
    from cluster.launch import Order
    from sweeps.options import Options


def _add(parser: argparse.ArgumentParser) -> None:
    from cluster.launch import KINDS  # noqa: PLC0415

    add = parser.add_argument
    add("where", choices=list(KINDS), help="on what")
    add("--out", metavar="DIR", required=True, help="folder to write to")
    add("--run", metavar="'QUESTION OPTIONS'", help="what to run (default: 'visdial --preset paper')")
    add("--name", help="of the cluster or job (default: sweep)")
    add("--machines", type=int, help="worker machines; with slurm and ray-up the head is one (default: 2)")
    add("--gpus", type=int, help="GPUs of each (default: 1)")
    add("--cpus", type=int, help="CPUs of each (default: eight for each GPU)")
    add("--memory", type=int, metavar="GIB", help="memory of each (default: 64)")
    add("--store", metavar="DIR", help="the store, on storage that all machines share (default: /shared/store)")
    add("--image", help="container image; kuberay and docker (default: ilql-ablations:0.1.0)")
    add("--claim", help="PersistentVolumeClaim mounted at the store's parent, unless --run has --remote; kuberay")
    add("--secret", help="a Secret whose entries all pods have in their environment: an object store's keys; kuberay")
    add("--hosts", help="the machines, separated by commas, the head first; ray-up")
    add("--user", help="who logs in to them; ray-up (default: ray)")
    add("--time", help="how long it may take; slurm (default: 24:00:00)")
    add("--environment", metavar="DIR", help="the virtual environment on all machines (default: this one)")
    add("--project", metavar="DIR", help="the checkout on all machines (default: here)")
    add("--force", action="store_true", help="write over files that are there")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from cluster.launch import KINDS, Order  # noqa: PLC0415

    said = {name: value for name, value in vars(given).items() if value is not None}
    asked = {
        name: said[name] for name in Order.__dataclass_fields__ if name in said and name not in ("command", "hosts")
    }
    if given.run is not None:
        asked["command"] = _command(given.run)
    if given.hosts is not None:
        asked["hosts"] = tuple(host.strip() for host in given.hosts.split(","))
        asked.setdefault("machines", len(asked["hosts"]))
    order = Order(**asked)
    if given.where != "docker":  # an image has no machines
        options = _check_room(order)
        if given.where == "kuberay":
            _check_paths(options)
    files = KINDS[given.where](order)
    with output_folder("--out", given.out) as folder:
        there = [name for name in files if (folder / name).exists()]
        if there and not given.force:
            raise ValueError(
                f"a launch file is not written over one that is there, got {folder / there[0]}; --force does"
            )
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
            print(f"wrote {folder / name}")
    return 0


def _check_room(order: Order) -> Options:
    """What the question's options say, if they are right and a job of it fits the machines that are asked for.

    Raises:
        KeyError, ValueError: They are not, or it does not; on the cluster it would be said after the queue.
    """
    from sweeps.asked import options_of  # noqa: PLC0415
    from sweeps.machines import check_fits  # noqa: PLC0415
    from sweeps.questions import question_named  # noqa: PLC0415
    from sweeps.sizing import chosen_preset  # noqa: PLC0415

    file, *words = order.command
    question = question_named(Path(file).stem.removesuffix("_ablation"))
    options = options_of(question, "sweeps launch --run", words)
    need = chosen_preset(question, options).resources.need
    check_fits(order.workers, need, whose="what is launched", hint="--machines, --gpus and --cpus have more")
    return options


def _check_paths(options: Options) -> None:
    """Refuse a source that lies beside us, where no container looks.

    Raises:
        ValueError: There is one.
    """
    for name, value in {**options.sources, "model": options.model or ""}.items():
        file = Path(value.partition(":")[0])
        if value and not file.is_absolute() and file.exists():
            raise ValueError(
                f"--{name} must be an absolute path that is there in the container, on the volume that is mounted "
                f"or in the image, got {value}"
            )


def _command(text: str) -> tuple[str, ...]:
    """The question's file and its options, of a question's name and its options in one string.

    Raises:
        KeyError: There is no such question.
        ValueError: It is no list of words.
    """
    from ilql.hyperparameters import unknown  # noqa: PLC0415
    from sweeps.questions import question_names  # noqa: PLC0415

    try:
        words = shlex.split(text)
    except ValueError as fault:
        raise ValueError(f"--run must be a question and its options, got {text!r}: {fault}") from None
    if not words or words[0] not in question_names():
        raise KeyError(unknown(words[0] if words else "", "question", question_names()))
    return (f"sweeps/{words[0]}_ablation.py", *words[1:])


COMMAND = Command(name="launch", help="write files that start it on KubeRay, Slurm, or machines", run=_run, add=_add)
