"""Whole dialogues that a language model imagines: asked for, read strictly, paid, stored as offline data.

`docs/imagined_dialogues.md` says what such data can and cannot tell. A stage `imagined` is keyed by everything that
decides it: description, examples and roles, the model (a digest of its files, or an endpoint's address and the name
there), how it draws, the seed, the number wanted and the tries, the reward's source, and versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.text import count
from ilql.tasks.dialogues import transcript
from ilql.tasks.dialogues.payment import Said
from ilql.tasks.dialogues.read import Recordings
from ilql.tasks.dialogues.schema import RecordedDialogue
from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.splits import assign
from ilql.tasks.dialogues.transcript import RefusedError
from sweeps.exact_json import Record
from sweeps.offline_data import Outcome, Refused, Reward, build, outcome
from sweeps.replies import Replies, Request, Writer, key_of, log_key, obtain, open_replies
from sweeps.store import Store

VERSION = 1
"""Raised when the same replies would become other dialogues, or others would be asked for; part of the keys."""

KIND = "imagined"

AGAIN = "word for word what was imagined before"
COPIED = "word for word one of the examples"


@dataclass(frozen=True, kw_only=True)
class Imagining:
    """What is asked for.

    Attributes:
        description: Of the task, for the model to read.
        examples: Dialogues, of which each prompt shows some; none is needed.
        shown: How many a prompt shows; all where there are fewer.
        settings: Name the roles, and how many turns of the agent a dialogue may have.
        seed: Decides which examples are shown, and what is drawn.
        count: Dialogues wanted.
        tries: Replies asked for on the way, for each dialogue wanted, at most.

    Raises:
        ValueError: A role cannot begin a line, or a number is none.
    """

    description: str
    examples: tuple[tuple[Said, ...], ...] = ()
    shown: int = 2
    settings: Settings
    seed: int = 0
    count: int = 100
    tries: int = 4

    def __post_init__(self) -> None:
        transcript.check_roles([self.agent, self.world])
        if min(self.shown, self.seed) < 0 or min(self.count, self.tries) < 1:
            raise ValueError(
                "shown and seed must not be negative, count and tries at least 1, got "
                f"{self.shown}, {self.seed}, {self.count} and {self.tries}"
            )

    @property
    def agent(self) -> str:
        """The agent's role."""
        return self.settings.roles_of_agent[0]

    @property
    def world(self) -> str:
        """The world's role."""
        return self.settings.roles_of_world[0]

    @property
    def record(self) -> Record:
        """All that decides what is asked, however much of it."""
        return {
            "what": KIND,
            "versions": [VERSION, transcript.VERSION],
            "description": self.description,
            "examples": hashlib.sha256("\n".join(map(transcript.write, self.examples)).encode()).hexdigest()[:20],
            "shown": self.shown,
            "roles": [self.agent, self.world],
            "max_turns": self.settings.max_turns,
            "seed": self.seed,
        }

    @property
    def opening(self) -> str:
        """How a dialogue begins: as the examples mostly do, with the world where there is none."""
        first = [turns[0][0] for turns in self.examples]
        return f"{self.agent if 2 * first.count(self.agent) > len(first) else self.world}:"

    def prompt(self, number: int) -> str:
        """What is asked at a try: a plain language model goes on with it, one that chats answers it."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.examples))
        shown = [transcript.write(self.examples[place]) for place in order[: self.shown]]
        examples = " Examples, and then yours:" if shown else ""
        asked = (
            f"Write a dialogue between {self.world} and {self.agent}, and nothing else: one line for each turn, with "
            f'"{self.world}:" or "{self.agent}:" before what is said, at most {self.settings.max_turns} lines of '
            f"{self.agent}, and a line {transcript.END} behind the last.{examples}"
        )
        return "\n\n".join([self.description, asked, *(example.rstrip("\n") for example in shown), ""])


def examples_of(recordings: Recordings, settings: Settings) -> tuple[tuple[Said, ...], ...]:
    """A file's dialogues as examples, those to learn from alone: what is judged on must not be told to a writer.

    Where they cannot be split, those that ask for no other split are.
    """
    dialogues = recordings.dialogues
    try:
        splits = assign(dialogues, settings)
    except ValueError:
        splits = [dialogue.split or "train" for dialogue in dialogues]
    return tuple(
        as_said(dialogue, settings) for dialogue, split in zip(dialogues, splits, strict=True) if split == "train"
    )


def as_said(dialogue: RecordedDialogue, settings: Settings) -> tuple[Said, ...]:
    """Its turns under the two roles that a model is told."""
    agent, world = settings.roles_of_agent[0], settings.roles_of_world[0]
    return tuple((agent if turn.by_agent else world, turn.text) for turn in dialogue.turns)


def imagine(
    store: Store, asked: Imagining, writer: Writer, reward: Reward, say: Callable[[str], None] = lambda line: None
) -> Outcome:
    """The stage of the dialogues asked for, made unless it is there.

    What the writer answers is written down as it comes: whatever stops this, the same call goes on from there, and
    another number of dialogues or another reward begins with it.

    Raises:
        ValueError: The writer cannot be made ready, another process asks for the same, or the reward function fails.
        ConnectionError: An endpoint cannot go on.
    """
    log = log_key(asked.record, writer)
    decided: Record = {
        "stage": KIND, "version": VERSION, "replies": log, "count": asked.count, "tries": asked.tries,
        "reward": reward.record,
    }  # fmt: skip
    key = key_of(decided)
    if (there := outcome(store, KIND, key)) is not None:
        return there
    writer.prepare()
    with open_replies(store, log) as replies:
        found = _Sieve(asked)
        try:
            _fill(found, asked, writer, replies, say)
        except ConnectionError as fault:
            kept = count(len(replies), "reply", "replies")
            raise type(fault)(f"{fault}; {kept} are kept, and the same command goes on from them") from fault
        lines = []
        for number, turns in found.kept.items():
            name = f"{KIND}-{log[:8]}-{number}"
            paid = reward.pay(turns, [role == asked.agent for role, _ in turns], name)
            lines.append({"id": name, "turns": paid, "ended": True})
        notes = []
        if len(lines) < asked.count:
            notes.append(
                f"{count(len(lines), 'dialogue')} of the {asked.count:,} wanted: {found.limit:,} tries were all there "
                "may be; --tries allows more"
            )
        about = {"decided": decided, "asked": asked.record, "writer": writer.record}
        build(
            store, KIND, key, about, lines=lines, refused=found.refused, reward=reward,
            reproducible=writer.reproducible, notes=notes,
        )  # fmt: skip
    made = outcome(store, KIND, key)
    assert made is not None
    return made


class _Sieve:
    """Replies, in the order of the tries: kept until there are enough, or refused for a reason."""

    def __init__(self, asked: Imagining) -> None:
        self._asked = asked
        self.limit = asked.count * asked.tries
        self.kept: dict[int, Sequence[Said]] = {}
        self.refused: list[Refused] = []
        self._examples = set(map(transcript.write, asked.examples))
        self._seen: set[str] = set()

    @property
    def missing(self) -> int:
        """How many dialogues are."""
        return self._asked.count - len(self.kept)

    def take(self, number: int, replies: Replies) -> None:
        """Judge a try's reply, if there is use for it."""
        reply = replies[str(number)]
        if not self.missing or number >= self.limit:
            return
        try:
            if reply.text is None:
                raise RefusedError(reply.problem)
            self.kept[number] = self._read(reply.text)
        except RefusedError as why:
            self.refused.append(Refused(str(number), str(why), reply.text))

    def _read(self, text: str) -> Sequence[Said]:
        agent, world = self._asked.agent, self._asked.world
        turns = transcript.read(text, (agent, world))
        transcript.check_dialogue(turns, agent=agent, world=world, max_turns=self._asked.settings.max_turns)
        written = transcript.write(turns)
        if written in self._examples:
            raise RefusedError(COPIED)
        if written in self._seen:
            raise RefusedError(AGAIN)
        self._seen.add(written)
        return turns


def _fill(found: _Sieve, asked: Imagining, writer: Writer, replies: Replies, say: Callable[[str], None]) -> None:
    """Ask until there are enough dialogues, or no tries are left.

    Replies that can be drawn again are asked for in whole blocks, so that a try's reply hangs on nothing but its
    number; of others no more are asked for than may be of use.
    """
    number = 0
    while found.missing and number < found.limit:
        step = writer.together
        if not writer.reproducible:
            step = min(step, found.missing, found.limit - number)
        tries = range(number, number + step)
        obtain([Request(str(each), asked.prompt(each), asked.opening) for each in tries], writer, replies, asked.seed)
        for each in tries:
            found.take(each, replies)
        number += step
        say(f"{len(found.kept):,} of {count(asked.count, 'dialogue')}, {min(number, found.limit):,} tries")
