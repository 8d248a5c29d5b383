"""The losses of the baselines, by hand: backups over all tokens, ψ, the margin, probabilities as values, candidates."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ilql import losses
from ilql.losses import (
    VERSIONS,
    bounded_backup,
    candidate_loss,
    margin_loss,
    max_backup,
    probability_q_loss,
    psi_loss,
    soft_backup,
)

YES = torch.tensor([[True]])
FIRST = torch.tensor([[0]])
INFINITE = float("inf")


def row(*values: float) -> Tensor:
    return torch.tensor([values])


class TestBackups:
    Q = torch.tensor([[[0.0, math.log(3.0), 0.0], [-2.0, -1.0, -3.0]]])  # exp: 1, 3, 1 and 1/e², 1/e, 1/e³

    def test_the_max_backup_is_the_best_tokens_value(self) -> None:
        assert max_backup(self.Q).tolist() == [pytest.approx([math.log(3), -1.0])]

    def test_the_soft_backup_is_the_logarithm_of_the_sum_of_exponentials(self) -> None:
        expected = [math.log(5), math.log(math.exp(-2) + math.exp(-1) + math.exp(-3))]
        assert soft_backup(self.Q).tolist() == [pytest.approx(expected)]

    def test_the_soft_backup_of_n_equal_values_is_log_n_above_them(self) -> None:
        assert soft_backup(torch.full((1, 1, 8), 2.5)).item() == pytest.approx(2.5 + math.log(8))

    def test_the_bounded_backup_is_the_best_ratio_and_at_most_one(self) -> None:
        ratio = torch.tensor([[[0.2, 0.7, 0.1], [0.4, 1.6, 0.0]]])
        assert bounded_backup(ratio).tolist() == [pytest.approx([0.7, 1.0])]

    @pytest.mark.parametrize("backup", [max_backup, soft_backup, bounded_backup])
    def test_they_are_constants_and_take_no_actions_for_none(self, backup: Callable[[Tensor], Tensor]) -> None:
        assert not backup(self.Q.clone().requires_grad_()).requires_grad
        assert backup(torch.zeros(2, 0, 3)).shape == (2, 0)


class TestPsiLoss:
    def test_near_its_target_it_is_half_the_square_and_far_from_it_linear(self) -> None:
        assert psi_loss(row(1.0), [row(0.4)], YES).item() == pytest.approx(0.5 * 0.6**2)
        assert psi_loss(row(1.0), [row(4.0)], YES).item() == pytest.approx(3.0 - 0.5)
        assert psi_loss(row(1.0), [row(-2.0)], YES).item() == pytest.approx(3.0 - 0.5)

    def test_heads_are_summed(self) -> None:
        # .5 * .25 for the first head, 2 - .5 for the second.
        assert psi_loss(row(1.0), [row(0.5), row(3.0)], YES).item() == pytest.approx(0.125 + 1.5)

    def test_its_gradient_is_bounded_and_stops_at_the_target(self) -> None:
        target, near, far = row(1.0).requires_grad_(), row(0.4).requires_grad_(), row(9.0).requires_grad_()
        psi_loss(target, [near, far], YES).backward()  # type: ignore[no-untyped-call]
        assert target.grad is None
        assert near.grad is not None
        assert far.grad is not None
        assert near.grad.item() == pytest.approx(-0.6)
        assert far.grad.item() == 1.0

    def test_no_head_is_refused(self) -> None:
        with pytest.raises(ValueError, match="psi_loss needs at least one head, got none"):
            psi_loss(row(1.0), [], YES)


class TestMarginLoss:
    Q = torch.tensor([[[1.0, 0.8, -2.0]]])

    def test_every_token_counts_that_comes_closer_than_the_margin(self) -> None:
        # Token 0 was taken. Itself: .5². Token 1: .8 - 1 + .5 = .3. Token 2: -2.5, so nothing.
        assert margin_loss([self.Q], FIRST, YES, margin=0.5).item() == pytest.approx(0.25 + 0.09)

    def test_without_a_margin_only_better_tokens_count(self) -> None:
        assert margin_loss([self.Q], FIRST, YES, margin=0.0).item() == 0.0
        assert margin_loss([self.Q], torch.tensor([[1]]), YES, margin=0.0).item() == pytest.approx(0.2**2)

    def test_heads_are_summed(self) -> None:
        one = margin_loss([self.Q], FIRST, YES, margin=0.5).item()
        assert margin_loss([self.Q, self.Q], FIRST, YES, margin=0.5).item() == pytest.approx(2 * one)

    def test_its_gradient_parts_the_two_and_leaves_the_distant_alone(self) -> None:
        q = self.Q.clone().requires_grad_()
        margin_loss([q], FIRST, YES, margin=0.5).backward()  # type: ignore[no-untyped-call]
        assert q.grad is not None
        assert q.grad.tolist() == [[pytest.approx([-0.6, 0.6, 0.0])]]  # 2 * .3 each way; its own .5² gives none

    def test_bad_arguments_are_refused(self) -> None:
        with pytest.raises(ValueError, match="margin must be at least 0, got -1"):
            margin_loss([self.Q], FIRST, YES, margin=-1)
        with pytest.raises(ValueError, match="margin_loss needs at least one head, got none"):
            margin_loss([], FIRST, YES, margin=0)


class TestProbabilityQLoss:
    LOGITS = torch.tensor([[[0.5, 0.25, 0.25]]]).log()

    def test_a_target_of_one_clones_the_token(self) -> None:
        assert probability_q_loss(self.LOGITS, FIRST, row(1.0), YES).item() == pytest.approx(math.log(2))

    def test_a_target_of_nothing_hands_its_weight_to_the_others_evenly(self) -> None:
        # The others have a quarter each: -½ (log ¼ + log ¼) = log 4.
        assert probability_q_loss(self.LOGITS, FIRST, row(0.0), YES).item() == pytest.approx(math.log(4))

    def test_between_the_two_it_is_their_mixture(self) -> None:
        expected = 0.3 * math.log(2) + 0.7 * math.log(4)
        assert probability_q_loss(self.LOGITS, FIRST, row(0.3), YES).item() == pytest.approx(expected)

    def test_its_minimum_gives_a_lone_token_its_target(self) -> None:
        # Cross-entropy against (B, (1 - B)/2, (1 - B)/2): its gradient p - that vanishes there.
        logits = torch.tensor([[[0.4, 0.3, 0.3]]]).log().requires_grad_()
        probability_q_loss(logits, FIRST, row(0.4), YES).backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert logits.grad.tolist() == [[pytest.approx([0.0, 0.0, 0.0], abs=1e-7)]]

    def test_no_gradient_reaches_the_target(self) -> None:
        target, logits = row(0.5).requires_grad_(), self.LOGITS.clone().requires_grad_()
        probability_q_loss(logits, FIRST, target, YES).backward()  # type: ignore[no-untyped-call]
        assert target.grad is None
        assert logits.grad is not None


class TestCandidateLoss:
    DENSITY = torch.tensor([[0.5, 0.25]]).log()
    ALL = torch.tensor([True])

    def test_it_is_the_importance_weighted_mean_less_the_value_of_what_was_taken(self) -> None:
        # exp(log 3)/½ = 6 and exp(log 2)/¼ = 8: a mean of 7.
        proposed = torch.tensor([[3.0, 2.0]]).log()
        loss = candidate_loss([torch.tensor([1.5])], [proposed], self.DENSITY, self.ALL)
        assert loss.item() == pytest.approx(math.log(7) - 1.5)

    def test_repeating_the_candidates_changes_nothing(self) -> None:
        proposed = torch.tensor([[0.3, -0.2]])
        once = candidate_loss([torch.zeros(1)], [proposed], self.DENSITY, self.ALL)
        twice = candidate_loss([torch.zeros(1)], [proposed.repeat(1, 2)], self.DENSITY.repeat(1, 2), self.ALL)
        assert once.item() == pytest.approx(twice.item())

    def test_heads_are_summed_and_utterances_averaged(self) -> None:
        taken, proposed = torch.tensor([1.0, 3.0]), torch.zeros(2, 4)
        loss = candidate_loss([taken, 2 * taken], [proposed] * 2, torch.zeros(2, 4), torch.tensor([1.0, 1.0]))
        assert loss.item() == pytest.approx(-2.0 - 4.0)  # log of a mean of ones, less 1 and 3, less 2 and 6

    def test_its_gradient_raises_what_was_taken_and_lowers_the_candidates_by_their_share(self) -> None:
        taken, density = torch.zeros(1, requires_grad=True), self.DENSITY.clone().requires_grad_()
        proposed = torch.tensor([[3.0, 2.0]]).log().requires_grad_()
        candidate_loss([taken], [proposed], density, self.ALL).backward()  # type: ignore[no-untyped-call]
        assert taken.grad is not None
        assert proposed.grad is not None
        assert taken.grad.tolist() == [-1.0]
        assert proposed.grad.tolist() == [pytest.approx([6 / 14, 8 / 14])]
        assert density.grad is None

    @pytest.mark.parametrize("odd", [INFINITE, -INFINITE, float("nan")])
    def test_an_utterance_under_a_zero_counts_neither_in_value_nor_in_gradient(self, odd: float) -> None:
        taken = torch.tensor([1.0, odd]).requires_grad_()
        proposed = torch.tensor([[0.0, 0.0], [odd, 1.0]]).requires_grad_()
        loss = candidate_loss([taken], [proposed], torch.zeros(2, 2), torch.tensor([2.0, 0.0]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == -1.0
        assert taken.grad is not None
        assert proposed.grad is not None
        assert taken.grad.tolist() == [-1.0, 0.0]
        assert proposed.grad.tolist() == [[0.5, 0.5], [0.0, 0.0]]

    def test_its_gradient_is_that_of_the_formula(self) -> None:
        draw = torch.Generator().manual_seed(0)
        taken, proposed, density = (torch.randn(s, generator=draw, dtype=torch.float64) for s in ((3,), (3, 4), (3, 4)))
        mask = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
        inputs = (taken.requires_grad_(), proposed.requires_grad_())
        assert torch.autograd.gradcheck(lambda a, b: candidate_loss([a, 2 * a], [b, -b], density, mask), inputs)

    def test_without_utterances_it_costs_nothing(self) -> None:
        none = torch.zeros(0)
        assert candidate_loss([none], [torch.zeros(0, 4)], torch.zeros(0, 4), none).item() == 0.0

    def test_heads_come_twice(self) -> None:
        with pytest.raises(ValueError, match="candidate_loss needs the same heads twice, got 2 and 1"):
            candidate_loss([torch.zeros(1)] * 2, [torch.zeros(1, 2)], self.DENSITY, self.ALL)
        with pytest.raises(ValueError, match="candidate_loss needs the same heads twice, got 0 and 0"):
            candidate_loss([], [], self.DENSITY, self.ALL)


BOTH, TWO = torch.tensor([[True, True]]), torch.zeros(1, 2).long()


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: psi_loss(row(1, 2), [row(1)], BOTH), r"a prediction must have shape \(1, 2\), got \(1, 1\)"),
        (
            lambda: margin_loss([torch.zeros(1, 3)], TWO, BOTH, margin=0),
            r"a head of q_values must have shape \(1, 2, 3\), got \(1, 3\)",
        ),
        (
            lambda: probability_q_loss(torch.zeros(1, 3, 4), TWO, row(1, 1), BOTH),
            r"logits must have shape \(1, 2, 4\), got \(1, 3, 4\)",
        ),
        (
            lambda: probability_q_loss(torch.zeros(1, 2, 4), TWO, row(1), BOTH),
            r"target must have shape \(1, 2\), got \(1, 1\)",
        ),
        (
            lambda: candidate_loss([torch.zeros(1)], [torch.zeros(2, 3)], torch.zeros(2, 3), torch.ones(2)),
            r"a head of taken must have shape \(2,\), got \(1,\)",
        ),
        (
            lambda: candidate_loss([torch.zeros(2)], [torch.zeros(2, 3)], torch.zeros(2, 4), torch.ones(2)),
            r"a head of proposed must have shape \(2, 4\), got \(2, 3\)",
        ),
        (
            lambda: candidate_loss([torch.zeros(2)], [torch.zeros(1, 3)], torch.zeros(1, 3), torch.ones(2)),
            r"log_density must have shape \(2, 3\), got \(1, 3\)",
        ),
    ],
)
def test_a_shape_that_would_broadcast_is_refused(call: Callable[[], Tensor], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        call()


@pytest.mark.parametrize("shape", [(2, 0), (0, 0)])
def test_a_batch_without_actions_costs_nothing(shape: tuple[int, int]) -> None:
    nothing, none, q = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool), torch.zeros(*shape, 5)
    assert psi_loss(nothing, [nothing], none).item() == 0.0
    assert margin_loss([q], nothing.long(), none, margin=1.0).item() == 0.0
    assert probability_q_loss(q, nothing.long(), nothing, none).item() == 0.0


def test_every_loss_has_a_version() -> None:
    # Means, targets and backups are named for what they are; `_loss`, `_target`, `_backup` where the name needs it.
    functions = {
        "expectile_loss": "expectile", "td_target": "td", "td_loss": "td", "conservative_loss": "conservative",
        "advantage_weights": "advantage_weights", "weighted_nll": "nll", "monte_carlo_returns": "monte_carlo",
        "max_backup": "max_backup", "soft_backup": "soft_backup", "psi_loss": "psi", "margin_loss": "margin",
        "bounded_backup": "probability_q", "probability_q_loss": "probability_q", "candidate_loss": "candidates",
    }  # fmt: skip
    public = {
        name
        for name, value in vars(losses).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == losses.__name__
    }
    assert public - {"masked_mean"} == functions.keys()
    assert set(functions.values()) == set(VERSIONS)
