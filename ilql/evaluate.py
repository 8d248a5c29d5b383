"""Play seeded episodes in a batch; every episode is returned, never only a mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ilql.batch import TokenSequence, tokenize
from ilql.decode import Speaker, Utterance, Voice
from ilql.dialogue import Dialogue, Turn
from ilql.method import Actor, Decoding, Manner
from ilql.task import Environment, Reply, Task
from ilql.tokens import Tokenizer

VERSION = 2
"""Raised when an episode or its measures mean something else; part of every evaluation's key."""

SLOTS = 64
"""Conversations per forward pass. A constant: the shape of a matrix product can decide its last bit."""


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


class _Running:
    """An episode in a slot."""

    def __init__(self, player: Player, environment: Environment, seed: int) -> None:
        self.player, self.environment, self.seed = player, environment, seed
        # The draws of an episode follow from its seed alone, so all cells that sample use common random numbers.
        self.generator = np.random.default_rng([seed, 0x5EED])
        self.transcript: list[Turn] = []
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


def play(
    task: Task,
    split: str,
    actor: Actor,
    tokenizer: Tokenizer,
    players: Sequence[Player],
    seeds: Sequence[int],
    *,
    device: torch.device,
    slots: int = SLOTS,
    on_episode: Callable[[int], None] | None = None,
) -> list[list[Episode]]:
    """Every player plays every seed with one actor; all of them share the forward passes.

    Args:
        task: The world.
        split: Which scenes.
        actor: The networks that act.
        tokenizer: Theirs.
        players: Ways of decoding.
        seeds: Episode seeds, the same for every player.
        device: Where the networks run.
        slots: Conversations per forward pass.
        on_episode: Called after every round with the number of episodes finished so far.

    Returns:
        One list per player, its episodes in the order of `seeds`.

    Raises:
        TaskFault: The world failed.
    """
    if len({player.manner.online_critic for player in players}) > 1:
        # A speaker has one critic, so that two transformers run and no third: each kind of player plays by itself.
        played: dict[int, list[Episode]] = {}
        for online in (False, True):
            chosen = [number for number, player in enumerate(players) if player.manner.online_critic is online]
            group = [players[number] for number in chosen]
            episodes = play(
                task, split, actor, tokenizer, group, seeds, device=device, slots=slots, on_episode=on_episode
            )
            played |= dict(zip(chosen, episodes, strict=True))
        return [played[number] for number in range(len(players))]
    speaker = Speaker(_acting(actor, players), tokenizer, slots=slots, device=device)
    # Players of as many candidates stand beside each other: a slot with few waits for those with many.
    ranked = sorted(range(len(players)), key=lambda p: -players[p].manner.candidates)
    jobs = [(p, s) for p in ranked for s in range(len(seeds))]
    done: dict[tuple[int, int], Episode] = {}
    running: dict[int, tuple[tuple[int, int], _Running]] = {}
    upcoming = iter(jobs)
    while True:
        for slot in range(slots):
            if slot not in running and (job := next(upcoming, None)) is not None:
                player, seed = players[job[0]], seeds[job[1]]
                episode = _Running(player, task.environment(seed, split), seed)
                running[slot] = (job, episode)
                speaker.restart(slot)
                if player.manner.target_return is not None and not player.manner.asked_each_turn:
                    speaker.ask(slot, player.left({}))
                speaker.hear(slot, _opening(episode, tokenizer))
        if not running:
            return [[done[p, s] for s in range(len(seeds))] for p in range(len(players))]
        order = sorted(running)
        for slot, (_, episode) in running.items():
            if episode.player.manner.asked_each_turn:
                speaker.ask(slot, episode.player.left(episode.rewards))
        voices = [
            Voice(slot, e.player.decode, e.player.manner, e.generator)
            for slot, (_, e) in ((s, running[s]) for s in order)
        ]
        utterances = speaker.speak(voices)
        replies = task.step([running[s][1].environment for s in order], [u.text for u in utterances])
        for slot, utterance, reply in zip(order, utterances, replies, strict=True):
            job, episode = running[slot]
            episode.take(utterance, reply)
            if reply.ended:
                done[job] = episode.result()
                del running[slot]
            elif reply.text is not None:
                speaker.hear(slot, [*tokenizer.encode(reply.text), tokenizer.structural("eos")])
        if on_episode is not None:
            on_episode(len(done))


def _acting(actor: Actor, players: Sequence[Player]) -> Actor:
    """The actor with the critic that the players, who agree in that, tilt with."""
    online = any(player.manner.online_critic for player in players)
    return dataclasses.replace(actor, critic=actor.online) if online else actor


def _opening(episode: _Running, tokenizer: Tokenizer) -> list[int]:
    """What the agent hears first, as tokens."""
    text = episode.environment.opening
    if text is None:
        return [tokenizer.structural("boa")]
    episode.transcript.append(Turn(text, by_agent=False))
    return [tokenizer.structural("bos"), *tokenizer.encode(text), tokenizer.structural("eos")]


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
