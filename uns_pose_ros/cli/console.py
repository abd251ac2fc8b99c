"""The output of the commands: results to stdout; progress, warnings and errors to stderr."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uns_pose_ros.core import types
from uns_pose_ros.io import artifacts

_CLEAR = "\033[K"  # what stands to the right of the cursor
_BAR = 30  # characters
_PERIOD = 0.1  # s between two bars
# s after which a step is mentioned where there is no terminal, and between two lines about it
_LONG, _LINE_PERIOD = 20.0, 300.0


@contextmanager
def progress_bar() -> Iterator[types.Progress]:
    """Yield a callback that shows the progress on stderr.

    On a terminal it is one bar, else, as in a log, a few lines about each step that takes long.
    """
    if not sys.stderr.isatty():
        log = _ProgressLog()
        yield log.show
        log.end_step()
        return
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

    try:
        yield show
    finally:
        print(_CLEAR, end="", file=sys.stderr, flush=True)


class StageTimes:
    """Measures where the time of a command went, by stage."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; the clock returns seconds."""
        self.seconds: dict[str, float] = {}  # in the order in which the stages began
        self._clock = clock
        self._last = clock()

    def end_stage(self, name: str) -> None:
        """Count the time since the last end for a stage, beside what it took before."""
        now = self._clock()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        """Count the time since the last end for no stage, such as that of an answer."""
        self._last = self._clock()

    def follow(
        self, progress: types.Progress, name: Callable[[str], str] = str
    ) -> types.Progress:
        """Return a callback that also counts each step as a stage, and calls `progress`.

        `name` returns the stage of a step.
        """

        def show(what: str, done: int, total: int) -> None:
            self.end_stage(name(what))
            progress(what, done, total)

        return show

    def text(self) -> str:
        """One line for each stage: its seconds, and its share of all."""
        whole = max(sum(self.seconds.values()), 1e-9)
        width = max(map(len, self.seconds), default=0)
        return "\n".join(
            f"{name:{width}s} {spent:8.1f} s {100 * spent / whole:4.0f} %"
            for name, spent in self.seconds.items()
        )


class _ProgressLog:
    """Lines about the steps that take long: what is left after a while, now and then, and the end.

    A step that is done within _LONG is not mentioned.
    """

    def __init__(self) -> None:
        self._step = ""
        self._done = self._total = self._first = 0
        self._begun = self._due = 0.0  # s, monotonic
        self._mentioned = False

    def show(self, what: str, done: int, total: int) -> None:
        """Take the progress of a step; a new step ends the one before."""
        now = time.monotonic()
        if what != self._step:
            self.end_step()
            self._step, self._first, self._mentioned = what, done, False
            self._begun, self._due = now, now + _LONG
        self._done, self._total = done, total
        if now >= self._due and done < total:
            self._due = now + _LINE_PERIOD
            self._mentioned = True
            self._write(
                f"{done} of {total} after {_clock(now - self._begun)}{self._left(now)}"
            )

    def end_step(self) -> None:
        """Say how long the present step took, if it took long."""
        now = time.monotonic()
        if self._step and (self._mentioned or now - self._begun >= _LONG):
            seconds = _clock(now - self._begun)
            self._write(f"{self._done} of {self._total} done in {seconds}")
        self._step = ""

    def _left(self, now: float) -> str:
        """The time that is left, if anything was done since the step began."""
        advance = self._done - self._first
        if advance <= 0:
            return ""
        seconds = (now - self._begun) * (self._total - self._done) / advance
        return f", about {_clock(seconds)} left"

    def _write(self, text: str) -> None:
        print(f"uns-pose: {self._step}: {text}", file=sys.stderr, flush=True)


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
    """Show the package's warnings, and what it says of long steps, as one line each."""
    handler = logging.StreamHandler(sys.stderr)
    clear = _CLEAR if sys.stderr.isatty() else ""  # of a bar
    handler.setFormatter(logging.Formatter(f"{clear}uns-pose: %(levelname)s: %(message)s"))
    logger = logging.getLogger("uns_pose_ros")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


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
