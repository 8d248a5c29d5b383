"""What must never be called, what is never read, and what no name may lead to: docs/security.md by its tests."""

from __future__ import annotations

import ast
import json
import pickle
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.workers import check_place
from ilql.checkpoint import CheckpointError, check_checkpoint
from ilql.language_model import Architecture, build_language_model, reload_language_model
from ilql.model_folder import check_model_folder
from ilql.tasks.visdial.remote_client import Servers
from sweeps.artefacts import Stages
from sweeps.leases import Leases
from sweeps.names import one_component

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("analysis", "cluster", "ilql", "sweeps", "benchmarks")

FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "torch.save",
    "torch.jit.load", "torch.hub.load", "pd.read_pickle", "pandas.read_pickle", "joblib.load", "dill.load",
    "cloudpickle.load", "cloudpickle.loads", "pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps",
    "marshal.loads", "shelve.open", "torch.distributed.all_gather_object", "torch.distributed.broadcast_object_list",
    "torch.distributed.gather_object", "torch.distributed.scatter_object_list", "shutil.unpack_archive",
    "mlflow.pyfunc.load_model", "tune.Tuner.restore", "Tuner.restore", "pl.read_database", "np.fromregex",
    "tempfile.mktemp",
}  # fmt: skip
"""Calls that run what they are given, unpickle, or write where somebody else may have been."""


def calls_of(text: str) -> Iterator[tuple[int, str]]:
    """Every forbidden call of a source, and every call with an argument that makes it one, with its line."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in FORBIDDEN:
            yield node.lineno, name
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            yield node.lineno, f"{name} without allow_pickle=False"
        for argument in ("shell", "trust_remote_code", "allow_pickle"):
            if given.get(argument, "False") != "False":
                yield node.lineno, f"{name}(..., {argument}={given[argument]})"
        if name.endswith(".from_pretrained") and given.get("trust_remote_code") != "False":
            yield node.lineno, f"{name} without trust_remote_code=False"
        if name.endswith((".extractall", ".extract")):
            yield node.lineno, name


def test_no_source_of_ours_runs_or_unpickles_what_it_is_given() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for folder in SOURCES
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, what in calls_of(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "call",
    [
        "eval(text)", "os.system('ls')", "subprocess.run('ls', shell=True)", "np.load(file)", "tar.extractall(to)",
        "np.load(file, allow_pickle=True)", "torch.load(file)", "AutoModel.from_pretrained(name)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)", "pickle.loads(data)",
    ],
)  # fmt: skip
def test_such_a_call_would_be_found(call: str) -> None:
    assert list(calls_of(call)) != []


# Models


class _Runs:
    """Says, when it is unpickled, that code ran."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return _write, (str(self._mark), "ran")


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A small model as Transformers saves it."""
    folder = tmp_path / "model"
    model = build_language_model(Architecture(layers=1, width=8, heads=1, context=8), vocabulary=16, seed=0)
    model.save_pretrained(str(folder))  # type: ignore[operator]
    return folder


def with_code(folder: Path, **said: object) -> Path:
    """The folder, with Python files in it that its config names; returns what they would write."""
    mark = folder.parent / "ran"
    code = f"from pathlib import Path\nPath({str(mark)!r}).write_text('ran')\n"
    for name in ("modeling_own.py", "configuration_own.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code + "class Own: ...\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}} | said
    (folder / "config.json").write_text(json.dumps(config))
    return mark


def test_a_known_models_folder_never_runs_the_code_that_it_names(model_folder: Path) -> None:
    mark = with_code(model_folder)
    assert type(reload_language_model(model_folder)).__name__ == "GPT2LMHeadModel"
    assert not mark.exists()


def test_a_model_that_needs_code_of_its_own_is_refused_in_one_line(model_folder: Path) -> None:
    mark = with_code(model_folder, model_type="own")
    with pytest.raises(ValueError, match=r"got 'own' in .*; code that a folder brings is never run"):
        reload_language_model(model_folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "last.ckpt"])
def test_weights_that_are_a_pickle_are_refused_by_name_and_not_read(model_folder: Path, name: str) -> None:
    (model_folder / "model.safetensors").unlink()
    mark = model_folder.parent / "ran"
    (model_folder / name).write_bytes(pickle.dumps(_Runs(mark)))
    for check in (check_model_folder, reload_language_model):
        with pytest.raises(ValueError, match=f"weights must be safetensors, got .* with {name}, a pickle"):
            check(model_folder)
    assert not mark.exists()


def test_a_pickle_beside_safetensors_is_not_looked_at(model_folder: Path) -> None:
    mark = model_folder.parent / "ran"
    (model_folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Runs(mark)))
    (model_folder / "training_args.bin").write_bytes(pickle.dumps(_Runs(mark)))
    reload_language_model(model_folder)
    assert not mark.exists()


# Names that become paths

HOSTILE = ("../x", "/etc/x", "a/b", "..", ".hidden", "", "a\0b", "a\nb", "x" * 300, "ü" * 100, "a\\b")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leads_elsewhere_names_no_sweep_stage_lease_or_group(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a sweep's name must name one file"):
        one_component("a sweep's name", name)
    for key, kind in ((name, "weights"), ("key", name)):
        with pytest.raises(ValueError, match="a stage's k"):
            Stages(tmp_path, durable=False).scratch(kind, key)
    leases = Leases(tmp_path)
    for ask in (leases.take, leases.wait, leases.settle, leases.holder):
        with pytest.raises(ValueError, match="a lease's key must be"):
            ask(name)
    if "/" in name or "\0" in name or name in ("", ".."):
        with pytest.raises(ValueError, match="must be one path component"):
            check_place(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["visdial-smoke-generated-standard", "mine-world.noise=0.5", "Größe 3", "a+b"])
def test_a_name_of_one_file_is_taken_as_it_is(name: str) -> None:
    assert one_component("a sweep's name", name) == name


@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", "/elsewhere"])
def test_a_sweeps_name_on_the_command_line_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "sweeps" / "bandit_ablation.py", "--preset", "smoke", "--store", tmp_path / "store",
         "--name", name, "--plan", "--no-mlflow"], capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "a sweep's name must name one file" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd"])
def test_a_stages_list_of_files_cannot_name_one_outside_of_it(tmp_path: Path, name: str) -> None:
    stages = Stages(tmp_path, durable=False)
    folder = stages.build("weights", "key", lambda folder: (folder / "a").write_text("a") and None, {})
    secret = tmp_path / "stages" / "secret"
    secret.write_text("s")
    about = json.loads((folder / "about.json").read_text())
    del about["digest"]  # as an earlier version wrote it
    size = (folder / name).stat().st_size  # as it would have to be, to be taken for whole
    (folder / "about.json").write_text(json.dumps(about | {"files": {name: {"bytes": size, "sha256": ""}}}))
    assert stages.find("weights", "key") is None


def test_a_checkpoint_cannot_leave_its_weights_out_of_what_is_checked(tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-00000003"
    checkpoint.mkdir()
    (checkpoint / "state.json").write_text(json.dumps({"step": 3, "sha256": {}}))
    with pytest.raises(CheckpointError, match="a checkpoint must have a digest of each file"):
        check_checkpoint(checkpoint)


# Addresses


def test_a_servers_address_with_a_password_in_it_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValueError, match=r"must hold no user or password, got one for 127\.0\.0\.1") as refused:
        Servers(["http://ann:hunter2@127.0.0.1:5000"])
    assert "hunter2" not in str(refused.value)


# What `make check` says of known vulnerabilities


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (None, 0, "pip-audit could not look up any of 2 packages here"),
        ([{"name": "a", "skip_reason": "not found"}] * 2, 0, "pip-audit could not look up any of 2 packages here"),
        ([{"name": "a", "version": "1", "vulns": []}] * 2, 0, "pip-audit: 0 known vulnerabilities in 2 packages"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}, {"name": "b", "skip_reason": "not found"}],
            1,
            "pip-audit: 1 known vulnerabilities in 1 packages; 1 could not be looked up\na 1: CVE-1",
        ),
    ],
)
def test_an_audit_that_asked_nobody_says_so_and_one_that_found_something_fails(
    found: list[dict[str, object]] | None, status: int, said: str
) -> None:
    verdict = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["verdict"]
    ended, text = verdict(found, asked=2)
    assert ended == status
    assert text.startswith(said)
