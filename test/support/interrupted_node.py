"""Programs that start a node and wait for a signal at a stage of the start.

So a test interrupts the node at a known stage, however slow the machine is.
"""

from __future__ import annotations

# each stage with the function that is called there; None: the import of rclpy
_FUNCTIONS = {
    "import": None,
    "init": "rclpy.init",
    "make": "uns_pose_ros.nodes.managed_node.ManagedNode.__init__",
    "start": "uns_pose_ros.nodes.managed_node.ManagedNode.start",
    "spin": "rclpy.executors.SingleThreadedExecutor.spin_once",
}
STAGES = tuple(_FUNCTIONS)
_PROGRAM = """
import os, pkgutil, select, signal, sys
from importlib.abc import MetaPathFinder
from uns_pose_ros.nodes import entry_points

readable, writable = os.pipe()
os.set_blocking(writable, False)
signal.set_wakeup_fd(writable)

def wait_for_signal():
    print({stage!r}, flush=True)
    if {stage!r} != "spin":  # spin_once itself waits
        select.select([readable], [], [], 60.0)

class WaitingFinder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "rclpy":
            wait_for_signal()

def wrap(function):
    def wrapper(*args, **options):
        wait_for_signal()
        return function(*args, **options)
    return wrapper

if {function!r} is None:
    sys.meta_path.insert(0, WaitingFinder())
else:
    owner, _, name = {function!r}.rpartition(".")
    owner = pkgutil.resolve_name(owner)
    setattr(owner, name, wrap(getattr(owner, name)))
if {node!r} == "recorder":
    sys.argv.insert(1, "recorder")
sys.exit(entry_points.bringup())
"""


def stop_at(node: str, stage: str) -> str:
    """Return the Python program that starts a node and waits at a stage.

    Args:
        node: estimator or recorder.
        stage: One of STAGES; the program prints it when it waits.
    """
    return _PROGRAM.format(node=node, stage=stage, function=_FUNCTIONS[stage])
