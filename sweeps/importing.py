"""Sweeps as others write them, read as a question of ours: W&B's YAML and trlX's.

Theirs draw from intervals. One of a column of training is left to the search (`sweeps.intervals`), with as many
proposals for each method as theirs draws. Any other becomes a few values, the same for every method, so that tables
compare: evenly spread on its own scale, its ends included; one in steps those multiples of its step that lie between
its ends. So does every interval where a number of values is asked for. What they do besides (their metric, scheduler,
early stopping) has no place in a design and is said to be left out.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ilql.hyperparameters import Search
from sweeps.intervals import is_interval, is_log, written

Format = Literal["wandb", "trlx"]

Plain: TypeAlias = str | int | float | bool

NAMES = {
    "tau": "train.tau",
    "gamma": "train.gamma",
    "cql_scale": "train.cql_weight",
    "cql_weight": "train.cql_weight",
    "alpha": "train.polyak",
    "steps_for_target_q_sync": "train.target_every",
    "lr": "train.learning_rate",
    "lr_init": "train.learning_rate",
    "learning_rate": "train.learning_rate",
    "weight_decay": "train.weight_decay",
    "batch_size": "train.batch_size",
    "total_steps": "train.steps",
    "seq_length": "train.max_tokens",
    "beta": "decode.beta",
    "temperature": "decode.temperature",
    "top_k": "decode.top_k",
}
"""What trlX and its users call our columns, by the last part of their name: docs/glossary.md has the meanings."""

OF_LEARNING = ("train.learning_rate", "train.weight_decay")
"""What trlX's `optimizer` and `scheduler` may name: an optimiser's `alpha` is no target's, a schedule's `gamma` no
discount."""

POINTS = 4
"""Values that an interval becomes where it cannot be searched."""


@dataclass(frozen=True)
class Imported:
    """A sweep of others as columns of ours.

    Attributes:
        columns: Values by column.
        notes: What became of the rest, a line each.
        trials: How many settings theirs draws, if it says so and intervals are left to the search; else None.
    """

    columns: Mapping[str, tuple[Plain, ...]]
    notes: tuple[str, ...]
    trials: int | None = None


@dataclass(frozen=True)
class _Interval:
    """From `low` to `high`, in multiples of `step` unless it is 0. Of a whole step, values are whole numbers."""

    low: float
    high: float
    log: bool = False
    step: float = 0.0

    def values(self, points: int) -> tuple[Plain, ...]:
        """Evenly spread on its scale, each once and none beyond the ends.

        Without a step the ends are among them, and what is between has four significant digits; with one, the lowest
        and the highest multiple of it between the ends are.
        """
        if not self.step:
            near = ((each, float(f"{each:.4g}")) for each in self._spread(self.low, self.high, points))
            return tuple(dict.fromkeys(short if self.low <= short <= self.high else each for each, short in near))
        first, last = self.multiples
        counts = dict.fromkeys(round(each) for each in self._spread(first, last, points))
        if self.step.is_integer():
            return tuple(count * int(self.step) for count in counts)
        return tuple(float(f"{count * self.step:.12g}") for count in counts)  # 3 · 0.1 is a little more than 0.3

    def searched(self, column: str) -> str | None:
        """The interval as a search of ours takes it; None if none would draw the same."""
        if not column.startswith("train.") or self.step not in (0.0, 1.0) or self.log != is_log(self.low, self.high):
            return None
        return written(Search(self.low, self.high))

    @property
    def multiples(self) -> tuple[int, int]:
        """The lowest and the highest multiple of the step between the ends, as counts of it; none if out of order."""
        slack = 1e-9  # 0.3 / 0.1 is a little less than 3
        first = math.ceil(self.low / self.step - slack)
        return max(first, 1) if self.log else first, math.floor(self.high / self.step + slack)

    def _spread(self, low: float, high: float, points: int) -> list[float]:
        to, back = (math.log, math.exp) if self.log else (float, float)
        at = [to(low) + (to(high) - to(low)) * place / (points - 1) for place in range(points)]
        return [min(max(back(each), low), high) for each in at]  # exp(log(x)) may lie a little beyond x


def read_sweep(
    found: Mapping[str, Any], form: Format, *, points: int | None, names: Mapping[str, str], dropped: Sequence[str] = ()
) -> Imported:
    """Columns of ours from a sweep of others.

    Args:
        found: Their file's content.
        form: Whose it is.
        points: Values that an interval becomes, at least 2; None leaves it to the search where that can be.
        names: Columns of ours by names of theirs, before `NAMES`.
        dropped: Names of theirs that are to be left out.

    Raises:
        ValueError: It is no such file, or has a name or a distribution that is not known.
    """
    if points is not None and points < 2:
        raise ValueError(f"an interval must become at least 2 values, got --points {points}")
    parameters: dict[str, _Interval | tuple[Plain, ...]] = {}
    for name, what in _of_wandb(found) if form == "wandb" else _of_trlx(found):
        if name in parameters:  # once nested, once with a dot in its name
            raise ValueError(f"a parameter must be there once, got {name} twice; take one of them out of the file")
        parameters[name] = what
    columns: dict[str, tuple[Plain, ...]] = {}
    notes: list[str] = []
    for name, what in parameters.items():
        if name in dropped:
            notes.append(f"{name} is left out, as was asked")
            continue
        if name not in names and _weighs_cloning(name, form):
            if what not in ((0,), (0.0,)):
                raise ValueError(
                    f"{name} must be 0, since in trlX it is the exponent of a weight in the policy's loss and not the "
                    f"tilt, which is gen_kwargs.beta; --rename {name}=train.awr_beta for `awr`, or --drop {name}"
                )
            notes.append(f"{name} is 0, as it is here: a joint policy clones all tokens alike")
            continue
        column = names.get(name) or _column(name)
        if column in columns:
            raise ValueError(f"a column must have one name, got {name} for {column} as well; --rename or --drop one")
        if isinstance(what, _Interval) and points is None and (text := what.searched(column)) is not None:
            columns[column] = (text,)
            notes.append(f"{name}, from {what.low:g} to {what.high:g}, is searched: {column}={text}")
        elif isinstance(what, _Interval):
            columns[column] = what.values(points or POINTS)
            scale = "logarithmic" if what.log else "linear"
            notes.append(
                f"{name}, from {what.low:g} to {what.high:g}, has become {len(columns[column])} values, {scale}"
            )
        else:
            columns[column] = what
    if not columns:
        raise ValueError("a sweep must vary something, this one has no parameters")
    passed = [name for name in ("method", "metric", "early_terminate", "tune_config", "run_cap") if name in found]
    if passed:
        notes.append(f"{', '.join(passed)}: left out; every cell of a design is trained and played")
    if not any(is_interval(values) for values in columns.values()):
        return Imported(columns, tuple(notes))
    drawn = found.get("run_cap") if form == "wandb" else (found.get("tune_config") or {}).get("num_samples")
    trials = drawn if isinstance(drawn, int) and not isinstance(drawn, bool) and drawn > 0 else None
    how_many = "the preset's, or --trials" if trials is None else f"theirs, {trials}"
    notes.append(f"proposals for each method that searches: {how_many}")
    return Imported(columns, tuple(notes), trials)


def _weighs_cloning(name: str, form: Format) -> bool:
    """Whether a name is that of trlX's AWAC exponent, exp(beta (Q − V)); a bare `beta` is it in trlX's files alone."""
    *_, section, last = ("", *name.split("."))
    return last == "beta" and (section == "method" or (not section and form == "trlx"))


def _column(name: str) -> str:
    if name.startswith(("train.", "decode.", "world.", "behaviour.")):
        last = name.rpartition(".")[2]
        return NAMES.get(last, name) if name.startswith("train.") else name
    last = name.rpartition(".")[2]
    of_learning = name.startswith(("optimizer.", "scheduler."))
    if last not in NAMES or (of_learning and NAMES[last] not in OF_LEARNING):
        raise ValueError(
            f"{name!r} must be one of our columns; say --rename {name}=train.COLUMN or --drop {name} "
            f"(known: {', '.join(NAMES)})"
        )
    return NAMES[last]


def _of_wandb(found: Mapping[str, Any]) -> Iterator[tuple[str, _Interval | tuple[Plain, ...]]]:
    parameters = found.get("parameters")
    if not isinstance(parameters, Mapping):
        raise ValueError("a W&B sweep must have `parameters`, this file has none")
    yield from _nested(parameters, "")


def _nested(parameters: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, _Interval | tuple[Plain, ...]]]:
    for key, what in parameters.items():
        name = f"{prefix}{key}"
        if not isinstance(what, Mapping):
            raise ValueError(f"{name} must say its values, such as `values: [1, 2]`, got {reprlib.repr(what)}")
        if isinstance(what.get("parameters"), Mapping):
            yield from _nested(what["parameters"], f"{name}.")
        elif "values" in what:
            yield name, _plain(name, what["values"])
        elif "value" in what:
            yield name, _plain(name, [what["value"]])
        else:
            yield name, _wandb_interval(name, what)


def _wandb_interval(name: str, what: Mapping[str, Any]) -> _Interval:
    low, high = (_number(name, end, what.get(end)) for end in ("min", "max"))
    ints = isinstance(what["min"], int) and isinstance(what["max"], int)
    kind = what.get("distribution", "int_uniform" if ints else "uniform")
    step = _number(name, "q", what.get("q", 1)) if str(kind).startswith("q_") else 0.0
    if kind in ("log_uniform", "q_log_uniform"):  # theirs gives the exponents
        return _checked(name, _Interval(_power(low), _power(high), log=True, step=step))
    if kind in ("log_uniform_values", "q_log_uniform_values", "inv_log_uniform_values"):
        return _checked(name, _Interval(low, high, log=True, step=step))
    if kind in ("uniform", "q_uniform", "int_uniform"):
        return _checked(name, _Interval(low, high, step=1.0 if kind == "int_uniform" else step))
    raise ValueError(
        f"{name} must have values or lie between two ends, got the distribution {reprlib.repr(kind)}; --drop {name}"
    )


def _of_trlx(found: Mapping[str, Any]) -> Iterator[tuple[str, _Interval | tuple[Plain, ...]]]:
    if "tune_config" not in found:
        raise ValueError("a trlX sweep must have a `tune_config`, this file has none")
    if not isinstance(found["tune_config"], Mapping | None):
        raise ValueError(f"`tune_config` must hold names and values, got {reprlib.repr(found['tune_config'])}")
    for name, what in found.items():
        if name == "tune_config":
            continue
        if not isinstance(what, Mapping) or not isinstance(what.get("values"), list):
            raise ValueError(f"{name} must have a `strategy` and a list of `values`, got {reprlib.repr(what)}")
        strategy, values = what.get("strategy"), what["values"]
        if strategy in ("choice", "grid_search", "grid"):
            yield name, _plain(name, values)
            continue
        if strategy not in ("uniform", "quniform", "loguniform", "qloguniform", "randint", "qrandint", "lograndint"):
            raise ValueError(
                f"{name} must be drawn from values or between two ends, got {reprlib.repr(strategy)}; --drop {name}"
            )
        ends = 3 if strategy.startswith("q") else 2
        if len(values) != ends:
            raise ValueError(f"{name} must have {ends} values for its {strategy}, got {reprlib.repr(values)}")
        low, high, *step = (_number(name, "values", value) for value in values)
        whole = "randint" in strategy
        high -= whole and not strategy.startswith("q")  # the upper end of randint is not drawn
        steps = step[0] if step else float(whole)
        yield name, _checked(name, _Interval(low, high, log="log" in strategy, step=steps))


def _power(exponent: float) -> float:
    try:
        return math.exp(exponent)
    except OverflowError:  # beyond a float
        return math.inf


def _checked(name: str, interval: _Interval) -> _Interval:
    largest = max(abs(interval.low), abs(interval.high))
    if not all(map(math.isfinite, (interval.high - interval.low, interval.step, largest / (interval.step or 1.0)))):
        step = f" in steps of {interval.step:g}" if interval.step else ""
        raise ValueError(f"{name} must lie between two finite ends, got {interval.low:g}, {interval.high:g}{step}")
    if not interval.low < interval.high or (interval.log and interval.low <= 0) or interval.step < 0:
        ends = "to a higher end, above 0," if interval.log else "to a higher end,"
        raise ValueError(f"{name} must go from a lower {ends} got {interval.low:g}, {interval.high:g}")
    if interval.step and interval.multiples[0] > interval.multiples[1]:
        raise ValueError(
            f"{name} must have a multiple of its step, {interval.step:g}, between its ends, "
            f"got {interval.low:g}, {interval.high:g}"
        )
    return interval


def _plain(name: str, values: object) -> tuple[Plain, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(v, str | int | float | bool) for v in values):
        raise ValueError(f"{name} must have a list of plain values, got {reprlib.repr(values)}")
    return tuple(values)


def _number(name: str, what: str, value: object) -> float:
    try:
        return float(str(value))  # YAML 1.1 reads 1e-4 as text
    except ValueError:
        raise ValueError(f"{name} must have a number as {what}, got {reprlib.repr(value)}") from None
