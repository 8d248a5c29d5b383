"""A policy that is asked for a return: where the return is heard, and how it is counted down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as TextTokenizer
from torch import Tensor

from ilql.batch import collate, tokenize
from ilql.decode import Speaker, Utterance, Voice
from ilql.dialogue import Dialogue, Turn
from ilql.evaluate import Episode, Player, play, reply_to
from ilql.language_model import Architecture, build_language_model, trunk_of
from ilql.method import Actor, Decoding, Manner
from ilql.methods import decision_transformer
from ilql.methods.decision_transformer import ReturnConditioned
from ilql.task import Environment, Reply
from ilql.tokens import Tokenizer

CPU = torch.device("cpu")
FAMILIES = ["gpt2", "llama"]
GREEDY = Decoding(max_new_tokens=5)
WORLD = ["hello", "no", "yes", "abcdefghijklmnopqrstuvwxyz"]  # the last takes several passes to hear


def letters() -> Tokenizer:
    """Give a tokeniser of single letters: whatever is said is read again as the very tokens it was made of."""
    text = TextTokenizer(models.WordLevel({letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}, "a"))
    text.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    text.decoder = decoders.Fuse()
    return Tokenizer(text)


LETTERS = letters()


@pytest.fixture(scope="module", params=FAMILIES)
def module(request: pytest.FixtureRequest) -> ReturnConditioned:
    """Give a conditioned model whose weights are so wide that what it says varies, with what is asked, too."""
    sizes = Architecture(family=request.param, layers=2, width=16, heads=2, context=128)
    made = ReturnConditioned(build_language_model(sizes, vocabulary=LETTERS.size, seed=0), seed=1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)
    return made


@pytest.fixture(scope="module")
def actor(module: ReturnConditioned) -> Actor:
    return decision_transformer.actor(module, None)


def heard(turn: int) -> list[int]:
    start = [LETTERS.structural("bos")] if turn == 0 else []
    return [*start, *LETTERS.encode(WORLD[turn % len(WORLD)]), LETTERS.structural("eos")]


def voice(slot: int = 0) -> Voice:
    return Voice(slot, GREEDY, Manner(), np.random.default_rng(0))


def embedded(module: ReturnConditioned, heard: Sequence[int | float]) -> Tensor:
    """Give tokens (ints) and returns (floats) as embeddings, the returns' by the linear map they go through."""
    words = trunk_of(module.language_model).get_input_embeddings()  # type: ignore[operator]
    told = module.told
    rows = [told.weight[:, 0] * item + told.bias if isinstance(item, float) else words.weight[item] for item in heard]
    return torch.stack(rows)


@torch.no_grad()
def naive(module: ReturnConditioned, heard: Sequence[int | float]) -> tuple[int, ...]:
    """Speak greedily after tokens (ints) and returns (floats), all read at once for every token."""
    unwritable = torch.from_numpy(~LETTERS.writable())
    said: list[int] = []
    while len(said) < GREEDY.max_new_tokens and LETTERS.structural("eoa") not in said:
        logits = module.language_model(inputs_embeds=embedded(module, [*heard, *said])[None]).logits[0, -1]
        said.append(int(logits.masked_fill(unwritable, -torch.inf).argmax()))
    return tuple(said)


def whole(said: Utterance) -> list[int]:
    return [*said.tokens] if said.finished else [*said.tokens, LETTERS.structural("eoa")]


class TestSpeaking:
    @pytest.mark.parametrize("each_turn", [False, True], ids=["trajectory", "to_go"])
    def test_a_slot_speaks_as_a_model_that_reads_the_return_among_the_words(
        self, module: ReturnConditioned, actor: Actor, each_turn: bool
    ) -> None:
        speaker = Speaker(actor, LETTERS, slots=3, device=CPU)
        different = set()
        for target in (-9.0, -0.5, 3.0):
            speaker.restart(1)
            conversation: list[int | float] = []
            for turn in range(4):
                if turn == 0 and not each_turn:
                    speaker.ask(1, target)
                    conversation.append(target)
                speaker.hear(1, heard(turn))
                conversation += heard(turn)
                if each_turn:
                    speaker.ask(1, target + turn)
                    conversation.append(target + turn)
                said = speaker.speak([voice(1)])[0]
                assert said.tokens == naive(module, conversation)
                conversation += whole(said)
            different.add(tuple(item for item in conversation if not isinstance(item, float)))
        assert len(different) > 1  # else what is asked for would not matter here

    def test_what_others_are_asked_for_changes_no_bit(self, actor: Actor) -> None:
        def talk(others: dict[int, float]) -> list[Utterance]:
            speaker = Speaker(actor, LETTERS, slots=8, device=CPU)
            said = []
            for turn in range(3):
                for slot, target in {2: -4.0, **others}.items():
                    speaker.hear(slot, heard(turn + slot))
                    speaker.ask(slot, target)
                said.append(speaker.speak([voice(slot) for slot in (2, *others)])[0])
            return said

        alone = talk({})
        for others in ({0: 5.0}, {1: -4.0, 3: 0.0, 7: -11.0}):
            assert talk(others) == alone

    def test_a_return_is_one_place_of_the_context(self, actor: Actor) -> None:
        # 128 places: 127 words and a return leave none to speak in, one word less leaves one behind the last.
        for words, length in ((127, 0), (126, 0), (125, 1)):
            speaker = Speaker(actor, LETTERS, slots=1, device=CPU)
            speaker.ask(0, 1.0)
            speaker.hear(0, [LETTERS.structural("bos")] * words)
            assert len(speaker.speak([voice()])[0].tokens) == length

    def test_only_a_policy_that_was_trained_with_returns_can_be_asked(self, actor: Actor) -> None:
        speaker = Speaker(Actor(actor.language_model), LETTERS, slots=1, device=CPU)
        with pytest.raises(AssertionError, match="only a policy that was trained with returns can be asked for one"):
            speaker.ask(0, 1.0)

    def test_a_return_that_was_asked_of_a_conversation_is_forgotten_with_it(
        self, module: ReturnConditioned, actor: Actor
    ) -> None:
        speaker = Speaker(actor, LETTERS, slots=1, device=CPU)
        speaker.ask(0, 7.0)
        speaker.restart(0)
        speaker.hear(0, heard(0))
        assert speaker.speak([voice()])[0].tokens == naive(module, heard(0))


@dataclass
class Talk:
    """An episode of three turns; every second is opened by the agent, and once the world does not answer."""

    seed: int
    opening: str | None = None
    said: list[str] = field(default_factory=list)

    @property
    def scene(self) -> str:
        return f"talk-{self.seed}"

    def measures(self) -> Mapping[str, float]:
        return {}


@dataclass(frozen=True)
class Talks:
    """A task with two rewards: half a point less with every turn, and one more for every letter."""

    name: str = "talks"
    rewards: tuple[str, ...] = ("turns", "letters")
    max_turns: int = 3

    def score_range(self, reward: str) -> tuple[float, float]:
        return (-3.0, 0.0) if reward == "turns" else (0.0, 100.0)

    def dialogues(self, split: str, reward: str) -> tuple[Dialogue, ...]:
        return ()

    def environment(self, seed: int, split: str) -> Environment:
        return Talk(seed, "hello" if seed % 2 else None)

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        replies = []
        for environment, text in zip(environments, utterances, strict=True):
            assert isinstance(environment, Talk)
            environment.said.append(text)
            turn = len(environment.said)
            answer = None if environment.seed == 4 and turn == 1 else ("yes", "no")[len(text) % 2]
            rewards = {"turns": -0.5, "letters": float(len(text))}
            replies.append(Reply(answer, rewards, ended=turn == 3))
        return replies


SEEDS = [3, 4, 5]


def player(reward: str, *, each_turn: bool, target: float = -2.0) -> Player:
    return Player(GREEDY, Manner(target_return=target, asked_each_turn=each_turn), reward)


def played(actor: Actor, one: Player, *, slots: int = 2) -> list[Episode]:
    return play(Talks(), "tune", actor, LETTERS, [one], SEEDS, device=CPU, slots=slots)[0]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give a list in which every return that is asked for is noted, in order."""
    noted: list[float] = []

    class Noting(Speaker):
        def ask(self, slot: int, target_return: float) -> None:
            noted.append(target_return)
            super().ask(slot, target_return)

    monkeypatch.setattr("ilql.evaluate.Speaker", Noting)
    return noted


class TestPlay:
    def test_what_is_left_is_asked_for_before_every_turn(self, actor: Actor, asked: list[float]) -> None:
        played(actor, player("turns", each_turn=True), slots=1)
        assert asked == [-2.0, -1.5, -1.0] * len(SEEDS)  # the target less half a point a turn spent

    def test_it_is_counted_by_the_reward_of_the_training(self, actor: Actor, asked: list[float]) -> None:
        episodes = played(actor, player("letters", each_turn=True, target=9.0), slots=1)
        expected = []
        for episode in episodes:
            first, second, _ = (len(turn.text) for turn in episode.transcript.turns if turn.by_agent)
            expected += [9.0, 9.0 - first, 9.0 - first - second]
        assert asked == expected
        assert len(set(expected)) > 2

    def test_a_trajectorys_return_is_asked_for_once_and_never_counted_down(
        self, actor: Actor, asked: list[float]
    ) -> None:
        played(actor, player("turns", each_turn=False))
        assert asked == [-2.0] * len(SEEDS)

    @pytest.mark.parametrize("each_turn", [False, True], ids=["trajectory", "to_go"])
    def test_an_episode_is_what_a_model_says_that_reads_everything_at_once(
        self, module: ReturnConditioned, actor: Actor, each_turn: bool
    ) -> None:
        for episode in played(actor, player("turns", each_turn=each_turn), slots=8):
            opens = episode.transcript.turns[0].by_agent
            conversation: list[int | float] = [] if each_turn else [-2.0]
            conversation.append(LETTERS.structural("boa" if opens else "bos"))
            spoken = 0
            for turn in episode.transcript.turns:
                if turn.by_agent:
                    if each_turn:
                        conversation.append(-2.0 + 0.5 * spoken)
                    assert turn.text == LETTERS.decode(naive(module, conversation))
                    spoken += 1
                conversation += [*LETTERS.encode(turn.text), LETTERS.structural("eoa" if turn.by_agent else "eos")]
            assert spoken == 3


@pytest.mark.parametrize("each_turn", [False, True], ids=["trajectory", "to_go"])
@pytest.mark.parametrize("reward", ["turns", "letters"])
def test_a_begun_dialogue_is_answered_as_in_the_episode_it_is_from(
    actor: Actor, asked: list[float], reward: str, each_turn: bool
) -> None:
    one = player(reward, each_turn=each_turn)
    for episode in played(actor, one):
        paid = [
            Turn(t.text, t.by_agent, (-0.5 if reward == "turns" else float(len(t.text))) if t.by_agent else 0.0)
            for t in episode.transcript.turns
        ]
        for place, turn in enumerate(paid):
            if turn.by_agent:
                begun = Dialogue(tuple(paid[:place]), ended=False)
                asked.clear()
                assert reply_to(begun, actor, LETTERS, one, seed=0, device=CPU).text == turn.text
                # Once more everything that was asked for before, and what is left now.
                before = [t.reward for t in paid[:place] if t.by_agent]
                assert asked == ([-2.0 - sum(before[:n]) for n in range(len(before) + 1)] if each_turn else [-2.0])


def test_it_acts_in_the_form_it_was_trained_in() -> None:
    for returns, each_turn in (("trajectory", False), ("to_go", True)):
        train = decision_transformer.Train(returns=returns)
        manner = decision_transformer.manner(train, decision_transformer.Decode(target_return=-3.0))
        assert manner == Manner(target_return=-3.0, asked_each_turn=each_turn)


@torch.no_grad()
@pytest.mark.parametrize("returns", ["trajectory", "to_go"])
def test_training_tells_returns_where_acting_asks_for_them(module: ReturnConditioned, returns: str) -> None:
    # The agent speaks twice in a row, so that one of its turns begins behind its own end token.
    paid = {"ab": -1.0, "": 2.0, "xyz": 0.5}
    turns = [Turn(text, by_agent=True, reward=reward) for text, reward in paid.items()]
    dialogue = Dialogue((Turn("hello", False), turns[0], turns[1], Turn("no", False), turns[2]), ended=True)
    # Of the whole 1.5; or what is still to come before each: 1.5, 2.5 and 0.5.
    to_come = iter([1.5, 2.5, 0.5])
    told: list[int | float] = [1.5] if returns == "trajectory" else []
    told.append(LETTERS.structural("bos"))
    chosen = []
    for turn in dialogue.turns:
        if turn.by_agent and returns == "to_go":
            told.append(next(to_come))
        ids = [*LETTERS.encode(turn.text), LETTERS.structural("eoa" if turn.by_agent else "eos")]
        chosen += [(len(told) - 1 + place, token) for place, token in enumerate(ids) if turn.by_agent]
        told += ids
    log_pi = module.language_model(inputs_embeds=embedded(module, told)[None]).logits[0].log_softmax(-1)
    expected = -sum(float(log_pi[position, token]) for position, token in chosen) / len(chosen)

    batch = collate([tokenize(dialogue, LETTERS)], pad=LETTERS.structural("pad"))
    train = decision_transformer.Train(returns=returns)
    loss = decision_transformer.loss(module, batch, batch.action_mask.float(), train)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
