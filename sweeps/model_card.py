"""The model card of an exported policy, written from its row: what it is, how it was trained, how it was judged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ilql.hyperparameters import Value
from sweeps.spec import TrialSpec

PLAIN = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model.generate(input_ids)"""

GUIDED = """from ilql.logits_processor import ValueGuidance
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
guidance = ValueGuidance.from_pretrained(FOLDER)
model.generate(input_ids, logits_processor=[guidance])"""


def model_card(spec: TrialSpec, record: Mapping[str, Any] | None, *, guided: bool, dialogue: str) -> str:
    """The card, as Markdown with the header that a hub reads.

    Args:
        spec: The trial.
        record: Its evaluation's record; None where it was not judged.
        guided: Whether token values stand beside the language model.
        dialogue: One line on how a dialogue is written as tokens.
    """
    kind, backbone = spec.kind, spec.backbone
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [offline-reinforcement-learning]\n---",
        f"# {kind.title} on {spec.data.task}",
        f"A policy of dialogues, trained offline by the method `{spec.method}` on recorded dialogues of the task "
        f"`{spec.data.task}`."
        + (" The language model acts as it was trained with its values beside it." if guided else ""),
        "## Use",
        f"```python\n{GUIDED if guided else PLAIN}\n```",
        dialogue,
        "## Score",
        _score(spec, record),
        "## Training",
        _table("train", spec.train),
        *([_table("behaviour", backbone.behaviour)] if kind.needs_behaviour else []),
        f"Training seed {spec.seed}. A mean of `{spec.data.reward}` rewards was to be made large.",
        "## Decoding",
        _table("decode", spec.decode),
        "## Data and provenance",
        f"- data: task `{spec.data.task}`, world `{spec.data.world}` (a digest of its settings and its source), the "
        "scenes of the split `train`",
        f"- weights `{spec.weights_id}`, trial `{spec.trial_id}`",
        *([_provenance(record)] if record else []),
        "## Licence",
        _licence(spec),
    ]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def _score(spec: TrialSpec, record: Mapping[str, Any] | None) -> str:
    """The score with its interval, and how it was measured."""
    if record is None or record.get("status") != "finished":
        return "It was not judged."
    e, score, deviation, count = spec.evaluation, record["score"], record.get("score_sd"), record["episodes"]
    how = "played in the task's environment" if e.by == "play" else "estimated by fitted-Q evaluation, not played"
    said = f"mean return **{score:.3f}**"
    if deviation is not None:
        error = deviation / math.sqrt(count)
        low, high = score - 1.96 * error, score + 1.96 * error
        said += f" ± {error:.3f} (standard error; 95 % interval {low:.3f} to {high:.3f}, over episodes)"
    return (
        f"{said}: {count} episodes, {how}, seeds {e.first_seed} to {e.first_seed + count - 1}, scenes of the split "
        f"`{e.split}`, reward `{e.reward}`. The interval is this policy's over episodes; it knows nothing of other "
        "training seeds, nor of how many settings this one was chosen from."
    )


def _table(bag: str, settings: Any) -> str:
    """A bag of hyperparameters under the glossary's names."""
    rows = [f"| `{bag}.{f.name}` | {_plain(getattr(settings, f.name))} | {f.metadata['meaning']} |"
            for f in dataclasses.fields(settings)]  # fmt: skip
    return "\n".join(["| hyperparameter | value | meaning |", "| --- | --- | --- |", *rows])


def _plain(value: Value) -> str:
    if isinstance(value, float):
        return "∞" if value == math.inf else "−∞" if value == -math.inf else f"{value:g}"
    return "–" if value is None else str(value)


def _provenance(record: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted((record.get("versions") or {}).items()))
    return f"- judged at {record.get('finished_at')}, code `{record.get('code_digest')}`, {versions}"


def _licence(spec: TrialSpec) -> str:
    """What the user has to fill in."""
    if not spec.backbone.pretrained:
        return "The weights began at random; their licence is for whoever trained them to name, as is that of the data."
    return (
        f"The weights began as a pretrained model (digest `{spec.backbone.pretrained}`), whose licence holds for what "
        "is made of it. Name the model and its licence here before you share this, and look at the licence of the data."
    )
