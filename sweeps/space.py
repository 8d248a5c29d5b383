"""Which columns vary, over what, and in which stage: grids for the design, intervals for the refinement.

Where a column stands decides what varying it costs: `train.tau` trains anew, `decode.beta` plays the same weights
again. The planner reads that from the prefix and needs no other hint.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ilql.hyperparameters import Search, Value, make, number_type, unknown
from ilql.methods import method_named

BAGS = ("train", "decode")

Derived: TypeAlias = Callable[[Mapping[str, Value]], Value]
"""Makes a column's value from those of the base settings."""


@dataclass(frozen=True)
class PlannedTraining:
    """One setting of a method's training, and all ways of decoding its weights: the cells of one training.

    Attributes:
        method: The method's name.
        arm: The row of the table its cells belong to: the method itself, or a variant of it.
        train: Its training hyperparameters.
        decodes: Its decoding hyperparameters, one per cell.
        origin: `design` if it was planned, `refinement` if it was proposed after looking at scores.
    """

    method: str
    arm: str
    train: Any
    decodes: tuple[Any, ...]
    origin: str


@dataclass(frozen=True)
class Grid:
    """A method's cells: every combination of some columns' values, all else at the base settings.

    Attributes:
        method: The method's name.
        columns: Values by column, such as `train.tau` or `decode.beta`.
        variant: The name of the arm, where it is not the method's plain one.
        switch: The values that make a variant what it is, or what makes them; proposals leave them alone.
        search: Where proposals look for values of a column of training, beside or in place of what the method declares.
    """

    method: str
    columns: Mapping[str, Sequence[Value]]
    variant: str | None = None
    switch: Mapping[str, Value | Derived] = field(default_factory=dict)
    search: Mapping[str, Search] = field(default_factory=dict)

    @property
    def arm(self) -> str:
        """The row of the table its cells belong to."""
        return self.variant or self.method

    @property
    def decided(self) -> frozenset[str]:
        """The columns that the design decides: nobody else may set them."""
        return frozenset({*self.columns, *self.switch})

    def values(self, base: Mapping[str, Value]) -> dict[str, tuple[Value, ...]]:
        """The values of every column that the design decides; a switch has one, which `base` may make."""
        switch = {name: value(base) if callable(value) else value for name, value in self.switch.items()}
        columns = {name: tuple(values) for name, values in self.columns.items()}
        return columns | {name: (value,) for name, value in switch.items()}

    def to_refine(self) -> Grid:
        """The one training, with all decodings, that proposals of this arm vary."""
        columns = {
            name: values if name.startswith("decode.") else tuple(values)[:1] for name, values in self.columns.items()
        }
        return dataclasses.replace(self, columns=columns)

    def dimensions(self, held: Sequence[str] = ()) -> tuple[Between, ...]:
        """What proposals of this arm vary, as `space` gives it, but nothing where there is nothing."""
        declared = {column: s for column, s in _declared(self.method).items() if column not in (*self.switch, *held)}
        kind = method_named(self.method).train
        return tuple(
            Between(column, search, whole=number_type(kind, column.removeprefix("train.")) is int)
            for column, search in {**declared, **self.search}.items()
        )

    def space(self, held: Sequence[str] = ()) -> tuple[Between, ...]:
        """What proposals of this arm vary: what its method declares, less what makes it a variant, and less `held`.

        What its own `search` has comes on top, also of what is held: that was asked for.

        Raises:
            ValueError: Its method declares nothing, or nothing is left.
        """
        if not _declared(self.method) and not self.search:
            raise ValueError(f"a method that is refined must declare where to search, {self.method!r} declares nothing")
        left = self.dimensions(held)
        if not left:
            raise ValueError(f"an arm that is refined must leave something to vary, {self.arm!r} decides all there is")
        return left

    def trainings(self, base: Mapping[str, Value]) -> list[PlannedTraining]:
        """The grid's trainings in order, each with its decodings.

        Args:
            base: Values of columns that do not vary; those the method does not have are passed over.

        Raises:
            KeyError: A column of the grid is none of the method's.
            ValueError: A value is out of range.
        """
        method = method_named(self.method)
        bags: dict[str, list[dict[str, Value]]] = {}
        for bag, kind in (("train", method.train), ("decode", method.decode)):
            known = column_names(kind, bag)
            fixed = {name: value for name, value in base.items() if name in known}
            varied = {name: values for name, values in self.values(base).items() if name.startswith(f"{bag}.")}
            bags[bag] = [
                fixed | dict(zip(varied, combination, strict=True))
                for combination in itertools.product(*varied.values())
            ]
        for name in self.decided:
            if not name.startswith(tuple(f"{bag}." for bag in BAGS)):
                raise KeyError(unknown(name, f"column of an {self.method!r} trial", _known(self.method)))
        decodes = tuple(settings(self.method, "decode", values) for values in bags["decode"])
        trains = [settings(self.method, "train", values) for values in bags["train"]]
        return [PlannedTraining(self.method, self.arm, train, decodes, "design") for train in trains]


@dataclass(frozen=True)
class Between:
    """A column that proposals vary, and where they look for good values of it; whole numbers where it is `whole`."""

    column: str
    search: Search
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.column.startswith("train."):
            raise ValueError(f"proposals vary train.* columns, since every decoding is evaluated, got {self.column}")

    @property
    def low(self) -> float:
        """The lowest value that is proposed."""
        return self.search.low

    @property
    def high(self) -> float:
        """The highest value that is proposed."""
        return self.search.high


def _declared(method: str) -> dict[str, Search]:
    """Where proposals look by column of training, as a method's hyperparameters declare it."""
    fields = dataclasses.fields(method_named(method).train)
    searches = {item.name: item.metadata["search"] for item in fields if item.metadata.get("search") is not None}
    return {f"train.{name}": search for name, search in searches.items()}


def settings(method: str, bag: str, values: Mapping[str, Value]) -> Any:
    """A method's hyperparameters from columns with their prefix.

    Raises:
        KeyError: A column is none of the method's.
        ValueError: A value is out of range.
    """
    kind = getattr(method_named(method), bag)
    plain = {name.removeprefix(f"{bag}."): value for name, value in values.items()}
    return make(kind, plain, owner=f"an {method!r} trial", prefix=bag)


def column_names(kind: type[Any], bag: str) -> list[str]:
    """The columns of a hyperparameter dataclass."""
    return [f"{bag}.{item.name}" for item in dataclasses.fields(kind)]


def _known(method: str) -> list[str]:
    kind = method_named(method)
    return column_names(kind.train, "train") + column_names(kind.decode, "decode")


def known_columns(methods: Sequence[str]) -> list[str]:
    """The columns that at least one of the methods has."""
    return sorted({column for method in methods for column in _known(method)})
