"""A language model whose texts are known: a Markov chain over lines, as a GPT-2 in Hugging Face's layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel

BEGIN, BEGIN_AGENT = "user:", "agent:"
"""How a text is begun: the rest of its first line follows."""

IMPOSSIBLE = -60.0

Chain = Mapping[str, Mapping[str, float]]
"""By line, or the begun one, what may follow it, with probabilities."""

REPAIRS: Chain = {
    BEGIN: {" my lamp flickers": 0.5, " the kettle leaks": 0.5},
    " my lamp flickers": {"agent: how old is it ?": 0.5, "agent: we mend it for 20": 0.5},
    " the kettle leaks": {"agent: how old is it ?": 0.5, "agent: we mend it for 90": 0.5},
    "agent: how old is it ?": {"user: two years": 0.5, "user: no idea": 0.5},
    "user: two years": {"agent: we mend it for 20": 1.0},
    "user: no idea": {"agent: we mend it for 90": 1.0},
    "agent: we mend it for 20": {"user: thank you": 1.0},
    "agent: we mend it for 90": {"user: too much for me": 1.0},
    "user: thank you": {"END": 1.0},
    "user: too much for me": {"END": 1.0},
    "END": {"what nobody reads": 1.0},
    "what nobody reads": {"what nobody reads": 1.0},
}
"""Eight dialogues of a repair shop, an eighth or a quarter of the time each; it would go on for ever behind END."""


def save_line_model(folder: Path, chain: Chain, *, context: int = 512) -> Path:
    """Write the model and its tokeniser, which has one token for each line or begun line; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = list(dict.fromkeys([*chain, *(line for after in chain.values() for line in after)]))
    places = {line: place for place, line in enumerate(lines, start=1)}
    size = len(lines) + 1
    vocabulary = {
        "<unknown>": 0,
        **{line if line in (BEGIN, BEGIN_AGENT) else f"{line}\n": place for line, place in places.items()},
    }
    text = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))  # noqa: S106
    text.pre_tokenizer = pre_tokenizers.Split(Regex("[^\n]*\n|[^\n]+"), "isolated")
    text.decoder = decoders.Fuse()
    text.save(str(folder / "tokenizer.json"))
    config = GPT2Config(
        vocab_size=size, n_embd=size, n_layer=1, n_head=1, n_positions=context, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.wte.weight.copy_(torch.eye(size))
        norm = model.transformer.ln_f
        norm.weight.fill_(1.0)
        one = norm(torch.eye(size)[:1])[0]
        norm.bias.fill_(-float(one[1]))  # of a normalised one-hot vector all but one number is then 0
        height = float(one[0] - one[1])
        model.lm_head.weight.fill_(IMPOSSIBLE / height)
        for line, after in chain.items():
            for following, probability in after.items():
                model.lm_head.weight[places[following], places[line]] = math.log(probability) / height
    model.save_pretrained(folder)
    return folder
