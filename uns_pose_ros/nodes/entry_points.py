"""Entry points: the nodes for `ros2 run` and launch, and the command `uns-pose-bringup`.

`uns-pose-bringup` starts a node on machines without `ros2 launch`.

The import of the nodes takes seconds. Until then nothing has to be cleaned up, so Ctrl-C ends the
process at once, with code 0.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

DESCRIPTION = (
    "Start the estimator node, from the same parameter file as ros2 launch does. "
    "`uns-pose-bringup recorder` records, `uns-pose-bringup camera` plays a film as a camera, "
    "`uns-pose-bringup fusion` fuses several cameras."
)
EXAMPLE = (
    "example: uns-pose-bringup mug/model --image /camera/image_raw --camera-info "
    "/camera/camera_info"
)
RECORDER = "recorder"  # first argument that selects the recorder
CAMERA = "camera"  # first argument that selects the camera player
FUSION = "fusion"  # first argument that selects the fusion of several cameras
RECORDER_DESCRIPTION = (
    "Start the recorder node, from the same parameter file as ros2 launch does."
)
RECORDER_EXAMPLE = (
    "example: uns-pose-bringup recorder mug --image /camera/image_raw "
    "--fixed-frame odom --record"
)


def ros_arguments(given: Sequence[str]) -> list[str]:
    """Translate the arguments of `uns-pose-bringup` into ROS arguments of the estimator.

    Arguments after --ros-args stay as they are. Wrong usage ends the program.
    """
    parser = argparse.ArgumentParser(
        prog="uns-pose-bringup", description=DESCRIPTION, epilog=EXAMPLE
    )
    parser.add_argument(
        "models",
        nargs="*",
        help="folders of trained models (default: those of the parameter file)",
    )
    parser.add_argument(
        "--device",
        help="auto, cpu, cuda or cuda:N (default: that of the parameter file, else auto)",
    )
    options, arguments, ros = _parse_common(parser, given)
    for folder in options.models:
        if not Path(folder).is_dir():
            parser.error(
                f"{folder}: no such folder; the folder that `uns-pose train` wrote is "
                "needed, e.g. mug/model"
            )
    if options.models:
        arguments += [
            "-p",
            f"models:=[{', '.join(_quote(folder) for folder in options.models)}]",
        ]
    if options.device:
        arguments += ["-p", f"device:={options.device}"]
    return ["--ros-args", *arguments, *ros]


def recorder_arguments(given: Sequence[str]) -> list[str]:
    """Translate the arguments after `uns-pose-bringup recorder` into ROS arguments."""
    parser = argparse.ArgumentParser(
        prog=f"uns-pose-bringup {RECORDER}",
        description=RECORDER_DESCRIPTION,
        epilog=RECORDER_EXAMPLE,
    )
    parser.add_argument(
        "category",
        nargs="?",
        help="folder of a category, made if missing (default: that of the parameter file)",
    )
    parser.add_argument(
        "--clip", help="name of the video in it (default: the next of clip_01, clip_02, …)"
    )
    parser.add_argument(
        "--fixed-frame",
        metavar="FRAME",
        help="TF frame in which the object stands (default: none, no poses)",
    )
    parser.add_argument(
        "--depth",
        metavar="TOPIC",
        help="of depth aligned to the images, recorded too (default: none)",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="start recording at once, not when ~/start is called",
    )
    options, arguments, ros = _parse_common(parser, given)
    for name in ("category", "clip", "fixed_frame"):
        if (value := getattr(options, name)) is not None:
            arguments += ["-p", f"{name}:={_quote(value)}"]
    if options.depth:
        raw = not options.depth.endswith("/compressedDepth")
        arguments += ["-p", f"depth:={'raw' if raw else 'compressed'}"]
        arguments += [
            "-r",
            f"{'depth' if raw else 'depth/compressedDepth'}:={options.depth}",
        ]
    if options.record:
        arguments += ["-p", "record:=true"]
    return ["--ros-args", *arguments, *ros]


def fusion_arguments(given: Sequence[str]) -> list[str]:
    """Translate the arguments after `uns-pose-bringup fusion` into ROS arguments."""
    parser = argparse.ArgumentParser(
        prog=f"uns-pose-bringup {FUSION}",
        description="Fuse the results of the estimators of several cameras.",
        epilog="example: uns-pose-bringup fusion left right --fixed-frame odom",
    )
    parser.add_argument("cameras", nargs="+", help="namespaces of the estimators")
    parser.add_argument(
        "--fixed-frame",
        metavar="FRAME",
        required=True,
        help="TF frame of the results, which does not move",
    )
    parser.add_argument("--sim-time", action="store_true", help="take the time from /clock")
    own, ros = list(given), []
    if "--ros-args" in own:
        cut = own.index("--ros-args")
        own, ros = own[:cut], own[cut + 1 :]
    options = parser.parse_args(own)
    arguments = ["-p", f"cameras:=[{', '.join(_quote(name) for name in options.cameras)}]"]
    arguments += ["-p", f"fixed_frame:={_quote(options.fixed_frame)}"]
    if options.sim_time:
        arguments += ["-p", "use_sim_time:=true"]
    return ["--ros-args", *arguments, *ros]


def _parse_common(
    parser: argparse.ArgumentParser, given: Sequence[str]
) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Parse the arguments, with the options that both nodes have.

    Args:
        parser: Parser with the options of one node.
        given: Arguments of the command.

    Returns:
        The options, the ROS arguments of the common options, and the arguments after --ros-args.
    """
    parser.add_argument(
        "--image",
        default="image",
        metavar="TOPIC",
        help="topic of the images (default: %(default)s)",
    )
    parser.add_argument(
        "--camera-info",
        default="camera_info",
        metavar="TOPIC",
        help="of the camera (default: %(default)s)",
    )
    parser.add_argument(
        "--namespace",
        default="",
        metavar="NAME",
        help="put before every relative topic (default: none)",
    )
    parser.add_argument(
        "--params-file", type=Path, metavar="YAML", help="parameters, as for ros2 launch"
    )
    parser.add_argument("--sim-time", action="store_true", help="take the time from /clock")
    own = list(given)
    ros: list[str] = []
    if "--ros-args" in own:
        cut = own.index("--ros-args")
        ros = own[cut + 1 :]
        own = own[:cut]
    options = parser.parse_args(own)
    if options.params_file is not None and not options.params_file.is_file():
        parser.error(f"--params-file {options.params_file}: no such file")
    arguments = (
        [] if options.params_file is None else ["--params-file", str(options.params_file)]
    )
    for topic, target in (("image", options.image), ("camera_info", options.camera_info)):
        if target != topic:
            arguments += ["-r", f"{topic}:={target}"]
    if options.image != "image":
        arguments += ["-r", f"image/compressed:={options.image}/compressed"]
    if options.namespace:
        arguments += ["-r", f"__ns:=/{options.namespace.strip('/')}"]
    if options.sim_time:
        arguments += ["-p", "use_sim_time:=true"]
    return options, arguments, ros


def _quote(text: str) -> str:
    """Quote a string for YAML."""
    return "'" + text.replace("'", "''") + "'"


def estimator(arguments: Sequence[str] | None = None) -> int:
    """Run the estimator node: entry point of `ros2 run uns_pose_ros estimator`.

    Args:
        arguments: Arguments of ROS; None: those of the process.

    Returns:
        Exit code.
    """
    _exit_on_signals()
    from uns_pose_ros.nodes.estimator import estimator_node

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # rclpy handles it from here on
    args = None if arguments is None else [sys.argv[0], *arguments]
    return estimator_node.run_estimator(args=args)


def recorder(arguments: Sequence[str] | None = None) -> int:
    """Run the recorder node: entry point of `ros2 run uns_pose_ros recorder`.

    Args:
        arguments: Arguments of ROS; None: those of the process.

    Returns:
        Exit code.
    """
    _exit_on_signals()
    from uns_pose_ros.nodes.recorder import recorder_node

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    args = None if arguments is None else [sys.argv[0], *arguments]
    return recorder_node.run_recorder(args)


def fusion(arguments: Sequence[str] | None = None) -> int:
    """Run the fusion node: entry point of `ros2 run uns_pose_ros fusion`.

    Args:
        arguments: Arguments of ROS; None: those of the process.

    Returns:
        Exit code.
    """
    _exit_on_signals()
    from uns_pose_ros.nodes.fusion import fusion_node

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    args = None if arguments is None else [sys.argv[0], *arguments]
    return fusion_node.run_fusion(args)


def camera_player(arguments: Sequence[str] | None = None) -> int:
    """Run the camera player: entry point of `ros2 run uns_pose_ros camera_player`.

    Args:
        arguments: Arguments of the command; None: those of the process.

    Returns:
        Exit code.
    """
    _exit_on_signals()
    from uns_pose_ros.nodes.player import camera_player as player

    _interrupt_once()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return player.run_camera_player(sys.argv[1:] if arguments is None else arguments)


def _interrupt_once() -> None:
    """Make the first SIGINT a KeyboardInterrupt; further ones do not stop the clean-up.

    Ctrl-C on `ros2 launch` sends two: one by the terminal, one by launch.
    """
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)


def _exit_on_signals() -> None:
    """Make signals end the process with code 0."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))


def bringup() -> int:
    """Run a node: entry point of `uns-pose-bringup`; exit code 0, or 2 on wrong usage."""
    given = sys.argv[1:]
    if given[:1] == [RECORDER]:
        return recorder(recorder_arguments(given[1:]))
    if given[:1] == [FUSION]:
        return fusion(fusion_arguments(given[1:]))
    if given[:1] == [CAMERA]:
        return camera_player(given[1:])
    return estimator(ros_arguments(given))


if __name__ == "__main__":
    sys.exit(bringup())
