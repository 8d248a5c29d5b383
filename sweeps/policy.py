"""A finished policy, one call away: load it by its trial's id, give it a dialogue, get its reply.

policy = load_policy("3f2a…")
policy.reply([("a dog on a beach", False)])   ->   "what colour is the dog"

export_policy("3f2a…", Path("mine"))   ->   a folder that Transformers loads
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ilql.batch import tokenize
from ilql.checkpoint import check_finite
from ilql.dialogue import Dialogue, Turn
from ilql.evaluate import Player, reply_to
from ilql.hyperparameters import unknown
from ilql.method import Actor
from ilql.networks import context_length, find_model, whole_language_model
from ilql.tokens import STRUCTURE, Tokenizer
from sweeps.spec import TrialSpec
from sweeps.stages import load_behaviour, load_module, load_tokenizer_stage, pretrained_digest
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

        Raises:
            ValueError: It is more than the policy can read.
        """
        dialogue = turns if isinstance(turns, Dialogue) else Dialogue(tuple(Turn(t, a) for t, a in turns), ended=False)
        heard, context = len(tokenize(dialogue, self.tokenizer).tokens), context_length(self.actor.language_model)
        if heard >= context:
            raise ValueError(f"what was said must be shorter than the policy reads ({context} tokens), got {heard}")
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
    check_finite(module, str(where.stage("weights", spec.weights_id)))
    behaviour = load_behaviour(where, spec) if spec.kind.needs_behaviour else None
    return Policy(spec, spec.kind.actor(module, behaviour), load_tokenizer_stage(where, spec))


def export_policy(trial_id: str, folder: Path, store: Store | None = None, *, model: str | None = None) -> None:
    """Write a policy for use outside: a folder in Hugging Face's layout, with the whole vocabulary.

    Beside model and tokeniser stands `structure.json`, the ids of the structural tokens: a dialogue is written as
    `bos`, or `boa` where the agent opens it, then each turn's text and its `eos`, the agent's `eoa`; so `generate` ends
    with `eoa`. Tokens that a cut vocabulary left out have the rows they had in the pretrained model.

    Args:
        trial_id: As in the table's rows, or the beginning of it.
        folder: New, or empty.
        store: Where; the default store if not given.
        model: The pretrained model it was trained from, a folder or a name on the hub; only needed where its
            vocabulary is cut.

    Raises:
        ValueError: There is no such trained trial, its policy is more than a language model, the folder holds
            something, or the model is missing or another one.
    """
    policy = load_policy(trial_id, store)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"an export's folder must be new or empty, got {folder}")
    actor, backbone = policy.actor, policy.spec.backbone
    if actor.critic is not None or actor.judge is not None or actor.condition is not None:
        raise ValueError(
            f"an exported policy must be a language model alone, got an {policy.spec.method!r} trial, which acts with "
            "more networks than that"
        )
    language_model: Any = actor.language_model
    whole = policy.tokenizer.whole
    if backbone.cut_vocabulary:
        if model is None:
            raise ValueError("a policy whose vocabulary is cut must be given the model it began as; --model names it")
        source = find_model(model)
        if (digest := pretrained_digest(source)) != backbone.pretrained:
            began = backbone.pretrained
            raise ValueError(f"--model must be what the policy began as ({began}), got {source} ({digest})")
        language_model = whole_language_model(
            language_model, source, vocabulary=whole.size, seed=backbone.seed, rows=policy.tokenizer.rows.tolist()
        )
    ids = {name: whole.structural(name) for name in STRUCTURE}
    language_model.generation_config.eos_token_id = ids["eoa"]
    language_model.generation_config.pad_token_id = ids["pad"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(f"an export's folder must be one that can be made, got {folder}: {fault.strerror}") from None
    language_model.save_pretrained(str(folder))
    whole.save(folder)
    (folder / "structure.json").write_text(json.dumps(ids, indent=2), encoding="utf-8")


def find_trial(trial_id: str, where: Store) -> TrialSpec:
    """The trained trial of a row.

    Args:
        trial_id: As in the table's rows, or the beginning of it.
        where: The store.

    Raises:
        ValueError: No trial, or several, begin so; or its weights are not there.
    """
    spec = wanted_trial(trial_id, where)
    _check_trained(spec, where)
    return spec


def wanted_trial(trial_id: str, where: Store) -> TrialSpec:
    """The trial of a row, trained or not.

    Args:
        trial_id: As in the table's rows, or the beginning of it.
        where: The store.

    Raises:
        ValueError: No trial, or several, begin so.
    """
    members = {member["trial_id"]: member for member in where.members() if member["trial_id"].startswith(trial_id)}
    if len(members) != 1:
        known = sorted(member["trial_id"] for member in where.members())
        if members:
            raise ValueError(
                f"a trial's id must be unique, {trial_id!r} begins {len(members)} of them; give more of it"
            )
        raise ValueError(unknown(trial_id, f"trial of the store {where.folder}", known[:10]))
    ((found, member),) = members.items()
    try:
        return TrialSpec.from_json(str(member.get("spec")))
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        message = fault.args[0] if isinstance(fault, KeyError) else fault
        raise ValueError(f"a trial must be one that this version reads, got {found}: {message}") from None


def _check_trained(spec: TrialSpec, where: Store) -> None:
    """Refuse a trial whose weights are not there, or those it acts with, and say what makes them again.

    Raises:
        ValueError: They are not.
    """
    for each in (spec, *spec.required):
        if where.stage("weights", each.weights_id) is not None:
            continue
        if (dropped := where.dropped_weights(each.weights_id)) is None:
            raise ValueError(f"the trial {spec.trial_id} must have been trained, its weights are not in the store")
        command = ["sweeps", "gc", "--restore", spec.trial_id, "--store", str(where.folder)]
        raise ValueError(
            f"the trial {spec.trial_id} must have its weights, they were dropped at {dropped['at']} by "
            f"--keep {dropped['rule']}; made again by: {shlex.join(command)}"
        )
