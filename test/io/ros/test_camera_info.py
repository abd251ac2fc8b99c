"""A CameraInfo message becomes the camera of its image, or it is refused with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")
from bag_writer import camera_info
from camera_messages import KINDS, info_message
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.ros.ros_messages import read_camera_info


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("roi", [(0, 0, 0, 0), (8, 4, 32, 24)])
@pytest.mark.parametrize("binning", [(0, 0), (2, 2), (4, 2)])
@pytest.mark.parametrize("resize", [1, 2])
def test_a_ray_meets_the_pixel_that_averages_its_pixels_of_the_sensor(
    kind: str,
    rectified: bool,
    roi: tuple[int, int, int, int],
    binning: tuple[int, int],
    resize: int,
) -> None:
    """The center of each pixel is the mean of the centers of the sensor's pixels in it."""
    info = info_message(kind, roi=roi, binning_x=binning[0], binning_y=binning[1])
    x_offset, y_offset = roi[:2]
    width, height = roi[2] or 64, roi[3] or 48
    factors = [max(step, 1) * resize for step in binning]
    columns, rows = width // factors[0], height // factors[1]
    camera = read_camera_info(info, columns, rows, rectified)
    assert (camera.width, camera.height) == (columns, rows)
    assert len(camera.distortion) == (0 if rectified else 5)
    sensor = np.array(info.p if rectified else info.k, float).reshape(3, -1)[:, :3]
    for number in (0, 1, 5):
        mean_x = x_offset + np.mean(np.arange(factors[0]) + number * factors[0])
        mean_y = y_offset + np.mean(np.arange(factors[1]) + number * factors[1])
        ray = np.linalg.inv(sensor) @ [mean_x, mean_y, 1]
        pixel = camera.matrix.numpy() @ ray
        np.testing.assert_allclose(pixel[:2] / pixel[2], [number, number], atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_image_keeps_its_camera_whatever_region_and_binning_say(kind: str) -> None:
    for info in (
        info_message(kind, roi=(8, 4, 32, 24), binning_x=2),
        info_message(kind, width=0, height=0),
    ):
        camera = read_camera_info(info, 64, 48, rectified=False)
        assert camera.matrix.flatten().tolist() == list(info.k)


def test_a_width_that_binning_does_not_divide_loses_its_last_columns() -> None:
    camera = read_camera_info(info_message("rosbags", width=65, binning_x=2), 32, 48, False)
    assert float(camera.matrix[0, 0]) == 50
    half = read_camera_info(info_message("rosbags"), 32, 24, False)
    assert float(half.matrix[0, 2]) == (31.0 + 0.5) / 2 - 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("model", "given", "kept"),
    [
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0], 4),
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.0], 5),
        ("", [0.1, 0.2, 0.3, 0.4, 0.5], 5),
        ("rational_polynomial", [0.1] * 8, 8),
        ("rational_polynomial", [0.1] * 8 + [0.0] * 4, 8),
        ("rational_polynomial", [0.1] * 8 + [0.0] * 6, 8),
        ("plumb_bob", [0.0] * 5, 0),
        ("plumb_bob", [], 0),
        ("none", [0.0] * 4, 0),
        ("inverse_brown_conrady", [0.0] * 5, 0),
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.3] + [0.0] * 7, 8),
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.3] + [0.0] * 9, 8),
    ],
)
def test_distortion_is_kept_and_zeros_after_the_eighth_do_not_matter(
    kind: str, model: str, given: list[float], kept: int
) -> None:
    camera = read_camera_info(
        info_message(kind, distortion_model=model, d=given), 64, 48, False
    )
    assert camera.distortion.tolist() == given[:kept]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["equidistant", "fisheye", "EQUIDISTANT"])
@pytest.mark.parametrize("count", [0, 4, 5])
def test_a_fisheye_lens_with_zeros_is_no_pinhole_camera(
    kind: str, model: str, count: int
) -> None:
    info = info_message(kind, distortion_model=model, d=[0.0] * count)
    with pytest.raises(InvalidInput, match="no pinhole camera even with zeros"):
        read_camera_info(info, 64, 48, False)
    assert read_camera_info(info, 64, 48, True).distortion.numel() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "size", "rectified", "reason"),
    [
        ({"k": [0.0] * 9}, (64, 48), False, r"uncalibrated \(camera_info has K\[0\] = 0\)"),
        ({"p": [0.0] * 12}, (64, 48), True, r"P\[0\] = 0\): publish P, or set rectified"),
        ({"k": [0.0] * 9, "p": [0.0] * 12}, (64, 48), True, r"P\[0\] = 0\): calibrate it"),
        ({"k": [1.0, 0, 0, 0, 0, 0, 0, 0, 1]}, (64, 48), False, r"K\[4\] = 0"),
        ({"k": [np.nan] * 9}, (64, 48), False, "K that is not finite"),
        (
            {"k": [60.0, 0, 32, 0, 60, 24, 0, 0, 2]},
            (64, 48),
            False,
            r"0 0 2\) that is none",
        ),
        ({"k": [60.0, 0, 32, 5, 60, 24, 0, 0, 1]}, (64, 48), False, r"5 60 24; .* is none"),
        ({"d": [np.inf] * 5}, (64, 48), False, "coefficients that are not finite"),
        ({"distortion_model": "equidistant"}, (64, 48), False, "'equidistant' with 5"),
        (
            {"d": [0.1] * 3},
            (64, 48),
            False,
            "'plumb_bob' with 3 coefficients is not supported",
        ),
        ({"d": [0.1] * 12}, (64, 48), False, "12 .* thin prism terms are not 0"),
        (
            {},
            (64, 36),
            False,
            "image is 64 x 36 px, camera_info describes 64 x 48 px: the same",
        ),
        ({"roi": (0, 0, 32, 16)}, (32, 24), False, "camera_info describes 32 x 16 px"),
    ],
)
def test_cameras_that_cannot_be_used_are_refused(
    kind: str, changes: dict[str, Any], size: tuple[int, int], rectified: bool, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        read_camera_info(info_message(kind, **changes), *size, rectified)
    assert len(str(caught.value).splitlines()) == 1


def test_rectified_images_have_the_camera_p_and_binned_ones_half_of_k() -> None:
    info = camera_info(0)
    assert read_camera_info(info, 64, 48, rectified=True).matrix[0, 0] == 90
    info.binning_x = info.binning_y = 2
    info.d = np.array([0.1, 0, 0, 0, 0])
    binned = read_camera_info(info, 32, 24, rectified=False)
    assert binned.matrix[0, 0] == 50 and binned.distortion.tolist() == [0.1, 0, 0, 0, 0]
    info.distortion_model = "equidistant"
    with pytest.raises(
        InvalidInput,
        match="distortion model 'equidistant' with 5 coefficients is not supported",
    ):
        read_camera_info(info, 64, 48, rectified=False)
