"""InvalidInput: the user's input cannot be used (exit code 2)."""

from __future__ import annotations

from collections.abc import Iterable


class InvalidInput(ValueError):
    """The user's input cannot be used.

    The message names the fault, its place and what is valid (exit code 2).
    """


def shorten(names: Iterable[str], most: int = 8) -> str:
    """Names in one line: a, b, c and 12 more."""
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")
