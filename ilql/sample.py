"""Texts that a pretrained language model goes on with, drawn many at a time by Transformers' `generate`.

`ilql.decode` lets policies speak, in slots and with values; here a model that is nobody's policy writes freely. Axes:
*B* texts, *T* tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from ilql.language_model import context_length, reload_language_model, text_config, vocabulary_size
from ilql.sampling import Sampling
from ilql.tokens import Tokenizer, chat_tokenizer, load_tokenizer

VERSION = 2
"""Raised when the same model, prompts and settings would draw other texts; part of the key of what was drawn."""

TOGETHER = 8
"""Texts per batch. A constant: its company decides the last bit of a text's probabilities, and whose turn the random
numbers are."""

_TAIL = 16
"""Tokens at a text's end in which its last line is looked for."""


class PretrainedWriter:
    """A pretrained language model that goes on with texts.

    Args:
        folder: The model's, in Hugging Face's layout, or a GGUF file.
        chat: True to ask it as its chat template has it; else a text is gone on with as it stands.

    Raises:
        ValueError: There is no model that can be read, or no chat template where one is asked for; one line.
    """

    def __init__(self, folder: Path, *, chat: bool) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = reload_language_model(folder).to(self._device)
        own = load_tokenizer(folder)
        self._tokenizer: Tokenizer = chat_tokenizer(own, folder) if chat else own
        rows = vocabulary_size(self._model)
        if self._tokenizer.text_size > rows:
            raise ValueError(
                f"a model must have a row for each token of its tokenizer, got {rows} for "
                f"{self._tokenizer.text_size} in {folder}"
            )
        config = text_config(self._model)
        named = getattr(config, "eos_token_id", None)
        ends = set(named if isinstance(named, list) else [named])
        if self._tokenizer.chat is not None:
            ends.add(self._tokenizer.chat.end)
        self._ends = sorted(end for end in ends if isinstance(end, int) and 0 <= end < rows)
        begin = getattr(config, "bos_token_id", None)
        self._begin = [begin] if isinstance(begin, int) and 0 <= begin < rows else []
        writable = self._tokenizer.writable()[: self._tokenizer.text_size].nonzero()[0].tolist()
        self._suppressed = sorted(set(range(rows)).difference(writable, self._ends))

    def fits(self, prompt: str, opening: str, sampling: Sampling) -> bool:
        """True if the model's context holds a prompt, a text's opening and the longest text behind it."""
        taken = len(self._encode(prompt)) + len(self._tokenizer.encode(opening))
        return taken + sampling.max_tokens <= context_length(self._model)

    @torch.inference_mode()
    def write(
        self, prompts: Sequence[str], sampling: Sampling, *, seed: int, last_line: str, opening: str = ""
    ) -> list[str]:
        """What the model writes behind each prompt, up to its own end, to a line that is `last_line`, or to the limit.

        Equal arguments give equal texts on equal machines. Special tokens are never read out of a prompt, and never
        written but for those that end a text.

        Args:
            prompts: B texts, each of which `fits`.
            sampling: How.
            seed: Of all that is drawn.
            last_line: The line behind which nobody reads on; white space around it does not count.
            opening: What every text begins with; the model goes on from there.
        """
        opened = self._tokenizer.encode(opening)
        encoded = [[*self._encode(prompt), *opened] for prompt in prompts]
        width = max(map(len, encoded))
        tokens = torch.zeros((len(prompts), width), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(encoded):  # on the right, so that all go on at the same place
            tokens[row, width - len(ids) :] = torch.tensor(ids, dtype=torch.long)
            mask[row, width - len(ids) :] = 1
        # In place of what the folder says of repetitions, beams or lengths: what decides a text stands in its key.
        self._model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=sampling.max_tokens,
            suppress_tokens=self._suppressed or None,
            eos_token_id=self._ends or None,
            pad_token_id=self._ends[0] if self._ends else 0,
        )
        stopping = StoppingCriteriaList([_LastLine(self._tokenizer, width - len(opened), last_line)])
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(seed)
            written = self._model.generate(
                input_ids=tokens.to(self._device), attention_mask=mask.to(self._device), stopping_criteria=stopping
            )
        return [_up_to(self._read(ids), last_line) for ids in written[:, width - len(opened) :].tolist()]

    def _encode(self, prompt: str) -> list[int]:
        if self._tokenizer.chat is not None:
            return self._tokenizer.heard_first(prompt)
        # A model without a beginning of its own still needs a token to go on from.
        return [*self._begin, *self._tokenizer.encode(prompt)] or [0]

    def _read(self, ids: Sequence[int]) -> str:
        end = next((place for place, token in enumerate(ids) if token in self._ends), len(ids))
        return self._tokenizer.decode(ids[:end])


def _up_to(text: str, last_line: str) -> str:
    """The text without what stands behind the last line: how far the model went on is its batch's affair."""
    lines = text.split("\n")
    end = next((place for place, line in enumerate(lines) if line.strip() == last_line), len(lines))
    return "\n".join(lines[: end + 1])


class _LastLine(StoppingCriteria):
    """Stops a text that has come to its last line.

    Args:
        tokenizer: What reads it.
        begin: How many tokens stand before what is written.
        line: The line.
    """

    def __init__(self, tokenizer: Tokenizer, begin: int, line: str) -> None:
        self._tokenizer, self._begin, self._line = tokenizer, begin, line

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Shape (B,): whose text is over."""
        written = input_ids[:, self._begin :]
        skipped = int(written.shape[1] > _TAIL)  # the first line of a tail may be the end of a longer one
        tails = [self._tokenizer.decode(tail).split("\n")[skipped:] for tail in written[:, -_TAIL:].tolist()]
        over = [self._line in map(str.strip, lines) for lines in tails]
        return torch.tensor(over, device=input_ids.device)
