"""The estimator node.

Pictures and camera_info in; /tf, detections, poses, markers, an overlay and diagnostics out.

A lifecycle node. `configure` loads the models and warms them up, `activate` listens. Callbacks only
put the newest picture into a slot; one worker thread estimates and publishes, so that what is
published belongs to the newest picture there was. Set the parameter `models` of a node that is
configured, and the old models answer until the new ones are ready.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.device_failover import FallbackEstimator, Make
from uns_pose_ros.estimation.estimator import Estimator, EstimatorConfig
from uns_pose_ros.estimation.metric_scale import in_metres
from uns_pose_ros.estimation.pose_fusion import FusionConfig
from uns_pose_ros.estimation.tracker import Tracker, TrackerConfig, TrackState
from uns_pose_ros.io import artifacts
from uns_pose_ros.io import depth_images as depths
from uns_pose_ros.nodes import (
    managed_node,
    message_conversions,
    parameter_declaration,
    ros_compat,
)
from uns_pose_ros.nodes.diagnostics import OK, WARN, NodeDiagnostics
from uns_pose_ros.nodes.estimator import estimator_parameters, region_inputs
from uns_pose_ros.nodes.estimator.estimator_parameters import (
    SETTINGS,
    NodeParameters,
    TrackingParameters,
)
from uns_pose_ros.nodes.estimator.image_subscriber import ImageSubscriber, ImageMessage
from uns_pose_ros.nodes.estimator.region_inputs import SEARCH, SOURCES
from uns_pose_ros.nodes.estimator.result_publishers import ResultPublishers
from uns_pose_ros.nodes.estimator.stamp_synchronizer import SynchronizedImage, StampSynchronizer
from uns_pose_ros.nodes.managed_node import FAILURE, ManagedNode, one_line
from uns_pose_ros.nodes.tf_listener import CameraMotion
from uns_pose_ros.nodes.worker_thread import Worker, run_in_temporary_thread

DEPTHS: dict[
    str, tuple[str, type]
] = {  # topic and kind of its messages, by the parameter depth_transport
    "raw": ("depth", Image),
    "compressed": ("depth/compressedDepth", CompressedImage),
}
JOIN = 10.0  # s that deactivation waits for the picture being worked on
Read = Callable[[Sequence[str]], list[CategoryModel]]  # models of folders


def read_models(folders: Sequence[str]) -> list[CategoryModel]:
    """The models in some folders; raises InvalidInput where one cannot be used."""
    if not folders:
        raise InvalidInput(
            "no model: set the parameter models to the folders that `uns-pose train` wrote, "
            "e.g. [mug/model]"
        )
    return [artifacts.load_model(Path(folder)) for folder in folders]


class EstimatorNode(ManagedNode):
    """Publishes the poses of every instance that its models find in the newest picture."""

    def __init__(
        self, read: Read = read_models, make: Make = Estimator, **options: Any
    ) -> None:
        """read: reads models; make: makes estimators of them; options: those of rclpy's Node.

        Raises where a parameter is not valid.
        """
        self._estimator: FallbackEstimator | None = None
        super().__init__("estimator", SETTINGS, NodeDiagnostics(), **options)
        self._read, self._make = read, make
        self._broadcaster = ros_compat.TransformBroadcaster(self)
        self._reset_service = self.create_service(Trigger, "~/reset", self._on_reset)
        self._results: ResultPublishers | None = None
        self._inputs: ImageSubscriber | None = None
        self._pairing: StampSynchronizer | None = None
        self._worker: Worker[SynchronizedImage] | None = None
        # guards what the worker, a reset and other models touch: tracker, last stamp, markers
        self._lock = threading.Lock()
        self._most = (
            EstimatorConfig().max_instances
        )  # regions that are looked at in a picture
        self._tracker = Tracker()
        self._motion: CameraMotion | None = None
        self._last_stamp = -1  # ns
        self._epoch = 0  # counts resets

    @property
    def autostart(self) -> bool:
        return self._settings.autostart

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._diagnostics.clear()
        try:
            config = parameter_declaration.read(self, EstimatorConfig)
            self._most = config.max_instances
            self._estimator = run_in_temporary_thread(lambda: self._warm_estimator(config))
        # a fault at this border must become FAILURE, not the end of the process
        except Exception as error:
            self._estimator = None
            if self.context.ok():
                self._report_error("configure", f"cannot configure: {one_line(error)}")
            return FAILURE
        self._tracker = Tracker(
            parameter_declaration.read(self, TrackerConfig),
            parameter_declaration.read(self, FusionConfig),
        )
        self._results = ResultPublishers(self, self._broadcaster, self._estimator.models)
        self._tell_ready()
        self._warn_of_scale()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self.reset("activated")
        fixed, timeout = self._tracking.fixed_frame, self._tracking.transform_timeout
        self._motion = CameraMotion(self, fixed, timeout) if fixed else None
        self._worker = Worker(
            self._work, lambda: self._diagnostics.dropped("replaced by a newer image")
        )
        kinds = (
            {}
            if self._settings.regions == SEARCH
            else {self._settings.regions: SOURCES[self._settings.regions]}
        )
        if self._settings.use_depth:
            topic, kind = DEPTHS[self._settings.depth_transport]
            kinds[topic] = kind
        self._pairing = StampSynchronizer(self, kinds, self._diagnostics, self._worker.put)
        self._inputs = ImageSubscriber(
            self, self._settings.transport, self._diagnostics, self._pairing.picture
        )
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.close()
        self.reset("deactivated")
        return super().on_deactivate(state)

    def close(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None
        if self._pairing is not None:
            self._pairing.close()
            self._pairing = None
        if self._worker is not None:
            if not self._worker.stop(JOIN):
                self.get_logger().warning(f"an estimation still runs after {JOIN:.0f} s")
            self._worker = None
        if self._motion is not None:
            self._motion.close()
            self._motion = None

    def _release(self) -> None:
        if self._results is not None:
            self._results.close()
        self._results = self._estimator = None

    # Pictures

    def _work(self, item: SynchronizedImage) -> None:
        """In the worker's thread.

        Everything from a message to the published results; never raises.
        """
        self._guarded(lambda: self._process(item), "estimation failed")

    def _process(self, item: SynchronizedImage) -> None:
        message, _, _ = item
        began, header = time.monotonic(), message.header
        stamp = Time.from_msg(header.stamp).nanoseconds
        if stamp == self._last_stamp:
            self._diagnostics.dropped("stamp seen before")
            return
        if stamp < self._last_stamp:
            self.reset("the images' stamps jumped back")
        with self._lock:
            self._last_stamp, epoch, estimator = stamp, self._epoch, self._estimator
        assert estimator is not None  # the worker lives between activate and deactivate
        picture = (
            ros_compat.compressed_to_rgb(message)
            if isinstance(message, CompressedImage)
            else ros_compat.image_to_rgb(message)
        )
        camera, seen = self._estimate(estimator, picture, item)
        assert self._results is not None
        motion = (
            None
            if self._motion is None
            else self._motion_since_last(header.frame_id, stamp)
        )
        with self._lock:
            if epoch != self._epoch:
                self._diagnostics.dropped("reset meanwhile")
                return
            tracks = self._tracker.update(seen, stamp, motion)
            if not self._tracking.tentative:
                tracks = [track for track in tracks if track.state == TrackState.TRACKED]
            known = [track.estimate for track in tracks]
            sent = [in_metres(estimate, 1.0) for estimate in known]
            numbers = [track.number for track in tracks]
            self._results.publish(
                header, picture, camera, known, sent, numbers, self._settings.frame_prefix
            )
        latency = (self.get_clock().now().nanoseconds - stamp) / 1e9
        self._diagnostics.published(latency, time.monotonic() - began)

    def _estimate(
        self, estimator: FallbackEstimator, picture: np.ndarray, item: SynchronizedImage
    ) -> tuple[Camera, list[PoseEstimate]]:
        """The camera, and what is seen in the picture (H, W, 3) RGB, with what other nodes say of
        it; in metres where known.
        """
        message, info, others = item
        height, width = picture.shape[:2]
        camera = message_conversions.camera_from_info(
            info, width, height, self._settings.rectified
        )
        self._check_headers(message, info)
        where, depth = (
            others.get(self._settings.regions),
            others.get(DEPTHS[self._settings.depth_transport][0]),
        )
        boxes = (
            None
            if where is None
            else region_inputs.boxes_of(where, camera, self._settings.classes, self._most)
        )
        distances = None if depth is None else depths.in_metres(depth, width, height)
        seen = estimator(picture, camera, boxes, distances, self._settings.wanted)
        if self._diagnostics.condition(
            "device", WARN if estimator.trouble else OK, estimator.trouble
        ):
            self.get_logger().warning(estimator.trouble)
        if depth is not None:
            blind = sum(not estimate.metric for estimate in seen)
            text = f"depth says nothing of {blind} of {len(seen)} objects: their size is not known"
            self._diagnostics.condition("depth", WARN if blind else OK, text)
        diameter = self._settings.object_diameter
        return camera, [
            in_metres(estimate, diameter) for estimate in seen
        ] if diameter else seen

    def _motion_since_last(self, frame: str, stamp: int) -> Tensor | None:
        """cam_now_from_cam_before (4, 4); None and a diagnostic where TF does not know it."""
        assert self._motion is not None
        try:
            motion = self._motion.since_last(frame, stamp)
        except InvalidInput as error:
            text = f"the camera's motion is not known: {one_line(error)}"
            if self._diagnostics.condition("motion", WARN, text):
                self.get_logger().warning(text)
            return None
        self._diagnostics.condition("motion", OK, "")
        return motion

    def _check_headers(self, message: ImageMessage, info: CameraInfo) -> None:
        image_frame, info_frame = message.header.frame_id, info.header.frame_id
        text = "the images have no frame_id: no transform is sent"
        self._diagnostics.condition("no frame", OK if image_frame else WARN, text)
        text = (
            f"image is in frame '{image_frame}', camera_info in '{info_frame}': results are "
            "in the image's"
        )
        if self._diagnostics.condition(
            "frames", OK if image_frame == info_frame else WARN, text
        ):
            self.get_logger().warning(text)

    # Everything else

    def reset(self, reason: str) -> None:
        """Forget the objects seen so far and take their markers away.

        An estimation under way is dropped.
        """
        with self._lock:
            self._forget()
        self.get_logger().info(f"tracks reset: {reason}")

    def _forget(self) -> None:
        self._tracker.reset()
        if self._motion is not None:
            self._motion.forget()
        self._last_stamp = -1
        self._epoch += 1
        if self._results is not None:
            self._results.clear()

    def _on_reset(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self.reset("asked by ~/reset")
        response.success, response.message = True, "objects forgotten, track ids start at 0"
        return response

    def _on_jump(self) -> None:
        self.reset("time jumped back")

    def _reject_reason(self, names: Sequence[str]) -> str:
        fixed = ", ".join(name for name in names if name not in estimator_parameters.LIVE)
        if not fixed or self._estimator is None:
            return ""
        reason = f"{fixed}: read by configure only; deactivate and clean up the node first"
        return f"{reason} (at any time: {', '.join(estimator_parameters.LIVE)})"

    def _apply_settings(self, changed: Sequence[Parameter]) -> None:
        for kind in SETTINGS:
            parameter_declaration.read(self, kind, changed)
        settings = parameter_declaration.read(self, NodeParameters, changed)
        if self._estimator is not None:
            if any(parameter.name == "models" for parameter in changed):
                self._switch(settings)
            else:
                _check_categories(settings, self._estimator.models)
        self._settings = settings
        self._tracking = parameter_declaration.read(self, TrackingParameters, changed)
        self._warn_of_scale()

    def _models(self, settings: NodeParameters) -> list[CategoryModel]:
        """The models that the settings name.

        Raises InvalidInput where they cannot be used together.
        """
        models = self._read(settings.model_folders)
        names = [model.category for model in models]
        if len(set(names)) < len(names):
            raise InvalidInput(
                f"two models are of one category, one each is valid: {', '.join(names)}"
            )
        _check_categories(settings, models)
        return models

    def _warm_estimator(self, config: EstimatorConfig) -> FallbackEstimator:
        estimator = FallbackEstimator(
            self._models(self._settings), self._settings.device, config, make=self._make
        )
        grey = np.full((480, 640, 3), 128, np.uint8)
        focal = torch.tensor(
            [[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64
        )
        estimator(grey, Camera(focal, 640, 480))  # the first call is slow: memory, kernels
        return estimator

    def _switch(self, settings: NodeParameters) -> None:
        """Other models in place of the present ones, which the worker uses meanwhile.

        Raises InvalidInput, and they stay.
        """
        assert self._estimator is not None
        try:
            estimator = self._estimator
            ready = run_in_temporary_thread(lambda: estimator.of(self._models(settings)))
        # whatever it is, it must be the answer to who asked, not the end of the process
        except Exception as error:
            raise InvalidInput(f"models stay as they are: {one_line(error)}") from None
        with self._lock:
            self._forget()
            self._estimator = ready
            if self._results is not None:
                self._results.use(ready.models)
        self._tell_ready()

    def _tell_ready(self) -> None:
        assert self._estimator is not None
        names = ", ".join(model.category for model in self._estimator.models)
        self.get_logger().info(f"ready on {self._estimator.device}: {names}")

    def _warn_of_scale(self) -> None:
        models = [] if self._estimator is None else self._estimator.models
        unknown = [model.category for model in models if model.diameter is None]
        text = (
            f"size of {', '.join(unknown)} unknown: its diameter is published as 1 m; set "
            "object_diameter or use_depth"
        )
        if self._diagnostics.condition(
            "scale",
            WARN
            if unknown and not (self._settings.object_diameter or self._settings.use_depth)
            else OK,
            text,
        ):
            self.get_logger().warning(text)

    def _tick(self) -> None:
        if self._inputs is not None:
            self._inputs.check()
        if self._pairing is not None:
            self._pairing.check()
        facts = {"models": ", ".join(self._settings.model_folders)}
        wanted, models = (
            self._settings.wanted,
            () if self._estimator is None else self._estimator.models,
        )
        facts["categories"] = ", ".join(
            one.category for one in models if wanted is None or one.category in wanted
        )
        with self._lock:
            states = [track.state for track in self._tracker.tracks]
        facts["objects"] = ", ".join(
            f"{states.count(state)} {state.value}" for state in TrackState
        )
        device = "none" if self._estimator is None else str(self._estimator.device)
        self._diagnose("pose estimation", device, facts)


def _check_categories(settings: NodeParameters, models: Sequence[CategoryModel]) -> None:
    """Raises InvalidInput where a category is wanted of which there is no model."""
    there = [model.category for model in models]
    missing = [name for name in settings.wanted or () if name not in there]
    if missing:
        raise InvalidInput(
            f"categories {', '.join(missing)}: no model; {', '.join(there)} are valid, and "
            "none for all"
        )


def run_estimator(
    read: Read = read_models, make: Make = Estimator, args: list[str] | None = None
) -> int:
    """Spin the node until a signal; exit code 0, or 2 where a parameter is not valid."""
    return managed_node.spin_node("estimator", lambda: EstimatorNode(read, make), args)
