"""Sit down with a task in the terminal: play an episode yourself, or watch a trained policy play it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from analysis.cells import Cell, best_cell, cells_of
from analysis.runs import RunTable
from analysis.text import count
from ilql.dialogue import Turn
from ilql.evaluate import Player, play
from ilql.task import Environment, Reply, Task
from ilql.tasks import task_named
from sweeps.options import Options
from sweeps.paths import store_option
from sweeps.policy import find_trial, load_policy
from sweeps.question import Question
from sweeps.run_tables import run_table
from sweeps.sizing import chosen_preset, world_settings
from sweeps.stages import ensure_world, load_task
from sweeps.store import Store

WORLD, AGENT = "world", "agent"

ID_SHOWN = 8
"""Characters of a trial's id that usually do."""


@runtime_checkable
class ForPeople(Protocol):
    """What a task may offer beside its rules, for a person who plays: none of it reaches a policy or a score.

    Attributes:
        rule: What an utterance must be, said before the first.
    """

    rule: str

    def typed(self, text: str) -> str:
        """The utterance of a person who typed this."""
        ...

    def afterwards(self, environment: Environment) -> str | None:
        """What a person wants to know of an episode that is over; None where there is nothing."""
        ...


def play_by_hand(
    task: Task, split: str, seed: int, ask: Callable[[str], str | None], say: Callable[[str], None]
) -> dict[str, float]:
    """Play one episode with what `ask` gives; returns what it paid so far, under every reward.

    Args:
        task: The world.
        split: Which scenes.
        seed: Which episode.
        ask: Given a prompt, gives an utterance, or None where there will be no more.
        say: Told what the world says and pays.
    """
    environment, totals = task.environment(seed, split), dict.fromkeys(task.rewards, 0.0)
    turns = count(task.max_turns, "turn")
    say(f"{task.name}, {split} scenes, episode {seed} ({environment.scene}); at most {turns}; Ctrl-C leaves")
    people = task if isinstance(task, ForPeople) else None
    if people is not None:
        say(people.rule)
    if environment.opening is not None:
        say(f"{WORLD}> {environment.opening}")
    while (text := ask(f"{AGENT}> ")) is not None:
        if not text.strip():  # a slip: a person who wants to say nothing leaves
            continue
        reply = task.step([environment], [text if people is None else people.typed(text)])[0]
        for name, reward in reply.rewards.items():
            totals[name] += reward
        for line in _said(reply):
            say(line)
        if reply.ended:
            if people is not None and (told := people.afterwards(environment)) is not None:
                say(told)
            say(f"over: {_end(task, totals)}")
            return totals
    say(f"left: {_paid(totals)} so far")
    return totals


def watch(store: Store, trial_id: str, split: str, seed: int, say: Callable[[str], None]) -> dict[str, float]:
    """Let a trained policy play one episode of its world; returns what it was paid, under every reward.

    Raises:
        ValueError: There is no such trial, or its weights are not there.
    """
    policy = load_policy(trial_id, store)
    spec = policy.spec
    task = load_task(store, spec.data.task, spec.evaluation.world)
    player = Player(spec.decode, spec.kind.manner(spec.train, spec.decode), spec.data.reward)
    device = torch.device("cpu")
    ((episode,),) = play(task, split, policy.actor, policy.tokenizer, [player], [seed], device=device)
    say(f"{spec.method} {spec.trial_id[:ID_SHOWN]} on {task.name}, {split} scenes, episode {seed} ({episode.scene})")
    for turn in episode.transcript.turns:
        say(_line(turn))
    say(f"over: {_end(task, episode.returns)}")
    return dict(episode.returns)


def task_to_play(question: Question, options: Options, store: Store, say: Callable[[str], None]) -> Task:
    """The task of a question's world, built unless it is there.

    Raises:
        ValueError: A setting or a source cannot be used; one line.
    """
    kind = task_named(question.task)
    settings = world_settings(question, chosen_preset(question, options), options)
    world = ensure_world(store, kind, settings, options.sources, say)
    for note in world.notes:
        say(note)
    return load_task(store, kind.name, world.key)


def check_trial(store: Store, trial_id: str, task: str) -> None:
    """Refuse a trial of another task.

    Raises:
        ValueError: It is one.
    """
    spec = find_trial(trial_id, store)
    if spec.data.task != task:
        raise ValueError(f"the trial must be one of {task}, got {spec.trial_id} of {spec.data.task}")


def invitation(store: Store, sweep: str, task: Task) -> str | None:
    """How to hear the best cell of a sweep, at its first seed, as a command; None where nothing has finished."""
    table = run_table(store, sweep)
    cell = best_cell(cells_of(table))
    if cell is None:
        return None
    runs = table.finished().runs
    best = runs.filter((runs["cell_id"] == cell.cell_id) & (runs["seed"] == cell.seeds[0])).row(0, named=True)
    trial = _beginning(best["trial_id"], [member["trial_id"] for member in store.members()])
    if task.playable:
        command = ["sweeps", "play", task.name, "--trial", trial]
    else:
        opening = task.environment(0, "report").opening
        command = ["sweeps", "reply", trial, opening or ""]
    command += store_option(store.folder)
    which = f"the policy with the highest {_what(table, cell)}, {cell.method}, speaks with: {shlex.join(command)}"
    return which if cell.doubt is None else f"no estimate is to be believed; {which}"


def _what(table: RunTable, best: Cell) -> str:
    if not table.estimated:
        return "score"
    return "estimate that is believed" if best.doubt is None else "one"


def _beginning(trial_id: str, others: Sequence[str]) -> str:
    """As much of an id, eight characters at least, as no other begins with."""
    length = ID_SHOWN
    while len({other for other in others if other.startswith(trial_id[:length])}) > 1:
        length += 1
    return trial_id[:length]


def _line(turn: Turn) -> str:
    return f"{AGENT if turn.by_agent else WORLD}> {turn.text}"


def _said(reply: Reply) -> list[str]:
    answer = [] if reply.text is None else [f"{WORLD}> {reply.text}"]
    lost = [] if reply.understood else ["  (not understood)"]
    return [*answer, *lost, f"  {_paid(reply.rewards)}"]


def _end(task: Task, totals: Mapping[str, float]) -> str:
    return _paid(totals) if task.playable else "nobody is there to answer, and nothing was paid"


def _paid(rewards: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:+g}" for name, value in rewards.items())
