"""The estimator node: pictures and camera_info in; /tf, detections, poses, markers, an overlay and diagnostics out.

A lifecycle node. `configure` loads the models and warms them up, `activate` listens. Callbacks only put the newest picture into
a slot; one worker thread estimates and publishes, so that what is published belongs to the newest picture there was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_srvs.srv import Trigger
from torch import Tensor

from uns_pose_ros import storage
from uns_pose_ros.datatypes import Camera, InvalidInput
from uns_pose_ros.fusion import FusionConfig
from uns_pose_ros.inference import Estimator, EstimatorConfig
from uns_pose_ros.nodes import compat, conversions, parameters, regions, running
from uns_pose_ros.nodes.diagnostics import ERROR, OK, WARN, Health
from uns_pose_ros.nodes.inputs import Inputs, Picture
from uns_pose_ros.nodes.parameters import SETTINGS, NodeParameters, TrackingParameters
from uns_pose_ros.nodes.publishing import Results
from uns_pose_ros.nodes.regions import SEARCH, Item, RegionPairing, Where
from uns_pose_ros.nodes.running import one_line
from uns_pose_ros.nodes.transforms import CameraMotion
from uns_pose_ros.nodes.worker import Worker
from uns_pose_ros.tracking import Tracker, TrackerConfig, TrackState

JOIN = 10.0  # s that deactivation waits for the picture being worked on
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
Load = Callable[[Sequence[str], str, EstimatorConfig], Estimator]


def load_estimator(folders: Sequence[str], device: str, config: EstimatorConfig) -> Estimator:
    """The estimator of several model folders; raises InvalidInput where one cannot be used."""
    if not folders:
        raise InvalidInput("no model: set the parameter models to the folders that `uns-pose train` wrote, e.g. [mug/model]")
    return Estimator([storage.load_model(Path(folder)) for folder in folders], device=device, config=config)


class EstimatorNode(LifecycleNode):
    """Publishes the poses of every instance that its models find in the newest picture."""

    def __init__(self, load: Load = load_estimator, **options: Any) -> None:
        """load: makes the estimator in `configure`; options: those of rclpy's Node. Raises where a parameter is not valid."""
        super().__init__("estimator", **options)
        self._load = load
        for settings in SETTINGS:
            parameters.declare(self, settings)
            parameters.read(self, settings)
        self._settings = parameters.read(self, NodeParameters)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._health = Health()
        self._broadcaster = compat.TransformBroadcaster(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = self.create_timer(1.0, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._reset_service = self.create_service(Trigger, "~/reset", self._on_reset)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jump = self.get_clock().create_jump_callback(backward, post_callback=lambda jump: self.reset("time jumped back"))
        self._estimator: Estimator | None = None
        self._results: Results | None = None
        self._inputs: Inputs | None = None
        self._pairing: RegionPairing | None = None
        self._worker: Worker[Item] | None = None
        self._lock = threading.Lock()  # guards what the worker and a reset both touch: tracker, last stamp, markers
        self._tracking = parameters.read(self, TrackingParameters)
        self._most = EstimatorConfig().max_instances  # regions that are looked at in a picture
        self._tracker = Tracker()
        self._motion: CameraMotion | None = None
        self._last_stamp = -1  # ns
        self._epoch = 0  # counts resets

    def start(self) -> bool:
        """Configure and activate, as a lifecycle manager would; False where it cannot."""
        return self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS

    @property
    def autostart(self) -> bool:
        return self._settings.autostart

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._health.clear()
        try:
            config = parameters.read(self, EstimatorConfig)
            self._most = config.max_instances
            self._estimator = self._load(self._settings.model_folders, self._settings.device, config)
            grey = np.full((480, 640, 3), 128, np.uint8)
            focal = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64)
            self._estimator(grey, Camera(focal, 640, 480))  # the first call is slow: memory, kernels
        except Exception as error:  # a fault at this border must become FAILURE, not the end of the process
            self._estimator = None
            if self.context.ok():
                self._complain("configure", f"cannot configure: {one_line(error)}")
            return FAILURE
        self._tracker = Tracker(parameters.read(self, TrackerConfig), parameters.read(self, FusionConfig))
        self._results = Results(self, self._broadcaster, self._estimator.models)
        names = ", ".join(model.category for model in self._estimator.models)
        self.get_logger().info(f"ready on {self._estimator.device}: {names}")
        self._warn_of_scale()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self.reset("activated")
        fixed, timeout = self._tracking.fixed_frame, self._tracking.transform_timeout
        self._motion = CameraMotion(self, fixed, timeout) if fixed else None
        self._worker = Worker(self._work, lambda: self._health.dropped("replaced by a newer image"))
        if self._settings.regions == SEARCH:
            put = self._put_alone
        else:
            self._pairing = RegionPairing(self, self._settings.regions, self._health, self._worker.put)
            put = self._pairing.picture
        self._inputs = Inputs(self, self._settings.transport, self._health, put)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self.reset("deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._release()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Stop the worker before the node is destroyed."""
        self._stop()

    def _stop(self) -> None:
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
        self._health.clear()

    # Pictures

    def _put_alone(self, item: tuple[Picture, CameraInfo]) -> None:
        if self._worker is not None:
            self._worker.put((*item, None))

    def _work(self, item: Item) -> None:
        """In the worker's thread: everything from a message to the published results; never raises."""
        try:
            self._process(*item)
        except InvalidInput as error:
            self._health.dropped("unusable image or camera_info")
            self._complain("input", one_line(error))
        except Exception as error:  # one picture that breaks the estimation must not end the node
            if self.context.ok():
                self._health.dropped("estimation failed")
                self._complain("input", f"estimation failed: {one_line(error)}")
        else:
            self._health.condition("input", OK, "")

    def _process(self, message: Picture, info: CameraInfo, where: Where | None) -> None:
        began, header = time.monotonic(), message.header
        stamp = Time.from_msg(header.stamp).nanoseconds
        if stamp == self._last_stamp:
            self._health.dropped("stamp seen before")
            return
        if stamp < self._last_stamp:
            self.reset("the images' stamps jumped back")
        with self._lock:
            self._last_stamp, epoch = stamp, self._epoch
        picture = compat.compressed_to_rgb(message) if isinstance(message, CompressedImage) else compat.image_to_rgb(message)
        height, width = picture.shape[:2]
        camera = conversions.camera_from_info(info, width, height, self._settings.rectified)
        self._check_headers(message, info)
        assert self._estimator is not None and self._results is not None  # the worker lives between activate and deactivate
        diameter = self._settings.object_diameter
        boxes = None if where is None else regions.boxes_of(where, camera, self._settings.classes, self._most)
        seen = self._estimator(picture, camera, boxes)
        if diameter:
            seen = [conversions.in_metres(estimate, diameter) for estimate in seen]
        motion = None if self._motion is None else self._motion_since_last(header.frame_id, stamp)
        with self._lock:
            if epoch != self._epoch:
                self._health.dropped("reset meanwhile")
                return
            tracks = self._tracker.update(seen, stamp, motion)
            if not self._tracking.tentative:
                tracks = [track for track in tracks if track.state == TrackState.TRACKED]
            known = [track.estimate for track in tracks]
            sent = [conversions.in_metres(estimate, 1.0) for estimate in known]
            numbers = [track.number for track in tracks]
            self._results.publish(header, picture, camera, known, sent, numbers, self._settings.frame_prefix)
        latency = (self.get_clock().now().nanoseconds - stamp) / 1e9
        self._health.published(latency, time.monotonic() - began)

    def _motion_since_last(self, frame: str, stamp: int) -> Tensor | None:
        """cam_now_from_cam_before (4, 4), None where TF does not tell, which diagnostics say then."""
        assert self._motion is not None
        try:
            motion = self._motion.since_last(frame, stamp)
        except InvalidInput as error:
            text = f"the camera's motion is not known: {one_line(error)}"
            if self._health.condition("motion", WARN, text):
                self.get_logger().warning(text)
            return None
        self._health.condition("motion", OK, "")
        return motion

    def _check_headers(self, message: Picture, info: CameraInfo) -> None:
        image_frame, info_frame = message.header.frame_id, info.header.frame_id
        text = "the images have no frame_id: no transform is sent"
        self._health.condition("no frame", OK if image_frame else WARN, text)
        text = f"image is in frame '{image_frame}', camera_info in '{info_frame}': results are in the image's"
        if self._health.condition("frames", OK if image_frame == info_frame else WARN, text):
            self.get_logger().warning(text)

    # Everything else

    def reset(self, reason: str) -> None:
        """Forget the objects seen so far and take their markers away; an estimation under way is dropped."""
        with self._lock:
            self._tracker.reset()
            if self._motion is not None:
                self._motion.forget()
            self._last_stamp = -1
            self._epoch += 1
            if self._results is not None:
                self._results.clear()
        self.get_logger().info(f"tracks reset: {reason}")

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.reset("asked by ~/reset")
        response.success, response.message = True, "objects forgotten, track ids start at 0"
        return response

    def _on_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        ours = [parameter for parameter in changed if parameter.name in parameters.names(*SETTINGS)]
        fixed = [parameter.name for parameter in ours if parameter.name not in parameters.LIVE]
        if fixed and self._estimator is not None:
            reason = f"{', '.join(fixed)}: read by configure only; deactivate and clean up the node first"
            return SetParametersResult(successful=False, reason=f"{reason} (at any time: {', '.join(parameters.LIVE)})")
        try:
            for settings in SETTINGS:
                parameters.read(self, settings, ours)
            self._settings = parameters.read(self, NodeParameters, ours)
            self._tracking = parameters.read(self, TrackingParameters, ours)
        except (InvalidInput, ValueError) as error:
            return SetParametersResult(successful=False, reason=one_line(error))
        self._warn_of_scale()
        return SetParametersResult(successful=True)

    def _warn_of_scale(self) -> None:
        models = [] if self._estimator is None else self._estimator.models
        unknown = [model.category for model in models if model.diameter is None]
        text = f"size of {', '.join(unknown)} unknown: its diameter is published as 1 m; set object_diameter"
        if self._health.condition("scale", WARN if unknown and not self._settings.object_diameter else OK, text):
            self.get_logger().warning(text)

    def _complain(self, key: str, text: str) -> None:
        """An error that lasts until the next success: to the log once, to diagnostics as long as it lasts."""
        self._health.failed(text)
        if self._health.condition(key, ERROR, text):
            self.get_logger().error(text)

    def _diagnose(self) -> None:
        if self._inputs is not None:
            self._inputs.check()
        if self._pairing is not None:
            self._pairing.check()
        facts = {"state": self._state_machine.current_state[1], "models": ", ".join(self._settings.model_folders)}
        with self._lock:
            states = [track.state for track in self._tracker.tracks]
        facts["objects"] = ", ".join(f"{states.count(state)} {state.value}" for state in TrackState)
        device = "none" if self._estimator is None else str(self._estimator.device)
        name = self.get_fully_qualified_name().lstrip("/")
        message = DiagnosticArray(status=[self._health.status(f"{name}: pose estimation", device, facts)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def run(load: Load = load_estimator, args: list[str] | None = None) -> int:
    """Spin the node until a signal; exit code 0, or 2 where a parameter is not valid."""
    return running.run("estimator", lambda: EstimatorNode(load), args)
