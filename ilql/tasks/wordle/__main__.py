"""`python -m ilql.tasks.wordle --words FILE --games 20000` says what scripted players score, beside the paper's."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from ilql.tasks.wordle.game import make_game
from ilql.tasks.wordle.scripted import EXPERT_TRIES, play_scripted
from ilql.tasks.wordle.settings import RULES
from ilql.tasks.wordle.words import words_of

PUBLISHED = {"optimal": -2.647, "adversarial": -6.0, "suboptimal": -4.262}
"""The mean returns of the paper's section 5."""

NORMAL_95 = 1.96


def main(arguments: Sequence[str] | None = None) -> int:
    """Play each scripted player; print its mean return with a 95 % interval beside the published one.

    The adversary plays where the expert has had two guesses and has not won; so its games from scratch that the expert
    wins at once are left out, and counted.
    """
    parser = argparse.ArgumentParser(prog="python -m ilql.tasks.wordle", description=main.__doc__)
    parser.add_argument("--words", help="a file of words of five letters, one a line; those of wonderwords if left out")
    parser.add_argument("--games", type=int, default=20_000, help="games of each player")
    parser.add_argument("--rules", choices=RULES, default=RULES[0], help="the paper's rules, or the newspaper's")
    parser.add_argument("--seed", type=int, default=0, help="decides every draw")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.games < 2:
            raise ValueError(f"games must be at least 2, got {chosen.games}")
        if chosen.seed < 0:
            raise ValueError(f"seed must not be negative, got {chosen.seed}")
        words, notes = words_of({} if chosen.words is None else {"words": chosen.words})
        game = make_game(words, chosen.rules)
        lines = [*notes, f"{'player':<12} {'mean return':>17} {'paper':>7} {'games':>8} {'seconds':>8}"]
        for player, published in PUBLISHED.items():
            begun = time.perf_counter()
            returns = play_scripted(game, player, chosen.games, chosen.seed)
            seconds = time.perf_counter() - begun
            if player == "adversarial":
                lost = returns <= -EXPERT_TRIES
                left_out, returns = int((~lost).sum()), returns[lost]
                if not len(returns):
                    raise ValueError(f"the adversary needs games that last three guesses, got none of {chosen.games}")
            half = NORMAL_95 * float(np.std(returns, ddof=1)) / len(returns) ** 0.5
            mean = f"{returns.mean():.3f} ± {half:.3f}"
            lines.append(f"{player:<12} {mean:>17} {published:>7.3f} {len(returns):>8} {seconds:>8.2f}")
        lines.append(f"adversarial: {left_out} games left out, which the expert wins within {EXPERT_TRIES} guesses")
    except ValueError as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
