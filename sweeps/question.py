"""What one wants to know, as a value, and the sweep that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ilql.hyperparameters import unknown
from sweeps.cells import Shared
from sweeps.intervals import searching
from sweeps.job import Resources
from sweeps.names import one_component
from sweeps.options import Options
from sweeps.overrides import varied
from sweeps.presets import Preset
from sweeps.refinement import Refinement
from sweeps.reporting import Against, MakeSection
from sweeps.space import Between, Grid, PlannedTraining, known_columns, settings

Remarks: TypeAlias = Callable[[Sequence[PlannedTraining], Sequence[float]], Sequence[str]]
"""Says what of a design may not suit the data, a line each. Takes the design and the train dialogues' returns."""


def nothing_to_remark(design: Sequence[PlannedTraining], returns: Sequence[float]) -> Sequence[str]:
    """The design was made for the data."""
    return ()


ALL = "all"
"""Names every arm of a question."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What one wants to know, as a value.

    Attributes:
        name: Begins the names of its sweeps.
        task: The task's name.
        presets: Its sizes, by name.
        reward: The reward that is asked about unless another is named.
        grids: The design: every arm's cells.
        main: The arms that are run unless others are named; all of them if empty.
        refine: The arms whose trainings proposals vary unless others are named.
        held: Columns that proposals leave as the preset has them.
        against: Comparisons to be stated under the table.
        sections: What else its report has.
        remarks: What is said of a design that may not suit the data.
        world: The task's settings. Takes the world's name or None, whether there is data, and the preset.
        inputs: Its sources besides `--data`, by name, each with a line that says what it is.
        rewards_of_inputs: The reward that is asked about instead where a source is given and no reward is named.
    """

    name: str
    task: str
    presets: Mapping[str, Preset]
    reward: str
    grids: tuple[Grid, ...]
    main: tuple[str, ...] = ()
    refine: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    against: tuple[Against, ...]
    world: Callable[[str | None, bool, Preset], Any]
    sections: tuple[MakeSection, ...] = ()
    remarks: Remarks = nothing_to_remark
    inputs: Mapping[str, str] = field(default_factory=dict)
    rewards_of_inputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for arm in self.refine:
            grid = self.grid(arm)
            for dimension in grid.space(self.held):
                for end in (dimension.low, dimension.high):
                    settings(grid.method, "train", {dimension.column: end})  # a wrong range dies here
        for name in self.main:
            self.grid(name)
        for asked in self.against:
            for arm, fixed in ((asked.arm, asked.fixed), (asked.baseline, asked.baseline_fixed or {})):
                known = known_columns([self.grid(arm).method])
                for column in fixed:
                    if column not in known:
                        raise KeyError(unknown(column, f"column of an {arm!r} trial", known))

    @property
    def arms(self) -> list[str]:
        """The arms of its design, in order."""
        return [grid.arm for grid in self.grids]

    def grid(self, arm: str) -> Grid:
        """An arm's cells.

        Raises:
            KeyError: There is no such arm.
        """
        for grid in self.grids:
            if grid.arm == arm:
                return grid
        raise KeyError(unknown(arm, f"method of a {self.name} sweep", [*self.arms, ALL]))

    def rewards(self, options: Options) -> tuple[str, ...]:
        """The training rewards that the options ask about, each once."""
        own = next((reward for name, reward in self.rewards_of_inputs.items() if name in options.inputs), self.reward)
        return tuple(dict.fromkeys(options.rewards or (own,)))

    def chosen(self, options: Options) -> list[Grid]:
        """The arms that the options name, in the design's order, with the values and the intervals that they ask for.

        Raises:
            KeyError: An arm or a column does not exist.
            ValueError: A column is one that an arm decides, or that no interval can be of.
        """
        named = options.methods or self.main or (ALL,)
        for arm in named:
            if arm != ALL:
                self.grid(arm)
        run = [grid for grid in self.grids if grid.arm in named or ALL in named]
        return searching(varied(run, options.overrides), options.searched)

    def refined(self, options: Options) -> list[Grid]:
        """The chosen arms whose trainings proposals vary.

        Raises:
            KeyError: An arm that is named does not exist.
            ValueError: An arm that is named is not run, or has nothing to vary.
        """
        chosen = self.chosen(options)
        if options.refine is None:
            return [grid for grid in chosen if grid.arm in self.refine or grid.search]
        named = {self.grid(arm).arm for arm in options.refine if arm != ALL}
        if ALL in options.refine:
            named |= {grid.arm for grid in chosen if grid.dimensions(self.held)}
        if missing := named - {grid.arm for grid in chosen}:
            raise ValueError(f"--refine must name arms that are run, got {sorted(missing)[0]!r}; --methods names them")
        refined = [grid for grid in chosen if grid.arm in named]
        for grid in refined:
            grid.space(self.held)
        return refined


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A question made definite: everything that decides its rows, and how they are to be made.

    Attributes:
        name: Its name in the store.
        shared: What all its trials share.
        design: The trainings that are planned.
        refinement: What is proposed after them, or None.
        space: What proposals vary, or would, by arm that is refined.
        seeds: Training seeds of every cell.
        resources: What a job uses.
    """

    name: str
    shared: Shared
    design: tuple[PlannedTraining, ...]
    refinement: Refinement | None
    space: Mapping[str, tuple[Between, ...]]
    seeds: int
    resources: Resources

    def __post_init__(self) -> None:
        one_component("a sweep's name", self.name)
