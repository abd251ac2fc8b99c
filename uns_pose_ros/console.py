"""What the commands write: a table or JSON to stdout; progress, warnings and errors to stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from uns_pose_ros import datatypes, storage


@contextmanager
def progress_bar() -> Iterator[datatypes.Progress]:
    """Yield the callback that shows what is being done as one bar on stderr; it shows nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=None, visible=False)
        current = ""

        def show(what: str, done: int, total: int) -> None:
            nonlocal current
            if what != current:
                current = what
                bars.reset(task, description=what, visible=True, total=total)
            bars.update(task, completed=done, total=total)

        yield show


def warn_on_stderr() -> None:
    """Show the package's warnings as one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("uns-pose: %(levelname)s: %(message)s"))
    logger = logging.getLogger("uns_pose_ros")
    logger.handlers = [handler]


def emit(record: Any, text: str, to: str | None) -> None:
    """Print `text`; with `to` a file write the record there as JSON too, with `to` "-" print the JSON and nothing else."""
    if to == "-":
        print(json.dumps(storage.plain(record), indent=1, allow_nan=False))
        return
    if to is not None:
        storage.write_json(Path(to), storage.plain(record))
    print(text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of columns under a header: words to the left, figures to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    figures = [bool(rows) and all(row[k][:1] in "0123456789-–" for row in rows) for k in range(len(header))]

    def padded(line: Sequence[str]) -> str:
        cells = zip(line, widths, figures, strict=True)
        return "  ".join(cell.rjust(w) if right else cell.ljust(w) for cell, w, right in cells).rstrip()

    return "\n".join(map(padded, lines))


def figure(value: float | None, digits: int = 1) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"
