"""A finished policy, one call away: load it by its trial's id, give it a dialogue, get its reply.

policy = load_policy("3f2a…")
policy.reply([("a dog on a beach", False)])   ->   "what colour is the dog"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ilql.dialogue import Dialogue, Turn
from ilql.evaluate import Player, reply_to
from ilql.hyperparameters import unknown
from ilql.method import Actor
from ilql.tokens import Tokenizer
from sweeps.spec import TrialSpec
from sweeps.stages import load_behaviour, load_module, load_tokenizer_stage
from sweeps.store import Store, store_folder


@dataclass(frozen=True)
class Policy:
    """A policy, ready to speak.

    Attributes:
        spec: What it is.
        actor: Its networks.
        tokenizer: Theirs.
    """

    spec: TrialSpec
    actor: Actor
    tokenizer: Tokenizer

    def reply(self, turns: Sequence[tuple[str, bool]] | Dialogue, *, seed: int = 0) -> str:
        """What it says next.

        Args:
            turns: What was said so far: a Dialogue, or pairs of text and whether the agent said it.
            seed: Decides the draws of a policy that samples.
        """
        dialogue = turns if isinstance(turns, Dialogue) else Dialogue(tuple(Turn(t, a) for t, a in turns), ended=False)
        manner = self.spec.kind.manner(self.spec.train, self.spec.decode)
        player = Player(self.spec.decode, manner, self.spec.data.reward)
        return reply_to(dialogue, self.actor, self.tokenizer, player, seed=seed, device=torch.device("cpu")).text


def load_policy(trial_id: str, store: Store | None = None) -> Policy:
    """The policy of a row, by its `trial_id` or the beginning of it.

    Args:
        trial_id: As in the table's rows.
        store: Where; the default store if not given.

    Raises:
        ValueError: No trial, or several, begin so; or its weights are not there.
    """
    where = store or Store(store_folder(None))
    spec = find_trial(trial_id, where)
    module = load_module(where, spec)
    behaviour = load_behaviour(where, spec) if spec.kind.needs_behaviour else None
    return Policy(spec, spec.kind.actor(module, behaviour), load_tokenizer_stage(where, spec))


def find_trial(trial_id: str, where: Store) -> TrialSpec:
    """The trained trial of a row.

    Args:
        trial_id: As in the table's rows, or the beginning of it.
        where: The store.

    Raises:
        ValueError: No trial, or several, begin so; or its weights are not there.
    """
    members = {member["trial_id"]: member for member in where.members() if member["trial_id"].startswith(trial_id)}
    if len(members) != 1:
        known = sorted(member["trial_id"] for member in where.members())
        if members:
            raise ValueError(
                f"a trial's id must be unique, {trial_id!r} begins {len(members)} of them; give more of it"
            )
        raise ValueError(unknown(trial_id, f"trial of the store {where.folder}", known[:10]))
    spec = TrialSpec.from_json(str(next(iter(members.values()))["spec"]))
    if where.stage("weights", spec.weights_id) is None:
        raise ValueError(f"the trial {spec.trial_id} must have been trained, its weights are not in the store")
    return spec
