"""Objects by name: in a folder, and in a store that speaks S3, by moto's server."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from cluster.faults import classify
from sweeps.journal import StoreError
from sweeps.objects import Objects
from sweeps.replica import check_address


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty place for objects."""
    if request.param == "folder":
        return Objects(f"file://{tmp_path}/objects")
    return Objects(request.getfixturevalue("s3_address"))


def test_what_was_put_is_read_whole_or_from_a_byte_on(objects: Objects) -> None:
    objects.put("journals/a.jsonl", b"hello")
    assert objects.read("journals/a.jsonl") == b"hello"
    assert objects.read("journals/a.jsonl", begin=2) == b"llo"
    assert objects.read("journals/a.jsonl", begin=5) == b""
    assert objects.size("journals/a.jsonl") == 5


def test_what_is_put_takes_the_place_of_what_was_there(objects: Objects) -> None:
    objects.put("x", b"longer than the next")
    objects.put("x", b"next")
    assert objects.read("x") == b"next"


def test_a_file_larger_than_what_is_held_in_memory_goes_there_and_back(objects: Objects, tmp_path: Path) -> None:
    content = os.urandom((1 << 22) + 12_345)
    (tmp_path / "large").write_bytes(content)
    objects.put("stages/weights/w.tar", tmp_path / "large")
    assert objects.get("stages/weights/w.tar", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_what_is_broken_off_while_it_is_put_is_not_there(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(os.urandom(3 << 22))

    class Broken(io.BytesIO):
        """A disk that fails behind the first part."""

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 1 << 22:
                raise KeyboardInterrupt
            return super().read(size)

    content = (tmp_path / "large").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: Broken(content))
        with pytest.raises(KeyboardInterrupt):
            objects.put("stages/weights/w.tar", tmp_path / "large")
    assert objects.size("stages/weights/w.tar") is None


def test_a_put_that_fails_leaves_what_was_there(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.put("journals/a.jsonl", b"old")
    objects.waits = ()
    with monkeypatch.context() as patch:
        patch.setattr(objects, "_files", Unwritable(objects._files))
        with pytest.raises(StoreError):
            objects.put("journals/a.jsonl", b"new")
    assert objects.read("journals/a.jsonl") == b"old"


def test_a_file_that_is_not_there_is_no_object(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        objects.put("x", tmp_path / "none")
    assert objects.size("x") is None


def test_names_are_those_below_a_folder_with_their_sizes(objects: Objects) -> None:
    for name in ("stages/weights/a.tar", "stages/world/b.tar", "journals/c.jsonl"):
        objects.put(name, name.encode())
    assert objects.names("stages") == {"stages/weights/a.tar": 20, "stages/world/b.tar": 18}
    assert objects.names("stages/weights") == {"stages/weights/a.tar": 20}
    assert objects.names("elsewhere") == {}


def test_what_is_not_there_is_none_and_makes_no_file(objects: Objects, tmp_path: Path) -> None:
    assert objects.read("none") is None
    assert objects.size("none") is None
    assert not objects.get("none", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_was_removed_is_gone_and_may_be_removed_again(objects: Objects) -> None:
    objects.put("x", b"1")
    objects.remove("x")
    objects.remove("x")
    assert objects.read("x") is None


def test_a_folder_shows_nothing_that_is_still_being_written(tmp_path: Path) -> None:
    objects = Objects(f"file://{tmp_path}/objects")
    objects.put("journals/a.jsonl", b"1")
    (tmp_path / "objects" / "journals" / ".b.jsonl.1234").write_bytes(b"half")
    assert objects.names("journals") == {"journals/a.jsonl": 1}


def test_a_store_that_does_not_answer_is_one_line(s3_address: str) -> None:
    closed = Objects(s3_address.replace("sweeps-", "no-such-bucket-"))
    with pytest.raises(
        StoreError, match=r"^the object store s3://no-such-bucket-.* could not write: .*NO_SUCH_BUCKET"
    ) as told:
        closed.put("x", b"1")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("address", ["s3://", "bucket/prefix", "", "file://"])
def test_what_is_no_address_is_refused_by_rule(address: str) -> None:
    with pytest.raises(ValueError, match=r"^the address of an object store must be like s3://bucket/prefix, .*, got "):
        check_address(address)


def test_a_scheme_that_nobody_knows_is_refused_by_rule() -> None:
    with pytest.raises(ValueError, match=r"^the address of an object store must be like .* got ftp://host/x: "):
        Objects("ftp://host/x")


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:word@bucket/x",
        "s3://word@bucket/x",
        "s3://bucket/x?secret_key=word",
        "s3://bucket?ACCESS_KEY=word",
        "abfs://account.blob.core.windows.net/c/x?client_secret=word",
        "abfs://container:word@account.dfs.core.windows.net/x",
    ],
)
def test_an_address_with_keys_in_it_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ValueError, match="must have no keys in it") as told:
        check_address(address)
    assert "word" not in str(told.value)


def test_what_may_pass_is_tried_again_and_is_the_machines_fault(
    s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("sweeps.objects.time.sleep", waited.append)
    objects = Objects(s3_address, waits=(1.0, 5.0))
    answers: list[Exception | None] = [OSError("AWS Error SLOW_DOWN during HeadObject operation"), None]
    monkeypatch.setattr(objects, "_files", Stumbling(objects._files, answers))
    assert objects.size("none") is None
    assert waited == [1.0]
    answers += [OSError("AWS Error NETWORK_CONNECTION during HeadObject operation")] * 3
    with pytest.raises(StoreError) as told:
        objects.size("none")
    assert waited == [1.0, 1.0, 5.0]
    assert classify(told.value).owner == "machine"


class Unwritable:
    """A file system that takes nothing."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def open_output_stream(self, place: str) -> Any:
        """A fault."""
        raise OSError("AWS Error SLOW_DOWN during CreateMultipartUpload operation")


class Stumbling:
    """A file system that answers so often with a fault."""

    def __init__(self, files: Any, faults: list[Exception | None]) -> None:
        self._files, self._faults = files, faults

    def get_file_info(self, place: str) -> Any:
        """A fault, if it is one's turn."""
        if (fault := self._faults.pop(0)) is not None:
            raise fault
        return self._files.get_file_info(place)


@pytest.mark.parametrize("address", ["abfs://container@account.dfs.core.windows.net/x", "gs://anonymous@bucket/x"])
def test_a_name_before_a_place_is_no_key_but_on_s3(address: str) -> None:
    assert check_address(address) == address
