"""The stamps of images: as a number, and in which order they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.time import Time


def stamp_ns(message: Any) -> int:
    """Stamp of a message that has a header, ns."""
    return int(Time.from_msg(message.header.stamp).nanoseconds)


class StampOrder:
    """Compares the stamp of each image with that of the image before."""

    def __init__(self) -> None:
        """Expect any stamp."""
        self._last = -1  # ns

    def forget(self) -> None:
        """Expect any stamp again."""
        self._last = -1

    def advance(self, stamp: int, on_jump_back: Callable[[], None]) -> bool:
        """Take the stamp of the next image.

        Args:
            stamp: Stamp of the image, ns.
            on_jump_back: The function is called first if the stamp is earlier than the last one.

        Returns:
            False if the image has the same stamp as the one before.
        """
        if stamp == self._last:
            return False
        if stamp < self._last:
            on_jump_back()
        self._last = stamp
        return True
