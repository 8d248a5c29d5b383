"""The layer over the vocabulary in one pass, against the layer and the losses written plainly, to double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from ilql import fused, token_values
from ilql.batch import TokenBatch, dialogue_weights
from ilql.fused import cloning_loss, counted, linear_cross_entropy, linear_taken
from ilql.losses import conservative_loss, td_loss, weighted_nll
from ilql.method import Start
from ilql.methods import ilql
from ilql.networks import ValueNetworks, taken


class Case:
    """A grid of hidden states, a layer over the vocabulary, the tokens taken and a mask; equal for equal seeds."""

    def __init__(
        self, *, grid: tuple[int, int], width: int, vocabulary: int, bias: bool, mask: list[float], seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.hidden = normal(*grid, width).requires_grad_()
        self.layer = nn.Linear(width, vocabulary, bias=bias, dtype=torch.float64)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.copy_(2 * normal(*parameter.shape))
        self.actions = torch.randint(vocabulary, grid, generator=generator)
        if self.actions.numel():  # the first and the last token are always among those taken
            self.actions.view(-1)[0], self.actions.view(-1)[-1] = 0, vocabulary - 1
        self.mask = torch.tensor(mask, dtype=torch.float64).view(grid)
        self.target = normal(*grid)

    def gradients(self, loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, [self.hidden, *self.layer.parameters()], allow_unused=True)
        parts = [self.hidden, *self.layer.parameters()]
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parts, found, strict=True)]

    def fused(self, *, temperature: float, chunk: int) -> tuple[Tensor, Tensor]:
        """The conservative term and Q taken, in one pass."""
        rows = counted(self.mask)
        loss, q = linear_cross_entropy(
            rows.of(self.hidden), self.layer, rows.of(self.actions), rows.weights, temperature=temperature, chunk=chunk
        )
        return loss, rows.spread(q)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    grid = draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    size = grid[0] * grid[1]
    weight = st.sampled_from([0.0, 0.0, 1.0, 1.0, 0.25, 3.0])
    mask = draw(st.lists(weight, min_size=size, max_size=size))
    if draw(st.booleans()):  # a row of the grid without anything that counts
        mask[: grid[1]] = [0.0] * grid[1]
    return Case(
        grid=grid,
        width=draw(st.integers(1, 6)),
        vocabulary=draw(st.sampled_from([1, 2, 3, 7, 40])),
        bias=draw(st.booleans()),
        mask=mask,
        seed=draw(st.integers(0, 10**6)),
    )


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    case=cases(),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    chunk=st.sampled_from([0, 1, 2, 3, 100]),
    block=st.sampled_from([1, 3, 2048]),
    weights=st.sampled_from([(1.0, 1.0), (0.4, 0.0), (0.0, 2.0), (3.0, 0.5)]),
)
def test_loss_and_all_gradients_are_those_of_the_plain_layer(
    case: Case, temperature: float, chunk: int, block: int, weights: tuple[float, float]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "BLOCK", block)
        term, q = case.fused(temperature=temperature, chunk=chunk)
    total = weights[0] * term + weights[1] * td_loss(case.target, [q], case.mask)
    q_all = case.layer(case.hidden)
    plain_term = conservative_loss([q_all], case.actions, case.mask, temperature=temperature)
    plain_q = taken(q_all, case.actions)
    plain = weights[0] * plain_term + weights[1] * td_loss(case.target, [plain_q], case.mask)
    same([term, total, q], [plain_term, plain, torch.where(case.mask > 0, plain_q, 0.0)])
    same(case.gradients(total), case.gradients(plain))


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_cloning_is_the_weighted_likelihood_of_logits_that_are_made(case: Case) -> None:
    factors = case.target.exp()
    loss = cloning_loss(case.hidden, case.layer, case.actions, factors, case.mask)
    plain = weighted_nll(case.layer(case.hidden), case.actions, factors, case.mask)
    same([loss], [plain])
    same(case.gradients(loss), case.gradients(plain))


def test_a_head_that_is_more_than_a_layer_is_run() -> None:
    case = a_case()
    head = nn.Sequential(case.layer, nn.Tanh())
    loss = cloning_loss(case.hidden, head, case.actions, torch.ones_like(case.mask), case.mask)
    plain = weighted_nll(case.layer(case.hidden).tanh(), case.actions, torch.ones_like(case.mask), case.mask)
    assert loss.item() == plain.item()


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_taken_alone_is_the_plain_layers(case: Case) -> None:
    q, plain = linear_taken(case.hidden, case.layer, case.actions), taken(case.layer(case.hidden), case.actions)
    same([q], [plain])
    found = [case.gradients(td_loss(case.target, [each], case.mask)) for each in (q, plain)]
    same(*found)


def a_case(*, mask: list[float] | None = None, grid: tuple[int, int] = (2, 2), vocabulary: int = 5) -> Case:
    return Case(
        grid=grid,
        width=3,
        vocabulary=vocabulary,
        bias=True,
        mask=[1.0, 2.0, 0.0, 1.0] if mask is None else mask,
        seed=1,
    )


def test_a_batch_in_which_nothing_counts_has_no_loss_and_zero_gradients() -> None:
    case = a_case(mask=[0.0] * 4)
    term, q = case.fused(temperature=1.0, chunk=0)
    assert term.item() == 0.0
    assert not q.any()
    assert not any(gradient.any() for gradient in case.gradients(term + td_loss(case.target, [q], case.mask)))


def test_a_batch_without_actions_has_no_loss() -> None:
    term, q = a_case(mask=[], grid=(2, 0)).fused(temperature=1.0, chunk=0)
    assert term.item() == 0.0
    assert q.shape == (2, 0)


def test_what_stands_where_the_weight_is_zero_does_not_count_even_if_infinite() -> None:
    case = a_case()
    rows = case.hidden.detach().flatten(0, 1).clone()
    rows[2] = float("inf")
    rows.requires_grad_()
    weights = case.mask.flatten() / 4  # rows are not selected, as on a device
    term, q = linear_cross_entropy(rows, case.layer, case.actions.flatten(), weights)
    expected, _ = case.fused(temperature=1.0, chunk=0)
    assert term.item() == pytest.approx(expected.item(), rel=1e-12)
    assert q[2].item() == 0.0
    (gradient,) = torch.autograd.grad(term + q.sum(), rows)
    assert torch.isfinite(gradient).all()
    assert not gradient[2].any()


def test_a_weight_that_is_no_number_is_seen_in_the_loss() -> None:
    case = a_case()
    factors = torch.full((2, 2), float("nan"), dtype=torch.float64)
    assert cloning_loss(case.hidden, case.layer, case.actions, factors, case.mask).isnan()


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias"])
def test_what_needs_no_gradient_gets_none_and_the_others_keep_theirs(frozen: str) -> None:
    case, whole = a_case(), a_case()
    parts = {"hidden": case.hidden, "weight": case.layer.weight, "bias": case.layer.bias}
    wholes = {"hidden": whole.hidden, "weight": whole.layer.weight, "bias": whole.layer.bias}
    parts[frozen].requires_grad_(False)
    for each in (case, whole):
        term, q = each.fused(temperature=1.0, chunk=1)
        (term + q.sum()).backward()  # type: ignore[no-untyped-call]
    assert parts[frozen].grad is None
    for name in parts.keys() - {frozen}:
        assert torch.equal(parts[name].grad, wholes[name].grad)  # type: ignore[arg-type]


def test_without_gradients_the_values_are_the_same() -> None:
    case = a_case()
    with torch.no_grad():
        term, q = case.fused(temperature=0.5, chunk=1)
    assert not term.requires_grad
    expected = case.fused(temperature=0.5, chunk=1)
    assert term.item() == expected[0].item()
    assert torch.equal(q, expected[1])


def test_z_taken_can_be_learnt_from_alone() -> None:
    case = a_case()
    _, q = case.fused(temperature=0.5, chunk=1)
    plain = taken(case.layer(case.hidden), case.actions) * (case.mask > 0)
    same(case.gradients(td_loss(case.target, [q], case.mask)), case.gradients(td_loss(case.target, [plain], case.mask)))


def test_gradients_are_had_once() -> None:
    term, _ = a_case().fused(temperature=1.0, chunk=0)
    term.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="can be had once"):
        term.backward()  # type: ignore[no-untyped-call]


def test_in_bfloat16_it_is_as_near_as_bfloat16_is() -> None:
    case = a_case(vocabulary=40)
    low = nn.Linear(3, 40, dtype=torch.bfloat16)
    low.load_state_dict(case.layer.state_dict())
    rows, tokens = case.hidden.flatten(0, 1), case.actions.flatten()
    hidden = rows.detach().bfloat16().requires_grad_()
    weights = torch.tensor([0.25, 0.5, 0.0, 0.25])
    term, q = linear_cross_entropy(hidden, low, tokens, weights, chunk=2)
    assert term.dtype == q.dtype == torch.float32
    (term + q.sum()).backward()  # type: ignore[no-untyped-call]
    expected, plain_q = linear_cross_entropy(rows, case.layer, tokens, weights.double(), chunk=2)
    (expected + plain_q.sum()).backward()  # type: ignore[no-untyped-call]
    assert term.item() == pytest.approx(expected.item(), rel=0.03)
    assert low.weight.grad is not None
    assert case.layer.weight.grad is not None
    assert torch.allclose(low.weight.grad.double(), case.layer.weight.grad, atol=0.05)


def test_under_autocast_products_are_rough_and_what_is_taken_is_not() -> None:
    case = a_case(vocabulary=40)
    layer = nn.Linear(3, 40)
    layer.load_state_dict(case.layer.state_dict())
    rows, tokens, weights = case.hidden.detach().float().flatten(0, 1), case.actions.flatten(), torch.full((4,), 0.25)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term, q = linear_cross_entropy(rows, layer, tokens, weights)
        assert term.item() == linear_cross_entropy(rows.bfloat16(), layer, tokens, weights)[0].item()
    whole, _ = linear_cross_entropy(rows, layer, tokens, weights)
    assert 0 < abs(term.item() - whole.item()) < 0.03 * abs(whole.item())
    exact = linear_taken(rows.bfloat16().double(), layer.double(), tokens)
    assert torch.allclose(q.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "weights", "temperature", "rule"),
    [
        (2, 2, 0.0, "temperature must be above 0, got 0.0"),
        (3, 2, 1.0, r"must have shape \(2,\), got \(3,\) and \(2,\)"),
        (2, 1, 1.0, r"must have shape \(2,\), got \(2,\) and \(1,\)"),
    ],
)
def test_bad_input_is_refused(tokens: int, weights: int, temperature: float, rule: str) -> None:
    layer = nn.Linear(3, 4)
    with pytest.raises(ValueError, match=rule):
        linear_cross_entropy(
            torch.zeros(2, 3), layer, torch.zeros(tokens).long(), torch.ones(weights), temperature=temperature
        )


def test_no_tensor_over_the_vocabulary_and_all_rows_is_made() -> None:
    """The largest tensor that any operation gives, forth and back, has fewer numbers than N · V."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for each in result if isinstance(result, tuple) else (result,):
                if isinstance(each, Tensor):
                    largest = max(largest, each.numel())
            return result

    rows, width, vocabulary = 64, 4, 512
    layer, hidden = nn.Linear(width, vocabulary), torch.randn(rows, width, requires_grad=True)
    with Watch():
        loss, q = linear_cross_entropy(hidden, layer, torch.arange(rows), torch.full((rows,), 1 / rows), chunk=8)
        (loss + q.sum()).backward()  # type: ignore[no-untyped-call]
    assert largest == 8 * vocabulary  # z of eight rows


class TestOfAMethod:
    @pytest.mark.parametrize("terms", [{}, {"cql_weight": 0.0}, {"cql_temperature": 0.5, "double_q": False}])
    def test_a_margin_that_weighs_next_to_nothing_changes_the_path_and_not_the_gradients(
        self, language_model: Callable[..., nn.Module], batch: TokenBatch, terms: dict[str, float]
    ) -> None:
        start = Start(language_model(seed=1, spread=5.0), language_model(seed=2), seed=3)
        found = []
        for margin_weight in (0.0, 1e-300):
            train = ilql.Train(margin_weight=margin_weight, **terms)  # type: ignore[arg-type]
            module = token_values.build(start, train).double()
            assert isinstance(module, ValueNetworks)
            loss = ilql.loss(module, batch, dialogue_weights(batch.action_mask).double(), train)
            loss.total.backward()  # type: ignore[no-untyped-call]
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            found.append([loss.total, *(loss.parts[name] for name in ("td", "q_mean")), *gradients])
        assert len(found[0]) > 20
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_rows_are_those_that_count_and_their_shares_sum_to_one() -> None:
    rows = counted(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]]))
    assert rows.index.tolist() == [0, 2, 5]
    assert rows.weights.tolist() == [0.25, 0.5, 0.25]
    assert rows.spread(torch.tensor([1.0, 2.0, 3.0])).tolist() == [[1, 0, 2], [0, 0, 3]]


def test_a_boolean_mask_counts_alike() -> None:
    assert counted(torch.tensor([[True, False, True]])).weights.tolist() == [0.5, 0.5]


def test_the_sum_over_the_vocabulary_does_not_overflow() -> None:
    layer = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1e4], [-1e4]]))
    loss, q = linear_cross_entropy(torch.ones(1, 1), layer, torch.tensor([1]), torch.ones(1))
    assert loss.item() == 2e4  # logsumexp(1e4, −1e4) − (−1e4)
    assert q.item() == -1e4
    assert functional.cross_entropy(layer(torch.ones(1, 1)), torch.tensor([1])).item() == 2e4
