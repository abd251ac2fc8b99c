"""The other end of the recorder node's topics: a camera with poses in TF, and subscriptions."""

from __future__ import annotations

import array
import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from camera_ring import view
from ros_robot import PATIENCE, Robot
from textures import scene
from uns_pose_ros.nodes import message_conversions
from uns_pose_ros.nodes.ros_compat import array_to_image
from warm_processes import WarmProcess

BRINGUP = ("-m", "uns_pose_ros.nodes.entry_points", "recorder")
QUICK = (str(Path(__file__).with_name("quick_recorder.py")),)
SECOND = 10**9
NOW = 1_700_000_000 * SECOND + 123_456_789  # ns, stamp of the first image
STAMPS = itertools.count(NOW, SECOND // 30)
WIDTH, HEIGHT = 160, 120
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)


@cache
def pixels(number: int, blur: int = 1) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8 RGB: a different scene for every number, blurred over `blur` px."""
    window = scene(number)[300 : 300 + 4 * HEIGHT, 300 : 300 + 4 * WIDTH]
    small = cv2.resize(window, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return np.array(cv2.blur(small, (blur, 1)) if blur > 1 else small, dtype=np.uint8)


class Film(Robot):
    """Sends images and camera poses to the recorder, and receives its status and overlay."""

    target = "/recorder"

    def __init__(self, domain: int) -> None:
        super().__init__(domain)
        self.statuses: list[DiagnosticStatus] = []
        self.overlays: list[Image] = []
        lasting = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(
            DiagnosticStatus, "/recorder/status", self.statuses.append, lasting
        )
        self._watching: Any = None
        self._first = False  # since camera_info
        self._placed = 0  # poses sent one by one since `settle`
        self.transforms_out = self.node.create_publisher(TFMessage, "/tf", RELIABLE)
        # one that keeps a single message asks for its receipt at once, another every 3 s
        single = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._single_out = self.node.create_publisher(TFMessage, "/tf", single)
        self.static_out = self.node.create_publisher(TFMessage, "/tf_static", lasting)

    def _start_camera(self) -> None:
        self.images = self.node.create_publisher(Image, "/image", RELIABLE)
        self.files = self.node.create_publisher(
            CompressedImage, "/image/compressed", RELIABLE
        )
        self.depths = {
            "raw": self.node.create_publisher(Image, "/depth", RELIABLE),
            "compressed": self.node.create_publisher(
                CompressedImage, "/depth/compressedDepth", RELIABLE
            ),
        }
        self.infos = self.node.create_publisher(CameraInfo, "/camera_info", RELIABLE)

    def watch(self) -> None:
        """Subscribe to the overlay."""
        self._watching = self.node.create_subscription(
            Image, "/recorder/overlay", self.overlays.append, RELIABLE
        )
        self.wait(
            "the overlay's publisher",
            lambda: self.node.count_publishers("/recorder/overlay"),
        )

    def record(self, *arguments: str, program: Sequence[str] = BRINGUP) -> WarmProcess:
        """Start a recorder that loses no image, however slow the machine is."""
        patient = ["queue:=256", "tf_wait:=10.0"]
        others = ("image/compressed", "depth/compressedDepth")
        patient += [
            f"qos_overrides./{topic}.subscription.reliability:=reliable" for topic in others
        ]
        patient += [
            f"qos_overrides./{topic}.subscription.depth:=100"
            for topic in ("image", "depth", *others)
        ]
        patient += ["keep_free:=0.0"]
        return self.start(
            *[item for given in [*patient, *arguments] for item in ("-p", given)],
            program=program,
        )

    def wait_until_listening(self) -> None:
        """Wait until the node subscribes to images of either kind and to camera_info."""
        publishers = (self.images, self.files)
        self.wait(
            "a listening node", lambda: any(p.get_subscription_count() for p in publishers)
        )
        self.wait("a node that hears camera_info", self.infos.get_subscription_count)

    def wait_until_following(self) -> None:
        """Wait until the node subscribes to the camera's poses."""
        self.wait(
            "a node that hears TF",
            lambda: all(
                publisher.get_subscription_count() > 0
                for publisher in (self.transforms_out, self._single_out)
            ),
        )
        self.wait(
            "a node that hears static TF",
            lambda: self.static_out.get_subscription_count() > 0,
        )

    def anew(self, **parameters: Any) -> None:
        """Restart the recorder's lifecycle with these parameters."""
        self.renew(**parameters)
        if parameters.get("fixed_frame"):
            self.wait_until_following()
        if parameters.get("depth", "none") != "none":
            self.wait(
                "a node that hears depth",
                self.depths[parameters["depth"]].get_subscription_count,
            )

    def calibrate(self, **fields: Any) -> None:
        """Send the camera_info of the images."""
        k = [150.0, 0.0, 79.0, 0.0, 151.0, 61.0, 0.0, 0.0, 1.0]
        self.expect_first()
        super().calibrate(
            **{
                "width": WIDTH,
                "height": HEIGHT,
                "k": k,
                "header": Header(frame_id="eye"),
                **fields,
            }
        )

    def place(self, stamp: int, cam_from_obj: np.ndarray, single: bool = False) -> None:
        """Send the camera's pose at a stamp (ns) by TF; `single`: for `settle`."""
        header = Header(frame_id="odom", stamp=Time(nanoseconds=stamp).to_msg())
        obj_from_cam = torch.from_numpy(np.linalg.inv(cam_from_obj))
        transform: TransformStamped = message_conversions.transform_message(
            header, "eye", obj_from_cam
        )
        publisher = self._single_out if single else self.transforms_out
        publisher.publish(TFMessage(transforms=[transform]))
        self._placed += single

    def settle(self) -> None:
        """Wait until the node has processed every pose that was sent as a single one.

        Its queue holds them, and each request to the node lets its executor process one of each.
        """
        assert self._single_out.wait_for_all_acked(Duration(seconds=PATIENCE))
        # a round processes one message of each topic and answers one request
        for _ in range(min(self._placed, 100) + 2):
            self.state()
        self._placed = 0

    def measure(self, depth: np.ndarray, stamp: int) -> None:
        """Send depth (H, W) uint16 mm of a stamp (ns)."""
        header = Header(frame_id="eye", stamp=Time(nanoseconds=stamp).to_msg())
        self.depths["raw"].publish(array_to_image(depth, "16UC1", header))
        self.turn()

    def film(
        self, image: np.ndarray, stamp: int, compressed: bool = False, **fields: Any
    ) -> bytes:
        """Send an image (H, W, 3) uint8 RGB; return the bytes of its file if it is compressed."""
        header = Header(frame_id="eye", stamp=Time(nanoseconds=stamp).to_msg())
        data = b""
        if compressed:
            data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
            message = CompressedImage(
                header=header,
                format="rgb8; jpeg compressed bgr8",
                data=array.array("B", data),
            )
        else:
            message = array_to_image(image, "rgb8", header)
        for name, value in fields.items():
            setattr(message, name, value)
        self.send_image(self.files if compressed else self.images, message)
        return data

    def send_image(self, publisher: Any, message: Any) -> None:
        """Publish an image, or its bytes; the first after camera_info waits until it is processed.

        Images that wait for camera_info replace each other.
        """
        before = int(self.counts().get("images received", "0"))
        publisher.publish(message)
        self.turn()  # the status may have the image already
        if self._first:
            self.wait(
                "the first image to be processed",
                lambda: self._dealt_with_more_than(before),
            )
            self._first = False

    def orbit(
        self, azimuths: Sequence[float], compressed: bool = False
    ) -> tuple[list[int], list[bytes]]:
        """Send an image from each azimuth, with the camera's pose in TF before or after it.

        Returns:
            The stamps (ns) and the files.
        """
        stamps = list(itertools.islice(STAMPS, len(azimuths)))
        data = []
        self.calibrate()
        for number, (azimuth, stamp) in enumerate(zip(azimuths, stamps, strict=True)):
            if not number % 2:
                self.place(stamp, view(azimuth))
            data.append(self.film(pixels(number), stamp, compressed))
            if number % 2:
                self.place(stamp, view(azimuth))
        return stamps, data

    def turn(self) -> None:
        """Give both executors a moment."""
        self._executor.spin_once(timeout_sec=0.01)

    def expect_first(self) -> None:
        """Let the next image wait until the node has processed it: it may overtake camera_info."""
        self._first = True

    def _dealt_with_more_than(self, before: int) -> bool:
        """Return whether the node received more images and kept or dropped each of them."""
        now = self.counts()
        received, kept = (
            int(now.get("images received", "0")),
            int(now.get("images kept", "0")),
        )
        dropped = sum(
            int(value) for key, value in now.items() if key.startswith("dropped: ")
        )
        return received > before and kept + dropped == received

    def counts(self) -> dict[str, str]:
        """Return the values of the last status."""
        return (
            {value.key: value.value for value in self.statuses[-1].values}
            if self.statuses
            else {}
        )

    def base(self) -> dict[str, int]:
        """Return the numbers of images received and dropped since the start of the process."""
        self.wait("status", lambda: self.statuses)
        now = self.counts()
        return {
            key: int(value)
            for key, value in now.items()
            if key == "images received" or key.startswith("dropped: ")
        }

    def wait_for(self, **figures: Any) -> dict[str, str]:
        """Wait for a status with some values.

        Args:
            figures: kept (images in the folder), received, or a reason of drops with _ for blanks.

        Returns:
            All values of the status.
        """
        keys = {"kept": "images in the folder", "received": "images received"}
        reasons = {
            name: name.replace("_", " ").replace("camera info", "camera_info")
            for name in figures
        }
        wanted = {
            keys.get(name, f"dropped: {reasons[name]}"): str(value)
            for name, value in figures.items()
        }

        def has_arrived() -> bool:
            now = self.counts()
            return all(now.get(key, "0") == value for key, value in wanted.items())

        try:
            self.wait(f"status with {wanted}", has_arrived)
        except AssertionError as error:
            raise AssertionError(f"{error}; last status: {self.counts()}") from None
        return self.counts()

    def begin(self) -> Any:
        """Call ~/start."""
        return self.call(Trigger, "/recorder/start", Trigger.Request())

    def stop(self) -> Any:
        """Call ~/stop."""
        return self.call(Trigger, "/recorder/stop", Trigger.Request())


def files(folder: Path) -> list[bytes]:
    """Return the image files of a video, in their order."""
    return [path.read_bytes() for path in sorted((folder / "images").iterdir())]


def at_least(images: Path, count: int) -> bool:
    """Return whether a folder has at least so many images."""
    return len(list(images.glob("0*.*"))) >= count
