"""The next token, by hand: tilt, filters, draws, log-ratios."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ilql.choose import Knobs, choose, filtered, probabilities

ALL = torch.ones(4, dtype=torch.bool)
LOGITS = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()  # of the four tokens
Q = torch.tensor([0.0, 3.0, -1.0, 1.0])
DRAWS = 4000


def knobs(
    slots: int = 1,
    *,
    beta: float = 0.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    greedy: bool = False,
) -> Knobs:
    return Knobs(
        torch.full((slots,), beta),
        torch.full((slots,), temperature),
        torch.full((slots,), top_k),
        torch.full((slots,), top_p),
        torch.full((slots,), greedy),
    )


def distribution(settings: Knobs, *, logits: Tensor = LOGITS, q: Tensor | None = None) -> list[float]:
    """How often each token is drawn by draws that are spread evenly over [0, 1): the policy, to 1 / DRAWS."""
    uniform = (torch.arange(DRAWS, dtype=torch.float64) + 0.5) / DRAWS
    rows = None if q is None else q.expand(DRAWS, -1)
    tokens, *_ = choose(logits.expand(DRAWS, -1), rows, ALL, settings, uniform)
    return (torch.bincount(tokens, minlength=4) / DRAWS).tolist()


def policy(weights: Sequence[float]) -> list[float]:
    return [w / math.fsum(weights) for w in weights]


def choose_one(settings: Knobs, *, logits: Tensor = LOGITS, q: Tensor | None = Q, writable: Tensor = ALL) -> int:
    uniform = torch.zeros(1, dtype=torch.float64)
    return int(choose(logits[None], None if q is None else q[None], writable, settings, uniform)[0])


class TestDistribution:
    def test_untouched_it_is_the_language_model(self) -> None:
        assert distribution(knobs(DRAWS)) == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1 / DRAWS)

    @pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
    def test_the_tilt_multiplies_by_the_exponential_of_beta_q(self, beta: float) -> None:
        expected = policy([p * math.exp(beta * q) for p, q in zip([0.1, 0.2, 0.3, 0.4], Q.tolist(), strict=True)])
        assert distribution(knobs(DRAWS, beta=beta), q=Q) == pytest.approx(expected, abs=1 / DRAWS)

    def test_the_temperature_is_the_language_models_and_not_the_tilts(self) -> None:
        expected = policy([p**2 * math.exp(q) for p, q in zip([0.1, 0.2, 0.3, 0.4], Q.tolist(), strict=True)])
        assert distribution(knobs(DRAWS, beta=1.0, temperature=0.5), q=Q) == pytest.approx(expected, abs=1 / DRAWS)

    def test_a_constant_added_to_q_changes_nothing(self) -> None:
        assert distribution(knobs(DRAWS, beta=2.0), q=Q) == distribution(knobs(DRAWS, beta=2.0), q=Q + 5)

    def test_the_filters_look_at_the_language_model_and_the_tilt_comes_after(self) -> None:
        # Only tokens 2 and 3 pass, although token 1 has by far the highest Q.
        expected = policy([0.3 * math.exp(-1), 0.4 * math.exp(1)])
        result = distribution(knobs(DRAWS, beta=1.0, top_k=2), q=Q)
        assert result == pytest.approx([0.0, 0.0, *expected], abs=1 / DRAWS)

    @pytest.mark.parametrize("uniform", [0.0, 1.0 - 2**-53])
    def test_what_has_no_probability_is_never_drawn(self, uniform: float) -> None:
        logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
        token, *_ = choose(logits, None, ALL, knobs(), torch.tensor([uniform], dtype=torch.float64))
        assert token.item() == (1 if uniform == 0 else 2)


class TestGreed:
    def test_it_takes_the_most_probable_token_of_the_tilted_policy(self) -> None:
        assert choose_one(knobs(greedy=True)) == 3
        assert choose_one(knobs(greedy=True, beta=1.0)) == 1  # .2 e^3 against .4 e^1

    @pytest.mark.parametrize("greedy", [True, False])
    def test_an_infinite_beta_takes_the_highest_q_and_leaves_the_language_model_out(self, greedy: bool) -> None:
        against = torch.tensor([9.0, -99.0, 9.0, 9.0])
        assert choose_one(knobs(greedy=greedy, beta=math.inf, top_k=1), logits=against) == 1


class TestWritable:
    @pytest.mark.parametrize("beta", [0.0, 1.0, math.inf])
    @pytest.mark.parametrize("greedy", [True, False])
    def test_what_may_not_be_written_is_not_chosen_however_huge(self, beta: float, greedy: bool) -> None:
        writable = torch.tensor([True, False, True, False])
        huge = torch.tensor([0.0, 1e9, 0.5, 1e9])
        for uniform in (0.0, 0.5, 1.0 - 2**-53):
            draw = torch.tensor([uniform], dtype=torch.float64)
            token, ratio, _ = choose(huge[None], huge[None], writable, knobs(beta=beta, greedy=greedy), draw)
            assert token.item() in (0, 2)
            assert ratio.isfinite()

    def test_an_infinite_q_of_what_may_not_be_written_does_no_harm(self) -> None:
        q = torch.tensor([0.0, math.inf, 1.0, 0.0])
        assert choose_one(knobs(greedy=True, beta=9.0), q=q, writable=torch.tensor([True, False, True, True])) == 2


class TestLogRatio:
    def test_it_is_the_log_of_the_tilted_over_the_untouched_probability(self) -> None:
        # exp(log 2 * (1, 0)) doubles the first: (1/4, 3/4) becomes (2/5, 3/5); the second is drawn.
        logits, q = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[1.0, 0.0]])
        token, ratio, log_probability = choose(
            logits, q, torch.ones(2, dtype=torch.bool), knobs(beta=math.log(2)), torch.full((1,), 0.9).double()
        )
        assert token.item() == 1
        assert ratio.item() == pytest.approx(math.log(0.6 / 0.75))
        assert log_probability.item() == pytest.approx(math.log(0.75))

    def test_without_tilt_and_filter_it_is_zero(self) -> None:
        _, ratio, _ = choose(LOGITS[None], Q[None], ALL, knobs(), torch.tensor([0.55], dtype=torch.float64))
        assert ratio.item() == pytest.approx(0.0, abs=1e-6)

    @pytest.mark.parametrize("beta", [0.0, 1.0])
    def test_a_greedy_policy_is_certain(self, beta: float) -> None:
        # log π = 0 of the one token it can choose: token 3, of which the model says .4, or with the tilt token 1, .2.
        _, ratio, _ = choose(LOGITS[None], Q[None], ALL, knobs(beta=beta, greedy=True), torch.zeros(1).double())
        assert ratio.item() == pytest.approx(-math.log(0.2 if beta else 0.4))

    def test_the_log_ratio_is_that_of_the_probabilities(self) -> None:
        # Six slots, each of another kind: what `choose` says of its token is what `probabilities` says of it.
        kinds = [(0.0, False), (1.0, False), (0.0, True), (1.0, True), (math.inf, False), (math.inf, True)]
        settings = dataclasses.replace(
            knobs(6),
            beta=torch.tensor([beta for beta, _ in kinds]),
            greedy=torch.tensor([greedy for _, greedy in kinds]),
        )
        logits, q = LOGITS.expand(6, -1), Q.expand(6, -1)
        tokens, ratio, base = choose(logits, q, ALL, settings, torch.full((6,), 0.3).double())
        likely = probabilities(logits, q, ALL, settings).gather(1, tokens[:, None]).squeeze(1)
        assert (ratio + base).exp().tolist() == pytest.approx(likely.tolist())

    def test_without_the_language_model_the_policy_is_certain(self) -> None:
        _, ratio, _ = choose(LOGITS[None], Q[None], ALL, knobs(beta=math.inf), torch.zeros(1).double())
        assert ratio.item() == pytest.approx(-math.log(0.2))


class TestLogProbability:
    def test_it_is_the_untouched_language_models_whatever_the_filters_and_the_temperature(self) -> None:
        # At top-k 1 the policy is certain of token 3, of which the model alone gives .4.
        settings = knobs(top_k=1, temperature=0.1, beta=2.0)
        token, _, log_probability = choose(LOGITS[None], Q[None], ALL, settings, torch.zeros(1).double())
        assert token.item() == 3
        assert log_probability.item() == pytest.approx(math.log(0.4))

    def test_it_is_among_the_tokens_that_may_be_written(self) -> None:
        writable = torch.tensor([False, True, True, False])  # .2 and .3, so two fifths and three
        token, _, log_probability = choose(LOGITS[None], None, writable, knobs(greedy=True), torch.zeros(1).double())
        assert token.item() == 2
        assert log_probability.item() == pytest.approx(math.log(3 / 5))


class TestFilters:
    @staticmethod
    def kept(probabilities: list[float], *, top_k: int = 0, top_p: float = 1.0) -> list[bool]:
        logits = torch.tensor([probabilities]).log()
        passed = filtered(logits, top_k=torch.tensor([top_k]), top_p=torch.tensor([top_p]))
        assert torch.equal(passed[passed.isfinite()], logits[passed.isfinite()])
        return passed.isfinite()[0].tolist()

    def test_top_k_keeps_the_k_most_probable(self) -> None:
        assert self.kept([0.1, 0.4, 0.2, 0.3], top_k=2) == [False, True, False, True]
        assert self.kept([0.1, 0.4, 0.2, 0.3], top_k=0) == [True] * 4
        assert self.kept([0.1, 0.4, 0.2, 0.3], top_k=9) == [True] * 4

    def test_top_p_keeps_the_token_that_crosses(self) -> None:
        # Ranked .5, .25, .125, .125: .75 and not yet .8 after two, so the third crosses and is kept.
        assert self.kept([0.125, 0.5, 0.25, 0.125], top_p=0.8) == [True, True, True, False]

    def test_top_p_must_be_exceeded(self) -> None:
        assert self.kept([0.125, 0.5, 0.25, 0.125], top_p=0.5) == [False, True, True, False]  # .5 does not exceed .5
        assert self.kept([0.125, 0.5, 0.25, 0.125], top_p=0.49) == [False, True, False, False]

    def test_the_most_probable_token_always_stays(self) -> None:
        assert self.kept([0.1, 0.4, 0.2, 0.3], top_p=0.0) == [False, True, False, False]

    def test_equal_tokens_are_ranked_by_id(self) -> None:
        assert self.kept([0.25] * 4, top_k=2) == [True, True, False, False]

    def test_both_filters_hold(self) -> None:
        assert self.kept([0.5, 0.25, 0.125, 0.125], top_k=2, top_p=0.8) == [True, True, False, False]


class TestFiltersAfterTheTilt:
    """Two tokens with π_β = (.6, .4) and Q = (0, 1): tilted with β = 1 the second one, .4e = 1.087, is the likelier."""

    LOGITS, Q = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.0, 1.0]])

    def first(self, *, after: bool, temperature: float = 1.0) -> float:
        """π of the first token."""
        settings = dataclasses.replace(knobs(beta=1.0, temperature=temperature), after=torch.tensor([after]))
        draw = torch.zeros(1, dtype=torch.float64)  # the first token
        _, ratio, base = choose(self.LOGITS, self.Q, torch.ones(2, dtype=torch.bool), settings, draw)
        return float((ratio + base).exp())

    def test_top_k_keeps_the_best_of_what_it_looks_at(self) -> None:
        for after, token in ((False, 0), (True, 1)):
            settings = dataclasses.replace(knobs(beta=1.0, top_k=1), after=torch.tensor([after]))
            tokens, _, _ = choose(
                self.LOGITS, self.Q, torch.ones(2, dtype=torch.bool), settings, torch.zeros(1, dtype=torch.float64)
            )
            assert int(tokens) == token

    def test_temperature_divides_the_tilt_too(self) -> None:
        # Temperature 2: before, √.6 against √.4 · e; after, √.6 against √(.4e).
        assert self.first(after=False, temperature=2.0) == pytest.approx(0.6**0.5 / (0.6**0.5 + 0.4**0.5 * math.e))
        assert self.first(after=True, temperature=2.0) == pytest.approx(0.6**0.5 / (0.6**0.5 + (0.4 * math.e) ** 0.5))

    def test_without_filters_it_makes_no_difference(self) -> None:
        assert self.first(after=True) == self.first(after=False) == pytest.approx(0.6 / (0.6 + 0.4 * math.e))
