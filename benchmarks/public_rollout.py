"""Acting as the public implementation does it, written plainly: one episode at a time, one utterance at batch 1.

What is copied from the public implementation (Sea-Snell/Implicit-Language-Q-Learning; facts in the reference document,
sections 4.1, 4.2 and 9.14 to 9.15; the code is our own):

- Three Hugging Face GPT-2 with their language-model heads run for every token: the policy, the value trunk, the
  target's. The policy's head is evaluated twice, once within the model and once as π. Two online and two target Q heads
  give the whole vocabulary, and V its value.
- Every turn encodes the whole history anew, and no keys and values outlive an utterance. Then all heads run, on every
  position of the history.
- Keys and values lie in buffers as long as the context. Each step cuts them to what is known, which the model copies
  to put the new token's behind them, and writes those back. A step feeds the last token, so the history's last one is
  fed twice.
- The score of a token is log π + β (Q̄ − V), and the best is taken.

What is not: the history is kept in tokens and not written out and tokenised again, and the policy may write what ours
may and no more, so that both sides say the same. Both favour this side, as does torch's attention in one kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from ilql.evaluate import Player
from ilql.networks import ValueNetworks
from ilql.task import Task
from ilql.tokens import Tokenizer

Buffers = list[tuple[Tensor, Tensor]]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Said:
    """One utterance.

    Attributes:
        tokens: The ids chosen.
        gaps: For each of them, by how much its score was above the second best.
    """

    tokens: tuple[int, ...]
    gaps: tuple[float, ...]


class PublicPolicy:
    """Networks as the public implementation holds them, with the weights of ours.

    Args:
        module: Our trained value networks, on GPT-2's trunk.
        behaviour: Our behaviour policy, a GPT-2.
        tokenizer: Theirs.
        device: Where they run.
    """

    def __init__(
        self, module: ValueNetworks, behaviour: nn.Module, tokenizer: Tokenizer, device: torch.device = CPU
    ) -> None:
        self._device = device
        self.policy = _language_model(behaviour.base_model)
        self.value, self.target = _language_model(module.online.trunk), _language_model(module.target.trunk)
        self.q, self.target_q = ([_plain(head) for head in net.q_heads] for net in (module.online, module.target))
        self.v = _plain(module.v_head)
        self.tokenizer = tokenizer
        self.context = int(self.policy.config.n_positions)
        self._writable = torch.from_numpy(tokenizer.writable()).to(device)
        for part in (self.policy, self.value, self.target, *self.q, *self.target_q, self.v):
            part.to(device)

    @torch.no_grad()
    def utterance(self, history: list[int], *, beta: float, limit: int) -> Said:
        """What it says to a history of ids, greedily, its end token included if it gets there.

        Nothing to a history that fills the context.
        """
        limit = min(limit, self.context - len(history) - 1)
        if limit <= 0:
            return Said((), ())
        trunks = (self.policy, self.value, self.target)
        tokens = torch.full((1, self.context), self.tokenizer.structural("pad"), device=self._device)
        tokens[0, : len(history)] = torch.tensor(history, device=self._device)
        buffers = [self._prefill(trunk, tokens[:, : len(history)]) for trunk in trunks]
        gaps: list[float] = []
        place, end = len(history), self.tokenizer.structural("eoa")
        while place - len(history) < limit:
            states = []
            for trunk, buffer in zip(trunks, buffers, strict=True):
                known: Any = DynamicCache()
                for layer, (keys, values) in enumerate(buffer):
                    known.update(keys[:, :, : place - 1], values[:, :, : place - 1], layer)
                states.append(self._run(trunk, tokens[:, place - 1 : place], known))
                for (keys, values), layer in zip(buffer, known.layers, strict=True):
                    keys[:, :, place - 1], values[:, :, place - 1] = layer.keys[:, :, -1], layer.values[:, :, -1]
            score = self._scores(*states, beta=beta)[0, -1]
            best, second = score.topk(2).values.tolist()
            tokens[0, place] = score.argmax()
            gaps.append(best - second)
            place += 1
            if tokens[0, place - 1] == end:
                break
        return Said(tuple(tokens[0, len(history) : place].tolist()), tuple(gaps))

    def _prefill(self, trunk: Any, history: Tensor) -> Buffers:
        """Read the whole history, all heads on every position, and lay its keys and values into buffers."""
        known: Any = DynamicCache()
        hidden = self._run(trunk, history, known)
        if trunk is self.policy:
            trunk.lm_head(hidden)
        else:
            heads = [*self.q, self.v] if trunk is self.value else self.target_q
            for head in heads:
                head(hidden)
        buffers = []
        for layer in known.layers:
            shape = (*layer.keys.shape[:2], self.context, layer.keys.shape[3])
            keys, values = layer.keys.new_zeros(shape), layer.values.new_zeros(shape)
            keys[:, :, : history.shape[1]], values[:, :, : history.shape[1]] = layer.keys, layer.values
            buffers.append((keys, values))
        return buffers

    def _run(self, trunk: Any, ids: Tensor, known: Any) -> Tensor:
        """The last hidden states; the model's own head has run on them, too."""
        output = trunk(input_ids=ids, past_key_values=known, use_cache=True, output_hidden_states=True)
        states: Tensor = output.hidden_states[-1]
        return states

    def _scores(self, policy: Tensor, value: Tensor, target: Tensor, *, beta: float) -> Tensor:
        """Log π + β (Q̄ − V) of every token, shape (1, 1, V); with β = ∞ the advantage alone."""
        logits = self.policy.lm_head(policy).masked_fill(~self._writable, -math.inf)
        for head in self.q:
            head(value)
        advantage = torch.stack([head(target) for head in self.target_q]).amin(dim=0) - self.v(value)
        advantage = advantage.masked_fill(~self._writable, -math.inf)
        score: Tensor = advantage if math.isinf(beta) else logits.log_softmax(dim=-1) + beta * advantage
        return score


def _language_model(trunk: Any) -> Any:
    """A GPT-2 with its head, tied to the embeddings, on a copy of the trunk's weights."""
    assert isinstance(trunk.config, GPT2Config)
    model: Any = GPT2LMHeadModel(trunk.config)
    model.transformer.load_state_dict(trunk.state_dict())
    model.tie_weights()
    return model.eval()


def _plain(head: nn.Module) -> nn.Sequential:
    """A copy of one of our heads in torch's own layers."""
    assert isinstance(head, nn.Sequential)
    layers: list[nn.Module] = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            copy = nn.Linear(layer.in_features, layer.out_features)
            copy.load_state_dict(layer.state_dict())
            layers.append(copy)
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval()


@dataclass(frozen=True)
class Played:
    """One episode.

    Attributes:
        transcript: Who said what, the agent or not.
        said: The agent's utterances, token by token.
        total: The sum of the player's reward.
    """

    transcript: list[tuple[bool, str]]
    said: list[Said]
    total: float


def episode(policy: PublicPolicy, task: Task, split: str, player: Player, seed: int) -> Played:
    """Play one episode."""
    tokenizer, environment = policy.tokenizer, task.environment(seed, split)
    eos, eoa = tokenizer.structural("eos"), tokenizer.structural("eoa")
    opening = environment.opening
    assert opening is not None, "the visual dialogue opens with a caption"
    transcript, utterances, total = [(False, opening)], list[Said](), 0.0
    history = [tokenizer.structural("bos"), *tokenizer.encode(opening), eos]
    while True:
        said = policy.utterance(history, beta=player.manner.beta, limit=player.decode.max_new_tokens)
        text = tokenizer.decode(said.tokens)
        utterances.append(said)
        transcript.append((True, text))
        history += [*said.tokens, *([] if said.tokens[-1:] == (eoa,) else [eoa])]
        (reply,) = task.step([environment], [text])
        total += reply.rewards[player.reward]
        if reply.text is not None:
            transcript.append((False, reply.text))
            history += [*tokenizer.encode(reply.text), eos]
        if reply.ended:
            return Played(transcript, utterances, total)
