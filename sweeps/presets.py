"""Presets: how big a sweep is. A preset is a value, shown by `--show`; a question has one of each name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ilql.hyperparameters import Value
from ilql.language_model import Architecture
from ilql.methods import bc
from sweeps.job import Resources


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The size of a sweep: data, model, steps, episodes. Hyperparameters that are asked about are the question's.

    Attributes:
        name: `smoke`, `laptop` or `paper`.
        world: Settings of the task that differ from its own defaults.
        architecture: Sizes of a model that starts at random; None where `model` names a pretrained one.
        model: A pretrained model: a local folder, or a name on the Hugging Face hub.
        vocabulary: Size of the tokeniser trained on the data; 0 takes the pretrained model's own.
        cut_vocabulary: Whether a pretrained model's own is cut to the tokens that occur in the training split.
        chat_template: Whether dialogues are written as the pretrained model's chat template has them.
        adapter_rank: Rank of the adapters that are learnt on a frozen model; 0 learns all weights.
        behaviour: How the behaviour policy is trained, and with it every method that only clones.
        behaviour_per_seed: Whether each training seed has a behaviour policy of its own.
        base: Columns of the methods with a critic, and of all decodings, that the question does not vary.
        methods: Columns of single methods that differ from those, by method.
        convention: Columns by which the methods of `ilql.conventions.METHODS` follow another implementation.
        with_data: Columns, and the vocabulary, that differ where dialogues are given with `--data`: people's language
            is richer than a generated world's.
        tune_episodes: Episodes on the tune scenes.
        report_episodes: Episodes on the report scenes.
        proposals: Proposals of the refinement.
        round_size: Proposals made, and compared at a rung, together.
        rung: Share of the steps after which the worse half of a round is stopped; 1 stops none.
        seeds: Training seeds of every cell.
        resources: What a job may use.
        paper: What the paper has instead, for the columns where this preset differs; printed before a run.
    """

    name: str
    world: Mapping[str, Value] = field(default_factory=dict)
    architecture: Architecture | None
    model: str | None = None
    vocabulary: int
    cut_vocabulary: bool = True
    chat_template: bool = False
    adapter_rank: int = 0
    behaviour: bc.Train
    behaviour_per_seed: bool = False
    base: Mapping[str, Value]
    methods: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    convention: Mapping[str, Value] = field(default_factory=dict)
    with_data: Mapping[str, Value] = field(default_factory=dict)
    tune_episodes: int
    report_episodes: int
    proposals: int
    round_size: int = 2
    rung: float = 1.0
    seeds: int = 1
    resources: Resources
    paper: Mapping[str, Value] = field(default_factory=dict)

    def for_data(self) -> Preset:
        """The preset as it is where dialogues are given."""
        columns = {name: value for name, value in self.with_data.items() if name != "vocabulary"}
        vocabulary = int(str(self.with_data.get("vocabulary", self.vocabulary)))
        return dataclasses.replace(self, base={**self.base, **columns}, vocabulary=vocabulary, with_data={})

    def shown(self) -> dict[str, Any]:
        """The preset as plain JSON values."""
        return dataclasses.asdict(self)

    def differences(self) -> list[str]:
        """What this preset changes against the paper, one line each."""
        own = self._columns()
        return [
            f"{name}: {_text(own.get(name))} (paper: {_text(value)})"
            for name, value in self.paper.items()
            if own.get(name) != value
        ]

    def _columns(self) -> dict[str, Any]:
        model = self.model or "none"
        if self.model is None and self.architecture is not None:
            a = self.architecture
            model = f"{a.family}, {a.layers} layers of {a.width}, from scratch"
        return {
            "model": model,
            "vocabulary": self.vocabulary,
            "episodes": self.report_episodes,
            **{f"behaviour.{name}": value for name, value in dataclasses.asdict(self.behaviour).items()},
            **self.base,
        }


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
