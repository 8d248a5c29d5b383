"""An exported policy that speaks by itself: from its folder alone, without the store it was trained in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ilql.batch import tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.language_model import context_length, reload_language_model
from ilql.logits_processor import GUIDANCE_FILE, ValueGuidance, load_values
from ilql.tokens import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Exported:
    """A policy as `sweeps export` wrote it.

    Attributes:
        model: The language model that acts, with the decoding it was judged with in its `generation_config`.
        tokenizer: How dialogues are written for it.
        guidance: Its values; None where it acts without any.
    """

    model: Any
    tokenizer: Tokenizer
    guidance: ValueGuidance | None

    @staticmethod
    def load(folder: Path) -> Exported:
        """The policy of a folder.

        Raises:
            ValueError: The folder is no export.
        """
        guided = (folder / GUIDANCE_FILE).is_file()
        guidance = ValueGuidance(*load_values(folder)) if guided else None
        return Exported(reload_language_model(folder), load_tokenizer(folder), guidance)

    def reply(self, turns: Sequence[Turn]) -> str:
        """What it says next, by `generate` of Transformers; one that samples draws from torch's generator.

        Args:
            turns: What was said so far, the world's last.

        Raises:
            ValueError: The agent spoke last, or it is more than the policy can read.
        """
        if turns and turns[-1].by_agent:
            raise ValueError("the last turn must be the world's for the agent to reply to, got one by the agent")
        heard = tokenize(Dialogue(tuple(turns), ended=False), self.tokenizer).tokens.tolist()
        context = context_length(self.model)
        if len(heard) >= context:
            raise ValueError(
                f"what was said must be shorter than the policy reads ({context} tokens), got {len(heard)}"
            )
        unwritable = (~self.tokenizer.writable()).nonzero()[0].tolist()
        ids = torch.tensor([heard])
        with torch.inference_mode():
            said = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                logits_processor=[] if self.guidance is None else [self.guidance],
                suppress_tokens=unwritable if self.guidance is None else None,  # the guidance leaves them out itself
                max_length=None,
                max_new_tokens=min(self.model.generation_config.max_new_tokens, context - len(heard)),
            )[0, len(heard) :].tolist()
        end = self.tokenizer.end
        return self.tokenizer.decode(said[: said.index(end)] if end in said else said)
