"""Texts drawn from a pretrained model: as its probabilities have them, the same again, up to their last line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from line_models import BEGIN, REPAIRS, save_line_model

from ilql.sample import PretrainedWriter
from ilql.sampling import Sampling
from ilql.tokens import Tokenizer

if TYPE_CHECKING:
    from conftest import LanguageModels

SAMPLING = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_line_model(tmp_path_factory.mktemp("line") / "model", REPAIRS)


@pytest.fixture(scope="module")
def writer(folder: Path) -> PretrainedWriter:
    return PretrainedWriter(folder, chat=False)


def test_texts_are_drawn_as_often_as_they_are_likely(writer: PretrainedWriter) -> None:
    texts = [
        text
        for seed in range(50)
        for text in writer.write([""] * 8, SAMPLING, seed=seed, last_line="END", opening=BEGIN)
    ]
    first = Counter(text.split("\n")[0] for text in texts)
    # 400 draws with probability a half: a standard deviation is ten.
    assert first["user: my lamp flickers"] == pytest.approx(200, abs=40)
    asked = Counter(text.split("\n")[1] for text in texts)
    assert asked["agent: how old is it ?"] == pytest.approx(200, abs=40)
    assert {f"{BEGIN}{rest}" for rest in REPAIRS[BEGIN]} == set(first)


def test_equal_seeds_give_equal_texts_and_others_others(writer: PretrainedWriter) -> None:
    one, again, other = (
        writer.write([""] * 8, SAMPLING, seed=seed, last_line="END", opening=BEGIN) for seed in (1, 1, 2)
    )
    assert one == again != other
    assert len(set(one)) > 1


def test_a_colder_model_says_the_likeliest(tmp_path: Path) -> None:
    chain = {BEGIN: {" a": 0.6, " b": 0.4}, " a": {"END": 1.0}, " b": {"END": 1.0}}
    writer = PretrainedWriter(save_line_model(tmp_path / "m", chain), chat=False)
    for sampling in (Sampling(temperature=0.01, max_tokens=4), Sampling(top_p=0.5, max_tokens=4)):
        # Left to its probabilities it would say nothing else in 40 draws once in a thousand million times.
        texts = [
            text
            for seed in range(5)
            for text in writer.write(["\n"] * 8, sampling, seed=seed, last_line="END", opening=BEGIN)
        ]
        assert set(texts) == {"user: a\nEND"}


def test_a_text_ends_with_its_last_line_or_at_the_limit(writer: PretrainedWriter) -> None:
    texts = writer.write(["\n"] * 8, SAMPLING, seed=0, last_line="END", opening=BEGIN)
    assert {text.split("\n")[-1] for text in texts} == {"END"}
    # The limit is on what is written: the rest of the first line, and one more.
    texts = writer.write(["\n"] * 8, Sampling(max_tokens=2), seed=0, last_line="END", opening=BEGIN)
    assert {len(text.split("\n")) for text in texts} == {2}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_stands_in_front_of_a_shorter_prompt_is_not_read(
    family: str, language_model: LanguageModels, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    language_model(family, spread=20.0).save_pretrained(tmp_path)  # type: ignore[operator]
    writer, coldest = PretrainedWriter(tmp_path, chat=False), Sampling(temperature=1e-3, max_tokens=12)
    short, long = "is it red ?", "how many are there ? two cats in the snow"
    (alone,) = writer.write([short], coldest, seed=0, last_line="END")
    assert len(alone) > 5
    assert writer.write([short, long], coldest, seed=0, last_line="END")[0] == alone


def test_what_the_folder_says_of_drawing_plays_no_part(folder: Path, writer: PretrainedWriter, tmp_path: Path) -> None:
    other = save_line_model(tmp_path / "m", REPAIRS)
    said = {"do_sample": False, "num_beams": 3, "repetition_penalty": 9.0, "top_k": 1, "min_new_tokens": 9}
    (other / "generation_config.json").write_text(json.dumps(said))
    theirs = PretrainedWriter(other, chat=False).write(["\n"] * 8, SAMPLING, seed=0, last_line="END", opening=BEGIN)
    assert theirs == writer.write(["\n"] * 8, SAMPLING, seed=0, last_line="END", opening=BEGIN)


def test_what_is_too_long_for_the_model_does_not_fit(tmp_path: Path) -> None:
    writer = PretrainedWriter(save_line_model(tmp_path / "m", REPAIRS, context=10), chat=False)
    assert writer.fits("a\n" * 7, "b", Sampling(max_tokens=2))
    assert not writer.fits("a\n" * 8, "b", Sampling(max_tokens=2))
    assert not writer.fits("a\n" * 9, "", Sampling(max_tokens=2))


def test_a_pretrained_model_writes_text(stories: Path) -> None:
    writer = PretrainedWriter(stories, chat=False)
    (text,) = writer.write(["Once upon a time"], Sampling(temperature=0.1, max_tokens=20), seed=0, last_line="END")
    assert text.startswith(", there was a")


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 0.0), ("temperature", float("nan")), ("top_p", 1.5), ("max_tokens", 0)]
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be"):
        Sampling(**{field: value})  # type: ignore[arg-type]
