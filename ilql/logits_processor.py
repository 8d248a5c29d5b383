"""Value guidance for `generate` of Transformers: an exported policy acts there as it does here.

    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    guidance = ValueGuidance.from_pretrained(FOLDER, beta=8)
    model.generate(input_ids, logits_processor=[guidance])

What comes out of it are the scores of `ilql.choose`: log π_β after temperature, top-k and top-p, plus β Q, normalised,
of the tokens a policy may write. `generate`'s own temperature, top-k and top-p come behind it: leave them alone.

Axes: *B* conversations, *T* tokens so far, *V* vocabulary, *D* hidden width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, DynamicCache, LogitsProcessor

from ilql.choose import Knobs, policy_inputs, scores
from ilql.files import first_line
from ilql.language_model import hidden_width
from ilql.method import Decoding, Manner
from ilql.model_folder import read_model
from ilql.networks import QNetwork, head
from ilql.products import hasten

VALUE_FOLDER, HEADS_FILE, GUIDANCE_FILE = "value", "heads.safetensors", "guidance.json"
"""In an exported folder: the value trunk as Transformers writes it, the heads on it, and how they guide."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How exported values guide.

    Attributes:
        method: Which method learnt them.
        relative: Whether they are what is added to the language model's log-probabilities.
        value_range: What Q is clipped to.
        rows: The ids of the model's vocabulary that Q knows, increasing; no other is written.
        writable: Those of them that a policy may write.
        end: The id that ends an utterance.
        pad: The id that stands in front of shorter conversations.
        decode: The decoding settings that the policy was judged with: `beta`, `temperature`, `top_k`, ...
    """

    method: str
    relative: bool
    value_range: tuple[float, float]
    rows: tuple[int, ...]
    writable: tuple[int, ...]
    end: int
    pad: int
    decode: Mapping[str, Any]

    def save(self, file: Path) -> None:
        """Write it as JSON; infinite numbers as text, as JSON has none."""
        content = vars(self) | {"value_range": [str(end) for end in self.value_range]}
        content["decode"] = {name: str(v) if v in (math.inf, -math.inf) else v for name, v in self.decode.items()}
        file.write_text(json.dumps(content), encoding="utf-8")

    @staticmethod
    def load(file: Path) -> Guidance:
        """Read what `save` wrote.

        Raises:
            ValueError: There is no such file, or it holds something else.
        """
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            low, high = (float(end) for end in content.pop("value_range"))
            rows, writable = (tuple(content.pop(name)) for name in ("rows", "writable"))
            decode = {name: float(v) if v in ("inf", "-inf") else v for name, v in content.pop("decode").items()}
            return Guidance(value_range=(low, high), decode=decode, rows=rows, writable=writable, **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"guidance needs an export of a policy with token values, got {file}: {error}") from error


def save_values(folder: Path, critic: QNetwork, v_head: nn.Module | None, trunk: Any, guidance: Guidance) -> None:
    """Write values beside an exported policy.

    Args:
        folder: The export's.
        critic: Its Q heads.
        v_head: The V head, where there is one: nothing here reads it, but others may want advantages.
        trunk: The value trunk, with the whole vocabulary.
        guidance: How they guide.
    """
    trunk.save_pretrained(str(folder / VALUE_FOLDER))
    tensors = {f"q_heads.{name}": value.contiguous() for name, value in critic.q_heads.state_dict().items()}
    if v_head is not None:
        tensors |= {f"v_head.{name}": value.contiguous() for name, value in v_head.state_dict().items()}
    save_file(tensors, folder / HEADS_FILE, metadata={"format": "pt"})
    guidance.save(folder / GUIDANCE_FILE)


def load_values(folder: Path) -> tuple[QNetwork, Guidance]:
    """The critic of an exported policy, and how it guides.

    Raises:
        ValueError: The folder is no export of a policy with token values, or is damaged.
    """
    guidance = Guidance.load(folder / GUIDANCE_FILE)
    try:
        trunk = read_model(AutoModel, folder / VALUE_FOLDER)
        tensors = load_file(folder / HEADS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"an export must hold its value trunk and heads, got {folder}: {first_line(error)}") from error
    heads: list[nn.Module] = []
    while (first := tensors.get(f"q_heads.{len(heads)}.0.weight")) is not None:
        width = hidden_width(trunk)
        made = head(width, len(guidance.rows), multiple=len(first) // width)
        begins = f"q_heads.{len(heads)}."
        made.load_state_dict({n.removeprefix(begins): t for n, t in tensors.items() if n.startswith(begins)})
        heads.append(made)
    critic = QNetwork(hasten(trunk), heads, guidance.value_range)
    return critic.requires_grad_(False).eval(), guidance


class ValueGuidance(LogitsProcessor):
    """Tilts every token that `generate` is about to choose by the exported values.

    It reads each new token once: keys and values of the value trunk are kept from call to call, and made anew when the
    conversations are others than before, as at a new `generate` or where beams change places. Rows of different lengths
    stand on the right, with `pad` in front: what a row begins with is what its first other token is.

    Args:
        critic: Trunk and heads.
        guidance: How they guide.
        decode: Decoding settings in place of those the policy was judged with: `beta`, `temperature`, `top_k`, `top_p`,
            `filter_after`.
        pad: The id of padding in front, if it is not the export's own.

    Raises:
        ValueError, KeyError: A setting is none, or out of its range.
    """

    SETTINGS = ("beta", "temperature", "top_k", "top_p", "filter_after")

    def __init__(self, critic: QNetwork, guidance: Guidance, *, pad: int | None = None, **decode: float) -> None:
        if unknown := sorted(set(decode) - set(self.SETTINGS)):
            raise KeyError(f"guidance has the settings {', '.join(self.SETTINGS)}, got {unknown[0]!r}")
        chosen = {name: value for name, value in guidance.decode.items() if name in self.SETTINGS} | decode
        filters = {name: chosen[name] for name in ("temperature", "top_k", "top_p") if name in chosen}
        self._decode = Decoding(greedy=False, **filters)
        self._manner = Manner(beta=float(chosen["beta"]), filter_after=bool(chosen.get("filter_after", False)))
        Knobs.of([self._decode], [self._manner], torch.device("cpu"))  # a wrong beta dies here
        self._critic, self._relative = critic, guidance.relative
        self._pad = guidance.pad if pad is None else pad
        self._rows = torch.tensor(guidance.rows)
        self._writable = torch.isin(self._rows, torch.tensor(guidance.writable))
        self._read = torch.zeros(0, 0, dtype=torch.long)
        self._cache: DynamicCache | None = None

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, pad: int | None = None, **decode: float) -> ValueGuidance:
        """The guidance of an exported policy; arguments as the class's.

        Raises:
            ValueError: The folder is no export of a policy with token values, or a setting is out of its range.
            KeyError: There is no such setting.
        """
        critic, guidance = load_values(Path(folder))
        return cls(critic, guidance, pad=pad, **decode)

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Log-probabilities of the tilted policy, shape (B, V): −∞ where it writes nothing, one 0 where β = ∞.

        Args:
            input_ids: Shape (B, T).
            scores: The language model's logits, shape (B, V).

        Raises:
            ValueError: The language model's vocabulary is another than the values'.
        """
        if scores.shape[1] <= int(self._rows[-1]):
            raise ValueError(
                f"guidance needs the language model it was exported with, of {int(self._rows[-1]) + 1} tokens or more, "
                f"got one of {scores.shape[1]}"
            )
        rows, writable = self._rows.to(scores.device), self._writable.to(scores.device)
        logits, states = scores[:, rows].float(), self._states(input_ids)
        base, q = policy_inputs(lambda states: logits, self._critic, logits, states, relative=self._relative)
        one = Knobs.of([self._decode], [self._manner], scores.device)
        knobs = one.at(torch.zeros(len(scores), dtype=torch.long, device=scores.device))
        tilted = _scores(base, q, writable, knobs)
        result = torch.full_like(scores, -torch.inf, dtype=torch.float32)
        result[:, rows] = tilted
        return result

    def _states(self, input_ids: Tensor) -> Tensor:
        """The value trunk's hidden states at the last tokens, shape (B, D)."""
        known = self._read.shape[1]
        goes_on = (
            self._cache is not None
            and self._read.shape[0] == len(input_ids)
            and known < input_ids.shape[1]
            and torch.equal(self._read.to(input_ids.device), input_ids[:, :known])
        )
        trunk: Any = self._critic.to(input_ids.device).trunk
        if not goes_on:
            known, self._cache = 0, DynamicCache(config=trunk.config)
        real = (input_ids != self._pad).long().cummax(dim=1).values  # padding stands in front, and nowhere else
        positions = (real.cumsum(dim=1) - 1).clamp(min=0)
        hidden: Tensor = trunk(
            input_ids=input_ids[:, known:],
            attention_mask=real,
            position_ids=positions[:, known:],
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        self._read = input_ids.clone()
        return hidden[:, -1]


def _scores(logits: Tensor, q: Tensor | None, writable: Tensor, knobs: Knobs) -> Tensor:
    """Log-probabilities of what `choose` draws from, shape (B, V)."""
    _, tilted = scores(logits, q, writable, knobs)
    if bool(torch.isinf(knobs.beta).all()):
        certain = torch.full_like(tilted, -torch.inf)
        return certain.scatter_(1, tilted.argmax(dim=-1, keepdim=True), 0.0)
    return tilted.log_softmax(dim=-1)
