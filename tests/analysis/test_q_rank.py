"""How often a critic ranks two actions rightly: counted by hand on a few pairs."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.q_rank import Ranked, independent_pairs, rank_curves, rank_section, wilson
from analysis.section import section_markdown


def ranked(won: list[list[int]], tied: list[list[int]], *, method: str = "ilql", tau: float | None = 0.8,
           seed: int = 0, place: str = "start", better: list[int] | None = None) -> Ranked:  # fmt: skip
    each = list(range(len(won)))
    return Ranked(
        method, tau, seed, place, np.array(won, dtype=np.float64), np.array(tied, dtype=np.bool_),
        np.array(each if better is None else better), np.array(each),
    )  # fmt: skip


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
    assert (curve.low[0], curve.high[0]) == wilson(
        0.75, independent_pairs(np.array([1.0, 0.5]), np.arange(2), np.arange(2))
    )


class TestIndependentPairs:
    def test_pairs_that_share_nothing_are_as_many_as_they_are_less_one(self) -> None:
        # V = Σ e² / P² · P / (P − 1) = (4 · ¼) / 16 · 4/3 = 1/12 on all three counts, so ¼ / V = 3.
        won = np.array([1.0, 0.0, 1.0, 0.0])
        assert independent_pairs(won, np.arange(4), np.arange(4)) == pytest.approx(3.0)

    def test_pairs_of_one_action_that_decides_are_as_many_as_there_are_actions(self) -> None:
        # Two better actions in four pairs each, one always above and one never; eight others. By better actions
        # V = (2² + 2²) / 8² · 2/1 = 1/4; by the others and by pairs both (8 · ¼) / 8² · 8/7, which cancel: ¼ / ¼ = 1.
        won, better = np.array([1.0] * 4 + [0.0] * 4), np.array([0] * 4 + [1] * 4)
        assert independent_pairs(won, better, np.arange(8)) == pytest.approx(1.0)
        assert independent_pairs(won, np.arange(8), better) == pytest.approx(1.0)

    def test_where_all_are_won_they_are_as_many_as_the_side_with_fewer_actions_has(self) -> None:
        assert independent_pairs(np.ones(8), np.array([0, 1] * 4), np.arange(8)) == 2.0

    def test_the_interval_covers_the_share_of_critics_whose_values_hang_on_the_word(self) -> None:
        # 12 experts' words and 150 others, a value drawn for each word: half of the pairs are won in the long run.
        # Pairs taken as independent cover it in about two of five such critics.
        rng = np.random.default_rng(0)
        better, worse = rng.integers(0, 12, 400), rng.integers(0, 150, 400)
        covered = {"words": 0, "pairs": 0}
        for _ in range(300):
            won = (rng.normal(size=12)[better] > rng.normal(size=150)[worse]).astype(np.float64)
            for name, of in (("words", independent_pairs(won, better, worse)), ("pairs", 400.0)):
                low, high = wilson(float(won.mean()), of)
                covered[name] += low <= 0.5 <= high
        assert 0.88 <= covered["words"] / 300 <= 0.98
        assert covered["pairs"] / 300 < 0.6


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
    assert "1 pair of 1 better and 1 worse action." in caption
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [(trace.name, list(trace.y)) for trace in lines] == [("ILQL, τ 0.8", [1.0, 1.0]), ("SARSA", [0.0, 1.0])]
    assert "| SARSA       | 0.00 [0.00, 0.79] | 1.00 [0.21, 1.00] |" in section_markdown(section)


def test_nothing_compared_is_no_section() -> None:
    assert rank_section([], positions=("1st",), places={"start": "At the start."}) is None


def test_won_and_tied_belong_together() -> None:
    with pytest.raises(ValueError, match=r"won and tied must have one shape, got \(1, 2\) and \(1, 1\)"):
        ranked([[1, 1]], [[0]])
    with pytest.raises(ValueError, match=r"each pair must have a better and a worse action, got 2 and 1 for 1"):
        ranked([[1]], [[0]], better=[0, 1])
