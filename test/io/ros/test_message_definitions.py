"""What a bag says of its topics and types is checked before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from bag_writer import camera_info, write_bag
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.message_definitions import check_definition

INFO = "/cam/camera_info"
NAME = "sensor_msgs/msg/CameraInfo"


def write(folder: Path) -> Path:
    messages: list[tuple[str, float, Any]] = [(INFO, 1.0, camera_info(1.0))]
    write_bag(folder, StoragePlugin.MCAP, {INFO}, messages=messages)
    return folder


@pytest.mark.parametrize(
    "store", [Stores.ROS1_NOETIC, Stores.ROS2_FOXY, Stores.ROS2_HUMBLE, Stores.ROS2_KILTED]
)
def test_the_definitions_of_every_distribution_are_valid(store: Stores) -> None:
    types = get_typestore(store)
    for name in ("Image", "CompressedImage", "CameraInfo"):
        check_definition(types, f"sensor_msgs/msg/{name}")
    if "tf2_msgs/msg/TFMessage" in types.fielddefs:
        check_definition(types, "tf2_msgs/msg/TFMessage")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("std_msgs/msg/Header", "uint32 seq\nbuiltin_interfaces/Time stamp\n", "frame_id"),
        (
            "std_msgs/msg/Header",
            "builtin_interfaces/Time Stamp\nstring frame_id\n",
            "stamp",
        ),
        ("geometry_msgs/msg/Vector3", "float64 x\nfloat64 y\nstring z\n", "z"),
        ("geometry_msgs/msg/Vector3", "float64 x\nfloat64 y\nfloat64[] z\n", "z"),
    ],
)
def test_a_part_of_a_message_without_its_fields_is_refused_each_time(
    name: str, text: str, said: str
) -> None:
    types = get_typestore(Stores.ROS2_JAZZY)
    types.fielddefs |= get_types_from_msg(text, name)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{name} has no such field {said} "):
            check_definition(
                types, "geometry_msgs/msg/TransformStamped" * (said == "z") or name
            )


def test_a_type_that_ros_does_not_know_and_further_fields_are_valid() -> None:
    types = get_typestore(Stores.ROS2_JAZZY)
    types.fielddefs |= get_types_from_msg(
        "my_msgs/Loop[] again\nint8 x\n", "my_msgs/msg/Loop"
    )
    types.fielddefs |= get_types_from_msg(
        "float32 w\nfloat64 x\nfloat64 y\nfloat64 z\n", "geometry_msgs/msg/Vector3"
    )
    check_definition(types, "my_msgs/msg/Loop")
    check_definition(types, "geometry_msgs/msg/Vector3")


def test_a_bag_whose_definition_lacks_a_field_is_refused_by_one_line(
    tmp_path: Path,
) -> None:
    bag = write(tmp_path / "bag")
    (file,) = bag.glob("*.mcap")
    data = file.read_bytes().replace(b"uint32 width\n", b"uint32 wedge\n")
    file.write_bytes(data.replace(b"topic_type_hash", b"topic_type_none"))
    (bag / "metadata.yaml").unlink()
    with (
        rosbag.open_bag(bag) as reader,
        pytest.raises(InvalidInput, match=f"its {NAME} has no such field width"),
    ):
        next(rosbag.messages(bag, reader, INFO, 9))


@pytest.mark.parametrize("number", ["{}", "none", "-1", "true", "9" * 30])
def test_a_number_of_messages_that_is_none_is_refused(tmp_path: Path, number: str) -> None:
    bag = write(tmp_path / "bag")
    path = bag / "metadata.yaml"
    head, mark, rest = path.read_text().partition("topics_with_message_count:")
    path.write_text(
        head + mark + rest.replace("message_count: 1", f"message_count: {number}")
    )
    with (
        pytest.raises(InvalidInput, match="its number of messages is none"),
        rosbag.open_bag(bag),
    ):
        pass
