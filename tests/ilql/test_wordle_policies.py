"""Scripted players of Wordle: gains, ties and choices worked by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from ilql.tasks.wordle import gain
from ilql.tasks.wordle.gain import best_guesses, information_gain
from ilql.tasks.wordle.game import Game, Games, make_game
from ilql.tasks.wordle.information import SCALE, best_openers, fixed_logs, spreads_of
from ilql.tasks.wordle.policies import (
    EXPERT,
    Anything,
    Consistent,
    Mixture,
    MonteCarlo,
    Optimal,
    Policy,
    Repeat,
    StartWord,
    Then,
    Wrong,
    deal,
    play,
    random_mixture,
)
from ilql.tasks.wordle.scripted import ADVERSARIAL, play_scripted

FIVE = ("aaaaa", "abbbb", "abcde", "acccc", "adddd")
DICE = np.random.default_rng(11)
WORDS = tuple(sorted({"".join(DICE.choice(list("abcdefgh"), size=5)) for _ in range(300)}))


def words_at(game: Game, games: Games, row: int) -> list[int]:
    return [int(word) for word in game.members(games.take(np.array([row])))]


def after(game: Game, guess: str, draw: float) -> Games:
    return game.step(game.fresh(np.zeros(1)), np.array([game.number[guess]]), np.array([draw]))


def said(game: Game, policy: Policy, games: Games, *uniforms: float) -> str:
    return game.words[int(policy.choose(game, games, np.array([uniforms]))[0])]


@pytest.fixture(scope="module")
def game() -> Game:
    return make_game(WORDS, "consistent")


@pytest.fixture(scope="module")
def begun(game: Game) -> Games:
    """Give games after one random guess, the won ones left out."""
    games, uniforms = deal(game, Anything(), 400, np.random.default_rng(0))
    games = play(game, Anything(), games, uniforms, tries=1)
    return games.take(np.flatnonzero(~games.over))


class TestGain:
    def test_it_is_the_logarithm_of_all_less_the_mean_of_what_is_left(self) -> None:
        # abcde tells all five apart: log 5. aaaaa is coloured gyyyy by the four others: log 5 - (1·log 1 + 4·log 4)/5.
        # abbbb: gbbbb for aaaaa, acccc and adddd; ggbbb for abcde: parts 1, 1, 3. So acccc and adddd.
        game = make_game(FIVE, "consistent")
        ends = [math.log(5) - 0.8 * math.log(4), math.log(5) - 0.6 * math.log(3), math.log(5)]
        expected = [ends[0], ends[1], ends[2], ends[1], ends[1]]
        assert information_gain(game, np.arange(5, dtype=np.uint16)) == pytest.approx(expected, abs=1e-10)

    def test_the_optimal_player_takes_the_word_that_tells_most(self) -> None:
        game = make_game(FIVE, "consistent")
        assert {said(game, Optimal(), game.fresh(np.zeros(1)), u) for u in (0.0, 0.5, 0.999)} == {"abcde"}

    def test_equal_gains_tie_exactly_whatever_their_parts(self) -> None:
        # 4·log 4 = 8·log 2 = 4·(2·log 2), and
        # 6·log 6 + 3·(2·log 2) = 6·log 3 + 12·log 2 = 2·(3·log 3) + 4·log 4 + 2·(2·log 2).
        sizes = np.array([[4, 1, 1, 1, 1], [2, 2, 2, 2, 0], [6, 2, 2, 2, 0], [3, 3, 4, 2, 2]])
        one, two, three, four = spreads_of(sizes).tolist()
        assert one == two
        assert three == four
        assert one / SCALE == pytest.approx(8 * math.log(2))

    def test_fixed_point_logarithms_add(self) -> None:
        logs = fixed_logs(16_384)
        assert logs[6 * 35] == logs[6] + logs[35]
        assert logs[1:] / SCALE == pytest.approx(np.log(np.arange(1, 16_385)), abs=1e-11)

    def test_best_guesses_are_those_of_a_plain_search(self, game: Game, begun: Games) -> None:
        best, starts, numbers = best_guesses(game, begun)
        for row in range(0, len(begun), 5):
            members = words_at(game, begun, row)
            left = [
                sum(n * math.log(n) for n in Counter(game.table[guess, members].tolist()).values()) for guess in members
            ]
            expected = [word for word, value in zip(members, left, strict=True) if value < min(left) + 1e-9]
            assert best[starts[row] : starts[row] + numbers[row]].tolist() == expected

    def test_best_guesses_of_the_whole_list_are_those_of_its_set(self, game: Game) -> None:
        best, _, _ = best_guesses(game, game.fresh(np.zeros(1)))
        gains = information_gain(game, np.arange(len(WORDS), dtype=np.uint16))
        assert best.tolist() == np.flatnonzero(gains > gains.max() - 1e-10).tolist()

    def test_ties_are_drawn_alike(self) -> None:
        # Each of these tells itself from the three others, which all look alike: four ties.
        game = make_game(["batch", "hatch", "latch", "patch"], "consistent")
        drawn = [said(game, Optimal(), game.fresh(np.zeros(1)), (k + 0.5) / 4) for k in range(4)]
        assert drawn == list(game.words)

    def test_sets_that_hash_alike_are_still_told_apart(
        self, game: Game, begun: Games, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uniforms = np.random.default_rng(1).random((len(begun), 1))
        honest = Optimal().choose(game, begun, uniforms)
        fresh = make_game(WORDS, "consistent")
        # Every set then hashes to its size.
        monkeypatch.setattr(gain, "_hash_keys", lambda: np.ones(1 << 14, dtype=np.uint64))
        assert Optimal().choose(fresh, begun, uniforms).tolist() == honest.tolist()

    def test_the_memo_changes_nothing_full_empty_or_overflowing(
        self, game: Game, begun: Games, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uniforms = np.random.default_rng(1).random((len(begun), 1))
        filled = [Optimal().choose(game, begun, uniforms).tolist() for _ in range(2)]
        monkeypatch.setattr(gain, "KEPT_SETS", 0)
        monkeypatch.setattr(gain, "PAIRS", 1)
        other = make_game(WORDS, "consistent")
        assert [Optimal().choose(other, begun, uniforms).tolist()] * 2 == filled
        assert len(other.best) > 1
        best_guesses(other, other.fresh(np.zeros(1)))
        assert len(other.best) == 1


class TestPlayers:
    def test_a_start_word_is_one_of_the_28_that_tell_most(self, game: Game) -> None:
        gains = information_gain(game, np.arange(len(WORDS), dtype=np.uint16))
        uniforms = (np.arange(2800)[:, None] + 0.5) / 2800
        drawn = Counter(StartWord().choose(game, game.fresh(np.zeros(2800)), uniforms).tolist())
        assert set(drawn.values()) == {100}
        assert len(drawn) == 28
        worst = min(gains[word] for word in drawn)
        assert all(gains[word] <= worst + 1e-10 for word in range(len(WORDS)) if word not in drawn)

    def test_openers_that_tie_go_by_the_alphabet(self) -> None:
        assert best_openers(np.array([3, 1] + [2] * 40)).tolist() == [1, *range(2, 29)]

    def test_a_start_word_is_consistent_and_any_consistent_word_where_no_opener_is(
        self, game: Game, begun: Games
    ) -> None:
        uniforms = np.random.default_rng(2).random((len(begun), 1))
        openers, seen = set(game.openers.tolist()), set()
        for row, word in enumerate(StartWord().choose(game, begun, uniforms).tolist()):
            members = words_at(game, begun, row)
            good = [member for member in members if member in openers]
            among = good or members
            assert word == among[int(uniforms[row, 0] * len(among))]
            seen.add(bool(good))
        assert seen == {True, False}

    def test_a_wrong_word_is_any_that_is_not_consistent(self, game: Game, begun: Games) -> None:
        uniforms = np.random.default_rng(3).random((len(begun), 1))
        for row, word in enumerate(Wrong().choose(game, begun, uniforms).tolist()):
            members = set(words_at(game, begun, row))
            others = [other for other in range(len(WORDS)) if other not in members]
            assert word == others[int(uniforms[row, 0] * len(others))]

    def test_a_wrong_word_is_any_word_where_all_are_consistent(self, game: Game) -> None:
        uniforms = (np.arange(len(WORDS))[:, None] + 0.5) / len(WORDS)
        drawn = Wrong().choose(game, game.fresh(np.zeros(len(WORDS))), uniforms)
        assert drawn.tolist() == list(range(len(WORDS)))

    def test_the_random_mixture_is_consistent_so_often(self) -> None:
        game = make_game(FIVE, "consistent")
        state = after(game, "aaaaa", 0.99)  # all but aaaaa are left
        assert said(game, random_mixture(0.3), state, 0.29, 0.0) == "abbbb"
        assert said(game, random_mixture(0.3), state, 0.30, 0.0) == "aaaaa"
        assert said(game, random_mixture(0.3), state, 0.29, 0.99) == "adddd"

    def test_a_mixture_gives_each_player_its_own_uniforms_and_its_share(self, game: Game, begun: Games) -> None:
        uniforms = np.random.default_rng(4).random((len(begun), 3))
        both = Mixture(0.4, Wrong(), random_mixture(0.5))
        assert both.draws == 3
        first, second = (policy.choose(game, begun, uniforms[:, 1:]) for policy in (Wrong(), random_mixture(0.5)))
        expected = np.where(uniforms[:, 0] < 0.4, first, second)
        assert both.choose(game, begun, uniforms).tolist() == expected.tolist()

    def test_repeating_says_one_of_the_first_guesses_again(self) -> None:
        game = make_game(FIVE, "real")
        games = game.fresh(np.array([0.99]))
        assert said(game, Repeat(2), games, 0.5) == "abcde"  # nothing was said yet: any word
        for guess in ("aaaaa", "acccc", "abbbb"):
            games = game.step(games, np.array([game.number[guess]]), np.zeros(1))
        assert [said(game, Repeat(2), games, u) for u in (0.0, 0.49, 0.5, 0.99)] == ["aaaaa"] * 2 + ["acccc"] * 2
        assert [said(game, Repeat(), games, u) for u in (0.0, 0.34, 0.99)] == ["aaaaa", "acccc", "abbbb"]

    def test_one_player_then_another(self) -> None:
        game = make_game(FIVE, "real")
        games = game.fresh(np.array([0.99]))
        policy = Then(1, Anything(), Wrong())
        assert said(game, policy, games, 0.99) == "adddd"
        games = game.step(games, np.array([0]), np.zeros(1))
        assert said(game, policy, games, 0.99) == "aaaaa"

    def test_the_adversary_never_wins_after_two_guesses(self, game: Game) -> None:
        games = play(game, ADVERSARIAL, *deal(game, ADVERSARIAL, 500, np.random.default_rng(8)))
        expert = play(game, EXPERT, *deal(game, EXPERT, 500, np.random.default_rng(8)))
        assert set(games.returns.tolist()) <= {0, -1, -6}
        lost = games.returns == -6
        assert lost.sum() > 250
        assert games.guesses[:, :2].tolist() == expert.guesses[:, :2].tolist()
        first, second, *others = games.guesses[lost].T
        assert all(((other == first) | (other == second)).all() for other in others)

    @pytest.mark.parametrize(
        ("make", "wrong"),
        [
            (lambda: Mixture(1.5, Consistent(), Anything()), "share must be in"),
            (lambda: Repeat(0), "first_n must be"),
            (lambda: MonteCarlo(0, Consistent()), "rollouts must be"),
        ],
    )
    def test_senseless_players_are_refused(self, make: type[object], wrong: str) -> None:
        with pytest.raises(ValueError, match=wrong):
            make()


class TestMonteCarlo:
    TWO = ("aaaaa", "bbbbb")

    @staticmethod
    def uniforms(*rollouts: tuple[float, float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Give each rollout a hidden word's draw of 0.5 and, for each of six tries, a target's draw and a guess's."""
        return np.array([[value for target, guess in rollouts for value in (0.5, *(target, guess) * 6)]])

    def test_the_guess_with_the_better_mean_is_taken(self) -> None:
        # aaaaa meets the target bbbbb: -1, then wins. bbbbb meets it: 0.
        game = make_game(self.TWO, "consistent")
        drawn = self.uniforms((0.9, 0.0), (0.9, 0.9), (0.9, 0.0))
        assert MonteCarlo(3, Consistent()).draws == drawn.shape[1]
        assert MonteCarlo(3, Consistent()).choose(game, game.fresh(np.zeros(1)), drawn).tolist() == [1]

    def test_a_mean_counts_not_the_best_game(self) -> None:
        # bbbbb: 0 and -1, mean -1/2. aaaaa: 0.
        game = make_game(self.TWO, "consistent")
        drawn = self.uniforms((0.9, 0.9), (0.0, 0.9), (0.0, 0.0))
        assert MonteCarlo(3, Consistent()).choose(game, game.fresh(np.zeros(1)), drawn).tolist() == [0]

    def test_of_equal_means_the_first_is_taken(self) -> None:
        game = make_game(self.TWO, "consistent")
        drawn = self.uniforms((0.9, 0.9), (0.0, 0.0))
        assert MonteCarlo(2, Consistent()).choose(game, game.fresh(np.zeros(1)), drawn).tolist() == [1]
        drawn = self.uniforms((0.0, 0.0), (0.9, 0.9))
        assert MonteCarlo(2, Consistent()).choose(game, game.fresh(np.zeros(1)), drawn).tolist() == [0]

    def test_the_hidden_word_is_not_looked_at(self) -> None:
        game, policy = make_game(WORDS, "real"), MonteCarlo(10, random_mixture(0.5))
        uniforms = np.random.default_rng(0).random((6, policy.draws))
        one, other = (policy.choose(game, game.fresh(np.full(6, hidden)), uniforms) for hidden in (0.1, 0.9))
        assert one.tolist() == other.tolist()

    def test_it_plays_better_than_what_it_rolls_out(self, game: Game) -> None:
        assert play_scripted(game, "monte_carlo", 60, 0).mean() > play_scripted(game, "suboptimal", 600, 0).mean() + 0.2


class TestScores:
    def test_equal_seeds_give_equal_returns_and_others_others(self, game: Game) -> None:
        one, again, other = (play_scripted(game, "optimal", 200, seed) for seed in (1, 1, 2))
        assert one.tolist() == again.tolist()
        assert one.tolist() != other.tolist()

    def test_better_players_score_better(self, game: Game) -> None:
        means = [
            play_scripted(game, name, 1000, 0).mean() for name in ("optimal", "suboptimal", "adversarial", "wrong")
        ]
        assert means == sorted(means, reverse=True)

    def test_an_unknown_player_is_refused(self, game: Game) -> None:
        with pytest.raises(ValueError, match="got 'clever'"):
            play_scripted(game, "clever", 10, 0)
        with pytest.raises(ValueError, match="at least 1, got 0"):
            play_scripted(game, "optimal", 0, 0)
