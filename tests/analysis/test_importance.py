from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.bounded import Bounded
from analysis.cells import cells_of
from analysis.importance import anova, complete_grid, grid_importance
from analysis.landscape import Landscape, landscape
from analysis.runs import RunTable
from analysis.sensitivity_section import sensitivity_section

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def without_noise(means: list[float], trainings: list[int] | None = None) -> Landscape:
    c = len(means)
    return Landscape(
        tuple({} for _ in means),
        np.array(means),
        np.zeros((c, c)),
        np.arange(c) if trainings is None else np.array(trainings),
        freedom=8,
        seeds=3,
    )


def test_shares_of_a_two_by_two_grid_are_those_worked_by_hand() -> None:
    # Means 0, 2 / 4, 10: overall 4. Rows 1 and 7: effects ∓3, V = 9. Columns 2 and 6: effects ∓2, V = 4.
    # Left: 0 − 4 + 3 + 2 = 1 in the corner, ±1 elsewhere, V = 1. Of 14 that is 9/14, 4/14, 1/14; and √14 is σ.
    found = anova(
        without_noise([0.0, 2.0, 4.0, 10.0]), {"train.tau": (0.5, 0.9), "decode.beta": (1.0, 2.0)}, "ilql", rng()
    )
    assert {term.columns: term.share.value for term in found.terms} == pytest.approx(
        {("train.tau",): 9 / 14, ("decode.beta",): 4 / 14, ("train.tau", "decode.beta"): 1 / 14}
    )
    assert found.sigma.value == pytest.approx(math.sqrt(14)) == pytest.approx(np.std([0, 2, 4, 10]))
    # Without noise every draw is the estimate: √9, √4 and √1, and the ends are on them.
    assert [(term.sd.low, term.sd.value, term.sd.high) for term in found.terms] == [
        pytest.approx((root, root, root)) for root in (3.0, 2.0, 1.0)
    ]
    assert [term.label for term in found.terms] == ["τ", "β", "τ × β"]


def test_interactions_of_three_stand_together() -> None:
    # ±1 by the parity of three factors: nothing but the interaction of all three.
    parity = [float((-1) ** (a + b + c)) for a, b, c in itertools.product((0, 1), repeat=3)]
    found = anova(without_noise(parity), {"train.a": (0, 1), "train.b": (0, 1), "decode.c": (0, 1)}, "ilql", rng())
    assert len(found.terms) == 3 + 3 + 1
    assert found.terms[-1].columns == ()
    assert found.terms[-1].share.value == pytest.approx(1.0)


def test_noise_is_taken_off_each_term_by_what_it_has_of_it() -> None:
    # Two trainings, two decodings, and seeds that move both decodings of a training alike, by 1 on the mean: the
    # covariance is 1 within a training. Rows get noise of variance 1/2 in V (half of it is common to all), columns
    # and the interaction none. Means −2, −2 / 2, 2: raw V of rows is 4, so 3.5 is left.
    block = np.kron(np.eye(2), np.ones((2, 2)))
    scape = Landscape(({},) * 4, np.array([-2.0, -2.0, 2.0, 2.0]), block, np.array([0, 0, 1, 1]), freedom=8, seeds=3)
    found = anova(scape, {"train.tau": (0.5, 0.9), "decode.beta": (1.0, 2.0)}, "ilql", rng())
    assert found.sigma.value**2 == pytest.approx(3.5)
    assert found.sigma.low is not None
    assert found.sigma.high is not None
    assert found.sigma.low < math.sqrt(3.5) < found.sigma.high
    assert found.noise_share == pytest.approx(0.5 / 4)


def test_the_noise_of_decodings_that_share_weights_moves_together() -> None:
    # Seeds at 0 and 2 for both decodings of training 0, at 0 and 4 and at 4 and 0 for one of each other training.
    returns = [np.array([[s, s], [s + 2, s + 2]]) for s in (0.0, 5.0)]
    returns += [np.array([[0.0, 0.0], [4.0, 4.0]]), np.array([[4.0, 4.0], [0.0, 0.0]])]
    found = landscape(returns, [(0, 1)] * 4, [0, 0, 1, 2], np.array([0, 1]))
    # Variance of a mean of two seeds: 2/2 = 1 and 8/2 = 4; the last two are of different trainings.
    np.testing.assert_allclose(found.noise, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 4, 0], [0, 0, 0, 4]], atol=1e-12)
    assert (found.freedom, found.seeds) == (3, 2)


def test_noise_of_seeds_and_scenes_is_counted_once() -> None:
    # Only independent noise of sd 2: the variance of a mean over 4 seeds and 50 scenes is 4 / 200, not twice that.
    generator = rng()
    found = [landscape([2 * generator.standard_normal((4, 50))], [range(4)], [0], np.arange(50)) for _ in range(2000)]
    assert np.mean([each.noise[0, 0] for each in found]) == pytest.approx(4 / 200, rel=0.1)


def test_a_grid_with_a_hole_is_refused_with_the_hole(run: Make, make_table: MakeTable) -> None:
    settings = [(0.7, 1.0), (0.7, 2.0), (0.9, 1.0)]
    cells = cells_of(make_table(*(run("ilql", [1.0, 2.0], {"train.tau": t, "decode.beta": b}) for t, b in settings)))
    with pytest.raises(ValueError, match=r"the grid is not complete: no cell at τ 0.9, β 2"):
        grid_importance(cells, rng())


def test_a_grid_with_a_failed_cell_is_refused(run: Make, make_table: MakeTable) -> None:
    failed = run("ilql", setting={"train.tau": 0.9}, status="failed")
    with pytest.raises(ValueError, match=r"no run has finished at τ 0\.9"):
        complete_grid(cells_of(make_table(run("ilql", [1.0], {"train.tau": 0.7}), failed)))


def test_proposals_of_a_search_are_refused(run: Make, make_table: MakeTable) -> None:
    cells = cells_of(make_table(*(run("ilql", [1.0], {"train.tau": t}, origin="refinement") for t in (0.7, 0.9))))
    with pytest.raises(ValueError, match="a search proposed all cells"):
        grid_importance(cells, rng())


def test_one_seed_has_shares_and_no_interval(run: Make, make_table: MakeTable) -> None:
    cells = cells_of(make_table(*(run("ilql", [t, t + 1], {"train.tau": t}) for t in (0.5, 0.7, 0.9))))
    (term,) = grid_importance(cells, rng()).terms
    assert term.share == Bounded(1.0, why="too few seeds")
    assert term.share.text() == "1.00 (too few seeds for an interval)"
    assert term.sd.why == grid_importance(cells, rng()).sigma.why == "too few seeds"


def test_one_seed_does_not_claim_that_the_noise_of_seeds_is_gone(run: Make, make_table: MakeTable) -> None:
    def caption(seeds: int) -> str:
        settings = itertools.product((0.5, 0.7, 0.9), (1.0, 2.0), range(seeds))
        runs = [run("ilql", [t + b, t - b], {"train.tau": t, "decode.beta": b}, seed=s) for t, b, s in settings]
        section = sensitivity_section(cells_of(make_table(*runs)), (), rng(), y_title="y")
        assert section is not None
        return section.figures["importance"][1]

    assert "noise of training seeds and scenes is taken off." in caption(2)
    assert "noise of scenes is taken off; that of training seeds is not, where there is one (ILQL)." in caption(1)


def test_equal_generators_give_equal_intervals(sweep: RunTable) -> None:
    cells = [cell for cell in cells_of(sweep) if cell.method == "sarsa"]
    assert grid_importance(cells, rng()).terms == grid_importance(cells, rng()).terms
