"""The node `camera_player`: publishes a film, a folder or a bag as a camera, again and again.

It takes the place of a camera driver on machines without a robot.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from uns_pose_ros.core.camera import EFFECT_OF_ASSUMED_VIEW
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.camera_json import read_camera
from uns_pose_ros.nodes import message_conversions, ros_compat
from uns_pose_ros.nodes.managed_node import one_line
from uns_pose_ros.nodes.player.image_source import (
    ASSUMED,
    FOLDER_RATE,
    ImageSource,
    PlayedImage,
)

# reliable: readers of either kind get the images
_QOS = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)


class CameraPlayer(Node):
    """Publishes images and their camera_info with the present time."""

    def __init__(self, frame: str, **options: Any) -> None:
        """Make the publishers of `image` and `camera_info`.

        Args:
            frame: TF frame of images that have none.
            options: Options of rclpy's Node.
        """
        super().__init__("camera_player", **options)
        self._frame = frame
        self._images = self.create_publisher(Image, "image", _QOS)
        self._infos = self.create_publisher(CameraInfo, "camera_info", _QOS)
        self._described = False

    def show(self, image: PlayedImage) -> None:
        """Publish an image and its camera_info."""
        header = Header(frame_id=image.frame or self._frame)
        header.stamp = self.get_clock().now().to_msg()
        self._describe(image, header.frame_id)
        self._infos.publish(message_conversions.camera_info_message(header, image.camera))
        self._images.publish(ros_compat.array_to_image(image.pixels, "rgb8", header))

    def _describe(self, image: PlayedImage, frame: str) -> None:
        """Log once what is published."""
        if self._described:
            return
        self._described = True
        camera = image.camera
        self.get_logger().info(
            f"{camera.width} x {camera.height} px on {self._images.topic_name}, focal length "
            f"{float(camera.matrix[0, 0]):.0f} px ({image.camera_from}) on "
            f"{self._infos.topic_name}, frame {frame}"
        )
        if image.camera_from == ASSUMED:
            self.get_logger().warning(
                f"no --camera: a view of 60° is assumed. {EFFECT_OF_ASSUMED_VIEW}"
            )


def play(node: CameraPlayer, source: ImageSource, rounds: int | None = None) -> None:
    """Publish the images of a source at their times until the context ends.

    Args:
        node: The node.
        source: The images.
        rounds: How often the source is played; None: again and again.

    Raises:
        InvalidInput: The source cannot be used.
    """
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    due = time.monotonic()
    for _ in itertools.count() if rounds is None else range(rounds):
        begun, count, last = due, 0, 0.0
        for image in source.images():
            _spin_until(executor, begun + image.seconds)
            if not node.context.ok():
                return
            node.show(image)
            count, last = count + 1, image.seconds
        period = last / (count - 1) if count > 1 else 1 / (source.rate or FOLDER_RATE)
        due = max(time.monotonic(), begun + last + period)


def _spin_until(executor: SingleThreadedExecutor, due: float) -> None:
    """Answer requests to the node until a time, s, monotonic."""
    while True:
        left = due - time.monotonic()
        executor.spin_once(timeout_sec=max(0.0, min(left, 0.1)))
        if left <= 0:
            return


def run_camera_player(given: Sequence[str]) -> int:
    """Run the node until a signal, or until the end with --once.

    Args:
        given: Arguments of the command; those after --ros-args are arguments of ROS.

    Returns:
        Exit code 0, or 2 if the source or an argument cannot be used.
    """
    words = list(given)
    cut = words.index("--ros-args") if "--ros-args" in words else len(words)
    options = _parser().parse_args(words[:cut])
    try:
        camera = None if options.camera is None else read_camera(options.camera)
        rclpy.init(args=[sys.argv[0], *_ros_arguments(options), *words[cut + 1 :]])
    except (InvalidInput, RuntimeError) as error:  # rcl cannot read its arguments
        print(f"camera_player: {one_line(error)}", file=sys.stderr)
        return 2
    source = ImageSource(
        options.source, camera, options.rate, options.longest, options.image_topic
    )
    node = CameraPlayer(options.frame_id)
    try:
        play(node, source, 1 if options.once else None)
    except InvalidInput as error:
        print(f"camera_player: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    except (ExternalShutdownException, RuntimeError):
        if rclpy.ok():  # else a signal ended the node, maybe while it published
            raise
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _ros_arguments(options: argparse.Namespace) -> list[str]:
    """The options that are arguments of ROS."""
    arguments = ["--ros-args"]
    for topic in ("image", "camera_info"):
        if getattr(options, topic) != topic:
            arguments += ["-r", f"{topic}:={getattr(options, topic)}"]
    if options.namespace:
        arguments += ["-r", f"__ns:=/{options.namespace.strip('/')}"]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camera_player",
        description="Publish a film, a folder of images or a bag as a camera, again and again.",
        epilog="example: uns-pose-bringup camera mug.mp4 --camera K.json",
    )
    parser.add_argument(
        "source",
        type=Path,
        help="a film, a folder of images, a video folder or a rosbag2 recording",
    )
    parser.add_argument(
        "--camera",
        type=Path,
        metavar="K.json",
        help="camera of the upright images (default: what the source knows, else 60° of view)",
    )
    parser.add_argument(
        "--rate",
        type=_positive,
        metavar="HZ",
        help=f"images a second (default: as recorded; {FOLDER_RATE:g} for images)",
    )
    parser.add_argument("--once", action="store_true", help="end after the last image")
    parser.add_argument(
        "--longest",
        type=_side,
        default=1280,
        metavar="PX",
        help="longer side of the images; larger ones are made smaller (default: %(default)s)",
    )
    parser.add_argument(
        "--image-topic",
        metavar="TOPIC",
        help="of a bag (default: the only one with images)",
    )
    parser.add_argument(
        "--image",
        default="image",
        metavar="TOPIC",
        help="to publish on (default: %(default)s)",
    )
    parser.add_argument(
        "--camera-info",
        default="camera_info",
        metavar="TOPIC",
        help="to publish on (default: %(default)s)",
    )
    parser.add_argument(
        "--frame-id",
        default="camera",
        metavar="FRAME",
        help="TF frame of images that have none (default: %(default)s)",
    )
    parser.add_argument(
        "--namespace",
        default="",
        metavar="NAME",
        help="put before every relative topic (default: none)",
    )
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(f"{text}: a number from 0 to 1000 is valid")
    return value


def _side(text: str) -> int:
    value = int(text)
    if not 16 <= value <= 8192:
        raise argparse.ArgumentTypeError(f"{text}: 16 to 8192 px are valid")
    return value
