"""Folders of pretrained models: where they are, and what is refused before and after Transformers has read one.

Nothing in a folder is run: weights are safetensors, and code that a folder brings is never imported.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.utils import logging as transformers_logging

from ilql.files import FILE, FOLDER, NOTHING, first_line, kind_of, parse_json, user_path
from ilql.gguf_file import check_gguf
from ilql.tokens import from_file, is_gguf

FLOATS = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the types of weights that are no whole numbers."""

MODEL_FILES = (".json", ".safetensors", ".model", ".txt", ".bin")
"""Endings of the files that decide a pretrained model."""

SIZES = {
    "num_hidden_layers": (1, 1024),
    "hidden_size": (1, 2**17),
    "num_attention_heads": (1, 2**12),
    "vocab_size": (2, 2**24),
    "max_position_embeddings": (2, 10**8),
}
"""From what to what the sizes of a model go: one of 2³¹ layers would be built for ever, before its weights are seen."""

INNER_SIZES = {"intermediate_size": (1, 2**20)}
"""The same of sizes that not every model names."""

TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
LARGEST_ID = 2**31
"""An id beyond it fits into no tensor of ids: it would be met when the model first reads."""

TEMPLATE = ".jinja"
"""Ends the name of a chat template in a file of its own, which is read only where one is asked for."""

LOADING_FAULTS = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, ArithmeticError, ImportError,
    RuntimeError, SafetensorError, StrictDataclassError, struct.error,
)  # fmt: skip
"""What Transformers has been seen to raise on a folder that is not what it says: a width of text, no heads, ..."""

LONGEST_CONTEXT = 2048
"""Of a longer context no more is used. Every conversation that is led has its keys and values ready at full length: 64
of 8,192 tokens would take a model of 135 million parameters 24 GB."""

transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def read_model(factory: Any, folder: Path) -> Any:
    """What one of Transformers' factories makes of a model's folder, or of a GGUF file, with all its weights.

    Raises:
        ValueError: The folder is no model's, or lacks weights, or has some of another shape, that are no numbers, or
            that are quantised in a folder; one line.
    """
    check_model_folder(folder)
    in_file = is_gguf(folder)
    where = from_file(folder) if in_file else {}
    if in_file:
        _silence_gguf()
    try:
        model, about = factory.from_pretrained(
            str(folder.parent if in_file else folder),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,  # anything else is a pickle, which is code
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,  # so that they are told here
            output_loading_info=True,
            **where,
        )
    except LOADING_FAULTS as error:
        raise ValueError(
            f"a model folder must hold a causal language model, got {folder}: {first_line(error)}"
        ) from error
    # Transformers fills what a file lacks with random weights.
    for name, *shapes in sorted(about["mismatched_keys"]):
        found, wanted = (tuple(shape) for shape in shapes)
        raise ValueError(f"{name} must have shape {wanted} by the config.json of {folder}, got {found}")
    if missing := sorted(about["missing_keys"]):
        raise ValueError(f"a model folder must hold all weights of its model, got {folder} without {missing[0]}")
    _check_sorts(folder, model)
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"weights must be finite numbers, got others in {name} of {folder}")
    return model


def _silence_gguf() -> None:
    """Let Transformers' reader of GGUF files draw its progress bar only where others are wanted, too."""
    from transformers import modeling_gguf_pytorch_utils as reader  # noqa: PLC0415  loads every tokeniser's module

    reader.tqdm = transformers_logging.tqdm  # type: ignore[attr-defined]


def _check_sorts(folder: Path, model: nn.Module) -> None:
    """Refuse weights that are no floats: they would be read as floats, and are quantised.

    Raises:
        ValueError: There are some.
    """
    own = set(model.state_dict())
    own |= {name.removeprefix(f"{getattr(model, 'base_model_prefix', '')}.") for name in own}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                names = own.intersection(tensors.keys())
                sorts = {name: tensors.get_slice(name).get_dtype() for name in names}
        except SafetensorError as error:
            raise ValueError(f"weights must be a whole safetensors file, got {file}: {first_line(error)}") from error
        for name in sorted(sorts):
            if sorts[name] not in FLOATS:
                raise ValueError(
                    f"weights must be floats ({', '.join(FLOATS)}), got {sorts[name]} for {name} in {file}"
                )


def find_model(name: str) -> Path:
    """The folder of a pretrained model: `name` itself if it is one, else what the hub has, or had, under that name.

    A GGUF file stands for a folder: Transformers reads it, weights, tokeniser and chat template, its numbers
    dequantised.

    Raises:
        ValueError: It is neither, or the hub cannot be reached; what the hub said is its cause.
    """
    folder = user_path(name)
    if kind_of(folder) == FOLDER or is_gguf(folder):
        return folder.absolute()
    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", f"*{TEMPLATE}"]
    try:
        # The user names it; what came is part of every key by its digest, and none of it is code.
        return Path(snapshot_download(name, allow_patterns=wanted))  # nosec B615
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"--model must be a folder or a name on the Hugging Face hub, got {name!r}, which is neither a folder here "
            "nor reachable on the hub"
        ) from error


def check_model_folder(folder: Path) -> None:
    """Refuse a folder, or a GGUF file, that cannot be a model, before anything is spent.

    Raises:
        ValueError: The file is none, or not whole; or it is no folder, its `config.json` is missing or unreadable,
            names Python code without which the model cannot be built, or its weights are pickles, which may run
            anything when they are read.
    """
    if is_gguf(folder):  # what its names mean is seen when it is read, and can be no code
        check_gguf(folder)
        return
    config = folder / "config.json"
    if kind_of(config) == NOTHING:
        raise ValueError(f"--model must be a folder with a config.json and weights, got {folder}")
    for file in sorted(folder.iterdir()):
        if file.suffix in (*MODEL_FILES, TEMPLATE) and (kind := kind_of(file)) not in (FILE, FOLDER):
            raise ValueError(f"a model folder must hold plain files, got {file}, which is {kind}")
    try:
        about = parse_json(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"config.json must be a JSON file, got {config}: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"config.json must be an object, got a {type(about).__name__} in {config}")
    if not isinstance(about.get("model_type"), str):
        raise ValueError(f"config.json must name a model_type, got {about.get('model_type')!r} in {config}")
    if about["model_type"] not in CONFIG_MAPPING:
        code = "; code that a folder brings is never run" if "auto_map" in about else ""
        raise ValueError(
            f"a model_type must be one that Transformers has, got {about['model_type']!r} in {config}{code}"
        )
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickled and not any(folder.glob("*.safetensors")):
        raise ValueError(f"weights must be safetensors, got {folder} with {pickled[0]}, a pickle, which can run code")
    _check_shards(folder)


def _check_shards(folder: Path) -> None:
    """Refuse an index of weights that leads out of its folder, or to nothing.

    Raises:
        ValueError: It does, or is none.
    """
    index = folder / "model.safetensors.index.json"
    if kind_of(index) == NOTHING:
        return
    try:
        about = parse_json(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"an index of weights must be a JSON file, got {index}: {error}") from error
    files = about.get("weight_map") if isinstance(about, dict) else None
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ValueError(f"an index of weights must name a file for each tensor, got none in {index}")
    for name in sorted(set(files.values())):
        if Path(name).name != name or kind_of(folder / name) != FILE:
            raise ValueError(f"an index of weights must name files beside it, got {name!r} in {index}")


def context_of(folder: Path) -> int:
    """The longest sequence that the model of a folder reads, in tokens, by its `config.json` or in its GGUF file.

    `LONGEST_CONTEXT` at most, as `context_length` of the model itself.

    Raises:
        ValueError: The folder is none of a model's, or does not say.
    """
    check_model_folder(folder)
    in_file = is_gguf(folder)
    where = from_file(folder) if in_file else {}
    try:
        whole = AutoConfig.from_pretrained(  # nosec B615  a folder, nothing of the hub
            str(folder.parent if in_file else folder), local_files_only=True, trust_remote_code=False, **where
        )
        config = whole.get_text_config()
    except LOADING_FAULTS as error:
        what = "a GGUF file" if in_file else "config.json"
        raise ValueError(f"{what} must be one of a model, got {folder}: {first_line(error)}") from error
    check_config(config, folder, named=tuple(SIZES))
    return min(int(config.max_position_embeddings), LONGEST_CONTEXT)


def check_config(config: Any, folder: Path, *, named: Sequence[str]) -> None:
    """Refuse a configuration whose model would be built for ever, or could not read.

    Args:
        config: Of the part that reads text.
        folder: Where it is from, for the message.
        named: The sizes that it must name; others count where it names them.

    Raises:
        ValueError: A size or an id of a token is out of its range, or is none.
    """
    for name, (least, most) in (SIZES | INNER_SIZES).items():
        value = getattr(config, name, None)
        if value is None and name not in named:
            continue
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"config.json must have a {name} from {least} to {most:,}, got {value!r:.40} in {folder}")
    for name in TOKEN_IDS:
        value = getattr(config, name, None)
        for each in value if isinstance(value, list) else [value]:
            if each is not None and not (isinstance(each, int) and abs(each) < LARGEST_ID):
                raise ValueError(f"config.json must have a {name} below {LARGEST_ID:,}, got {each!r:.40} in {folder}")
