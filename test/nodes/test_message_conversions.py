"""Messages to nouns and back, with known answers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import random_rotations
from uns_pose_ros.core.types import CategoryModel, PoseEstimate, PoseMode, Symmetry
from uns_pose_ros.io import depth_images
from uns_pose_ros.io.ros import ros_messages

pytest.importorskip("rclpy")
from geometry_msgs.msg import Pose
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from uns_pose_ros.nodes import message_conversions, ros_compat

RED, GREEN, BLUE = (200, 10, 20), (10, 220, 30), (20, 30, 240)
PIXELS = np.array([[RED, GREEN, BLUE], [BLUE, RED, GREEN]], np.uint8)


def test_an_array_returns_unchanged_from_a_message() -> None:
    message = ros_compat.array_to_image(PIXELS, "rgb8", Header(frame_id="cam"))
    assert (message.step, message.header.frame_id) == (9, "cam")
    assert np.array_equal(ros_messages.decode_image(message), PIXELS)
    with pytest.raises(ValueError, match="are not mono16"):
        ros_compat.array_to_image(PIXELS, "mono16", Header())


def test_camera_info_as_json_holds_everything_but_its_stamp() -> None:
    k = [500.0, 0.0, 320.0, 0.0, 501.0, 240.0, 0.0, 0.0, 1.0]
    info = CameraInfo(
        width=640,
        height=480,
        distortion_model="plumb_bob",
        d=[0.1, 0.0, 0.0, 0.0, 0.0],
        k=k,
        binning_x=2,
    )
    info.header.frame_id = "eye"
    info.header.stamp.sec = 7
    info.roi.x_offset = 3
    said = message_conversions.info_record(info)
    assert json.loads(json.dumps(said)) == said
    assert (
        said["frame_id"],
        said["width"],
        said["height"],
        said["k"],
        said["binning_x"],
    ) == ("eye", 640, 480, k, 2)
    assert (said["roi"]["x_offset"], said["d"][0], len(said["p"]), len(said["r"])) == (
        3,
        0.1,
        12,
        9,
    )
    assert "7" not in json.dumps(said)


def estimate(metric: bool = False, covariance: torch.Tensor | None = None) -> PoseEstimate:
    """A car 2 units in front of the camera, turned by 90 degrees about the camera's z."""
    pose = torch.tensor(
        [[0.0, -1, 0, 0.5], [1, 0, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]], dtype=torch.float64
    )
    return PoseEstimate(
        category="car",
        cam_from_canon=pose,
        scale=1.0,
        metric=metric,
        size=torch.tensor([0.8, 0.4, 0.2]).double(),
        score=0.75,
        covariance=covariance,
        symmetry=Symmetry(),
        inliers=50,
        reprojection_error=1.5,
        box=torch.tensor([10.0, 10, 50, 40]).double(),
    )


def model() -> CategoryModel:
    vertices = torch.tensor([[0.0, 0, 0], [0.8, 0, 0], [0, 0.4, 0], [0, 0, 0.2]])
    triangles = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    unit = torch.nn.functional.normalize(torch.ones(4, 8), dim=1)
    return CategoryModel("car", vertices, triangles, unit, unit[:1], {})


def position(pose: Pose) -> list[float]:
    return [pose.position.x, pose.position.y, pose.position.z]


def test_a_quarter_turn_is_the_quaternion_known_for_it() -> None:
    pose = message_conversions.pose_message(estimate().cam_from_canon)
    half = math.sqrt(0.5)
    assert [
        pose.orientation.x,
        pose.orientation.y,
        pose.orientation.z,
        pose.orientation.w,
    ] == pytest.approx([0, 0, half, half])
    assert position(pose) == [0.5, 0, 2]


def test_depth_becomes_metres_and_nan_where_there_is_none() -> None:
    millimetres = ros_compat.array_to_image(
        np.array([[0, 1, 65535]], np.uint16), "16UC1", Header()
    )
    known = depth_images.depth_in_metres(millimetres, 3, 1)
    assert np.isnan(known[0, 0]) and known[0, 1:].tolist() == pytest.approx([0.001, 65.535])
    metres = ros_compat.array_to_image(
        np.array([[np.inf, 0.25, -1]], np.float32), "32FC1", Header()
    )
    known = depth_images.depth_in_metres(metres, 3, 1)
    assert np.isnan(known[0, ::2]).all() and known[0, 1] == 0.25
    with pytest.raises(InvalidInput, match="the depth's encoding is 'mono8': 16UC1"):
        depth_images.depth_in_metres(
            ros_compat.array_to_image(np.ones((1, 3), np.uint8), "mono8", Header()), 3, 1
        )
    with pytest.raises(
        InvalidInput,
        match="the depth is 3 x 1 px, the image 6 x 2 px: one aligned to it is needed",
    ):
        depth_images.depth_in_metres(metres, 6, 2)


def test_a_detection_holds_class_score_track_box_and_covariance() -> None:
    covariance = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))
    template = model()
    center = (template.vertices.amin(0) + template.vertices.amax(0)) / 2
    message = message_conversions.detection_array(
        Header(frame_id="cam"), [estimate(covariance=covariance)], [7], [center]
    )
    detection = message.detections[0]
    assert (detection.id, detection.header.frame_id, message.header.frame_id) == (
        "7",
        "cam",
        "cam",
    )
    assert (
        detection.results[0].hypothesis.class_id,
        detection.results[0].hypothesis.score,
    ) == ("car", 0.75)
    assert position(detection.results[0].pose.pose) == [0.5, 0, 2]
    assert position(detection.bbox.center) == pytest.approx(
        [0.5 - 0.2, 0.4, 2.1]
    )  # the center (0.4, 0.2, 0.1), turned
    assert [
        detection.bbox.size.x,
        detection.bbox.size.y,
        detection.bbox.size.z,
    ] == pytest.approx([0.8, 0.4, 0.2])
    assert list(detection.results[0].pose.covariance[::7]) == [1, 2, 3, 4, 5, 6]


def test_an_unknown_covariance_is_minus_one_never_zero() -> None:
    message = message_conversions.detection_array(
        Header(), [estimate()], [0], [torch.zeros(3)]
    )
    assert set(message.detections[0].results[0].pose.covariance) == {-1.0}


def hidden(*shares: float) -> PoseEstimate:
    """The car with alternatives that are turned by 180 and 90 degrees about its z."""
    turns = [(-1.0, -1.0), (0.0, 1.0)]
    modes = []
    for (cos, sin), share in zip(turns, shares, strict=False):
        turn = torch.eye(4, dtype=torch.float64)
        turn[0, 0] = turn[1, 1] = cos
        turn[1, 0], turn[0, 1] = (0.0, 0.0) if cos else (sin, -sin)
        modes.append(PoseMode(estimate().cam_from_canon @ turn, share))
    return replace(estimate(), score=0.5, alternatives=tuple(modes))


def test_every_pose_that_is_possible_is_a_hypothesis_with_its_share_the_best_first() -> (
    None
):
    message = message_conversions.detection_array(
        Header(), [hidden(math.log(0.4), math.log(0.1))], [0], [torch.zeros(3)]
    )
    (detection,) = message.detections
    scores = [result.hypothesis.score for result in detection.results]
    assert scores == pytest.approx([0.5, 0.2, 0.05])
    assert {result.hypothesis.class_id for result in detection.results} == {"car"}
    turns = [result.pose.pose.orientation for result in detection.results]
    half = math.sqrt(0.5)
    assert [turns[0].z, turns[0].w] == pytest.approx([half, half])
    assert [abs(turns[1].z), abs(turns[1].w)] == pytest.approx([half, half])
    assert abs(turns[2].z) == pytest.approx(1.0)
    assert position(detection.bbox.center) == position(detection.results[0].pose.pose)
    assert set(detection.results[1].pose.covariance) == {-1.0}


def test_alternatives_are_a_fan_of_arrows_that_goes_with_them() -> None:
    meshes = {"car": message_conversions.mesh_points(model())}
    header = Header(frame_id="cam")
    # an alternative of a tiny share is not drawn
    message = message_conversions.marker_array(
        header, [hidden(math.log(0.5), -9.0), estimate()], [3, 4], meshes, {}
    )
    assert [(m.ns, m.id) for m in message.markers if "alternatives" in m.ns] == [
        ("car/alternatives", 3)
    ]
    (fan,) = [marker for marker in message.markers if marker.ns == "car/alternatives"]
    assert fan.type == Marker.LINE_LIST and fan.scale.x < 0.05
    assert len(fan.points) == len(fan.colors) == 2 * 6
    # from the origin along the car's x, which is the camera's y, and along the opposite
    assert [fan.points[0].x, fan.points[0].y, fan.points[0].z] == [0.5, 0, 2]
    assert [fan.points[1].y, fan.points[7].y] == pytest.approx([0.8, -0.8])
    assert fan.colors[0].a > fan.colors[6].a
    after = message_conversions.marker_array(
        header, [estimate()], [3], meshes, {3: "car", 4: "car"}, {3}
    )
    assert [(m.ns, m.id) for m in after.markers if m.action == Marker.DELETE] == [
        ("car/alternatives", 3),
        ("car", 4),
        ("car/text", 4),
        ("car/box", 4),
    ]


def test_a_fan_about_the_cars_own_x_points_along_another_axis() -> None:
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    over = replace(
        estimate(), alternatives=(PoseMode(estimate().cam_from_canon @ turn, -0.1),)
    )
    message = message_conversions.marker_array(
        Header(), [over], [0], {"car": message_conversions.mesh_points(model())}, {}
    )
    points = message.markers[-1].points
    assert [points[1].x - points[0].x, points[7].x - points[6].x] == pytest.approx(
        [-0.8, 0.8]
    )


def test_markers_keep_their_ids_and_a_lost_object_is_deleted() -> None:
    meshes = {"car": message_conversions.mesh_points(model())}
    first = message_conversions.marker_array(
        Header(frame_id="cam"), [estimate(), estimate()], [3, 4], meshes, {}
    )
    assert [(m.ns, m.id, m.action) for m in first.markers] == [
        ("car", 3, Marker.ADD),
        ("car/text", 3, Marker.ADD),
        ("car", 4, Marker.ADD),
        ("car/text", 4, Marker.ADD),
    ]
    assert first.markers[0].type == Marker.TRIANGLE_LIST
    assert len(first.markers[0].points) == 12
    assert "car 3" in first.markers[1].text
    second = message_conversions.marker_array(
        Header(frame_id="cam"), [estimate()], [4], meshes, {3: "car", 4: "car"}
    )
    assert [(m.ns, m.id, m.action) for m in second.markers] == [
        ("car", 3, Marker.DELETE),
        ("car/text", 3, Marker.DELETE),
        ("car/box", 3, Marker.DELETE),
        ("car", 4, Marker.ADD),
        ("car/text", 4, Marker.ADD),
    ]


def test_an_instance_with_a_box_of_its_own_has_its_edges_where_the_detections_box_is() -> (
    None
):
    center = torch.tensor([0.0, 0.0, -0.2], dtype=torch.float64)
    size = torch.tensor([0.3, 0.4, 0.9], dtype=torch.float64)
    one = replace(estimate(), center=center, size=size)
    meshes = {"car": message_conversions.mesh_points(model())}
    markers = message_conversions.marker_array(Header(), [one], [0], meshes, {}).markers
    (lines,) = [marker for marker in markers if marker.ns == "car/box"]
    assert lines.type == Marker.LINE_LIST and len(lines.points) == 24
    array = message_conversions.detection_array(Header(), [one], [0], [torch.ones(3)])
    box = array.detections[0].bbox
    assert lines.pose == box.center
    assert [box.size.x, box.size.y, box.size.z] == size.tolist()
    for axis, side in zip("xyz", size.tolist(), strict=True):
        places = {round(getattr(point, axis), 9) for point in lines.points}
        assert places == {-side / 2, side / 2}
        edges = zip(lines.points[::2], lines.points[1::2], strict=True)
        assert sum(getattr(a, axis) != getattr(b, axis) for a, b in edges) == 4
    moved = one.cam_from_canon[:3, :3] @ center + one.cam_from_canon[:3, 3]
    place = box.center.position
    assert [place.x, place.y, place.z] == pytest.approx(moved.tolist())


def test_cv_bridge_writes_the_same_message(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv_bridge")
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    by_bridge = ros_compat.array_to_image(pixels, "rgb8", Header(frame_id="camera"))
    monkeypatch.setattr(ros_compat, "CvBridge", None)
    assert ros_compat.array_to_image(pixels, "rgb8", Header(frame_id="camera")) == by_bridge


def test_tf_transformations_gives_the_same_quaternion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tf_transformations")
    rotation = random_rotations(1, torch.Generator().manual_seed(0))[0].numpy()
    by_package = np.array(ros_compat.quaternion_xyzw(rotation))
    monkeypatch.setattr(ros_compat, "quaternion_from_matrix", None)
    assert abs(
        by_package @ np.array(ros_compat.quaternion_xyzw(rotation))
    ) == pytest.approx(1)
