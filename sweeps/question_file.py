"""A question and its options in a YAML file, which stands for a command line.

    question: visdial
    preset: laptop
    seeds: 3
    methods: [ilql, cql]
    train.learning_rate: 1e-4
    ilql.train.tau: [0.5, 0.7, 0.9]

A key with a dot is a column and its values (`sweeps.overrides`), however deeply it is nested; any other is an option
by its long name. So everything that can be said on the command line can be said here, and is checked in one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ilql.files import FILE, NOTHING, kind_of, user_path

ENDINGS = (".yaml", ".yml")


def is_question_file(text: str) -> bool:
    """True if this names a file and no question."""
    return text.endswith(ENDINGS)


def read_question(file: Path) -> tuple[str, list[str]]:
    """The question's name, and the command line behind it.

    Raises:
        ValueError: The file cannot be read, or is no mapping of names to values with a question in it.
    """
    found = read_yaml(file)
    question = found.pop("question", None)
    if not isinstance(question, str):
        raise ValueError(f"{file} must say which question it asks, as in `question: visdial`, got {question!r}")
    return question, [word for key, value in _flat(found) for word in _words(file, key, value)]


def write_question(
    question: str, options: Mapping[str, object], columns: Mapping[str, Sequence[object]], notes: Sequence[str]
) -> str:
    """A file's text that `read_question` reads: a question, options by their long names, and columns' values."""
    lines = [f"# {note}" for note in notes]
    plain = {"question": question, **options, **{name: list(values) for name, values in columns.items()}}
    return "\n".join([*lines, yaml.safe_dump(plain, sort_keys=False, default_flow_style=None)])


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file's mapping of names to values.

    Raises:
        ValueError: It cannot be read, says a key twice, or is something else.
    """
    file = user_path(file)
    if (kind := kind_of(file)) not in (FILE, NOTHING):
        raise ValueError(f"{file} must be a file of YAML, got {kind}")
    try:
        found = _Loader(file.read_text(encoding="utf-8")).get_single_data()
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} must be a file of YAML, got {getattr(error, 'strerror', None) or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file} must be YAML, got {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{file} must be a mapping of names to values, got {type(found).__name__}")
    return found


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only, and no key twice: YAML itself would let the later one win without a word."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key, _ in node.value:
        name = loader.construct_object(key)
        if isinstance(name, str) and name in seen:
            raise yaml.constructor.ConstructorError(None, None, f"a key twice: {name}", key.start_mark)
        seen.add(name if isinstance(name, str) else id(key))
    loader.flatten_mapping(node)
    found: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values, the names of nested ones joined by dots."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _words(file: Path, key: str, value: object) -> list[str]:
    """What of a command line a key and its value stand for."""
    several = value if isinstance(value, list) else [value]
    if not several or any(not isinstance(each, str | int | float | bool | None) for each in several):
        raise ValueError(f"{file}: {key} must have a plain value or a list of them, got {value!r}")
    if value is None:
        return []
    text = ",".join(_text(each) for each in several)
    if "." in key:
        return [f"{key}={text}"]
    option = key.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}"] if value else [f"--no-{option}"]
    return [f"--{option}={text}"]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
