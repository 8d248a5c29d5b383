"""How a report counts, in words: the two styles of its tables, and what a failed run is in the honest one."""

from __future__ import annotations

from typing import Literal, TypeAlias

Style: TypeAlias = Literal["honest", "paper"]
"""`honest`: a method's cells are its own. `paper`: SARSA's also count as ILQL's, as ILQL at tau .5, and keep their row.

A report's style decides besides which of its tables it leads with; see `analysis.report`."""

Policy: TypeAlias = Literal["exclude", "worst", "floor"]
"""What a failed run counts as: its cell leaves, it returns what the method's worst run does, or the lowest return."""
