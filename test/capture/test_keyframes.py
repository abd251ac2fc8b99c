"""Which images are kept.

Exposure, blur and viewpoint with known answers; photos as pixels and as files.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from camera_ring import view
from textures import scene
from uns_pose_ros.capture.keyframes import (
    BLURRED,
    DARK,
    OVEREXPOSED,
    KeyframeChooser,
    KeyframeConfig,
    mean_optical_flow,
    measure_frame,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.encoded_image import EncodedImage

WIDTH, HEIGHT = 640, 480


def photo(x: int = 0, blur: int = 1, seed: int = 0) -> EncodedImage:
    """A window of the scene, moved by x px, blurred along the rows over `blur` px."""
    pixels = scene(seed)[100 : 100 + HEIGHT, 100 + x : 100 + x + WIDTH]
    return EncodedImage.of_pixels(
        np.array(cv2.blur(pixels, (blur, 1)) if blur > 1 else pixels, dtype=np.uint8)
    )


def grey(value: int) -> EncodedImage:
    return EncodedImage.of_pixels(np.full((HEIGHT, WIDTH, 3), value, np.uint8))


@pytest.mark.parametrize("pixels", [0, 6, 13, 26, 51])
def test_the_shift_of_a_moved_image_is_its_motion_in_image_widths(pixels: int) -> None:
    assert mean_optical_flow(
        measure_frame(photo()), measure_frame(photo(pixels))
    ) == pytest.approx(pixels / WIDTH, rel=0.1, abs=0.001)


def test_noise_and_brightness_are_no_motion() -> None:
    sharp = photo().pixels
    assert sharp is not None
    noisy = np.clip(
        sharp + np.random.default_rng(0).normal(0, 8, sharp.shape), 0, 255
    ).astype(np.uint8)
    dim = (0.6 * sharp).astype(np.uint8)
    for other in (noisy, dim):
        assert (
            mean_optical_flow(
                measure_frame(photo()), measure_frame(EncodedImage.of_pixels(other))
            )
            < 0.005
        )


def test_images_that_no_motion_explains_are_different() -> None:
    assert mean_optical_flow(measure_frame(photo()), measure_frame(photo(seed=1))) > 0.1
    assert mean_optical_flow(measure_frame(photo()), measure_frame(grey(110))) > 0.1
    assert mean_optical_flow(measure_frame(grey(60)), measure_frame(grey(110))) == 0
    small = EncodedImage.of_pixels(np.full((240, 640, 3), 110, np.uint8))
    assert mean_optical_flow(measure_frame(grey(110)), measure_frame(small)) == float("inf")


def test_without_poses_an_image_is_new_when_it_has_moved_away_from_the_last_kept() -> None:
    chooser = KeyframeChooser()
    chooser.keep(measure_frame(photo()))
    assert [
        chooser.is_new_view(measure_frame(photo(x))) for x in (0, 10, 20, 40, 100, 300)
    ] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]


def test_with_poses_only_they_count() -> None:
    chooser = KeyframeChooser()
    for azimuth in (0, 20, 40):
        chooser.keep(measure_frame(photo()), view(azimuth))
    assert not chooser.is_new_view(measure_frame(photo(300)), view(20))
    assert chooser.is_new_view(measure_frame(photo()), view(60))
    again = KeyframeChooser(views=[view(azimuth) for azimuth in (0, 20, 40)])
    assert not again.is_new_view(measure_frame(photo(300)), view(20))


@pytest.mark.parametrize(("blur", "fault"), [(1, None), (5, BLURRED), (21, BLURRED)])
def test_an_image_is_blurred_against_the_recent_ones(blur: int, fault: str | None) -> None:
    chooser = KeyframeChooser()
    assert [
        chooser.rejection_reason(measure_frame(photo(x))) for x in range(0, 60, 10)
    ] == [None] * 6
    assert chooser.rejection_reason(measure_frame(photo(30, blur))) == fault


def test_images_that_are_all_alike_are_not_blurred_and_the_first_ones_never() -> None:
    chooser = KeyframeChooser()
    assert [
        chooser.rejection_reason(measure_frame(photo(x, blur=15)))
        for x in range(0, 100, 10)
    ] == [None] * 10
    sharp_first = KeyframeChooser()
    assert [
        sharp_first.rejection_reason(measure_frame(photo(blur=blur))) for blur in (1, 21, 1)
    ] == [None] * 3


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (0, DARK),
        (39, DARK),
        (40, None),
        (128, None),
        (249, None),
        (250, OVEREXPOSED),
        (255, OVEREXPOSED),
    ],
)
def test_exposure_of_flat_images(value: int, fault: str | None) -> None:
    assert KeyframeChooser().rejection_reason(measure_frame(grey(value))) == fault


def test_exposure_judges_parts_of_the_image() -> None:
    def bars(share: float, value: int) -> str | None:
        pixels = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
        pixels[:, : round(share * WIDTH)] = value
        return KeyframeChooser().rejection_reason(
            measure_frame(EncodedImage.of_pixels(pixels))
        )

    assert bars(0.68, 255) is None  # an object in front of a white wall
    assert bars(0.72, 255) == OVEREXPOSED
    assert bars(0.9, 5) is None  # a lit object in front of a black one
    assert bars(0.97, 5) == DARK


def test_settings_move_the_limits() -> None:
    config = KeyframeConfig(sharpness=0.01, darkest=10, clipped=1.0, view_shift=0.2)
    chooser = KeyframeChooser(config)
    for x in range(0, 60, 10):
        chooser.rejection_reason(measure_frame(photo(x)))
    assert chooser.rejection_reason(measure_frame(photo(0, 21))) is None
    assert chooser.rejection_reason(measure_frame(grey(12))) != DARK
    assert chooser.rejection_reason(measure_frame(grey(255))) != OVEREXPOSED
    chooser.keep(measure_frame(photo()))
    assert not chooser.is_new_view(measure_frame(photo(40)))


def test_pixels_survive_as_png_and_nearly_as_jpeg() -> None:
    taken = photo()
    assert taken.pixels is not None
    data, ending = taken.encoded(".png", 95)
    assert ending == ".png"
    assert np.array_equal(np.array(Image.open(io.BytesIO(data))), taken.pixels)
    data, ending = taken.encoded(".jpg", 95)
    assert ending == ".jpg"
    assert (
        np.abs(np.array(Image.open(io.BytesIO(data))).astype(int) - taken.pixels).mean() < 3
    )


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_file_is_kept_as_it_came_and_measured_as_its_pixels_are(ending: str) -> None:
    data, _ = photo().encoded(ending, 95)
    filed = EncodedImage.of_file(data)
    assert (filed.width, filed.height, filed.encoded(".jpg", 1)) == (
        WIDTH,
        HEIGHT,
        (data, ending),
    )
    assert measure_frame(filed).sharpness == pytest.approx(
        measure_frame(photo()).sharpness, rel=0.1
    )
    assert filed.preview(320).shape == (240, 320, 3)
    assert np.abs(filed.preview(320).astype(int) - photo().preview(320)).mean() < 3


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_file_whose_end_is_missing_is_refused(ending: str) -> None:
    data, _ = photo().encoded(ending, 95)
    with pytest.raises(InvalidInput, match="broken"):
        measure_frame(EncodedImage.of_file(data[: len(data) // 2]))


def test_files_that_are_no_image_are_refused() -> None:
    for data in (b"", b"\xff\xd8", b"GIF89a" + bytes(100)):
        with pytest.raises(InvalidInput, match="broken or of unknown format; JPEG, PNG"):
            EncodedImage.of_file(data)


def test_a_file_that_a_video_folder_does_not_keep_becomes_pixels() -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1028
    deep = io.BytesIO()
    Image.fromarray(values).save(deep, "PNG")
    image = EncodedImage.of_file(deep.getvalue())
    assert image.file is None and image.pixels is not None
    assert np.array_equal(image.pixels[..., 1], values // 257)


def test_grey_files_are_images() -> None:
    data = cv2.imencode(".jpg", scene()[..., 0])[1].tobytes()
    assert measure_frame(EncodedImage.of_file(data)).sharpness > 0
    assert EncodedImage.of_file(data).preview(300).shape == (225, 300, 3)
