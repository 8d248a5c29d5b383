"""Networks: a causal language model's trunk, value heads on it, and Polyak targets.

Axes: *B* dialogues, *T* positions, *K* actions, *V* vocabulary, *D* hidden width.

Only the bare trunk runs where no language-model logits are needed, and heads run at the positions that count: the full
(B, T, V) tensors of a straightforward implementation never exist.
"""

from __future__ import annotations

import copy
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.utils import logging as transformers_logging

from ilql.files import FILE, FOLDER, NOTHING, first_line, kind_of, parse_json
from ilql.fused import linear_taken
from ilql.hyperparameters import AT_LEAST_ONE, UNIT, Range, check, hyper
from ilql.products import Linear, hasten
from ilql.tokens import STRUCTURE, from_file, is_gguf

VERSION = 1
"""Raised when the same architecture or folder would start from other weights; part of the key of backbones."""

LONGEST_CONTEXT = 2048
"""Of a longer context no more is used. Every conversation that is led has its keys and values ready at full length: 64
of 8,192 tokens would take a model of 135 million parameters 24 GB."""

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers, as Transformers names them: those that look back to the beginning, and through a window."""

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

TEMPLATE = ".jinja"
"""Ends the name of a chat template in a file of its own, which is read only where one is asked for."""

LOADING_FAULTS = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, ArithmeticError, ImportError,
    RuntimeError, SafetensorError, StrictDataclassError, struct.error,
)  # fmt: skip
"""What Transformers has been seen to raise on a folder that is not what it says: a width of text, no heads, ..."""

transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A transformer that is built from its sizes and starts at random."""

    family: str = hyper("gpt2", Range(choices=("gpt2", "llama")), meaning="which Transformers architecture")
    layers: int = hyper(2, AT_LEAST_ONE, meaning="transformer blocks")
    width: int = hyper(128, AT_LEAST_ONE, meaning="hidden width; a multiple of the heads")
    heads: int = hyper(4, AT_LEAST_ONE, meaning="attention heads")
    context: int = hyper(256, AT_LEAST_ONE, meaning="longest sequence in tokens")
    dropout: float = hyper(0.0, UNIT, meaning="dropout while training")

    def __post_init__(self) -> None:
        check(self)
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads ({self.heads}), got {self.width}")


def build_language_model(architecture: Architecture, *, vocabulary: int, seed: int) -> nn.Module:
    """A causal language model with random weights; equal arguments give equal weights."""
    a = architecture
    if a.family == "gpt2":
        config: GPT2Config | LlamaConfig = GPT2Config(
            vocab_size=vocabulary, n_embd=a.width, n_layer=a.layers, n_head=a.heads, n_positions=a.context,
            activation_function="gelu_pytorch_tanh",  # GPT-2's own activation as one operation instead of eight
            embd_pdrop=a.dropout, resid_pdrop=a.dropout, attn_pdrop=a.dropout, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
    else:
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=a.width, num_hidden_layers=a.layers, num_attention_heads=a.heads,
            num_key_value_heads=a.heads, intermediate_size=4 * a.width, max_position_embeddings=a.context,
            attention_dropout=a.dropout, tie_word_embeddings=True,
            bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory: Any = AutoModelForCausalLM
        model: nn.Module = factory.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    return hasten(model).eval()


def load_language_model(folder: Path, *, vocabulary: int, seed: int, rows: Sequence[int] | None = None) -> nn.Module:
    """A pretrained model from a local folder in Hugging Face's layout, with rows for the structural tokens added.

    Their rows start at the mean of the text's rows plus seeded noise of a hundredth of their spread, so that the six
    begin alike and apart. They come right behind the text; rows a model has beyond them are cut off.

    Args:
        folder: The model's.
        vocabulary: Number of ids, structure included, before any is left out.
        seed: Of the noise.
        rows: The ids that are kept where the vocabulary is cut: their rows become rows 0, 1, ... None keeps all.

    Raises:
        ValueError: The folder is none, or holds no causal language model that can be loaded.
    """
    model: Any = reload_language_model(folder)
    check_is_ours(model, folder)
    old = model.get_input_embeddings().weight.shape[0]
    if vocabulary != old:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    matrices = {id(e.weight): e.weight for e in (model.get_input_embeddings(), model.get_output_embeddings())}
    generator = torch.Generator().manual_seed(seed)
    for matrix in matrices.values():
        _begin_rows(matrix, min(old, vocabulary - len(STRUCTURE)), generator)
    if rows is not None:
        _keep_rows(model, torch.as_tensor(rows))
    result: nn.Module = hasten(model)  # what was resized is a new layer
    return result


def whole_language_model(
    language_model: nn.Module, folder: Path, *, vocabulary: int, seed: int, rows: Sequence[int]
) -> nn.Module:
    """A model whose vocabulary was cut, with the whole one again: what it has as it was trained, the rest as it began.

    Args:
        language_model: What became of `load_language_model` with the other arguments.
        folder: See there, as the following.
        vocabulary: See there.
        seed: See there.
        rows: See there.

    Raises:
        ValueError: The folder is none, or holds no causal language model that can be loaded.
    """
    whole: Any = load_language_model(folder, vocabulary=vocabulary, seed=seed)
    untie_like(whole, language_model)
    trained, kept = language_model.state_dict(), torch.as_tensor(rows)
    with torch.no_grad():
        for name, value in whole.state_dict().items():
            if value.shape == trained[name].shape:
                value.copy_(trained[name])
            else:
                value[kept] = trained[name]
    result: nn.Module = whole
    return result


def reload_language_model(folder: Path) -> nn.Module:
    """The model of a folder in Hugging Face's layout, or of a GGUF file, just as it was saved.

    Raises:
        ValueError: The folder is none, or holds no causal language model that can be loaded.
    """
    check_model_folder(folder)
    model = read_model(AutoModelForCausalLM, folder)
    if is_gguf(folder):  # what is dequantised is a model like others, and can be written as one
        model.hf_quantizer.remove_quantization_config(model)
    language_model: nn.Module = hasten(model).eval()
    return language_model


def read_model(factory: Any, folder: Path) -> Any:
    """What one of Transformers' factories makes of a model's folder, or of a GGUF file, with all its weights.

    Raises:
        ValueError: The folder is no model's, or lacks weights, or has some of another shape, that are no numbers, or
            that are quantised in a folder; one line.
    """
    check_model_folder(folder)
    in_file = is_gguf(folder)
    where = from_file(folder) if in_file else {}
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


@torch.no_grad()
def check_is_ours(model: Any, folder: Path) -> None:
    """Refuse a model that trunk and head as they are taken here would not be.

    Raises:
        ValueError: Its layers are of other kinds than attention, its context has no length, or its logits are more than
            its head's output at its trunk's last states: scaled, or capped.
    """
    config, family = text_config(model), model.config.model_type
    if odd := sorted(set(getattr(config, "layer_types", None) or ()) - {FULL, SLIDING}):
        raise ValueError(f"a model's layers must be {FULL} or {SLIDING}, got {odd[0]} of {family} in {folder}")
    if not isinstance(getattr(config, "max_position_embeddings", None), int):
        raise ValueError(f"a model's config must name max_position_embeddings, its context, got none of {family}")
    tokens = torch.arange(min(8, vocabulary_size(trunk_of(model)), context_length(model)))[None]
    states = hidden_states(trunk_of(model), tokens)
    if not torch.allclose(model(tokens).logits, head_of(model)(states), rtol=1e-4, atol=1e-4):
        raise ValueError(
            "a model's logits must be its head's output and nothing beyond, such as a scale or a cap, "
            f"got those of {family} in {folder}"
        )


@torch.no_grad()
def _begin_rows(matrix: Tensor, first: int, generator: torch.Generator) -> None:
    """Start the rows from `first` on."""
    known = matrix[:first]
    noise = torch.randn(len(matrix) - first, known.shape[1], generator=generator)
    matrix[first:] = known.mean(dim=0) + 0.01 * known.std() * noise


@torch.no_grad()
def _keep_rows(model: Any, rows: Tensor) -> None:
    """Cut embeddings and language-model head, tied or not, to some rows, in their order."""
    parts = model.get_input_embeddings(), model.get_output_embeddings()
    weights = [part.weight[rows] for part in parts]
    bias = getattr(parts[1], "bias", None)
    bias = None if bias is None else bias[rows]
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    parts = model.get_input_embeddings(), model.get_output_embeddings()
    for part, weight in zip(parts, weights, strict=True):
        part.weight.copy_(weight)
    if bias is not None:
        parts[1].bias.copy_(bias)
    # These name tokens by their old ids: a padding token's row would get no gradient, whoever has its number now.
    parts[0].padding_idx = None
    for config in (model.config, model.generation_config):
        config.bos_token_id = config.eos_token_id = config.pad_token_id = None


def find_model(name: str) -> Path:
    """The folder of a pretrained model: `name` itself if it is one, else what the hub has, or had, under that name.

    A GGUF file stands for a folder: Transformers reads it, weights, tokeniser and chat template, its numbers
    dequantised.

    Raises:
        ValueError: It is neither, or the hub cannot be reached; what the hub said is its cause.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() or is_gguf(folder):
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
    """Refuse a folder that cannot be a model, before anything is spent.

    Raises:
        ValueError: It is no folder, its `config.json` is missing or unreadable, names Python code without which the
            model cannot be built, or its weights are pickles, which may run anything when they are read.
    """
    if is_gguf(folder):  # what is in it is seen when it is read, and can be no code
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


def check_causal(model: nn.Module, folder: Path) -> None:
    """Refuse a language model whose predictions know what comes after: an encoder.

    Raises:
        ValueError: It is one.
    """
    first, second = (torch.tensor([[0, last]]) for last in (0, 1))
    with torch.inference_mode():
        before, after = (model(input_ids=tokens).logits[0, 0] for tokens in (first, second))
    if not torch.allclose(before, after, rtol=1e-5, atol=1e-6):
        raise ValueError(
            f"--model must be a causal language model, got {folder}, where a prediction knows what follows"
        )


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
        raise ValueError(f"config.json must be one of a model, got {folder}: {first_line(error)}") from error
    for name, (least, most) in SIZES.items():
        value = getattr(config, name, None)
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"config.json must have a {name} from {least} to {most:,}, got {value!r:.40} in {folder}")
    return min(int(config.max_position_embeddings), LONGEST_CONTEXT)


def trunk_of(language_model: nn.Module) -> nn.Module:
    """The transformer without its language-model head; the model's own, not a copy."""
    trunk = language_model.base_model
    assert isinstance(trunk, nn.Module)
    return trunk


def head_of(language_model: nn.Module) -> nn.Module:
    """The layer of the language model that is left out by `trunk_of`: from hidden states to logits."""
    layer = language_model.get_output_embeddings()  # type: ignore[operator]
    assert isinstance(layer, nn.Module)
    return layer


def is_tied(language_model: nn.Module) -> bool:
    """Whether the language model's head has the embeddings' weights."""
    words: Any = trunk_of(language_model).get_input_embeddings()  # type: ignore[operator]
    return words.weight is head_of(language_model).weight


def untie_like(language_model: nn.Module, other: nn.Module) -> None:
    """Give the language model a head of its own where the other has one: a joint policy's was trained by itself."""
    if is_tied(language_model) and not is_tied(other):
        language_model.set_output_embeddings(_free_head(language_model))  # type: ignore[operator]


def with_trunk(language_model: nn.Module, trunk: nn.Module) -> nn.Module:
    """A copy of the language model with another trunk's weights."""
    made = copy.deepcopy(language_model)
    trunk_of(made).load_state_dict(trunk.state_dict())
    return made


def hidden_width(trunk: nn.Module) -> int:
    """D."""
    return int(trunk.get_input_embeddings().weight.shape[1])  # type: ignore[operator]


def vocabulary_size(trunk: nn.Module) -> int:
    """V."""
    return int(trunk.get_input_embeddings().weight.shape[0])  # type: ignore[operator]


def context_length(language_model: nn.Module) -> int:
    """The longest sequence the model can read, in tokens; `LONGEST_CONTEXT` at most."""
    return min(int(text_config(language_model).max_position_embeddings), LONGEST_CONTEXT)


def text_config(model: nn.Module) -> Any:
    """The configuration of the part that reads text, where a model has others."""
    config: Any = model.config
    return config.get_text_config()


def hidden_states(trunk: nn.Module, tokens: Tensor) -> Tensor:
    """The trunk's last hidden states (after its final normalisation), shape (B, T, D), of tokens padded on the right.

    No mask is needed: a token attends to those before it, and padding stands behind all others. What comes of padding
    itself means nothing. Without a mask attention is computed by the kernels that skip what is not causal.

    Transformers would look into tokens and positions for padding and for packed dialogues, and wait for a device to see
    them. It does neither where it is given embeddings and something that could be a cache.
    """
    return states_of(trunk, trunk.get_input_embeddings()(tokens))  # type: ignore[operator]


def states_of(trunk: nn.Module, embedded: Tensor) -> Tensor:
    """As `hidden_states`, from embeddings, shape (B, T, D)."""
    output: Tensor = trunk(inputs_embeds=embedded, past_key_values=NoCache(), use_cache=False).last_hidden_state
    return output


class NoCache(Cache):
    """Keys and values of nothing before, and of nothing after: a whole sequence attends to itself."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The states as they came."""
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """None came before."""
        return 0

    def get_query_offset(self, layer_idx: int | None = None) -> int:
        """The first token stands first."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """As many keys as queries, from the first on."""
        return query_length, 0


def recompute_layers(module: nn.Module) -> None:
    """Let every trunk that learns make its layers' activations again in the backward pass, instead of keeping them."""
    for part in module.modules():
        if isinstance(part, PreTrainedModel) and any(p.requires_grad for p in part.parameters()):
            # Before 5.23 it had its older name.
            enable: Any = getattr(part, "activation_checkpointing_enable", part.gradient_checkpointing_enable)
            enable({"use_reentrant": False})


def gather(states: Tensor, positions: Tensor) -> Tensor:
    """states[b, positions[b, k]], shape (B, K, D)."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def taken(values: Tensor, actions: Tensor) -> Tensor:
    """values[b, k, actions[b, k]], shape (B, K) from (B, K, V)."""
    return values.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


class Whole(Linear):
    """A linear layer that multiplies in its weights' precision, also under autocast: what values are read from."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - its name there
        """X Wᵀ + bias."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


def head(width: int, out: int, *, multiple: int = 2, constant: float | None = None) -> nn.Sequential:
    """Linear(D, mD), ReLU, Linear(mD, out), PyTorch's initialisation: with m = 2 the paper's plain head.

    Args:
        width: D.
        out: Width of the output.
        multiple: m.
        constant: Begin with this value everywhere: a last layer of zeros, and this bias. None leaves it at random.
    """
    layers = nn.Sequential(Linear(width, multiple * width), nn.ReLU(), Whole(multiple * width, out))
    if constant is not None:
        last = layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, constant)
    return layers


def layers_of(q_head: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """What stands below a head's last layer, and that layer, the one over the vocabulary."""
    assert isinstance(q_head, nn.Sequential)
    last = q_head[-1]
    assert isinstance(last, nn.Linear)
    return q_head[:-1], last


class QNetwork(nn.Module):
    """A trunk with one or two Q heads over the vocabulary.

    Args:
        trunk: A language model's trunk, taken as it is.
        q_heads: One head, or two for double Q.
        value_range: What the smaller of the heads is clipped to.
    """

    def __init__(
        self, trunk: nn.Module, q_heads: Sequence[nn.Module], value_range: tuple[float, float] = (-math.inf, math.inf)
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.q_heads = nn.ModuleList(q_heads)
        self.value_range = value_range

    def heads_at(self, hidden: Tensor) -> list[Tensor]:
        """Q of every head at the given hidden states, each of shape (..., V)."""
        return [q(hidden) for q in self.q_heads]

    def minimum(self, hidden: Tensor) -> Tensor:
        """The smaller of the heads' Q, element by element, clipped, shape (..., V)."""
        return self._clipped(torch.stack(self.heads_at(hidden)).amin(dim=0))

    def minimum_of(self, hidden: Tensor, actions: Tensor) -> Tensor:
        """The smaller of the heads' Q at one action each, clipped, shape (B, K), without making (B, K, V)."""
        values = []
        for q in self.q_heads:
            before, last = layers_of(q)
            values.append(linear_taken(before(hidden), last, actions))
        return self._clipped(torch.stack(values).amin(dim=0))

    def _clipped(self, values: Tensor) -> Tensor:
        low, high = self.value_range
        return values if math.isinf(low) and math.isinf(high) else values.clamp(low, high)


class ValueNetworks(nn.Module):
    """What the value methods train: online Q and V heads on one trunk, and a lagging target of trunk and Q heads.

    The target gets no gradient, and drops out only where that is asked for.

    Args:
        trunk: What online and target trunk start from; copied.
        double_q: Two Q heads instead of one.
        target_trunk: Whether the target has a trunk of its own; else its heads read the online one.
        value_range: What the target's Q is clipped to.
        policy: A language model whose head is cloned on the online trunk, jointly; None where the policy is separate.
        outputs: Width of the Q heads: the vocabulary, or 1 for the value of an utterance.
        head_multiple: See `head`, as `head_constant`.
        head_constant: See `head`.
        target_dropout: Whether the target drops out while the online networks learn.
        returns: Mean and standard deviation of the data's returns, for losses that standardise them.
        seed: Seed of the heads' initial weights.

    Attributes:
        behaviour: The behaviour policy, for methods whose values are made with it; set by those.
        relative: Whether log π_β is to be added to the heads' values; set by those.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        double_q: bool,
        seed: int,
        target_trunk: bool = True,
        value_range: tuple[float, float] = (-math.inf, math.inf),
        policy: nn.Module | None = None,
        outputs: int | None = None,
        head_multiple: int = 2,
        head_constant: float | None = None,
        target_dropout: bool = False,
        returns: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        width, count = hidden_width(trunk), 2 if double_q else 1
        out = outputs or vocabulary_size(trunk)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # V first: it begins alike however many Q heads there are.
            self.v_head = head(width, 1, multiple=head_multiple, constant=head_constant)
            heads = [head(width, out, multiple=head_multiple, constant=head_constant) for _ in range(count)]
        self._target_dropout = target_dropout
        self.returns = returns
        self.online = QNetwork(copy.deepcopy(trunk), heads)
        below = copy.deepcopy(self.online.trunk) if target_trunk else self.online.trunk
        self.target = QNetwork(below, copy.deepcopy(heads), value_range).requires_grad_(False)
        self.online.requires_grad_(True)
        self.policy_head = None if policy is None else _free_head(policy)
        self.behaviour: Frozen | None = None
        self.relative = False

    def train(self, mode: bool = True) -> ValueNetworks:
        """Training mode for the online networks, and for the target only if it is to drop out."""
        super().train(mode)
        self.target.train(mode and self._target_dropout)
        self.online.train(mode)  # after the target: they may share a trunk
        return self

    def joint_policy(self, like: nn.Module) -> nn.Module:
        """The joint policy as a language model of its own, built like the given one."""
        assert self.policy_head is not None
        model: Any = with_trunk(like, self.online.trunk)
        model.set_output_embeddings(copy.deepcopy(self.policy_head))
        result: nn.Module = model
        return result.eval()


class Lagging(Protocol):
    """A module that learns in `online`, and has a `target` of the same shape that follows it."""

    online: nn.Module
    target: nn.Module


class Renewal(Protocol):
    """The two hyperparameters that say how a target follows."""

    @property
    def polyak(self) -> float:
        """Share of the online weights that the target takes."""

    @property
    def target_every(self) -> int:
        """Optimiser steps between renewals."""


def renew_target(module: Any, train: Renewal, step: int) -> None:
    """Every `target_every` optimiser steps the target takes its share of the online weights.

    Args:
        module: A `Lagging` module.
        train: How its target follows.
        step: Optimiser steps done.
    """
    if step % train.target_every == 0:
        follow(module, train.polyak)


@torch.no_grad()
def follow(module: Lagging, polyak: float) -> None:
    """θ̄ ← polyak·θ + (1 − polyak)·θ̄ for every parameter of the target that is not the online network's own."""
    pairs = zip(module.target.parameters(), module.online.parameters(), strict=True)
    targets, sources = zip(*((own, other) for own, other in pairs if own is not other), strict=True)
    torch._foreach_lerp_(list(targets), list(sources), polyak)


class Frozen:
    """A language model that a network reads while it learns, and that is neither trained nor saved with it."""

    def __init__(self, language_model: nn.Module) -> None:
        self._model = language_model.eval().requires_grad_(False)

    @torch.no_grad()
    def log_probabilities(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Log π of every next token at the given positions, shape (B, K, V) from tokens (B, T) and positions (B, K)."""
        model: Any = self._model.to(tokens.device)
        states = gather(hidden_states(trunk_of(model), tokens), positions)
        log_pi: Tensor = model.get_output_embeddings()(states).float().log_softmax(dim=-1)
        return log_pi


def _free_head(language_model: nn.Module) -> nn.Linear:
    """A copy of the language model's head, tied to nothing."""
    head_: Any = copy.deepcopy(language_model.get_output_embeddings())  # type: ignore[operator]
    head_.weight = nn.Parameter(head_.weight.detach().clone())
    result: nn.Linear = head_
    return result.requires_grad_(True)
