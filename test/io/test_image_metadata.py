"""Orientation and focal length of an image by its metadata, and what makes them doubtful."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from fuzz_mutations import mutate
from source_files import checks
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import image_metadata
from uns_pose_ros.io.image_metadata import ImageMetadata, read_upright

FOCAL, FOCAL_35, PER_X, PER_Y, UNIT = 0x920A, 0xA405, 0xA20E, 0xA20F, 0xA210
ZOOM, RENDERED, WIDE, HIGH = 0xA404, 0xA401, 0xA002, 0xA003
DIAGONAL = 43.267  # mm
# a lens of 5 mm over 64 px of a sensor that is 5 mm wide: 64 px
PLANE = {FOCAL: 5.0, PER_X: 12.8, PER_Y: 12.8, UNIT: 4}
ENDINGS = ("jpg", "png", "webp", "tif")
PANORAMA_WITHOUT_TYPE = "<x><GPano:UsePanoramaViewer>True</GPano:UsePanoramaViewer></x>"


def save(
    path: Path,
    tags: dict[int, Any],
    orientation: Any = None,
    image: np.ndarray | None = None,
    xmp: str = "",
    main: dict[int, Any] | None = None,
) -> Path:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    exif.get_ifd(0x8769).update(tags)
    exif[0x8769] = 0  # without this entry a TIFF gets no EXIF
    for tag, value in (main or {}).items():
        exif[tag] = value
    pixels = Image.fromarray(checks(1) if image is None else image)
    words: dict[str, Any] = {"xmp": xmp.encode()} if xmp else {}
    pixels.save(path, exif=exif, quality=95, **words)
    return path


def metadata(folder: Path, tags: dict[int, Any], **words: Any) -> ImageMetadata:
    return read_upright(save(folder / "a.jpg", tags, **words)).metadata


def kinds(found: ImageMetadata) -> list[str]:
    return [note.kind for note in found.notes]


@pytest.mark.parametrize("unit", [(2, 25.4), (3, 10.0), (4, 1.0), (5, 0.001), (None, 25.4)])
def test_the_resolution_in_the_focal_plane_counts_in_its_unit(
    tmp_path: Path, unit: tuple[int | None, float]
) -> None:
    number, millimeters = unit
    tags = {FOCAL: 5.0, PER_X: 12.8 * millimeters}
    found = metadata(tmp_path, tags if number is None else {**tags, UNIT: number})
    assert found.focal == pytest.approx(64, rel=1e-4) and not found.notes


@pytest.mark.parametrize("shrunk", [1, 2, 4, 0.5])
def test_an_image_that_was_shrunk_scales_the_focal_length_of_its_metadata(
    tmp_path: Path, shrunk: float
) -> None:
    size = {WIDE: round(64 * shrunk), HIGH: round(48 * shrunk)}
    large = {**PLANE, PER_X: 12.8 * shrunk, PER_Y: 12.8 * shrunk, **size}
    found = metadata(tmp_path, large)
    assert found.focal == pytest.approx(64, rel=1e-4) and not found.notes


@pytest.mark.parametrize("place", ["TIFF tags", "XMP", "XMP elements"])
def test_the_size_before_it_was_shrunk_may_stand_in_other_metadata(
    tmp_path: Path, place: str
) -> None:
    large: dict[int, Any] = {**PLANE, PER_X: 51.2, PER_Y: 51.2}
    words: dict[str, Any] = {"main": {0x0100: 256, 0x0101: 192}}
    if place == "XMP":
        words = {"xmp": '<x exif:PixelXDimension="256" exif:PixelYDimension="192"/>'}
    elif place == "XMP elements":
        width = "<tiff:ImageWidth>256</tiff:ImageWidth>"
        words = {"xmp": f"<x>{width}<tiff:ImageLength>192</tiff:ImageLength></x>"}
    assert metadata(tmp_path, large, **words).focal == pytest.approx(64, rel=1e-4)


def test_the_35_mm_equivalent_does_not_depend_on_the_size(tmp_path: Path) -> None:
    for size in ({}, {WIDE: 256, HIGH: 192}):
        found = metadata(tmp_path, {FOCAL_35: 26, **size})
        assert found.focal == pytest.approx(26 * 80 / DIAGONAL) and not found.notes


def test_of_two_focal_lengths_that_disagree_the_35_mm_equivalent_is_used_and_said(
    tmp_path: Path,
) -> None:
    found = metadata(tmp_path, {**PLANE, PER_X: 51.2, PER_Y: 51.2, FOCAL_35: 35})
    assert found.focal == pytest.approx(35 * 80 / DIAGONAL)
    assert kinds(found) == [image_metadata.REPLACED] and "256 px" in found.notes[0].detail
    agreed = metadata(tmp_path, {**PLANE, FOCAL_35: 35})
    assert agreed.focal == pytest.approx(35 * 80 / DIAGONAL) and not agreed.notes


def test_sizes_that_contradict_each_other_leave_no_focal_length(tmp_path: Path) -> None:
    main = {0x0100: 256, 0x0101: 192}
    found = metadata(tmp_path, {**PLANE, WIDE: 64, HIGH: 48}, main=main)
    assert found.focal is None and kinds(found) == [image_metadata.DOUBTED]


@pytest.mark.parametrize("size", [(64, 64), (85, 48), (48, 85)])
def test_a_crop_keeps_the_focal_length_and_says_that_the_middle_is_unknown(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    found = metadata(tmp_path, {**PLANE, WIDE: size[0], HIGH: size[1]})
    assert found.focal == pytest.approx(64, rel=1e-4)
    assert kinds(found) == [image_metadata.CROPPED]
    wide = metadata(tmp_path, {FOCAL_35: 26, WIDE: size[0], HIGH: size[1]})
    assert wide.focal == pytest.approx(26 * math.hypot(*size) / DIAGONAL)


def test_an_image_of_another_shape_and_scale_than_its_metadata_has_no_focal_length(
    tmp_path: Path,
) -> None:
    for tags in (PLANE, {FOCAL_35: 26}):
        found = metadata(tmp_path, {**tags, WIDE: 400, HIGH: 200})
        assert found.focal is None and kinds(found) == [image_metadata.DOUBTED]
        assert "400 x 200 px" in found.notes[0].detail


def test_a_size_recorded_before_the_image_was_turned_is_understood(tmp_path: Path) -> None:
    large = {**PLANE, PER_X: 25.6, PER_Y: 25.6, WIDE: 96, HIGH: 128}
    found = metadata(tmp_path, large)
    assert found.focal == pytest.approx(64, rel=1e-4) and not found.notes


def test_a_digital_zoom_is_part_of_what_two_focal_lengths_explain(tmp_path: Path) -> None:
    equivalent = 64 * DIAGONAL / 80
    for tags in (
        {**PLANE, PER_X: 6.4, PER_Y: 6.4, FOCAL_35: round(equivalent)},
        {**PLANE, FOCAL_35: round(equivalent / 2)},
    ):
        found = metadata(tmp_path, {**tags, ZOOM: 2.0})
        assert found.focal == pytest.approx(64, rel=0.02) and not found.notes


def test_a_digital_zoom_makes_a_single_focal_length_doubtful(tmp_path: Path) -> None:
    plane = metadata(tmp_path, {**PLANE, ZOOM: 2.0})
    assert plane.focal is None and kinds(plane) == [image_metadata.DOUBTED]
    equivalent = metadata(tmp_path, {FOCAL_35: 26, ZOOM: 2.0})
    assert equivalent.focal is not None and kinds(equivalent) == [image_metadata.UNCERTAIN]
    for none in (0.0, 1.0):
        assert not metadata(tmp_path, {FOCAL_35: 26, ZOOM: none}).notes


@pytest.mark.parametrize(
    "wrong",
    [
        {FOCAL: IFDRational(0, 0)},
        {FOCAL: 0.0},
        {PER_X: IFDRational(12800, 0)},
        {PER_X: 0.0},
        {PER_Y: 25.6},
        {PER_Y: 0.0},
        {UNIT: 1},
        {UNIT: 77},
        {FOCAL: 5e6},
        {FOCAL: 0.001},
    ],
)
def test_a_focal_length_that_cannot_be_is_not_used_and_said(
    tmp_path: Path, wrong: dict[int, Any]
) -> None:
    found = metadata(tmp_path, {**PLANE, **wrong})
    assert found.focal is None and kinds(found) == [image_metadata.DOUBTED]
    both = metadata(tmp_path, {**PLANE, **wrong, FOCAL_35: 35})
    assert both.focal == pytest.approx(35 * 80 / DIAGONAL)
    assert kinds(both) == [image_metadata.PARTLY_DOUBTED]


@pytest.mark.parametrize("value", [1, 65535])
def test_an_absurd_35_mm_equivalent_is_not_used_and_zero_is_unknown(
    tmp_path: Path, value: int
) -> None:
    assert kinds(metadata(tmp_path, {FOCAL_35: value})) == [image_metadata.DOUBTED]
    assert metadata(tmp_path, {FOCAL_35: 0}) == ImageMetadata()
    assert metadata(tmp_path, {}) == ImageMetadata()


def test_a_panorama_has_no_focal_length(tmp_path: Path) -> None:
    sphere = '<x GPano:ProjectionType="equirectangular"/>'
    for found in (
        metadata(tmp_path, {FOCAL_35: 26, RENDERED: 6}),
        metadata(tmp_path, {FOCAL_35: 26}, xmp=sphere),
    ):
        assert found.focal is None and "panorama" in found.notes[0].detail


def test_xmp_gives_the_focal_length_where_exif_lacks_it(tmp_path: Path) -> None:
    xmp = '<x exif:FocalLengthIn35mmFilm="26"/>'
    assert metadata(tmp_path, {}, xmp=xmp).focal == pytest.approx(26 * 80 / DIAGONAL)
    xmp = (
        '<x exif:FocalLength="50/10" exif:FocalPlaneXResolution="128/10" '
        'exif:FocalPlaneResolutionUnit="4"/>'
    )
    assert metadata(tmp_path, {}, xmp=xmp).focal == pytest.approx(64)


def test_xmp_is_read_whatever_its_quotes_and_blanks(tmp_path: Path) -> None:
    xmp = "<x exif:FocalLengthIn35mmFilm = '26' tiff:Orientation='6'/>"
    image = read_upright(save(tmp_path / "a.jpg", {}, xmp=xmp))
    assert image.turned and image.pixels.shape == (64, 48, 3)
    assert image.metadata.focal == pytest.approx(26 * 80 / DIAGONAL)
    for sphere in ("<x GPano:ProjectionType = 'cylindrical'/>", PANORAMA_WITHOUT_TYPE):
        found = metadata(tmp_path, {FOCAL_35: 26}, xmp=sphere)
        assert found.focal is None and "panorama" in found.notes[0].detail


def test_exif_of_a_png_is_read_as_imagemagick_writes_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[FOCAL_35] = 26
    data = exif.tobytes()
    text = f"\ngeneric\n{len(data):8}\n{data[:36].hex()}\n{data[36:].hex()}\n"
    info = PngInfo()
    info.add_text("Raw profile type APP1", text, zip=True)
    Image.fromarray(checks(1)).save(tmp_path / "a.png", pnginfo=info)
    image = read_upright(tmp_path / "a.png")
    assert image.turned and image.metadata.focal == pytest.approx(26 * 80 / DIAGONAL)


def test_an_orientation_that_the_recorded_size_contradicts_is_said(tmp_path: Path) -> None:
    size = {FOCAL_35: 26, WIDE: 48, HIGH: 64}
    image = read_upright(save(tmp_path / "a.jpg", size, 6))
    assert image.turned and kinds(image.metadata) == [image_metadata.TURNED]
    image = read_upright(save(tmp_path / "a.jpg", {**size, WIDE: 64, HIGH: 48}, 6))
    assert image.turned and not image.metadata.notes


def test_transparency_of_an_image_is_said(tmp_path: Path) -> None:
    for alpha, expected in ((255, []), (0, [image_metadata.TRANSPARENT])):
        layer = np.full((48, 64, 1), 255, np.uint8)
        layer[:9] = alpha
        Image.fromarray(np.dstack([checks(1), layer])).save(tmp_path / "a.png")
        image = read_upright(tmp_path / "a.png")
        assert kinds(image.metadata) == expected
        assert np.array_equal(image.pixels, checks(1))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format_shows_the_same_upright_image(
    tmp_path: Path, ending: str, orientation: int
) -> None:
    upright = checks(9)
    back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    stored = image_metadata._transpose(Image.fromarray(upright), back)
    path = tmp_path / f"a.{ending}"
    save(path, {FOCAL_35: 26}, orientation, np.asarray(stored))
    image = read_upright(path)
    assert image.pixels.shape == upright.shape
    assert np.abs(image.pixels.astype(int) - upright).mean() < 10
    camera, source = image.camera()
    assert source == "exif" and (camera.width, camera.height) == (64, 48)
    assert float(camera.matrix[0, 0]) == pytest.approx(26 * 80 / DIAGONAL)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(
    tmp_path: Path, orientation: int
) -> None:
    image = read_upright(save(tmp_path / "a.jpg", {}, orientation))
    assert image.pixels.shape == (48, 64, 3) and not image.turned


def test_sixteen_bits_are_turned_too(tmp_path: Path) -> None:
    values = (np.arange(48 * 64, dtype=np.uint16) * 20).reshape(48, 64)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[FOCAL_35] = 26
    exif[0x8769] = 0
    for ending in ("png", "tif"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(values).save(path, exif=exif)
        image = read_upright(path)
        assert image.pixels.shape == (64, 48, 3) and image.pixels[0, 0, 0] > 200
        assert image.metadata.focal == pytest.approx(26 * 80 / DIAGONAL)


def test_of_a_file_with_several_images_the_first_is_used_and_said(tmp_path: Path) -> None:
    first, second = Image.fromarray(checks(9)), Image.fromarray(255 - checks(9))
    for ending in ("tif", "webp", "png"):
        path = tmp_path / f"a.{ending}"
        words: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
        first.save(path, save_all=True, append_images=[second], **words)
        image = read_upright(path)
        assert np.array_equal(image.pixels, checks(9))
        assert kinds(image.metadata) == [image_metadata.PAGES]
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second], quality=95)
    image = read_upright(tmp_path / "a.mpo")
    assert image.format == "JPEG" and not image.metadata.notes


def test_broken_metadata_never_stop_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769).update({**PLANE, FOCAL_35: 35, WIDE: 64, HIGH: 48, ZOOM: 1.0})
    block, image = exif.tobytes(), Image.fromarray(checks(1))
    readable = 0
    for number in range(150):
        image.save(path, exif=mutate(block, "exif", Random(number))[:60000])
        found = None
        with contextlib.suppress(InvalidInput):
            found = read_upright(path)
        if found is None:
            continue
        readable += 1
        assert found.metadata.focal is None or math.isfinite(found.metadata.focal)
        assert all("\n" not in note.detail for note in found.metadata.notes)
    assert readable > 100


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3)])
def test_sixteen_bits_of_which_the_lower_ones_are_used_are_said(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    values = np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    for largest, notes in ((65535, []), (4095, [image_metadata.FAINT])):
        cv2.imwrite(str(tmp_path / "a.png"), (values * largest).astype(np.uint16))
        assert kinds(read_upright(tmp_path / "a.png").metadata) == notes


@pytest.mark.parametrize(
    "main", [{0x010F: "GoPro"}, {0x0110: "Insta360 X3"}, {0x010F: "Canon"}]
)
def test_a_camera_that_is_known_for_a_fisheye_lens_is_said(
    tmp_path: Path, main: dict[int, Any]
) -> None:
    known = main != {0x010F: "Canon"}
    assert kinds(metadata(tmp_path, {}, main=main)) == [image_metadata.FISHEYE] * known
    lens = {0xA434: "EF 8-15mm Fisheye USM"}
    assert kinds(metadata(tmp_path, lens, main=main)) == [image_metadata.FISHEYE]


def test_every_orientation_is_undone_as_pillow_does(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        path = save(tmp_path / "a.jpg", {}, orientation)
        wanted = ImageOps.exif_transpose(Image.open(path))
        assert np.array_equal(read_upright(path).pixels, np.array(wanted))


def test_cmyk_has_the_colors_that_people_see(tmp_path: Path) -> None:
    image = np.full((48, 64, 3), (200, 30, 40), np.uint8)
    Image.fromarray(image).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_upright(tmp_path / "a.jpg").pixels.astype(int) - image).max() < 5
