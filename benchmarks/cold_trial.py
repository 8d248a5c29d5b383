"""One cell the way a sweeper without shared stages runs it: everything for itself, then thrown away.

A trial builds its world and its tokens, clones its own behaviour policy, trains its own value networks from it, and
plays its own episodes one by one. Training and acting are the public implementation's way (`benchmarks.public_step`,
`benchmarks.public_rollout`), on the laptop preset's networks. What has no public counterpart (making the world,
tokenising) is our own code, which favours this side; so does that it plays the report scenes alone.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from benchmarks.public_rollout import PublicPolicy, episode
from benchmarks.public_step import PublicStep, micro_batches
from ilql.batch import TokenBatch, TokenSequence, batch_order
from ilql.evaluate import Player
from ilql.method import Start
from ilql.methods import bc, ilql
from ilql.networks import ValueNetworks
from ilql.task import Task
from ilql.tasks import visdial
from ilql.tokens import Tokenizer
from sweeps import stages
from sweeps.spec import TrialSpec
from sweeps.store import Store


@dataclass(frozen=True)
class Prepared:
    """What a trial makes before it trains."""

    task: Task
    tokenizer: Tokenizer
    sequences: list[TokenSequence]
    base: nn.Module


def prepare(spec: TrialSpec, world: Any, folder: Path) -> Prepared:
    """Build the world of these settings, the tokeniser and the tokens, in a folder of the trial's own."""
    store = Store(folder)
    stages.ensure_world(store, visdial.KIND, world, {})
    stages.ensure_start(store, spec, None)
    task, tokenizer = stages.load_task(store, spec.data.task, spec.data.world), stages.load_tokenizer_stage(store, spec)
    return Prepared(task, tokenizer, stages.load_tokens(store, spec), stages.load_backbone(store, spec))


class PublicCloning:
    """Behaviour cloning as the public implementation does it: a whole GPT-2, one dialogue after the other.

    Args:
        language_model: Whose weights it starts from; copied.
        train: The hyperparameters.
    """

    def __init__(self, language_model: Any, train: bc.Train) -> None:
        config = copy.deepcopy(language_model.config)
        config.activation_function = "gelu_new"
        factory: Any = AutoModelForCausalLM
        self.model = factory.from_config(config, attn_implementation="eager", dtype=torch.float32)
        self.model.load_state_dict(language_model.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
        )

    def step(self, batches: Sequence[TokenBatch]) -> float:
        """One optimiser step over micro-batches; returns the mean of their losses."""
        losses = []
        for batch in batches:
            output = self.model(batch.tokens, attention_mask=batch.attention_mask.long(), output_hidden_states=True)
            real = batch.attention_mask[:, 1:].float()
            agent = torch.zeros_like(real).scatter(1, batch.action_positions, batch.action_mask.float())
            nll = functional.cross_entropy(
                output.logits[:, :-1].flatten(0, 1), batch.tokens[:, 1:].flatten(), reduction="none"
            )
            loss = (nll.view_as(real) * agent).sum() / agent.sum().clamp(min=1)
            (loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
        self.optimiser.step()
        self.optimiser.zero_grad()
        return sum(losses) / len(losses)


def batches(sequences: Sequence[TokenSequence], batch_size: int, seed: int) -> Iterator[list[TokenBatch]]:
    """Micro-batches of one, a step's at a time, without end."""
    for chosen in batch_order(len(sequences), batch_size=batch_size, seed=seed):
        yield micro_batches([sequences[i] for i in chosen], 1)


def cloned(prepared: Prepared, train: bc.Train) -> nn.Module:
    """The behaviour policy, trained; our network with the weights that came out."""
    cloning, order = PublicCloning(prepared.base, train), batches(prepared.sequences, train.batch_size, 0)
    for _ in range(train.steps):
        cloning.step(next(order))
    policy = copy.deepcopy(prepared.base)
    policy.load_state_dict(cloning.model.state_dict())
    return policy.eval()


def valued(prepared: Prepared, behaviour: nn.Module, train: ilql.Train, seed: int) -> ValueNetworks:
    """The value networks, trained; ours with the weights that came out."""
    module = ilql.METHOD.build(Start(prepared.base, behaviour, seed), train)
    assert isinstance(module, ValueNetworks)
    public, order = PublicStep(module, train), batches(prepared.sequences, train.batch_size, seed)
    for _ in range(train.steps):
        public.step(next(order))
    return with_weights(module, public)


def with_weights(module: ValueNetworks, public: PublicStep) -> ValueNetworks:
    """Our networks with the public step's weights."""
    module.online.trunk.load_state_dict(public.model.base_model.state_dict())
    module.target.trunk.load_state_dict(public.target.base_model.state_dict())
    module.v_head.load_state_dict(public.v.state_dict())
    for ours, theirs in ((module.online.q_heads, public.q), (module.target.q_heads, public.target_q)):
        for head, plain in zip(ours, theirs, strict=True):
            head.load_state_dict(plain.state_dict())
    return module.eval()


def run(spec: TrialSpec, world: Any) -> float:
    """The whole cell; returns the mean return of its episodes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(spec, world, Path(folder))
        behaviour = cloned(prepared, spec.backbone.behaviour)
        policy = PublicPolicy(valued(prepared, behaviour, spec.train, spec.seed), behaviour, prepared.tokenizer)
        player = Player(spec.decode, spec.kind.manner(spec.train, spec.decode), spec.data.reward)
        returns = [
            episode(policy, prepared.task, spec.evaluation.split, player, seed).total for seed in spec.evaluation.seeds
        ]
    return sum(returns) / len(returns)
