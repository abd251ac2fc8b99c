"""An executor that no message ends: what a callback or a broken message raises is reported.

rclpy ends the spinning at any exception of a callback. A message that cannot be read, such as a
string that is not UTF-8, moreover leaves the whole node deaf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import NotInitializedException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

# what ends the spinning: they come with a signal
_ENDINGS = (ExternalShutdownException, NotInitializedException)


class SteadyExecutor(SingleThreadedExecutor):
    """Runs callbacks in the thread that spins, and goes on after any error of one."""

    def __init__(
        self, report: Callable[[str, Exception], None], context: Context | None = None
    ) -> None:
        """Begin without nodes.

        Args:
            report: The function is called with the name of a topic or service, or with
                "a callback", and the error.
            context: Context of rclpy; None: the default one.
        """
        super().__init__(context=context)
        self._report = report

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run one callback; an error is reported."""
        try:
            super().spin_once(timeout_sec)
        except _ENDINGS:
            raise
        except Exception as error:
            if not self.context.ok():
                raise
            self._report("a callback", error)

    def _take_subscription(self, sub: Any) -> Any:
        return self._take(super()._take_subscription, sub, lambda: sub.topic_name)

    def _take_service(self, srv: Any) -> Any:
        return self._take(super()._take_service, srv, lambda: srv.srv_name)

    def _take(
        self, take: Callable[[Any], Any], entity: Any, name: Callable[[], str]
    ) -> Any:
        """Take a message, or None where it cannot be read."""
        try:
            return take(entity)
        except _ENDINGS:
            raise
        except Exception as error:
            if not self.context.ok():
                raise
            self._report(name(), error)
            return None
