"""Three states in a row, where one step of improvement goes wrong and several go right.

Saying `b` ends it at once and pays 2. Saying `a` leads on; only `a` three times in a row pays, and it pays 4. Whoever
recorded this said `b` half of the time and, having gone on, said `a` half of the time at each of the two choices left:

    4 x  b             2        2 x  a b        0        1 x  a a b      0        1 x  a a a      4

So the data's own policy earns 4 · ¼ = 1 by going on. One step of improvement on it compares that with 2 and stops; the
best policy goes on and earns 4. With γ = 1 the values of the first `a` are

    SARSA, and Monte-Carlo returns     ¼ · 4 = 1
    ILQL, τ = .9                       .9 · 4 = 3.6 before the third, .9 · 3.6 = 3.24 before the second
    CQL, a small weight                4

All of it goes through the tokeniser, the batches, the loop and the speaker, with a small transformer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ilql.batch import TokenSequence, tokenize
from ilql.decode import Speaker, Voice
from ilql.dialogue import Dialogue, Turn
from ilql.language_model import gather, hidden_states
from ilql.method import Method, Start
from ilql.methods import bc, cql, ilql, mc_returns, sarsa
from ilql.networks import ValueNetworks
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

RECORDED = ["b"] * 4 + ["ab"] * 2 + ["aab", "aaa"]
PAYS = {"b": 2.0, "aaa": 4.0}
VALUE: dict[str, Any] = {"gamma": 1.0, "polyak": 0.2, "cql_weight": 0.02, "batch_size": 8, "weighting": "token"}
CASES = {
    "sarsa": (sarsa.METHOD, sarsa.Train(**VALUE), 1.0, "b"),
    "mc_returns": (mc_returns.METHOD, mc_returns.Train(**VALUE), 1.0, "b"),
    "ilql": (ilql.METHOD, ilql.Train(**VALUE, tau=0.9), 3.24, "a"),
    "cql": (cql.METHOD, cql.Train(**VALUE), 4.0, "a"),
}


@pytest.fixture(scope="module")
def chain(tokenizer: Tokenizer) -> list[TokenSequence]:
    recorded = []
    for letters in RECORDED:
        turns = [Turn("pull", by_agent=False)]
        for number, letter in enumerate(letters):
            last = number == len(letters) - 1
            turns.append(Turn(letter, by_agent=True, reward=PAYS.get(letters, 0.0) if last else 0.0))
            turns += [] if last else [Turn("yes", by_agent=False)]
        recorded.append(tokenize(Dialogue(tuple(turns), ended=True), tokenizer))
    return recorded


def run(method: Method, module: nn.Module, chain: list[TokenSequence], settings: Any, pad: int) -> None:
    for _ in train(method, module, chain, settings, pad=pad, seed=0, loop=Loop(log_every=1000)):
        pass


@pytest.fixture(scope="module")
def behaviour(language_model: Callable[..., nn.Module], chain: list[TokenSequence], tokenizer: Tokenizer) -> nn.Module:
    settings = bc.Train(steps=120, batch_size=8, learning_rate=1e-2, weighting="token")
    module = bc.build(Start(language_model(), None, seed=0), settings)
    run(bc.METHOD, module, chain, settings, tokenizer.structural("pad"))
    return module


@pytest.mark.parametrize("name", CASES)
def test_one_step_stops_and_several_steps_go_on(
    name: str, behaviour: nn.Module, chain: list[TokenSequence], tokenizer: Tokenizer
) -> None:
    method, settings, value, choice = CASES[name]
    module = method.build(Start(behaviour, behaviour, seed=0), settings)
    assert isinstance(module, ValueNetworks)
    # At rates like these all of five other starts end within 0.05; at 0.01 one in four had not arrived, or ran away.
    for steps, rate in ((400, 4e-3), (300, 1e-3), (200, 2e-4)):
        changed = type(settings)(**{**vars(settings), "steps": steps, "learning_rate": rate})
        run(method, module, chain, changed, tokenizer.structural("pad"))

    opening = torch.from_numpy(chain[0].tokens[: chain[0].action_positions[0] + 1])[None]
    with torch.no_grad():
        hidden = hidden_states(module.target.trunk, opening)
        q = module.target.minimum(gather(hidden, torch.tensor([[opening.shape[1] - 1]])))[0, 0]
    on, stop = (q[tokenizer.encode(letter)[0]].item() for letter in "ab")
    # The conservative term, which keeps what was never said down, moves the values a little.
    assert on == pytest.approx(value, abs=0.3)
    assert stop == pytest.approx(2.0, abs=0.3)

    speaker = Speaker(method.actor(module, behaviour), tokenizer, slots=1, device=torch.device("cpu"))
    speaker.hear(0, opening[0].tolist())
    decode = method.decode(beta=8.0, greedy=True)
    voice = Voice(0, decode, method.manner(settings, decode), np.random.default_rng(0))
    assert speaker.speak([voice])[0].text == choice
