"""The poses of a bag as a bag of results, a file of BOP, a list of errors and a figure."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rosbags")
from rosbags.highlevel import AnyReader

from scripted_bag import IDENTITY, Scripted, car, frame_results, true_pose
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.evaluation import bag_figures, rosbag_export, rosbag_plot


@pytest.mark.parametrize("name", ["out.mcap", "out"])
def test_the_results_bag_holds_the_poses_with_the_stamps_of_the_images(
    bag: Path, tmp_path: Path, name: str
) -> None:
    results = frame_results(bag, Scripted(missed=[5]))
    rosbag_export.write_bag(tmp_path / name, results, car())
    with AnyReader(
        [tmp_path / name], default_typestore=rosbag_export.message_types()
    ) as reader:
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
        messages: list[tuple[str, int, Any]] = [
            (c.topic, stamp, reader.deserialize(data, c.msgtype))
            for c, stamp, data in reader.messages()
        ]
    others = (rosbag_export.TOPIC, rosbag_export.MARKERS_TOPIC, rosbag_export.POSES_TOPIC)
    assert counts == {"/tf": 19, **dict.fromkeys(others, 20)}
    sent = {
        stamp: message.transforms[0] for topic, stamp, message in messages if topic == "/tf"
    }
    fourth = sent[100_400 * 10**6]
    assert (fourth.header.frame_id, fourth.child_frame_id) == ("cam_optical", "car_0")
    shift = fourth.transform.translation
    assert [shift.x, shift.y, shift.z] == pytest.approx(true_pose(4)[:3, 3].tolist())
    detections = {
        stamp: message.detections
        for topic, stamp, message in messages
        if topic == rosbag_export.TOPIC
    }
    assert len(detections[100_500 * 10**6]) == 0
    (detection,) = detections[100_400 * 10**6]
    assert (detection.id, detection.results[0].hypothesis.class_id) == ("0", "car")
    shown = {
        stamp: message.markers
        for topic, stamp, message in messages
        if topic == rosbag_export.MARKERS_TOPIC
    }
    assert [marker.action for marker in shown[100_500 * 10**6]] == [3]  # all boxes go
    _, box, label = shown[100_400 * 10**6]
    assert (box.ns, box.id, box.type, label.type) == ("car", 0, 1, 9)
    assert label.text == f"car 0  {detection.results[0].hypothesis.score:.2f}"
    assert (box.pose.position, box.scale) == (
        detection.bbox.center.position,
        detection.bbox.size,
    )
    with pytest.raises(InvalidInput, match="is there already"):
        rosbag_export.write_bag(tmp_path / name, results, car())


def test_viewers_of_mcap_find_the_schemas_of_the_results(bag: Path, tmp_path: Path) -> None:
    rosbag_export.write_bag(tmp_path / "out.mcap", frame_results(bag, Scripted()), car())
    content = (tmp_path / "out.mcap").read_bytes()
    kinds = ["vision_msgs/msg/Detection3DArray", "visualization_msgs/msg/MarkerArray"]
    kinds += ["tf2_msgs/msg/TFMessage", "geometry_msgs/msg/PoseArray"]
    for kind in kinds:  # a name, the encoding of the schema, and what it contains
        name = kind.encode()
        start = content.index(len(name).to_bytes(4, "little") + name)
        encoding = content[start + 4 + len(name) :][:11]
        assert encoding == (7).to_bytes(4, "little") + b"ros2msg"
    assert b"MSG: vision_msgs/ObjectHypothesisWithPose" in content
    assert b"\x03\x00\x00\x00cdr" in content
    assert b"\x04\x00\x00\x00ros2" in content  # the profile


def test_the_bop_file_holds_every_estimate_in_millimeters(
    bag: Path, tmp_path: Path
) -> None:
    rosbag_export.write_bop(tmp_path / "bop.csv", frame_results(bag, Scripted(missed=[5])))
    with (tmp_path / "bop.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 19
    fifth = rows[5]  # the sixth image has no estimate
    assert (fifth["scene_id"], fifth["im_id"], fifth["obj_id"]) == ("1", "6", "1")
    assert [float(x) for x in fifth["t"].split()] == pytest.approx(
        (1000 * true_pose(6)[:3, 3]).tolist(), abs=1e-3
    )
    assert [float(x) for x in fifth["R"].split()] == pytest.approx(
        true_pose(6)[:3, :3].flatten().tolist(), abs=1e-6
    )


def test_the_errors_of_every_image_are_listed_and_drawn(bag: Path, tmp_path: Path) -> None:
    results = frame_results(bag, Scripted(flipped=[3], missed=[5]), truth_frame="thing")
    errors = bag_figures.pose_errors(results, car(), IDENTITY)
    assert [error is not None and error.estimated for error in errors] == [
        k != 5 for k in range(20)
    ]
    listed = rosbag_export.frame_records(results, errors, IDENTITY)
    assert [k for k, record in enumerate(listed) if record.get("error_deg", 0) > 1] == [3]
    assert "error_deg" not in listed[5]
    rosbag_plot.write_bag_plot(tmp_path / "plot.svg", results, errors)
    drawn = (tmp_path / "plot.svg").read_text()
    assert all(
        f"<!-- {label} -->" in drawn
        for label in ("rotation error (°)", "translation error (m)", "time per image (s)")
    )
    assert "no truth" not in drawn
    unknown = frame_results(bag, Scripted())
    rosbag_plot.write_bag_plot(
        tmp_path / "plot.svg",
        unknown,
        bag_figures.pose_errors(unknown, car(), IDENTITY),
    )
    assert "no truth is known" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(
        InvalidInput, match="plot.jpg: a name that ends with .png, .svg, .pdf is valid"
    ):
        rosbag_plot.write_bag_plot(tmp_path / "plot.jpg", results, errors)
