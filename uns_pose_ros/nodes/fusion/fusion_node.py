"""The fusion node: the objects that the estimators of several cameras see, in one fixed frame.

Each camera has an estimator node of its own, in a namespace. This node subscribes to their
detections and to /tf, matches the objects across the cameras, weighs their possible poses together,
and publishes each object once: /tf with its named frames, ~/detections, ~/poses, ~/grasps,
~/markers and diagnostics. A camera that fails is left out until it is back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time
from rclpy.timer import Timer
from std_msgs.msg import Header
from torch import Tensor

from uns_pose_ros.estimation.cameras.camera_fusion import (
    CameraFusion,
    CameraFusionConfig,
    CameraView,
    FusedObject,
    is_recent,
)
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.io.ros.transform_buffer import TransformTree
from uns_pose_ros.nodes import managed_node, parameter_declaration
from uns_pose_ros.nodes.diagnostics import OK, WARN, NodeDiagnostics
from uns_pose_ros.nodes.fusion.camera_input import CameraInput
from uns_pose_ros.nodes.fusion.fused_publishers import FusedPublishers
from uns_pose_ros.nodes.fusion.fusion_parameters import (
    AT_ACTIVATION,
    SETTINGS,
    FusionParameters,
)
from uns_pose_ros.nodes.image_stamps import stamp_ns
from uns_pose_ros.nodes.managed_node import FAILURE, ManagedNode
from uns_pose_ros.nodes.ros_compat import TransformBroadcaster
from uns_pose_ros.nodes.tf_listener import TransformListener, report_faults

_LEAST_OFFSET = 0.05  # s, difference of clocks that is reported at least


class FusionNode(ManagedNode):
    """Publishes every object that at least one camera sees, once."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; raises if one of them is not valid.

        Args:
            options: Options of rclpy's Node.
        """
        self._fusion = CameraFusion()
        self._inputs: list[CameraInput] = []
        self._out: FusedPublishers | None = None
        super().__init__(
            "fusion", SETTINGS, NodeDiagnostics("results published", "fusion"), **options
        )
        self._broadcaster = TransformBroadcaster(self)
        self._tree = TransformTree()
        self._listener: TransformListener | None = None
        self._fusing: Timer | None = None
        self._newest = -1  # ns, stamp of the last results
        self._is_new = False  # whether a message has come since
        self._objects: list[FusedObject] = []

    @property
    def autostart(self) -> bool:
        """Whether the node configures and activates itself."""
        return self._settings.autostart

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the settings and make the publishers."""
        self._diagnostics.clear()
        missing = [
            text
            for text, given in (
                (
                    "cameras: the namespaces of the estimators, e.g. [left, right]",
                    self._settings.camera_names,
                ),
                (
                    "fixed_frame: a frame of TF that does not move, e.g. odom",
                    self._settings.fixed_frame,
                ),
            )
            if not given
        ]
        if missing:
            self._report_error("configure", f"cannot configure: set {'; '.join(missing)}")
            return FAILURE
        self._out = FusedPublishers(self, self._broadcaster)
        cameras = ", ".join(self._settings.camera_names)
        self.get_logger().info(f"fuses {cameras} in {self._settings.fixed_frame}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        result = super().on_activate(state)
        self._forget("activated")
        self._listener = TransformListener(self, self._tree)
        self._inputs = [
            CameraInput(self, name, self._on_message, self._on_jump_back)
            for name in self._settings.camera_names
        ]
        self._fusing = self.create_timer(
            1 / self._settings.rate,
            lambda: self._guarded(self._fuse, "fusion failed"),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        return result

    def close(self) -> None:
        """Unsubscribe."""
        for source in self._inputs:
            source.close()
        self._inputs = []
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._fusing is not None:
            self.destroy_timer(self._fusing)
            self._fusing = None

    def _release(self) -> None:
        if self._out is not None:
            self._out.close()
            self._out = None

    # Fusion

    def _on_message(self) -> None:
        self._is_new = True
        self._diagnostics.received()

    def _on_jump_back(self) -> None:
        self._forget("the stamps of a camera jumped back")

    def _on_jump(self) -> None:
        self._forget("time jumped back")

    def _forget(self, reason: str) -> None:
        """Forget all objects, messages and transforms."""
        self._fusion.reset()
        self._tree.clear()
        self._newest = -1
        self._objects = []
        if self._out is not None:
            self._out.clear()
        for source in self._inputs:
            source.forget()
        self.get_logger().info(f"objects forgotten: {reason}")

    def _fuse(self) -> None:
        """Fuse the newest results of all cameras, if one of them is new."""
        if not self._is_new:
            return
        self._is_new = False
        began = time.monotonic()
        messages = [source.message for source in self._inputs if source.message is not None]
        if not messages:
            return
        newest = max(stamp_ns(message) for message in messages)
        views = []
        centers: dict[str, list[tuple[float, Tensor]]] = {}
        for source in self._inputs:
            view = self._view(source, newest, centers)
            if view is not None:
                views.append(view)
        if not views:
            return
        stamp = max(view.stamp for view in views)
        if (
            stamp <= self._newest
        ):  # no transform twice with one stamp, and none that goes back
            self._is_new = True
            return
        self._newest = stamp
        self._objects = self._fusion.update(views)
        self._publish(stamp, centers)
        now = self.get_clock().now().nanoseconds
        self._diagnostics.published((now - stamp) / 1e9, time.monotonic() - began)

    def _view(
        self,
        source: CameraInput,
        newest: int,
        centers: dict[str, list[tuple[float, Tensor]]],
    ) -> CameraView | None:
        """Convert the newest message of a camera; None where it cannot be used now.

        Args:
            source: The camera.
            newest: Newest stamp of all cameras, ns.
            centers: Receives the score and the center (3,) of every box, by category.
        """
        message = source.message
        if message is None:
            return None
        stamp = stamp_ns(message)
        if not is_recent(stamp, newest, self._matching):
            if source.silence < self._settings.outage:
                self._diagnostics.dropped(f"{source.camera}: older than max_difference")
            return None
        estimates, tracks, boxes = source.estimates(self._settings.min_score)
        frame = message.header.frame_id.lstrip("/")
        if not frame:
            # a camera without objects may have no frame
            return CameraView(source.camera, stamp, torch.eye(4).double(), (), ())
        fixed_from_cam = self._tree.lookup(
            self._settings.fixed_frame.lstrip("/"), frame, stamp
        )
        key = f"transform of {source.camera}"
        if isinstance(fixed_from_cam, str):
            if source.left_out != stamp:
                source.left_out = stamp
                self._diagnostics.dropped(f"{source.camera}: no transform")
            if source.silence < self._settings.outage:
                self._is_new = True  # the transform may come after the results
            self.set_warning(key, f"{source.camera} is left out: {fixed_from_cam}")
            return None
        self.set_warning(key, "")
        for estimate, box in zip(estimates, boxes, strict=True):
            centers.setdefault(estimate.category, []).append((estimate.score, box))
        return CameraView(
            source.camera,
            stamp,
            torch.from_numpy(fixed_from_cam),
            tuple(estimates),
            tuple(tracks),
        )

    def _publish(self, stamp: int, centers: dict[str, list[tuple[float, Tensor]]]) -> None:
        header = Header(frame_id=self._settings.fixed_frame.lstrip("/"))
        header.stamp = Time(nanoseconds=stamp).to_msg()
        estimates = [each.estimate for each in self._objects]
        numbers = [each.number for each in self._objects]
        middles = [
            max(centers[estimate.category], key=lambda entry: entry[0])[1]
            for estimate in estimates
        ]
        assert self._out is not None
        self._out.publish(header, estimates, numbers, middles, self._settings.frame_prefix)

    # Everything else

    def _reject_reason(self, names: Sequence[str]) -> str:
        fixed = [name for name in names if name in AT_ACTIVATION]
        if fixed and self._inputs:
            return f"{', '.join(fixed)}: read by activate only; deactivate the node first"
        return ""

    def _apply_settings(self, changed: Sequence[Parameter]) -> None:
        settings = parameter_declaration.read(self, FusionParameters, changed)
        matching = parameter_declaration.read(self, CameraFusionConfig, changed)
        filtering = parameter_declaration.read(self, FusionConfig, changed)
        self._settings, self._matching = settings, matching
        self._fusion.configure(matching, filtering)

    def _tick(self) -> None:
        facts = {
            "cameras": ", ".join(source.camera for source in self._inputs),
            "objects": ", ".join(
                f"{each.estimate.category}_{each.number} ({' '.join(each.cameras)})"
                for each in self._objects
            ),
        }
        for source in self._inputs:
            silence = source.silence
            text = (
                f"no results of {source.camera} for {self._settings.outage:g} s on "
                f"{source.topic} ({self.count_publishers(source.topic)} publishers)"
            )
            is_silent = silence > self._settings.outage
            self.set_warning(f"outage of {source.camera}", text if is_silent else "")
            age = source.age
            facts[f"{source.camera}: stamp to arrival (s)"] = (
                "none yet" if age is None else f"{age:.3f}"
            )
            sizes = ", ".join(sorted(source.sizeless))
            text = (
                f"{source.camera} does not know the size of {sizes}: cameras cannot agree "
                "where such an object is; set object_diameter or use_depth of its estimator"
            )
            self._diagnostics.condition(
                f"size {source.camera}", WARN if sizes else OK, text
            )
        self._compare_clocks(facts)
        report_faults(self._tree, self._diagnostics)
        self._diagnose("fusion of cameras", "cpu", facts)

    def _compare_clocks(self, facts: dict[str, str]) -> None:
        """Report stamps of one camera that are older or newer than those of the others."""
        ages = {source.camera: source.age for source in self._inputs}
        known = {camera: age for camera, age in ages.items() if age is not None}
        texts = []
        middle = float(np.median(list(known.values()))) if known else 0.0
        limit = max(self._matching.max_difference / 2, _LEAST_OFFSET)
        for camera, age in known.items():
            facts[f"{camera}: clock offset to the others (s)"] = f"{middle - age:.3f}"
            if age < -_LEAST_OFFSET:
                texts.append(f"stamps of {camera} lie {-age:.2f} s in the future")
            elif age - min(known.values()) > limit:
                late = age - min(known.values())
                texts.append(
                    f"stamps of {camera} are {late:.2f} s older than those of others"
                )
        text = "; ".join(texts)
        advice = (
            ": a clock is wrong (synchronize them, e.g. by chrony), or a camera is slow"
        )
        self.set_warning("clocks", f"{text}{advice}" if text else "")


def run_fusion(args: list[str] | None = None) -> int:
    """Run the node until a signal; exit code 0, or 2 if a parameter is not valid.

    Args:
        args: Arguments of ROS, with the name of the program first; None: those of the process.
    """
    return managed_node.spin_node("fusion", FusionNode, args)
