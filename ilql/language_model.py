"""Causal language models: built from sizes or loaded from a folder, their rows, their trunk and their head.

Axes: *B* dialogues, *T* positions, *K* actions, *V* vocabulary, *D* hidden width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import Cache

from ilql.hyperparameters import AT_LEAST_ONE, UNIT, Range, check, hyper
from ilql.model_folder import LONGEST_CONTEXT, check_model_folder, read_model
from ilql.products import hasten
from ilql.tokens import STRUCTURE, is_gguf

Module = TypeVar("Module", bound=nn.Module)

VERSION = 1
"""Raised when the same architecture or folder would start from other weights; part of the key of backbones."""

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers, as Transformers names them: those that look back to the beginning, and through a window."""


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
    configurations: Any = AutoConfig  # by their names: their classes are slow to import
    if a.family == "gpt2":
        config = configurations.for_model(
            "gpt2", vocab_size=vocabulary, n_embd=a.width, n_layer=a.layers, n_head=a.heads, n_positions=a.context,
            activation_function="gelu_pytorch_tanh",  # GPT-2's own activation as one operation instead of eight
            embd_pdrop=a.dropout, resid_pdrop=a.dropout, attn_pdrop=a.dropout, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
    else:
        config = configurations.for_model(
            "llama", vocab_size=vocabulary, hidden_size=a.width, num_hidden_layers=a.layers,
            num_attention_heads=a.heads, num_key_value_heads=a.heads, intermediate_size=4 * a.width,
            max_position_embeddings=a.context, attention_dropout=a.dropout, tie_word_embeddings=True,
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
        language_model.set_output_embeddings(free_head(language_model))  # type: ignore[operator]


def free_head(language_model: nn.Module) -> nn.Linear:
    """A copy of the language model's head, tied to nothing."""
    head_: Any = copy.deepcopy(language_model.get_output_embeddings())  # type: ignore[operator]
    head_.weight = nn.Parameter(head_.weight.detach().clone())
    result: nn.Linear = head_
    return result.requires_grad_(True)


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


def gather(states: Tensor, positions: Tensor) -> Tensor:
    """states[b, positions[b, k]], shape (B, K, D)."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def recompute_layers(module: nn.Module) -> None:
    """Let every trunk that learns make its layers' activations again in the backward pass, instead of keeping them."""
    from transformers import PreTrainedModel  # noqa: PLC0415  slow import; here a model has been built already

    for part in module.modules():
        if isinstance(part, PreTrainedModel) and any(p.requires_grad for p in part.parameters()):
            # Before 5.23 it had its older name.
            enable: Any = getattr(part, "activation_checkpointing_enable", part.gradient_checkpointing_enable)
            enable({"use_reentrant": False})


class Frozen:
    """A language model that a network reads while it learns, and that is neither trained nor saved with it."""

    def __init__(self, language_model: nn.Module) -> None:
        self.model = language_model.eval().requires_grad_(False)

    @torch.no_grad()
    def log_probabilities(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Log π of every next token at the given positions, shape (B, K, V) from tokens (B, T) and positions (B, K)."""
        model: Any = placed(self.model, tokens.device)
        states = gather(hidden_states(trunk_of(model), tokens), positions)
        log_pi: Tensor = model.get_output_embeddings()(states).float().log_softmax(dim=-1)
        return log_pi


def placed(model: Module, device: torch.device) -> Module:
    """The model, moved to a device unless it is there."""
    return model if next(model.parameters()).device == device else model.to(device)


def held_beside(module: nn.Module) -> list[nn.Module]:
    """The networks that a module reads while it learns, and that are neither trained nor saved with it.

    They stand in attributes that torch does not look into: as `Frozen`, or in a tuple.
    """
    found: list[nn.Module] = []
    for part in module.modules():
        for value in vars(part).values():
            held = [value.model] if isinstance(value, Frozen) else value if isinstance(value, tuple) else []
            found += [each for each in held if isinstance(each, nn.Module)]
    return found
