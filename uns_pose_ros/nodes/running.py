"""How a node of ours lives as a process: until a signal, with an exit code and one line where it cannot be started."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from typing import Protocol

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException

from uns_pose_ros.datatypes import InvalidInput


class Startable(Protocol):
    """What `run` needs of a node besides what rclpy does."""

    @property
    def autostart(self) -> bool: ...

    def start(self) -> bool: ...

    def close(self) -> None: ...

    def destroy_node(self) -> None: ...


def run(name: str, make: Callable[[], Startable], args: list[str] | None = None) -> int:
    """Spin the node that `make` gives until a signal; exit code 0, or 2 where a parameter is not valid."""
    # rclpy's handler ends the spinning; Python's KeyboardInterrupt on top of it may strike inside C++ and surface as anything
    interrupted = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.set())
    node = None
    try:
        rclpy.init(args=args)
    except RuntimeError as error:  # of rcl: arguments or a parameter file that cannot be read
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 2
    try:
        if interrupted.is_set():  # before rclpy's handler was there
            return 0
        node = make()
        if node.autostart:
            node.start()
        rclpy.spin(node)  # type: ignore[arg-type]  # a Node besides
    except (ParameterException, InvalidInput) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except (ExternalShutdownException, RuntimeError):
        if rclpy.ok():  # else a signal, the ordinary end of a node, came while the node was being made or published
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
