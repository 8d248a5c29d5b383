from __future__ import annotations

import pytest

from analysis.variety import distinct_n


def test_distinct_bigrams_are_counted_over_all_texts() -> None:
    # "a b", "b a", "a b" and "a b": two different of four.
    assert distinct_n(["a b a b", "A b"], 2) == 2 / 4
    assert distinct_n(["a", ""], 2) == 0.0
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        distinct_n(["a"], 0)
