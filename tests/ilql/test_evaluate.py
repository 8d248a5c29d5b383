"""Episodes are whole, seeded and nobody else's business."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from ilql import token_values
from ilql.decode import Speaker, Spoken, Utterance, Voice
from ilql.dialogue import Dialogue, Turn
from ilql.evaluate import Episode, Player, play, reply_to
from ilql.forward_pass import NewTokens
from ilql.method import Actor, Decoding, Manner, Start
from ilql.methods import ilql
from ilql.task import Environment, Reply, TaskFault
from ilql.tokens import Tokenizer

CPU = torch.device("cpu")
PLAYERS = [
    Player(Decoding(max_new_tokens=5), Manner()),
    Player(Decoding(max_new_tokens=5), Manner(beta=2.0)),
    Player(Decoding(max_new_tokens=5, greedy=False), Manner(beta=2.0)),
    Player(Decoding(max_new_tokens=5), Manner(beta=math.inf)),
]
SEEDS = [3, 4, 5, 6, 7]


@dataclass
class Chat:
    """An episode of two or three turns whose answers follow from its seed and from what is said."""

    seed: int
    opening: str | None = None
    said: list[str] = field(default_factory=list)
    moody: bool = False

    @property
    def scene(self) -> str:
        return f"chat-{self.seed}"

    def measures(self) -> Mapping[str, float]:
        return {"letters": float(sum(map(len, self.said)))}


@dataclass(frozen=True)
class Chats:
    """A task whose every second episode is opened by the agent; two rewards."""

    fails_after: int = 10**9
    name: str = "chats"
    rewards: tuple[str, ...] = ("turns", "letters")
    max_turns: int = 3

    def score_range(self, reward: str) -> tuple[float, float]:
        return (-3.0, 0.0) if reward == "turns" else (0.0, 1000.0)

    def dialogues(self, split: str, reward: str) -> tuple[Dialogue, ...]:
        return ()

    def environment(self, seed: int, split: str) -> Environment:
        return Chat(seed, "two cats in the snow" if seed % 2 else None)

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        replies = []
        for environment, text in zip(environments, utterances, strict=True):
            assert isinstance(environment, Chat)
            environment.said.append(text)
            turn = len(environment.said)
            if turn > self.fails_after:
                raise TaskFault("the server must answer with text, got nothing")
            rewards = {"turns": -1.0, "letters": 0.1 * len(text)}
            answer = None if turn == 1 and environment.seed == 4 else ("yes", "no")[(environment.seed + len(text)) % 2]
            replies.append(Reply(answer, rewards, ended=turn == 2 + environment.seed % 2, understood="?" in text))
        return replies


@dataclass(frozen=True)
class Fickle(Chats):
    """Breaks its promise: equal episodes are of these moods in turn, which decide the answers, or the opening."""

    moods: tuple[bool, ...] = (False, True)
    opens: bool = False
    made: list[Chat] = field(default_factory=list)

    def environment(self, seed: int, split: str) -> Environment:
        mood = self.moods[len(self.made) % len(self.moods)]
        chat = Chat(seed, "is it a cat ?" if mood and self.opens else "two cats in the snow", moody=mood)
        self.made.append(chat)
        return chat

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        return [
            dataclasses.replace(reply, text="how many are there ?")
            if isinstance(e, Chat) and e.moody and not self.opens
            else reply
            for e, reply in zip(environments, super().step(environments, utterances), strict=True)
        ]


@pytest.fixture(scope="module")
def actor(language_model: Callable[..., nn.Module]) -> Actor:
    policy, critic = (language_model(seed=seed, spread=12.0, context=128) for seed in (0, 1))
    module = token_values.build(Start(policy, critic, seed=2), ilql.Train())
    return token_values.actor(module, policy)


def played(actor: Actor, tokenizer: Tokenizer, players: Sequence[Player], *, slots: int = 8) -> list[list[Episode]]:
    return play(Chats(), "tune", actor, tokenizer, players, SEEDS, device=CPU, slots=slots)


class TestPlay:
    def test_every_player_meets_the_same_seeds_in_their_order(self, actor: Actor, tokenizer: Tokenizer) -> None:
        for episodes in played(actor, tokenizer, PLAYERS):
            assert [episode.seed for episode in episodes] == SEEDS
            assert [episode.scene for episode in episodes] == [f"chat-{seed}" for seed in SEEDS]

    def test_the_same_twice(self, actor: Actor, tokenizer: Tokenizer) -> None:
        assert played(actor, tokenizer, PLAYERS) == played(actor, tokenizer, PLAYERS)

    def test_a_player_does_not_depend_on_the_other_players(self, actor: Actor, tokenizer: Tokenizer) -> None:
        together = played(actor, tokenizer, PLAYERS)
        assert [played(actor, tokenizer, [player])[0] for player in PLAYERS] == together
        assert len({str(episodes) for episodes in together}) == len(PLAYERS)

    def test_players_of_both_critics_may_play_together(self, actor: Actor, tokenizer: Tokenizer) -> None:
        online = [dataclasses.replace(p, manner=dataclasses.replace(p.manner, online_critic=True)) for p in PLAYERS]
        mixed = [online[3], PLAYERS[3], online[1]]
        swapped = dataclasses.replace(actor, critic=actor.online, online=actor.critic)
        with torch.no_grad():
            for parameter in swapped.critic.q_heads.parameters():  # type: ignore[union-attr]  # or both would be equal
                parameter.mul_(-1.0)
        together = played(actor, tokenizer, mixed)
        assert together == [played(swapped, tokenizer, [PLAYERS[3]])[0], *played(actor, tokenizer, mixed[1:])]
        assert together[0] != together[1]
        with torch.no_grad():
            for parameter in swapped.critic.q_heads.parameters():  # type: ignore[union-attr]
                parameter.mul_(-1.0)

    def test_an_episode_does_not_depend_on_the_other_seeds(self, actor: Actor, tokenizer: Tokenizer) -> None:
        alone = [play(Chats(), "tune", actor, tokenizer, PLAYERS, [seed], device=CPU, slots=8) for seed in SEEDS]
        assert [[a[player][0] for a in alone] for player in range(len(PLAYERS))] == played(actor, tokenizer, PLAYERS)

    def test_returns_are_sums_under_every_reward(self, actor: Actor, tokenizer: Tokenizer) -> None:
        for episode in played(actor, tokenizer, PLAYERS[:1])[0]:
            letters = sum(len(turn.text) for turn in episode.transcript.turns if turn.by_agent)
            assert episode.turns == 2 + episode.seed % 2
            assert episode.returns == {"turns": -episode.turns, "letters": pytest.approx(0.1 * letters)}
            assert episode.measures == {"letters": letters}

    def test_the_transcript_is_what_was_said(self, actor: Actor, tokenizer: Tokenizer) -> None:
        episodes = {episode.seed: episode for episode in played(actor, tokenizer, PLAYERS[:1])[0]}
        assert episodes[3].transcript.turns[0] == Turn("two cats in the snow", by_agent=False)
        assert [turn.by_agent for turn in episodes[3].transcript.turns] == [False, *[True, False] * 3]
        assert [turn.by_agent for turn in episodes[4].transcript.turns] == [True, True, False]  # once without an answer
        assert all(episode.transcript.ended for episode in episodes.values())

    def test_only_a_tilt_leaves_the_language_model(self, actor: Actor, tokenizer: Tokenizer) -> None:
        sampling = Decoding(max_new_tokens=5, greedy=False)
        untouched, tilted = played(actor, tokenizer, [Player(sampling, Manner()), Player(sampling, Manner(beta=2.0))])
        assert all(episode.log_ratio == pytest.approx(0.0, abs=1e-4) for episode in untouched)
        assert any(abs(episode.log_ratio) > 1e-3 for episode in tilted)

    def test_greed_leaves_it_too(self, actor: Actor, tokenizer: Tokenizer) -> None:
        (greedy,) = played(actor, tokenizer, PLAYERS[:1])
        assert all(episode.log_ratio > 1e-3 for episode in greedy)  # −log π_β of what it said for certain

    def test_progress_is_told(self, actor: Actor, tokenizer: Tokenizer) -> None:
        told: list[int] = []
        play(Chats(), "tune", actor, tokenizer, PLAYERS[:1], SEEDS, device=CPU, slots=2, on_episode=told.append)
        assert told == sorted(told)
        assert told[-1] == len(SEEDS)

    @pytest.mark.parametrize("kept", [0, 1, 5, 100])
    def test_what_was_played_is_not_played_again_and_the_rest_is_the_same(
        self, actor: Actor, tokenizer: Tokenizer, kept: int
    ) -> None:
        online = dataclasses.replace(PLAYERS[3], manner=dataclasses.replace(PLAYERS[3].manner, online_critic=True))
        for players in (PLAYERS[:2], LADDER, [PLAYERS[0], online, PLAYERS[3]]):  # alone, sharing slots, of both critics
            ended: dict[tuple[int, int], Episode] = {}
            whole = play(
                Chats(), "tune", actor, tokenizer, players, SEEDS, device=CPU, slots=8, on_end=ended.__setitem__
            )
            assert {(p, s): whole[p][s] for p in range(len(players)) for s in range(len(SEEDS))} == ended
            before = dict(list(ended.items())[:kept])
            world = Counting()
            rest: dict[tuple[int, int], Episode] = {}
            again = play(
                world, "tune", actor, tokenizer, players, SEEDS, device=CPU, slots=8, played=before,
                on_end=rest.__setitem__,
            )  # fmt: skip
            assert again == whole
            assert rest == {which: episode for which, episode in ended.items() if which not in before}
            assert sorted(world.begun) == sorted(SEEDS[s] for _, s in rest)

    def test_nobody_and_nothing_is_no_episode(self, actor: Actor, tokenizer: Tokenizer) -> None:
        assert play(Chats(), "tune", actor, tokenizer, [], SEEDS, device=CPU) == []
        assert play(Chats(), "tune", actor, tokenizer, PLAYERS[:2], [], device=CPU) == [[], []]

    def test_a_fault_of_the_world_is_no_score(self, actor: Actor, tokenizer: Tokenizer) -> None:
        with pytest.raises(TaskFault, match="the server must answer with text, got nothing"):
            play(Chats(fails_after=1), "tune", actor, tokenizer, PLAYERS, SEEDS, device=CPU)


LADDER = [
    Player(Decoding(max_new_tokens=limit, greedy=greedy), Manner(beta=beta))
    for beta in (0.0, 0.5, 1.0, 1.01, 2.0, 2.0, math.inf)
    for greedy, limit in ((True, 7), (False, 7), (False, 3))
]
"""Ways of acting that say the same for a while; two of each are the same way."""


@dataclass(frozen=True)
class Counting(Chats):
    """Keeps the seeds of the episodes that are begun."""

    begun: list[int] = field(default_factory=list)

    def environment(self, seed: int, split: str) -> Environment:
        self.begun.append(seed)
        return super().environment(seed, split)


class Counted(Speaker):
    """Counts what every speaker's passes fed."""

    fed = 0

    def _forward(self, new: NewTokens, *, spoken: bool = False, transformers: slice = slice(None)) -> None:
        Counted.fed += sum(map(len, new.values()))
        super()._forward(new, spoken=spoken, transformers=transformers)


class TestSharing:
    """Players who have heard and said the same share a slot, if they are many; in these tests, however many."""

    @pytest.fixture(autouse=True)
    def few_may(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ilql.evaluate.SHARE_FROM", 0)

    @pytest.mark.parametrize("slots", [1, 3, 64])
    def test_whatever_waits_for_whatever_changes_no_bit(self, actor: Actor, tokenizer: Tokenizer, slots: int) -> None:
        together = played(actor, tokenizer, LADDER, slots=slots)
        assert together == [played(actor, tokenizer, [player], slots=slots)[0] for player in LADDER]
        assert len({str(episodes) for episodes in together}) > len(LADDER) // 2

    def test_what_is_said_alike_is_fed_once(
        self, actor: Actor, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ilql.evaluate.Speaker", Counted)

        def fed(players: list[Player]) -> int:
            Counted.fed = 0
            played(actor, tokenizer, players)
            return Counted.fed

        alone = [fed([player]) for player in PLAYERS[1:]]
        assert fed([PLAYERS[1]] * 5) == alone[0]
        assert max(alone) < fed(PLAYERS[1:]) < sum(alone)  # they open alike, and go on differently

    @pytest.mark.parametrize(("players", "share"), [(4, False), (5, True)])
    def test_few_do_not_share(
        self, actor: Actor, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, players: int, share: bool
    ) -> None:
        monkeypatch.setattr("ilql.evaluate.SHARE_FROM", 5)
        monkeypatch.setattr("ilql.evaluate.Speaker", Counted)
        fed = []
        for count in (1, players):
            Counted.fed = 0
            played(actor, tokenizer, [PLAYERS[1]] * count)
            fed.append(Counted.fed)
        assert fed[1] == fed[0] * (1 if share else players)

    @pytest.mark.parametrize("opens", [False, True])
    @pytest.mark.parametrize("slots", [2, 8])
    def test_a_world_that_tells_equals_different_things_parts_them(
        self, actor: Actor, tokenizer: Tokenizer, opens: bool, slots: int
    ) -> None:
        def episodes(players: list[Player], moods: tuple[bool, ...]) -> list[list[Episode]]:
            world = Fickle(moods=moods, opens=opens)
            return play(world, "tune", actor, tokenizer, players, SEEDS, device=CPU, slots=slots)

        tilted, short = PLAYERS[1], Player(Decoding(max_new_tokens=2), PLAYERS[1].manner)  # parts where it has ended
        calm, moody = (episodes([tilted, short], (mood,)) for mood in (False, True))
        last_said = [[e.transcript.turns[-2].text for each in world for e in each] for world in (calm, moody)]
        assert last_said[0] != last_said[1]  # it was heard
        mixed = episodes([tilted, tilted, short, short], (False, True, False, True))
        assert mixed == [calm[0], moody[0], calm[1], moody[1]]

    def test_no_more_episodes_are_under_way_than_may_wait(
        self, actor: Actor, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, most = 0, 0

        class Watched(Chats):
            def environment(self, seed: int, split: str) -> Environment:
                nonlocal begun
                begun += 1
                return super().environment(seed, split)

        def watch(done: int) -> None:
            nonlocal most
            most = max(most, begun - done)

        monkeypatch.setattr("ilql.evaluate.OPEN", 2)
        play(Watched(), "tune", actor, tokenizer, PLAYERS, SEEDS, device=CPU, slots=4, on_episode=watch)
        assert begun == len(PLAYERS) * len(SEEDS)
        assert most <= 2 * 4

    def test_a_return_is_asked_for_once_before_an_utterance_that_takes_several_calls(
        self, actor: Actor, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[float] = []

        class Asking(Speaker):
            def ask(self, slot: int, target_return: float) -> None:
                asked.append(target_return)

        monkeypatch.setattr("ilql.evaluate.Speaker", Asking)
        monkeypatch.setattr("ilql.evaluate.IMPATIENCE", 1)
        asking = Manner(target_return=-1.0, asked_each_turn=True)
        wishes = [Player(Decoding(max_new_tokens=limit), asking) for limit in (2, 9)]
        episodes = played(actor, tokenizer, wishes)
        assert len(asked) == sum(episode.turns for each in episodes for episode in each)


class Script:
    """Speaks lines instead of a model's: what an episode counts is then known."""

    lines = (("is it red ?", True), ("Is  it red ?", True), ("", True), ("", True), ("how ?", False), ("red", True))

    def __init__(self, *_: object, **__: object) -> None:
        self.turn = 0

    def restart(self, slot: int) -> None:
        pass

    def hear(self, slot: int, ids: Sequence[int]) -> None:
        pass

    def speak_together(self, voices: Sequence[Voice], *, impatience: int) -> list[Spoken]:
        text, finished = self.lines[self.turn]
        self.turn += 1
        return [Spoken(Utterance(text, (), finished, 0.25)) for _ in voices]


class Long(Chats):
    """Six turns."""

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        replies = super().step(environments, utterances)
        return [
            dataclasses.replace(reply, ended=len(e.said) == 6)
            for e, reply in zip(environments, replies, strict=True)
            if isinstance(e, Chat)
        ]


def test_empty_repeated_and_broken_utterances_are_counted(
    actor: Actor, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ilql.evaluate.Speaker", Script)
    episode = play(Long(), "tune", actor, tokenizer, PLAYERS[:1], [1], device=CPU)[0][0]
    assert episode.empty == 2
    assert episode.repeated == 1  # case and spaces aside; saying nothing twice is no repetition
    assert episode.broken == 5  # the repeated, the two empty, the unfinished, and "red", which is not understood
    assert episode.log_ratio == 6 * 0.25


def test_a_begun_dialogue_is_answered_as_in_an_episode(actor: Actor, tokenizer: Tokenizer) -> None:
    for player in PLAYERS:
        episode = play(Chats(), "tune", actor, tokenizer, [player], [3], device=CPU, slots=1)[0][0]
        opening, first, *_ = episode.transcript.turns
        reply = reply_to(Dialogue((opening,), ended=False), actor, tokenizer, player, seed=3, device=CPU)
        assert reply.text == first.text
