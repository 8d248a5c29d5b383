"""A user's own function, `module:name` or `path/to/file.py:name`: found, copied into the world's folder, loaded again.

A file is copied and loaded from the copy, so that another machine runs what was built here; it must stand alone. A
module that is installed is imported by its name, wherever the world is loaded.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilql.files import FILE, kind_of, user_path


@dataclass(frozen=True)
class Location:
    """Where a function stands.

    Attributes:
        what: What it is for, for messages: `environment` or `reward`.
        function: Its name in the module.
        file: The module's source, or None where it has none.
        module: The name to import it by, or None where it is a file of its own.
    """

    what: str
    function: str
    file: Path | None
    module: str | None

    @property
    def digest(self) -> str:
        """A digest of the function's name and its module's source; a file's own name and place do not count."""
        source = b"" if self.file is None else self.file.read_bytes()
        hashed = hashlib.sha256(f"{self.function}\0{self.module or ''}\0".encode() + source)
        return hashed.hexdigest()


def locate(what: str, given: str) -> Location:
    """Where the function lies that a user named.

    A name with `.py` is a file. A name without dots is the file of that name in the working directory, if there is
    one; every other name is a module that is installed.

    Raises:
        ValueError: It is not of the form `module:name`, or there is no such file or module.
    """
    where, colon, name = given.rpartition(":")
    if not colon or not where or not name.isidentifier():
        hint = "; a reward of the data is named with --rewards" if what == "reward" and not colon else ""
        raise ValueError(f"--{what} must be FILE.py:NAME or MODULE:NAME, got {given!r}{hint}")
    path = user_path(where)
    if path.suffix != ".py" and "." not in where and kind_of(Path(f"{where}.py")) == FILE:
        path = Path(f"{where}.py")
    if path.suffix == ".py":
        if kind_of(path) != FILE:
            raise ValueError(f"--{what} must name a file that exists, got {where}")
        return Location(what, name, path, None)
    try:
        found = importlib.util.find_spec(where)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ValueError(f"--{what} must name a file (FILE.py:{name}) or a module that is installed, got {where!r}")
    origin = Path(found.origin) if found.origin and found.origin.endswith(".py") else None
    return Location(what, name, origin, where)


def keep(location: Location, folder: Path) -> dict[str, str | None]:
    """What `load` needs to find the function again: its file copied into the folder, or its module's name.

    The copy has the file's own name, which messages show, in a folder for what it is for: both files may be `mine.py`.
    """
    copy = None
    if location.module is None:
        assert location.file is not None
        copy = f"{location.what}/{location.file.name}"
        (folder / location.what).mkdir(exist_ok=True)
        (folder / copy).write_bytes(location.file.read_bytes())
    return {"function": location.function, "module": location.module, "file": copy}


def beside(location: Location) -> list[str]:
    """Names that a file of its own imports and that lie beside it: they are not copied with it."""
    if location.module is not None or location.file is None:
        return []
    try:
        tree = ast.parse(location.file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    near = location.file.resolve().parent
    return sorted(name for name in names if (near / f"{name}.py").is_file() or (near / name).is_dir())


def load(what: str, kept: Mapping[str, str | None], folder: Path) -> Callable[..., Any]:
    """The function that `keep` left in a folder.

    Raises:
        ValueError: Its module cannot be imported here, has no such name, or the name is nothing that can be called.
    """
    module, name = kept["module"], kept["function"]
    assert name is not None
    file = folder / (kept.get("file") or f"your_{what}.py")  # as worlds that were built earlier have it
    shown = module or file.name
    try:
        loaded = _load_file(file) if module is None else importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever a user's file does when it is run
        raise ValueError(f"--{what} must name a module that can be imported, but {shown} {told(error)}") from None
    function = getattr(loaded, name, None)
    if not callable(function):
        known = ", ".join(key for key, value in vars(loaded).items() if callable(value) and not key.startswith("_"))
        raise ValueError(f"--{what} must name a function in {shown}, got {name!r}; there: {known or 'none'}")
    return function  # type: ignore[no-any-return]


def told(error: BaseException) -> str:
    """What a user's code raised and where, in one line: `raised KeyError: 'day' (desk.py line 12)`."""
    text = " ".join(str(error).split())
    ours = Path(__file__).parent
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    frames = [frame for frame in frames if Path(frame.filename).parent != ours]  # who called it is no help
    where = f" ({Path(frames[-1].filename).name} line {frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}{': ' if text else ''}{text}{where}"


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a file and leaves nothing beside it: the world's folder is what was built, and no more."""

    def set_data(self, path: str, data: object, *, _mode: int = 0o666) -> None:
        """Keep no byte code."""


def _load_file(file: Path) -> Any:
    """A module of its own for the file; equal contents of one name are run once a process."""
    source = file.read_bytes()
    name = f"ilql_{file.stem}_{hashlib.sha256(source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Loader(name, str(file))
    found = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert found is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look their module up here
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
