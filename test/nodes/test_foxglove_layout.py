"""The layout for Foxglove shows topics that exist, in panels that can show them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from uns_pose_ros.evaluation import rosbag_export

pytest.importorskip("rclpy")

if TYPE_CHECKING:
    from ros_robot import Robot

LAYOUT = Path(__file__).resolve().parents[2] / "config" / "foxglove_layout.json"
IMAGE, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
SHOWN_IN_3D = {  # of https://docs.foxglove.dev, 3D panel
    "tf2_msgs/msg/TFMessage",
    "visualization_msgs/msg/MarkerArray",
    "geometry_msgs/msg/PoseArray",
}
CAMERA = {"/image": {IMAGE}, "/camera_info": {INFO}}  # published by the driver


def panels() -> dict[str, dict[str, Any]]:
    return dict(json.loads(LAYOUT.read_text())["configById"])


def topics() -> Iterator[tuple[str, set[str]]]:
    """Every topic of the layout and the types that its panel shows; no types: any."""
    for name, panel in panels().items():
        kind = name.split("!")[0]
        image = panel.get("imageMode", {})
        if "imageTopic" in image:
            yield image["imageTopic"], {IMAGE}
        if "calibrationTopic" in image:
            yield image["calibrationTopic"], {INFO}
        for topic in panel.get("topics", {}):
            yield topic, SHOWN_IN_3D
        if kind == "DiagnosticSummary":
            yield panel["topicToRender"], {"diagnostic_msgs/msg/DiagnosticArray"}
        paths = [panel["topicPath"]] if kind == "RawMessages" else []
        paths += [path["value"] for path in panel.get("paths", [])]
        for path in paths:
            yield path.split(".")[0], set()


def test_every_topic_of_the_layout_is_published_with_a_type_that_its_panel_shows(
    plain: Robot,
) -> None:
    def published() -> dict[str, set[str]]:
        listed = plain.node.get_topic_names_and_types()
        own = {
            name: set(kinds)
            for name, kinds in listed
            if plain.node.get_publishers_info_by_topic(name)
        }
        return CAMERA | own

    named = list(topics())
    assert len(named) >= 9
    plain.wait("all topics", lambda: {topic for topic, _ in named} <= set(published()))
    there = published()
    for topic, kinds in named:
        assert not kinds or there[topic] <= kinds, topic


def test_the_plotted_path_leads_to_a_number() -> None:
    plots = [panel for name, panel in panels().items() if name.startswith("Plot!")]
    types = rosbag_export.message_types().types
    for path in [path for plot in plots for path in plot["paths"]]:
        topic, *fields = re.sub(r"\[\d+\]", "", path["value"]).split(".")
        assert topic == rosbag_export.TOPIC
        kind = "vision_msgs/msg/Detection3DArray"
        for field in fields:
            kind = str(types[kind].__annotations__[field])
            kind = re.sub(r"list\[(.*)\]", r"\1", kind).replace("__", "/")
        assert kind == "float"
        assert path["enabled"] is True


def test_the_panels_of_the_layout_are_those_that_have_settings() -> None:
    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            yield from leaves(node["first"])
            yield from leaves(node["second"])

    layout = json.loads(LAYOUT.read_text())
    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])


def test_the_topics_of_a_results_bag_are_in_the_layout() -> None:
    named = {topic for topic, _ in topics()}
    bag = {rosbag_export.TOPIC, rosbag_export.MARKERS_TOPIC, rosbag_export.POSES_TOPIC}
    assert bag | {"/tf"} <= named
