"""ILQL's fixed point where every prefix is known by heart: arithmetic on a bandit and on a chain."""

from __future__ import annotations

import numpy as np
import pytest

from ilql.batch import TokenSequence, tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.prefix_tree import PrefixTree, expectile, prefix_tree
from ilql.tokens import Tokenizer

LETTERS = [*["b"] * 4, *["ab"] * 2, "aab", "aaa"]  # the chain of test_chain: b pays 2, three times a pays 4
PAYS = {"b": 2.0, "aaa": 4.0}


def chain(letters: str, tokenizer: Tokenizer) -> TokenSequence:
    turns = [Turn("pull", by_agent=False)]
    for number, letter in enumerate(letters):
        last = number == len(letters) - 1
        turns.append(Turn(letter, by_agent=True, reward=PAYS.get(letters, 0.0) if last else 0.0))
        turns += [] if last else [Turn("yes", by_agent=False)]
    return tokenize(Dialogue(tuple(turns), ended=True), tokenizer)


def q_of(tree: PrefixTree, sequence: TokenSequence, *, tau: float, gamma: float = 1.0) -> list[float]:
    _, q = tree.values(tau=tau, gamma=gamma)
    return [float(value) for value in q[tree.nodes(sequence)]]


@pytest.mark.parametrize("tau", [0.5, 0.8, 0.99])
def test_v_of_a_bandit_is_tau(pulls: list[TokenSequence], tau: float) -> None:
    tree = prefix_tree(pulls)
    v, _ = tree.values(tau=tau, gamma=1.0)
    opening = tree.children[tree.children[0][int(pulls[0].tokens[0])]][int(pulls[0].tokens[1])]
    assert v[opening] == pytest.approx(tau)
    assert q_of(tree, pulls[0], tau=tau) == [0.0, 0.0]
    assert q_of(tree, pulls[1], tau=tau) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("tau", "going_on"),
    [(0.5, 1.0), (0.9, 0.9 * 0.9 * 4.0)],  # ½·½·4; the expectile of a fair 0 and x is τx, twice
)
def test_on_the_chain_one_step_stops_and_several_go_on(tokenizer: Tokenizer, tau: float, going_on: float) -> None:
    sequences = [chain(letters, tokenizer) for letters in LETTERS]
    tree = prefix_tree(sequences)
    assert q_of(tree, sequences[-1], tau=tau)[0] == pytest.approx(going_on)
    assert q_of(tree, sequences[0], tau=tau)[0] == 2.0


def test_a_token_is_discounted_once_and_what_the_world_says_is_not(tokenizer: Tokenizer) -> None:
    tree = prefix_tree([chain("aaa", tokenizer)])  # an arm and its end, three times: six actions, paid at the last
    assert q_of(tree, chain("aaa", tokenizer), tau=0.7, gamma=0.5) == [4.0 * 0.5**k for k in (5, 4, 3, 2, 1, 0)]


def test_the_world_is_averaged_and_never_chosen_from(tokenizer: Tokenizer) -> None:
    def lucky(answer: str, reward: float) -> TokenSequence:
        turns = (Turn("pull", False), Turn("a", True), Turn(answer, False), Turn("b", True, reward))
        return tokenize(Dialogue(turns, ended=True), tokenizer)

    tree = prefix_tree([lucky("yes", 8.0), lucky("no", 0.0), lucky("no", 0.0), lucky("no", 0.0)])
    assert q_of(tree, lucky("yes", 8.0), tau=0.99)[0] == pytest.approx(2.0)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9, 0.999])
def test_an_expectile_balances_what_is_above_against_what_is_below(tau: float) -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=7), rng.integers(1, 5, 7)
    m = expectile(values, weights, tau=tau)
    above, below = (weights * np.maximum(sign * (values - m), 0) for sign in (1, -1))
    assert tau * above.sum() == pytest.approx((1 - tau) * below.sum())


def test_expectiles_by_hand() -> None:
    # τ·1·(3 − m) = (1 − τ)·2·m at τ = .8: 2.4 = 1.2 m
    assert expectile(np.array([3.0, 0.0]), np.array([1, 2]), tau=0.8) == pytest.approx(2.0)
    assert expectile(np.array([5.0, 5.0]), np.array([1, 9]), tau=0.3) == 5.0
    nearly = np.array([0.1, np.nextafter(0.1, 1.0), np.nextafter(0.1, 0.0)])  # so close that rounding decides
    assert expectile(nearly, np.array([3, 1, 2]), tau=0.9) == pytest.approx(0.1)


def test_what_was_not_recorded_has_no_value(pulls: list[TokenSequence], tokenizer: Tokenizer) -> None:
    with pytest.raises(KeyError, match="a prefix must have been recorded"):
        prefix_tree(pulls[:1]).nodes(pulls[1])


def test_a_recording_that_was_cut_off_is_refused(tokenizer: Tokenizer) -> None:
    cut = tokenize(Dialogue((Turn("pull", False), Turn("a", True)), ended=False), tokenizer)
    with pytest.raises(ValueError, match="must have ended, got one that was cut off"):
        prefix_tree([cut])


@pytest.mark.parametrize(("tau", "gamma"), [(0.0, 1.0), (1.0, 1.0), (0.5, 1.5)])
def test_settings_out_of_range_are_refused(pulls: list[TokenSequence], tau: float, gamma: float) -> None:
    with pytest.raises(ValueError, match=r"tau must be in \(0, 1\) and gamma in \[0, 1\]"):
        prefix_tree(pulls).values(tau=tau, gamma=gamma)
