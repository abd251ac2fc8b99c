"""Names that differ between Humble, Jazzy, Kilted and Lyrical: encodings, types, files of bags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin
from rosbags.typesys import Stores, get_typestore

from bag_writer import camera_info, raw, write_bag
from uns_pose_ros.io.ros import ros_messages, rosbag

NAMES = ("HUMBLE", "JAZZY", "KILTED", "LYRICAL")
IMAGES, INFOS = "/cam/image_raw", "/cam/camera_info"
# messages that the nodes read or write
TYPES = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/CameraInfo",
    "tf2_msgs/msg/TFMessage",
    "geometry_msgs/msg/TransformStamped",
    "geometry_msgs/msg/PoseArray",
    "visualization_msgs/msg/Marker",
    "diagnostic_msgs/msg/DiagnosticStatus",
    "rcl_interfaces/msg/ParameterDescriptor",
)
# metadata.yaml: version, how a QoS profile is written, what there is beside
METADATA = {
    "HUMBLE": (5, "", False),
    "JAZZY": (9, [], True),
    "KILTED": (9, [], True),
    "LYRICAL": (9, [], True),
}


def rewrite_metadata(folder: Path, name: str) -> None:
    """Give a bag the metadata that a distribution writes."""
    path = folder / "metadata.yaml"
    version, qos, newer = METADATA[name]
    info: dict[str, Any] = yaml.safe_load(path.read_text())["rosbag2_bagfile_information"]
    info["version"] = version
    for entry in info["topics_with_message_count"]:
        entry["topic_metadata"]["offered_qos_profiles"] = qos
        if not newer:
            del entry["topic_metadata"]["type_description_hash"]
    if newer:
        info["ros_distro"] = name.lower()
    else:
        del info["custom_data"], info["ros_distro"]
    path.write_text(yaml.safe_dump({"rosbag2_bagfile_information": info}))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_a_bag_of_every_distribution_is_read(
    tmp_path: Path, name: str, plugin: StoragePlugin
) -> None:
    pixels = np.full((48, 64, 3), (200, 10, 20), np.uint8)
    messages = [(INFOS, 1.0, camera_info(1.0)), (IMAGES, 1.0, raw(1.0, pixels))]
    write_bag(tmp_path / "bag", plugin, {IMAGES, INFOS}, messages=messages)
    rewrite_metadata(tmp_path / "bag", name)
    stored = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    storage = stored["rosbag2_bagfile_information"]["storage_identifier"]
    assert storage == ("sqlite3" if plugin is StoragePlugin.SQLITE3 else "mcap")
    with rosbag.open_bag(tmp_path / "bag") as reader:
        kinds = {connection.topic: connection.msgtype for connection in reader.connections}
        assert kinds == {
            IMAGES: "sensor_msgs/msg/Image",
            INFOS: "sensor_msgs/msg/CameraInfo",
        }
        read = list(rosbag.timed_messages(tmp_path, reader, (IMAGES, INFOS), 10))
    [(_, _, info), (_, _, image)] = read
    assert np.array_equal(ros_messages.decode_image(image), pixels)
    assert info.k[0] == 100.0


@pytest.mark.parametrize("kind", TYPES)
def test_messages_have_the_same_fields_in_every_distribution(kind: str) -> None:
    stores = [get_typestore(getattr(Stores, f"ROS2_{name}")) for name in NAMES]
    fields = {tuple(field[0] for field in store.fielddefs[kind][1]) for store in stores}
    assert len(fields) == 1


@pytest.mark.parametrize(("old", "new"), [("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv")])
def test_the_encodings_of_humble_mean_what_the_newer_names_mean(old: str, new: str) -> None:
    assert ros_messages.ENCODINGS[old] is ros_messages.ENCODINGS[new]
