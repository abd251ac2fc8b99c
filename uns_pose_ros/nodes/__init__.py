"""The only package that imports ROS: nodes, messages, launch helpers and a client for other nodes.

Other ROS packages use two names, which are imported when they are first used:

    from uns_pose_ros.nodes import ObjectPose, PoseClient
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uns_pose_ros.nodes.pose_client import ObjectPose, PoseClient

__all__ = ["ObjectPose", "PoseClient"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.pose_client"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names and what is loaded."""
    return sorted({*globals(), *__all__})
