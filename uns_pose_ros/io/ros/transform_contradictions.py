"""Where transforms contradict each other: what tf2 takes without a word, and a report counts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_AT_ONCE = 10**9  # ns within which a frame that returns to a parent has two of them at once
_APART = 0.05  # m between two places that a frame changes by turns
_SHARE = (
    0.1  # of the messages that change the place by turns, above which there are two sources
)


@dataclass
class _Frame:
    """What has come of a moving frame."""

    parent: str = ""
    left: dict[str, int] = field(
        default_factory=dict
    )  # ns, stamp of the last pose in a parent
    places: list[Floats] = field(default_factory=list)  # the last two translations (3,), m
    messages: int = 0
    returns: int = 0  # to the place before the last one


class Contradictions:
    """Counts contradictions by what they are; the owner guards it against other threads."""

    def __init__(self) -> None:
        """Begin without any."""
        self._counts: Counter[str] = Counter()
        self._frames: dict[str, _Frame] = {}

    def counts(self) -> dict[str, int]:
        """How often each contradiction came."""
        counts = dict(self._counts)
        for child, frame in self._frames.items():
            if frame.returns > max(3, _SHARE * frame.messages):
                counts[f"'{child}' jumps between two places: has it two publishers?"] = (
                    frame.returns
                )
        return counts

    def forget_history(self) -> None:
        """Compare nothing with what came before: time has jumped back."""
        for frame in self._frames.values():
            frame.left.clear()
            frame.places.clear()

    def static_and_moving(self, child: str) -> None:
        """A static frame came as a moving one, or the reverse."""
        self._counts[f"'{child}' is static and moving by turns; the last one counts"] += 1

    def static_redefined(self, child: str, old: str, new: str) -> None:
        """A static frame got another pose."""
        where = f"in '{new}'" if old == new else f"in '{old}' and '{new}'"
        self._counts[
            f"static '{child}' has several poses {where}; the last one counts"
        ] += 1

    def two_poses(self, child: str) -> None:
        """A moving frame got another pose for a stamp."""
        self._counts[f"'{child}' has two poses of one stamp; the last one counts"] += 1

    def moves(self, child: str, stamp: int, parent: str, translation: Floats) -> None:
        """Take the stamp (ns), the parent and the translation (3,), m, of a moving frame."""
        frame = self._frames.setdefault(child, _Frame())
        frame.messages += 1
        if parent != frame.parent:
            before = frame.left.get(parent)
            if before is not None and abs(stamp - before) < _AT_ONCE:
                pair = " and in ".join(
                    f"'{name}'" for name in sorted((parent, frame.parent))
                )
                self._counts[f"'{child}' is in {pair} at once"] += 1
            frame.places.clear()
        elif len(frame.places) == 2:
            first, second = frame.places
            there, back = math.dist(first, second), math.dist(second, translation)
            if min(there, back) > max(_APART, 5 * math.dist(first, translation)):
                frame.returns += 1
        frame.parent = parent
        frame.left[parent] = stamp
        frame.places = [*frame.places[-1:], translation]
