"""Draw figures as files in a browser: a program of its own, for a browser may hang, and then both are to end.

    python -P analysis/figures/browser.py    reads {"figures": {name: JSON}, "files": [{"name", "path", "scale"}, …],
                                             "width", "height", "seconds"} as JSON from standard input

Ends with 1 and one line on standard error where no browser is found or starts, or where it takes longer than that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import plotly.io


def main() -> int:
    """Draw what standard input asks for; gives the exit status."""
    asked = json.load(sys.stdin)
    _end_after(asked["seconds"])
    figures, files = {name: json.loads(text) for name, text in asked["figures"].items()}, asked["files"]
    try:  # one call, so one browser; and unlike kaleido's server it raises, rather than waits, where none starts
        plotly.io.write_images(
            fig=[figures[file["name"]] for file in files],
            file=[file["path"] for file in files],
            validate=False,  # as all that a figure of plotly's was made of
            scale=[file["scale"] for file in files],
            width=asked["width"],
            height=asked["height"],
        )
    except RuntimeError as error:
        sys.stderr.write(str(error).strip().partition("\n")[0] + "\n")
        return 1
    return 0


def _end_after(seconds: float) -> None:
    def end(number: int, _: FrameType | None) -> NoReturn:
        import psutil  # noqa: PLC0415 - not where there is no Kaleido: both come with the figures

        for process in psutil.Process().children(recursive=True):  # the browser has a session of its own
            process.kill()
        if number == signal.SIGALRM:
            sys.stderr.write(f"The browser had not drawn them after {seconds:g} s.\n")
            sys.stderr.flush()
        os._exit(1)  # Kaleido waits in a thread, which would be waited for

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    sys.exit(main())
