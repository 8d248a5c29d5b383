"""Recorded dialogues whose agent is rewritten by a language model that has seen how they went; both are kept.

Only dialogues to learn from are rewritten, and every line of the result says its split: a dialogue and what became of
it stand in `train` together, and nothing that is judged on was touched. The model writes the agent's turns alone, so
the world's stay as they were recorded. They answer what was said then, not what is said now: hindsight is a guess about
the agent, and no evidence about the world (`docs/imagined_dialogues.md`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.text import count
from ilql.tasks.dialogues import transcript
from ilql.tasks.dialogues.payment import Said
from ilql.tasks.dialogues.schema import RECORDED, RecordedDialogue, RecordedTurn
from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.splits import assign
from ilql.tasks.dialogues.transcript import RefusedError
from sweeps.exact_json import Record
from sweeps.imagining import as_said
from sweeps.offline_data import Outcome, Refused, Reward, build, outcome
from sweeps.replies import Replies, Request, Writer, key_of, log_key, obtain, open_replies
from sweeps.store import Store

VERSION = 1
"""Raised when the same replies would become other dialogues, or others would be asked for; part of the keys."""

KIND = "hindsight"

WRONG_COUNT = "another number of turns than the agent had"
UNCHANGED = "what was said is said again, word for word"


@dataclass(frozen=True, kw_only=True)
class Hindsight:
    """What is asked for.

    Attributes:
        dialogues: As recorded.
        description: Of the task, for the model to read; may be empty.
        settings: Name the roles, and decide the splits.
        seed: Decides what is drawn.
        tries: Replies asked for about each dialogue, at most.

    Raises:
        ValueError: The dialogues cannot be split, a role cannot begin a line, or a number is none.
    """

    dialogues: tuple[RecordedDialogue, ...]
    description: str
    settings: Settings
    seed: int = 0
    tries: int = 3

    def __post_init__(self) -> None:
        transcript.check_roles([self.agent, self.settings.roles_of_world[0]])
        if self.seed < 0 or self.tries < 1:
            raise ValueError(f"seed must not be negative and tries at least 1, got {self.seed} and {self.tries}")
        assert len(self.splits) == len(self.dialogues)

    @property
    def agent(self) -> str:
        """The agent's role, as the model is told it."""
        return self.settings.roles_of_agent[0]

    @property
    def splits(self) -> list[str]:
        """The split of every dialogue."""
        return assign(self.dialogues, self.settings)

    @property
    def record(self) -> Record:
        """All that decides what is asked, but for the returns that the model is told."""
        told = [[d.name, d.ended, [[t.role, t.text] for t in d.turns]] for d in self.dialogues]
        return {
            "what": KIND,
            "versions": [VERSION, transcript.VERSION],
            "description": self.description,
            "dialogues": hashlib.sha256(json.dumps([told, self.splits]).encode()).hexdigest()[:20],
            "roles": [self.agent, self.settings.roles_of_world[0]],
            "seed": self.seed,
        }

    def prompt(self, dialogue: RecordedDialogue, earned: float) -> str:
        """What is asked about a dialogue that earned so much."""
        agent, turns = self.agent, sum(turn.by_agent for turn in dialogue.turns)
        shown = transcript.write(as_said(dialogue, self.settings))
        asked = (
            f"A dialogue, which earned {agent} {earned:g}:\n\n{shown}\nKnowing how it went, write what {agent} had "
            f"better said: {count(turns, 'line')}, one for each of the {agent}'s turns and in their order, with "
            f'"{agent}:" before each, nothing of the others, and a line {transcript.END} behind the last.\n\n'
        )
        return f"{self.description}\n\n{asked}" if self.description else asked


def rewrite(
    store: Store, asked: Hindsight, writer: Writer, reward: Reward, say: Callable[[str], None] = lambda line: None
) -> Outcome:
    """The stage of the recorded dialogues and what became of them, made unless it is there.

    Recorded or rewritten, every dialogue is paid by the reward function: two rewards in one file would teach which of
    them paid. What writes is treated as `sweeps.imagining.imagine` treats it.

    Raises:
        ValueError: The writer cannot be made ready, another process asks for the same, or the reward function fails.
        ConnectionError: An endpoint cannot go on.
    """
    # The returns that a model is told are the function's: another reward asks another question.
    log = log_key(asked.record | {"reward": reward.record}, writer)
    # What they were paid before is not asked about, and is told of.
    before = [[dict(turn.rewards) for turn in dialogue.turns] for dialogue in asked.dialogues]
    decided: Record = {
        "stage": KIND, "version": VERSION, "replies": log, "tries": asked.tries, "before": key_of({"paid": before}),
    }  # fmt: skip
    key = key_of(decided)
    if (there := outcome(store, KIND, key)) is not None:
        return there
    recorded = [_line(dialogue, split, reward) for dialogue, split in zip(asked.dialogues, asked.splits, strict=True)]
    writer.prepare()
    with open_replies(store, log) as replies:
        found = _Rewritten({}, [])
        try:
            _fill(found, asked, recorded, writer, replies, say)
        except ConnectionError as fault:
            kept = count(len(replies), "reply", "replies")
            raise type(fault)(f"{fault}; {kept} are kept, and the same command goes on from them") from fault
        lines, earned = [], []
        for place, (dialogue, line) in enumerate(zip(asked.dialogues, recorded, strict=True)):
            lines.append(line)
            if place in found.kept:
                changed = dataclasses.replace(dialogue, id=f"{KIND}-{log[:8]}-{place}", turns=found.kept[place])
                lines.append(_line(changed, "train", reward))
                earned.append((_earned(line), _earned(lines[-1])))
        build(
            store, KIND, key, {"decided": decided, "asked": asked.record, "writer": writer.record},
            lines=lines, refused=found.refused, reward=reward, reproducible=writer.reproducible,
            notes=_notes(asked, recorded, earned),
        )  # fmt: skip
    made = outcome(store, KIND, key)
    assert made is not None
    return made


@dataclass(frozen=True)
class _Rewritten:
    """What came of the replies: turns by the dialogue's place, and refusals."""

    kept: dict[int, tuple[RecordedTurn, ...]]
    refused: list[Refused]


def _line(dialogue: RecordedDialogue, split: str, reward: Reward) -> dict[str, Any]:
    """A dialogue as a line of the file, paid."""
    said = [(turn.role, turn.text) for turn in dialogue.turns]
    paid = reward.pay(said, [turn.by_agent for turn in dialogue.turns], dialogue.name)
    name = {} if dialogue.id is None else {"id": dialogue.id}
    return {**name, "turns": paid, "ended": dialogue.ended, "split": split}


def _earned(line: Mapping[str, Any]) -> float:
    return float(sum(turn.get("reward", 0.0) for turn in line["turns"]))


def _fill(
    found: _Rewritten,
    asked: Hindsight,
    recorded: Sequence[Mapping[str, Any]],
    writer: Writer,
    replies: Replies,
    say: Callable[[str], None],
) -> None:
    """Ask about every dialogue to learn from, and again about those whose reply was refused, while there are tries."""
    wanted = [place for place, line in enumerate(recorded) if line["split"] == "train"]
    whole = len(wanted)
    for attempt in range(asked.tries):
        requests = {
            place: Request(
                f"{place}.{attempt}", asked.prompt(asked.dialogues[place], _earned(recorded[place])), f"{asked.agent}:"
            )
            for place in wanted
        }
        obtain(list(requests.values()), writer, replies, asked.seed)
        for place, request in requests.items():
            reply = replies[request.name]
            try:
                if reply.text is None:
                    raise RefusedError(reply.problem)
                found.kept[place] = _changed(asked.dialogues[place], transcript.read(reply.text, (asked.agent,)))
            except RefusedError as why:
                found.refused.append(Refused(request.name, str(why), reply.text))
        wanted = [place for place in wanted if place not in found.kept]
        say(f"{len(found.kept):,} of {count(whole, 'dialogue')} rewritten, {count(attempt + 1, 'try', 'tries')} each")
        if not wanted:
            return


def _changed(dialogue: RecordedDialogue, said: Sequence[Said]) -> tuple[RecordedTurn, ...]:
    """The dialogue's turns with what the agent says now.

    Raises:
        RefusedError: It says another number of turns, or nothing else than it said.
    """
    places = [place for place, turn in enumerate(dialogue.turns) if turn.by_agent]
    if len(said) != len(places):
        raise RefusedError(WRONG_COUNT)
    turns = list(dialogue.turns)
    for place, (_, text) in zip(places, said, strict=True):
        turns[place] = dataclasses.replace(turns[place], text=text)
    if all(old.text.split() == new.text.split() for old, new in zip(dialogue.turns, turns, strict=True)):
        raise RefusedError(UNCHANGED)
    return tuple(turns)


def _notes(asked: Hindsight, recorded: Sequence[Mapping[str, Any]], earned: Sequence[tuple[float, float]]) -> list[str]:
    """What a user should know of it; `earned` are the returns before and after of what was rewritten."""
    whole = sum(line["split"] == "train" for line in recorded)
    said = [
        f"{len(earned):,} of {count(whole, 'dialogue')} of train rewritten; all {len(recorded):,} stay as they "
        "were recorded, and every line names its split"
    ]
    if earned:
        before, after = (sum(returns) / len(earned) for returns in zip(*earned, strict=True))
        said.append(f"their mean return under the reward function: {before:.4g} as recorded, {after:.4g} rewritten")
    names = {name for dialogue in asked.dialogues for turn in dialogue.turns for name in turn.rewards}
    other = 0
    for dialogue, line in zip(asked.dialogues, recorded, strict=True):
        had = [turn.rewards[RECORDED] for turn in dialogue.turns if RECORDED in turn.rewards]
        other += bool(had) and abs(sum(had) - _earned(line)) > 1e-6 * max(1.0, abs(sum(had)))
    if other:
        said.append(
            f"{count(other, 'dialogue')} had another return than the reward function pays; here all have the function's"
        )
    if left := sorted(names - {RECORDED}):
        said.append(
            f"rewards by name are left out, since nobody paid the rewritten turns under them: {', '.join(left)}"
        )
    return said
