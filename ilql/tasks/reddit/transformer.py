"""A Hugging Face sequence classifier as the judge of toxicity.

Its folder must hold a configuration, safetensors and a tokeniser. It runs on the CPU, so that every machine gives the
same rewards. Texts are scored alone or beside texts of as many tokens, never padded, and probabilities are rounded to
four digits: what stands beside a text moves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ilql.files import FILE, FOLDER, kind_of, user_path
from ilql.model_folder import LOADING_FAULTS, check_config
from ilql.tasks.reddit.columns import TOXIC_WORDS
from ilql.tasks.reddit.packaged import PACKAGED_NAME
from ilql.tasks.reddit.tables import file_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH = 32
_DIGITS = 4
_PARTS = (".json", ".safetensors", ".txt", ".model")


class TransformerClassifier:
    """The probability of one label of a loaded classifier.

    Attributes:
        label: Its index.
        independent: Whether labels have a sigmoid each; else they share one softmax.
    """

    def __init__(self, folder: Path, *, label: str) -> None:
        self._model, self._tokenizer = _load(folder)
        names = _names(self._model)
        if label:
            if label not in names:
                raise ValueError(f"classifier_label must be one of {', '.join(names)}, got {label!r}")
            self.label = names.index(label)
        else:
            likely = [place for place, name in enumerate(names) if name.lower() in TOXIC_WORDS]
            if len(names) > 1 and not likely:
                raise ValueError(
                    f"the classifier's toxic label must be named, with --set world.classifier_label=LABEL; "
                    f"its labels are {', '.join(names)}"
                )
            self.label = likely[0] if likely else 0
        config = self._model.config
        self.independent = len(names) == 1 or config.problem_type == "multi_label_classification"
        self._together = _BATCH if config.pad_token_id is not None else 1
        # RoBERTa's positions begin behind its padding id, so two of them are never used; no harm elsewhere.
        positions = getattr(config, "max_position_embeddings", None)
        longest = min(self._tokenizer.model_max_length, 10**9 if positions is None else positions - 2)
        self._longest = max(1, int(longest))

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """Of each text, in [0, 1]; a text longer than the model reads loses its end."""
        # A text may have no token where a tokeniser drops what it does not know; a model wants at least one.
        encoded = [
            self._tokenizer(text, truncation=True, max_length=self._longest)["input_ids"] or [0] for text in texts
        ]
        by_length: dict[int, list[int]] = {}
        for place, ids in enumerate(encoded):
            by_length.setdefault(len(ids), []).append(place)
        found = [0.0] * len(texts)
        for places in by_length.values():
            for start in range(0, len(places), self._together):
                group = places[start : start + self._together]
                ids = torch.tensor([encoded[place] for place in group])
                with torch.inference_mode():
                    logits = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.double()
                values = logits.sigmoid() if self.independent else logits.softmax(dim=-1)
                for place, value in zip(group, values[:, self.label].tolist(), strict=True):
                    found[place] = round(value, _DIGITS)
        return found

    def save(self, folder: Path) -> None:
        """Write model, tokeniser and the label's name."""
        self._model.save_pretrained(str(folder))
        self._tokenizer.save_pretrained(str(folder))
        name = _names(self._model)[self.label]
        (folder / "label.json").write_text(json.dumps(name), encoding="utf-8")


def load_transformer(folder: Path) -> TransformerClassifier:
    """The classifier that `save` wrote."""
    return TransformerClassifier(folder, label=json.loads((folder / "label.json").read_text(encoding="utf-8")))


def transformer_digest(name: str) -> str:
    """A digest of the classifier's files.

    Raises:
        ValueError: There is no such folder, or it is none of a classifier's.
    """
    folder = find_transformer(name)
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name.endswith(_PARTS))
    return " ".join(f"{path.name}={file_digest(path)}" for path in files)


def find_transformer(name: str) -> Path:
    """The folder of a classifier that exists.

    Raises:
        ValueError: It does not, or holds no configuration.
    """
    folder = user_path(name)
    if kind_of(folder / "config.json") != FILE:
        raise ValueError(
            f"--classifier must be a folder with config.json, safetensors and a tokeniser, or {PACKAGED_NAME}, "
            f"got {name}" + ("" if kind_of(folder) == FOLDER else ", which is no folder")
        )
    return folder


def _load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokeniser. Transformers fills what a file lacks with random weights; that is refused.

    Raises:
        ValueError: The folder holds no trained classifier, or no tokeniser that fits it.
    """
    from transformers import (  # noqa: PLC0415  slow import, seldom needed
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)  # nosec B615
        check_config(config, folder, named=())
        model, about = AutoModelForSequenceClassification.from_pretrained(  # a folder  # nosec B615
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True, dtype=torch.float32,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(  # the same  # nosec B615
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except LOADING_FAULTS as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"--classifier must be a sequence classifier with safetensors, got {folder}: {reason}"
        ) from error
    if any(not bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        raise ValueError(f"--classifier must have weights that are finite numbers, got others in {folder}")
    missing = sorted(about["missing_keys"])
    if missing:
        raise ValueError(f"--classifier must be a trained sequence classifier, got {folder} without {missing[0]}")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"--classifier must have an embedding for each token, got {rows} for {len(tokenizer)} in {folder}"
        )
    return model.eval(), tokenizer


def _names(model: PreTrainedModel) -> list[str]:
    labels = model.config.id2label or {}
    return [str(name) for _, name in sorted((int(place), name) for place, name in labels.items())]
