"""The recorded games of each Wordle world, the pairs drawn from them, and what the command says."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import wordle_games
from ilql.dialogue import Dialogue, Turn
from ilql.task import SPLITS
from ilql.tasks.wordle import build, load
from ilql.tasks.wordle.__main__ import main
from ilql.tasks.wordle.data import KINDS, Recorded
from ilql.tasks.wordle.environment import WordleTask
from ilql.tasks.wordle.game import make_game
from ilql.tasks.wordle.human import FAILED, OPENING, SKILL, Counts, answer_chance, avoiding, games_given, tries_at
from ilql.tasks.wordle.patterns import ALL_GREEN
from ilql.tasks.wordle.q_rank import Pair, branches, pairs, starts
from ilql.tasks.wordle.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data" / "wordle"

DICE = np.random.default_rng(5)
WORDS = tuple(sorted({"".join(DICE.choice(list("abcdefghij"), size=5)) for _ in range(400)}))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("\n".join(WORDS))
    return path


def world(words: Path, folder: Path, **settings: object) -> WordleTask:
    chosen = {"train_games": 400, "tune_games": 5, "report_games": 50, **settings}
    build(Settings(**chosen), {"words": str(words)}, folder)  # type: ignore[arg-type]
    return load(folder)


@pytest.fixture(scope="module")
def branching(words: Path, tmp_path_factory: pytest.TempPathFactory) -> WordleTask:
    return world(words, tmp_path_factory.mktemp("branching"))


@pytest.fixture(scope="module")
def unmended(words: Path, tmp_path_factory: pytest.TempPathFactory) -> WordleTask:
    return world(words, tmp_path_factory.mktemp("unmended"), world="branching_unmended")


class TestBranching:
    def test_each_expert_s_game_has_five_suboptimal_ones_and_five_adversarial_if_it_is_long_enough(
        self, branching: WordleTask
    ) -> None:
        games = branching.recorded["train"]
        tries = games.tries()[games.of("expert")]
        for kind, each in (("suboptimal", np.full(400, 5)), ("adversarial", np.where(tries >= 3, 5, 0))):
            assert np.bincount(games.experts[games.of(kind)], minlength=400).tolist() == each.tolist()
        assert games.experts[games.of("expert")].tolist() == list(range(400))
        assert {2, 3} <= set(tries.tolist())

    def test_the_shares_are_about_those_of_the_paper(self, branching: WordleTask) -> None:
        # 1 : 5a : 5, with a the share of the expert's games with three guesses or more.
        games = branching.recorded["train"]
        long = float((games.tries()[games.of("expert")] >= 3).mean())
        shares = np.bincount(games.kinds) / len(games.kinds)
        assert shares.tolist() == pytest.approx([part / (6 + 5 * long) for part in (1, 5 * long, 5)])

    def test_a_branch_begins_with_the_expert_s_two_guesses_and_colours(self, branching: WordleTask) -> None:
        games = branching.recorded["train"]
        rows = games.of("adversarial")
        experts = games.experts[rows]
        assert games.guesses[rows, :2].tolist() == games.guesses[experts, :2].tolist()
        assert games.codes[rows, :2].tolist() == games.codes[experts, :2].tolist()
        assert (games.guesses[rows, 2] != games.guesses[experts, 2]).all()

    def test_a_branch_goes_on_with_one_of_the_two_and_never_wins(self, branching: WordleTask) -> None:
        games = branching.recorded["train"]
        first, second, *others = games.guesses[games.of("adversarial")].T
        assert all(((other == first) | (other == second)).all() for other in others)
        assert any((other == first).any() and (other == second).any() for other in others)
        assert not (games.codes[games.of("adversarial")] == ALL_GREEN).any()

    def test_an_unmended_branch_is_a_fresh_game_of_one_word(self, branching: WordleTask, unmended: WordleTask) -> None:
        mended, games = branching.recorded["train"], unmended.recorded["train"]
        expert = games.of("expert")
        assert games.guesses[expert].tolist() == mended.guesses[mended.of("expert")].tolist()
        rows = games.of("adversarial")
        both = games.guesses[games.experts[rows], :2]
        assert ((games.guesses[rows, 0] == both[:, 0]) | (games.guesses[rows, 0] == both[:, 1])).all()
        said = games.guesses[rows]
        assert ((said == said[:, :1]) | (said < 0)).all()
        assert (games.guesses[rows, :2] != both).any(axis=1).all()

    def test_the_optimal_world_holds_the_expert_s_games_alone(self, words: Path, tmp_path: Path) -> None:
        games = world(words, tmp_path, world="optimal").recorded["train"]
        assert set(games.kinds.tolist()) == {KINDS.index("expert")}
        assert len(games.kinds) == 400


class TestDialogues:
    def test_guesses_and_colours_take_turns_and_only_the_winning_guess_is_free(self, branching: WordleTask) -> None:
        for dialogue in branching.dialogues("train", "standard"):
            assert dialogue.ended
            assert [turn.by_agent for turn in dialogue.turns] == [True, False] * (len(dialogue.turns) // 2)
            won = dialogue.turns[-1].text == "<g>" * 5
            guesses = len(dialogue.turns) // 2
            assert won or guesses == 6
            assert dialogue.total_reward == (1 - guesses if won else -6)
            assert all(re.fullmatch("[a-z]{5}", turn.text) for turn in dialogue.turns[::2])
            assert all(re.fullmatch("(<[gyb]>){5}", turn.text) for turn in dialogue.turns[1::2])

    def test_splits_and_seeds_are_different_games(self, words: Path, tmp_path: Path) -> None:
        said = set()
        for seed in range(2):
            (tmp_path / str(seed)).mkdir()
            task = world(words, tmp_path / str(seed), train_games=5, report_games=5, seed=seed)
            said |= {task.dialogues(split, "standard") for split in SPLITS}
        assert len(said) == 6

    def test_the_folder_is_all_that_loading_needs(self, words: Path, tmp_path: Path) -> None:
        own = tmp_path / "own.txt"
        own.write_text(words.read_text())
        (tmp_path / "world").mkdir()
        build(Settings(train_games=3, tune_games=2, report_games=2), {"words": str(own)}, tmp_path / "world")
        own.unlink()
        assert load(tmp_path / "world").game.words == WORDS

    def test_the_notes_count_the_games(self, words: Path, tmp_path: Path) -> None:
        notes = build(Settings(train_games=30, tune_games=2, report_games=2), {"words": str(words)}, tmp_path)
        assert notes[0] == f"{len(WORDS)} words of words.txt"
        assert re.match(r"train: \d+ games: 30 expert \(.*, mean return -\d\.\d{3}\), \d+ adversarial", notes[1])


class TestPairs:
    def test_they_share_all_but_the_last_guess_which_is_the_better_player_s_and_the_worse_one_s(
        self, branching: WordleTask
    ) -> None:
        drawn = pairs(branching, 40, 0, "train")
        assert [pair.place for pair in drawn] == ["start"] * 40 + ["branch"] * 40
        games = branching.recorded["train"]
        word = branching.game.words
        experts = {
            place: {tuple(word[g] for g in games.guesses[row, :shown] if g >= 0) for row in games.of("expert")}
            for place, shown in (("start", 1), ("branch", 3))
        }
        for pair in drawn:
            said = [turn.text for turn in pair.better.turns if turn.by_agent]
            other = [turn.text for turn in pair.worse.turns if turn.by_agent]
            assert len(said) == len(other) == (1 if pair.place == "start" else 3)
            assert tuple(said) in experts[pair.place]
            assert pair.better.turns[:-1] == pair.worse.turns[:-1]
            assert pair.place == "start" or other[2] in other[:2]
            assert not pair.worse.ended

    def test_a_game_that_is_cut_off_has_not_ended_and_a_won_one_has(self, branching: WordleTask) -> None:
        for pair in pairs(branching, 60, 1, "train"):
            assert pair.better.ended == (pair.better.turns[-1].reward == 0.0)

    def test_equal_seeds_draw_equal_pairs(self, branching: WordleTask) -> None:
        assert pairs(branching, 10, 3) == pairs(branching, 10, 3)
        assert pairs(branching, 10, 3) != pairs(branching, 10, 4)

    def test_start_pairs_draw_all_other_first_guesses_alike(self) -> None:
        # Two games of the expert begin with 1 and 2; four suboptimal ones, rows 2 to 5, with 1, 3, 2 and 1.
        # Against 1: rows 3, 4, each 1/2. Against 2: rows 2, 3, 5, each 1/3.
        guesses = np.array([[first, 0, 0, 0, 0, 0] for first in (1, 2, 1, 3, 2, 1)], dtype=np.int16)
        kinds = np.array([0, 0, 2, 2, 2, 2], dtype=np.uint8)
        games = Recorded(guesses, guesses, kinds, np.array([0, 1, 0, 0, 1, 1], dtype=np.int32))
        grid = np.stack(np.meshgrid((np.arange(2) + 0.5) / 2, (np.arange(60) + 0.5) / 60), axis=-1).reshape(-1, 2)
        drawn = Counter(map(tuple, starts(games, grid, "train").tolist()))
        assert drawn == {(0, 3): 30, (0, 4): 30, (1, 2): 20, (1, 3): 20, (1, 5): 20}

    def test_games_that_all_begin_alike_have_no_start_pairs(self) -> None:
        guesses = np.ones((2, 6), dtype=np.int16)
        games = Recorded(guesses, guesses, np.array([0, 2], dtype=np.uint8), np.zeros(2, dtype=np.int32))
        with pytest.raises(ValueError, match="begin otherwise than the expert's, got none in 'tune'"):
            starts(games, np.zeros((1, 2)), "tune")
        with pytest.raises(ValueError, match="with three guesses, got none in 'tune'"):
            branches(games, np.zeros(1), "tune")

    def test_other_worlds_splits_and_counts_are_refused(self, branching: WordleTask, unmended: WordleTask) -> None:
        with pytest.raises(ValueError, match="got 'branching_unmended'"):
            pairs(unmended, 1, 0)
        with pytest.raises(ValueError, match="at least 1, got 0"):
            pairs(branching, 0, 0)
        with pytest.raises(ValueError, match="got 'holiday'"):
            pairs(branching, 1, 0, "holiday")

    def test_a_pair_of_different_places_or_equal_guesses_does_not_exist(self) -> None:
        one, other = (Dialogue((Turn(text, by_agent=True, reward=-1.0),), ended=False) for text in ("crane", "slate"))
        Pair("start", one, other)
        with pytest.raises(ValueError, match="two different guesses"):
            Pair("start", one, one)
        with pytest.raises(ValueError, match="share its turns"):
            Pair("start", one, Dialogue((*other.turns, *other.turns), ended=False))
        with pytest.raises(ValueError, match="place must be"):
            Pair("end", one, other)


class TestHumanGames:
    GAME = make_game(WORDS, "real")

    def test_they_have_the_answers_and_tries_that_were_asked_for(self) -> None:
        answers, tries = np.repeat(np.arange(40) * 5, 7), np.tile(np.arange(1, FAILED + 1), 40)
        games = games_given(self.GAME, answers, tries, np.random.default_rng(0))
        assert games.over.all()
        assert games.won.tolist() == (tries < FAILED).tolist()
        assert games.tries.tolist() == np.minimum(tries, 6).tolist()
        last = games.guesses[np.arange(len(tries)), games.tries - 1]
        assert (last == answers).tolist() == (tries < FAILED).tolist()
        assert all(self.GAME.table[g, a] == c for row, a in enumerate(answers) for g, c in zip(
            games.guesses[row, : games.tries[row]], games.codes[row, : games.tries[row]], strict=True
        ))  # fmt: skip

    def test_quick_games_come_from_telling_openers(self) -> None:
        def left(tries: int) -> float:
            answers = np.arange(len(WORDS))
            games = games_given(self.GAME, answers, np.full(len(WORDS), tries), np.random.default_rng(1))
            return float(self.GAME.first_sizes[games.guesses[:, 0], games.codes[:, 0]].mean())

        assert left(2) < 0.7 * left(4)

    def test_the_chance_of_the_answer_is_worked_from_both_ways_of_guessing(self) -> None:
        game = make_game(["aaaaa", "abbbb", "acccc", "ddddd"], "real")
        fresh = game.fresh(np.array([0.3]))  # abbbb
        # All four are openers: 1/2·1/4 + 1/2·1/4.
        assert answer_chance(game, fresh)[0] == pytest.approx(OPENING / 4 + (1 - OPENING) / 4)
        after = game.step(fresh, np.array([0]), np.zeros(1))  # gbbbb: abbbb and acccc are left
        assert answer_chance(game, after)[0] == pytest.approx(SKILL / 2 + (1 - SKILL) / 4)

    def test_avoiding_the_answer_leaves_the_others_as_likely_as_they_were(self) -> None:
        game = make_game(["aaaaa", "abbbb", "acccc", "ddddd"], "real")
        size = 40_000
        after = game.step(game.fresh(np.full(size, 0.3)), np.zeros(size, dtype=np.int64), np.zeros(size))
        said = avoiding(game, after, np.random.default_rng(0).random((size, 2)))
        # Smart: acccc alone, 0.9·1/2. Any: three of four words, 0.1/4 each. Divided by their sum, 0.525.
        chances = np.array([0.025, 0.0, 0.475, 0.025]) / 0.525
        assert np.bincount(said, minlength=4) / size == pytest.approx(chances, abs=0.01)
        said = avoiding(game, game.fresh(np.full(size, 0.3)), np.random.default_rng(0).random((size, 2)))
        assert np.bincount(said, minlength=4) / size == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.01)

    def test_levels_fall_on_tries_by_their_counts(self) -> None:
        counts = Counts(np.array([0]), np.array([[0, 1, 2, 0, 0, 0, 1]]), 0)
        levels = np.array([0.0, 0.24, 0.25, 0.74, 0.75, 0.999])
        assert tries_at(counts, np.zeros(6, dtype=np.int64), levels).tolist() == [2, 2, 3, 3, 7, 7]

    def test_tries_follow_the_counts_of_every_puzzle(self, words: Path, tmp_path: Path) -> None:
        # 100 games of each of 4 puzzles: each number of tries is within 1 of its share, so half their sum below 0.035.
        lines = ["puzzle,word,n1,n2,n3,n4,n5,n6,nX"]
        lines += [f"{k},{WORDS[9 * k]},{k},1,{5 * k},20,30,10,3" for k in range(4)]
        (tmp_path / "counts.csv").write_text("\n".join(lines))
        (tmp_path / "world").mkdir()
        settings = Settings(world="human", rules="real", train_games=400, tune_games=3, report_games=4)
        sources = {"words": str(words), "counts": str(tmp_path / "counts.csv")}
        notes = build(settings, sources, tmp_path / "world")
        said = next(note for note in notes if note.startswith("train: 400 games of 4 of 4 puzzles, 100.0 each"))
        distances = [float(number) for number in re.findall(r"0\.\d{4}", said)]
        assert len(distances) == 2
        assert 0.0 < distances[0] < 0.035
        games = load(tmp_path / "world").recorded["train"]
        answers = np.array([row[row >= 0][-1] for row in games.guesses])
        won = (games.codes == ALL_GREEN).any(axis=1)
        for k in range(4):
            counts = np.array([k, 1, 5 * k, 20, 30, 10])
            mine = games.tries()[won & (answers == 9 * k)]
            assert np.abs(np.bincount(mine, minlength=7)[1:] - 100 * counts / (counts.sum() + 3)).max() < 1.0

    def test_recorded_counts_are_met(self, tmp_path: Path) -> None:
        words, counts = SHARED / "answers_2315_alphabetical.txt", SHARED / "twitter_round_counts.csv"
        if not counts.is_file():
            pytest.skip(f"no recorded counts at {counts}")
        settings = Settings(world="human", rules="real", train_games=640, tune_games=3, report_games=3)
        notes = build(settings, {"words": str(words), "counts": str(counts)}, tmp_path)
        assert "320 puzzles, 30,374,242 games reported" in notes
        said = next(note for note in notes if note.startswith("train: 640 games of 320 of 320 puzzles, 2.0 each"))
        assert float(re.findall(r"0\.\d{4}", said)[1]) < 0.02


class TestCommand:
    def test_it_prints_the_paper_s_numbers_beside_its_own(
        self, words: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--words", str(words), "--games", "300"]) == 0
        said = capsys.readouterr().out
        assert re.search(r"optimal +-\d\.\d{3} ± 0\.\d{3} +-2\.647 +300 ", said)
        assert re.search(r"adversarial +-6\.000 ± 0\.000 +-6\.000 ", said)
        assert re.search(r"suboptimal +-\d\.\d{3} ± 0\.\d{3} +-4\.262 +300 ", said)

    def test_a_mistake_is_told_in_a_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        for wrong in (["--words", "/nowhere.txt"], ["--games", "1"], ["--seed", "-1"]):
            assert main(wrong) == 2
            assert capsys.readouterr().err.count("\n") == 1

    def test_on_the_original_list_the_players_score_as_in_the_paper(self) -> None:
        from ilql.tasks.wordle.scripted import play_scripted
        from ilql.tasks.wordle.words import read_words

        path = SHARED / "answers_2315_alphabetical.txt"
        if not path.is_file():
            pytest.skip(f"no word list at {path}")
        game = make_game(read_words(path)[0], "consistent")
        # Ours opens with the 28 best words, the paper's with 28 others: a little worse.
        assert play_scripted(game, "optimal", 20_000, 0).mean() == pytest.approx(-2.58, abs=0.03)
        assert play_scripted(game, "suboptimal", 20_000, 0).mean() == pytest.approx(-4.24, abs=0.04)


class TestBenchmark:
    def test_all_sides_play_the_same_games(self) -> None:
        measured = wordle_games.measure(WORDS[:150], wordle_games.Size(rounds=1, mixture=60, optimal=30, batch=60))
        assert len(measured) == 3
        for rates in measured.values():
            assert all(rate > 0 for (rate,) in (rates.engine, rates.plain, rates.careful))

    def test_it_notices_rules_that_differ(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = dataclasses.replace(make_game(WORDS, "real"), rules="consistent")
        monkeypatch.setattr(wordle_games, "make_game", lambda words, rules: real)
        with pytest.raises(ValueError, match="must play the same games"):
            wordle_games.measure(WORDS, wordle_games.Size(rounds=1, mixture=50, optimal=1, batch=50))
