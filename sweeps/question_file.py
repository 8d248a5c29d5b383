"""A question and its options in a YAML file, which stands for a command line.

    question: visdial
    preset: laptop
    seeds: 3
    methods: [ilql, cql]
    train.learning_rate: 1e-4
    ilql.train.tau: [0.5, 0.7, 0.9]

A key with a dot is a column and its values (`sweeps.overrides`), however deeply it is nested; any other is an option
by its long name. So everything that can be said on the command line can be said here, and is checked in one place.

Of YAML, what stands for more than it says is refused: aliases, of which a few lines become as many values as one likes,
and tags, which name what is to be made of a text.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ilql.files import FILE, NOTHING, kind_of, user_path
from sweeps.plain_files import read_plain

ENDINGS = (".yaml", ".yml")

LONGEST_BYTES = 2**18
"""Longest file: what somebody writes is a hundredth of that, and reading it takes seconds."""

LONGEST_NUMBER = 300
"""In letters. A longer one fits no column, and those of thousands of digits take long to read."""

_YAMLS_OWN = "tag:yaml.org,2002:"


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
        raise ValueError(
            f"{file} must say which question it asks, as in `question: visdial`, got {reprlib.repr(question)}"
        )
    return question, [word for key, value in _flat(found) for word in _words(file, key, value)]


def write_question(
    question: str, options: Mapping[str, object], columns: Mapping[str, Sequence[object]], notes: Sequence[str]
) -> str:
    """A file's text that `read_question` reads: a question, options by their long names, and columns' values."""
    lines = [f"# {note}" for note in notes]
    plain = {"question": question, **options, **{name: list(values) for name, values in columns.items()}}
    return "\n".join([*lines, yaml.safe_dump(plain, sort_keys=False, default_flow_style=None)])


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file's mapping of names to values: lists, mappings by name, and plain values.

    Raises:
        ValueError: It cannot be read, says a key twice, has a key that is no text, an anchor, an alias, a tag or a
            number that is none in JSON, or is something else than a mapping.
    """
    file = user_path(file)
    if (kind := kind_of(file)) not in (FILE, NOTHING):
        raise ValueError(f"{file} must be a file of YAML, got {kind}")
    try:
        found = _Loader(read_plain(file, longest=LONGEST_BYTES).decode()).get_single_data()
    except _UnwantedError as error:
        raise ValueError(f"{file} must be YAML {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file} must be YAML, got {' '.join(str(error).split())}") from None
    except (OSError, ValueError, OverflowError) as error:  # bytes that are no text; a letter beyond all letters
        raise ValueError(f"{file} must be a file of YAML, got {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} must be a mapping of names to values, got {type(found).__name__}")
    return found


class _UnwantedError(yaml.YAMLError):  # type: ignore[misc]
    """What YAML has and we do not take; says how it would have to be, what came and where."""

    def __init__(self, rule: str, got: str, mark: yaml.Mark, instead: str) -> None:
        super().__init__(f"{rule}, got {got[:80]} in line {mark.line + 1}; {instead}")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only, and no key twice: YAML itself would let the later one win without a word."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        """The node of the next event, unless that stands for more than it says."""
        event = self.peek_event()
        if event.anchor is not None:
            name = f"{'*' if isinstance(event, yaml.AliasEvent) else '&'}{event.anchor}"
            instead = "write the value wherever it is meant"
            raise _UnwantedError("without anchors and aliases", name, event.start_mark, instead)
        if event.tag is not None:
            name = event.tag.replace(_YAMLS_OWN, "!!", 1)
            raise _UnwantedError("without tags", name, event.start_mark, "a text stands in quotes")
        return super().compose_node(parent, index)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag != f"{_YAMLS_OWN}str":
            shown = key.value if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
            raise _UnwantedError("with names as keys", shown, key.start_mark, "a name that reads as none needs quotes")
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"a key twice: {key.value}", key.start_mark)
        seen.add(key.value)
    found: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    return found


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    """A number, but for what YAML 1.1 alone takes for one: 1:30 is 90 to it."""
    if ":" in node.value or len(node.value) > LONGEST_NUMBER:
        rule = f"whose numbers have no colon and at most {LONGEST_NUMBER} letters"
        raise _UnwantedError(rule, node.value, node.start_mark, "a text stands in quotes")
    whole = node.tag == f"{_YAMLS_OWN}int"
    found: int | float = (loader.construct_yaml_int if whole else loader.construct_yaml_float)(node)
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
for _kind in ("int", "float"):
    _Loader.add_constructor(f"{_YAMLS_OWN}{_kind}", _number)
_Loader.add_constructor(f"{_YAMLS_OWN}timestamp", yaml.SafeLoader.construct_yaml_str)  # a date may be a sweep's name


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
        raise ValueError(f"{file}: {key} must have a plain value or a list of them, got {reprlib.repr(value)}")
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
