"""New tokens laid into rows: how many passes, what stands where, and which transformers are read so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from ilql.forward_pass import Asked, Transformer
from ilql.grid import Grid
from ilql.language_model import hidden_states, trunk_of
from ilql.method import Actor
from ilql.rows import IMPLEMENTATION, LEAST, MOST, Rows
from ilql.slot_cache import columns_for
from ilql.slots import Slots, reads_by_rows

CPU = torch.device("cpu")


@torch.inference_mode()
def read(model: nn.Module, layout: Rows | Grid, feeds: list[dict[int, list[int]]], *, slots: int) -> Tensor:
    """Feed conversations piece by piece; gives every slot's last state."""
    transformer = Transformer.of(trunk_of(model), layout.cache())
    lengths, last = [0] * slots, torch.zeros(slots, 16)
    for new in feeds:
        for one in layout.passes(new, lengths, spoken=all(len(tokens) == 1 for tokens in new.values())):
            last = one.last(one.run(transformer, None), last)
        for slot, tokens in new.items():
            lengths[slot] += len(tokens)
    return last


class TestPasses:
    def test_slots_share_passes_and_padding_is_what_is_left_over(self) -> None:
        layout = Rows(slots=10, capacity=64)
        new = {slot: list(range(1, 2 + slot)) for slot in range(10)}  # 55 tokens, 20 rows
        passes = list(layout.passes(new, [0] * 10, spoken=False))
        assert [one._ids.shape for one in passes] == [(20, 1)] * 3
        assert [one._fed for one in passes] == [20, 20, 15]
        fed = torch.cat([one._ids[: one._fed, 0] for one in passes])
        assert fed.tolist() == [token for tokens in new.values() for token in tokens]

    def test_who_speaks_has_a_row_whoever_else_does(self) -> None:
        layout = Rows(slots=20, capacity=64)
        for new in ({1: [5]}, {0: [1], 1: [2], 2: [3]}):
            (one,) = layout.passes(new, [4] * 20, spoken=True)
            assert one._ids.shape == (20, 1)

    @pytest.mark.parametrize(
        ("slots", "heard", "spoken"), [(1, LEAST, LEAST), (20, 40, 20), (64, MOST, 64), (300, MOST, MOST)]
    )
    def test_the_slots_decide_the_shape_of_a_pass_up_to_a_size(self, slots: int, heard: int, spoken: int) -> None:
        layout = Rows(slots, 64)
        assert layout.block == spoken
        for by_us, rows in ((False, heard), (True, spoken)):
            (one,) = layout.passes({0: [1]}, [0] * slots, spoken=by_us)
            assert one._ids.shape == (rows, 1)

    def test_more_speakers_than_rows_take_several_passes(self) -> None:
        new = {slot: [1] for slot in range(MOST + 1)}
        assert [one._fed for one in Rows(200, 64).passes(new, [3] * 200, spoken=True)] == [MOST, 1]

    def test_nothing_is_written_behind_a_cache(self) -> None:
        layout = Rows(1, 64)
        list(layout.passes({0: [1]}, [columns_for(64) - 1], spoken=True))
        with pytest.raises(AssertionError):
            list(layout.passes({0: [1]}, [columns_for(64)], spoken=True))

    def test_a_return_stands_where_it_was_asked_for(self) -> None:
        (one,) = Rows(2, 64).passes({0: [3, Asked(-1.5)], 1: [Asked(2.0)]}, [0, 0], spoken=False)
        assert one._asked == [(1, 0, -1.5), (2, 0, 2.0)]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
class TestStates:
    FEEDS = ({0: [3, 4, 5], 2: [*range(1, 31)]}, {0: [9], 2: [8]}, {1: [7] * 20, 2: [1, 2]}, {1: [2]})

    def test_they_are_those_of_the_whole_conversation_in_either_layout(
        self, language_model: Callable[..., nn.Module], family: str
    ) -> None:
        model = language_model(family, spread=3.0)
        conversations = [[token for new in self.FEEDS for token in new.get(slot, [])] for slot in range(3)]
        whole = [hidden_states(trunk_of(model), torch.tensor([each]))[0, -1] for each in conversations]
        for layout in (Rows(3, 64), Grid(3, 64, CPU)):
            found = read(model, layout, list(self.FEEDS), slots=3)
            torch.testing.assert_close(found, torch.stack(whole), rtol=1e-4, atol=1e-4)

    def test_no_bit_depends_on_how_hearing_is_cut_or_who_else_hears(
        self, language_model: Callable[..., nn.Module], family: str
    ) -> None:
        model = language_model(family, spread=3.0)
        long = [*range(1, 41)]
        at_once = read(model, Rows(3, 64), [{1: long}], slots=3)[1]
        in_pieces = read(model, Rows(3, 64), [{1: long[:7]}, {0: [4] * 20, 1: long[7:30]}, {1: long[30:]}], slots=3)[1]
        assert torch.equal(at_once, in_pieces)

    def test_a_transformer_attends_as_before_when_a_pass_is_over(
        self, language_model: Callable[..., nn.Module], family: str
    ) -> None:
        model = language_model(family)
        before = trunk_of(model).config._attn_implementation  # type: ignore[union-attr]
        read(model, Rows(1, 64), [{0: [1, 2]}], slots=1)
        assert trunk_of(model).config._attn_implementation == before != IMPLEMENTATION  # type: ignore[union-attr]
        (one,) = Rows(1, 64).passes({0: [10**6]}, [0], spoken=False)
        with pytest.raises(IndexError), torch.inference_mode():  # no such token
            one.run(Transformer.of(trunk_of(model), Rows(1, 64).cache()), None)
        assert trunk_of(model).config._attn_implementation == before  # type: ignore[union-attr]


class TestReads:
    def test_a_cpu_in_float32_reads_by_rows(self, language_model: Callable[..., nn.Module]) -> None:
        trunk = trunk_of(language_model())
        assert reads_by_rows(trunk, CPU)
        assert not reads_by_rows(trunk, torch.device("cuda"))
        assert not reads_by_rows(trunk.double(), CPU)

    def test_a_family_that_was_not_tried_is_left_to_the_grid(self) -> None:
        # DiffLlama parts values by what it takes for heads, which in a cache of rows are columns.
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        config = AutoConfig.for_model("diffllama", vocab_size=9, **sizes)
        factory: Any = AutoModelForCausalLM
        assert not reads_by_rows(trunk_of(factory.from_config(config)), CPU)

    def test_all_of_an_actors_transformers_are_read_alike(self, language_model: Callable[..., nn.Module]) -> None:
        class Critic:
            trunk = trunk_of(language_model(seed=1)).double()

        policy = language_model()
        alone = Slots(Actor(policy), count=2, device=CPU, keep_mean=False)
        beside = Slots(Actor(policy, Critic()), count=2, device=CPU, keep_mean=False)  # type: ignore[arg-type]
        assert [type(slots._layout) for slots in (alone, beside)] == [Rows, Grid]
