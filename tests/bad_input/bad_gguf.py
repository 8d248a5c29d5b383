"""GGUF files, as `--model` names them; the packages that read what they hold need not be there.

What is wrong with a header is said without them, and so in their absence is that they are missing. Where they are there
(the extra `gguf`), what is wrong behind the header is met too, and a sound file is taken.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from bad_models import model_folder, with_model
from faults import Fault, Place, Reader
from files import path_faults, text_faults

READS = all(importlib.util.find_spec(name) is not None for name in ("gguf", "accelerate"))
"""Whether what is behind a header is read here."""

WIDTH, HEADS, CONTEXT = 16, 2, 16
U8, U32, F32, TEXT, LIST, U64 = 0, 4, 6, 8, 9, 10

Values = dict[str, bytes]
"""What a file says of itself, each value as it stands there, its kind before it."""

Tensors = dict[str, torch.Tensor]


def _number(form: str, *numbers: float) -> bytes:
    return struct.pack(f"<{form}", *numbers)


def _text(text: str | bytes) -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return _number("Q", len(content)) + content


def _whole(number: int) -> bytes:
    return _number("II", U32, number)


def _texts(texts: Sequence[str]) -> bytes:
    return _number("IIQ", LIST, TEXT, len(texts)) + b"".join(map(_text, texts))


@functools.cache
def _vocabulary() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words by their ids, and merges, of the tokeniser that the model folders have."""
    model = json.loads((model_folder() / "tokenizer.json").read_text())["model"]
    return tuple(sorted(model["vocab"], key=model["vocab"].get)), tuple(" ".join(pair) for pair in model["merges"])


def values() -> Values:
    words, merges = _vocabulary()
    return {
        "general.architecture": _number("I", TEXT) + _text("llama"),
        "llama.block_count": _whole(1),
        "llama.context_length": _whole(CONTEXT),
        "llama.embedding_length": _whole(WIDTH),
        "llama.feed_forward_length": _whole(WIDTH),
        "llama.attention.head_count": _whole(HEADS),
        "llama.attention.head_count_kv": _whole(HEADS),
        "llama.rope.dimension_count": _whole(WIDTH // HEADS),
        "llama.attention.layer_norm_rms_epsilon": _number("If", F32, 1e-5),
        "llama.vocab_size": _whole(len(words)),
        "tokenizer.ggml.model": _number("I", TEXT) + _text("gpt2"),
        "tokenizer.ggml.tokens": _texts(words),
        "tokenizer.ggml.merges": _texts(merges),
        "tokenizer.ggml.eos_token_id": _whole(0),
    }


def tensors() -> Tensors:
    shapes = {
        "token_embd.weight": (len(_vocabulary()[0]), WIDTH),
        "output_norm.weight": (WIDTH,),
        **{f"blk.0.{name}_norm.weight": (WIDTH,) for name in ("attn", "ffn")},
        **{f"blk.0.attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{name}.weight": (WIDTH, WIDTH) for name in ("gate", "up", "down")},
    }
    generator = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def written(values: Mapping[str, bytes], tensors: Mapping[str, torch.Tensor], *, version: int = 3) -> bytes:
    """A file of these; numbers of tensors as 32-bit floats, each from a multiple of 32 bytes on."""
    head = b"GGUF" + _number("IQQ", version, len(tensors), len(values))
    head += b"".join(_text(name) + value for name, value in values.items())
    numbers = b""
    for name, tensor in tensors.items():
        head += _text(name) + _number("I", tensor.dim()) + _number("Q" * tensor.dim(), *reversed(tensor.shape))
        head += _number("IQ", 0, len(numbers))
        numbers += _padded(tensor.numpy().tobytes())
    return _padded(head) + numbers


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 32)


@functools.cache
def sound() -> bytes:
    return written(values(), tensors())


def _read(at: Place, content: bytes) -> Sequence[str]:
    return with_model(at.write("m.gguf", content))


def _fault(name: str, why: str, content: Callable[[], bytes], *says: str) -> Fault:
    return Fault(name, why, lambda at: _read(at, content()), ("m.gguf", *says))


def _behind(name: str, why: str, content: Callable[[], bytes], *says: str) -> Fault:
    """A fault that is met where there is something that reads it; else that there is not."""
    return _fault(name, why, content, *(says if READS else ("the package", "not installed")))


def _said(**changes: bytes) -> Callable[[], bytes]:
    """The sound file with other values, `__` for dots; those of no bytes are gone."""
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return lambda: written({n: v for n, v in (values() | changed).items() if v}, tensors())


def _weighed(change: Callable[[Tensors], object]) -> Callable[[], bytes]:
    def content() -> bytes:
        changed = tensors()
        change(changed)
        return written(values(), changed)

    return content


def _spliced(at: int, content: bytes) -> Callable[[], bytes]:
    """The sound file with other bytes from a place on."""
    return lambda: sound()[:at] + content + sound()[at + len(content) :]


def _cut(share: float) -> Callable[[], bytes]:
    return lambda: sound()[: math.ceil(share * len(sound()))]


def _taken(at: Place) -> Sequence[str]:
    if not READS:
        pytest.skip("the packages gguf and accelerate are not installed: pip install 'ilql-ablations[gguf]'")
    return _read(at, sound())


FILES = Reader(
    "GGUF files",
    sound=_taken,
    faults=(
        *path_faults(with_model, "m.gguf"),
        *text_faults(with_model, "m.gguf", b"a model, they said"),
        _fault("another format", "renamed by hand", lambda: b"PK\3\4" + bytes(99), "does not begin as one"),
        _fault("page", "a login page was downloaded", lambda: b"<html>" + b" " * 99, "does not begin as one"),
        _fault("beginning alone", "a download that broke off", lambda: b"GGUF", "beyond its end"),
        _fault("first version", "of before 2023", _spliced(4, _number("I", 1)), "version 1"),
        _fault("later version", "a later library's", _spliced(4, _number("I", 9)), "version 9"),
        _fault("big-endian", "written on another machine", _spliced(4, struct.pack(">I", 3)), "version"),
        _fault("cut off among its values", "a download that broke off", lambda: sound()[:300], "beyond its end"),
        _fault("more values than it has", "made to exhaust memory", _spliced(16, _number("Q", 2**62))),
        _fault("more tensors than it has", "made to exhaust memory", _spliced(8, _number("Q", 2**62))),
        _fault("name without end", "made to exhaust memory", _spliced(24, _number("Q", 2**62)), "beyond its end"),
        _fault("list without end", "made to be read for ever",
               _said(general__tags=_number("IIQ", LIST, U8, 2**20)), "beyond its end"),
        _fault("list of more than memory holds", "made to exhaust it",
               _said(general__tags=_number("IIQ", LIST, U8, 2**62)), "values"),
        _fault("list of texts without end", "the same", _said(general__tags=_number("IIQ", LIST, TEXT, 2**62))),
        _fault("list of lists", "made to exhaust the stack", _said(general__tags=_number("IIQ", LIST, LIST, 1)),
               "kind 9"),
        _fault("value of no kind", "a later library's", _said(general__tags=_number("I", 99)), "kind 99"),
        _behind("cut off among its weights", "a download that broke off", _cut(0.9)),
        _behind("no architecture", "written by hand", _said(general__architecture=b"")),
        _behind("unknown architecture", "a later library's",
                _said(general__architecture=_number("I", TEXT) + _text("zorp")), "zorp"),
        _behind("architecture of a number", "written by hand", _said(general__architecture=_whole(3))),
        _behind("no layers", "a zero", _said(llama__block_count=_whole(0)), "num_hidden_layers"),
        _behind("layers without end", "made to be built for ever", _said(llama__block_count=_whole(2**31)),
                "num_hidden_layers"),
        _behind("no heads", "a zero", _said(llama__attention__head_count=_whole(0))),
        _behind("word for a width", "written by hand",
                _said(llama__embedding_length=_number("I", TEXT) + _text("wide"))),
        _behind("width of another model", "edited by hand", _said(llama__embedding_length=_whole(32))),
        _behind("no tokeniser", "the weights alone", _said(
            tokenizer__ggml__model=b"", tokenizer__ggml__tokens=b"", tokenizer__ggml__merges=b"")),
        _behind("merges of words that are not there", "edited by hand",
                _said(tokenizer__ggml__merges=_texts(["zorp zorp"]))),
        _behind("merges of one word", "edited by hand", _said(tokenizer__ggml__merges=_texts(["zorp"]))),
        _behind("end beyond all words", "another model's", _said(tokenizer__ggml__eos_token_id=_whole(2**31))),
        _behind("name twice", "two files pasted together", lambda: sound().replace(
            b"tokenizer.ggml.tokens", b"tokenizer.ggml.merges")),
        _behind("missing tensor", "a part of the download", _weighed(lambda t: t.pop("output_norm.weight")), "norm"),
        _behind("tensor of another shape", "another model's", _weighed(
            lambda t: t.update({"output_norm.weight": torch.ones(5)})), "norm"),
        _behind("weights of NaN", "a training that ran away", _weighed(
            lambda t: t.update({name: value * float("nan") for name, value in t.items()})), "finite"),
    ),
)  # fmt: skip

READERS = (FILES,)
