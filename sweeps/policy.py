"""A finished policy, one call away: load it by its trial's id, give it a dialogue, get its reply.

policy = load_policy("3f2a…")
policy.reply([("a dog on a beach", False)])   ->   "what colour is the dog"

export_policy("3f2a…", Path("mine"))   ->   a folder that Transformers loads
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from ilql.batch import tokenize
from ilql.checkpoint import check_finite
from ilql.dialogue import Dialogue, Turn
from ilql.evaluate import Player, reply_to
from ilql.hyperparameters import unknown
from ilql.language_model import context_length, is_tied, trunk_of, whole_language_model, with_trunk
from ilql.logits_processor import Guidance, save_values
from ilql.method import Actor, Manner
from ilql.model_folder import find_model
from ilql.networks import QNetwork
from ilql.tokens import STRUCTURE, Tokenizer, pretrained_tokenizer
from sweeps.model_card import model_card
from sweeps.paths import store_at
from sweeps.spec import TrialSpec
from sweeps.stages import load_behaviour, load_module, load_tokenizer_stage, merged, pretrained_digest
from sweeps.store import Store

SHOWN = 10
"""Trials that are named where there is none of an id."""


@dataclass(frozen=True)
class Policy:
    """A policy, ready to speak.

    Attributes:
        spec: What it is.
        actor: Its networks.
        tokenizer: Theirs.
        module: All that was trained.
    """

    spec: TrialSpec
    actor: Actor
    tokenizer: Tokenizer
    module: nn.Module

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
        ValueError: No trial, or several, begin so; its weights are not there; or the default store is named by no path.
    """
    where = store or Store(store_at(None))
    spec = find_trial(trial_id, where)
    module = load_module(where, spec)
    check_finite(module, str(where.stage("weights", spec.weights_id)))
    behaviour = load_behaviour(where, spec) if spec.kind.needs_behaviour else None
    return Policy(spec, spec.kind.actor(module, behaviour), load_tokenizer_stage(where, spec), module)


def export_policy(trial_id: str, folder: Path, store: Store | None = None, *, model: str | None = None) -> None:
    """Write a policy for use outside: a folder in Hugging Face's layout, with the whole vocabulary.

    Beside model, tokeniser and model card stands `structure.json`, the ids of the structural tokens: a dialogue is
    written as `bos`, or `boa` where the agent opens it, then each turn's text and its `eos`, the agent's `eoa`; so
    `generate` ends with `eoa`. With a chat template it is written as that has it. Tokens that a cut vocabulary left out
    have the rows they had in the pretrained model.

    Of a method that tilts every token the language model is the policy that is tilted, and beside it stand the values:
    `ilql.logits_processor.ValueGuidance` reads them. They know no tokens that a cut vocabulary left out.

    Args:
        trial_id: As in the table's rows, or the beginning of it.
        folder: New, or empty.
        store: Where; the default store if not given.
        model: The pretrained model it was trained from, a folder or a name on the hub; only needed where its
            vocabulary is cut. Its tokeniser comes along as Transformers has it, chat template and all.

    Raises:
        ValueError: There is no such trained trial, its policy ranks whole utterances or is asked for returns, the
            folder holds something, or the model is missing or another one.
    """
    where = store or Store(store_at(None))
    policy = load_policy(trial_id, where)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"an export's folder must be new or empty, got {folder}")
    actor, spec, backbone = policy.actor, policy.spec, policy.spec.backbone
    manner = spec.kind.manner(spec.train, spec.decode)
    critic = actor.online if manner.online_critic else actor.critic
    if actor.judge is not None or actor.condition is not None or not isinstance(critic, QNetwork | None):
        raise ValueError(
            "an exported policy must be a language model, alone or with a Q head for its tokens, got an "
            f"{spec.method!r} trial, which acts with something else"
        )
    source = None if model is None else find_model(model)
    if source is None and backbone.cut_vocabulary:
        raise ValueError("a policy whose vocabulary is cut must be given the model it began as; --model names it")
    if source is not None and (digest := pretrained_digest(source)) != backbone.pretrained:
        began = backbone.pretrained or "random weights"
        raise ValueError(f"--model must be what the policy began as ({began}), got {source} ({digest})")
    whole = policy.tokenizer.whole

    def with_all_tokens(language_model: nn.Module) -> Any:
        language_model = merged(where, spec, language_model)
        if source is None or not backbone.cut_vocabulary:
            return language_model
        rows = policy.tokenizer.rows.tolist()
        return whole_language_model(language_model, source, vocabulary=whole.size, seed=backbone.seed, rows=rows)

    written = with_all_tokens(actor.language_model)
    written.generation_config = _generation(policy, guided=critic is not None)
    written.config.tie_word_embeddings = is_tied(written)  # else a joint policy's head would be lost
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(f"an export's folder must be one that can be made, got {folder}: {fault.strerror}") from None
    written.save_pretrained(str(folder))
    whole.save(folder)
    if source is not None:
        pretrained_tokenizer(source).save_pretrained(str(folder))
    ids = {name: whole.structural(name) for name in STRUCTURE}
    (folder / "structure.json").write_text(json.dumps(ids, indent=2), encoding="utf-8")
    if critic is not None:
        trunk = trunk_of(with_all_tokens(with_trunk(actor.language_model, critic.trunk)))
        v_head = getattr(policy.module, "v_head", None) if spec.kind.values is not None else None
        save_values(folder, critic, v_head, trunk, _guidance(policy, critic, manner))
    record = where.get("evaluation", spec.trial_id)
    card = model_card(spec, record, guided=critic is not None, dialogue=_DIALOGUE[whole.chat is not None])
    (folder / "README.md").write_text(card, encoding="utf-8")


_DIALOGUE = {
    True: "A dialogue is written as the tokeniser's chat template has it: `tokenizer.apply_chat_template`.",
    False: "A dialogue is `bos`, or `boa` where the agent opens it, then each turn's text and its `eos`, the agent's "
    "`eoa`; `structure.json` has the ids, which the tokeniser does not know.",
}


def _generation(policy: Policy, *, guided: bool) -> GenerationConfig:
    """How `generate` speaks unless it is told otherwise: as the policy was judged; guidance has filters of its own."""
    decode, whole = policy.spec.decode, policy.tokenizer.whole
    settings: dict[str, Any] = {"eos_token_id": whole.end, "pad_token_id": whole.structural("pad")}
    if not decode.greedy:
        settings |= {"do_sample": True, "top_k": 0}  # named, since it is 50 where it is not
        settings |= {} if guided else {"temperature": decode.temperature, "top_k": decode.top_k, "top_p": decode.top_p}
    own: Any = GenerationConfig
    made: GenerationConfig = own(max_new_tokens=decode.max_new_tokens, **settings)
    return made


def _guidance(policy: Policy, critic: QNetwork, manner: Manner) -> Guidance:
    """How a policy's values guide: those of the critic it acts with, the target's or the online network's."""
    tokenizer, decode = policy.tokenizer, policy.spec.decode
    return Guidance(
        method=policy.spec.method,
        relative=policy.actor.relative,
        value_range=critic.value_range,
        rows=tuple(tokenizer.rows.tolist()),
        writable=tuple(tokenizer.rows[tokenizer.writable()].tolist()),
        end=tokenizer.whole.end,
        pad=tokenizer.whole.structural("pad"),
        decode=dataclasses.asdict(decode) | {"beta": manner.beta, "filter_after": manner.filter_after},
    )


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
        known = sorted({member["trial_id"] for member in where.members()})
        if members:
            raise ValueError(
                f"a trial's id must be unique, {trial_id!r} begins {len(members)} of them; give more of it"
            )
        more = f" and {len(known) - SHOWN} more, which `sweeps status` lists" if len(known) > SHOWN else ""
        raise ValueError(unknown(trial_id, f"trial of the store {where.folder}", known[:SHOWN]) + more)
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
        if where.has("weights", each.weights_id):
            continue
        if (dropped := where.dropped_weights(each.weights_id)) is None:
            raise ValueError(f"the trial {spec.trial_id} must have been trained, its weights are not in the store")
        command = ["sweeps", "gc", "--restore", spec.trial_id, "--store", str(where.folder)]
        raise ValueError(
            f"the trial {spec.trial_id} must have its weights, they were dropped at {dropped['at']} by "
            f"--keep {dropped['rule']}; made again by: {shlex.join(command)}"
        )
