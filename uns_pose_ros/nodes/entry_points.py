"""Entry points.

The nodes for `ros2 run` and launch, and `uns-pose-bringup` for machines without `ros2 launch`.

The nodes' modules import for seconds. Nothing is there to be cleaned up until then, so Ctrl-C ends
these at once, with code 0.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = (
    "Start the estimator node, from the same parameter file as ros2 launch does. "
    "`uns-pose-bringup recorder` records."
)
EXAMPLE = (
    "example: uns-pose-bringup mug/model --image /camera/image_raw --camera-info "
    "/camera/camera_info"
)
RECORDER = "recorder"  # as the first argument
RECORDER_DESCRIPTION = (
    "Start the recorder node, from the same parameter file as ros2 launch does."
)
RECORDER_EXAMPLE = (
    "example: uns-pose-bringup recorder mug --image /camera/image_raw "
    "--fixed-frame odom --record"
)


def ros_arguments(given: Sequence[str]) -> list[str]:
    """The estimator's ROS arguments for this command's; what follows --ros-args is handed on.

    Ends the program on bad usage.
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
    options, arguments, ros = _common(parser, given)
    for folder in options.models:
        if not Path(folder).is_dir():
            parser.error(
                f"{folder}: there is no such folder; the folder that `uns-pose train` wrote is "
                "needed, e.g. mug/model"
            )
    if options.models:
        arguments += [
            "-p",
            f"models:=[{', '.join(_quoted(folder) for folder in options.models)}]",
        ]
    if options.device:
        arguments += ["-p", f"device:={options.device}"]
    return ["--ros-args", *arguments, *ros]


def recorder_arguments(given: Sequence[str]) -> list[str]:
    """The recorder's ROS arguments for those after `uns-pose-bringup recorder`, likewise."""
    parser = argparse.ArgumentParser(
        prog=f"uns-pose-bringup {RECORDER}",
        description=RECORDER_DESCRIPTION,
        epilog=RECORDER_EXAMPLE,
    )
    parser.add_argument(
        "category",
        nargs="?",
        help="folder of a category, made if need be (default: that of the parameter file)",
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
        help="of depth aligned to the pictures, kept too (default: none)",
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="start recording at once, not when ~/start is called",
    )
    options, arguments, ros = _common(parser, given)
    for name in ("category", "clip", "fixed_frame"):
        if (value := getattr(options, name)) is not None:
            arguments += ["-p", f"{name}:={_quoted(value)}"]
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


def _common(
    parser: argparse.ArgumentParser, given: Sequence[str]
) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Options, the ROS arguments of those that both nodes have, and what was given after
    --ros-args.
    """
    parser.add_argument(
        "--image",
        default="image",
        metavar="TOPIC",
        help="topic of the pictures (default: %(default)s)",
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
    ours, ros = list(given), []
    if "--ros-args" in ours:
        cut = ours.index("--ros-args")
        ours, ros = ours[:cut], ours[cut + 1 :]
    options = parser.parse_args(ours)
    if options.params_file is not None and not options.params_file.is_file():
        parser.error(f"--params-file {options.params_file}: there is no such file")
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


def _quoted(text: str) -> str:
    """A string as YAML, whatever it looks like."""
    return "'" + text.replace("'", "''") + "'"


def estimator(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run uns_pose_ros estimator`; arguments.

    Those of ROS, by default the command line's.
    """
    _end_at_once()
    from uns_pose_ros.nodes.estimator import estimator_node

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # rclpy's from here on
    return estimator_node.run_estimator(args=None if arguments is None else [sys.argv[0], *arguments])


def recorder(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `ros2 run uns_pose_ros recorder`; likewise."""
    _end_at_once()
    from uns_pose_ros.nodes.recorder import recorder_node

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return recorder_node.run_recorder(None if arguments is None else [sys.argv[0], *arguments])


def _end_at_once() -> None:
    """Let a signal end the process with code 0."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))


def bringup() -> int:
    """Entry point of `uns-pose-bringup`; exit code 0, or 2 on bad usage."""
    given = sys.argv[1:]
    if given[:1] == [RECORDER]:
        return recorder(recorder_arguments(given[1:]))
    return estimator(ros_arguments(given))


if __name__ == "__main__":
    sys.exit(bringup())
