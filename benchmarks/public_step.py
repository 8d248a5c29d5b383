"""A whole optimiser step of ILQL as the public implementation does it, written plainly, and ours, on equal weights.

What is copied from the public implementation (Sea-Snell/Implicit-Language-Q-Learning; facts in the reference document,
sections 2, 3, 7 and 9; the code is our own):

- Three Hugging Face GPT-2 with their language-model heads are held. The value trunk and the target's run whole, heads
  on every token; with `awac_weight` 0, as the published runs had it, the policy is not run, and its logits are zeros.
- `output_attentions` is on in every forward pass, and each trunk's attention entropy and parameter norms are logged.
- Two online and two target Q heads give the whole vocabulary at every action.
- All terms are computed and added, those of weight 0 too: the policy's cross-entropy over all positions, the margin
  term, the returns by a (K, K) matrix of discounts.
- Gradients are added up over micro-batches of one, each with a mean of its own; everything logged is a `.item()`.
- The target follows tensor by tensor in a Python loop; AdamW is torch's plain one, over all parameters.

What is not: dropout, which is 0 on both sides so that their losses can be compared; the prefix of embeddings that the
public trunk takes, which is empty here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from ilql import token_values
from ilql.batch import TokenBatch, TokenSequence, collate
from ilql.language_model import Architecture, build_language_model
from ilql.method import Start
from ilql.methods import ilql
from ilql.networks import ValueNetworks
from ilql.train import Loop, train


@dataclass(frozen=True)
class Sizes:
    """What is trained on what.

    Attributes:
        layers: Of each trunk, as `width` and `heads`.
        width: D.
        heads: Attention heads.
        vocabulary: Ids.
        dialogues: In a batch.
        tokens: Of a dialogue.
        used: Ids that the dialogues are made of; the vocabulary where it is cut to them.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50_257
    dialogues: int = 8
    tokens: int = 128
    used: int = 2_048

    def architecture(self) -> Architecture:
        """Of every trunk: GPT-2's."""
        return Architecture(layers=self.layers, width=self.width, heads=self.heads, context=1024)


GPT2_SMALL = Sizes()
QUICK = Sizes(layers=2, width=32, heads=2, vocabulary=512, dialogues=3, tokens=24, used=64)


def settings(weighting: str) -> ilql.Train:
    """The public visual-dialogue run's: τ .8, γ .99, weight 1 of the conservative term, Polyak .005, rate 1e-5.

    Args:
        weighting: "dialogue" as micro-batches of one weigh, "token" as one batch of all does.
    """
    return ilql.Train(tau=0.8, batch_size=10**6, steps=10**6, learning_rate=1e-5, weighting=weighting)


def dialogues(sizes: Sizes) -> list[TokenSequence]:
    """Equally long dialogues in which utterances of the two sides alternate: half of the tokens are the agent's.

    Ids follow Zipf's law, spread over the whole vocabulary; rewards are −1 per utterance; every second recording ended.
    """
    random = np.random.default_rng(0)
    share = 1 / np.arange(1, sizes.used + 1)
    made = []
    for number in range(sizes.dialogues):
        tokens = random.choice(sizes.used, size=sizes.tokens, p=share / share.sum())
        positions = np.asarray([p for p in range(sizes.tokens - 1) if ((p + 3 * number) // 8) % 2 == 0])
        ends = np.append(np.diff(positions) > 1, True)
        made.append(
            TokenSequence(
                tokens.astype(np.int64),
                positions,
                np.append(positions, sizes.tokens - 1),
                np.where(ends, -1.0, 0.0).astype(np.float32),
                ends,
                ended=number % 2 == 0,
            )
        )
    return made


def networks(sizes: Sizes) -> ValueNetworks:
    """Our networks at random weights."""
    return networks_on(build_language_model(sizes.architecture(), vocabulary=sizes.vocabulary, seed=0))


def networks_on(language_model: nn.Module) -> ValueNetworks:
    """Our networks on a model, the target's weights a little off the online ones', as in the middle of a training."""
    module = token_values.build(Start(language_model, language_model, seed=0), settings("dialogue"))
    assert isinstance(module, ValueNetworks)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.target.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return module


def our_steps(
    module: ValueNetworks, sequences: Sequence[TokenSequence], train_as: ilql.Train, loop: Loop | None = None
) -> Iterator[float]:
    """Our steps, one each time it is asked, or as many as the loop logs, on all dialogues in one batch.

    Yields:
        The last step's loss.
    """
    loop = loop or Loop(log_every=1)
    for progress in train(ilql.METHOD, module, sequences, train_as, pad=0, seed=0, loop=loop):
        yield progress.metrics["loss"]


def _plain(layers: nn.Module) -> nn.Sequential:
    """A copy of a head that multiplies as torch does."""
    first, last = layers[0], layers[2]  # type: ignore[index]
    made = nn.Sequential(nn.Linear(*first.weight.shape[::-1]), nn.ReLU(), nn.Linear(*last.weight.shape[::-1]))
    made.load_state_dict(layers.state_dict())
    return made


class PublicStep(nn.Module):
    """The public implementation's networks and its step.

    Args:
        module: Whose weights it starts from; copied.
        train: The hyperparameters.
    """

    def __init__(self, module: ValueNetworks, train: ilql.Train) -> None:
        super().__init__()
        config: Any = copy.deepcopy(module.online.trunk.config)
        if config.model_type == "gpt2":
            config.activation_function = "gelu_new"  # its own, of eight operations
        factory: Any = AutoModelForCausalLM
        trunk = factory.from_config(config, attn_implementation="eager", dtype=torch.float32)
        trunk.base_model.load_state_dict(module.online.trunk.state_dict())
        self.model = trunk
        self.target = copy.deepcopy(trunk)
        self.target.base_model.load_state_dict(module.target.trunk.state_dict())
        self.policy = copy.deepcopy(trunk)  # held, and not run
        self.v = _plain(module.v_head)
        self.q = nn.ModuleList(_plain(each) for each in module.online.q_heads)
        self.target_q = nn.ModuleList(_plain(each) for each in module.target.q_heads)
        self.hyper = train
        self.optimiser = torch.optim.AdamW(self.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay)

    def step(self, batches: Sequence[TokenBatch]) -> float:
        """One optimiser step over micro-batches; returns the mean of their losses."""
        logs = []
        for batch in batches:
            loss, logged = self.loss(batch)
            (loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            logs.append(logged)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.follow()
        return sum(logged["loss"] for logged in logs) / len(logs)

    def loss(self, batch: TokenBatch) -> tuple[Tensor, dict[str, float]]:
        """All terms of one micro-batch, and what is logged of it."""
        hp, mask = self.hyper, batch.attention_mask.long()
        own = self.model(batch.tokens, attention_mask=mask, output_hidden_states=True, output_attentions=True)
        with torch.no_grad():
            lagging = self.target(batch.tokens, attention_mask=mask, output_hidden_states=True, output_attentions=True)
        here = batch.tokens.device
        logits = torch.zeros(*batch.tokens.shape, self.model.config.vocab_size, device=here)  # the policy is not run
        states = _at(own.hidden_states[-1], batch.state_positions)
        actions = _at(own.hidden_states[-1], batch.action_positions)
        v = self.v(states).squeeze(-1)
        qs = [head(actions) for head in self.q]
        with torch.no_grad():
            lagging_actions = _at(lagging.hidden_states[-1], batch.action_positions)
            target = torch.minimum(*[head(lagging_actions) for head in self.target_q])
        taken = [_taken(q, batch.actions) for q in qs]
        target_taken = _taken(target, batch.actions)

        counts = batch.action_mask.float()
        n = max(counts.sum().item(), 1.0)
        now, after = v[:, :-1], v[:, 1:].detach()
        goal = batch.rewards + (1 - batch.terminal.float()) * hp.gamma * after
        q_loss = torch.stack([(((goal - q) ** 2) * counts).sum() / n for q in taken]).sum()
        returns = self.returns(batch)
        error = target_taken - now
        side = (error >= 0).float()
        v_loss = ((hp.tau * side + (1 - hp.tau) * (1 - side)) * error**2 * counts).sum() / n
        cql = torch.stack(
            [
                (functional.cross_entropy(q.flatten(0, 1), batch.actions.flatten(), reduction="none").view_as(counts)
                 * counts).sum() / n
                for q in qs
            ]
        ).sum()  # fmt: skip
        margin = torch.stack(
            [
                ((torch.clamp(q - u.unsqueeze(-1) + hp.margin, min=0.0) ** 2).sum(-1) * counts).sum() / n
                for q, u in zip(qs, taken, strict=True)
            ]
        ).sum()
        advantage = (target_taken - now).detach()
        token_loss = self.cross_entropy(logits, batch, torch.exp(0.0 * advantage))
        loss = 0.0 * token_loss + v_loss + q_loss + hp.cql_weight * cql + hp.margin_weight * margin

        logged = {
            "loss": loss.item(), "v_loss": v_loss.item(), "q_loss": q_loss.item(), "cql": cql.item(),
            "margin": margin.item(), "token_loss": token_loss.item(), "returns": returns.mean().item(),
            "v": now.mean().item(), "v_var": now.var().item(), "advantage": advantage.mean().item(),
        }  # fmt: skip
        for number, u in enumerate(taken):
            logged |= {f"q{number}": u.mean().item(), f"q{number}_var": u.var().item()}
        for name, trunk, output in (("model", self.model, own), ("target", self.target, lagging)):
            logged[f"{name}_entropy"] = _entropy(output.attentions, batch.attention_mask)
            logged[f"{name}_norm"] = sum(p.detach().norm().item() ** 2 for p in trunk.parameters()) ** 0.5
        histogram = [a for row, real in zip(advantage.tolist(), batch.action_mask.tolist(), strict=True)
                     for a, r in zip(row, real, strict=True) if r]  # fmt: skip
        logged["advantages"] = float(len(histogram))
        return loss, logged

    def returns(self, batch: TokenBatch) -> Tensor:
        """Σ_j γ^(j − k) r_j for j ≥ k, by a (K, K) matrix; shape (B, K)."""
        k = torch.arange(batch.rewards.shape[1], device=batch.rewards.device)
        power = (k.unsqueeze(0) - k.unsqueeze(1)).clamp(min=0)
        discounts = torch.triu(self.hyper.gamma ** power.float())
        return (batch.rewards.unsqueeze(1) * discounts).sum(-1)

    @staticmethod
    def cross_entropy(logits: Tensor, batch: TokenBatch, action_weights: Tensor) -> Tensor:
        """The policy's, over all next tokens, weighed at actions and 0 elsewhere."""
        tokens, real = batch.tokens[:, 1:], batch.attention_mask[:, 1:].float()
        weights = torch.zeros_like(real).scatter(
            1, batch.action_positions, (action_weights * batch.action_mask).to(real.dtype)
        )
        nll = functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens.flatten(), reduction="none")
        return (weights * real * nll.view_as(real)).sum() / real.sum()

    def follow(self) -> None:
        """The target takes its share, tensor by tensor."""
        pairs = [(self.target, self.model), (self.target_q, self.q)]
        for target, source in pairs:
            for lagging, own in zip(target.parameters(), source.parameters(), strict=True):
                lagging.data.copy_(self.hyper.polyak * own.data + (1 - self.hyper.polyak) * lagging.data)


def _at(hidden: Tensor, positions: Tensor) -> Tensor:
    return torch.gather(hidden, 1, positions.unsqueeze(-1).repeat(1, 1, hidden.shape[-1]))


def _taken(q: Tensor, actions: Tensor) -> Tensor:
    return torch.gather(q, 2, actions.unsqueeze(-1)).squeeze(-1)


def _entropy(attentions: Sequence[Tensor], real: Tensor) -> float:
    """Mean entropy of the attention of real positions, over layers and heads."""
    counts = real.float().unsqueeze(1)
    per_layer = [((-(a * torch.log(a + 1e-7)).sum(-1) * counts).sum() / counts.sum()).item() for a in attentions]
    return sum(per_layer) / len(per_layer)


def micro_batches(sequences: Sequence[TokenSequence], size: int) -> list[TokenBatch]:
    """The dialogues, `size` at a time."""
    return [collate(sequences[first : first + size], pad=0) for first in range(0, len(sequences), size)]


def check_equal(ours: float, other: float) -> None:
    """The sides' losses must be equal, to rounding.

    Raises:
        ValueError: They are not: the sides do not do the same.
    """
    if not abs(ours - other) <= 1e-5 * abs(other):
        raise ValueError(f"both sides must have the same loss to 1e-5, got {ours} and {other}")
