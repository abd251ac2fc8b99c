"""Messages to nouns and back, with known answers."""

from __future__ import annotations

import array
import json
import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.io import depth_images

pytest.importorskip("rclpy")
from geometry_msgs.msg import Pose
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from uns_pose_ros.nodes import message_conversions, ros_compat


def image(
    encoding: str, pixels: np.ndarray, padding: int = 0, bigendian: bool = False
) -> Image:
    """A message written by hand: rows of `pixels` (H, W[, C]) with `padding` bytes after each."""
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if bigendian else "<"))
    data = b"".join(row.tobytes() + b"\xaa" * padding for row in rows)
    step = len(data) // len(pixels)
    message = Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(bigendian),
        step=step,
    )
    message.data = array.array("B", data)
    return message


RED, GREEN, BLUE = (200, 10, 20), (10, 220, 30), (20, 30, 240)
PICTURE = np.array([[RED, GREEN, BLUE], [BLUE, RED, GREEN]], np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", PICTURE),
        ("bgr8", PICTURE[..., ::-1]),
        ("rgba8", np.dstack([PICTURE, np.full((2, 3), 9, np.uint8)])),
        ("bgra8", np.dstack([PICTURE[..., ::-1], np.full((2, 3), 9, np.uint8)])),
    ],
)
def test_colour_images_become_the_same_rgb_whatever_their_encoding_and_padding(
    encoding: str, pixels: np.ndarray, padding: int
) -> None:
    assert np.array_equal(
        ros_compat.image_to_rgb(image(encoding, pixels, padding)), PICTURE
    )


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize(
    ("encoding", "kind"), [("mono16", "u2"), ("16UC1", "u2"), ("32FC1", "f4")]
)
def test_sixteen_and_thirty_two_bits_survive_padding_and_byte_order(
    encoding: str, kind: str, bigendian: bool
) -> None:
    pixels = np.array([[1, 258, 40000], [3, 4, 65535]]).astype(kind)
    decoded = ros_compat.image_to_array(
        image(encoding, pixels, padding=6, bigendian=bigendian)
    )
    assert decoded.dtype == np.dtype(kind)
    assert np.array_equal(decoded, pixels)


def test_grey_images_become_rgb_and_sixteen_bits_keep_the_upper_eight() -> None:
    grey = np.array([[0, 100], [200, 255]], np.uint8)
    assert np.array_equal(
        ros_compat.image_to_rgb(image("mono8", grey)), np.dstack([grey] * 3)
    )
    assert np.array_equal(
        ros_compat.image_to_rgb(image("mono16", grey.astype(np.uint16) * 256 + 7)),
        np.dstack([grey] * 3),
    )


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_mosaic_of_one_colour_becomes_that_colour(order: str) -> None:
    colour = dict(zip("rgb", RED, strict=True))
    tile = np.array([colour[c] for c in order], np.uint8).reshape(2, 2)
    picture = ros_compat.image_to_rgb(image(f"bayer_{order}8", np.tile(tile, (4, 4))))
    assert np.array_equal(picture, np.broadcast_to(np.array(RED, np.uint8), (8, 8, 3)))


@pytest.mark.parametrize(
    ("encoding", "luma_first"), [("yuv422", False), ("yuv422_yuy2", True)]
)
def test_neutral_yuv_is_grey(encoding: str, luma_first: bool) -> None:
    pixel = (126, 128) if luma_first else (128, 126)  # luma 126 of 16..235 is 128 of 0..255
    picture = ros_compat.image_to_rgb(
        image(encoding, np.broadcast_to(np.array(pixel, np.uint8), (2, 4, 2)))
    )
    assert np.abs(picture.astype(int) - 128).max() <= 1


def test_an_unknown_encoding_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidInput, match="'yuv9'.*known are rgb8, bgr8"):
        ros_compat.image_to_array(image("yuv9", PICTURE))


def test_depth_is_no_picture() -> None:
    with pytest.raises(InvalidInput, match="'16UC1' is no picture"):
        ros_compat.image_to_rgb(image("16UC1", np.ones((2, 2), np.uint16)))


@pytest.mark.parametrize("fault", ["short data", "short step", "empty"])
def test_an_image_whose_data_do_not_fit_its_size_is_refused(fault: str) -> None:
    message = image("rgb8", PICTURE)
    if fault == "short data":
        message.data = message.data[:-1]
    elif fault == "short step":
        message.step = 8
    else:
        message = Image(encoding="rgb8")
    with pytest.raises(InvalidInput, match="a row needs"):
        ros_compat.image_to_array(message)


def test_an_array_returns_unchanged_from_a_message() -> None:
    message = ros_compat.array_to_image(PICTURE, "rgb8", Header(frame_id="cam"))
    assert (message.step, message.header.frame_id) == (9, "cam")
    assert np.array_equal(ros_compat.image_to_rgb(message), PICTURE)
    with pytest.raises(ValueError, match="are not mono16"):
        ros_compat.array_to_image(PICTURE, "mono16", Header())


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


def test_cv_bridge_and_the_stand_in_read_the_same() -> None:
    bridge = pytest.importorskip("cv_bridge").CvBridge()
    for encoding, pixels in (
        ("bgr8", PICTURE),
        ("16UC1", PICTURE[..., 0].astype(np.uint16) * 300),
        ("mono8", PICTURE[..., 1]),
    ):
        message = image(encoding, pixels, padding=4)
        kind, channels = ros_compat.LAYOUT[encoding]
        ours = ros_compat._decode(
            message, kind, channels, message.width * channels * np.dtype(kind).itemsize
        )
        assert np.array_equal(bridge.imgmsg_to_cv2(message, "passthrough"), ours)


def test_a_compressed_picture_is_rgb_and_rubbish_is_refused() -> None:
    png = cv2.imencode(".png", PICTURE[..., ::-1])[1].tobytes()
    assert np.array_equal(
        ros_compat.compressed_to_rgb(
            CompressedImage(format="png", data=array.array("B", png))
        ),
        PICTURE,
    )
    with pytest.raises(InvalidInput, match="JPEG or PNG"):
        ros_compat.compressed_to_rgb(
            CompressedImage(format="h264", data=array.array("B", b"rubbish"))
        )


def info(width: int = 640, height: int = 480, **fields: Any) -> CameraInfo:
    message = CameraInfo(
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.1, -0.2, 0.001, 0.002, 0.05],
    )
    message.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    message.p = [450.0, 0.0, 310.0, -45.0, 0.0, 460.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def intrinsics(camera: Camera) -> list[float]:
    """fx fy cx cy"""
    return [float(camera.matrix[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))]


def test_a_raw_image_takes_k_and_distortion_a_rectified_one_p_alone() -> None:
    raw = message_conversions.camera_from_info(info(), 640, 480, rectified=False)
    assert intrinsics(raw) == [500, 510, 320, 240]
    assert raw.distortion.tolist() == pytest.approx([0.1, -0.2, 0.001, 0.002, 0.05])
    rectified = message_conversions.camera_from_info(info(), 640, 480, rectified=True)
    assert intrinsics(rectified) == [450, 460, 310, 230]
    assert len(rectified.distortion) == 0


def test_binning_and_region_of_interest_move_and_scale_the_intrinsics() -> None:
    message = info(binning_x=2, binning_y=2)
    message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height = (
        100,
        60,
        400,
        300,
    )
    camera = message_conversions.camera_from_info(message, 200, 150, rectified=False)
    assert intrinsics(camera) == [250, 255, 110, 90]
    assert (camera.width, camera.height) == (200, 150)


def test_a_driver_that_sends_the_whole_image_in_spite_of_a_region_keeps_the_full_intrinsics() -> (
    None
):
    message = info()
    message.roi.x_offset, message.roi.width, message.roi.height = 100, 400, 300
    assert intrinsics(
        message_conversions.camera_from_info(message, 640, 480, rectified=False)
    ) == [500, 510, 320, 240]


def test_a_resized_image_scales_the_intrinsics() -> None:
    assert intrinsics(
        message_conversions.camera_from_info(info(), 320, 240, rectified=False)
    ) == [250, 255, 160, 120]


def test_an_image_of_another_shape_than_camera_info_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match="the image is 640 x 360 px, camera_info describes 640 x 480 px"
    ):
        message_conversions.camera_from_info(info(), 640, 360, rectified=False)


@pytest.mark.parametrize("rectified", [False, True])
def test_an_uncalibrated_camera_is_refused(rectified: bool) -> None:
    with pytest.raises(InvalidInput, match=r"uncalibrated \(camera_info has K\[0\] = 0\)"):
        message_conversions.camera_from_info(
            CameraInfo(width=640, height=480), 640, 480, rectified
        )


def test_a_rectified_image_without_p_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no P"):
        message_conversions.camera_from_info(info(p=[0.0] * 12), 640, 480, rectified=True)


def test_fisheye_is_refused_unless_rectified_and_zeros_are_no_distortion() -> None:
    fisheye = info(distortion_model="equidistant", d=[0.1, 0.0, 0.0, 0.0])
    with pytest.raises(
        InvalidInput, match="'equidistant' with 4 coefficients is not supported"
    ):
        message_conversions.camera_from_info(fisheye, 640, 480, rectified=False)
    assert intrinsics(
        message_conversions.camera_from_info(fisheye, 640, 480, rectified=True)
    ) == [450, 460, 310, 230]
    assert (
        len(
            message_conversions.camera_from_info(
                info(d=[0.0] * 5), 640, 480, rectified=False
            ).distortion
        )
        == 0
    )


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
    known = depth_images.in_metres(millimetres, 3, 1)
    assert np.isnan(known[0, 0]) and known[0, 1:].tolist() == pytest.approx([0.001, 65.535])
    metres = ros_compat.array_to_image(
        np.array([[np.inf, 0.25, -1]], np.float32), "32FC1", Header()
    )
    known = depth_images.in_metres(metres, 3, 1)
    assert np.isnan(known[0, ::2]).all() and known[0, 1] == 0.25
    with pytest.raises(InvalidInput, match="the depth's encoding is 'mono8': 16UC1"):
        depth_images.in_metres(
            ros_compat.array_to_image(np.ones((1, 3), np.uint8), "mono8", Header()), 3, 1
        )
    with pytest.raises(
        InvalidInput,
        match="the depth is 3 x 1 px, the image 6 x 2 px: one aligned to it is needed",
    ):
        depth_images.in_metres(metres, 6, 2)


def test_a_detection_holds_class_score_track_box_and_covariance() -> None:
    covariance = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))
    template = model()
    centre = (template.vertices.amin(0) + template.vertices.amax(0)) / 2
    message = message_conversions.detection_array(
        Header(frame_id="cam"), [estimate(covariance=covariance)], [7], [centre]
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
    )  # the centre (0.4, 0.2, 0.1), turned
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
        ("car", 4, Marker.ADD),
        ("car/text", 4, Marker.ADD),
    ]
