"""What a reader leaves out, counted by reason, so that nothing is dropped without a word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from uns_pose_ros.core.errors import make_printable

_MAX_EXAMPLES = 3
_NUMBER = re.compile(r"(?<![\w'./])[-+]?[0-9]+(\.[0-9]+)?(?![\w'])")  # none in a name


@dataclass
class LeftOut:
    """Counts by reason, with the first examples of each.

    A reason is a plural: "images whose file is missing".
    """

    counts: dict[str, int] = field(default_factory=dict)
    _examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: str = "") -> None:
        """Count something that is left out; `example` names it."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self._examples.setdefault(reason, [])
        if example and len(examples) < _MAX_EXAMPLES:
            examples.append(example)

    def add_error(self, what: str, text: str) -> None:
        """Count something of kind `what` that an error left out.

        Errors that differ in numbers only are one reason.
        """
        reason = f"{what}: {without_numbers(text)}"
        new = reason not in self.counts
        self.add(reason, text if new and _NUMBER.search(text) else "")

    def extend(self, other: LeftOut) -> None:
        """Add everything that another reader left out."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            examples = self._examples.get(reason, []) + other._examples.get(reason, [])
            self._examples[reason] = examples[:_MAX_EXAMPLES]

    def lines(self) -> list[str]:
        """One line a reason: "images whose file is missing: 4 (a.jpg; b.jpg; c.jpg; …)"."""
        return [
            make_printable(
                f"{reason}: {count}{_in_brackets(self._examples.get(reason, ()), count)}"
            )
            for reason, count in self.counts.items()
        ]

    def __bool__(self) -> bool:
        return bool(self.counts)


def without_numbers(text: str) -> str:
    """The text with … for its numbers: errors that differ in numbers only are one reason.

    Numbers that are part of a name stay.
    """
    return _NUMBER.sub("…", text)


def _in_brackets(examples: Sequence[str], count: int) -> str:
    more = "; …" if count > len(examples) else ""
    return f" ({'; '.join(examples)}{more})" if examples else ""
