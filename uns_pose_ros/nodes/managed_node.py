"""How a node of ours lives.

Parameters, lifecycle, diagnostics; and its process: until a signal, with an exit code.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.nodes import parameter_declaration
from uns_pose_ros.nodes.diagnostics import ERROR, OK, NodeDiagnostics

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class ManagedNode(LifecycleNode, ABC):
    """A lifecycle node made from dataclasses of settings, with diagnostics once a second, that
    starts itself where asked.
    """

    def __init__(
        self, name: str, settings: Sequence[type], diagnostics: NodeDiagnostics, **options: Any
    ) -> None:
        """options: those of rclpy's Node. Raises where a parameter is not valid."""
        super().__init__(name, **options)
        self._diagnostics = diagnostics
        self._names = parameter_declaration.names(*settings)
        for kind in settings:
            parameter_declaration.declare(self, kind)
            parameter_declaration.read(self, kind)
        self._apply_settings(())
        self.add_on_set_parameters_callback(self._on_parameters)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = self.create_timer(
            1.0, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        backward = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
        )
        self._jump = self.get_clock().create_jump_callback(
            backward, post_callback=lambda jump: self._on_jump()
        )

    # What a node of ours says of itself

    @property
    @abstractmethod
    def autostart(self) -> bool:
        """Whether it is to be configured and activated at once."""

    @abstractmethod
    def close(self) -> None:
        """Stop what runs; called at deactivation, and before the node is destroyed.

        May be called again.
        """

    @abstractmethod
    def _release(self) -> None:
        """Give back what configure has made."""

    @abstractmethod
    def _tick(self) -> None:
        """Once a second."""

    @abstractmethod
    def _on_jump(self) -> None:
        """ROS time has jumped back."""

    @abstractmethod
    def _reject_reason(self, names: Sequence[str]) -> str:
        """Why these parameters may not be set now, empty where they may."""

    @abstractmethod
    def _apply_settings(self, changed: Sequence[Parameter]) -> None:
        """Read the settings with those about to be set.

        Raises InvalidInput, and changes nothing, where one is not valid.
        """

    # What all have

    def start(self) -> bool:
        """Configure and activate, as a lifecycle manager would; False where it cannot."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._diagnostics.clear()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        if state.label != "unconfigured":
            self._release()
            self._diagnostics.clear()
        return super().on_shutdown(state)

    def _on_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        ours = [parameter for parameter in changed if parameter.name in self._names]
        reason = self._reject_reason([parameter.name for parameter in ours]) if ours else ""
        try:
            if ours and not reason:
                self._apply_settings(ours)
        except (InvalidInput, ValueError) as error:
            reason = one_line(error)
        return SetParametersResult(successful=not reason, reason=reason)

    def _guarded(self, work: Callable[[], None], failure: str) -> None:
        """Work on one picture.

        What goes wrong with it is counted and told, and does not end the node.
        """
        try:
            work()
        except InvalidInput as error:
            self._diagnostics.dropped("unusable image or camera_info")
            self._report_error("input", one_line(error))
        except Exception as error:
            if self.context.ok():  # else the process ends
                self._diagnostics.dropped(failure)
                self._report_error("input", f"{failure}: {one_line(error)}")
        else:
            self._diagnostics.condition("input", OK, "")

    def _report_error(self, key: str, text: str) -> None:
        """An error that lasts until the next success.

        To the log once, to diagnostics as long as it lasts.
        """
        self._diagnostics.failed(text)
        if self._diagnostics.condition(key, ERROR, text) and self.context.ok():
            self.get_logger().error(text)

    def _diagnose(self, task: str, device: str, facts: dict[str, str]) -> DiagnosticStatus:
        """Publish how the node is, under its name and its task."""
        facts = {"state": self._state_machine.current_state[1], **facts}
        name = self.get_fully_qualified_name().lstrip("/")
        status = self._diagnostics.status(f"{name}: {task}", device, facts)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)
        return status


def share_memory_pools() -> None:
    """Let all threads of the process use two of glibc's memory pools.

    To be called before there are threads.

    In a pool of its own each would keep the room of the most pictures it ever held, tens of
    megabytes a thread.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX


def spin_node(name: str, make: Callable[[], ManagedNode], args: list[str] | None = None) -> int:
    """Spin the node that `make` gives until a signal.

    Exit code 0, or 2 where a parameter is not valid.
    """
    share_memory_pools()
    # rclpy's handler ends the spinning; Python's KeyboardInterrupt on top of it may strike inside
    # C++ and surface as anything
    interrupted = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.set())
    node = None
    try:
        rclpy.init(args=args)
    except (
        RuntimeError
    ) as error:  # of rcl: arguments or a parameter file that cannot be read
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 2
    try:
        if interrupted.is_set():  # before rclpy's handler was there
            return 0
        node = make()
        if node.autostart:
            node.start()
        rclpy.spin(node)
    except (ParameterException, InvalidInput) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except (ExternalShutdownException, RuntimeError):
        # else a signal, the ordinary end of a node, came while the node was being made or published
        if rclpy.ok():
            raise
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def one_line(error: Exception) -> str:
    """An error as one line: its text alone where it is the user's, else with its kind."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InvalidInput) else f"{type(error).__name__}: {text}"
