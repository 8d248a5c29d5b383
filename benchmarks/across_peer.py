"""The other side of benchmarks/across.py: rliable, in the environment of its own that it needs (pandas below 3).

Reads lines of JSON, the number of replicates and a matrix, and answers each with rliable's point, ends and seconds.
Run by that environment's Python and by nothing else: it imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Answer until there is no more to answer."""
    import numpy as np  # noqa: PLC0415
    from rliable import library, metrics  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    def aggregate(scores: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_iqm(scores)])

    for line in sys.stdin:
        asked = json.loads(line)
        scores, second = np.array(asked["scores"]), np.array(asked["second"])
        begin = time.perf_counter()
        points, ends = library.get_interval_estimates({"x": scores}, aggregate, reps=asked["draws"])
        seconds = time.perf_counter() - begin
        answer = {
            "seconds": seconds,
            "iqm": float(points["x"][0]),
            "ends": [float(end) for end in ends["x"][:, 0]],
            "gap": float(metrics.aggregate_optimality_gap(scores)),
            "improvement": float(metrics.probability_of_improvement(scores, second)),
            "profile": [float((scores > t).mean()) for t in asked["thresholds"]],
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
