"""Whether the stamps of images are times: what all readers of images do where they are not.

A negative stamp is no time, and other nodes fail on it: such an image is left out. Stamp 0 and a
stamp that stands still say nothing of time: such an image counts, with a warning, where no time is
needed, and is left out where a pose from transforms or a message of the same stamp is needed. A
stamp that goes back begins a new part of time.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum


class StampFault(str, Enum):
    """What is wrong with a stamp; the value is the reason for people."""

    NEGATIVE = "negative stamp"
    ZERO = "stamp 0"
    REPEATED = "stamp seen before"
    BACK = "stamp earlier than that of the image before"
    FUTURE = "stamp later than its arrival"


# images of one stamp from which on it stands still; two are one that came twice
_STANDING = 3
_EARLY = 10 * 10**9  # ns that a stamp may be later than the clock of the receiver


def why_no_time(fault: StampFault | None) -> str:
    """Why a stamp cannot say which transform or depth belongs to it; empty if it can."""
    if fault is None or fault in (StampFault.BACK, StampFault.FUTURE):
        return ""
    return fault.value


class ImageStamps:
    """Compares the stamp of each image with that of the image before, and counts the faults."""

    def __init__(self) -> None:
        """Expect any stamp."""
        self.counts: Counter[StampFault] = Counter()
        self.images = 0
        self._last: int | None = None  # ns
        self._same = 0  # images with the last stamp
        self._first_arrival = 0  # ns, of the first image with the last stamp
        self._time = 0

    def forget(self) -> None:
        """Expect any stamp again."""
        self._last = None

    def goes_back(self, stamp: int) -> bool:
        """Whether a stamp, ns, is earlier than the last one."""
        return self._last is not None and stamp < self._last

    def take(self, stamp: int, arrival: int) -> StampFault | None:
        """Take the stamp of the next image.

        Args:
            stamp: Stamp of the image, ns.
            arrival: When the image came, ns, by a clock that advances.

        Returns:
            What is wrong with it; None: it is later than the one before, or the first.
        """
        self.images += 1
        fault = self._fault(stamp)
        if fault is not None:
            self.counts[fault] += 1
        if fault == StampFault.NEGATIVE:
            return fault
        if stamp == self._last:
            self._same += 1
        else:
            self._same, self._first_arrival = 1, arrival
        self._last = stamp
        self._time = stamp + max(arrival - self._first_arrival, 0)
        return fault

    def compare_with_clock(self, stamp: int, clock: int) -> bool:
        """Count a stamp that is later than the receiver's clock, ns; return whether it is."""
        late = stamp > clock + _EARLY
        self.counts[StampFault.FUTURE] += late
        return late

    @property
    def stands_still(self) -> bool:
        """Whether the last stamp is 0, or that of several images in a row."""
        return self._last == 0 or self._same >= _STANDING

    @property
    def time(self) -> int:
        """A time of the last image for a tracker, ns: its stamp, and arrivals if that stands."""
        return self._time

    def summary(self) -> str:
        """The faults with their counts, for people; empty without any."""
        return ", ".join(
            f"{count} of {self.images} images have a {fault.value}"
            for fault, count in self.counts.items()
            if count and fault != StampFault.NEGATIVE
        )

    def _fault(self, stamp: int) -> StampFault | None:
        if stamp < 0:
            return StampFault.NEGATIVE
        if stamp == 0:
            return StampFault.ZERO
        if self._last is None or stamp > self._last:
            return None
        return StampFault.REPEATED if stamp == self._last else StampFault.BACK
