"""How often a critic ranks two actions rightly: counted by hand on a few pairs."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.q_rank import Ranked, rank_curves, rank_section, wilson
from analysis.section import section_markdown


def ranked(won: list[list[int]], tied: list[list[int]], *, method: str = "ilql", tau: float | None = 0.8,
           seed: int = 0, place: str = "start") -> Ranked:  # fmt: skip
    return Ranked(method, tau, seed, place, np.array(won, dtype=np.float64), np.array(tied, dtype=np.bool_))


def test_a_share_counts_the_pairs_that_differ_by_the_token() -> None:
    # token 0: the second pair is tied, so 1 of 2 differ: won by the first, lost by the third
    (curve,) = rank_curves([ranked([[1, 0], [0, 1], [0, 1]], [[0, 0], [1, 0], [0, 0]])])
    assert curve.pairs == (2, 3)
    assert curve.shares == (0.5, pytest.approx(2 / 3))
    assert curve.label == "ILQL, τ 0.8"


def test_seeds_are_averaged_and_do_not_narrow_the_interval() -> None:
    one, two = ranked([[1], [0]], [[0], [0]]), ranked([[1], [1]], [[0], [0]], seed=1)
    (curve,) = rank_curves([one, two])
    assert (curve.shares, curve.seeds, curve.pairs) == ((0.75,), 2, (2,))
    assert (curve.low[0], curve.high[0]) == wilson(0.75, 2)


def test_expectiles_places_and_methods_are_apart() -> None:
    all_ = [ranked([[1]], [[0]], tau=tau, place=place) for tau in (0.9, 0.7) for place in ("start", "branch")]
    curves = rank_curves([*all_, ranked([[0]], [[0]], method="sarsa", tau=None)])
    assert [(c.place, c.label) for c in curves] == [
        ("start", "ILQL, τ 0.7"), ("start", "ILQL, τ 0.9"), ("start", "SARSA"),
        ("branch", "ILQL, τ 0.7"), ("branch", "ILQL, τ 0.9"),
    ]  # fmt: skip


def test_where_all_pairs_are_tied_there_is_no_share() -> None:
    (curve,) = rank_curves([ranked([[0]], [[1]])])
    assert (curve.shares, curve.low, curve.pairs) == ((None,), (None,), (0,))


def test_wilsons_interval_by_hand() -> None:
    # 10 of 10, z = 2: middle (1 + 4/20)/(1 + 4/10) = 1.2/1.4, half 2/1.4 · √(4/400) = .2/1.4
    assert wilson(1.0, 10, z=2.0) == (pytest.approx(1.0 / 1.4), 1.0)
    low, high = wilson(0.5, 100, z=2.0)  # middle .5, half 2/1.04 · √(.0025 + .0001)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert (high - low) / 2 == pytest.approx(2 / 1.04 * 0.0026**0.5)
    with pytest.raises(ValueError, match="a share must be of at least one, got 0"):
        wilson(0.5, 0)


def test_a_section_has_a_table_and_a_figure_per_place() -> None:
    both = [ranked([[1, 1]], [[0, 0]]), ranked([[0, 1]], [[0, 0]], method="sarsa", tau=None)]
    section = rank_section(both, positions=("1st", "2nd"), places={"start": "At the start.", "branch": "At it."})
    assert section is not None
    assert list(section.figures) == ["q_rank_start"]
    figure, caption = section.figures["q_rank_start"]
    assert "1 pair." in caption
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [(trace.name, list(trace.y)) for trace in lines] == [("ILQL, τ 0.8", [1.0, 1.0]), ("SARSA", [0.0, 1.0])]
    assert "| SARSA       | 0.00 [0.00, 0.79] | 1.00 [0.21, 1.00] |" in section_markdown(section)


def test_nothing_compared_is_no_section() -> None:
    assert rank_section([], positions=("1st",), places={"start": "At the start."}) is None


def test_won_and_tied_belong_together() -> None:
    with pytest.raises(ValueError, match=r"won and tied must have one shape, got \(1, 2\) and \(1, 1\)"):
        ranked([[1, 1]], [[0]])
