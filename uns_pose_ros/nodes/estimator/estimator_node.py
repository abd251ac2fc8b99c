"""The estimator node: subscribes to images and publishes poses of the objects in them.

It publishes /tf, detections, poses, markers, an overlay and diagnostics.

It is a lifecycle node. `configure` loads the models and warms them up, `activate` subscribes.
Callbacks only put the newest image into a slot. One worker thread estimates and publishes, so the
results always belong to the newest image. If the parameter `models` of a configured node is set,
the old models stay in use until the new ones are ready.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.device_failover import Make
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.stream.stream_estimator import StreamConfig
from uns_pose_ros.estimation.tracker import Tracker, TrackerConfig, TrackState
from uns_pose_ros.networks.backbone_runtimes import check_runtime
from uns_pose_ros.networks.dinov2 import PATCH
from uns_pose_ros.nodes import managed_node, parameter_declaration, ros_compat
from uns_pose_ros.nodes.diagnostics import NodeDiagnostics
from uns_pose_ros.nodes.estimator import estimator_parameters
from uns_pose_ros.nodes.estimator.estimation_worker import EstimationWorker
from uns_pose_ros.nodes.estimator.estimator_parameters import (
    SETTINGS,
    ImageSettings,
    NodeParameters,
    TrackingParameters,
)
from uns_pose_ros.nodes.estimator.image_stream import DEPTH_TOPICS, ImageStream
from uns_pose_ros.nodes.estimator.model_slot import (
    ModelSlot,
    ReadModels,
    check_categories,
    read_models,
)
from uns_pose_ros.nodes.estimator.on_demand.pose_requests import PoseRequests
from uns_pose_ros.nodes.estimator.region_inputs import SEARCH, SOURCES
from uns_pose_ros.nodes.estimator.result_publishers import ResultPublishers
from uns_pose_ros.nodes.estimator.stamp_synchronizer import SynchronizedImage
from uns_pose_ros.nodes.managed_node import FAILURE, ManagedNode, one_line
from uns_pose_ros.nodes.tf_listener import CameraMotion
from uns_pose_ros.visualization.rerun_recording import RerunRecording, check_rerun

_STOP_TIMEOUT = 10.0  # s that deactivation waits for the image in the worker thread


class EstimatorNode(ManagedNode):
    """Publishes the poses of every instance that its models find in the newest image."""

    def __init__(
        self, read: ReadModels = read_models, make: Make = Estimator, **options: Any
    ) -> None:
        """Declare the parameters; raises if one of them is not valid.

        Args:
            read: The function reads models.
            make: The function makes estimators.
            options: Options of rclpy's Node.
        """
        self._models = ModelSlot(read, make)
        self._is_active = False
        self._stream: ImageStream | None = None
        self._requests: PoseRequests | None = None
        super().__init__("estimator", SETTINGS, NodeDiagnostics(), **options)
        self._broadcaster = ros_compat.TransformBroadcaster(self)
        self.get_logger().info(f"transforms are published by {ros_compat.BROADCASTER}")
        self._switches = [
            self.create_service(Trigger, "~/reset", self._on_reset),
            self.create_service(SetBool, "~/enable", self._on_enable),
            self.create_service(Trigger, "~/toggle", self._on_toggle),
        ]
        self._results: ResultPublishers | None = None
        self._estimation: EstimationWorker | None = None
        self._motion: CameraMotion | None = None

    @property
    def _settings(self) -> NodeParameters:
        return self._all.node

    @property
    def autostart(self) -> bool:
        """Whether the node configures and activates itself."""
        return self._settings.autostart

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the models and make the publishers."""
        self._diagnostics.clear()
        folder = self._settings.rerun_folder
        recording = None
        try:
            if folder:
                check_rerun()
            self._models.load(self._settings, self._all.estimator)
            if folder:
                recording = RerunRecording.in_folder(Path(folder), self._models.models)
        # any error must become FAILURE here, not the end of the process
        except Exception as error:
            if self.context.ok():
                self._report_error("configure", f"cannot configure: {one_line(error)}")
            self._models.release()
            return FAILURE
        self._results = ResultPublishers(
            self, self._broadcaster, self._models.models, recording
        )
        if recording is not None:
            self.get_logger().info(f"images and objects are recorded in {recording.path}")
        self._estimation = EstimationWorker(
            self,
            self._diagnostics,
            self._models,
            self._results,
            Tracker(self._all.tracker, self._all.fusion),
            lambda: self._all,
        )
        self._log_ready()
        choice = self._models.runtime
        if choice is not None and self._all.estimator.runtime == "auto":
            self.get_logger().info(f"runtime {choice.name}: {choice.reason}")
        self._warn_of_scale()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and start the worker thread."""
        result = super().on_activate(state)
        self.reset("activated")
        assert self._estimation is not None
        fixed_frame = self._all.tracking.fixed_frame
        if fixed_frame:
            timeout = self._all.tracking.transform_timeout
            self._motion = CameraMotion(self, fixed_frame, timeout)
        self._estimation.follow_camera(self._motion)
        self._requests = PoseRequests(
            self,
            self._diagnostics,
            self._interpose,
            self._estimation.answer,
            self._estimation.refuse,
        )
        self._is_active = True
        self._listen(self._settings.enabled)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and forget all tracks."""
        self.close()
        self.reset("deactivated")
        return super().on_deactivate(state)

    def close(self) -> None:
        """Unsubscribe and wait for the worker thread."""
        self._is_active = False
        if self._requests is not None:
            self._requests.close()
        self._listen(False)
        self._requests = None
        if self._motion is not None:
            self._motion.close()
            self._motion = None

    def _release(self) -> None:
        if self._results is not None:
            self._results.close()
        self._results = None
        self._estimation = None
        self._models.release()

    # Images

    def _listen(self, enabled: bool) -> None:
        """Subscribe to images, or unsubscribe and wait for the worker thread."""
        if enabled and self._stream is None:
            self._stream = ImageStream(
                self,
                self._diagnostics,
                self._settings.transport,
                self._companions(),
                self._work,
                on_complete=self._keep,
                fresh=True,
            )
        elif not enabled and self._stream is not None:
            self._stream.close()
            if not self._stream.stop(_STOP_TIMEOUT):
                self.get_logger().warning(
                    f"an estimation still runs after {_STOP_TIMEOUT:.0f} s"
                )
            self._stream = None
            if self._requests is not None:
                self._requests.forget()

    def _keep(self, item: SynchronizedImage) -> None:
        if self._requests is not None:
            self._requests.add(item)

    def _interpose(self, job: Callable[[], None], most: int) -> bool:
        return self._stream is not None and self._stream.interpose(job, most)

    def _companions(self) -> dict[str, type]:
        """Types of the messages that every image needs beside its camera_info, by topic."""
        companions: dict[str, type] = {}
        regions = self._settings.regions
        if regions != SEARCH:
            companions[regions] = SOURCES[regions]
        if self._settings.use_depth:
            topic, kind = DEPTH_TOPICS[self._settings.depth_transport]
            companions[topic] = kind
        return companions

    def _work(self, item: SynchronizedImage) -> None:
        """Process one image in the worker thread; never raises."""
        estimation = self._estimation
        assert estimation is not None
        self._guarded(lambda: estimation.process(item), "estimation failed")

    # Everything else

    def reset(self, reason: str) -> None:
        """Forget all tracks and delete their markers; an estimation in progress is dropped."""
        if self._estimation is not None:
            self._estimation.reset()
        self.get_logger().info(f"tracks reset: {reason}")

    def _on_reset(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self.reset("asked by ~/reset")
        response.success = True
        response.message = "objects forgotten, track ids start at 0"
        return response

    def _on_enable(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        response.success, response.message = self._switch(request.data)
        return response

    def _on_toggle(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success, response.message = self._switch(not self._settings.enabled)
        return response

    def _switch(self, enabled: bool) -> tuple[bool, str]:
        """Set the parameter `enabled`; return whether that worked, and what holds now."""
        value = Parameter("enabled", value=enabled)
        result = self.set_parameters_atomically([value])
        if not result.successful:
            return False, str(result.reason)
        if not self._is_active:
            return True, f"{'on' if enabled else 'off'} as soon as the node is active"
        return True, "on: images are received" if enabled else "off: no images are received"

    def _on_jump(self) -> None:
        self.reset("time jumped back")

    def _reject_reason(self, names: Sequence[str]) -> str:
        fixed = [name for name in names if name in estimator_parameters.AT_CONFIGURE]
        if fixed and self._models.estimator is not None:
            listed = ", ".join(fixed)
            return (
                f"{listed}: read by configure only; deactivate and clean up the node first"
            )
        fixed = [name for name in names if name in estimator_parameters.AT_ACTIVATION]
        if fixed and self._is_active:
            return f"{', '.join(fixed)}: read by activate only; deactivate the node first"
        return ""

    def _apply_settings(self, changed: Sequence[Parameter]) -> None:
        everything = ImageSettings(
            parameter_declaration.read(self, NodeParameters, changed),
            parameter_declaration.read(self, TrackingParameters, changed),
            parameter_declaration.read(self, TrackerConfig, changed),
            parameter_declaration.read(self, FusionConfig, changed),
            parameter_declaration.read(self, StreamConfig, changed),
            parameter_declaration.read(self, EstimatorConfig, changed),
        )
        settings = everything.node
        check_runtime(everything.estimator.runtime)
        if self._models.estimator is not None:
            if any(parameter.name == "models" for parameter in changed):
                self._switch_models(settings)
            else:
                check_categories(settings, self._models.categories)
        self._all = everything
        if self._is_active and settings.enabled != (self._stream is not None):
            self._listen(settings.enabled)
            self.reset("switched on" if settings.enabled else "switched off")
            # what is said of missing images does not hold
            self._diagnostics.clear()
        self._warn_of_scale()
        size = everything.estimator.search_size
        used = round(size / PATCH) * PATCH
        text = (
            f"search.search_size {size}: {used} px is used, the nearest multiple of {PATCH}"
        )
        self.set_warning("search size", text if used != size else "")

    def _switch_models(self, settings: NodeParameters) -> None:
        """Use other models; the worker thread uses the present ones until they are ready.

        Raises InvalidInput if they cannot be used; the present ones stay then.
        """
        assert self._estimation is not None
        try:
            estimator = self._models.prepare(settings)
        # any error must be the answer to the caller, not the end of the process
        except Exception as error:
            raise InvalidInput(f"models stay as they are: {one_line(error)}") from None
        self._estimation.replace_models(estimator)
        self._log_ready()

    def _log_ready(self) -> None:
        categories = ", ".join(self._models.categories)
        self.get_logger().info(f"ready on {self._models.device}: {categories}")

    def _warn_of_scale(self) -> None:
        unknown = [
            model.category for model in self._models.models if model.diameter is None
        ]
        text = ""
        if unknown and not (self._settings.object_diameter or self._settings.use_depth):
            text = (
                f"size of {', '.join(unknown)} unknown: its diameter is published as 1 m; set "
                "object_diameter or use_depth"
            )
        self.set_warning("scale", text)

    def _tick(self) -> None:
        if self._stream is not None:
            self._stream.check()
        if self._motion is not None:
            self._motion.check(self._diagnostics)
        wanted = self._settings.wanted
        categories = [
            category
            for category in self._models.categories
            if wanted is None or category in wanted
        ]
        states = [] if self._estimation is None else self._estimation.track_states()
        counts = [f"{states.count(state)} {state.value}" for state in TrackState]
        facts = {
            "models": ", ".join(self._settings.model_folders),
            "categories": ", ".join(categories),
            "objects": ", ".join(counts),
            "enabled": "on" if self._settings.enabled else "off: no images are received",
        }
        nothing = "" if self._estimation is None else self._estimation.nothing.describe()
        if nothing:
            facts["images without an object"] = nothing
        self._diagnose("pose estimation", self._models.device, facts)


def run_estimator(
    read: ReadModels = read_models, make: Make = Estimator, args: list[str] | None = None
) -> int:
    """Run the node until a signal; exit code 0, or 2 if a parameter is not valid.

    Args:
        read: The function reads models.
        make: The function makes estimators.
        args: Arguments of ROS, with the name of the program first; None: those of the process.
    """
    return managed_node.spin_node("estimator", lambda: EstimatorNode(read, make), args)
