"""The output of the commands: results to stdout; progress, warnings and errors to stderr."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uns_pose_ros.core import types
from uns_pose_ros.io import artifacts

_CLEAR = "\033[K"  # what stands to the right of the cursor
_BAR = 30  # characters
_PERIOD = 0.1  # s between two bars


@contextmanager
def progress_bar() -> Iterator[types.Progress]:
    """Yield a callback that shows the progress as one bar on stderr.

    It shows nothing if stderr is no terminal.
    """
    current, begun, due = "", 0.0, 0.0

    def show(what: str, done: int, total: int) -> None:
        nonlocal current, begun, due
        now = time.monotonic()
        if what != current:
            current, begun, due = what, now, 0.0
        if now >= due or done >= total:
            due = now + _PERIOD
            line = _bar(what, done, total, now - begun)[
                : shutil.get_terminal_size().columns - 1
            ]
            # the cursor goes back, so that whatever is written next takes the bar's place
            print(f"{line}{_CLEAR}\r", end="", file=sys.stderr, flush=True)

    terminal = sys.stderr.isatty()
    try:
        yield show if terminal else lambda what, done, total: None
    finally:
        if terminal:
            print(_CLEAR, end="", file=sys.stderr, flush=True)


def _bar(what: str, done: int, total: int, seconds: float) -> str:
    """One line: the work done, the time since its start, and the time left if that is known."""
    share = min(1.0, done / total) if total > 0 else 0.0
    bar = ("━" * round(_BAR * share)).ljust(_BAR, "─")
    left = (
        f", {_clock(seconds * (total - done) / done)} left"
        if 0 < done < total and seconds > 0
        else ""
    )
    return f"{what} {bar} {done}/{total} {_clock(seconds)}{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def warn_on_stderr() -> None:
    """Show the package's warnings as one line each."""
    handler = logging.StreamHandler(sys.stderr)
    clear = _CLEAR if sys.stderr.isatty() else ""  # of a bar
    handler.setFormatter(logging.Formatter(f"{clear}uns-pose: %(levelname)s: %(message)s"))
    logger = logging.getLogger("uns_pose_ros")
    logger.handlers = [handler]


def emit(record: Any, text: str, to: str | None) -> None:
    """Print the result of a command.

    Args:
        record: the result as a value for JSON.
        text: the result for people.
        to: a file that gets the record as JSON too; "-": print the JSON and not the text.
    """
    if to == "-":
        print(json.dumps(artifacts.plain(record), indent=1, allow_nan=False))
        return
    if to is not None:
        artifacts.write_json(Path(to), artifacts.plain(record))
    print(text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as lines of text: words to the left, numbers to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    figures = [
        bool(rows) and all(row[k][:1] in "0123456789-–" for row in rows)
        for k in range(len(header))
    ]

    def padded(line: Sequence[str]) -> str:
        cells = zip(line, widths, figures, strict=True)
        return "  ".join(
            cell.rjust(w) if right else cell.ljust(w) for cell, w, right in cells
        ).rstrip()

    return "\n".join(map(padded, lines))


def figure(value: float | None, digits: int = 1) -> str:
    """A number, or a dash if it is missing."""
    return "–" if value is None else f"{value:.{digits}f}"
