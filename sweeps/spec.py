"""Everything that decides a number, and nothing else.

    TrialSpec(method, data, backbone, train, seed | decode, evaluation)

Left of the bar is what shapes the weights, right of it what only shapes the acting and the judging. `weights_id` hashes
the left side, `trial_id` all of it. Resources, paths, log intervals and names of sweeps are in neither: they decide
nothing.

Every id also hashes the versions of the code that gives the numbers their meaning: a loss's, a method's, the decoder's.
Raising one makes exactly what depends on it new.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ilql import (
    adapters,
    batch,
    chat,
    decode,
    evaluate,
    fitted_q,
    language_model,
    losses,
    propose,
    tokens,
    train,
    vocabulary,
    windows,
)
from ilql.hyperparameters import AT_LEAST_ONE, NOT_NEGATIVE, Range, Value, check, hyper, make, values_of
from ilql.language_model import Architecture
from ilql.method import Method
from ilql.methods import bc, method_named
from ilql.task import SPLITS

SPLIT = Range(choices=SPLITS)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is learnt from.

    Attributes:
        task: The task's name.
        world: Key of the built world: its settings, its source's digest, its version.
        reward: The reward the recorded dialogues carry in training.
        windows: Whether dialogues that are longer than a training reads are cut into windows; else they end there.
    """

    task: str
    world: str
    reward: str
    windows: bool = False


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """The language model everything starts from.

    Attributes:
        architecture: Sizes of a model that starts at random; None for a pretrained one.
        pretrained: Digest of a pretrained model's folder; empty for one that starts at random.
        vocabulary: Size of the tokeniser that is trained on the training split; 0 takes the pretrained model's own.
        cut_vocabulary: Whether that one is cut to the tokens that occur in the training split.
        chat_template: Digest of its chat template, where dialogues are written as that has them; empty where structural
            tokens stand around the turns.
        adapter_rank: Rank of the adapters that are learnt in place of the model's weights; 0 learns all of them.
        seed: Seed of initial weights.
        behaviour: How the frozen behaviour policy is trained, for methods that act with one.
        behaviour_seed: Its training seed.
        behaviour_per_seed: Whether each training seed has a behaviour policy of its own, trained with that seed, in its
            place; `behaviour_seed` is 0 then.
    """

    architecture: Architecture | None
    pretrained: str = hyper("", meaning="digest of a pretrained model")
    vocabulary: int = hyper(0, NOT_NEGATIVE, meaning="size of the trained tokeniser")
    cut_vocabulary: bool = hyper(False, meaning="whether a pretrained vocabulary is cut to what occurs")
    chat_template: str = hyper("", meaning="digest of the chat template that dialogues are written in")
    adapter_rank: int = hyper(0, NOT_NEGATIVE, meaning="rank of the adapters on a frozen model; 0 learns all weights")
    seed: int = hyper(0, NOT_NEGATIVE, meaning="seed of initial weights")
    behaviour: bc.Train
    behaviour_seed: int = hyper(0, NOT_NEGATIVE, meaning="training seed of the behaviour policy")
    behaviour_per_seed: bool = hyper(False, meaning="whether every training seed has a behaviour policy of its own")

    def __post_init__(self) -> None:
        check(self)
        if (self.architecture is None) != bool(self.pretrained):
            raise ValueError("a backbone is either an architecture or a pretrained model, got both or neither")
        if self.architecture is not None and self.vocabulary == 0:
            raise ValueError("a backbone that starts at random must name its vocabulary's size, got 0")
        if self.cut_vocabulary and self.vocabulary != 0:
            raise ValueError(f"cut_vocabulary is about a pretrained model's own one, got one of {self.vocabulary}")
        if self.chat_template and self.vocabulary != 0:
            raise ValueError(f"chat_template is a pretrained model's, got a vocabulary of {self.vocabulary} made here")
        if self.behaviour_per_seed and self.behaviour_seed != 0:
            raise ValueError(f"behaviour_seed must be 0 where every seed has its own, got {self.behaviour_seed}")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a policy is judged on.

    Attributes:
        world: Key of the built world it plays in.
        reward: The reward that is summed to the score.
        split: Which scenes.
        first_seed: Seed of the first episode.
        episodes: Number of episodes, with consecutive seeds.
        by: `play`, or `fitted_q` where the world cannot be played and returns are estimated.
    """

    world: str
    reward: str
    split: str = hyper("report", SPLIT, meaning="which scenes")
    first_seed: int = hyper(0, NOT_NEGATIVE, meaning="seed of the first episode")
    episodes: int = hyper(1024, AT_LEAST_ONE, meaning="number of episodes")
    by: str = hyper("play", Range(choices=("play", "fitted_q")), meaning="whether returns are played or estimated")

    def __post_init__(self) -> None:
        check(self)

    @property
    def seeds(self) -> range:
        """The episodes' seeds."""
        return range(self.first_seed, self.first_seed + self.episodes)


@dataclass(frozen=True)
class TrialSpec:
    """One evaluation of one cell at one training seed.

    Attributes:
        method: The method's name.
        data: What is learnt from.
        backbone: What it starts from.
        train: The method's training hyperparameters.
        seed: The training seed: a replicate's number, never a hyperparameter.
        decode: The method's decoding hyperparameters.
        evaluation: What it is judged on.

    Raises:
        KeyError: There is no such method.
        TypeError: `train` or `decode` is another method's.
    """

    method: str
    data: Data
    backbone: Backbone
    train: Any
    seed: int
    decode: Any
    evaluation: Evaluation

    def __post_init__(self) -> None:
        kind = method_named(self.method)
        for bag, wanted in ((self.train, kind.train), (self.decode, kind.decode)):
            if type(bag) is not wanted:
                raise TypeError(f"a {self.method!r} trial needs a {wanted.__qualname__}, got {type(bag).__qualname__}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    @property
    def kind(self) -> Method:
        """The method itself."""
        return method_named(self.method)

    @cached_property
    def weights_id(self) -> str:
        """Key of the trained weights: a hash of everything left of the bar, and of the versions behind it."""
        return _hash(self._weights_content())

    @cached_property
    def trajectory_id(self) -> str:
        """Key of the training whatever its length: trainings that differ in steps alone share their first steps."""
        content = self._weights_content()
        content["train"] = {name: value for name, value in content["train"].items() if name != "steps"}
        return _hash(content)

    @cached_property
    def trial_id(self) -> str:
        """Key of the evaluation: a hash of everything, under the name its weights go by."""
        evaluation = values_of(self.evaluation)
        content: dict[str, Any] = {
            "weights": self.weights_id,
            "acts_with": self.behaviour.weights_id if self.kind.needs_behaviour else None,
            "decode": values_of(self.decode),
            "evaluation": evaluation,
            "versions": {"decode": decode.VERSION, "evaluate": evaluate.VERSION},
        }
        if self.evaluation.by == "play":
            del evaluation["by"]
        else:
            content |= {"fit": values_of(self.fit), "estimate": fitted_q.VERSION}
            if self.kind.values is not None and not self._values_what_was_recorded:
                content["calibration"] = 2  # the first compared Q to rewards that it does not sum
        return _hash(content)

    def acting(self, decode: Any, evaluation: Evaluation) -> TrialSpec:
        """A trial of the same weights that acts or is judged otherwise; what decides the weights is hashed once."""
        other, of_weights = dataclasses.replace(self, decode=decode, evaluation=evaluation), self.weights_id
        known = {name: value for name, value in vars(self).items() if name in _OF_THE_WEIGHTS}
        vars(other).update(known | {"weights_id": of_weights})
        return other

    @property
    def fit(self) -> fitted_q.Fit:
        """How its returns are estimated where they cannot be played: as long as its behaviour policy was trained."""
        cloning = self.backbone.behaviour
        return fitted_q.Fit(steps=cloning.steps, batch_size=cloning.batch_size, learning_rate=cloning.learning_rate)

    @property
    def _values_what_was_recorded(self) -> bool:
        """Whether Q sums the rewards as they were recorded, and nothing else."""
        return self.kind.valued is not None and self.train.rewards == "recorded"

    @cached_property
    def cell_id(self) -> str:
        """Key of the cell: the same for all its training seeds.

        At seed 0 a behaviour policy of its own is the shared one, and the trial is the same; the cell is not.
        """
        first = self.trial_id if self.seed == 0 else dataclasses.replace(self, seed=0).trial_id
        if not (self.backbone.behaviour_per_seed and self.kind.needs_behaviour):
            return first
        return _hash({"cell": first, "behaviour": "per seed"})

    @property
    def tokenizer_key(self) -> str:
        """Key of the tokeniser's stage."""
        b, source = self.backbone, dict[str, Any]()
        if b.vocabulary == 0:
            source["pretrained"] = b.pretrained
        else:
            source |= {"world": self.data.world, "vocabulary": b.vocabulary}
        if b.cut_vocabulary:
            source |= {"cut_to": self.data.world, "cut": vocabulary.VERSION}
        if b.chat_template:
            source |= {"chat_template": b.chat_template, "chat": chat.VERSION}
        return _hash({"stage": "tokenizer", "version": tokens.VERSION, **source})

    @property
    def backbone_key(self) -> str:
        """Key of the initial language model's stage."""
        b = self.backbone
        return _hash(
            {
                "stage": "backbone",
                "architecture": None if b.architecture is None else values_of(b.architecture),
                "pretrained": b.pretrained,
                "tokenizer": self.tokenizer_key,
                "seed": b.seed,
                "version": language_model.VERSION,
            }
        )

    @property
    def tokens_key(self) -> str:
        """Key of the tokenised dialogues' stage. Data that is read without rewards is the same under all of them."""
        return self._tokens_key(self.data.reward if self.kind.uses_rewards else None)

    def _tokens_key(self, reward: str | None) -> str:
        cut = {"windows": windows.VERSION} if self.data.windows else {}
        return _hash(
            {
                **cut,
                "stage": "tokens",
                "world": self.data.world,
                "reward": reward,
                "tokenizer": self.tokenizer_key,
                "max_tokens": self.train.max_tokens,
                "version": batch.VERSION,
            }
        )

    @cached_property
    def behaviour(self) -> TrialSpec:
        """The training of the behaviour policy this trial starts from and acts with."""
        b = self.backbone
        seed = self.seed if b.behaviour_per_seed else b.behaviour_seed
        return dataclasses.replace(self, method="bc", train=b.behaviour, seed=seed, decode=bc.Decode())

    @cached_property
    def critic(self) -> TrialSpec | None:
        """The training of the critic this trial's training learns from, if it has one."""
        named = self.kind.critic(self.train)
        if named is None:
            return None
        return dataclasses.replace(self, method=named[0], train=named[1], decode=method_named(named[0]).decode())

    @cached_property
    def required(self) -> tuple[TrialSpec, ...]:
        """The trainings that must be done before this trial's, in an order in which they can be."""
        needed = [self.behaviour] if self.kind.needs_behaviour else []
        if self.critic is not None:
            needed += [*self.critic.required, self.critic]
        return tuple({spec.weights_id: spec for spec in needed}.values())

    @cached_property
    def candidates_key(self) -> str | None:
        """Key of the stage of utterances drawn before this trial's training, if there is one."""
        proposals = self.kind.proposals(self.train)
        if proposals is None:
            return None
        return _hash(
            {
                "stage": "candidates",
                "tokens": self._tokens_key(None),  # what is drawn does not depend on rewards
                "behaviour": self.behaviour.weights_id,
                "proposals": values_of(proposals),
                "versions": {"decode": decode.VERSION, "propose": propose.VERSION},
            }
        )

    def columns(self) -> dict[str, Value]:
        """Flat, as in a row: `train.tau`, `decode.beta`, `evaluation.split`, ..."""
        b = self.backbone
        flat: dict[str, Value] = {"task": self.data.task}
        for prefix, bag in (("data", self.data), ("train", self.train), ("decode", self.decode)):
            flat |= {f"{prefix}.{name}": value for name, value in values_of(bag).items() if name != "task"}
        if not self.data.windows:
            del flat["data.windows"]
        judged = values_of(self.evaluation)
        flat |= {f"evaluation.{name}": value for name, value in judged.items() if (name, value) != ("by", "play")}
        flat |= {"backbone.pretrained": b.pretrained, "backbone.vocabulary": b.vocabulary, "backbone.seed": b.seed}
        if b.pretrained:
            flat["backbone.cut_vocabulary"] = b.cut_vocabulary
        if b.chat_template:
            flat["backbone.chat_template"] = b.chat_template
        if b.adapter_rank:
            flat["backbone.adapter_rank"] = b.adapter_rank
        if b.architecture is not None:
            flat |= {f"backbone.{name}": value for name, value in values_of(b.architecture).items()}
        if self.kind.needs_behaviour:
            flat |= {f"behaviour.{name}": value for name, value in values_of(b.behaviour).items()}
            flat["behaviour.seed"] = self.behaviour.seed
        return flat

    def to_json(self) -> str:
        """As text; `from_json` gives it back equal."""
        return json.dumps(values_of(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> TrialSpec:
        """From `to_json`'s text.

        Raises:
            KeyError: A field is unknown.
            TypeError, ValueError: A value is none that its field may hold.
        """
        value = json.loads(text)
        method = method_named(value["method"])
        owner = f"an {method.name!r} trial"
        backbone = dict(value["backbone"])
        if backbone["architecture"] is not None:
            backbone["architecture"] = make(Architecture, backbone["architecture"], owner=owner, prefix="backbone")
        backbone["behaviour"] = make(bc.Train, backbone["behaviour"], owner=owner, prefix="behaviour")
        return TrialSpec(
            method=method.name,
            data=make(Data, value["data"], owner=owner, prefix="data"),
            backbone=make(Backbone, backbone, owner=owner, prefix="backbone"),
            train=make(method.train, value["train"], owner=owner, prefix="train"),
            seed=value["seed"],
            decode=make(method.decode, value["decode"], owner=owner, prefix="decode"),
            evaluation=make(Evaluation, value["evaluation"], owner=owner, prefix="evaluation"),
        )

    def _weights_content(self) -> dict[str, Any]:
        """What decides the weights; a method that is a name for a case of another has that one's."""
        name, settings = self.kind.trained_as(self.train)
        kind, rank = method_named(name), self.backbone.adapter_rank
        adapted = {"adapters": {"rank": rank, "version": adapters.VERSION}} if rank else {}
        return {
            **adapted,
            "method": name,
            "tokens": self.tokens_key,
            "backbone": self.backbone_key,
            "behaviour": self.behaviour.weights_id if kind.needs_behaviour else None,
            "critic": None if self.critic is None else self.critic.weights_id,
            "candidates": self.candidates_key,
            "train": values_of(settings),
            "seed": self.seed,
            "versions": {"loop": train.VERSION, "method": kind.version}
            | {loss: losses.VERSIONS[loss] for loss in kind.losses},
        }


_OF_THE_WEIGHTS = ("weights_id", "trajectory_id", "behaviour", "critic", "required", "candidates_key")
"""What `TrialSpec` works out from what stands left of the bar alone."""


def reference_key(evaluation: Evaluation, version: int = 1) -> str:
    """Key of the stage of returns that others get in an evaluation's episodes.

    Args:
        evaluation: Whose episodes.
        version: Of the task's others: `TaskKind.references`.
    """
    later = {} if version == 1 else {"version": version}  # the first had none in its key
    return _hash({"stage": "reference", **values_of(evaluation), **later})


def probe_key(what: str, version: int, weights: str, asked: Mapping[str, Any]) -> str:
    """Key of a stage that looks into trained weights."""
    return _hash({"stage": what, "version": version, "weights": weights, **asked})


def world_key(task: str, version: int, settings: Mapping[str, Any], source_digest: str) -> str:
    """Key of a built world's stage."""
    return _hash({"stage": "world", "task": task, "version": version, "settings": settings, "source": source_digest})


def _hash(content: Mapping[str, Any]) -> str:
    """Twenty hexadecimal digits of SHA-256 of the content as canonical JSON: no clash in 10⁹ trials."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]
