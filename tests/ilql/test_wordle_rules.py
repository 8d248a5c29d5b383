"""The rules of Wordle: colours worked by hand, and the engine against a plain reading of them, letter by letter."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from ilql.tasks.wordle import game as engine
from ilql.tasks.wordle.game import INVALID, NO_CODE, OFF_LIST, TRIES, Game, Games, make_game
from ilql.tasks.wordle.patterns import ALPHABET, COLOUR_TEXTS, letters_of, pattern_table
from ilql.tasks.wordle.policies import deal, play, random_mixture

# Few letters, so that repeated ones and near misses are common.
DICE = np.random.default_rng(7)
WORDS = tuple(sorted({"".join(DICE.choice(list("abcde"), size=5)) for _ in range(120)}))


def short(text: str) -> str:
    return text.replace("<", "").replace(">", "")


def colours(game: Game, guess: str, target: str) -> str:
    """Give the colours of one guess, by letters: it need not be on the list."""
    hidden = dataclasses.replace(game.fresh(np.zeros(1)), targets=np.array([game.number[target]]))
    after = game.step(hidden, np.array([OFF_LIST]), np.zeros(1), letters_of([guess]))
    return short(COLOUR_TEXTS[after.codes[0, 0]])


def one_guess(game: Game, guess: str, draw: float = 0.0) -> Games:
    return game.step(game.fresh(np.zeros(1)), np.array([game.number[guess]]), np.array([draw]))


class Letters:
    """What is known of 26 letters at five places, as the paper's code keeps it: possible, here or not here."""

    def __init__(self) -> None:
        self.marks = {letter: ["possible"] * 5 for letter in ALPHABET}

    def learn(self, guess: str, target: str) -> None:
        for place, letter in enumerate(guess):
            if target[place] == letter:
                self.marks[letter][place] = "here"
            elif letter in target:
                self.marks[letter][place] = "not here"
            else:
                self.marks[letter] = ["not here"] * 5

    def allows(self, word: str) -> bool:
        for letter, marks in self.marks.items():
            absent = marks == ["not here"] * 5
            if absent and letter in word:
                return False
            if not absent and marks != ["possible"] * 5 and letter not in word:
                return False
            for place, mark in enumerate(marks):
                if (mark == "here" and word[place] != letter) or (mark == "not here" and word[place] == letter):
                    return False
        return True

    def colours(self, guess: str) -> str:
        said = ""
        for place, letter in enumerate(guess):
            marks = self.marks[letter]
            said += "g" if marks[place] == "here" else "b" if marks == ["not here"] * 5 else "y"
        return said


def newspaper(guess: str, target: str) -> str:
    """Give the newspaper's colours: greens first, then from the left a yellow for each copy that is left."""
    left = Counter(has for said, has in zip(guess, target, strict=True) if said != has)
    colour = ""
    for said, has in zip(guess, target, strict=True):
        if said == has:
            colour += "g"
        elif left[said]:
            left[said] -= 1
            colour += "y"
        else:
            colour += "b"
    return colour


class TestByHand:
    @pytest.mark.parametrize(("guess", "said"), [("ooooo", "ygygy"), ("floor", "bbygy"), ("robot", "ggggg")])
    def test_the_paper_s_rules_colour_a_repeated_letter_however_often_it_is_said(self, guess: str, said: str) -> None:
        assert colours(make_game(["robot"], "consistent"), guess, "robot") == said

    def test_the_target_itself_wins_and_costs_nothing(self) -> None:
        after = one_guess(make_game(["robot"], "consistent"), "robot")
        assert (after.won[0], after.over[0], after.returns[0]) == (True, True, 0)

    @pytest.mark.parametrize(
        ("guess", "target", "real", "paper"),
        [
            ("speed", "abide", "bbyby", "bbyyy"),  # abide has one e: the second e said is black
            ("geese", "elude", "bybbg", "byybg"),  # of two e one is green, so of the other two said only the first is y
            ("elude", "geese", "ybbbg", "ybbbg"),  # geese has e left over after the green one
            (
                "allay",
                "llama",
                "ygyyb",
                "ygyyb",
            ),  # l green at 2, l yellow at 3 for the l at 1; both a of llama are said
            ("aabaa", "cacac", "bgbgb", "ygbgy"),  # both a of cacac are green: the others are black
        ],
    )
    def test_the_newspaper_s_rules_say_as_many_as_there_are(
        self, guess: str, target: str, real: str, paper: str
    ) -> None:
        assert colours(make_game([target], "real"), guess, target) == real
        assert colours(make_game([target], "consistent"), guess, target) == paper

    def test_nothing_is_hidden_by_the_paper_s_rules_each_try_draws(self) -> None:
        game = make_game(["aaaaa", "bbbbb"], "consistent")
        assert one_guess(game, "aaaaa", draw=0.49).won[0]
        assert not one_guess(game, "aaaaa", draw=0.5).won[0]

    def test_the_newspaper_s_word_is_drawn_once(self) -> None:
        game = make_game(["aaaaa", "bbbbb"], "real")
        games = game.fresh(np.array([0.0, 0.9]))
        assert games.targets.tolist() == [0, 1]
        after = game.step(games, np.array([0, 0]), np.array([0.9, 0.0]))
        assert after.won.tolist() == [True, False]

    def test_six_guesses_in_vain_lose_six(self) -> None:
        game = make_game(["aaaaa", "bbbbb"], "real")
        games = game.fresh(np.array([0.9]))
        for made in range(TRIES):
            assert not games.over[0]
            assert games.returns[0] == -made
            games = game.step(games, np.array([0]), np.zeros(1))
        assert (games.over[0], games.won[0], games.returns[0]) == (True, False, -6)

    def test_a_win_at_the_third_guess_costs_two(self) -> None:
        game = make_game(["aaaaa", "bbbbb"], "real")
        games = game.fresh(np.array([0.9]))
        for guess in (0, 0, 1):
            games = game.step(games, np.array([guess]), np.zeros(1))
        assert games.returns[0] == -2

    def test_an_invalid_guess_costs_a_try_and_leaves_the_rest(self) -> None:
        game = make_game(WORDS, "consistent")
        games = one_guess(game, WORDS[5], draw=0.3)
        after = game.step(games, np.array([INVALID]), np.zeros(1))
        assert (after.tries[0], after.returns[0], after.codes[0, 1]) == (2, -2, NO_CODE)
        assert game.members(after).tolist() == game.members(games).tolist()
        again = game.step(after, np.array([INVALID]), np.zeros(1))
        assert game.members(again).tolist() == game.members(games).tolist()

    def test_a_game_that_is_over_takes_no_guess(self) -> None:
        game = make_game(["aaaaa", "bbbbb"], "consistent")
        with pytest.raises(ValueError, match="got 1 that are over"):
            game.step(one_guess(game, "aaaaa"), np.array([0]), np.zeros(1))


class TestAgainstAPlainReading:
    @pytest.mark.parametrize("rules", ["consistent", "real"])
    def test_colours_sets_and_rewards_are_those_of_letters(self, rules: str) -> None:
        game = make_game(WORDS, rules)
        dice = np.random.default_rng(1)
        games, steps, off, repeated = 700, 0, 0, 0
        hidden = dice.random(games)
        state = game.fresh(hidden)
        targets = [WORDS[int(u * len(WORDS))] for u in hidden]
        known = [Letters() for _ in range(games)]
        said: list[list[tuple[str, str]]] = [[] for _ in range(games)]
        left = [list(WORDS) for _ in range(games)]
        while len(state):
            size = len(state)
            anything = ["".join(dice.choice(list("abcdef"), size=5)) for _ in range(size)]
            guesses = [WORDS[int(dice.integers(len(WORDS)))] if dice.random() < 0.5 else text for text in anything]
            draws = dice.random(size)
            numbers = np.array([game.number.get(guess, OFF_LIST) for guess in guesses])
            state = game.step(state, numbers, draws, letters_of(guesses))
            for row, (guess, draw) in enumerate(zip(guesses, draws, strict=True)):
                target = targets[row] if rules == "real" else left[row][int(draw * len(left[row]))]
                if rules == "real":
                    answer = newspaper(guess, target)
                    said[row].append((guess, answer))
                    left[row] = [w for w in WORDS if all(newspaper(g, w) == code for g, code in said[row])]
                else:
                    known[row].learn(guess, target)
                    answer = known[row].colours(guess)
                    left[row] = [word for word in WORDS if known[row].allows(word)]
                tries = int(state.tries[row])
                assert short(COLOUR_TEXTS[state.codes[row, tries - 1]]) == answer
                assert state.won[row] == (guess == target)
                assert state.over[row] == (guess == target or tries == TRIES)
                if not state.over[row]:
                    start, count = int(state.starts[row]), int(state.counts[row])
                    words = game.at(state, np.arange(start, start + count))
                    assert [WORDS[word] for word in words] == left[row]
                steps += 1
                off += guess not in game.number
                repeated += len(set(guess)) < 5
            rows = np.flatnonzero(~state.over)
            state = state.take(rows)
            targets, known, said, left = ([each[row] for row in rows] for each in (targets, known, said, left))  # type: ignore[assignment]
        assert min(steps, off, repeated) > 1000

    def test_the_table_by_real_rules_is_the_newspaper_s(self) -> None:
        table = pattern_table(letters_of(WORDS), rules="real")
        said = [[short(COLOUR_TEXTS[code]) for code in row] for row in table]
        assert said == [[newspaper(guess, target) for target in WORDS] for guess in WORDS]


class TestBatches:
    @pytest.mark.parametrize("rules", ["consistent", "real"])
    def test_a_batch_is_its_games_alone_bit_for_bit(self, rules: str) -> None:
        game, policy = make_game(WORDS, rules), random_mixture(0.5)
        games, uniforms = deal(game, policy, 60, np.random.default_rng(3))
        together = play(game, policy, games, uniforms)
        for row in range(60):
            alone = play(game, policy, games.take(np.array([row])), uniforms[row : row + 1])
            assert alone.guesses.tolist() == together.guesses[[row]].tolist()
            assert alone.codes.tolist() == together.codes[[row]].tolist()

    def test_the_first_of_many_games_are_the_same_as_few(self) -> None:
        game, policy = make_game(WORDS, "consistent"), random_mixture(0.5)
        few, many = (play(game, policy, *deal(game, policy, n, np.random.default_rng(3))) for n in (20, 50))
        assert many.codes[:20].tolist() == few.codes.tolist()

    @pytest.mark.parametrize("rules", ["consistent", "real"])
    def test_a_list_too_long_for_ordered_first_guesses_gives_the_same_games(
        self, rules: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        policy, ordered = random_mixture(0.5), make_game(WORDS, rules)
        monkeypatch.setattr(engine, "SHARED_BYTES", 0)
        scanned = make_game(WORDS, rules)
        assert len(scanned.shared) == len(WORDS) < len(ordered.shared)
        one, other = (play(g, policy, *deal(g, policy, 300, np.random.default_rng(4))) for g in (ordered, scanned))
        assert one.guesses.tolist() == other.guesses.tolist()
        assert one.codes.tolist() == other.codes.tolist()

    def test_how_many_words_are_compared_at_a_time_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        game, policy = make_game(WORDS, "consistent"), random_mixture(0.5)
        dealt = deal(game, policy, 100, np.random.default_rng(5))
        once = play(game, policy, *dealt)
        monkeypatch.setattr(engine, "FILTERED", 1)
        monkeypatch.setattr("ilql.tasks.wordle.policies.BLOCK", 7 * len(WORDS))
        assert play(game, policy, *dealt).guesses.tolist() == once.guesses.tolist()

    def test_games_apart_and_joined_again_go_on_as_before(self) -> None:
        game, policy = make_game(WORDS, "consistent"), random_mixture(0.5)
        games, uniforms = deal(game, policy, 40, np.random.default_rng(6))
        begun = play(game, policy, games, uniforms, tries=2)
        parts = [game.alone(begun, row) for row in range(40)]
        assert all(len(part.pool) <= part.counts[0] for part in parts)
        again = game.join([game.fresh(np.zeros(1)), *parts]).take(np.arange(1, 41))
        assert play(game, policy, again, uniforms).codes.tolist() == play(game, policy, begun, uniforms).codes.tolist()
