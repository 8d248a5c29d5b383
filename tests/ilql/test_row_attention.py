"""Attention row by row, against its equation in float64 and a case by hand; what does not decide its bits."""

from __future__ import annotations

import functools
import math
import multiprocessing
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ilql import row_attention
from ilql.row_attention import WIDE, attend, write


def plain(query: Tensor, keys: Tensor, values: Tensor, spans: Tensor, scale: float) -> Tensor:
    """Compute the equation, token by token in float64."""
    results = []
    group = query.shape[1] // keys.shape[2]
    for token, (slot, first, behind) in zip(query.double(), spans.tolist(), strict=True):
        own_keys, own_values = (
            cache[slot, first:behind].double().repeat_interleave(group, dim=1) for cache in (keys, values)
        )
        weights = (scale * torch.einsum("hd,lhd->hl", token, own_keys)).softmax(dim=-1)
        results.append(torch.einsum("hl,lhe->he", weights, own_values))
    return torch.stack(results)


def caches(
    *, slots: int = 3, columns: int = 40, heads: int = 2, key: int = 8, value: int = 8, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = slots, columns, heads
    return torch.randn(*shape, key, generator=generator), torch.randn(*shape, value, generator=generator)


class TestAttend:
    def test_by_hand(self) -> None:
        # One head of one number; keys 0 and ln 3, so that the second column weighs three times the first.
        keys = torch.tensor([[[[9.0]], [[0.0]], [[math.log(3)]], [[9.0]]]])
        values = torch.tensor([[[[7.0]], [[1.0]], [[5.0]], [[7.0]]]])
        query = torch.ones(1, 1, 1)
        assert attend(query, keys, values, torch.tensor([[0, 1, 3]]), scale=1.0).item() == pytest.approx(4.0)
        assert attend(query, keys, values, torch.tensor([[0, 1, 2]]), scale=1.0).item() == 1.0
        assert attend(query, keys, values, torch.tensor([[0, 1, 3]]), scale=2.0).item() == pytest.approx(4.6)

    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_it_is_the_equation(self, data: st.DataObject) -> None:
        # Few sizes: each is compiled.
        heads, group, key, value = data.draw(
            st.sampled_from(
                [(1, 1, 1, 1), (2, 1, 24, 24), (2, 3, WIDE, WIDE), (1, 3, 5, WIDE + 8), (2, 1, WIDE - 1, 5)]
            )
        )
        columns, rows = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
        keys, values = caches(columns=columns, heads=heads, key=key, value=value, seed=data.draw(st.integers(0, 99)))
        spans = []
        for _ in range(rows):
            first = data.draw(st.integers(0, columns - 1))
            spans.append([data.draw(st.integers(0, 2)), first, data.draw(st.integers(first + 1, columns))])
        generator = torch.Generator().manual_seed(rows)
        query = data.draw(st.sampled_from([0.1, 3.0])) * torch.randn(rows, heads * group, key, generator=generator)
        scale = data.draw(st.sampled_from([key**-0.5, 1.0]))
        found = attend(query, keys, values, torch.tensor(spans), scale=scale)
        expected = plain(query, keys, values, torch.tensor(spans), scale)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-5)

    def test_weights_are_those_of_exp_to_a_millionth(self) -> None:
        # Two columns, of values 0 and 1 and scores −gap and 0 or 0 and −gap: what comes out is a weight.
        gaps = torch.linspace(0, 86, 4001)
        keys = torch.zeros(1, 2, 1, 1)
        keys[0, 1] = -1.0
        values = torch.tensor([[[[0.0]], [[1.0]]]])
        found = attend(gaps.view(-1, 1, 1), keys, values, torch.tensor([[0, 0, 2]] * len(gaps)), scale=1.0)
        exact = 1 / (1 + gaps.double().exp())
        torch.testing.assert_close(found.flatten().double(), exact, rtol=1e-6, atol=0)

    def test_scores_far_apart_leave_one_column(self) -> None:
        keys, values = caches(heads=1, key=1)
        keys[0, :, 0, 0] = torch.linspace(-3e4, 3e4, 40)
        found = attend(torch.ones(1, 1, 1), keys, values, torch.tensor([[0, 0, 40]]), scale=1.0)
        assert torch.equal(found[0, 0], values[0, 39, 0])

    @pytest.mark.parametrize("width", [8, WIDE])
    def test_no_bit_depends_on_company_place_or_threads(self, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
        keys, values = caches(key=width, value=width)
        generator = torch.Generator().manual_seed(1)
        query = torch.randn(50, 2, width, generator=generator)
        spans = torch.tensor([[row % 3, row % 5, 6 + row % 34] for row in range(50)])
        together = attend(query, keys, values, spans, scale=0.3)
        alone = [attend(query[[row]], keys, values, spans[[row]], scale=0.3) for row in range(50)]
        assert torch.equal(together, torch.cat(alone))
        # The same conversation elsewhere, behind which other things stand.
        elsewhere = [torch.cat([torch.full_like(cache, 7.0), cache]) for cache in (keys, values)]
        moved = attend(query, *elsewhere, spans + torch.tensor([3, 0, 0]), scale=0.3)
        assert torch.equal(moved, together)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        assert torch.equal(attend(query, keys, values, spans, scale=0.3), together)

    def test_threads_do_not_take_few_tokens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys, values = caches()
        monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
        monkeypatch.setattr(row_attention, "_pool", lambda threads: pytest.fail(f"{threads} threads"))
        attend(torch.randn(31, 2, 8), keys, values, torch.tensor([[0, 0, 1]] * 31), scale=1.0)

    def test_a_query_may_be_a_view(self) -> None:
        keys, values = caches()
        query = torch.randn(4, 8, 2)
        spans = torch.tensor([[0, 0, 9]] * 4)
        found = attend(query.transpose(1, 2), keys, values, spans, scale=1.0)
        assert torch.equal(found, attend(query.transpose(1, 2).contiguous(), keys, values, spans, scale=1.0))


def test_what_is_written_stands_at_its_place_and_nowhere_else() -> None:
    keys, values = torch.zeros(3, 5, 2, 4), torch.zeros(3, 5, 2, 3)
    both = torch.randn(2, 2, 7)
    write(keys, values, both[..., :4], both[..., 4:], torch.tensor([2, 0]), torch.tensor([4, 1]))
    for cache, new in ((keys, both[..., :4]), (values, both[..., 4:])):
        assert torch.equal(cache[2, 4], new[0])
        assert torch.equal(cache[0, 1], new[1])
        assert int((cache != 0).sum()) == new.numel()


@pytest.mark.parametrize("fault", [RuntimeError("cannot cache function: no locator available"), OSError(28, "full")])
def test_without_room_to_keep_it_it_is_compiled_all_the_same(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", refuses)
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.load", lambda *_: None)
    row_attention._kernel.cache_clear()
    keys, values = caches()
    spans, query = torch.tensor([[0, 0, 9]]), torch.ones(1, 2, 8)
    try:
        found = attend(query, keys, values, spans, scale=1.0)
    finally:
        row_attention._kernel.cache_clear()
    torch.testing.assert_close(found.double(), plain(query, keys, values, spans, 1.0))


def test_what_is_kept_has_a_name_by_its_sizes_and_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    # numba locks nothing: of two sizes under one name one could be read as the other.
    names = set()
    monkeypatch.setattr(row_attention, "njit", lambda *_, **__: lambda function: names.add(function.__qualname__))
    for sizes in ((2, 1, 8, 8), (1, 2, 8, 8), (2, 1, 8, 16)):
        row_attention._kernel.__wrapped__(*sizes)
    monkeypatch.setattr(row_attention, "get_host_cpu_name", lambda: "another")
    row_attention._kernel.__wrapped__(2, 1, 8, 8)
    assert len(names) == 4


def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    keys, values = caches()
    query, spans = torch.ones(40, 2, 8), torch.tensor([[0, 0, 9]] * 40)
    both = threading.Barrier(2)
    for _ in range(2):  # so that there are two threads, and both wait for work
        list(row_attention._pool(2).map(lambda _: both.wait(), range(2)))
    attend(query, keys, values, spans, scale=1.0)
    again = functools.partial(attend, query, keys, values, spans, scale=1.0)
    process = multiprocessing.get_context("fork").Process(target=again, daemon=True)  # if it hangs, it is ended
    process.start()
    process.join(60)
    assert process.exitcode == 0
