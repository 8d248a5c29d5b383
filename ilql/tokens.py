"""Text to token ids and back, with structural tokens that no text can forge.

The structural tokens stand behind the text vocabulary: their ids are `len(text vocabulary)` and up, and the text
tokeniser has never heard of them. So whatever a user, a data set or a policy writes, even the literal string `<bos>`,
is encoded as ordinary text. The other way round a policy may choose only the tokens of `writable`: text, and the end of
its utterance.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as TextTokenizer

from ilql.chat import AGENT, NOBODY, WORLD, ChatForm, Render, chat_form
from ilql.files import FILE, NOTHING, first_line, kind_of, parse_json
from ilql.vocabulary import kept_tokens, token_pieces

VERSION = 1
"""Raised when the same texts would give another tokeniser; part of its key and of all that depends on it."""

STRUCTURE = ("bos", "boa", "eos", "eoa", "eod", "pad")
"""Beginning where the world opens, beginning where the agent opens, end of a world's turn (state), end of an agent's
turn
(action), end of a dialogue, padding."""

UNKNOWN = "<unknown>"

GGUF = ".gguf"
"""Ends the name of a file that holds a whole model, its weights perhaps quantised, and its tokeniser."""

KEPT_FILE = "kept_tokens.json"
"""Beside `tokenizer.json` where the vocabulary is cut: the ids that are kept."""

CHAT_FILE = "chat_form.json"
"""Beside `tokenizer.json` where dialogues are written as a chat template has them: what stands around their turns."""


@dataclass(frozen=True)
class Tokenizer:
    """A text tokeniser with six structural ids behind its vocabulary.

    Attributes:
        text: Any tokeniser of the `tokenizers` library, which is what every fast Hugging Face tokeniser has inside.
        kept: Where the vocabulary is cut: the text's ids that are kept, increasing; the place of each is its new id.
            Text is read as ever, and what is not kept is then written in smaller tokens. None keeps all.
        chat: What stands around the turns of a dialogue, in ids of the whole vocabulary, where that is as a chat
            template has it; None where it is structural tokens.

    Raises:
        ValueError: `kept` is empty, not increasing, or holds an id that the text tokeniser has not; `chat` holds such
            an id.
    """

    text: TextTokenizer
    kept: tuple[int, ...] | None = None
    chat: ChatForm | None = None

    def __post_init__(self) -> None:
        # Special tokens of the text tokeniser itself (`</s>`, `<|endoftext|>`) are plain text to us when read.
        self.text.encode_special_tokens = True
        if self.kept is not None:
            known = range(self.whole.text_size)
            if not self.kept or list(self.kept) != sorted(set(self.kept) & set(known)):
                raise ValueError(f"kept must be increasing ids below {len(known)}, got {list(self.kept)[:8]}")
        for token in {token for seam in self.chat.seams.values() for token in seam} if self.chat is not None else ():
            if token not in range(self.whole.text_size):
                raise ValueError(f"chat must be ids below {self.whole.text_size}, got {token}")

    @cached_property
    def whole(self) -> Tokenizer:
        """The same tokeniser with the whole vocabulary."""
        return self if self.kept is None else Tokenizer(self.text, chat=self.chat)

    @cached_property
    def text_size(self) -> int:
        """Number of text ids; the structural ids follow."""
        return len(self.kept) if self.kept is not None else max(self._vocabulary.values()) + 1

    @property
    def size(self) -> int:
        """Number of all ids."""
        return self.text_size + len(STRUCTURE)

    def structural(self, name: str) -> int:
        """The id of one of `STRUCTURE`."""
        return self.text_size + STRUCTURE.index(name)

    @property
    def end(self) -> int:
        """The id by which a policy ends its utterance: `eoa`, or a chat template's own."""
        return self.structural("eoa") if self.chat is None else self._places_of([self.chat.end])[0]

    def before_first(self, *, by_agent: bool) -> list[int]:
        """What a dialogue begins with.

        Args:
            by_agent: Whether the agent opens it.

        Raises:
            ValueError: The chat template has no dialogue that they open.
        """
        if self.chat is None:
            return [self.structural("boa" if by_agent else "bos")]
        return self._places_of(self.chat.seam(NOBODY, AGENT if by_agent else WORLD))

    def behind(self, *, by_agent: bool, then_agent: bool | None) -> list[int]:
        """What stands behind a turn; the first of it behind the agent's is `end`, which the agent chooses itself.

        Args:
            by_agent: Whose turn it is.
            then_agent: Whose turn is next; None where none is.

        Raises:
            ValueError: The chat template refuses that order.
        """
        if self.chat is None:
            return [self.structural("eoa" if by_agent else "eos")]
        following = NOBODY if then_agent is None else AGENT if then_agent else WORLD
        return self._places_of(self.chat.seam(AGENT if by_agent else WORLD, following))

    def heard_first(self, opening: str | None) -> list[int]:
        """What an agent hears before its first utterance: the world's opening, or that it opens the dialogue itself."""
        if opening is None:
            return self.before_first(by_agent=True)
        end = self.behind(by_agent=False, then_agent=True)
        return [*self.before_first(by_agent=False), *self.encode(opening), *end]

    def heard_between(self, reply: str | None) -> list[int]:
        """What an agent hears between the end token of its utterance and its next one: the world's reply, or none."""
        after = self.behind(by_agent=True, then_agent=reply is None)[1:]
        if reply is None:
            return after
        return [*after, *self.encode(reply), *self.behind(by_agent=False, then_agent=True)]

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Shape (V,): the id in the whole vocabulary that each id stands for, increasing."""
        whole = self.whole
        text = range(self.text_size) if self.kept is None else self.kept
        return np.asarray([*text, *range(whole.text_size, whole.size)], dtype=np.int64)

    def encode(self, text: str) -> list[int]:
        """Text ids only; never a structural id, whatever the text is.

        Raises:
            ValueError: It holds half of a surrogate pair, which no encoding can, or the tokeniser has no token for a
                part of it.
        """
        try:
            ids = list(self.text.encode(text, add_special_tokens=False).ids)
        except TypeError:  # what Rust calls no text
            raise ValueError(f"a text must be whole, got half of a surrogate pair in {text[:60]!a}") from None
        except Exception as error:  # a plain one is the library's own; there is no narrower name
            if type(error) is not Exception:
                raise
            raise ValueError(f"a tokenizer must read any text, got {text[:60]!a}: {error}") from None
        return self._places_of(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the text ids among `ids`, stripped of white space at both ends."""
        size, kept = self.text_size, self.kept
        return self._read([i if kept is None else kept[i] for i in ids if i < size]).strip()

    def piece(self, token: int) -> str:
        """One id for a reader: its text, or the name of a structural one in angle brackets."""
        if token >= self.text_size:
            return f"<{STRUCTURE[token - self.text_size]}>"
        return str(self.text.decode([token if self.kept is None else self.kept[token]], skip_special_tokens=False))

    def writable(self) -> npt.NDArray[np.bool_]:
        """Shape (V,): true for the ids a policy may choose: ordinary text, and `end` to end its utterance."""
        if self.kept is not None:
            return self.whole.writable()[self.rows]
        mask = np.zeros(self.size, dtype=np.bool_)
        mask[list(self._vocabulary.values())] = True
        special = [i for i, token in self.text.get_added_tokens_decoder().items() if token.special]
        mask[special] = False
        mask[self.end] = True
        return mask

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, `kept_tokens.json` if the vocabulary is cut, `chat_form.json` if there is one."""
        (folder / "tokenizer.json").write_text(self.text.to_str(), encoding="utf-8")
        if self.kept is not None:
            (folder / KEPT_FILE).write_text(json.dumps(self.kept), encoding="utf-8")
        if self.chat is not None:
            (folder / CHAT_FILE).write_text(json.dumps(self.chat.to_record()), encoding="utf-8")

    def _places_of(self, ids: Sequence[int]) -> list[int]:
        """Ids of the whole vocabulary as kept ones."""
        return list(ids) if self.kept is None else [new for old in ids for new in self._spelt(old)]

    def _read(self, ids: Sequence[int]) -> str:
        """The text of ids of the whole vocabulary, with the white space around it."""
        return str(self.text.decode(list(ids), skip_special_tokens=True))

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return dict(self.text.get_vocab(with_added_tokens=True))

    @cached_property
    def _merges(self) -> list[list[str]]:
        """Pairs that are joined, the earliest first; none where tokens are found otherwise."""
        merges: list[list[str]] = json.loads(self.text.to_str())["model"].get("merges", [])
        return merges

    @cached_property
    def _places(self) -> dict[int, int]:
        return {old: new for new, old in enumerate(self.kept or ())}

    @cached_property
    def _pieces(self) -> dict[int, tuple[int, ...]]:
        return token_pieces(self._vocabulary, self._merges)

    def _spelt(self, old: int) -> list[int]:
        """A token of the whole vocabulary in kept ones: itself, or its pieces down to what is kept."""
        if (place := self._places.get(old)) is not None:
            return [place]
        return [new for piece in self._pieces[old] for new in self._spelt(piece)]


def cut_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
    """The tokeniser cut to the tokens that occur in `texts`, and to those that any other text needs.

    Each of `texts` has as many tokens as before, and the same; any other has the same text, in more tokens perhaps.
    A tokeniser that can spell no token in smaller ones keeps its whole vocabulary.
    """
    whole = tokenizer.whole
    occurring = {token for text in set(texts) for token in whole.encode(text)}
    if whole.chat is not None:
        occurring |= {token for seam in whole.chat.seams.values() for token in seam}
    kept = kept_tokens(occurring, whole._vocabulary, whole._merges, whole._read)
    return Tokenizer(whole.text, kept, whole.chat)


def chat_tokenizer(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """The tokeniser of a folder, writing dialogues as the folder's chat template does.

    Raises:
        ValueError: There is no template, or none that gives the same seams whatever was said; see `chat_form`.
    """
    _, render = _template(folder)
    text = TextTokenizer.from_str(tokenizer.text.to_str())
    text.encode_special_tokens = False
    special = {i for i, token in text.get_added_tokens_decoder().items() if token.special}

    def encode(written: str) -> list[int]:
        return list(text.encode(written, add_special_tokens=False).ids)

    return Tokenizer(tokenizer.whole.text, chat=chat_form(render, encode, special.__contains__))


def chat_template_digest(folder: Path) -> str:
    """A digest of the folder's chat template.

    Raises:
        ValueError: There is none.
    """
    return hashlib.sha256(_template(folder)[0].encode()).hexdigest()[:20]


def _template(folder: Path) -> tuple[str, Render]:
    """A folder's chat template, as it is written and as what it renders."""
    try:
        pretrained = pretrained_tokenizer(folder)
        template = pretrained.get_chat_template()
    except ValueError as error:
        raise ValueError(
            f"--chat-template needs a model that has a chat template, got {folder}: {first_line(error)}"
        ) from error

    def render(messages: Sequence[Mapping[str, str]], generation: bool) -> str:
        return str(pretrained.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generation))

    return str(template), render


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokeniser of a folder: its `tokenizer.json`, or whatever fast tokeniser Transformers finds there.

    Args:
        folder: A folder, or a GGUF file.

    Raises:
        ValueError: The folder holds no fast tokeniser.
    """
    file = folder / "tokenizer.json"
    if (kind := kind_of(file)) not in (FILE, NOTHING):
        raise ValueError(f"tokenizer.json must be a file, got {kind}: {file}")
    if kind == FILE:
        try:
            text = TextTokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:
            raise ValueError(f"tokenizer.json must be a file of the tokenizers library, got {file}: {error}") from error
        if not text.get_vocab_size():
            raise ValueError(f"a tokenizer must know a token, got none in {file}")
        return _kept(text, folder / KEPT_FILE, _chat(text, folder / CHAT_FILE))
    names = ("vocab.json", "tokenizer.model", "spiece.model")
    if not is_gguf(folder) and not any((folder / name).is_file() for name in names):
        raise ValueError(f"a model folder must hold a tokenizer.json, got {folder} with {_names(folder)}")
    return Tokenizer(pretrained_tokenizer(folder).backend_tokenizer)


def pretrained_tokenizer(folder: Path) -> Any:
    """Transformers' fast tokeniser of a folder, or of a GGUF file.

    Raises:
        ValueError: Transformers can make none of it; one line.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415  slow import, needed only for templates and some layouts

    where = from_file(folder) if is_gguf(folder) else {}
    try:
        return AutoTokenizer.from_pretrained(  # nosec B615  a folder, nothing of the hub
            str(folder.parent if where else folder), local_files_only=True, trust_remote_code=False, **where
        )
    except Exception as error:  # of each layout another; there is no narrower name
        raise ValueError(
            f"a model must have a tokenizer that Transformers reads, got {folder}: {first_line(error)}"
        ) from error


def is_gguf(path: Path) -> bool:
    """Whether it is a GGUF file, which holds what a model's folder does."""
    return path.suffix == GGUF and kind_of(path) == FILE


def from_file(file: Path) -> dict[str, str]:
    """What Transformers' `from_pretrained` is told beside the folder of a GGUF file.

    Raises:
        ValueError: A package that reading such files takes is not there.
    """
    if missing := [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"a GGUF file needs the package {missing[0]}, which is not installed, got {file}; the extra gguf has it"
        )
    return {"gguf_file": file.name}


def new_tokenizer(symbols: Sequence[str], texts: Iterable[str], *, vocabulary: int) -> Tokenizer:
    """A tokeniser for a task: of its symbols if it is written in an alphabet of its own, else learnt from its texts."""
    return symbol_tokenizer(symbols) if symbols else train_tokenizer(texts, vocabulary=vocabulary)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokeniser of about `vocabulary` ids, learnt from `texts`; equal texts give an equal tokeniser.

    Only characters that occur in `texts` get ids: a small vocabulary is for words, not for 256 bytes of which most
    never occur. Any other character becomes one unknown id, which no policy may write.

    Raises:
        ValueError: `vocabulary` is below 64, too small for an alphabet.
    """
    if vocabulary < 64:
        raise ValueError(f"vocabulary must be at least 64, got {vocabulary}")
    tokenizer = TextTokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(STRUCTURE), special_tokens=[UNKNOWN], show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return Tokenizer(tokenizer)


def symbol_tokenizer(symbols: Sequence[str]) -> Tokenizer:
    """A tokeniser with one id for each of some symbols, such as letters, for a text that is written in nothing else.

    Where two symbols begin alike the longer is read. Whatever is no symbol becomes one unknown id a character, which no
    policy may write.

    Raises:
        ValueError: A symbol is empty or stands twice.
    """
    if not all(symbols) or len(set(symbols)) != len(symbols):
        raise ValueError(f"symbols must be different and not empty, got {list(symbols)}")
    numbers = {symbol: number for number, symbol in enumerate([UNKNOWN, *symbols])}
    tokenizer = TextTokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([UNKNOWN])
    longest_first = sorted(symbols, key=lambda symbol: (-len(symbol), symbol))
    pattern = "|".join([*(re.escape(symbol) for symbol in longest_first), r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return Tokenizer(tokenizer)


def _chat(text: TextTokenizer, file: Path) -> ChatForm | None:
    """What a file says stands around turns, or None where there is no such file.

    Raises:
        ValueError: The file is no such table of the tokeniser's ids.
    """
    if kind_of(file) == NOTHING:
        return None
    try:
        return Tokenizer(text, chat=ChatForm.from_record(parse_json(file.read_text(encoding="utf-8")))).chat
    except (OSError, ValueError) as error:
        raise ValueError(f"{CHAT_FILE} must hold what stands around turns, got {file}: {error}") from None


def _kept(text: TextTokenizer, file: Path, chat: ChatForm | None) -> Tokenizer:
    """The tokeniser cut to the ids of a file, or the whole one where there is no such file.

    Raises:
        ValueError: The file is no list of ids that are kept.
    """
    if kind_of(file) == NOTHING:
        return Tokenizer(text, chat=chat)
    try:
        ids = parse_json(file.read_text(encoding="utf-8"))
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise ValueError("it must be a list of whole numbers")
        return Tokenizer(text, tuple(ids), chat)
    except (OSError, ValueError) as error:
        raise ValueError(f"{KEPT_FILE} must hold the ids that are kept, got {file}: {error}") from None


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return json.dumps(names[:8]) if names else "nothing in it"
