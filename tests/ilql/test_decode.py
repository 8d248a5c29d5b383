"""Cached, batched speaking says what an uncached model would, whoever else is speaking."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql import token_values
from ilql.decode import Speaker, Utterance, Voice
from ilql.language_model import Architecture, build_language_model, trunk_of, vocabulary_size
from ilql.method import Actor, Decoding, Manner, Start
from ilql.methods import ilql
from ilql.networks import QNetwork
from ilql.tokens import Tokenizer

pytestmark = pytest.mark.usefixtures("layout")

CPU = torch.device("cpu")
FAMILIES = ["gpt2", "llama"]
GREEDY = Decoding(max_new_tokens=6)
SAMPLING = Decoding(greedy=False, max_new_tokens=6)
WORLD = ["two cats in the snow", "no", "yes", "how many are there ? " * 4]  # the last takes several passes to hear


@pytest.fixture(scope="module")
def actors(language_model: Callable[..., nn.Module]) -> dict[str, Actor]:
    """Give an actor of each family; its Q is spread over several units."""
    made = {}
    for family in FAMILIES:
        policy, critic = (language_model(family, seed=seed, spread=12.0, context=256) for seed in (0, 1))
        module = token_values.build(Start(policy, critic, seed=2), ilql.Train())
        target = module.target
        assert isinstance(target, QNetwork)
        with torch.no_grad():
            for head in target.q_heads:
                head.get_submodule("2").weight.mul_(6.0)  # type: ignore[operator]
        made[family] = Actor(policy, target)
    return made


def voice(slot: int = 0, *, decode: Decoding = GREEDY, beta: float = 1.0, seed: int = 0) -> Voice:
    return Voice(slot, decode, Manner(beta=beta), np.random.default_rng(seed))


def heard(tokenizer: Tokenizer, turn: int) -> list[int]:
    """Give the tokens of what the world says at a turn, a beginning before the first."""
    start = [tokenizer.structural("bos")] if turn == 0 else []
    return [*start, *tokenizer.encode(WORLD[turn % len(WORLD)]), tokenizer.structural("eos")]


def naive(
    actor: Actor, tokenizer: Tokenizer, ids: list[int], *, beta: float, limit: int
) -> tuple[tuple[int, ...], float]:
    """Speak greedily by running the whole conversation through Transformers' own model for every token."""
    said: list[int] = []
    ratio, unwritable = 0.0, torch.from_numpy(~tokenizer.writable())
    assert isinstance(actor.critic, QNetwork)
    while len(said) < limit and tokenizer.structural("eoa") not in said:
        tokens = torch.tensor([ids + said])
        base: Tensor = actor.language_model(tokens).logits[0, -1]
        q = actor.critic.minimum(actor.critic.trunk(tokens).last_hidden_state[0, -1])
        if actor.relative:
            q = q + base.log_softmax(-1)
        base = base.masked_fill(unwritable, -torch.inf).log_softmax(-1)
        score = q.masked_fill(unwritable, -torch.inf) if math.isinf(beta) else base + beta * q
        token = int(score.argmax())
        ratio -= float(base[token])  # log π = 0 of the one token that a greedy policy can choose
        said.append(token)
    return tuple(said), ratio


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beta", [0.0, 2.0, math.inf])
@pytest.mark.parametrize("relative", [False, True])
def test_greedy_speaking_is_that_of_an_uncached_model_over_several_turns(
    actors: dict[str, Actor], tokenizer: Tokenizer, family: str, beta: float, relative: bool
) -> None:
    actor = dataclasses.replace(actors[family], relative=relative)
    speaker = Speaker(actor, tokenizer, slots=2, device=CPU)
    conversation: list[int] = []
    kinds = set()
    for turn in range(6):
        speaker.hear(1, heard(tokenizer, turn))
        conversation += heard(tokenizer, turn)
        utterance = speaker.speak([voice(1, beta=beta)])[0]
        tokens, ratio = naive(actor, tokenizer, conversation, beta=beta, limit=GREEDY.max_new_tokens)
        assert utterance.tokens == tokens
        assert utterance.log_ratio == pytest.approx(ratio, abs=1e-3)
        conversation += [*tokens] if utterance.finished else [*tokens, tokenizer.structural("eoa")]
        kinds.add(tokens)
    assert len(kinds) > 1  # else this would show little


def talk(
    actor: Actor,
    tokenizer: Tokenizer,
    *,
    slot: int,
    decode: Decoding = SAMPLING,
    others: dict[int, float] | None = None,
    slots: int = 8,
) -> list[Utterance]:
    """Let one slot speak three times, with other slots of other βs, talking about other things, beside it."""
    speaker = Speaker(actor, tokenizer, slots=slots, device=CPU)
    mine = voice(slot, decode=decode, beta=1.5, seed=7)
    company = [voice(s, decode=decode, beta=beta, seed=s) for s, beta in (others or {}).items()]
    said = []
    for turn in range(3):
        speaker.hear(slot, heard(tokenizer, turn))
        for place, other in enumerate(company):
            speaker.hear(other.slot, heard(tokenizer, turn if turn == 0 else turn + place))
        voices = sorted([mine, *company], key=lambda v: v.slot)
        said.append(speaker.speak(voices)[voices.index(mine)])
    return said


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("decode", [GREEDY, SAMPLING], ids=["greedy", "sampling"])
class TestCompany:
    def test_what_is_said_beside_it_changes_no_bit(
        self, actors: dict[str, Actor], tokenizer: Tokenizer, family: str, decode: Decoding
    ) -> None:
        alone = talk(actors[family], tokenizer, slot=2, decode=decode)
        for others in ({0: 1.5}, {1: 0.0, 3: 4.0, 7: math.inf}, dict.fromkeys([0, 1, 3, 4, 5, 6, 7], 9.0)):
            assert talk(actors[family], tokenizer, slot=2, decode=decode, others=others) == alone

    @pytest.mark.parametrize("longer", [1, 3])
    def test_a_longer_conversation_beside_it_changes_no_bit(
        self, actors: dict[str, Actor], tokenizer: Tokenizer, family: str, decode: Decoding, longer: int
    ) -> None:
        alone = talk(actors[family], tokenizer, slot=2, decode=decode)
        speaker = Speaker(actors[family], tokenizer, slots=8, device=CPU)
        mine, other = voice(2, decode=decode, beta=1.5, seed=7), voice(5, decode=decode, beta=1.5)
        speaker.hear(5, heard(tokenizer, 3) * longer)
        speaker.speak([other])
        said = []
        for turn in range(3):
            for each in (mine, other):
                speaker.hear(each.slot, heard(tokenizer, turn))
            said.append(speaker.speak([mine, other])[0])
        assert said == alone

    @pytest.mark.parametrize("slots", [8, 64, 200])
    def test_the_slot_it_is_in_changes_no_bit(
        self, actors: dict[str, Actor], tokenizer: Tokenizer, family: str, decode: Decoding, slots: int
    ) -> None:
        first = talk(actors[family], tokenizer, slot=0, decode=decode, slots=slots)
        for slot in (1, slots // 2 + 1, slots - 1):
            assert talk(actors[family], tokenizer, slot=slot, decode=decode, slots=slots) == first

    def test_a_slot_that_is_used_again_remembers_nothing(
        self, actors: dict[str, Actor], tokenizer: Tokenizer, family: str, decode: Decoding
    ) -> None:
        speaker = Speaker(actors[family], tokenizer, slots=8, device=CPU)
        said = []
        for _ in range(2):
            speaker.restart(3)
            speaker.hear(3, heard(tokenizer, 0))
            said.append(speaker.speak([voice(3, decode=decode)]))
            speaker.hear(3, heard(tokenizer, 3))
            said.append(speaker.speak([voice(3, decode=decode)]))
        assert said[:2] == said[2:]


def test_a_conversation_beyond_two_hundred_tokens_beside_it_changes_no_bit(tokenizer: Tokenizer) -> None:
    # Heads of 32 and more than 192 columns: where MKL sums the attention of several tokens in another order.
    sizes = Architecture(layers=2, width=64, heads=2, context=256)
    actor = Actor(build_language_model(sizes, vocabulary=tokenizer.size, seed=0))

    def state(others: list[int]) -> Tensor:
        speaker = Speaker(actor, tokenizer, slots=8, device=CPU)
        slots = sorted([2, *others])
        voices = [voice(slot, beta=0.0) for slot in slots]
        for v in voices:
            speaker.hear(v.slot, heard(tokenizer, 3) * (5 if v.slot == 2 else 8))  # 125 or 200 tokens
        speaker.speak(voices)
        for v in voices:
            speaker.hear(v.slot, heard(tokenizer, 1))
        return speaker.propose(voices, 1)[slots.index(2)][0].last

    assert torch.equal(state([]), state([0, 5]))


def test_one_or_three_betas_share_the_pass(actors: dict[str, Actor], tokenizer: Tokenizer) -> None:
    def say(betas: list[float]) -> list[Utterance]:
        speaker = Speaker(actors["gpt2"], tokenizer, slots=4, device=CPU)
        for slot in range(len(betas)):
            speaker.hear(slot, heard(tokenizer, 0))
        return speaker.speak([voice(slot, beta=beta) for slot, beta in enumerate(betas)])

    together = say([0.0, 2.0, math.inf])
    assert [say([beta])[0] for beta in (0.0, 2.0, math.inf)] == together
    assert len({utterance.tokens for utterance in together}) == 3


class TestTogether:
    """Voices that share a slot, and what becomes of those that part from it."""

    def test_one_who_is_not_waited_for_goes_on_in_the_next_call(
        self, actors: dict[str, Actor], tokenizer: Tokenizer
    ) -> None:
        long, brief = Decoding(max_new_tokens=6), Decoding(max_new_tokens=1)
        patient, hasty = (Speaker(actors["gpt2"], tokenizer, slots=4, device=CPU) for _ in range(2))
        for speaker in (patient, hasty):
            for slot in (0, 1):
                speaker.hear(slot, heard(tokenizer, 0))
        voices = [voice(0, decode=long), voice(1, decode=brief)]
        waited_for = patient.speak(voices)
        assert len(waited_for[0].tokens) > 2  # so that it is in the middle of it
        spoken = hasty.speak_together(voices, impatience=1)
        assert [s.utterance for s in spoken] == [None, waited_for[1]]
        hasty.hear(1, heard(tokenizer, 1))
        assert hasty.speak_together(voices)[0].utterance == waited_for[0]

    def test_one_who_parts_goes_on_where_it_is_put(self, actors: dict[str, Actor], tokenizer: Tokenizer) -> None:
        def goes_on(speaker: Speaker, slot: int, beta: float) -> Utterance:
            speaker.hear(slot, heard(tokenizer, 1))
            return speaker.speak([voice(slot, beta=beta)])[0]

        expected = []
        for beta in (0.0, math.inf):
            speaker = Speaker(actors["gpt2"], tokenizer, slots=4, device=CPU)
            speaker.hear(0, heard(tokenizer, 0))
            expected.append((speaker.speak([voice(0, beta=beta)])[0], goes_on(speaker, 0, beta)))
        speaker = Speaker(actors["gpt2"], tokenizer, slots=4, device=CPU)
        speaker.hear(2, heard(tokenizer, 0))
        stays, parts = speaker.speak_together([voice(2, beta=0.0), voice(2, beta=math.inf)])
        assert (stays.utterance, stays.apart) == (expected[0][0], None)
        assert parts.utterance is None
        assert parts.apart is not None
        speaker.put(1, parts.apart)
        assert speaker.speak([voice(1, beta=math.inf)])[0] == expected[1][0]
        assert [goes_on(speaker, 2, 0.0), goes_on(speaker, 1, math.inf)] == [expected[0][1], expected[1][1]]


class TestLimits:
    def test_the_end_token_counts(self, actors: dict[str, Actor], tokenizer: Tokenizer) -> None:
        lengths = set()
        for limit in range(1, 7):
            speaker = Speaker(actors["gpt2"], tokenizer, slots=1, device=CPU)
            speaker.hear(0, heard(tokenizer, 0))
            decode = Decoding(max_new_tokens=limit, greedy=False)
            said = speaker.speak([voice(decode=decode, beta=0.0, seed=3)])[0]
            assert len(said.tokens) <= limit
            assert said.finished == (said.tokens[-1] == tokenizer.structural("eoa"))
            lengths.add(len(said.tokens))
        assert 1 in lengths

    def test_a_full_context_ends_in_empty_utterances_and_touches_nobody_else(
        self, language_model: Callable[..., nn.Module], tokenizer: Tokenizer
    ) -> None:
        actor = Actor(language_model(context=24, spread=12.0), None)
        alone, crowded = (Speaker(actor, tokenizer, slots=2, device=CPU) for _ in range(2))
        lengths = []
        for turn in range(12):
            crowded.hear(0, heard(tokenizer, turn))
            voices = [voice(0)]
            if turn == 11:
                for speaker in (alone, crowded):
                    speaker.hear(1, heard(tokenizer, 0))
                voices.append(voice(1))
            said = crowded.speak(voices)
            lengths.append(len(said[0].tokens))
        assert lengths[0] > 0
        assert lengths[-3:] == [0, 0, 0]
        assert (said[0].text, said[0].finished, said[0].log_ratio) == ("", False, 0.0)
        assert alone.speak([voice(1)])[0] == said[1]

    def test_a_first_turn_longer_than_the_context_is_answered_with_nothing(
        self, language_model: Callable[..., nn.Module], tokenizer: Tokenizer
    ) -> None:
        speaker = Speaker(Actor(language_model(context=8), None), tokenizer, slots=1, device=CPU)
        speaker.hear(0, [tokenizer.structural("bos")] * 9)
        assert speaker.speak([voice()])[0].tokens == ()

    @torch.no_grad()
    def test_the_last_place_of_the_context_is_used_without_an_error(
        self, language_model: Callable[..., nn.Module], tokenizer: Tokenizer
    ) -> None:
        for length in range(4, 9):
            speaker = Speaker(Actor(language_model(context=8), None), tokenizer, slots=1, device=CPU)
            speaker.hear(0, [tokenizer.structural("bos")] * length)
            said = speaker.speak([voice()])[0].tokens
            assert len(said) <= max(0, 8 - length - 1)
            speaker.hear(0, heard(tokenizer, 1))
            assert len(speaker.speak([voice()])[0].tokens) <= 1


def test_structure_is_never_said(actors: dict[str, Actor], tokenizer: Tokenizer) -> None:
    speaker = Speaker(actors["llama"], tokenizer, slots=1, device=CPU)
    speaker.hear(0, heard(tokenizer, 0))
    said = speaker.speak([voice(decode=Decoding(greedy=False, temperature=50.0, max_new_tokens=100), beta=0.0)])[0]
    forbidden = set(range(tokenizer.text_size, tokenizer.size)) - {tokenizer.structural("eoa")}
    assert not forbidden & set(said.tokens)


def test_a_beta_below_zero_is_refused(actors: dict[str, Actor], tokenizer: Tokenizer) -> None:
    speaker = Speaker(actors["gpt2"], tokenizer, slots=1, device=CPU)
    speaker.hear(0, heard(tokenizer, 0))
    with pytest.raises(ValueError, match="beta must be at least 0, got -1"):
        speaker.speak([voice(beta=-1)])


class Favourite:
    """A critic that is no network of ours: it reads with a transformer, and likes one token best."""

    def __init__(self, trunk: nn.Module, token: int) -> None:
        self.trunk, self._token = trunk, token

    def minimum(self, hidden: Tensor) -> Tensor:
        q = torch.zeros(*hidden.shape[:-1], vocabulary_size(self.trunk))
        q[..., self._token] = 1e4
        return q


def test_a_critic_is_whatever_gives_a_q_of_every_token(actors: dict[str, Actor], tokenizer: Tokenizer) -> None:
    model = actors["gpt2"].language_model
    token = tokenizer.encode("b")[0]
    critic = Favourite(trunk_of(model), token)
    speaker = Speaker(Actor(model, critic), tokenizer, slots=1, device=CPU)
    speaker.hear(0, heard(tokenizer, 0))
    assert speaker.speak([voice()])[0].tokens == (token,) * GREEDY.max_new_tokens
