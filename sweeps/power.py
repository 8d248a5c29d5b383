"""What the rows of a sweep say of its next ones: which difference they could find, and the cheapest way to find it."""

from __future__ import annotations

from analysis.cells import cells_of
from analysis.power import Cost, components_of, power_lines
from sweeps.run_tables import run_table
from sweeps.store import Store


def power_of(store: Store, sweep: str, *, seeds: int, episodes: int) -> list[str]:
    """Lines for a plan; none while the store has no two trainings of this sweep with two common seeds.

    Args:
        store: Where the rows are.
        sweep: The sweep's name.
        seeds: Planned training seeds of a cell.
        episodes: Planned episodes of an evaluation.
    """
    if not store.members(sweep):
        return []
    table = run_table(store, sweep)
    finished = table.finished().runs
    if table.estimated or finished.is_empty() or (parts := components_of(cells_of(table))) is None:
        return []
    done = table.finished()
    number = int(finished["episodes"].sum() or 0)
    trainings, evaluations = finished.n_unique("weights_id"), finished.n_unique("trial_id")
    training = done.train_seconds() / trainings + done.tune_seconds() / evaluations
    cost = None
    if number and training + done.evaluate_seconds() > 0:
        cost = Cost(training, done.evaluate_seconds() / number)
    return power_lines(parts, cost, seeds=seeds, episodes=episodes)
