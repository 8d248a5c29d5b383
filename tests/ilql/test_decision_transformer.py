"""The decision transformer: where returns are heard, what is cloned, and that asking for a return gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch, TokenSequence, collate, dialogue_weights, tokenize
from ilql.decode import Speaker, Voice
from ilql.dialogue import Dialogue, Turn
from ilql.method import Start
from ilql.methods import bc, decision_transformer
from ilql.methods.decision_transformer import METHOD, Decode, ReturnConditioned, Train, lay_out
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

FORMS = ("trajectory", "to_go")


@pytest.fixture
def sequences(tokenizer: Tokenizer) -> list[TokenSequence]:
    """Give a dialogue with utterances worth -1 and 3, one of none, and one that opens with an utterance worth 2."""
    world = Turn("no", by_agent=False)
    first, second = Turn("a", by_agent=True, reward=-1.0), Turn("b", by_agent=True, reward=3.0)
    dialogues = [(world, first, world, second), (world,), (Turn("is it red ?", by_agent=True, reward=2.0),)]
    return [tokenize(Dialogue(turns, ended=True), tokenizer) for turns in dialogues]


@pytest.fixture
def batch(sequences: list[TokenSequence], tokenizer: Tokenizer) -> TokenBatch:
    return collate(sequences, pad=tokenizer.structural("pad"))


def built(model: nn.Module, train: Train, *, seed: int = 0) -> ReturnConditioned:
    module = decision_transformer.build(Start(model, None, seed=seed), train)
    assert isinstance(module, ReturnConditioned)
    return module


def loss_of(module: nn.Module, batch: TokenBatch, train: Train) -> Tensor:
    return decision_transformer.loss(module, batch, dialogue_weights(batch.action_mask), train).total


class TestLayout:
    def test_one_return_stands_before_everything(self, batch: TokenBatch) -> None:
        layout = lay_out(batch, each_turn=False)
        assert layout.told.tolist() == [[2.0], [0.0], [2.0]]  # -1 + 3, nothing, 2
        assert layout.told_at.tolist() == [[0], [0], [0]]
        assert layout.is_told.all()
        assert torch.equal(layout.words_at[0], torch.arange(batch.tokens.shape[1]) + 1)
        assert torch.equal(layout.predictors[batch.action_mask], batch.action_positions[batch.action_mask] + 1)
        assert layout.length == batch.tokens.shape[1] + 1

    def test_what_is_to_come_stands_behind_the_boundary_of_every_utterance(
        self, batch: TokenBatch, tokenizer: Tokenizer
    ) -> None:
        layout = lay_out(batch, each_turn=True)
        # bos no eos | a eoa no eos | b eoa eod, where | is a return: actions are chosen at 3 (the return), 4, 8 and 9.
        # (`no` is as many tokens as the tokeniser makes of it.)
        n = len(tokenizer.encode("no"))
        opening = n + 1  # the first eos
        assert layout.told_at[0, layout.is_told[0]].tolist() == [opening + 1, opening + 1 + 2 + n + 1 + 1]
        assert layout.told[0, layout.is_told[0]].tolist() == [2.0, 3.0]
        places = [opening + 1, opening + 2, opening + n + 5, opening + n + 6]
        assert layout.predictors[0, :4].tolist() == places
        assert not layout.is_told[1].any()
        assert layout.told[2, layout.is_told[2]].tolist() == [2.0]
        assert layout.told_at[2, layout.is_told[2]].tolist() == [1]  # behind the token that opens the dialogue

    @pytest.mark.parametrize("each_turn", [True, False])
    def test_no_two_things_stand_in_one_place(self, batch: TokenBatch, each_turn: bool) -> None:
        layout = lay_out(batch, each_turn=each_turn)
        for row in range(len(batch.tokens)):
            words = layout.words_at[row, batch.attention_mask[row]].tolist()
            told = layout.told_at[row, layout.is_told[row]].tolist()
            assert sorted(words + told) == list(range(len(words) + len(told)))
            assert words == sorted(words)


class TestLoss:
    @pytest.mark.parametrize("form", FORMS)
    def test_it_is_the_cloning_loss_of_the_dialogue_with_its_returns_put_in_by_hand(
        self, form: str, sequences: list[TokenSequence], batch: TokenBatch, language_model: Callable[..., nn.Module]
    ) -> None:
        train = Train(returns=form)
        module = built(language_model(seed=1, spread=3.0), train)
        model: Any = module.language_model
        means = []
        for s in (sequences[0], sequences[2]):
            rest, heard, wanted = float(s.rewards.sum()), [], []
            words = model.base_model.get_input_embeddings()(torch.from_numpy(s.tokens))
            told_from = set(s.action_positions[np.concatenate([[True], s.ends[:-1]])].tolist())
            if form == "trajectory":
                heard.append(module.embed(torch.tensor(rest)))
            for p, word in enumerate(words):
                heard.append(word)
                if form == "to_go" and p in told_from:
                    heard.append(module.embed(torch.tensor(rest)))
                if p in s.action_positions.tolist():
                    wanted.append((len(heard) - 1, int(s.tokens[p + 1])))
                    rest -= float(s.rewards[s.action_positions.tolist().index(p)])
            log_p = model(inputs_embeds=torch.stack(heard)[None]).logits[0].log_softmax(-1)
            means.append(sum(-log_p[place, token].item() for place, token in wanted) / len(wanted))
        assert loss_of(module, batch, train).item() == pytest.approx(sum(means) / 2, rel=1e-5)

    @pytest.mark.parametrize("form", FORMS)
    def test_another_return_is_another_loss(
        self, form: str, batch: TokenBatch, language_model: Callable[..., nn.Module]
    ) -> None:
        train, module = Train(returns=form), built(language_model(spread=3.0), Train(returns=form))
        other = TokenBatch(**{**vars(batch), "rewards": 5 * batch.rewards})
        assert loss_of(module, batch, train).item() != loss_of(module, other, train).item()

    def test_what_the_returns_push_out_of_the_context_is_lost_and_no_more(
        self, batch: TokenBatch, sequences: list[TokenSequence], language_model: Callable[..., nn.Module]
    ) -> None:
        wide = built(language_model(context=64), Train())
        length = len(sequences[0].tokens)
        narrow = built(language_model(context=length - 1), Train())
        narrow.load_state_dict(
            {
                name: value[: length - 1] if name.endswith("wpe.weight") else value
                for name, value in wide.state_dict().items()
            }
        )
        # With the return, the dialogue's last two tokens stand outside: `eoa`, whose choice is still made inside, at
        # the last place, and `eod`. One place less, and the choice of `eoa` is lost as well.
        assert loss_of(narrow, batch, Train()).item() == pytest.approx(loss_of(wide, batch, Train()).item(), rel=1e-5)
        less = built(language_model(context=length - 2), Train())
        less.load_state_dict(
            {
                name: value[: length - 2] if name.endswith("wpe.weight") else value
                for name, value in wide.state_dict().items()
            }
        )
        without = dialogue_weights(batch.action_mask)
        without[0, int(batch.action_mask[0].sum()) - 1] = 0.0
        expected = decision_transformer.loss(wide, batch, without, Train()).total.item()
        # What is lost still counts in the mean: so it does not matter how a batch is cut into micro-batches.
        expected *= (without.sum() / dialogue_weights(batch.action_mask).sum()).item()
        assert loss_of(less, batch, Train()).item() == pytest.approx(expected, rel=1e-5)


class TestActing:
    @pytest.mark.parametrize("form", FORMS)
    def test_asked_for_a_return_it_does_what_was_done_for_it(
        self, form: str, language_model: Callable[..., nn.Module], pulls: list[TokenSequence], tokenizer: Tokenizer
    ) -> None:
        settings = Train(returns=form, steps=80, batch_size=8, learning_rate=1e-2)
        module = built(language_model(), settings)
        pad = tokenizer.structural("pad")
        for _ in train(METHOD, module, pulls, settings, pad=pad, seed=0, loop=Loop(log_every=1000)):
            pass
        speaker = Speaker(METHOD.actor(module, None), tokenizer, slots=2, device=torch.device("cpu"))
        voices = []
        for slot, wanted in enumerate((0.0, 1.0)):
            decode = Decode(target_return=wanted)
            manner = METHOD.manner(settings, decode)
            assert manner.asked_each_turn == (form == "to_go")
            assert manner.target_return == wanted
            opening = [tokenizer.structural("bos"), *tokenizer.encode("pull"), tokenizer.structural("eos")]
            if form == "trajectory":
                speaker.ask(slot, wanted)
            speaker.hear(slot, opening)
            if form == "to_go":
                speaker.ask(slot, wanted)
            voices.append(Voice(slot, decode, manner, np.random.default_rng(0)))
        assert [utterance.text for utterance in speaker.speak(voices)] == ["a", "b"]


def test_it_starts_from_the_pretrained_model_and_a_seeded_map(language_model: Callable[..., nn.Module]) -> None:
    model = language_model()
    one, same, other = (built(model, Train(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.told.weight, same.told.weight)
    assert not torch.equal(one.told.weight, other.told.weight)
    copied = bc.build(Start(model, None, seed=0), bc.Train())
    assert all(map(torch.equal, one.language_model.parameters(), copied.parameters()))
