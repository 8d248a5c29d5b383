"""What answering a question would take: its sweeps made ready, and their work as values, in words or for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.shapes import Machine, places, workers_that_fit
from sweeps.command_line import Plain
from sweeps.definite import asked_sweeps
from sweeps.driving import check_room
from sweeps.forecast import Forecast, forecast
from sweeps.intervals import searched_notes
from sweeps.journal import StoreError
from sweeps.options import Options
from sweeps.plan import Plan, make_plan, remaining
from sweeps.power import power_of
from sweeps.presets import Preset
from sweeps.question import Question, Sweep
from sweeps.replica import read_link
from sweeps.schedule import no_room
from sweeps.sizing import chosen_preset, proposed_too, side_effects, unreached
from sweeps.store import Store, joined


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A question that can be planned or answered.

    Attributes:
        preset: How big.
        store: Where.
        notes: What was asked that not all take, and what it brings with it, a line each.
        machines: What it would run on.
        sweeps: By training reward, or by the value of the column that `--vary` varies.
    """

    preset: Preset
    store: Store
    notes: tuple[str, ...]
    machines: Sequence[Machine]
    sweeps: Mapping[Plain, Sweep]


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What one of a question's sweeps would take.

    Attributes:
        sweep: Its name.
        asked: The reward, or the value, that it is for.
        seeds: Training seeds of every cell.
        concurrent: Jobs at a time.
        work: What is wanted and what is there.
        forecast: What its design would take of the cluster that was described, or None without one.
        power: Which difference it could find, in lines.
    """

    sweep: str
    asked: Plain
    seeds: int
    concurrent: int
    work: Plan
    forecast: Forecast | None
    power: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The sweep's part of `QuestionPlan.document`."""
        asked = {"sweep": self.sweep, "for": self.asked, "seeds": self.seeds, "concurrent": self.concurrent}
        found = asked | dataclasses.asdict(self.work) | {"other_text": list(self.work.other_text)}
        if self.forecast is not None:
            found["forecast"] = dataclasses.asdict(self.forecast)
        return {**found, "power": list(self.power)}


@dataclass(frozen=True, kw_only=True)
class QuestionPlan:
    """What answering a question would take.

    Attributes:
        store: The store's folder.
        preset: The preset's name.
        notes: As `Ready` has them.
        cluster: The description of a cluster that it is for, or None.
        sweeps: What each sweep would take.
    """

    store: str
    preset: str
    notes: tuple[str, ...]
    cluster: str | None
    sweeps: tuple[SweepPlan, ...]

    def lines(self) -> list[str]:
        """The sweeps' work in words; store, preset and notes were said while they were made ready."""
        text = []
        for each in self.sweeps:
            text += [f"sweep {each.sweep}", *each.work.lines(concurrent=each.concurrent)]
            if each.forecast is not None:
                text.append(f"on a cluster {self.cluster}, of its design:")
                text += [f"  {line}" for line in each.forecast.lines()]
            text += each.power
        return text

    def document(self) -> dict[str, Any]:
        """The same as JSON values.

        Of a sweep: `for`, the reward or value that it is for; `concurrent`, how many jobs run at a time; the counts of
        `plan.Plan`, with `seconds` of one job at a time; where a cluster was described the `forecast` of
        `forecast.Forecast`; the lines on power.
        """
        sweeps = [each.document() for each in self.sweeps]
        return {"store": self.store, "preset": self.preset, "notes": list(self.notes), "sweeps": sweeps}


def made_ready(question: Question, options: Options, say: Callable[[str], None]) -> Ready:
    """A question's sweeps, in a store that is open and has room.

    Args:
        question: What is asked.
        options: How.
        say: Told where it is, how the preset differs from the paper's, the notes, and what building the world had to
            say.

    Raises:
        ValueError: A setting, the data or the model cannot be used, or a job does not fit.
        KeyError: A name does not exist.
        StoreError: The disk is full.
    """
    preset = chosen_preset(question, options)
    machines = check_room(preset.resources, options.cluster)
    apart = options.remote is not None or read_link(options.store) is not None
    if apart and (workers := preset.resources.workers) > 1:
        raise ValueError(
            f"--workers must be 1 where machines share no folder, got {workers}: they write one checkpoint together; "
            "--recompute, --micro-batch and --adapter-rank save memory, too"
        )
    store = Store(options.store) if options.remote is None else joined(options.store, options.remote, first=True)
    say(f"store {store.folder}" + ("" if store.replica is None else f", and its copy at {store.replica.url}"))
    store.sync()
    if (full := no_room(store.folder)) is not None:
        raise StoreError(full)
    if preset.paper:
        say(f"preset {preset.name}; against the paper it changes")
        for line in preset.differences():
            say(f"  {line}")
    notes = (
        *unreached(question, preset, options),
        *proposed_too(question, preset, options),
        *side_effects(question, options),
        *searched_notes(question.refined(options), options.searched, preset.proposals),
    )
    for line in notes:
        say(line)
    return Ready(
        preset=preset,
        store=store,
        notes=notes,
        machines=machines,
        sweeps=asked_sweeps(question, preset, options, store, say),
    )


def plan_question(question: Question, options: Options, say: Callable[[str], None]) -> QuestionPlan:
    """What answering a question would take, with `options.cluster` also of that cluster; arguments and errors as above.

    Nothing is trained or played, but the world is built.
    """
    ready = made_ready(question, options, say)
    return QuestionPlan(
        store=str(ready.store.folder),
        preset=ready.preset.name,
        notes=ready.notes,
        cluster=options.cluster,
        sweeps=tuple(_planned(ready, asked, sweep, options) for asked, sweep in ready.sweeps.items()),
    )


def plan_of(store: Store, sweep: Sweep, machines: Sequence[Machine]) -> Plan:
    """What a sweep wants, and what of it is there; on some machines, which decide how many workers a job can have."""
    need = sweep.resources.with_workers(workers_that_fit(machines, sweep.resources.need)).need
    return make_plan(store, sweep.shared, sweep.design, seeds=sweep.seeds, refinement=sweep.refinement, need=need)


def _planned(ready: Ready, asked: Plain, sweep: Sweep, options: Options) -> SweepPlan:
    store, on_cluster = ready.store, None
    if options.cluster is not None:
        left = remaining(store, sweep.shared, sweep.design, seeds=sweep.seeds)
        on_cluster = forecast(store, left, sweep.resources, ready.machines)
    fit = max(1, places(ready.machines, sweep.resources.need))
    episodes = sweep.shared.report.episodes
    return SweepPlan(
        sweep=sweep.name,
        asked=asked,
        seeds=sweep.seeds,
        concurrent=min(fit, options.concurrent or fit),
        work=plan_of(store, sweep, ready.machines),
        forecast=on_cluster,
        power=tuple(power_of(store, sweep.name, seeds=sweep.seeds, episodes=episodes)),
    )
