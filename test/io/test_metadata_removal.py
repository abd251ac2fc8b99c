"""Copied images: nothing of people, places and devices, and every pixel as it was."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from uns_pose_ros.io.image_metadata import read_metadata
from uns_pose_ros.io.metadata_removal import remove_private_metadata

PRIVATE = b"PRIVATE"
PIXELS = np.random.default_rng(3).integers(0, 255, (40, 56, 3), dtype=np.uint8)


def private_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = exif[0x0110] = exif[0x013B] = exif[0x9286] = "PRIVATE"
    exif[0x0132] = "2026:01:01 PRIVATE"
    exif[0x0112] = 6
    inner = exif.get_ifd(0x8769)
    inner.update({0x920A: 4.25, 0xA405: 28, 0xA002: 56, 0xA003: 40, 0x829A: 0.01})
    inner.update(
        {0xA431: "PRIVATE serial", 0xA434: "PRIVATE lens", 0x927C: b"PRIVATE note"}
    )
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 11.0), 29: "PRIVATE"})
    return exif


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def with_everything(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A file with private text wherever its format has room."""
    options |= {"exif": private_exif()}
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", "PRIVATE")
        text.add_itxt("XML:com.adobe.xmp", "PRIVATE", zip=False)
        return encoded(kind, mode, pnginfo=text, **options) + PRIVATE
    options |= {"xmp": b"<x>PRIVATE</x>", "icc_profile": b"PRIVATE profile"}
    if kind == "WEBP":
        return encoded(kind, mode, **options)
    data = encoded(kind, mode, comment="PRIVATE", **options)
    iptc = b"Photoshop 3.0\x00PRIVATE"
    data = data[:2] + b"\xff\xed" + (len(iptc) + 2).to_bytes(2, "big") + iptc + data[2:]
    return data + PRIVATE + encoded("JPEG")  # as a film or a second image behind the first


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("JPEG", "RGB", {}),
    "gray jpeg": ("JPEG", "L", {}),
    "progressive jpeg": ("JPEG", "RGB", {"progressive": True}),
    "jpeg for print": ("JPEG", "CMYK", {}),
    "jpeg with restarts": ("JPEG", "RGB", {"restart_marker_rows": 1}),
    "png": ("PNG", "RGB", {}),
    "palette png": ("PNG", "P", {"transparency": 3}),
    "transparent png": ("PNG", "RGBA", {}),
    "webp": ("WEBP", "RGB", {}),
    "lossless webp": ("WEBP", "RGBA", {"lossless": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_copy_has_the_same_pixels_and_nothing_private(case: str) -> None:
    kind, mode, options = CASES[case]
    data = with_everything(kind, mode, **options)
    assert PRIVATE in data
    clean = remove_private_metadata(data)
    assert clean is not None and PRIVATE not in clean and len(clean) < len(data)
    before, after = (Image.open(io.BytesIO(file)) for file in (data, clean))
    assert (np.asarray(before) == np.asarray(after)).all() and before.mode == after.mode
    exif = after.getexif()
    assert set(exif) == {0x0112, 0x8769} and not exif.get_ifd(0x8825)
    assert set(exif.get_ifd(0x8769)) == {0x920A, 0xA405, 0xA002, 0xA003}
    assert read_metadata(after) == read_metadata(before)
    assert read_metadata(after).orientation == 6 and read_metadata(after).focal
    assert remove_private_metadata(clean) == clean


@pytest.mark.parametrize("case", CASES)
def test_a_file_without_metadata_stays_as_it_is(case: str) -> None:
    kind, mode, options = CASES[case]
    data = encoded(kind, mode, **options)
    assert remove_private_metadata(data) == data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_anywhere_is_refused_or_still_without_anything_private(
    kind: str,
) -> None:
    data = with_everything(kind)
    for end in range(0, len(data), 7):
        clean = remove_private_metadata(data[:end])
        assert clean is None or PRIVATE not in clean


@pytest.mark.parametrize("kind", ["TIFF", "BMP"])
def test_other_formats_are_left_to_be_encoded_anew(kind: str) -> None:
    assert remove_private_metadata(encoded(kind)) is None


def test_text_under_a_tag_that_should_hold_a_number_goes() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA405: 28, 0xA404: "PRIVATE"})
    clean = remove_private_metadata(encoded("JPEG", exif=exif))
    assert clean is not None and PRIVATE not in clean
