"""A store that is not what a store of ours is: its mark, journals, records, stages, weights and leases."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from faults import FOUND, Fault, Place, Reader
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
    """A fault that no reader stops at, and `doctor` tells."""
    return _spoilt(name, why, spoil, DOCTOR, *says, status=FOUND)


def record(kind: str, key: str, value: object) -> Callable[[Place], None]:
    """Appends a journal with one whole line, as another version of the program may write it."""

    def spoil(at: Place) -> None:
        line = encode_line(0, 2**62, kind, key, dumps(value))  # type: ignore[arg-type]
        (at.store / "journals" / "other-1-00000000.jsonl").write_bytes(line)

    return spoil


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
        _spoilt("mark that is a folder", "made by hand", _folder_for_mark, LIST, "store.json"),
        _spoilt("mark that is a pipe", "reading it waits for ever", _pipe_for_mark, PLAN, "store.json"),
        Fault("another program's folder", "the wrong path", _stranger, ("store", "thesis.tex")),
        _spoilt("journals that are a file", "copied without its folders", _journals_are_a_file, LIST, "journals"),
        _spoilt("journal that is a folder", "unpacked by another name",
                lambda at: (at.store / "journals" / "x.jsonl").mkdir(), LIST, "x.jsonl"),
        _seen("torn tail", "its writer was killed", _cut, "unfinished line"),
        _seen("flipped byte in a journal", "a disk that forgets", _flip, "damaged", "journal"),
        _seen("lost line", "edited by hand", _lose_line, "missing", "journal"),
        _seen("journal of another program", "the wrong folder",
              lambda at: (at.store / "journals" / "x.jsonl").write_text('{"step": 1}\n{"step": 2}\n'),
              "x.jsonl", "2 damaged"),
        _spoilt("member without its sweep", "another version's record", record("member", "x/zz", {"trial_id": "zz"}),
                LIST, "member", "x/zz"),
        _spoilt("member that is a list", "another version's record", record("member", "x/zz", [1]), LIST, "member"),
        _spoilt("member without columns", "another version's record", record("member", f"{SWEEP}/zz", dict(SPEC)),
                LIST, "member", f"{SWEEP}/zz"),
        _spoilt("trial that is no JSON", "another version's record", member(spec="{"), ("reply", "zz", "pull"), "zz"),
        _spoilt("trial with a field too many", "a later version's record",
                member(spec='{"method": "bc", "new": 1}'), ("reply", "zz", "pull"), "zz"),
        _spoilt("trial of a method that is gone", "another version's record",
                member(spec='{"method": "bcc"}'), ("reply", "zz", "pull"), "bcc", "zz"),
        _spoilt("score that is a word", "another version's record",
                lambda at: record("evaluation", trial_of(at.store, "bc"),
                                  {"status": "finished", "score": "high", "score_sd": 0.0, "episodes": 2})(at),
                REPORT, "score"),
        _seen("about.json cut off", "the machine died before the disk had it", _about(b'{"kind": "wei'), "not whole"),
        _seen("about.json nested too deep", "made to exhaust the stack", _about(DEEP.encode()), "not whole"),
        _seen("about.json without files", "another version's", _about(b'{"kind": "weights"}'), "not whole"),
        _seen("about.json of a list of files", "another version's", _about(b'{"files": ["a"]}'), "not whole"),
        _seen("about.json of sizes without names", "edited by hand", _about(b'{"files": {"a": 3}}'), "not whole"),
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
