"""Model folders, and the tokenisers in them, as `--model` gives them; and folders of classifiers."""

from __future__ import annotations

import functools
import json
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from faults import Fault, Place, Reader
from files import DEEP
from safetensors.torch import load_file, save_file
from scratch import scratch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

TEXT = 1 + 256 + 4
"""Text tokens of the model: an end of text, all bytes, some merges."""

Spoil = Callable[[Path], object]


@functools.cache
def model_folder() -> Path:
    """A tiny GPT-2 with a byte-level tokeniser; made once, copied for each fault."""
    folder = scratch("model")
    text = Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"],
        show_progress=False,
    )  # fmt: skip
    text.train_from_iterator(["pull the zorp", "the zorp"] * 9, trainer=trainer)
    text.save(str(folder / "tokenizer.json"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=TEXT, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@functools.cache
def _classifier() -> Path:
    """A tiny classifier with a tokeniser of four words."""
    folder = scratch("classifier")
    words = ["[UNK]", "kind", "foul", "zorp"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=12, pad_token_id=0, id2label={0: "fine", 1: "toxic"},
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(folder)
    text = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    text.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"unk_token": "[UNK]", "pad_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=text, **named).save_pretrained(folder)
    return folder


def with_model(path: str) -> Sequence[str]:
    """Everything that reads a model is done for a plan: its tokeniser is cut to the data, its rows are begun."""
    return ["plan", "bandit", "--preset", "smoke", "--model", path]


def with_classifier(path: str) -> Sequence[str]:
    sizes = ["--set=world.comments=300", "--set=world.tune_share=0.25", "--set=world.report_share=0.25"]
    return ["play", "reddit", *sizes, "--set=world.least_auc=0", "--classifier", path]


def _config(**changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        value = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in value.items() if v != "gone"}))

    return spoil


def _write(name: str, content: bytes | str) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def _cut(name: str, keep: float) -> Spoil:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return spoil


def _tokenizer(text: Tokenizer) -> Spoil:
    return lambda folder: text.save(str(folder / "tokenizer.json"))


def _edited(change: Callable[[Any], object]) -> Spoil:
    """The tokeniser's file with something else in it."""

    def spoil(folder: Path) -> None:
        value = json.loads((folder / "tokenizer.json").read_text())
        change(value)
        (folder / "tokenizer.json").write_text(json.dumps(value))

    return spoil


def _pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return spoil


def _endless(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")

    return spoil


def _pickled(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")


def _sharded(shard: str) -> Spoil:
    def spoil(folder: Path) -> None:
        names = list(load_file(folder / "model.safetensors"))
        (folder / "model.safetensors").unlink()
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def _code(folder: Path) -> None:
    """A folder that brings code of its own; were it run, it would leave a file."""
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    _config(model_type="mine", auto_map={"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"})(folder)


def _gone(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def _fault(read: Callable[[str], Sequence[str]], sound: Callable[[], Path]) -> Callable[..., Fault]:
    """Makes faults of a copy of a sound folder, which is named `m`."""

    def fault(name: str, why: str, spoil: Spoil, *says: str, in_folder: bool = True) -> Fault:
        def make(at: Place) -> Sequence[str]:
            shutil.copytree(sound(), at.folder / "m")
            spoil(at.folder / "m")
            return read(str(at.folder / "m"))

        return Fault(name, why, make, ("input/m", *says) if in_folder else says)

    return fault


def _sound(read: Callable[[str], Sequence[str]], sound: Callable[[], Path]) -> Callable[[Place], Sequence[str]]:
    def make(at: Place) -> Sequence[str]:
        shutil.copytree(sound(), at.folder / "m")
        return read(str(at.folder / "m"))

    return make


_of_model = _fault(with_model, model_folder)
_of_classifier = _fault(with_classifier, _classifier)

HUGE_HEADER = struct.pack("<Q", 2**62) + b"{}"


def _of_encoder(folder: Path) -> None:
    config = BertConfig(
        vocab_size=TEXT, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)


def _of_bare_encoder(folder: Path) -> None:
    _of_encoder(folder)
    BertForMaskedLM.from_pretrained(folder).bert.save_pretrained(folder)


MODELS = Reader(
    "model folders",
    sound=_sound(with_model, model_folder),
    faults=(
        Fault("no folder and no name", "a misspelt path", lambda at: with_model(str(at.folder / "n")), ("input/n",)),
        Fault("file for a folder", "the weights were named", lambda at: with_model(at.write("w", "x")), ("input/w",)),
        _of_model("no config.json", "the weights alone", _gone("config.json"), "config.json"),
        _of_model("config.json cut off", "a download that broke off", _cut("config.json", 0.5), "config.json"),
        _of_model("config.json of zeros", "the machine died", _write("config.json", bytes(99)), "config.json"),
        _of_model("config.json in UTF-16", "saved on Windows", _write("config.json", '{"a": 1}'.encode("utf-16")),
                  "config.json"),
        _of_model("config.json that is a list", "another program's", _write("config.json", "[1]"), "config.json"),
        _of_model("config.json nested too deep", "made to exhaust the stack", _write("config.json", DEEP),
                  "config.json"),
        _of_model("config.json that is a pipe", "reading it waits for ever", _pipe("config.json"), "config.json"),
        _of_model("config.json without end", "a link to /dev/zero", _endless("config.json"), "config.json"),
        _of_model("no model type", "written by hand", _config(model_type="gone", architectures="gone")),
        _of_model("unknown model type", "a later library's", _config(model_type="gtp2"), "gtp2"),
        _of_model("model type of a number", "written by hand", _config(model_type=2)),
        _of_model("encoder", "a model that cannot go on writing", _of_encoder, "follows"),
        _of_model("encoder without a head", "half a download", _of_bare_encoder, "without"),
        _of_model("code of its own", "a model that is no part of the library", _code, "code"),
        _of_model("word for a width", "written by hand", _config(n_embd="wide")),
        _of_model("no heads", "a zero", _config(n_head=0)),
        _of_model("negative layers", "a sign", _config(n_layer=-1)),
        _of_model("padding beyond all ids", "a word for none, elsewhere", _config(pad_token_id=10**40), "pad_token_id"),
        _of_model("width of another model", "two downloads in one folder", _config(n_embd=32)),
        _of_model("layers of another model", "two downloads in one folder", _config(n_layer=3)),
        _of_model("vocabulary of another model", "two downloads in one folder", _config(vocab_size=99)),
        Fault("context shorter than the dialogues", "a smaller model",
              lambda at: [*_sound(with_model, model_folder)(at), "--set", "behaviour.max_tokens=32"],
              ("behaviour.max_tokens", "16")),
        _of_model("unknown activation", "a later library's", _config(activation_function="zorp"), "zorp"),
        _of_model("no weights", "the configuration alone", _gone("model.safetensors"), "model.safetensors"),
        _of_model("weights cut off", "a download that broke off", _cut("model.safetensors", 0.5)),
        _of_model("weights of zeros", "the machine died", _write("model.safetensors", bytes(999))),
        _of_model("weights that are a page", "a login page was downloaded", _write("model.safetensors", "<html>")),
        _of_model("weights' header without end", "made to exhaust memory", _write("model.safetensors", HUGE_HEADER)),
        _of_model("weights that are a pipe", "reading them waits for ever", _pipe("model.safetensors")),
        _of_model("weights as a pickle", "an older format, which is code", _pickled, "safetensors"),
        _of_model("missing tensor", "a part of the download", _weights(lambda t: t.pop("transformer.ln_f.weight")),
                  "ln_f.weight"),
        _of_model("foreign tensors", "another architecture's", _weights(
            lambda t: t.update({f"x.{n}": t.pop(n) for n in list(t)}))),
        _of_model("weights of whole numbers", "quantised", _weights(
            lambda t: t.update({n: (100 * v).to(torch.int8) for n, v in t.items()})), "I8"),
        _of_model("weights of NaN", "a training that ran away", _weights(
            lambda t: t.update({n: v * float("nan") for n, v in t.items()})), "finite"),
        _of_model("shard that is missing", "a part of the download", _sharded("model-1.safetensors"), "model-1"),
        _of_model("shard outside of the folder", "made to read another file", _sharded("../../elsewhere.safetensors"),
                  "elsewhere"),
    ),
)  # fmt: skip


def _words(*words: str, unknown: str | None = None) -> Tokenizer:
    return Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=unknown))


def _of_nothing() -> Tokenizer:
    text = _words("a", "b", unknown="a")
    text.normalizer = normalizers.Replace(Regex("."), "")
    return text


TOKENIZERS = Reader(
    "tokenisers of model folders",
    sound=_sound(with_model, model_folder),
    faults=(
        _of_model("no tokeniser", "the weights alone", _gone("tokenizer.json"), "tokenizer"),
        _of_model("empty", "the machine died", _write("tokenizer.json", b""), "tokenizer.json"),
        _of_model("cut off", "a download that broke off", _cut("tokenizer.json", 0.7), "tokenizer.json"),
        _of_model("zeros", "the machine died", _write("tokenizer.json", bytes(99)), "tokenizer.json"),
        _of_model("UTF-16", "saved on Windows", _write("tokenizer.json", '{"a": 1}'.encode("utf-16")),
                  "tokenizer.json"),
        _of_model("list", "a vocabulary alone", _write("tokenizer.json", '["a", "b"]'), "tokenizer.json"),
        _of_model("nested too deep", "made to exhaust the stack", _write("tokenizer.json", DEEP), "tokenizer.json"),
        _of_model("pipe", "reading it waits for ever", _pipe("tokenizer.json"), "tokenizer"),
        _of_model("device without end", "a link to /dev/zero", _endless("tokenizer.json"), "tokenizer"),
        _of_model("unknown kind", "a later library's", _edited(lambda v: v["model"].__setitem__("type", "Zorp")),
                  "tokenizer.json"),
        _of_model("merge of words that are not there", "a vocabulary edited by hand",
                  _edited(lambda v: v["model"]["merges"].append(["zorpzorp", "x"])), "tokenizer.json"),
        _of_model("ids of words", "a vocabulary written by hand",
                  _edited(lambda v: v["model"]["vocab"].__setitem__("a", "one")), "tokenizer.json"),
        _of_model("negative ids", "a vocabulary written by hand",
                  _edited(lambda v: v["model"]["vocab"].__setitem__("a", -1)), "tokenizer.json"),
        _of_model("no words", "a tokeniser that was never taught", _tokenizer(Tokenizer(models.BPE())), "tokenizer"),
        _of_model("more tokens than the model has", "another model's tokeniser",
                  _edited(lambda v: v["model"]["vocab"].update({f"zorp{n}": TEXT + n for n in range(40)})),
                  str(TEXT), str(TEXT + 40)),
        _of_model("id of 2³¹", "a vocabulary with a hole",
                  _edited(lambda v: v["model"]["vocab"].__setitem__("zorp", 2**31)), "token"),
        _of_model("words without letters", "a vocabulary of another language", _tokenizer(_words("ж", "ш")),
                  "tokenizer"),
        _of_model("everything normalised away", "a pattern too wide",
                  _tokenizer(_of_nothing()), "tokenizer"),
        _of_model("kept ids that are words", "a cut vocabulary edited by hand", _write("kept_tokens.json", '["a"]'),
                  "kept"),
        _of_model("kept ids that are a number", "a cut vocabulary edited by hand", _write("kept_tokens.json", "7"),
                  "kept"),
        _of_model("kept ids beyond the vocabulary", "another model's", _write("kept_tokens.json", "[0, 99999]"),
                  "kept"),
        _of_model("kept ids cut off", "the machine died", _write("kept_tokens.json", "[0, 1, "), "kept"),
        _of_model("kept ids nested too deep", "made to exhaust the stack", _write("kept_tokens.json", DEEP), "kept"),
    ),
)  # fmt: skip


CLASSIFIERS = Reader(
    "classifier folders",
    sound=_sound(with_classifier, _classifier),
    faults=(
        Fault("no folder", "a misspelt path", lambda at: with_classifier(str(at.folder / "n")), ("input/n",)),
        Fault("file for a folder", "the weights were named", lambda at: with_classifier(at.write("w", "x")),
              ("input/w",)),
        _of_classifier("no config.json", "the weights alone", _gone("config.json"), "config.json"),
        _of_classifier("config.json cut off", "a download that broke off", _cut("config.json", 0.5)),
        _of_classifier("config.json that is a list", "another program's", _write("config.json", "[1]")),
        _of_classifier("config.json nested too deep", "made to exhaust the stack", _write("config.json", DEEP)),
        _of_classifier("config.json that is a pipe", "reading it waits for ever", _pipe("config.json")),
        _of_classifier("unknown model type", "a later library's", _config(model_type="bret"), "bret"),
        _of_classifier("code of its own", "a model that is no part of the library", _code, "code"),
        _of_classifier("labels that are words", "written by hand", _config(id2label={"a": "fine", "b": "toxic"})),
        _of_classifier("labels that say nothing", "never named", _config(id2label={"0": "L0", "1": "L1"}), "L0, L1",
                       in_folder=False),
        _of_classifier("labels of another number", "edited by hand",
                       _config(id2label={str(n): f"toxic{n}" for n in range(5)})),
        _of_classifier("no heads", "a zero", _config(num_attention_heads=0)),
        _of_classifier("layers without end", "a slip of the finger", _config(num_hidden_layers=10**12), "layers"),
        _of_classifier("inner width without end", "the same", _config(intermediate_size=10**12), "intermediate"),
        _of_classifier("padding beyond all ids", "the same", _config(pad_token_id=10**40), "pad_token_id"),
        _of_classifier("width of another model", "two downloads in one folder", _config(hidden_size=32)),
        _of_classifier("no weights", "the configuration alone", _gone("model.safetensors")),
        _of_classifier("weights cut off", "a download that broke off", _cut("model.safetensors", 0.5)),
        _of_classifier("weights that are a pipe", "reading them waits for ever", _pipe("model.safetensors")),
        _of_classifier("weights as a pickle", "an older format, which is code", _pickled, "safetensors"),
        _of_classifier("no trained head", "an encoder alone",
                       _weights(lambda t: [t.pop(n) for n in list(t) if n.startswith("classifier")]), "classifier"),
        _of_classifier("weights of NaN", "a training that ran away",
                       _weights(lambda t: t.update({n: v * float("nan") for n, v in t.items()})), "finite"),
        _of_classifier("no tokeniser", "the weights alone",
                       lambda folder: [_gone(n)(folder) for n in ("tokenizer.json", "tokenizer_config.json")]),
        _of_classifier("tokeniser cut off", "a download that broke off", _cut("tokenizer.json", 0.7)),
        _of_classifier("tokeniser nested too deep", "made to exhaust the stack", _write("tokenizer.json", DEEP)),
        _of_classifier("tokeniser that is a pipe", "reading it waits for ever", _pipe("tokenizer.json")),
        _of_classifier("more tokens than the model has", "another model's tokeniser",
                       _edited(lambda v: v["model"]["vocab"].update({f"zorp{n}": 4 + n for n in range(9)})), "13"),
    ),
)  # fmt: skip

READERS = (MODELS, TOKENIZERS, CLASSIFIERS)
