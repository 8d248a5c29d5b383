"""Play seeded episodes in a batch; every episode is returned, never only a mean."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch

from ilql.batch import TokenSequence, tokenize
from ilql.decode import Conversation, Speaker, Spoken, Utterance, Voice
from ilql.dialogue import Dialogue, Turn
from ilql.method import Actor, Decoding, Manner
from ilql.slots import by_rows, slot_bytes
from ilql.task import Reply, Task
from ilql.tokens import Tokenizer

VERSION = 2
"""Raised when an episode or its measures mean something else; part of every evaluation's key."""

SLOTS = 64
"""Conversations at a time on a CPU, at least. What there is to play never decides how many: the shape of a matrix
product can decide its last bit."""

ROW_SLOTS = (256, 128)
"""Where a CPU reads row by row it has so many, if their keys and values fit: passes stay full while some of the
conversations wait for the last to end."""

ROW_CACHE = 2**30
"""Bytes into which they have to fit."""

DEVICE_SLOTS = 512
"""Conversations at a time on a device at the most, where a pass of few takes as long as one of many."""

CACHE_SHARE = 0.3
"""Of a device's memory that is free, keys and values take no more than this."""

IMPATIENCE = 2
"""Where episodes share slots: when no more than one in so many slots is still speaking, the others hear what the world
says first."""

SHARE_FROM = 4
"""Players of a seed begin in one slot if there are so many. Fewer part too soon: what they share is less than what it
costs that slots then stand at different places of their conversations (docs/log.md)."""

OPEN = 8
"""Episodes under way at most, for every slot: those that wait for a slot keep a copy of their keys and values."""

WAITING_CACHE = 2**31
"""Bytes that those copies may take on a CPU; what `OPEN` episodes for each of `SLOTS` take, they take all the same."""


@dataclass(frozen=True)
class Episode:
    """One episode, whole.

    Attributes:
        seed: The episode's seed.
        scene: What it was about.
        returns: Undiscounted sum of rewards under every reward of the task, by the reward's name.
        turns: Number of the agent's utterances.
        transcript: All that was said; the agent's turns carry no rewards here, since there are several.
        log_ratio: Σ log π − log π_β over the agent's tokens.
        empty: Number of utterances without a word.
        repeated: Number of utterances said before in the episode.
        broken: Number of utterances that are empty, repeated, not understood, or never ended by themselves.
        measures: The environment's diagnostics.
    """

    seed: int
    scene: str
    returns: dict[str, float]
    turns: int
    transcript: Dialogue
    log_ratio: float
    empty: int
    repeated: int
    broken: int
    measures: dict[str, float]


EpisodeId: TypeAlias = tuple[int, int]
"""An episode among those that are played: the numbers of its player and of its seed."""


@dataclass(frozen=True)
class Player:
    """One way of acting.

    Attributes:
        decode: How tokens are chosen.
        manner: What is added to the language model.
        reward: The reward it was trained on, by which it counts what is left of a return it was asked for.
    """

    decode: Decoding
    manner: Manner
    reward: str = ""

    def left(self, rewards: Mapping[str, Sequence[float]]) -> float:
        """What is left of the return it was asked for after these rewards, by the reward's name."""
        assert self.manner.target_return is not None
        return self.manner.target_return - math.fsum(rewards.get(self.reward, ()))

    @property
    def shares(self) -> bool:
        """Whether it hears and says the same as others until it chooses another token than they do."""
        return self.manner.candidates == 0 and self.manner.target_return is None


class _Running:
    """An episode under way."""

    def __init__(self, job: EpisodeId, player: Player, task: Task, seed: int, split: str) -> None:
        self.job, self.player, self.seed = job, player, seed
        self.environment = task.environment(seed, split)
        # The draws of an episode follow from its seed alone, so all cells that sample use common random numbers.
        self.generator = np.random.default_rng([seed, 0x5EED])
        self.opening = self.environment.opening
        self.transcript = [] if self.opening is None else [Turn(self.opening, by_agent=False)]
        self.rewards: dict[str, list[float]] = {}
        self.said: list[str] = []
        self.log_ratio = 0.0
        self.empty = self.repeated = self.broken = 0

    def take(self, utterance: Utterance, reply: Reply) -> None:
        text = utterance.text
        key = " ".join(text.lower().split())
        empty, repeated = not key, key in self.said
        self.empty += empty
        self.repeated += repeated and not empty
        self.broken += empty or repeated or not reply.understood or not utterance.finished
        self.said.append(key)
        self.log_ratio += utterance.log_ratio
        self.transcript.append(Turn(text, by_agent=True))
        if reply.text is not None:
            self.transcript.append(Turn(reply.text, by_agent=False))
        for name, reward in reply.rewards.items():
            self.rewards.setdefault(name, []).append(reward)

    def result(self) -> Episode:
        return Episode(
            self.seed,
            self.environment.scene,
            {name: math.fsum(values) for name, values in self.rewards.items()},
            len(self.said),
            Dialogue(tuple(self.transcript), ended=True),
            self.log_ratio,
            self.empty,
            self.repeated,
            self.broken,
            dict(self.environment.measures()),
        )


class _Seats:
    """Who is in which slot: episodes that have heard and said the same share one, others wait until one is free.

    Attributes:
        running: The episodes in each slot that is taken.
    """

    def __init__(self, speaker: Speaker, tokenizer: Tokenizer) -> None:
        self.running: dict[int, list[_Running]] = {}
        self._speaker, self._tokenizer = speaker, tokenizer
        self._waiting: list[tuple[list[_Running], Conversation]] = []
        self._mid_utterance: set[int] = set()

    @property
    def under_way(self) -> int:
        """How many episodes have begun and not ended."""
        return sum(map(len, self.running.values())) + sum(len(episodes) for episodes, _ in self._waiting)

    def let_in(self, slot: int) -> bool:
        """Let the last that waits go on in a free slot; False if nobody waits."""
        if not self._waiting:
            return False
        self.running[slot], conversation = self._waiting.pop()
        self._speaker.put(slot, conversation)
        return True

    def begin(self, slot: int, episodes: Sequence[_Running]) -> None:
        """Let episodes of one seed begin in a free slot."""
        by_opening: dict[str | None, list[_Running]] = {}
        for episode in episodes:
            by_opening.setdefault(episode.opening, []).append(episode)
        self._speaker.restart(slot)
        # Equal seeds promise equal openings; a world that breaks that is played all the same.
        (opening, self.running[slot]), *others = by_opening.items()
        for other_opening, group in others:
            conversation = self._speaker.copy(slot)
            conversation.hear(self._tokenizer.heard_first(other_opening))
            self._waiting.append((group, conversation))
        player = self.running[slot][0].player
        if player.manner.target_return is not None and not player.manner.asked_each_turn:
            self._speaker.ask(slot, player.left({}))
        self._speaker.hear(slot, self._tokenizer.heard_first(opening))

    def voices(self) -> list[tuple[int, _Running]]:
        """Every episode that is to speak now and its slot, after those that are asked for a return were asked."""
        for slot, episodes in self.running.items():
            episode = episodes[0]
            if episode.player.manner.asked_each_turn and slot not in self._mid_utterance:
                self._speaker.ask(slot, episode.player.left(episode.rewards))
        return [(slot, episode) for slot in sorted(self.running) for episode in self.running[slot]]

    def hear(
        self, voices: Sequence[tuple[int, _Running]], spoken: Sequence[Spoken], replies: Sequence[Reply | None]
    ) -> None:
        """Let everybody hear the world's reply, if there was one, and part those who no longer share a conversation."""
        # Whoever shares a slot, says the same and hears the same goes on sharing. `id` tells conversations apart: those
        # that part together are given the same one.
        groups: dict[tuple[int, int, bool, str | None], tuple[list[_Running], Conversation | None]] = {}
        self._mid_utterance = set()
        for (slot, episode), said, reply in zip(voices, spoken, replies, strict=True):
            if said.utterance is None and said.apart is None:
                self._mid_utterance.add(slot)
            if reply is None or not reply.ended:
                key = slot, id(said.apart), reply is not None, None if reply is None else reply.text
                groups.setdefault(key, ([], said.apart))[0].append(episode)
        self.running = {}
        answers: dict[int, list[int]] = {}
        for (slot, _, replied, text), (episodes, apart) in groups.items():
            answer = self._tokenizer.heard_between(text) if replied else []
            if apart is None and slot not in self.running:
                self.running[slot], answers[slot] = episodes, answer
                continue
            conversation = self._speaker.copy(slot) if apart is None else apart.copy()
            conversation.hear(answer)
            self._waiting.append((episodes, conversation))
        # Only now: what was copied above is the conversation before this answer.
        for slot, answer in answers.items():
            self._speaker.hear(slot, answer)


def play(
    task: Task,
    split: str,
    actor: Actor,
    tokenizer: Tokenizer,
    players: Sequence[Player],
    seeds: Sequence[int],
    *,
    device: torch.device,
    slots: int | None = None,
    played: Mapping[EpisodeId, Episode] = MappingProxyType({}),
    on_end: Callable[[EpisodeId, Episode], None] | None = None,
    on_episode: Callable[[int], None] | None = None,
) -> list[list[Episode]]:
    """Every player plays every seed with one actor; all of them share the forward passes.

    An episode is the same whatever is played beside it, so what was interrupted may be gone on with.

    Args:
        task: The world.
        split: Which scenes.
        actor: The networks that act.
        tokenizer: Theirs.
        players: Ways of decoding.
        seeds: Episode seeds, the same for every player.
        device: Where the networks run.
        slots: Conversations at a time; without a number, as many as suit the device.
        played: Episodes that are there, and are not played again.
        on_end: Called with each of the others when it has ended.
        on_episode: Called after every round with the number of episodes finished so far.

    Returns:
        One list per player, its episodes in the order of `seeds`.

    Raises:
        TaskFault: The world failed.
    """
    if len({player.manner.online_critic for player in players}) > 1:
        # A speaker has one critic, so that two transformers run and no third: each kind of player plays by itself.
        whole: dict[int, list[Episode]] = {}
        for online in (False, True):
            chosen = [number for number, player in enumerate(players) if player.manner.online_critic is online]
            group = [players[number] for number in chosen]
            theirs = {(chosen.index(p), s): episode for (p, s), episode in played.items() if p in chosen}
            ended = None if on_end is None else functools.partial(_renumbered, on_end, chosen)
            episodes = play(
                task, split, actor, tokenizer, group, seeds, device=device, slots=slots, played=theirs, on_end=ended,
                on_episode=on_episode,
            )  # fmt: skip
            whole |= dict(zip(chosen, episodes, strict=True))
        return [whole[number] for number in range(len(players))]
    acting = _acting(actor, players)
    slots = slots or slots_on(device, acting, episodes=len(players) * len(seeds))
    most = _open(device, acting, slots)
    speaker = Speaker(acting, tokenizer, slots=slots, device=device)
    seats = _Seats(speaker, tokenizer)
    done = dict(played)
    sharing = sum(player.shares for player in players) >= SHARE_FROM
    upcoming = _groups(players, len(seeds), sharing=sharing, but=done.keys())
    while True:
        free = [slot for slot in range(slots) if slot not in seats.running]
        for slot in free:
            room = most - seats.under_way
            if not seats.let_in(slot) and upcoming and (len(upcoming[0]) <= room or not seats.under_way):
                jobs = upcoming.popleft()
                seats.begin(slot, [_Running(job, players[job[0]], task, seeds[job[1]], split) for job in jobs])
        if not seats.running:
            return [[done[p, s] for s in range(len(seeds))] for p in range(len(players))]
        voices = seats.voices()
        spoken = speaker.speak_together(
            [Voice(slot, e.player.decode, e.player.manner, e.generator) for slot, e in voices],
            impatience=len(seats.running) // IMPATIENCE if sharing else 0,
        )
        said = [(e, s.utterance) for (_, e), s in zip(voices, spoken, strict=True) if s.utterance is not None]
        replies = task.step([episode.environment for episode, _ in said], [utterance.text for _, utterance in said])
        answers: dict[EpisodeId, Reply] = {}
        for (episode, utterance), reply in zip(said, replies, strict=True):
            episode.take(utterance, reply)
            answers[episode.job] = reply
            if reply.ended:
                done[episode.job] = episode.result()
                if on_end is not None:
                    on_end(episode.job, done[episode.job])
        seats.hear(voices, spoken, [answers.get(episode.job) for _, episode in voices])
        if on_episode is not None:
            on_episode(len(done))


def slots_on(device: torch.device, actor: Actor, *, episodes: int) -> int:
    """Conversations at a time: on a device as many as there are and its memory takes, on a CPU by their size alone."""
    if device.type == "cpu":
        many = ROW_SLOTS if by_rows(actor, device) else ()
        return next((slots for slots in many if slots * slot_bytes(actor) <= ROW_CACHE), SLOTS)
    free, _ = torch.cuda.mem_get_info(device)
    room = math.floor(CACHE_SHARE * free / slot_bytes(actor))
    wanted = min(DEVICE_SLOTS, SLOTS * math.ceil(episodes / SLOTS))
    return max(SLOTS, min(wanted, SLOTS * (room // SLOTS)))


def _open(device: torch.device, actor: Actor, slots: int) -> int:
    """Episodes under way at most."""
    if device.type != "cpu":
        return OPEN * slots
    fitting = slots + WAITING_CACHE // slot_bytes(actor)
    return max(OPEN * min(slots, SLOTS), min(OPEN * slots, fitting))


def _renumbered(
    on_end: Callable[[EpisodeId, Episode], None], chosen: Sequence[int], job: EpisodeId, episode: Episode
) -> None:
    """Tell of an episode by its player's number among all players."""
    on_end((chosen[job[0]], job[1]), episode)


def _groups(players: Sequence[Player], seeds: int, *, sharing: bool, but: Set[EpisodeId]) -> deque[list[EpisodeId]]:
    """All episodes but some: those that begin in one slot together, in an order to begin in.

    Players of as many candidates stand beside each other: a slot with few waits for those with many.
    """
    together = [p for p, player in enumerate(players) if sharing and player.shares]
    alone = [p for p in range(len(players)) if p not in together]
    alone.sort(key=lambda p: -players[p].manner.candidates)
    groups = deque([(p, s)] for p in alone for s in range(seeds))
    if together:
        groups += [[(p, s) for p in together] for s in range(seeds)]
    left = ([job for job in group if job not in but] for group in groups)
    return deque(group for group in left if group)


def _acting(actor: Actor, players: Sequence[Player]) -> Actor:
    """The actor with the critic that the players, who agree in that, tilt with."""
    online = any(player.manner.online_critic for player in players)
    return dataclasses.replace(actor, critic=actor.online) if online else actor


def reply_to(
    dialogue: Dialogue, actor: Actor, tokenizer: Tokenizer, player: Player, *, seed: int, device: torch.device
) -> Utterance:
    """What the agent says next in a dialogue that was begun elsewhere.

    Args:
        dialogue: What was said so far, by anyone; rewards matter only to a policy that counts what is left of a return.
        actor: The networks that act.
        tokenizer: Theirs.
        player: How to decode.
        seed: Decides the draws if it samples.
        device: Where the networks run.
    """
    heard = tokenize(Dialogue(dialogue.turns, ended=False), tokenizer)
    rewards = [turn.reward for turn in dialogue.turns if turn.by_agent]
    speaker = Speaker(_acting(actor, [player]), tokenizer, slots=1, device=device)
    manner, tokens, begin = player.manner, heard.tokens.tolist(), 0
    if dialogue.turns and dialogue.turns[-1].by_agent:  # it speaks again, which nothing had to tell it so far
        said = len(tokens) - len(tokenizer.behind(by_agent=True, then_agent=None))
        tokens = [*tokens[:said], *tokenizer.behind(by_agent=True, then_agent=True)]
    if manner.target_return is not None and not manner.asked_each_turn:
        speaker.ask(0, player.left({}))
    if manner.asked_each_turn:
        for turn, position in enumerate(_boundaries(heard)):
            speaker.hear(0, tokens[begin : position + 1])
            speaker.ask(0, player.left({player.reward: rewards[:turn]}))
            begin = position + 1
    speaker.hear(0, tokens[begin:])
    if manner.asked_each_turn:
        speaker.ask(0, player.left({player.reward: rewards}))
    return speaker.speak([Voice(0, player.decode, player.manner, np.random.default_rng([seed, 0x5EED]))])[0]


def _boundaries(sequence: TokenSequence) -> list[int]:
    """The positions from which the agent's utterances begin."""
    opens = np.concatenate([np.ones(1, dtype=np.bool_), sequence.ends])[: len(sequence.ends)]
    return [int(position) for position in sequence.action_positions[opens]]
