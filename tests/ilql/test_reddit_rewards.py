"""What a comment earns, by hand: thresholds, coins, votes, patterns and functions of the user's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ilql.task import TaskFault
from ilql.tasks.reddit.rewards import (
    NAMES,
    Called,
    Matching,
    ModelledVotes,
    NoisedToxicity,
    Reward,
    Toxicity,
    noised,
)
from ilql.tasks.reddit.settings import Settings

MODULE = "reddit_rewards_of_a_user"
CODE = """
calls = []

def length(texts):
    calls.append(list(texts))
    return [len(text) / 10 for text in texts]

def raises(texts):
    raise RuntimeError("no\\nservice")

def nan(texts):
    return [float("nan")] * len(texts)

def short(texts):
    return [0.0] * (len(texts) - 1)

def words(texts):
    return ["good"] * len(texts)

def nothing(texts):
    return None

def huge(texts):
    return [99.0] * len(texts)

constant = 3
"""


class Fixed:
    """A judge whose verdicts are written down."""

    def __init__(self, **verdicts: float) -> None:
        self._verdicts = verdicts

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        return [self._verdicts[text] for text in texts]


class Constant:
    def __init__(self, value: float) -> None:
        self._value = value

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        return [self._value] * len(texts)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import sys

    (tmp_path / f"{MODULE}.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield MODULE
    sys.modules.pop(MODULE, None)


def score(reward: Reward, texts: Sequence[str]) -> list[float]:
    return reward.score(texts, [None] * len(texts))


class TestToxicity:
    JUDGE = Fixed(a=0.0, b=0.49, c=0.5, d=0.79, e=0.8, f=1.0)

    def test_it_pays_by_two_thresholds_which_count_as_passed(self) -> None:
        assert score(Toxicity(self.JUDGE, 0.5, 0.8), "abcdef") == [0.0, 0.0, -5.0, -5.0, -10.0, -10.0]

    def test_equal_thresholds_leave_no_middle(self) -> None:
        assert score(Toxicity(self.JUDGE, 0.5, 0.5), "bc") == [0.0, -10.0]

    def test_noised_moves_the_middle_alone(self) -> None:
        clear = Fixed(a=0.1, f=0.9)
        assert score(NoisedToxicity(Toxicity(clear, 0.5, 0.8), seed=0), "af") == [0.0, -10.0]

    def test_noised_throws_a_fair_coin_for_each_text_and_always_the_same(self) -> None:
        doubtful = Toxicity(Constant(0.6), 0.5, 0.8)
        texts = [f"text {number}" for number in range(2000)]
        first = score(NoisedToxicity(doubtful, seed=0), texts)
        assert set(first) == {0.0, -10.0}
        assert first.count(-10.0) / 2000 == pytest.approx(0.5, abs=3 * math.sqrt(0.25 / 2000))
        assert score(NoisedToxicity(doubtful, seed=0), texts[::-1]) == first[::-1]
        assert score(NoisedToxicity(doubtful, seed=1), texts) != first


class TestVotes:
    def test_a_model_votes_up_from_a_half_on(self) -> None:
        assert score(ModelledVotes(Fixed(a=0.49, b=0.5, c=0.9), "upvotes_model"), "abc") == [0.0, 10.0, 10.0]


class TestMatching:
    def test_it_pays_where_the_pattern_is_found(self) -> None:
        reward = Matching(re.compile("th[ae]nks"), 3.0)
        assert score(reward, ["so thanks", "Thanks", "no"]) == [3.0, 0.0, 0.0]
        assert (reward.low, reward.high) == (0.0, 3.0)
        assert (Matching(re.compile("x"), -2.0).low, Matching(re.compile("x"), -2.0).high) == (-2.0, 0.0)


class TestCalled:
    def make(self, module: str, name: str) -> Called:
        return Called(f"{module}:{name}", low=-10.0, high=10.0)

    def test_it_pays_what_the_function_says_and_asks_once(self, module: str) -> None:
        reward = self.make(module, "length")
        assert score(reward, ["abc", "a", "abc"]) == [0.3, 0.1, 0.3]
        assert score(reward, ["a", "ab"]) == [0.1, 0.2]
        import importlib

        assert importlib.import_module(module).calls == [["abc", "a"], ["ab"]]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("raises", "raised RuntimeError: no service"),
            ("nan", r"must give finite floats in \[-10, 10\] .*got nan for 'a'"),
            ("huge", r"must give finite floats in \[-10, 10\] .*got 99"),
            ("short", "one float for each text, got 1 for 2"),
            ("words", "raised ValueError: could not convert"),
            ("nothing", "raised TypeError: 'NoneType'"),
            ("constant", "which is a int"),
            ("missing", "that Python can import here"),
        ],
    )
    def test_whatever_goes_wrong_is_the_worlds_fault_in_a_line(self, module: str, name: str, message: str) -> None:
        with pytest.raises(TaskFault, match=message) as fault:
            score(self.make(module, name), ["a", "b"])
        assert "\n" not in str(fault.value)

    def test_a_module_that_is_not_there(self) -> None:
        with pytest.raises(TaskFault, match="that Python can import here, got no_such_module:f"):
            score(self.make("no_such_module", "f"), ["a"])


class TestNoise:
    TEXTS = tuple(f"text {number}" for number in range(3000))
    REWARD = Toxicity(Constant(0.0), 0.5, 0.8)  # always 0, of the levels 0, -5 and -10

    def noised(self, noise: float, seed: int = 0, texts: Sequence[str] = TEXTS) -> list[float]:
        return noised(self.REWARD, texts, [0.0] * len(texts), noise=noise, seed=seed)

    def test_its_rate_is_that_of_the_setting_and_the_level_is_uniform(self) -> None:
        # A share .6 is drawn anew, a third of it to either other level: .2 each; three standard errors are .022.
        found = self.noised(0.6)
        assert found.count(-5.0) / 3000 == pytest.approx(0.2, abs=0.022)
        assert found.count(-10.0) / 3000 == pytest.approx(0.2, abs=0.022)

    def test_equal_texts_are_noised_alike(self) -> None:
        assert len(set(self.noised(1.0, texts=["same"] * 50))) == 1
        assert self.noised(0.5) == self.noised(0.5)
        assert self.noised(0.5) != self.noised(0.5, seed=1)

    def test_more_noise_leaves_what_less_noise_changed(self) -> None:
        less, more = self.noised(0.3), self.noised(0.6)
        assert all(b == a for a, b in zip(less, more, strict=True) if a != 0.0)

    def test_none_changes_nothing_and_a_reward_without_levels_has_none(self) -> None:
        assert self.noised(0.0) == [0.0] * 3000
        assert noised(Called("m:f", low=0.0, high=1.0), ["a"], [0.5], noise=1.0, seed=0) == [0.5]


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"regex": "("}, r"regex must be a regular expression, got '\('"),
            ({"regex_reward": 0.0}, "regex_reward must differ from 0"),
            ({"callable": "module.function"}, "callable must be module:function, got 'module.function'"),
            ({"callable_low": 1.0, "callable_high": 1.0}, "callable_low must be below callable_high"),
            ({"doubtful_threshold": 0.9}, "doubtful_threshold must not exceed toxic_threshold"),
            ({"tune_share": 0.5, "report_share": 0.5}, "must leave something to train on"),
            ({"noise": 1.5}, r"noise must be in \[0, 1\], got 1.5"),
            ({"score_kind": "stars"}, "score_kind must be one of auto, votes, percentile, median, got stars"),
            ({"max_rows": 0}, "max_rows must be at least 1, got 0"),
        ],
    )
    def test_a_wrong_one_is_told_in_a_line(self, settings: dict[str, float | str], message: str) -> None:
        with pytest.raises(ValueError, match=message) as error:
            Settings(**settings)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    def test_a_wrong_type_is_told_too(self) -> None:
        with pytest.raises(TypeError, match="comment_column must be str, got 3"):
            Settings(comment_column=3)  # type: ignore[arg-type]

    def test_every_name_of_a_reward_is_one_word(self) -> None:
        assert len(set(NAMES)) == len(NAMES)
        assert all(re.fullmatch("[a-z_]+", name) for name in NAMES)
