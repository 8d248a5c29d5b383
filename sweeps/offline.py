"""Scores where nothing can be played: a policy's value by fitted-Q evaluation, and what held-out dialogues say.

What was drawn from the policy stays as samples to read; the world's own 0 for it is no score and is dropped.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ilql import decode, fitted_q
from ilql.batch import TokenSequence, collate, dialogue_numbers, tokenize
from ilql.checkpoint import load_weights, save_weights
from ilql.dialogue import Dialogue, Turn
from ilql.evaluate import Episode
from ilql.fitted_q import Acting, FittedQ
from ilql.language_model import trunk_of
from ilql.method import ActionValues, Actor
from ilql.methods import method_named
from ilql.task import Task
from ilql.tokens import Tokenizer
from sweeps.reading import read, read_as
from sweeps.space import PlannedTraining
from sweeps.spec import Evaluation, TrialSpec, probe_key
from sweeps.store import Store

HELD_OUT = 500
"""Held-out dialogues that losses and calibration are taken on, at most."""


def distinct_episodes(task: Task, split: str, most: int) -> int:
    """How many of the first `most` episodes of a split are about different scenes, before one comes again."""
    seen: set[str] = set()
    for seed in range(most):
        scene = task.environment(seed, split).scene
        if scene in seen:
            break
        seen.add(scene)
    return len(seen)


def not_estimated(design: Sequence[PlannedTraining]) -> dict[str, str]:
    """By arm what keeps a design's policies from being judged where they cannot be played; empty where nothing does."""
    found = {}
    for training in design:
        for decode_ in training.decodes:
            why = fitted_q.without_probabilities(method_named(training.method).manner(training.train, decode_))
            if why is not None:
                found[training.arm] = why
    return found


def estimated_alone(
    design: Sequence[PlannedTraining], named: Sequence[str], say: Callable[[str], None]
) -> tuple[PlannedTraining, ...]:
    """The trainings of a design whose policies can be judged without being played.

    Args:
        design: All of them.
        named: The arms that were asked for by their names: those are not left out, but refused.
        say: Told in one line which are left out.

    Raises:
        ValueError: One that was asked for by its name cannot be judged, or none can.
    """
    never = not_estimated(design)
    left = tuple(training for training in design if training.arm not in never)
    refused = [arm for arm in never if arm in named or not left]
    rule = "without an environment only a policy whose tokens have probabilities can be judged"
    if refused:
        whose = ", ".join(f"{arm}, which {never[arm]}" for arm in refused)
        raise ValueError(f"{rule}, got {whose}; give --environment, or other --methods")
    if never:
        say(f"{rule}; left out: {', '.join(f'{arm}, which {why}' for arm, why in never.items())}")
    return left


def held_out_notes(
    task: Task, tokenizer: Tokenizer, max_tokens: int, evaluations: Sequence[Evaluation], *, in_windows: bool
) -> list[str]:
    """A line for each split of which dialogues are longer than is read at once, before anything is learnt.

    Args:
        task: A world that cannot be played.
        tokenizer: How its texts become tokens.
        max_tokens: How many of a dialogue are read at once.
        evaluations: What is asked of it: the splits, and the episodes whose openings a policy must be able to answer.
        in_windows: Whether longer ones are cut into windows; else they end there.

    Raises:
        ValueError: An opening leaves no room for an answer: its value would be that of a state in mid-sentence.
    """
    lines = []
    for evaluation in evaluations:
        split = evaluation.split
        for seed in evaluation.seeds:
            environment = task.environment(seed, split)
            heard = () if environment.opening is None else (Turn(environment.opening, by_agent=False),)
            tokens = len(tokenize(Dialogue(heard, ended=False), tokenizer).tokens)
            if tokens >= max_tokens:
                raise ValueError(
                    f"what is said before the agent's first turn must be shorter than train.max_tokens={max_tokens}, "
                    f"got {tokens} tokens in {environment.scene} of the {split} split; shorten it, or leave it out"
                )
        recorded = task.dialogues(split, evaluation.reward)[:HELD_OUT]
        cut = read(recorded, tokenizer, max_tokens=max_tokens, in_windows=in_windows).cut
        if (line := cut.note(split, max_tokens, ": losses and calibration see no more of them")) is not None:
            lines.append(line)
    return lines


def estimated(
    store: Store,
    spec: TrialSpec,
    task: Task,
    actor: Actor,
    module: nn.Module,
    tokenizer: Tokenizer,
    episodes: Sequence[Episode],
    device: torch.device,
    on_step: Callable[[int], None],
) -> list[Episode]:
    """The samples of a policy with estimates in place of returns, and what held-out dialogues say of it as measures.

    Args:
        store: Where the fit is kept: the tune and the report scenes share it.
        spec: The trial.
        task: A world that cannot be played.
        actor: The networks that act.
        module: The trained module.
        tokenizer: Theirs.
        episodes: What the policy said at the beginnings of held-out dialogues.
        device: Where the networks run.
        on_step: Called after each step of a fit with its number, and with the last one's after each pass behind it.
            What it raises ends it all; of a fit that is not done nothing is kept.

    Raises:
        ValueError: The policy's tokens have no probabilities, so nothing can be estimated.
    """
    acting = Acting(actor, spec.decode, spec.kind.manner(spec.train, spec.decode), tokenizer)
    fitted = _fitted(store, spec, task, acting, device, on_step)
    openings = [_opening(episode, tokenizer, spec.train.max_tokens) for episode in episodes]
    on_pass = functools.partial(on_step, spec.fit.steps)
    values = fitted.values(acting, openings, device, on_pass).double().cpu().numpy()
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    measures = held_out_measures(spec, task, acting, module, device, on_pass)
    return [
        dataclasses.replace(
            episode,
            returns={spec.evaluation.reward: float(value)},
            measures={**episode.measures, "member_sd": float(sd), **measures},
        )
        for episode, value, sd in zip(episodes, values.mean(axis=0), spread, strict=True)
    ]


def held_out_measures(
    spec: TrialSpec,
    task: Task,
    acting: Acting,
    module: nn.Module,
    device: torch.device,
    on_pass: Callable[[], None],
) -> dict[str, float]:
    """Losses and calibration on recorded dialogues of the evaluation's split that nothing was learnt from.

    `held_out_nll`: −log π of the recorded tokens, the policy sampling at its own temperature; absent where that is
    infinite. For methods whose values sum rewards, Q of the recorded tokens against the discounted rewards that
    followed, in dialogues that were recorded to their ends: `q_bias`, the mean of Q less what followed, and
    `q_correlation`. Rewards are as the training took them: a standardised return is so by the training's mean and
    deviation. Q is of the improved policy, and what followed is of the recorded one, so a good policy's bias is above
    0. Values that are made of more, as Ψ is of log π_β, have neither: nothing that followed is in their unit.

    `on_pass` is called after each pass.
    """
    recorded = task.dialogues(spec.evaluation.split, spec.data.reward)[:HELD_OUT]
    tokenised = read_as(spec, recorded, acting.tokenizer).sequences
    sequences = [sequence for sequence in tokenised if len(sequence.action_positions)]
    if not sequences:
        return {}
    found: dict[str, float] = {}
    if not math.isinf(acting.manner.beta):
        sampling = dataclasses.replace(acting, decode=dataclasses.replace(acting.decode, greedy=False))
        loss = fitted_q.negative_log_likelihood(sampling, sequences, device, on_pass)
        found |= {"held_out_nll": loss} if math.isfinite(loss) else {}
    of_actions, valued = spec.kind.values, spec.kind.valued
    if of_actions is not None and valued is not None and (known := to_their_ends(sequences)):
        q: list[npt.NDArray[np.float64]] = []
        rewards: list[npt.NDArray[np.float32]] = []
        module.to(device)
        for begin in range(0, len(known), fitted_q.READ_TOGETHER):
            block = known[begin : begin + fitted_q.READ_TOGETHER]
            batch = collate(block, pad=acting.tokenizer.structural("pad")).to(device)
            values: ActionValues = of_actions(module, batch)
            q.append(values.q[batch.action_mask].cpu().double().numpy())
            rewards.append(valued(module, batch, spec.train)[batch.action_mask].cpu().numpy())
            on_pass()
        followed = what_followed(known, np.concatenate(rewards), spec.train.gamma)
        found |= calibration(np.concatenate(q), followed)
    return found


def to_their_ends(sequences: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Those whose dialogues were recorded to their ends: of the others nobody knows what followed."""
    return [window for windows in _dialogues(sequences) if windows[-1].ended for window in windows]


def what_followed(
    sequences: Sequence[TokenSequence], rewards: npt.NDArray[np.float32], gamma: float
) -> npt.NDArray[np.float64]:
    """The discounted rewards from every action to its dialogue's end, from those of every action, (actions,) each."""
    ends = np.cumsum([sum(len(each.rewards) for each in windows) for windows in _dialogues(sequences)])
    parts = np.split(rewards, ends[:-1])
    return np.concatenate([fitted_q.rewards_to_go(part, gamma=gamma) for part in parts])


def _dialogues(sequences: Sequence[TokenSequence]) -> list[list[TokenSequence]]:
    """The windows of each dialogue."""
    numbered = zip(dialogue_numbers(sequences), sequences, strict=True)
    return [[window for _, window in group] for _, group in itertools.groupby(numbered, lambda pair: pair[0])]


def calibration(q: npt.NDArray[np.float64], followed: npt.NDArray[np.float64]) -> dict[str, float]:
    """Mean of Q less what followed, and their correlation, which is absent where one of them never varies."""
    found = {"q_bias": float((q - followed).mean())}
    if q.std() > 0 and followed.std() > 0:
        found["q_correlation"] = float(np.corrcoef(q, followed)[0, 1])
    return found


def _fitted(
    store: Store,
    spec: TrialSpec,
    task: Task,
    acting: Acting,
    device: torch.device,
    on_step: Callable[[int], None],
) -> FittedQ:
    """The fit of a policy, made unless it is there."""
    settings, reward = spec.fit, spec.evaluation.reward
    asked = {
        "acts_with": spec.behaviour.weights_id if spec.kind.needs_behaviour else None,
        "decode": dataclasses.asdict(spec.decode),
        "world": spec.evaluation.world,
        "reward": reward,
        "max_tokens": spec.train.max_tokens,
        "fit": dataclasses.asdict(settings),
        "decoding": decode.VERSION,
    }

    def make(folder: Path) -> None:
        recorded = task.dialogues("train", reward)[: settings.dialogues]
        sequences = read_as(spec, recorded, acting.tokenizer).sequences
        save_weights(fitted_q.fit(acting, sequences, settings, device, on_step), folder)

    key = probe_key("fitted_q", fitted_q.VERSION, spec.weights_id, asked)
    folder = store.build("fitted_q", key, make, {"weights": spec.weights_id})
    trunk = trunk_of(acting.actor.language_model)
    fitted = FittedQ(trunk, acting.tokenizer.size, members=settings.members, start=0.0, seed=settings.seed)
    load_weights(fitted, folder)
    return fitted.requires_grad_(False).to(device).eval()


def _opening(episode: Episode, tokenizer: Tokenizer, max_tokens: int) -> TokenSequence:
    """What was said before the agent's first turn."""
    turns = episode.transcript.turns
    first = next((place for place, turn in enumerate(turns) if turn.by_agent), len(turns))
    return tokenize(Dialogue(turns[:first], ended=False), tokenizer, max_tokens=max_tokens)
