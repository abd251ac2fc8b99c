"""The stamps of images in a live node: as a number, and what diagnostics say of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from uns_pose_ros.io.ros.image_stamps import ImageStamps, StampFault
from uns_pose_ros.io.ros.ros_messages import nanoseconds

WINDOW = 10.0  # s for which a fault is shown
_TEXTS = {
    StampFault.NEGATIVE: "a negative stamp: they are dropped",
    StampFault.ZERO: "stamp 0: the driver does not stamp them",
    StampFault.REPEATED: "the stamp of the image before: it does not advance",
    StampFault.BACK: "an earlier stamp than the image before: tracks begin anew",
    StampFault.FUTURE: "a stamp later than this node's clock: is use_sim_time right?",
}


def stamp_ns(message: Any) -> int:
    """Stamp of a message that has a header, ns; it may be negative."""
    return nanoseconds(message.header.stamp)


class StampWatch:
    """Notices stamps that are no times, among all images that come."""

    def __init__(self) -> None:
        """Begin without images."""
        self._stamps = ImageStamps()
        self._seen: dict[StampFault, float] = {}  # s, monotonic, of the last image with it
        self._repeated = False

    def take(self, stamp: int, clock: int) -> bool:
        """Take the stamp of the next image, ns.

        Args:
            stamp: Stamp, ns.
            clock: Time of the node's clock, ns; 0: it does not run yet.

        Returns:
            Whether the stamp is negative, so that the image cannot be used.
        """
        now = time.monotonic()
        fault = self._stamps.take(stamp, time.monotonic_ns())
        if fault is not None and (
            fault != StampFault.REPEATED or self._stamps.stands_still
        ):
            self._seen[fault] = now
        if clock > 0 and self._stamps.compare_with_clock(stamp, clock):
            self._seen[StampFault.FUTURE] = now
        return fault == StampFault.NEGATIVE

    def report(self, topic: str) -> str:
        """What is wrong with the stamps of the last seconds, for people; empty: nothing."""
        now = time.monotonic()
        recent = [
            _TEXTS[f] for f, seen in sorted(self._seen.items()) if now - seen < WINDOW
        ]
        return f"images on {topic} have {'; '.join(recent)}" if recent else ""

    def counts(self) -> dict[str, int]:
        """Number of images by what is wrong with their stamps."""
        return {
            f"images with {fault.value}": count
            for fault, count in self._stamps.counts.items()
            if count
        }


class StampOrder:
    """Decides which images are processed, by their stamps."""

    def __init__(self) -> None:
        """Expect any stamp."""
        self._stamps = ImageStamps()

    def forget(self) -> None:
        """Expect any stamp again."""
        self._stamps.forget()

    @property
    def is_time(self) -> bool:
        """Whether the stamp of the last image says something of time."""
        return not self._stamps.stands_still

    @property
    def time(self) -> int:
        """The time of the last image for a tracker, ns; it advances where the stamps do not."""
        return self._stamps.time

    def advance(self, stamp: int, on_jump_back: Callable[[], None]) -> bool:
        """Take the stamp of the next image.

        Args:
            stamp: Stamp of the image, ns.
            on_jump_back: The function is called first if the stamp is earlier than the last one.

        Returns:
            False if the image came twice: it has the stamp of the one before, which does not
            stand still.
        """
        if self._stamps.goes_back(stamp):
            on_jump_back()
        fault = self._stamps.take(stamp, time.monotonic_ns())
        return fault != StampFault.REPEATED or self._stamps.stands_still
