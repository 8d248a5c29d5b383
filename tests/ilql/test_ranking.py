"""A judge ranks whole utterances: the one it prefers is said, and the conversation goes on as if it had been heard."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql.decode import Speaker, Utterance, Voice
from ilql.drafts import Draft
from ilql.evaluate import Player, play
from ilql.language_model import trunk_of
from ilql.method import Actor, Decoding, Manner
from ilql.slot_cache import CHUNK
from ilql.tasks.bandit import Bandit
from ilql.tokens import Tokenizer

pytestmark = pytest.mark.usefixtures("layout")

CPU = torch.device("cpu")
FAMILIES = ["gpt2", "llama"]
SAMPLING = Decoding(greedy=False, max_new_tokens=6)
LONG = Decoding(greedy=False, max_new_tokens=20)  # takes several passes to hear
WORLD = ["two cats in the snow", "no", "yes", "how many are there ? " * 4]


class Taste(nn.Module):
    """A judge made by hand: it likes what lies along a direction, of the last state or of the mean."""

    def __init__(self, trunk: nn.Module | None, *, by: str, sign: float = 1.0) -> None:
        super().__init__()
        self.trunk, self._by = trunk, by
        self.direction = nn.Parameter(sign * torch.linspace(-1, 1, 16), requires_grad=False)
        self.asked: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def score(self, last: Tensor, mean: Tensor) -> Tensor:
        self.asked.append((tuple(last.shape), tuple(mean.shape)))
        return (last if self._by == "last" else mean) @ self.direction


@pytest.fixture(scope="module")
def models(language_model: Callable[..., nn.Module]) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Give a policy and a judge's model of each family."""
    return {
        family: (
            language_model(family, seed=0, spread=6.0, context=256),
            language_model(family, seed=1, spread=6.0, context=256),
        )
        for family in FAMILIES
    }


@pytest.fixture(params=[(family, own) for family in FAMILIES for own in (True, False)], ids=str)
def networks(
    request: pytest.FixtureRequest, models: dict[str, tuple[nn.Module, nn.Module]]
) -> tuple[nn.Module, nn.Module | None]:
    """Give a policy and a judge's trunk, which is None where the judge reads the policy's own hidden states."""
    family, own = request.param
    policy, other = models[family]
    return policy, trunk_of(other) if own else None


def voice(
    slot: int = 0, *, candidates: int = 4, weight: float = 0.0, seed: int = 0, decode: Decoding = SAMPLING
) -> Voice:
    manner = Manner(candidates=candidates, log_prob_weight=weight)
    return Voice(slot, decode, manner, np.random.default_rng(seed))


def heard(tokenizer: Tokenizer, turn: int) -> list[int]:
    """Give the tokens of what the world says at a turn, a beginning before the first."""
    start = [tokenizer.structural("bos")] if turn == 0 else []
    return [*start, *tokenizer.encode(WORLD[turn % len(WORLD)]), tokenizer.structural("eos")]


def whole(tokenizer: Tokenizer, said: Draft | Utterance) -> list[int]:
    """Give an utterance's tokens with its end, even if it never came to one."""
    return [*said.tokens] if said.finished else [*said.tokens, tokenizer.structural("eoa")]


@torch.no_grad()
def direct(trunk: nn.Module, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Give the last hidden state and the mean of all of a conversation that is read at once."""
    states: Tensor = trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return states[-1], states.mean(dim=0)


@torch.no_grad()
def log_probability(model: nn.Module, tokenizer: Tokenizer, ids: list[int], said: Sequence[int]) -> float:
    """Give Σ log π_β of what was said after some tokens, among what may be written, read at once."""
    logits: Tensor = model(torch.tensor([[*ids, *said]])).logits[0]
    log_pi = logits.masked_fill(torch.from_numpy(~tokenizer.writable()), -torch.inf).log_softmax(-1)
    return math.fsum(float(log_pi[len(ids) - 1 + place, token]) for place, token in enumerate(said))


class TestDrafts:
    @pytest.mark.parametrize("decode", [SAMPLING, LONG], ids=["short", "long"])
    def test_their_features_and_log_probabilities_are_those_of_the_conversation_read_at_once(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer, decode: Decoding
    ) -> None:
        policy, trunk = networks
        speaker = Speaker(Actor(policy, judge=Taste(trunk, by="last")), tokenizer, slots=3, device=CPU)
        conversation: list[int] = []
        for turn in range(3):
            speaker.hear(1, heard(tokenizer, turn))
            conversation += heard(tokenizer, turn)
            drafts = speaker.propose([voice(1, seed=turn, decode=decode)], 3)[0]
            assert len({draft.tokens for draft in drafts}) > 1
            for draft in drafts:
                last, mean = direct(trunk or trunk_of(policy), [*conversation, *whole(tokenizer, draft)])
                assert torch.allclose(draft.last, last, atol=1e-5)
                assert torch.allclose(draft.mean, mean, atol=1e-5)
                assert draft.finished == (draft.tokens[-1] == tokenizer.structural("eoa"))
                expected = log_probability(policy, tokenizer, conversation, draft.tokens)
                assert draft.log_probability == pytest.approx(expected, abs=1e-3)
            conversation += whole(tokenizer, drafts[0])
            speaker.hear(1, whole(tokenizer, drafts[0]))

    def test_proposing_leaves_the_slot_where_it_was(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer
    ) -> None:
        policy, trunk = networks
        quiet, proposing = (
            Speaker(Actor(policy, judge=Taste(trunk, by="mean")), tokenizer, slots=2, device=CPU) for _ in range(2)
        )
        for turn in range(3):
            for speaker in (quiet, proposing):
                speaker.hear(0, heard(tokenizer, turn))
            proposing.propose([voice(seed=99, decode=LONG)], 2)
            assert quiet.speak([voice(seed=turn)]) == proposing.speak([voice(seed=turn)])

    def test_a_longer_row_of_proposals_begins_with_the_shorter_one(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer
    ) -> None:
        policy, trunk = networks
        rows = []
        for counts in ([5], [2, 3]):  # at once, and in two calls with the same generator
            speaker = Speaker(Actor(policy, judge=Taste(trunk, by="mean")), tokenizer, slots=2, device=CPU)
            speaker.hear(0, heard(tokenizer, 0))
            mine = voice(seed=3)
            drafts = [draft for count in counts for draft in speaker.propose([mine], count)[0]]
            rows.append([(d.tokens, d.log_probability, d.last.tolist(), d.mean.tolist()) for d in drafts])
        assert rows[0] == rows[1]


class TestChoice:
    @pytest.mark.parametrize("by", ["last", "mean"])
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_the_candidate_the_judge_prefers_is_said(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer, by: str, sign: float
    ) -> None:
        policy, trunk = networks
        judge = Taste(trunk, by=by, sign=sign)
        speaker = Speaker(Actor(policy, judge=judge), tokenizer, slots=2, device=CPU)
        places = []
        for seed in range(4):
            speaker.restart(0)
            speaker.hear(0, heard(tokenizer, 0))
            drafts = speaker.propose([voice(seed=seed)], 5)[0]
            scores = []
            for draft in drafts:
                last, mean = direct(trunk or trunk_of(policy), [*heard(tokenizer, 0), *whole(tokenizer, draft)])
                scores.append(float((last if by == "last" else mean) @ judge.direction))
            said = speaker.speak([voice(seed=seed, candidates=5)])[0]
            assert said.tokens == drafts[int(np.argmax(scores))].tokens
            places.append(int(np.argmax(scores)))
        assert len(set(places)) > 1  # else this would show little

    def test_among_equals_the_first_is_said(
        self, models: dict[str, tuple[nn.Module, nn.Module]], tokenizer: Tokenizer
    ) -> None:
        policy, _ = models["gpt2"]
        speaker = Speaker(Actor(policy, judge=Taste(None, by="last", sign=0.0)), tokenizer, slots=1, device=CPU)
        speaker.hear(0, heard(tokenizer, 0))
        first, *others = speaker.propose([voice(seed=1)], 4)[0]
        assert all(other.tokens != first.tokens for other in others)
        assert speaker.speak([voice(seed=1, candidates=4)])[0].tokens == first.tokens

    def test_one_candidate_is_the_first_proposal_whatever_the_judge_thinks(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer
    ) -> None:
        policy, trunk = networks
        for sign in (1.0, -1.0):
            speaker = Speaker(Actor(policy, judge=Taste(trunk, by="last", sign=sign)), tokenizer, slots=1, device=CPU)
            speaker.hear(0, heard(tokenizer, 0))
            draft = speaker.propose([voice(seed=2)], 1)[0][0]
            said = speaker.speak([voice(seed=2, candidates=1)])[0]
            assert (said.tokens, said.finished) == (draft.tokens, draft.finished)
            assert said.text == tokenizer.decode(draft.tokens)
            assert said.log_ratio == pytest.approx(0.0, abs=1e-5)

    def test_the_weight_of_the_log_probability_counts_beside_the_score(
        self, models: dict[str, tuple[nn.Module, nn.Module]], tokenizer: Tokenizer
    ) -> None:
        policy, _ = models["gpt2"]
        chosen = []
        for weight in (0.0, 0.3, 1e4):
            judge = Taste(None, by="last")
            speaker = Speaker(Actor(policy, judge=judge), tokenizer, slots=1, device=CPU)
            speaker.hear(0, heard(tokenizer, 0))
            drafts = speaker.propose([voice(seed=6)], 6)[0]
            scores = [float(d.last @ judge.direction) + weight * d.log_probability for d in drafts]
            said = speaker.speak([voice(seed=6, candidates=6, weight=weight)])[0]
            assert said.tokens == drafts[int(np.argmax(scores))].tokens
            chosen.append(said.tokens)
        assert chosen[-1] == max(drafts, key=lambda d: d.log_probability).tokens  # so strong that it alone counts
        assert chosen[0] != chosen[-1]

    @pytest.mark.parametrize(("candidates", "expected"), [(1, 0.0), (2, math.log(2) - 1 / 2), (8, math.log(8) - 7 / 8)])
    def test_the_log_ratio_is_the_best_of_ns(
        self, models: dict[str, tuple[nn.Module, nn.Module]], tokenizer: Tokenizer, candidates: int, expected: float
    ) -> None:
        policy, _ = models["llama"]
        speaker = Speaker(Actor(policy, judge=Taste(None, by="mean")), tokenizer, slots=1, device=CPU)
        speaker.hear(0, heard(tokenizer, 0))
        assert speaker.speak([voice(candidates=candidates)])[0].log_ratio == pytest.approx(expected, abs=1e-5)


class TestContinuation:
    @pytest.mark.parametrize("decode", [SAMPLING, LONG], ids=["short", "long"])
    def test_the_conversation_goes_on_as_if_what_was_chosen_had_been_heard_from_the_start(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer, decode: Decoding
    ) -> None:
        policy, trunk = networks
        actor = Actor(policy, judge=Taste(trunk, by="mean"))
        speaker = Speaker(actor, tokenizer, slots=2, device=CPU)
        conversation: list[int] = []
        for turn in range(4):
            speaker.hear(1, heard(tokenizer, turn))
            conversation += heard(tokenizer, turn)
            fresh = Speaker(actor, tokenizer, slots=2, device=CPU)
            fresh.hear(1, conversation)
            ours, theirs = (s.propose([voice(1, seed=50 + turn, decode=decode)], 2)[0] for s in (speaker, fresh))
            for one, other in zip(ours, theirs, strict=True):
                assert one.tokens == other.tokens
                assert torch.allclose(one.last, other.last, atol=1e-5)
                assert torch.allclose(one.mean, other.mean, atol=1e-5)
            said = speaker.speak([voice(1, seed=turn, decode=decode)])[0]
            assert fresh.speak([voice(1, seed=turn, decode=decode)])[0].tokens == said.tokens
            conversation += whole(tokenizer, said)

    def test_a_slot_that_is_used_again_remembers_nothing(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer
    ) -> None:
        policy, trunk = networks
        speaker = Speaker(Actor(policy, judge=Taste(trunk, by="mean")), tokenizer, slots=2, device=CPU)
        said, means = [], []
        for _ in range(2):
            speaker.restart(1)
            for turn in range(2):
                speaker.hear(1, heard(tokenizer, turn))
                means.append(speaker.propose([voice(1, seed=turn)], 1)[0][0].mean.tolist())
                said.append(speaker.speak([voice(1, seed=turn)]))
        assert said[:2] == said[2:]
        assert means[:2] == means[2:]

    def test_at_the_contexts_end_it_falls_silent_and_touches_nobody_else(
        self, language_model: Callable[..., nn.Module], tokenizer: Tokenizer
    ) -> None:
        actor = Actor(language_model(context=24, spread=6.0), judge=Taste(None, by="mean"))
        alone, crowded = (Speaker(actor, tokenizer, slots=2, device=CPU) for _ in range(2))
        lengths, length = [], 0
        for turn in range(12):
            crowded.hear(0, heard(tokenizer, turn))
            voices = [voice(0, seed=turn)]
            if turn == 11:
                for speaker in (alone, crowded):
                    speaker.hear(1, heard(tokenizer, 0))
                voices.append(voice(1))
            said = crowded.speak(voices)
            length += len(heard(tokenizer, turn)) + len(whole(tokenizer, said[0]))
            assert length <= 24 or not said[0].tokens
            lengths.append(len(said[0].tokens))
        assert lengths[0] > 0
        assert lengths[-3:] == [0, 0, 0]
        assert (said[0].text, said[0].finished) == ("", False)
        assert alone.speak([voice(1)])[0] == said[1]

    def test_a_full_conversation_has_room_for_its_end_beside_one_that_is_read_for_long(
        self, language_model: Callable[..., nn.Module], tokenizer: Tokenizer
    ) -> None:
        policy, other = language_model(context=64, spread=6.0), language_model(context=64, seed=1)
        speaker = Speaker(Actor(policy, judge=Taste(trunk_of(other), by="mean")), tokenizer, slots=2, device=CPU)
        speaker.hear(0, [tokenizer.structural("bos")] * 64)
        speaker.hear(1, [tokenizer.structural("bos")])
        endless = Decoding(greedy=False, max_new_tokens=60)
        full, long = speaker.propose([voice(slot, decode=endless, seed=5) for slot in (0, 1)], 4)
        assert {len(draft.tokens) for draft in full} == {0}
        assert max(len(draft.tokens) for draft in long) > 2 * CHUNK  # so that the full one is passed by twice

    def test_a_first_turn_longer_than_the_context_is_answered_with_nothing(
        self, language_model: Callable[..., nn.Module], tokenizer: Tokenizer
    ) -> None:
        actor = Actor(language_model(context=8), judge=Taste(None, by="mean"))
        speaker = Speaker(actor, tokenizer, slots=1, device=CPU)
        speaker.hear(0, [tokenizer.structural("bos")] * 9)
        assert speaker.speak([voice()])[0].tokens == ()


class TestCompany:
    def talk(
        self,
        networks: tuple[nn.Module, nn.Module | None],
        tokenizer: Tokenizer,
        *,
        slot: int,
        others: dict[int, int] | None = None,
        slots: int = 8,
        reverse: bool = False,
    ) -> list[Utterance]:
        """Let one slot speak three times, with slots of other numbers of candidates beside it."""
        policy, trunk = networks
        speaker = Speaker(Actor(policy, judge=Taste(trunk, by="last")), tokenizer, slots=slots, device=CPU)
        mine = voice(slot, seed=7)
        company = [voice(s, seed=s, candidates=n) for s, n in (others or {}).items()]
        said = []
        for turn in range(3):
            speaker.hear(slot, heard(tokenizer, turn))
            for place, other in enumerate(company):
                speaker.hear(other.slot, heard(tokenizer, turn if turn == 0 else turn + place))
            voices = sorted([mine, *company], key=lambda v: v.slot, reverse=reverse)
            said.append(speaker.speak(voices)[voices.index(mine)])
        return said

    def test_what_is_said_beside_it_changes_no_bit(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer
    ) -> None:
        alone = self.talk(networks, tokenizer, slot=2)
        for others in ({0: 4}, {1: 1, 3: 6, 7: 2}):
            assert self.talk(networks, tokenizer, slot=2, others=others) == alone

    def test_neither_its_slot_nor_the_order_of_the_voices_changes_a_bit(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer
    ) -> None:
        first = self.talk(networks, tokenizer, slot=0)
        assert self.talk(networks, tokenizer, slot=7) == first
        assert self.talk(networks, tokenizer, slot=0, others={5: 3, 2: 5}, reverse=True) == first

    def test_drafts_are_the_same_bits_beside_others(
        self, networks: tuple[nn.Module, nn.Module | None], tokenizer: Tokenizer
    ) -> None:
        policy, trunk = networks
        rows = []
        for slot, company in ((1, []), (4, [0, 6])):
            speaker = Speaker(Actor(policy, judge=Taste(trunk, by="last")), tokenizer, slots=8, device=CPU)
            for place, s in enumerate([slot, *company]):
                speaker.hear(s, heard(tokenizer, 0))
                speaker.hear(s, heard(tokenizer, 3) * place)
            voices = [voice(slot, seed=7), *(voice(s, seed=s, decode=LONG) for s in company)]
            drafts = speaker.propose(voices, 3)[0]
            rows.append([dataclasses.replace(d, last=d.last.tolist(), mean=d.mean.tolist()) for d in drafts])
        assert rows[0] == rows[1]

    def test_the_judge_sees_every_slot_whoever_ranks(
        self, models: dict[str, tuple[nn.Module, nn.Module]], tokenizer: Tokenizer
    ) -> None:
        judge = Taste(None, by="last")
        speaker = Speaker(Actor(models["gpt2"][0], judge=judge), tokenizer, slots=5, device=CPU)
        for slot in (1, 3):
            speaker.hear(slot, heard(tokenizer, 0))
        speaker.speak([voice(1, candidates=1), voice(3, candidates=3)])
        assert judge.asked == [((5, 16), (5, 16))] * 3  # one shape, since it can decide the last bit


class TestWaiting:
    def test_no_slot_waits_for_anothers_draft(
        self, language_model: Callable[..., nn.Module], tokenizer: Tokenizer
    ) -> None:
        policy, shapes = language_model(seed=0, spread=6.0, context=256), list[tuple[int, ...]]()
        trunk_of(policy).register_forward_pre_hook(
            lambda module, args, given: shapes.append(given["input_ids"].shape), with_kwargs=True
        )
        speaker = Speaker(Actor(policy, judge=Taste(None, by="last")), tokenizer, slots=20, device=CPU)
        for slot in range(4):
            speaker.hear(slot, heard(tokenizer, 0))
        endless = Decoding(greedy=False, max_new_tokens=100)
        drafts = speaker.propose([voice(slot, seed=slot, decode=endless) for slot in range(4)], 4)
        lengths = [[len(whole(tokenizer, draft)) for draft in row] for row in drafts]
        longest = max(sum(row) for row in lengths)
        assert shapes.count((20, 1)) == longest  # passes in which slots speak; in others they hear
        assert longest < sum(max(places) for places in zip(*lengths, strict=True))  # what waiting would have taken

    def test_players_of_as_many_candidates_stand_beside_each_other(
        self, models: dict[str, tuple[nn.Module, nn.Module]], tokenizer: Tokenizer, bandit: Bandit
    ) -> None:
        judge = Taste(None, by="mean")
        players = [Player(SAMPLING, Manner(candidates=n)) for n in (4, 1, 4)]
        play(bandit, "tune", Actor(models["gpt2"][0], judge=judge), tokenizer, players, range(3), device=CPU, slots=2)
        # Six episodes with four candidates are three rounds of two, three with one are two rounds; in the players' own
        # order an episode with one would stand beside one with four, and wait for it.
        assert len(judge.asked) == 3 * 4 + 2 * 1


def test_more_episodes_than_slots_are_played(
    models: dict[str, tuple[nn.Module, nn.Module]], tokenizer: Tokenizer, bandit: Bandit
) -> None:
    actor = Actor(models["gpt2"][0], judge=Taste(None, by="mean"))
    player = Player(SAMPLING, Manner(candidates=3))
    few, many = (play(bandit, "tune", actor, tokenizer, [player], range(5), device=CPU, slots=s) for s in (2, 8))
    assert [episode.seed for episode in few[0]] == [0, 1, 2, 3, 4]
    assert [episode.transcript for episode in few[0]] == [episode.transcript for episode in many[0]]
