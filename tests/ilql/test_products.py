"""Products by oneDNN, against torch's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D

from ilql import products
from ilql.gelu import MLP
from ilql.language_model import Architecture, build_language_model, hidden_states, reload_language_model, trunk_of
from ilql.products import Linear, Transposed, hasten, linear, linear_gelu, product


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the smallest products be made by oneDNN, too; gives the calls of it, each by its rows."""
    if not products._AVAILABLE:
        pytest.skip("this torch has no oneDNN")
    calls: list[int] = []
    by_onednn = products._onednn

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None, **others: bool) -> Tensor:
        calls.append(x.numel() // x.shape[-1])
        return by_onednn(x, weight, bias, **others)

    monkeypatch.setattr(products, "LEAST_WORK", 1)
    monkeypatch.setattr(products, "LEAST_WORK_INFERENCE", 1)
    monkeypatch.setattr(products, "_onednn", watched)
    return calls


def test_a_gradient_that_is_one_number_spread_out_is_laid_out_first(small: list[int]) -> None:
    x, weight = torch.randn(7, 5).requires_grad_(), torch.randn(3, 5).requires_grad_()
    seen: list[tuple[int, ...]] = []
    inner = products._onednn

    def strides(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        seen.extend([a.stride(), b.stride()])
        return inner(a, b, bias)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_onednn", strides)
        linear(x, weight).sum().backward()  # type: ignore[no-untyped-call]
    assert len(small) == 3
    assert not any(0 in stride for stride in seen)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(7, 5))


def test_small_products_are_onednns_where_shapes_repeat(small: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LEAST_WORK", 106)
    monkeypatch.setattr(products, "LEAST_WORK_INFERENCE", 105)
    x, weight = torch.randn(7, 5), torch.randn(3, 5)
    linear(x, weight)
    assert small == []
    with torch.inference_mode():
        linear(x, weight)
    assert small == [7]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (1, 5), (3, 4, 5)])
@pytest.mark.parametrize("outputs", [1, 3, 11])
@pytest.mark.parametrize("transposed", [False, True])
def test_values_and_gradients_are_torchs(
    small: list[int], bias: bool, shape: tuple[int, ...], outputs: int, transposed: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    results = []
    for multiply in (linear, functional.linear):
        generator.manual_seed(0)
        x = torch.randn(*shape, generator=generator).requires_grad_()
        stored = torch.randn(shape[-1], outputs, generator=generator)
        stored = (stored if transposed else stored.T.contiguous()).requires_grad_()
        added = torch.randn(outputs, generator=generator).requires_grad_() if bias else None
        y = multiply(x, stored.T if transposed else stored, added)
        y.backward(torch.randn(y.shape, generator=generator))  # type: ignore[no-untyped-call]
        results.append([y, x.grad, stored.grad, *([added.grad] if added is not None else [])])
    assert len(small) == 3  # forth, and back to x and to the weight
    for one, other in zip(*results, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_needs_no_gradient_gets_none(small: list[int], frozen: int) -> None:
    parts = [torch.randn(4, 3), torch.randn(2, 3), torch.randn(2)]
    for number, part in enumerate(parts):
        part.requires_grad_(number != frozen)
    linear(*parts).sum().backward()  # type: ignore[no-untyped-call]
    assert [part.grad is None for part in parts] == [number == frozen for number in range(3)]


def test_either_factor_may_be_transposed(small: list[int]) -> None:
    a, b = torch.randn(4, 6), torch.randn(5, 6)
    views = a, a.T.contiguous().T
    for left in views:
        for right in (b, b.T.contiguous().T):
            torch.testing.assert_close(product(left, right), a @ b.T, rtol=1e-5, atol=1e-5)
    assert len(small) == 4


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_other_types_are_left_to_torch(small: list[int], kind: torch.dtype) -> None:
    x, weight = torch.randn(4, 3, dtype=kind), torch.randn(2, 3, dtype=kind)
    assert torch.equal(linear(x, weight), functional.linear(x, weight))
    assert torch.equal(product(x, weight), x @ weight.T)
    assert small == []


def test_no_rows_give_no_rows(small: list[int]) -> None:
    x = torch.zeros(0, 3, requires_grad=True)
    linear(x, torch.ones(2, 3)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.shape == (0, 3)


def test_under_autocast_torch_decides(small: list[int]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.ones(4, 3), torch.ones(2, 3)).dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_hastened_model_has_the_same_states_gradients_and_names(small: list[int], family: str) -> None:
    fast = build_language_model(Architecture(family=family, width=16, heads=2), vocabulary=30, seed=0)
    plain = copy.deepcopy(fast)
    for module in plain.modules():
        if type(module) is Linear:
            module.__class__ = nn.Linear
        elif type(module) is Transposed:
            module.__class__ = Conv1D
        elif type(module) is MLP:
            module.__class__ = GPT2MLP
    tokens = torch.randint(30, (2, 9))
    found = []
    for model in (plain, fast):
        before = len(small)
        states = hidden_states(trunk_of(model), tokens)
        states.square().sum().backward()  # type: ignore[no-untyped-call]
        found.append([states, *(p.grad for p in model.parameters() if p.grad is not None)])
        assert (len(small) > before) == (model is fast)
    assert list(plain.state_dict()) == list(fast.state_dict())
    for one, other in zip(*found, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "relu"])
def test_gpt2s_activation_is_made_with_the_product_where_a_policy_acts(small: list[int], activation: str) -> None:
    plain = GPT2MLP(24, GPT2Config(n_embd=6, activation_function=activation, resid_pdrop=0.5)).eval().double()
    nn.init.normal_(plain.c_fc.weight)
    x = torch.linspace(-4, 4, 30).view(1, 5, 6)
    expected = plain(x.double()).detach()
    fast = hasten(copy.deepcopy(plain).float())
    assert isinstance(fast, MLP) == (activation != "relu")
    seen: list[bool] = []
    inner = products._onednn

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
        seen.append(gelu)
        return inner(x, weight, bias, gelu=gelu)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_onednn", watched)
        with torch.inference_mode():
            torch.testing.assert_close(fast(x).double(), expected, rtol=1e-5, atol=1e-5)
            assert seen == [activation != "relu", False]
            assert (fast.train()(x) == 0).any()  # what is dropped is dropped all the same
        assert fast(x).requires_grad  # a training goes through the activation itself
        assert not any(seen[2:])


def test_an_adapter_in_the_first_layers_place_is_asked(small: list[int]) -> None:
    class Doubled(Transposed):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    plain = hasten(GPT2MLP(24, GPT2Config(n_embd=6)).eval())
    x = torch.randn(5, 6)
    with torch.inference_mode():
        expected = plain.c_proj(functional.gelu(2 * plain.c_fc(x), approximate="tanh"))
        plain.c_fc.__class__ = Doubled
        torch.testing.assert_close(plain(x), expected)


def test_a_product_with_an_activation_has_gradients_too(small: list[int]) -> None:
    x, weight = torch.randn(7, 5).requires_grad_(), torch.randn(3, 5)
    linear_gelu(x, weight).sum().backward()  # type: ignore[no-untyped-call]
    found, x.grad = x.grad, None
    functional.gelu(functional.linear(x, weight), approximate="tanh").sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, x.grad)


def test_every_language_model_is_hastened(language_model: Callable[..., nn.Module], tmp_path: Path) -> None:
    built = language_model()
    built.save_pretrained(tmp_path)  # type: ignore[operator]
    for model in (built, reload_language_model(tmp_path)):
        assert not any(type(module) in (nn.Linear, Conv1D) for module in model.modules())
        assert any(type(module) is Transposed for module in model.modules())


def test_what_it_hastens_comes_back_itself() -> None:
    layer = nn.Linear(2, 3)
    assert hasten(layer) is layer
    assert type(layer) is Linear
