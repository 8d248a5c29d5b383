"""A store that is not what a store of ours is: its mark, journals, records, stages, weights and leases."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from faults import FOUND, Fault, Place, Reader, run
from files import DEEP
from safetensors.torch import load_file, save
from sound import SWEEP, trial_of

from sweeps.exact_json import dumps
from sweeps.journal import encode_line
from sweeps.spec import TrialSpec
from sweeps.store import Store

LIST = ("list",)
STATUS = ("status", SWEEP)
REPORT = ("report", SWEEP)
DOCTOR = ("doctor",)
CLEAN = ("gc", "--keep", "none", "--dry-run")


def stage_of(at: Place, kind: str, method: str = "bc") -> Path:
    """The folder of the sound sweep's stage of a kind, for a method where there is one for each."""
    spec = TrialSpec.from_json(next(m["spec"] for m in Store(at.store).members(SWEEP) if m["method"] == method))
    key = {
        "weights": spec.weights_id,
        "evaluation": spec.trial_id,
        "tokenizer": spec.tokenizer_key,
        "backbone": spec.backbone_key,
        "world": spec.data.world,
    }[kind]
    found = Store(at.store).stage(kind, key)
    assert found is not None
    return found


def put(folder: Path, name: str, content: bytes) -> None:
    """Another content for a file of a stage, and the stage whole: as one that was written so."""
    (folder / name).write_bytes(content)
    files = about_of(folder)["files"]
    tell(folder, files=files | {name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}})


def about_of(folder: Path) -> dict[str, Any]:
    """What a stage's about.json says."""
    about: dict[str, Any] = json.loads((folder / "about.json").read_text())
    return about


def tell(folder: Path, **changes: object) -> None:
    """Other fields for a stage's about.json, None for none, with the digest of all of it, as if it was written so."""
    about = {name: value for name, value in (about_of(folder) | changes).items() if value is not None}
    about.pop("digest", None)
    text = json.dumps(about)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "about.json").write_text(f'{text[:-1]},"digest":"{digest}"}}\n')


def journal(at: Place) -> Path:
    """The journal of the sound store with the most in it."""
    return max((at.store / "journals").iterdir(), key=lambda path: path.stat().st_size)


def _mark(name: str, why: str, content: bytes, *says: str, command: Sequence[str] = LIST) -> Fault:
    def make(at: Place) -> Sequence[str]:
        (at.store / "store.json").write_bytes(content)
        return command

    return Fault(name, why, make, ("store.json", *says))


def _spoilt(
    name: str,
    why: str,
    spoil: Callable[[Place], object],
    command: Sequence[str] | Callable[[Place], Sequence[str]],
    *says: str,
    status: int = 2,
) -> Fault:
    """A fault that `spoil` makes in the store."""

    def make(at: Place) -> Sequence[str]:
        chosen = command(at) if callable(command) else command  # what it names is looked up while all is well
        spoil(at)
        return chosen

    return Fault(name, why, make, says, status)


def _seen(name: str, why: str, spoil: Callable[[Place], object], *says: str) -> Fault:
    """A fault that `doctor` tells, and nobody else stops at."""

    def make(at: Place) -> None:
        spoil(at)
        for reader in (LIST, STATUS, CLEAN):
            outcome = run(reader)
            assert (outcome.status, outcome.err) == (0, ""), (reader, outcome)

    return _spoilt(name, why, make, DOCTOR, *says, status=FOUND)


def record(kind: str, key: str, value: object) -> Callable[[Place], None]:
    """Appends a journal with one whole line, as another version of the program may write it."""
    return line(encode_line(0, 2**62, kind, key, dumps(value)))  # type: ignore[arg-type]


def raw(record: bytes) -> Callable[[Place], None]:
    """Appends a journal with one line that agrees with its checksum, whatever it says."""
    return line(b'{"sum":"%08x","record":%s}\n' % (zlib.crc32(record), record))


def line(content: bytes) -> Callable[[Place], None]:
    """Appends a journal with one line."""
    return lambda at: put_file(at.store / "journals" / "other-1-00000000.jsonl", content)


def put_file(path: Path, content: bytes) -> None:
    """A file, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _pipe(path: Path) -> None:
    """A pipe that nobody writes into, in place of what there is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _swapped(kind: str) -> Callable[[Place], object]:
    """Two stages in each other's place."""

    def spoil(at: Place) -> None:
        one, two = (stage_of(at, kind, method) for method in ("bc", "sarsa"))
        one.rename(at.folder / "away")
        two.rename(one)
        (at.folder / "away").rename(two)

    return spoil


def _file_for_folder(name: str) -> Callable[[Place], object]:
    def spoil(at: Place) -> None:
        if (at.store / name).exists():
            (at.store / name).rename(at.folder / name)
        (at.store / name).write_text("")

    return spoil


def _told(kind: str, **changes: object) -> Callable[[Place], object]:
    """An about.json that says something else, as if it was written so."""
    return lambda at: tell(stage_of(at, kind), **changes)


def _exaggerated(at: Place) -> None:
    """A score that its episodes do not have."""
    trial = trial_of(at.store, "bc")
    record("evaluation", trial, {**(Store(at.store).get("evaluation", trial) or {}), "score": 99.0})(at)


def _cut(at: Place) -> None:
    path = journal(at)
    path.write_bytes(path.read_bytes()[:-20])


def _flip(at: Place) -> None:
    path = journal(at)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(bytes(content))


def _lose_line(at: Place) -> None:
    path = journal(at)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))


def _journals_are_a_file(at: Place) -> None:
    (at.store / "journals").rename(at.store / "old")
    (at.store / "journals").write_text("")


def _about(content: bytes, kind: str = "weights") -> Callable[[Place], object]:
    return lambda at: (stage_of(at, kind) / "about.json").write_bytes(content)


def _file(kind: str, name: str, change: Callable[[bytes], bytes]) -> Callable[[Place], object]:
    """A file of a stage, changed behind the stage's back."""

    def spoil(at: Place) -> None:
        path = stage_of(at, kind) / name
        path.write_bytes(change(path.read_bytes()))

    return spoil


def _whole(kind: str, name: str, content: bytes, method: str = "bc") -> Callable[[Place], object]:
    """A file of a stage with another content, as if it had been written so."""
    return lambda at: put(stage_of(at, kind, method), name, content)


def _lease(content: bytes) -> Callable[[Place], object]:
    def spoil(at: Place) -> None:
        (at.store / "leases" / "ab").mkdir(parents=True)
        (at.store / "leases" / "ab" / "abc.1").write_bytes(content)

    return spoil


def _turned(content: bytes) -> bytes:
    return content[:-9] + bytes(byte ^ 0xFF for byte in content[-9:])


def _stranger(at: Place) -> Sequence[str]:
    at.write("thesis.tex", "x")
    return ["plan", "bandit", "--preset", "smoke", "--store", str(at.folder)]


def _pipe_for_mark(at: Place) -> object:
    (at.store / "store.json").unlink()
    return os.mkfifo(at.store / "store.json")


def _folder_for_mark(at: Place) -> object:
    (at.store / "store.json").unlink()
    return (at.store / "store.json").mkdir()


PLAN = ("plan", "bandit", "--preset", "smoke")
SPEC: Mapping[str, Any] = {"sweep": SWEEP, "trial_id": "zz", "weights_id": "zz", "cell_id": "zz", "method": "bc"}


def member(**changes: object) -> Callable[[Place], None]:
    return record("member", f"{SWEEP}/zz", {**SPEC, "origin": "design", "seed": 0, "columns": {}} | changes)


STORE = Reader(
    "the store",
    sound=lambda at: DOCTOR,
    spoils_store=True,
    faults=(
        _spoilt("newer format", "written by a later program",
                lambda at: (at.store / "store.json").write_text('{"format": 99}'), LIST, "format", "99", "newer"),
        _spoilt("format of a word", "edited by hand",
                lambda at: (at.store / "store.json").write_text('{"format": "one"}'), LIST, "format", "one"),
        _mark("empty mark", "the machine died before the disk had it", b"", "damaged"),
        _mark("mark of zeros", "the machine died before the disk had it", bytes(30), "damaged"),
        _mark("mark that is a list", "another program's file", b"[1]", "damaged"),
        _mark("mark nested too deep", "made to exhaust the stack", DEEP.encode(), "damaged"),
        _mark("id of a word", "edited by hand", b'{"format": 1, "id": "mine\\n"}', "id", "16 digits", "mine"),
        _mark("id of a number", "edited by hand", b'{"format": 1, "id": 7}', "id", "16 digits", "'7'"),
        _spoilt("mark that is a folder", "made by hand", _folder_for_mark, LIST, "store.json"),
        _spoilt("mark that is a pipe", "reading it waits for ever", _pipe_for_mark, PLAN, "store.json"),
        Fault("another program's folder", "the wrong path", _stranger, ("store", "thesis.tex")),
        _spoilt("journals that are a file", "copied without its folders", _journals_are_a_file, LIST, "journals"),
        _seen("journal that is a folder", "unpacked by another name",
              lambda at: (at.store / "journals" / "x.jsonl").mkdir(), "journals/x.jsonl", "remove it"),
        _seen("journal that is a pipe", "made by hand", lambda at: os.mkfifo(at.store / "journals" / "x.jsonl"),
              "journals/x.jsonl", "remove it"),
        _seen("journal that is a broken link", "what it led to was moved",
              lambda at: (at.store / "journals" / "x.jsonl").symlink_to("gone"), "journals/x.jsonl", "remove it"),
        _seen("file among the journals", "a note to oneself",
              lambda at: (at.store / "journals" / "x.txt").write_text("x"), "journals/x.txt", "remove it"),
        _seen("journal without a line end", "another program's file, or a disk gone wild",
              lambda at: (at.store / "journals" / "x.jsonl").write_bytes(b"x" * (40 << 20)), "x.jsonl", "41943040"),
        _spoilt("torn tail", "its writer was killed", _cut, DOCTOR, "unfinished line", "no problem", status=0),
        _seen("flipped byte in a journal", "a disk that forgets", _flip, "damaged", "journal"),
        _seen("lost line", "edited by hand", _lose_line, "missing", "journal"),
        _seen("journal of another program", "the wrong folder",
              lambda at: (at.store / "journals" / "x.jsonl").write_text('{"step": 1}\n{"step": 2}\n'),
              "x.jsonl", "2 damaged"),
        _seen("record that is a list", "another program's line", raw(b"[1]"), "damaged", "other-1"),
        _seen("record that is a number", "another program's line", raw(b"3"), "damaged", "other-1"),
        _seen("record nested too deep", "made to exhaust the stack", raw(DEEP.encode()), "damaged", "other-1"),
        _seen("value nested too deep", "made to exhaust the stack",
              raw(b'{"line":0,"time":1,"kind":"member","key":"x","value":%s}' % DEEP.encode()), "member x", "brackets"),
        _seen("value that is no JSON", "another program's line",
              raw(b'{"line":0,"time":1,"kind":"member","key":"x","value":{,}}'), "member x", "left out"),
        _seen("time that is a word", "another program's line",
              raw(b'{"line":0,"time":"noon","kind":"member","key":"x","value":{}}'), "damaged", "other-1"),
        _seen("kind that is a list", "another program's line",
              raw(b'{"line":0,"time":1,"kind":[],"key":"x","value":{}}'), "damaged", "other-1"),
        _seen("key that is a list", "another program's line",
              raw(b'{"line":0,"time":1,"kind":"member","key":["x"],"value":{}}'), "damaged", "other-1"),
        _seen("member without its sweep", "another version's record", record("member", "x/zz", {"trial_id": "zz"}),
              "member x/zz", "lacks 'sweep'"),
        _seen("member that is a list", "another version's record", record("member", "x/zz", [1]), "member x/zz"),
        _seen("member without columns", "another version's record", record("member", f"{SWEEP}/zz", dict(SPEC)),
              "member", f"{SWEEP}/zz", "left out"),
        _seen("column of another type", "another version's record", member(columns={"evaluation.episodes": "two"}),
              f"{SWEEP}/zz", "evaluation.episodes"),
        _seen("claim that says nothing", "another version's record", record("lease", "x.1", {}), "lease x.1"),
        _seen("claim that is a list", "another version's record", record("lease", "x.1", [1]), "lease x.1"),
        _seen("claim of words", "another version's record", record("lease", "x.1", {"lease": {"a": 1}, "term": "z"}),
              "lease x.1"),
        _seen("record under a number", "another version's record", record("evaluation", "x", {"under": 5}),
              "evaluation x", "'under'"),
        _seen("record under words", "another version's record",
              record("evaluation", "x", {"under": ["a", "b"], "status": "finished"}), "evaluation x", "'under'"),
        _seen("evaluation without a status", "another version's record",
              lambda at: record("evaluation", trial_of(at.store, "bc"), {})(at), "evaluation", "lacks 'status'"),
        _seen("training that is a list", "another version's record", record("training", "x", [1]), "training x"),
        _seen("training with metrics of a list", "another version's record",
              record("training", "x", {"status": "finished", "metrics": [1]}), "training x", "'metrics'"),
        _seen("sweep of other types", "another version's record", record("sweep", SWEEP, {"created_at": 5}),
              f"sweep {SWEEP}", "'created_at'"),
        _seen("dropped by a number", "another version's record", record("dropped", "x", {"rule": 5, "at": "x"}),
              "dropped x", "'rule'"),
        _seen("trial that is no JSON", "another version's record", member(spec="{"), f"{SWEEP}/zz", "'spec'"),
        _seen("trial of another version", "another version's record", member(spec='{"method": "bcc"}'),
              f"member zz of {SWEEP}", "cannot be read"),
        _spoilt("trial with a field too many", "a later version's record",
                member(spec='{"method": "bc", "new": 1}'), ("reply", "zz", "pull"), "zz"),
        _spoilt("trial of a method that is gone", "another version's record",
                member(spec='{"method": "bcc"}'), ("reply", "zz", "pull"), "bcc", "zz"),
        _seen("score that is a word", "another version's record",
              lambda at: record("evaluation", trial_of(at.store, "bc"),
                                {"status": "finished", "score": "high", "score_sd": 0.0, "episodes": 2})(at),
              "'score'", "left out"),
        _seen("score of other episodes", "edited by hand", _exaggerated, "99.0", "makes both anew"),
        _seen("about.json cut off", "the machine died before the disk had it", _about(b'{"kind": "wei'), "not whole"),
        _seen("about.json nested too deep", "made to exhaust the stack", _about(DEEP.encode()), "not whole"),
        _seen("about.json without files", "another version's", _about(b'{"kind": "weights"}'), "not whole"),
        _seen("about.json of a list of files", "another version's", _about(b'{"files": ["a"]}'), "not whole"),
        _seen("about.json of sizes without names", "edited by hand", _about(b'{"files": {"a": 3}}'), "not whole"),
        _seen("about.json that is a pipe", "made by hand",
              lambda at: _pipe(stage_of(at, "weights") / "about.json"), "not whole"),
        _seen("about.json of a text for notes", "another version's", _told("weights", notes="x"), "'notes'"),
        _seen("about.json of a world without notes", "another version's", _told("world", notes="x"), "'notes'"),
        _seen("about.json about a text", "another version's", _told("weights", about="x"), "'about'"),
        _seen("about.json without seconds", "another version's", _told("weights", seconds=None), "'seconds'"),
        _seen("about.json of seconds in words", "another version's", _told("tokenizer", seconds="x"), "'seconds'"),
        _seen("about.json of a file with NUL", "binary", _told("weights", files={"a\0b": {"bytes": 1, "sha256": ""}}),
              "is gone"),
        _seen("about.json edited", "by hand",
              _file("weights", "about.json", lambda content: content.replace(b'"seed":0', b'"seed":4')),
              "about.json was changed"),
        _seen("weights swapped", "two folders restored the wrong way round", _swapped("weights"), "about.json is of"),
        _seen("episodes swapped", "two folders restored the wrong way round", _swapped("evaluation"),
              "about.json is of"),
        _seen("curve that is a pipe", "made by hand",
              lambda at: _pipe(stage_of(at, "weights") / "curve.jsonl"), "not whole"),
        _seen("world that is gone", "cleaned up by hand", lambda at: shutil.rmtree(stage_of(at, "world")),
              "stage world", "start from it"),
        _seen("tokenizer that is gone", "cleaned up by hand", lambda at: shutil.rmtree(stage_of(at, "tokenizer")),
              "stage tokenizer", "start from it"),
        _seen("backbone that is gone", "cleaned up by hand", lambda at: shutil.rmtree(stage_of(at, "backbone")),
              "stage backbone", "start from it"),
        _seen("file among the stages", "a note to oneself",
              lambda at: (stage_of(at, "world").parent / "my notes").write_text("x"), "my notes", "remove it"),
        _spoilt("stages that are a file", "copied without its folders", _file_for_folder("stages"), PLAN, "stages"),
        _spoilt("stages that are a file, seen", "copied without its folders", _file_for_folder("stages"), DOCTOR,
                "stages: must be a folder", status=FOUND),
        _seen("half a table", "a copy that broke off",
              lambda at: put_file(at.store / "rows" / "runs.parquet", b"half"), "rows/runs.parquet", "writes it anew"),
        _seen("table left half-written", "its writer was killed",
              lambda at: put_file(at.store / "rows" / ".runs.parquet.abcd1234", b"half"), ".runs.parquet.abcd1234"),
        _seen("study cut off", "edited by hand", lambda at: put_file(at.store / "optuna" / f"{SWEEP}.log", b"{"),
              f"optuna/{SWEEP}.log", "writes it anew"),
        _seen("checkpoint cut off", "the machine died before the disk had it",
              lambda at: put_file(at.store / "scratch/trajectory/ab/abc/checkpoints/step-00000050/state.json", b"{"),
              "step-00000050", "passed over"),
        _seen("flipped byte in a stage", "a disk that forgets",
              _file("weights", "weights.safetensors", _turned), "weights.safetensors", "not what was written"),
        _spoilt("stage that lost bytes", "a copy that broke off",
                _file("weights", "weights.safetensors", lambda content: content[:-9]),
                lambda at: ["reply", trial_of(at.store, "bc"), "pull"], "weights"),
        _spoilt("episodes turned over", "a disk that forgets",
                _file("evaluation", "episodes.parquet", _turned), REPORT, "episodes.parquet"),
        _spoilt("episodes of zeros", "the machine died before the disk had it",
                _file("evaluation", "episodes.parquet", lambda content: bytes(len(content))), REPORT,
                "episodes.parquet"),
        _spoilt("episodes that are gone", "cleaned up by hand",
                lambda at: (stage_of(at, "evaluation") / "episodes.parquet").unlink(), REPORT, "gone or damaged"),
        _spoilt("world cut off", "a copy that broke off", _file("world", "settings.json", lambda content: b"{"),
                lambda at: ["play", "bandit", "--trial", trial_of(at.store, "bc")], "world"),
        _seen("lease of nothing", "its writer was killed in it", _lease(b""), "lease abc", "whose"),
        _seen("lease nested too deep", "made to exhaust the stack", _lease(DEEP.encode()), "lease abc", "whose"),
        _seen("lease that is a pipe", "made by hand", lambda at: _pipe(at.store / "leases" / "ab" / "abc.1"),
              "lease abc", "whose"),
        _seen("lease that is a folder", "made by hand",
              lambda at: (at.store / "leases" / "ab" / "abc.1").mkdir(parents=True), "lease abc", "whose"),
        _spoilt("leases that are a file", "copied without its folders", _file_for_folder("leases"),
                ("gc", "--keep", "none"), "leases"),
        _spoilt("leases that are a file, mirrored", "copied without its folders", _file_for_folder("leases"),
                ("mirror",), "leases"),
        _spoilt("leases that are a file, seen", "copied without its folders", _file_for_folder("leases"), DOCTOR,
                "leases: must be a folder", status=FOUND),
        _seen("lease of numbers", "another program's file",
              _lease(b'{"name": 1, "process": 2, "machine": 3, "since": 4}'), "lease abc", "whose"),
    ),
)  # fmt: skip


def _header(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and the tensors' bytes."""
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def _with_header(header: object, data: bytes, size: int | None = None) -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def _weights(name: str, why: str, change: Callable[[Path], bytes], *says: str) -> Fault:
    """Weights with another content, in a stage that is whole."""

    def spoil(at: Place) -> None:
        folder = stage_of(at, "weights")
        put(folder, "weights.safetensors", change(folder / "weights.safetensors"))

    return _spoilt(
        name, why, spoil, lambda at: ["reply", trial_of(at.store, "bc"), "pull"], "weights.safetensors", *says
    )


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], bytes]:
    def changed(path: Path) -> bytes:
        tensors = load_file(path)
        change(tensors)
        return save(tensors)

    return changed


def _first(tensors: Mapping[str, torch.Tensor]) -> str:
    return min(tensors)


def _offsets(begin: int, end: int) -> Callable[[Path], bytes]:
    """Where the first tensor lies, said wrongly."""

    def changed(path: Path) -> bytes:
        header, data = _header(path.read_bytes())
        header[_first(header)]["data_offsets"] = [begin, end]
        return _with_header(header, data)

    return changed


WEIGHTS = Reader(
    "weights",
    sound=lambda at: ["reply", trial_of(at.store, "bc"), "pull"],
    spoils_store=True,
    faults=(
        _weights("empty", "the machine died before the disk had it", lambda path: b""),
        _weights("zeros", "the machine died before the disk had it", lambda path: bytes(path.stat().st_size)),
        _weights("truncated", "a copy that broke off", lambda path: path.read_bytes()[:-100]),
        _weights(
            "header alone", "a copy that broke off", lambda path: _with_header(_header(path.read_bytes())[0], b"")
        ),
        _weights("pickle by another name", "renamed by hand", lambda path: b"\x80\x02}q\x00."),
        _weights("header of 2⁶³ bytes", "made to exhaust memory", lambda path: b"\xff" * 7 + b"\x7f" + b"{}"),
        _weights("header nested too deep", "made to exhaust the stack", lambda path: _with_header(DEEP.encode(), b"")),
        _weights("header that is a list", "another program's file", lambda path: _with_header([1, 2], b"")),
        _weights("tensors beyond the end", "a header of another file", _offsets(0, 2**40)),
        _weights("tensors the wrong way round", "a header written by hand", _offsets(64, 0)),
        _weights("missing tensor", "another network", _tensors(lambda t: t.pop(_first(t))), "differs"),
        _weights("extra tensor", "another network", _tensors(lambda t: t.update(more=torch.zeros(2))), "'more'"),
        _weights("renamed tensor", "another version of a library",
                 _tensors(lambda t: t.update({"x." + _first(t): t.pop(_first(t))})), "differs"),
        _weights("another shape", "a network of another width",
                 _tensors(lambda t: t.update({_first(t): torch.zeros(3, 5)})), "shape", "(3, 5)"),
        _weights("another number of axes", "a tensor flattened",
                 _tensors(lambda t: t.update({n: v.flatten() for n, v in t.items()})), "shape"),
        _weights("whole numbers", "quantised", _tensors(lambda t: t.update({n: v.int() for n, v in t.items()})),
                 "float32", "int32"),
        _weights("half precision", "made smaller by hand",
                 _tensors(lambda t: t.update({n: v.half() for n, v in t.items()})), "float32", "float16"),
        _weights("NaN", "a training that ran away",
                 _tensors(lambda t: t.update({n: v * float("nan") for n, v in t.items()})), "finite"),
        _weights("infinity", "an overflow",
                 _tensors(lambda t: t.update({n: v / 0.0 for n, v in t.items()})), "finite"),
    ),
)  # fmt: skip

READERS = (STORE, WEIGHTS)
