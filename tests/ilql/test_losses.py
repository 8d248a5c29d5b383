"""The losses, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ilql.losses import (
    advantage_weights,
    conservative_loss,
    expectile_loss,
    margin_loss,
    masked_mean,
    monte_carlo_returns,
    probability_q_loss,
    psi_loss,
    td_loss,
    td_target,
    weighted_nll,
)

YES = torch.tensor([[True]])
INFINITE = float("inf")


def row(*values: float) -> Tensor:
    return torch.tensor([values])


# The worked check of the published implementation: two actions, the second one ends the episode.
VALUES, REWARDS, TERMINAL = row(0.5, -0.2), row(-1.0, 0.0), torch.tensor([[False, True]])
FIRST_HEAD, SECOND_HEAD, TARGET_Q = row(0.1, 0.3), row(0.0, 0.4), row(0.2, -0.5)
BOTH = torch.tensor([[True, True]])


def test_the_worked_check_gives_its_td_loss() -> None:
    target = td_target(REWARDS, row(-0.2, 99.0), TERMINAL, gamma=0.99)
    assert target.tolist() == [pytest.approx([-1 + 0.99 * -0.2, 0.0])]  # -1.198, 0
    # The first head misses by 1.298 and .3, the second by 1.198 and .4; a mean of squares each, and their sum.
    assert td_loss(target, [FIRST_HEAD, SECOND_HEAD], BOTH).item() == pytest.approx(1.685004, abs=1e-6)


def test_the_worked_check_gives_its_expectile_loss() -> None:
    # Both errors are negative, -0.3 each: .3 * .09 = .027.
    assert expectile_loss(TARGET_Q, VALUES, BOTH, tau=0.7).item() == pytest.approx(0.027, abs=1e-7)


def test_the_worked_check_gives_its_monte_carlo_returns() -> None:
    assert monte_carlo_returns(REWARDS, BOTH, gamma=0.99).tolist() == [[-1.0, 0.0]]


class TestMaskedMean:
    def test_a_boolean_mask_counts_and_a_float_mask_weighs(self) -> None:
        assert masked_mean(row(1.0, 5.0), torch.tensor([[True, False]])).item() == 1.0
        assert masked_mean(row(1.0, 5.0), row(0.25, 0.75)).item() == 0.25 * 1 + 0.75 * 5
        assert masked_mean(row(1.0, 5.0), row(1.0, 3.0)).item() == 4.0  # (1 + 15) / 4: it is normalised

    def test_nothing_that_counts_is_zero_and_has_a_gradient(self) -> None:
        values = row(1.0, 2.0).requires_grad_()
        mean = masked_mean(values, torch.zeros(1, 2))
        mean.backward()  # type: ignore[no-untyped-call]
        assert mean.item() == 0.0
        assert values.grad is not None
        assert values.grad.tolist() == [[0.0, 0.0]]

    @pytest.mark.parametrize("odd", [INFINITE, -INFINITE, float("nan")])
    def test_a_value_under_a_zero_does_not_count_whatever_it_is(self, odd: float) -> None:
        assert masked_mean(row(1.0, odd), row(2.0, 0.0)).item() == 1.0

    def test_another_shape_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"mask must have shape \(1, 2\), got \(1, 1\)"):
            masked_mean(row(1.0, 2.0), YES)


class TestExpectileLoss:
    def test_a_prediction_below_its_target_weighs_tau(self) -> None:
        assert expectile_loss(row(3.0), row(1.0), YES, tau=0.9).item() == pytest.approx(0.9 * 4)

    def test_a_prediction_above_its_target_weighs_the_rest(self) -> None:
        assert expectile_loss(row(1.0), row(3.0), YES, tau=0.9).item() == pytest.approx(0.1 * 4)

    def test_at_one_half_it_is_half_the_squared_error(self) -> None:
        assert expectile_loss(row(3.0, 0.0), row(1.0, 1.0), BOTH, tau=0.5).item() == pytest.approx(0.5 * (4 + 1) / 2)

    def test_its_minimum_is_the_expectile(self) -> None:
        # Of a fair coin's 0 and 1 that is tau: tau (1 - V) = (1 - tau) V.
        value = torch.tensor(0.8).requires_grad_()
        expectile_loss(row(0.0, 1.0), value.expand(1, 2), BOTH, tau=0.8).backward()  # type: ignore[no-untyped-call]
        assert value.grad is not None
        assert value.grad.item() == pytest.approx(0.0, abs=1e-7)

    @pytest.mark.parametrize("tau", [0.0, 1.0, -0.1, 1.5, float("nan")])
    def test_a_tau_outside_the_open_interval_is_refused(self, tau: float) -> None:
        with pytest.raises(ValueError, match=rf"tau must be in \(0, 1\), got {tau}"):
            expectile_loss(row(1.0), row(1.0), YES, tau=tau)


class TestTdTarget:
    def test_a_cut_off_episode_bootstraps_and_an_ended_one_does_not(self) -> None:
        target = td_target(row(1.0, 1.0), row(10.0, 10.0), torch.tensor([[False, True]]), gamma=0.5)
        assert target.tolist() == [[6.0, 1.0]]

    def test_a_terminal_of_zeros_and_ones_is_the_same(self) -> None:
        assert td_target(row(1.0, 1.0), row(10.0, 10.0), row(0.0, 1.0), gamma=0.5).tolist() == [[6.0, 1.0]]

    def test_the_value_after_the_end_does_not_count_whatever_it_is(self) -> None:
        assert td_target(row(1.0), row(INFINITE), YES, gamma=0.9).item() == 1.0

    @pytest.mark.parametrize("gamma", [-0.1, 1.1])
    def test_a_gamma_outside_the_interval_is_refused(self, gamma: float) -> None:
        with pytest.raises(ValueError, match=rf"gamma must be in \[0, 1\], got {gamma}"):
            td_target(row(1.0), row(1.0), YES, gamma=gamma)


class TestTdLoss:
    def test_heads_are_summed(self) -> None:
        one = td_loss(row(1.0), [row(0.0)], YES).item()
        assert one == 1.0  # and no factor of one half
        assert td_loss(row(1.0), [row(0.0), row(0.0)], YES).item() == 2 * one

    def test_no_head_is_refused(self) -> None:
        with pytest.raises(ValueError, match="td_loss needs at least one head, got none"):
            td_loss(row(1.0), [], YES)


class TestConservativeLoss:
    Q = torch.tensor([[[0.0, math.log(3.0)]]])  # softmax is 1/4, 3/4

    def test_it_is_the_cross_entropy_of_the_action_taken(self) -> None:
        assert conservative_loss([self.Q], torch.tensor([[1]]), YES).item() == pytest.approx(math.log(4 / 3))
        assert conservative_loss([self.Q], torch.tensor([[0]]), YES).item() == pytest.approx(math.log(4))

    def test_heads_are_summed(self) -> None:
        assert conservative_loss([self.Q] * 2, torch.tensor([[0]]), YES).item() == pytest.approx(2 * math.log(4))

    def test_the_temperature_divides_q(self) -> None:
        # exp(log 3 / .5) = 9: softmax is 1/10, 9/10.
        loss = conservative_loss([self.Q], torch.tensor([[0]]), YES, temperature=0.5)
        assert loss.item() == pytest.approx(math.log(10))

    def test_its_gradient_raises_the_action_taken_and_lowers_the_other(self) -> None:
        q = self.Q.clone().requires_grad_()
        conservative_loss([q], torch.tensor([[0]]), YES).backward()  # type: ignore[no-untyped-call]
        assert q.grad is not None
        assert q.grad.tolist() == [[pytest.approx([-0.75, 0.75])]]

    def test_bad_arguments_are_refused(self) -> None:
        with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
            conservative_loss([self.Q], torch.tensor([[0]]), YES, temperature=0)
        with pytest.raises(ValueError, match="conservative_loss needs at least one head, got none"):
            conservative_loss([], torch.tensor([[0]]), YES)


class TestAdvantageWeights:
    def test_it_is_the_exponential_of_the_scaled_advantage(self) -> None:
        weights = advantage_weights(row(1.0, 0.0), row(0.0, 1.0), awr_beta=2.0)
        assert weights.tolist() == [pytest.approx([math.exp(2), math.exp(-2)])]

    def test_the_clip_is_an_upper_bound(self) -> None:
        assert advantage_weights(row(9.0, 0.0), row(0.0, 0.0), awr_beta=9.0, clip=5.0).tolist() == [[5.0, 1.0]]

    def test_a_beta_of_zero_weighs_all_alike(self) -> None:
        assert advantage_weights(row(9.0, -9.0), row(0.0, 0.0), awr_beta=0.0).tolist() == [[1.0, 1.0]]

    def test_bad_arguments_are_refused(self) -> None:
        with pytest.raises(ValueError, match="awr_beta must be at least 0, got -1"):
            advantage_weights(row(1.0), row(1.0), awr_beta=-1)
        with pytest.raises(ValueError, match="clip must be above 0 or None, got 0"):
            advantage_weights(row(1.0), row(1.0), awr_beta=1, clip=0)


class TestWeightedNll:
    LOGITS = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])  # 1/4, 3/4 and 1/2, 1/2
    TOKENS = torch.tensor([[0, 1]])

    def test_logits_stand_at_the_token_they_predict(self) -> None:
        loss = weighted_nll(self.LOGITS, self.TOKENS, torch.ones(1, 2), BOTH)
        assert loss.item() == pytest.approx((math.log(4) + math.log(2)) / 2)

    def test_the_mean_is_over_the_mask_and_not_over_the_weights(self) -> None:
        loss = weighted_nll(self.LOGITS, self.TOKENS, row(3.0, 0.0), BOTH)
        assert loss.item() == pytest.approx(3 * math.log(4) / 2)


class TestMonteCarloReturns:
    def test_later_rewards_are_discounted(self) -> None:
        returns = monte_carlo_returns(row(1.0, 2.0, 4.0), torch.ones(1, 3), gamma=0.5)
        assert returns.tolist() == [[1 + 1 + 1, 2 + 2, 4]]

    def test_padding_pays_nothing_and_a_float_mask_only_says_what_is_real(self) -> None:
        rewards = torch.tensor([[1.0, INFINITE], [1.0, 1.0]])
        returns = monte_carlo_returns(rewards, torch.tensor([[1.0, 0.0], [0.5, 0.5]]), gamma=1.0)
        assert returns.tolist() == [[1.0, 0.0], [2.0, 1.0]]

    def test_no_action_at_all_has_no_return(self) -> None:
        assert monte_carlo_returns(torch.zeros(2, 0), torch.zeros(2, 0), gamma=0.9).shape == (2, 0)

    def test_a_gamma_outside_the_interval_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got 2"):
            monte_carlo_returns(row(1.0), YES, gamma=2)


def scalar_losses() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Give every loss that ends in a mean, as a function of what it trains, shape (2, 3, 4), and of a mask, (2, 3)."""
    actions = torch.tensor([[0, 1, 2], [3, 2, 1]])
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return {
        "expectile": lambda x, m: expectile_loss(target, x[..., 0], m, tau=0.8),
        "td": lambda x, m: td_loss(target, [x[..., 0], x[..., 1]], m),
        "conservative": lambda x, m: conservative_loss([x, 2 * x], actions, m, temperature=0.7),
        "nll": lambda x, m: weighted_nll(x, actions, target.exp(), m),
        "psi": lambda x, m: psi_loss(target, [x[..., 0], 3 * x[..., 1]], m),
        "margin": lambda x, m: margin_loss([x, 2 * x], actions, m, margin=0.3),
        "probability_q": lambda x, m: probability_q_loss(x, actions, target.sigmoid(), m),
    }


def trained() -> Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("name", scalar_losses())
class TestEveryMean:
    def test_the_gradient_is_that_of_the_formula(self, name: str) -> None:
        loss, mask = scalar_losses()[name], torch.tensor([[1.0, 0.5, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: loss(x, mask), (trained(),))

    def test_a_float_mask_of_zeros_and_ones_is_the_boolean_one(self, name: str) -> None:
        loss, mask = scalar_losses()[name], torch.tensor([[True, True, False], [True, False, False]])
        assert loss(trained(), mask).item() == loss(trained(), mask.double()).item()

    def test_masked_positions_move_neither_loss_nor_gradient(self, name: str) -> None:
        loss, mask = scalar_losses()[name], torch.tensor([[True, True, False], [True, False, False]])
        x, y = trained(), trained()
        with torch.no_grad():
            y[~mask] = torch.tensor([INFINITE, -INFINITE, float("nan"), 7.0], dtype=torch.float64)
        for values in (x, y):
            loss(values, mask).backward()  # type: ignore[no-untyped-call]
        assert loss(x, mask).item() == loss(y, mask).item()
        assert x.grad is not None
        assert y.grad is not None
        assert torch.equal(x.grad, y.grad)
        assert not y.grad[~mask].any()

    def test_nothing_that_counts_is_zero_without_a_gradient(self, name: str) -> None:
        x = trained()
        value = scalar_losses()[name](x, torch.zeros(2, 3))
        value.backward()  # type: ignore[no-untyped-call]
        assert value.item() == 0.0
        assert x.grad is not None
        assert not x.grad.any()

    def test_a_mask_that_would_broadcast_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"mask must have shape \(2, 3\), got \(2, 1\)"):
            scalar_losses()[name](trained(), torch.ones(2, 1))


@pytest.mark.parametrize("shape", [(2, 0), (0, 0)])
def test_a_batch_without_actions_costs_nothing(shape: tuple[int, int]) -> None:
    nothing, none = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    q = torch.zeros(*shape, 5)
    assert expectile_loss(nothing, nothing, none, tau=0.7).item() == 0.0
    assert td_loss(nothing, [nothing], none).item() == 0.0
    assert conservative_loss([q], nothing.long(), none).item() == 0.0
    assert weighted_nll(q, nothing.long(), nothing, none).item() == 0.0


def test_targets_and_weights_are_constants() -> None:
    constant, prediction = row(1.0, 2.0).requires_grad_(), row(0.0, 0.0).requires_grad_()
    target = td_target(row(0.0, 0.0), constant, torch.tensor([[False, False]]), gamma=0.9)
    weights = advantage_weights(constant, prediction, awr_beta=1.0)
    assert not target.requires_grad
    assert not weights.requires_grad
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    total = (
        expectile_loss(constant, prediction, BOTH, tau=0.7)
        + td_loss(constant, [prediction], BOTH)
        + weighted_nll(logits, torch.tensor([[0, 1]]), constant, BOTH)
    )
    total.backward()  # type: ignore[no-untyped-call]
    assert constant.grad is None
    assert prediction.grad is not None
    assert logits.grad is not None


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: expectile_loss(row(1, 2), row(1), YES, tau=0.5), r"prediction must have shape \(1, 2\), got \(1, 1\)"),
        (lambda: td_target(row(1, 2), row(1), BOTH, gamma=1), r"next_values must have shape \(1, 2\), got \(1, 1\)"),
        (lambda: td_target(row(1, 2), row(1, 2), YES, gamma=1), r"terminal must have shape \(1, 2\), got \(1, 1\)"),
        (lambda: td_loss(row(1, 2), [row(1)], BOTH), r"a prediction must have shape \(1, 2\), got \(1, 1\)"),
        (
            lambda: conservative_loss([torch.zeros(1, 3)], torch.zeros(1, 2).long(), BOTH),
            r"a head of q_values must have shape \(1, 2, 3\), got \(1, 3\)",
        ),
        (lambda: advantage_weights(row(1, 2), row(1), awr_beta=1), r"values must have shape \(1, 2\), got \(1, 1\)"),
        (
            lambda: weighted_nll(torch.zeros(1, 3, 4), torch.zeros(1, 2).long(), row(1, 1), BOTH),
            r"logits must have shape \(1, 2, 4\), got \(1, 3, 4\)",
        ),
        (
            lambda: weighted_nll(torch.zeros(1, 2, 4), torch.zeros(1, 2).long(), row(1), BOTH),
            r"weights must have shape \(1, 2\), got \(1, 1\)",
        ),
        (lambda: monte_carlo_returns(row(1, 2), YES, gamma=1), r"mask must have shape \(1, 2\), got \(1, 1\)"),
    ],
)
def test_a_shape_that_would_broadcast_is_refused(call: Callable[[], Tensor], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        call()
