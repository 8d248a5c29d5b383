"""What a training reads of dialogues: no more than `train.max_tokens` at once, and what became of longer ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ilql import windows
from ilql.batch import TokenSequence, tokenize
from ilql.dialogue import Dialogue
from ilql.tokens import Tokenizer
from sweeps.spec import TrialSpec

CUT_FILE = "cut.json"


@dataclass(frozen=True)
class Cut:
    """What became of dialogues that are longer than is read at once.

    Attributes:
        dialogues: Number of all dialogues.
        cut: Those that are longer.
        tokens: Tokens of all.
        dropped: Those of them that are not read.
        windows: What the longer ones were cut into; 0 where each ends instead.
        repeated: Tokens that windows have besides, for context.
    """

    dialogues: int
    cut: int
    tokens: int
    dropped: int
    windows: int = 0
    repeated: int = 0

    @property
    def mean_tokens(self) -> float:
        """Of what is read at once."""
        read = self.dialogues - self.cut + self.windows if self.windows else self.dialogues
        return (self.tokens - self.dropped + self.repeated) / read

    def note(self, split: str, max_tokens: int, lost: str) -> str | None:
        """One line on the dialogues of a split that are longer; None where there are none.

        Args:
            split: Its name.
            max_tokens: How many tokens are read at once.
            lost: What that means where dialogues end there.
        """
        if not self.cut:
            return None
        share = f"{self.dropped / self.tokens:.1%} of all tokens are left out"
        numbers = f"{self.cut:,} of {self.dialogues:,} {split} dialogues"
        longer = f"{numbers} are longer than train.max_tokens={max_tokens} and "
        if not self.windows:
            return f"{longer}end there{lost} ({share})"
        begun = f" ({share}: the beginnings of long turns of the world)" if self.dropped else ""
        return f"{longer}are cut into {self.windows:,} windows that bootstrap: no reward is lost{begun}"

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        (folder / CUT_FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")


def load_cut(folder: Path) -> Cut | None:
    """What `Cut.save` wrote; None where the folder is of an earlier version."""
    file = folder / CUT_FILE
    return Cut(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


@dataclass(frozen=True)
class Reading:
    """Dialogues as they are read.

    Attributes:
        sequences: In the dialogues' order; the windows of a long one stand one behind the other.
        cut: What became of the long ones.
    """

    sequences: list[TokenSequence]
    cut: Cut


def read(dialogues: Sequence[Dialogue], tokenizer: Tokenizer, *, max_tokens: int, in_windows: bool) -> Reading:
    """Dialogues as tokens.

    Args:
        dialogues: What was said.
        tokenizer: How text becomes ids.
        max_tokens: How many are read at once.
        in_windows: Whether longer ones are cut into windows; else they end there.

    Raises:
        ValueError: `max_tokens` is too small for windows.
    """
    sequences: list[TokenSequence] = []
    longer = tokens = dropped = pieces = repeated = 0
    for dialogue in dialogues:
        if in_windows:
            found = windows.cut(dialogue, tokenizer, max_tokens=max_tokens)
            own, length, left_out = found.sequences, found.tokens, found.left_out
        else:
            whole = tokenize(dialogue, tokenizer)
            length, left_out = len(whole.tokens), max(0, len(whole.tokens) - max_tokens)
            own = (tokenize(dialogue, tokenizer, max_tokens=max_tokens) if left_out else whole,)
        sequences += own
        tokens += length
        dropped += left_out
        if length > max_tokens:
            longer += 1
            pieces += len(own) if in_windows else 0
            repeated += sum(len(each.tokens) for each in own) - (length - left_out)
    return Reading(sequences, Cut(len(dialogues), longer, tokens, dropped, pieces, repeated))


def read_as(spec: TrialSpec, dialogues: Sequence[Dialogue], tokenizer: Tokenizer) -> Reading:
    """Dialogues as a spec's training reads them."""
    return read(dialogues, tokenizer, max_tokens=spec.train.max_tokens, in_windows=spec.data.windows)
