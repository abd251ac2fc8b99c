"""Values of launch arguments become parameters, topics and commands; no ROS is needed for this.

The values are strings. An empty value leaves a parameter to the parameter file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.given_files import expand_home

_FLAGS = {"true": True, "1": True, "false": False, "0": False}
# launch argument, and the parameter that it sets
_ESTIMATOR = {
    "device": "device",
    "regions": "regions",
    "transport": "transport",
    "rectified": "rectified",
    "frame_prefix": "frame_prefix",
    "object_diameter": "object_diameter",
    "fixed_frame": "tracking.fixed_frame",
}
_RECORDER = {
    "clip": "clip",
    "fixed_frame": "fixed_frame",
    "transport": "transport",
    "rectified": "rectified",
}


def read_flag(given: Mapping[str, str], name: str) -> bool:
    """Read a Boolean argument.

    Raises:
        InvalidInput: It is neither true nor false.
    """
    value = _FLAGS.get(given[name].strip().lower())
    if value is None:
        raise InvalidInput(f"{name}:={given[name]}: true or false is valid")
    return value


def read_number(given: Mapping[str, str], name: str) -> float:
    """Read an argument that is a finite number.

    Raises:
        InvalidInput: It is none.
    """
    try:
        value = float(given[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput(f"{name}:={given[name]}: a number is valid")
    return value


def existing_path(given: Mapping[str, str], name: str, folder: bool = False) -> str:
    """Return the path that an argument names, with ~ replaced.

    Args:
        given: Values of the launch arguments.
        name: Name of the argument.
        folder: Whether a folder is valid too.

    Raises:
        InvalidInput: There is no such file.
    """
    path = expand_home(given[name], name)
    if not (path.is_file() or (folder and path.is_dir())):
        raise InvalidInput(f"{name}:={given[name]}: no such file")
    return str(path)


def own_name(given: Mapping[str, str]) -> str:
    """Return the node's name with its namespace."""
    return absolute_topic(given, given["name"])


def absolute_topic(given: Mapping[str, str], topic: str) -> str:
    """Return the name under which the node subscribes to a topic."""
    if topic.startswith("/"):
        return topic
    namespace = given["namespace"].strip("/")
    return f"/{namespace}/{topic}" if namespace else f"/{topic}"


def estimator_parameters(
    given: Mapping[str, str],
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the parameters and the remappings of the estimator, besides the common ones."""
    parameters = _parameters(given, _ESTIMATOR)
    folders = [folder.strip() for folder in given["models"].split(",")]
    if models := [str(expand_home(folder, "models")) for folder in folders if folder]:
        parameters["models"] = models
    remappings = [
        (topic, given[topic]) for topic in ("detections_2d", "mask") if given[topic]
    ]
    if depth := given["depth"]:
        transport, topic = _depth(depth)
        parameters |= {"use_depth": True, "depth_transport": transport}
        remappings.append((topic, depth))
    return parameters, remappings


def camera_names(given: Mapping[str, str]) -> list[str]:
    """Return the namespaces of the cameras that are fused.

    Raises:
        InvalidInput: There is none, or one is given twice.
    """
    names = [name.strip().strip("/") for name in given["cameras"].split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InvalidInput(
            f"cameras:={given['cameras']}: different namespaces, comma separated, are valid, "
            "e.g. left,right"
        )
    return names


def camera_values(given: Mapping[str, str], camera: str) -> dict[str, str]:
    """Return the values of the estimator's launch arguments for one of several cameras.

    Args:
        given: Values of the launch arguments; topics are in the camera's namespace.
        camera: The namespace.
    """
    others = [*_ESTIMATOR, "detections_2d", "mask"]
    values = {
        **dict.fromkeys(others, ""),
        **given,
        "name": "estimator",
        "namespace": camera,
    }
    for name in ("image", "camera_info", "depth"):
        if values[name]:
            values[name] = absolute_topic(values, values[name])
    return values


def recorder_parameters(
    given: Mapping[str, str],
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the parameters and the remappings of the recorder, besides the common ones."""
    parameters = _parameters(given, _RECORDER)
    if category := given["category"]:
        parameters["category"] = str(expand_home(category, "category").absolute())
    parameters["record"] = read_flag(given, "record")
    remappings = []
    if depth := given["depth"]:
        parameters["depth"], topic = _depth(depth)
        remappings.append((topic, depth))
    return parameters, remappings


def _parameters(given: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for argument, parameter in names.items():
        if not given[argument]:
            continue
        if argument == "rectified":
            parameters[parameter] = read_flag(given, argument)
        elif argument == "object_diameter":
            parameters[parameter] = read_number(given, argument)
        else:
            parameters[parameter] = given[argument]
    return parameters


def _depth(topic: str) -> tuple[str, str]:
    """Return the transport of a depth topic, and the node's own name for it."""
    compressed = topic.endswith("/compressedDepth")
    return ("compressed", "depth/compressedDepth") if compressed else ("raw", "depth")


def play_command(given: Mapping[str, str]) -> list[str]:
    """Return the command that plays a bag.

    `ros2 bag play` refuses a delay of 0, so the command has a delay only if there is one.

    Raises:
        InvalidInput: There is no such bag, or a number is not valid.
    """
    command = ["ros2", "bag", "play", existing_path(given, "bag", folder=True), "--clock"]
    rate, delay = read_number(given, "rate"), read_number(given, "delay")
    if rate <= 0:
        raise InvalidInput(f"rate:={given['rate']}: a number above 0 is valid")
    if delay < 0:
        raise InvalidInput(f"delay:={given['delay']}: 0 or more is valid, in s")
    command += ["--rate", str(rate)]
    if delay > 0:
        command += ["--delay", str(delay)]
    if read_flag(given, "loop"):
        command.append("--loop")
    return command


def camera_arguments(given: Mapping[str, str]) -> list[str]:
    """Return the arguments of the camera player.

    Raises:
        InvalidInput: There is no such source or camera file, or a number is not valid.
    """
    arguments = [
        existing_path(given, "source", folder=True),
        "--frame-id",
        given["frame_id"],
    ]
    if given["camera"]:
        arguments += ["--camera", existing_path(given, "camera")]
    if given["rate"]:
        rate = read_number(given, "rate")
        if rate <= 0:
            raise InvalidInput(f"rate:={given['rate']}: a number above 0 is valid")
        arguments += ["--rate", str(rate)]
    if not read_flag(given, "loop"):
        arguments.append("--once")
    return arguments
