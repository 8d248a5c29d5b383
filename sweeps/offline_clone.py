"""How far a policy that did not clone all of the data is from all of it: %BC, whose language model is its own.

A log-ratio says how far a policy goes from the language model it acts with. Where that model has cloned the data, it is
how far the policy is from the data. Where it has cloned a part of them, as %BC's has, or was taught otherwise, what it
left out does not count there. Then what the policy said is asked of a clone of all data, too:
    Σ log π(a) − log π_all(a) = log-ratio + Σ log π_own(a) − log π_all(a).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ilql.batch import TokenSequence, tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.fitted_q import Acting, negative_log_likelihood
from ilql.method import Actor, Decoding, Manner
from ilql.tokens import Tokenizer
from sweeps.exact_json import Record
from sweeps.spec import TrialSpec, probe_key
from sweeps.stages import load_behaviour, load_module, load_tokenizer_stage
from sweeps.store import Store

VERSION = 1
"""Raised when the same weights would be compared otherwise; part of the key of every comparison."""

_CPU = torch.device("cpu")


def clones_all(spec: TrialSpec) -> bool:
    """Whether the language model that a trial's policy acts with has cloned all of the data."""
    return spec.kind.needs_behaviour or spec.method == "bc"


def clone_in(store: Store, specs: Sequence[TrialSpec]) -> TrialSpec | None:
    """A training among those of some trials that has cloned all of the data and is there: their behaviour policy first.

    None where there is none.
    """
    known = [*(spec.behaviour for spec in specs), *(spec for spec in specs if spec.method == "bc")]
    return next((spec for spec in known if store.has("weights", spec.weights_id)), None)


def beyond_its_model(store: Store, spec: TrialSpec, clone: TrialSpec, *, make: bool = True) -> float | None:
    """Mean over a trial's episodes of Σ log π_own(a) − log π_all(a), the sums over all tokens that its policy said.

    Added to the log-ratio it is how far the policy is from all of the data. Kept as a stage, so that it outlives the
    weights. None where neither these nor the stage are there.

    Args:
        store: Where.
        spec: The trial, whose policy acts with a language model of its own.
        clone: A training of `bc`, with the same tokeniser.
        make: Whether to make the stage where it is not there.
    """
    key = probe_key("beyond_clone", VERSION, spec.trial_id, {"clone": clone.weights_id})

    def compare(folder: Path) -> Record:
        del folder  # one number, which stands in the record
        tokenizer = load_tokenizer_stage(store, spec)
        said = _said(store, spec, tokenizer)
        own, all_data = (_unlikelihood(store, each, tokenizer, said) for each in (spec, clone))
        return {"nats": all_data - own}

    there = all(store.has("weights", each.weights_id) for each in (spec, clone))
    if make and there:
        store.build("beyond_clone", key, compare, {"weights": spec.weights_id})
    about = store.about("beyond_clone", key)
    return None if about is None else float(about["notes"]["nats"])


def _said(store: Store, spec: TrialSpec, tokenizer: Tokenizer) -> list[TokenSequence]:
    """What a trial's policy heard and said in its episodes."""
    transcripts = store.episodes([spec.trial_id], columns=["transcript"])["transcript"]
    dialogues = [
        Dialogue(tuple(Turn(turn["text"], by_agent=turn["by_agent"]) for turn in json.loads(each)), ended=False)
        for each in transcripts
    ]
    return [tokenize(dialogue, tokenizer, max_tokens=spec.train.max_tokens) for dialogue in dialogues]


def _unlikelihood(store: Store, spec: TrialSpec, tokenizer: Tokenizer, said: Sequence[TokenSequence]) -> float:
    """Mean over dialogues of −log of how likely a training's language model alone is to say all that was said."""
    behaviour = load_behaviour(store, spec) if spec.kind.needs_behaviour else None
    actor = spec.kind.actor(load_module(store, spec), behaviour)
    plain = Acting(Actor(actor.language_model), Decoding(greedy=False), Manner(), tokenizer)
    tokens = sum(len(sequence.action_positions) for sequence in said)
    return negative_log_likelihood(plain, said, _CPU) * tokens / len(said) if tokens else 0.0
