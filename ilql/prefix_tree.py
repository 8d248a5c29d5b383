"""What a learner would find that knew every recorded prefix by heart: ILQL's fixed point on the data, exactly.

Every sequence of tokens that was recorded from a beginning on is a state of its own. From the leaves to the root:
    V(s) = the τ-expectile of Q(s, a) over the agent's recorded tokens, each counted as often as it was said
    Q(s, a) = mean r + γ V(s a)
    V(s) = the mean over what the world was heard to say, where it is the world that speaks
That is the solution of the paper's equations (Snell et al. 2022, arXiv 2206.11871, eq. 2 and 3) where nothing
generalises, without the conservative term: τ = ½ is SARSA, τ → 1 the best recorded continuation. A network generalises
between states, which can help, and can make luck in one look like a choice in another; the difference is worth seeing.

Axes: *M* nodes, parents before children; node 0 is before every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ilql.batch import TokenSequence

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PrefixTree:
    """All recorded prefixes.

    Attributes:
        children: Of every node its children by token.
        by_agent: Whether the agent chose the token that leads to a node, shape (M,).
        count: How often it was recorded, shape (M,).
        reward: Mean reward of the token, shape (M,).
    """

    children: tuple[dict[int, int], ...]
    by_agent: npt.NDArray[np.bool_]
    count: npt.NDArray[np.int64]
    reward: Floats

    def values(self, *, tau: float, gamma: float) -> tuple[Floats, Floats]:
        """V of every node, and Q of the token that leads to it (NaN where the world spoke), shape (M,) each.

        Raises:
            ValueError: `tau` is not in (0, 1), or `gamma` not in [0, 1].
        """
        if not 0 < tau < 1 or not 0 <= gamma <= 1:
            raise ValueError(f"tau must be in (0, 1) and gamma in [0, 1], got {tau} and {gamma}")
        v, q = np.zeros(len(self.count)), np.full(len(self.count), np.nan)
        for node in range(len(self.count) - 1, -1, -1):
            below = np.fromiter(self.children[node].values(), dtype=np.int64)
            if len(below):
                own, world = below[self.by_agent[below]], below[~self.by_agent[below]]
                parts = [(float(self.count[world].sum()), _mean(v[world], self.count[world]))] if len(world) else []
                if len(own):
                    parts.append((float(self.count[own].sum()), expectile(q[own], self.count[own], tau=tau)))
                v[node] = sum(weight * value for weight, value in parts) / sum(weight for weight, _ in parts)
            if self.by_agent[node]:
                q[node] = self.reward[node] + gamma * v[node]
        return v, q

    def nodes(self, sequence: TokenSequence) -> npt.NDArray[np.int64]:
        """The nodes that a sequence's actions lead to, shape (K,).

        Raises:
            KeyError: It was not recorded up to its last action.
        """
        chosen = sequence.action_positions + 1
        node, path = 0, []
        for token in sequence.tokens[: int(chosen.max(initial=-1)) + 1].tolist():  # what follows the last plays no part
            if token not in self.children[node]:
                raise KeyError(f"a prefix must have been recorded, got one that goes on with token {token}")
            node = self.children[node][token]
            path.append(node)
        return np.asarray(path, dtype=np.int64)[chosen]


def prefix_tree(sequences: Sequence[TokenSequence]) -> PrefixTree:
    """The tree of some dialogues.

    Raises:
        ValueError: One was cut off: nobody knows what it would have gone on to.
    """
    children: list[dict[int, int]] = [{}]
    by_agent, count, reward = [False], [len(sequences)], [0.0]
    for sequence in sequences:
        if not sequence.ended:
            raise ValueError("every dialogue of a prefix tree must have ended, got one that was cut off")
        chosen = dict(zip((sequence.action_positions + 1).tolist(), sequence.rewards.tolist(), strict=True))
        node = 0
        for place, token in enumerate(sequence.tokens.tolist()):
            if token not in children[node]:
                children[node][token] = len(children)
                children.append({})
                by_agent.append(place in chosen)
                count.append(0)
                reward.append(0.0)
            node = children[node][token]
            count[node] += 1
            reward[node] += chosen.get(place, 0.0)
    return PrefixTree(
        tuple(children),
        np.asarray(by_agent, dtype=np.bool_),
        np.asarray(count, dtype=np.int64),
        np.asarray(reward) / np.maximum(np.asarray(count), 1),
    )


def expectile(values: Floats, weights: npt.NDArray[np.int64], *, tau: float) -> float:
    """The m with τ Σ w (x − m)₊ = (1 − τ) Σ w (m − x)₊: the mean at τ = ½, towards the largest value at 1."""
    order = np.argsort(values)
    x, w = values[order], weights[order].astype(np.float64)
    if x[0] == x[-1]:
        return float(x[0])
    # Between x[k] and x[k + 1] the k + 1 lower values weigh 1 − τ and the others τ: m is then their weighted mean.
    low_w, low_x = np.cumsum(w), np.cumsum(w * x)
    m = (tau * (low_x[-1] - low_x) + (1 - tau) * low_x) / (tau * (low_w[-1] - low_w) + (1 - tau) * low_w)
    outside = np.maximum(x[:-1] - m[:-1], m[:-1] - x[1:])  # not above 0 in the right interval, but for rounding
    return float(m[int(outside.argmin())])


def _mean(values: Floats, weights: npt.NDArray[np.int64]) -> float:
    return float((values * weights).sum() / weights.sum())
