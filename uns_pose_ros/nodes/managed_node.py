"""The lifecycle node that both nodes extend, and the process that runs it.

The node has parameters, lifecycle transitions and diagnostics. The process runs until a signal and
returns an exit code.
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
from rclpy.exceptions import NotInitializedException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.nodes import parameter_declaration
from uns_pose_ros.nodes.diagnostics import ERROR, OK, WARN, NodeDiagnostics, cut_text
from uns_pose_ros.nodes.steady_executor import SteadyExecutor

PERIOD = 1.0  # s between two diagnostics
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class ManagedNode(LifecycleNode, ABC):
    """A lifecycle node with parameters from dataclasses and with diagnostics every PERIOD."""

    def __init__(
        self,
        name: str,
        settings: Sequence[type],
        diagnostics: NodeDiagnostics,
        **options: Any,
    ) -> None:
        """Declare the parameters; raises if one of them is not valid.

        Args:
            name: Name of the node.
            settings: Dataclasses whose fields are the parameters.
            diagnostics: Counters and conditions of the node.
            options: Options of rclpy's Node.
        """
        super().__init__(name, **options)
        self._diagnostics = diagnostics
        self._kinds = tuple(settings)
        self._names = parameter_declaration.names(*settings)
        deprecated = []
        for kind in settings:
            deprecated += parameter_declaration.declare(self, kind)
            parameter_declaration.read(self, kind)
        self._unknown_parameters = parameter_declaration.unknown_overrides(self, *settings)
        for warning in [*deprecated, *self._unknown_parameters]:
            self.get_logger().warning(warning)
        self._apply_settings(())
        self.add_on_set_parameters_callback(self._on_parameters)
        self._diagnostics_publisher = self.create_publisher(
            DiagnosticArray, "/diagnostics", 10
        )
        self._timer = self.create_timer(
            PERIOD, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        backward = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
        )
        self._jump = self.get_clock().create_jump_callback(
            backward, post_callback=lambda jump: self._on_jump()
        )

    # What each node defines

    @property
    @abstractmethod
    def autostart(self) -> bool:
        """Whether the node configures and activates itself."""

    @abstractmethod
    def close(self) -> None:
        """Stop everything that runs; called at deactivation and before the node is destroyed.

        A second call does nothing.
        """

    @abstractmethod
    def _release(self) -> None:
        """Release what `configure` has made."""

    @abstractmethod
    def _tick(self) -> None:
        """Publish diagnostics; called every PERIOD."""

    @abstractmethod
    def _on_jump(self) -> None:
        """React to a ROS time that has jumped back."""

    @abstractmethod
    def _reject_reason(self, names: Sequence[str]) -> str:
        """Return why these parameters cannot be set now; empty if they can."""

    @abstractmethod
    def _apply_settings(self, changed: Sequence[Parameter]) -> None:
        """Read the settings, with the parameters that are about to change.

        Raises InvalidInput if one is not valid, and changes nothing then.
        """

    # What all nodes share

    def start(self) -> bool:
        """Configure and activate, as a lifecycle manager does; False on failure."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop everything that runs."""
        self.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release what `configure` has made."""
        self._release()
        self._diagnostics.clear()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop everything that runs and release what `configure` has made."""
        self.close()
        if state.label != "unconfigured":
            self._release()
            self._diagnostics.clear()
        return super().on_shutdown(state)

    def set_parameters(
        self, parameter_list: Sequence[Parameter]
    ) -> list[SetParametersResult]:
        """Set parameters one after another."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(
        self, parameter_list: Sequence[Parameter]
    ) -> SetParametersResult:
        """Set all parameters or none; services and rclpy's `set_parameters` use it too.

        A value that a parameter has already is accepted in every state, also if the parameter is
        read only, so that what `ros2 param dump` writes can be loaded again.
        """
        reason = parameter_declaration.unknown_names(
            self, [parameter.name for parameter in parameter_list], *self._kinds
        )
        if reason:
            return SetParametersResult(successful=False, reason=reason)
        fitting = [parameter_declaration.fit(self, given) for given in parameter_list]
        changed = [
            parameter
            for parameter in fitting
            if not parameter_declaration.is_present(self, parameter)
        ]
        if not changed:
            return SetParametersResult(successful=True)
        result: SetParametersResult = super().set_parameters_atomically(changed)
        return result

    def _on_parameters(self, changed: Sequence[Parameter]) -> SetParametersResult:
        ours = [parameter for parameter in changed if parameter.name in self._names]
        names = [parameter.name for parameter in ours]
        reason = self._reject_reason(names) if ours else ""
        if "autostart" in names:
            reason = (
                "autostart: read at the start of the process only; start the node again"
            )
        try:
            if ours and not reason:
                self._apply_settings(ours)
        except (InvalidInput, ValueError) as error:
            reason = one_line(error)
        return SetParametersResult(successful=not reason, reason=reason)

    def _guarded(self, work: Callable[[], None], failure: str) -> None:
        """Process one image; an error is counted and reported and does not end the node.

        Args:
            work: The function processes the image.
            failure: Reason of the drop after an unexpected error.
        """
        try:
            work()
        except InvalidInput as error:
            self._diagnostics.unusable(one_line(error))
            self._report_error("input", one_line(error))
        except Exception as error:
            if self.context.ok():  # else the process ends
                self._diagnostics.dropped(failure)
                self._report_error("input", f"{failure}: {one_line(error)}")
        else:
            self._diagnostics.condition("input", OK, "")

    def _report_error(self, key: str, text: str) -> None:
        """Report an error that lasts until the next success.

        The log has it once, the diagnostics have it as long as it lasts.
        """
        self._diagnostics.failed(text)
        if self._diagnostics.condition(key, ERROR, text) and self.context.ok():
            self.get_logger().error(cut_text(text))

    def report_callback(self, where: str, error: Exception) -> None:
        """Count and report an error of a callback, which does not end the node.

        Args:
            where: Name of the topic or the service, or "a callback".
            error: The error.
        """
        self._diagnostics.dropped("a message broke its callback")
        text = f"{where}: {one_line(error)}"
        self._diagnostics.failed(text)
        self.get_logger().error(text, throttle_duration_sec=10.0)

    def set_warning(self, key: str, text: str) -> None:
        """Set a condition of the diagnostics and log it once; an empty text clears it."""
        if self._diagnostics.condition(key, WARN if text else OK, text):
            self.get_logger().warning(cut_text(text))

    def _describe_namesakes(self) -> str:
        """Say that other nodes of the ROS graph have this node's full name; empty if none has."""
        name = self.get_fully_qualified_name()
        count = self.get_fully_qualified_node_names().count(name)
        if count < 2:
            return ""
        return (
            f"{count} nodes are named {name}: their services and results mix; give each a "
            "namespace or a name of its own (a killed node counts for some seconds)"
        )

    def _diagnose(self, task: str, device: str, facts: dict[str, str]) -> DiagnosticStatus:
        """Publish the diagnostics and return their status.

        Args:
            task: What the node does; part of the name of the status.
            device: cpu or a CUDA device.
            facts: Further values of the node.
        """
        for warning in self._unknown_parameters:  # `clear` at configure deletes conditions
            self._diagnostics.condition(warning, WARN, warning)
        self.set_warning("namesakes", self._describe_namesakes())
        facts = {"state": self._state_machine.current_state[1], **facts}
        name = self.get_fully_qualified_name().lstrip("/")
        status = self._diagnostics.status(f"{name}: {task}", device, facts)
        message = DiagnosticArray(status=[status])
        with contextlib.suppress(AssertionError, OverflowError):  # /clock may be past 2038
            message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)
        return status


def share_memory_pools() -> None:
    """Limit glibc to two memory pools; call this before the process has threads.

    With a pool of its own, each thread would keep the memory of the most images that it ever held:
    tens of megabytes for each thread.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX


def spin_node(
    name: str, make: Callable[[], ManagedNode], args: list[str] | None = None
) -> int:
    """Run a node until a signal.

    Args:
        name: Name of the program in messages.
        make: The function makes the node.
        args: Arguments of ROS, with the name of the program first; None: those of the process.

    Returns:
        Exit code 0, or 2 if a parameter is not valid.
    """
    share_memory_pools()
    # rclpy's handler ends the spinning. Python's KeyboardInterrupt would come in addition: inside
    # C++ code it becomes any other error.
    interrupted = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.set())
    node = None
    try:
        rclpy.init(args=args)
    # rcl cannot read the arguments or the parameter file
    except RuntimeError as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 2
    try:
        if interrupted.is_set():  # before rclpy had installed its handler
            return 0
        node = make()
        if node.autostart:
            node.start()
        if rclpy.ok():  # else the executor complains
            rclpy.spin(node, SteadyExecutor(node.report_callback))
    except (ParameterException, InvalidInput) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except (ExternalShutdownException, NotInitializedException, RuntimeError):
        # a signal is the usual end of a node; it may come while the node is made or publishes
        if rclpy.ok():
            raise
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def one_line(error: Exception) -> str:
    """Format an error as one line; an error that is not InvalidInput begins with its type."""
    text = " ".join(str(error).split()) or "no message"
    return cut_text(
        text if isinstance(error, InvalidInput) else f"{type(error).__name__}: {text}"
    )
