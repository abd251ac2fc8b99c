"""Folders of images: their order, what is left out, and what their metadata contradict."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from source_files import checks, save_photograph
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import images
from uns_pose_ros.io.images import read_image

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        save_photograph(folder / f"frame{number}.jpg", checks(number), focal_35=26)
    return folder


@pytest.fixture
def no_heif_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_HEIF_READERS", ())


def record_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "video.json").read_text()))


def test_images_keep_the_order_in_which_people_count(source: Path, tmp_path: Path) -> None:
    for number in range(3, 12):
        save_photograph(source / f"frame{number}.jpg", checks(number))
    import_video(source, tmp_path / "clip")
    names = [f"frame{number}.jpg" for number in range(12)]
    assert list(record_of(tmp_path / "clip")["files"].values()) == names


def test_a_file_without_an_ending_is_an_image_by_its_content(
    source: Path, tmp_path: Path
) -> None:
    (source / "frame3").write_bytes((source / "frame0.jpg").read_bytes())
    Image.fromarray(checks(4)).save(source / "frame.0004", "PNG")
    Image.fromarray(checks(5)).save(source / "frame5.TIF")
    (source / "notes").write_text("no image")
    import_video(source, tmp_path / "clip")
    record = record_of(tmp_path / "clip")
    assert sorted(record["files"].values()) == [
        "frame.0004",
        *(f"frame{k}.jpg" for k in range(3)),
        "frame3",
        "frame5.TIF",
    ]
    assert record["left_out"] == {"files that are no images": 1}


def test_everything_that_is_left_out_is_counted_by_its_reason(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_heif_reader: None
) -> None:
    for name in ("a.heic", "b.HEIC", "c.jpg"):  # also where the name is wrong
        (source / name).write_bytes(HEIC)
    (source / "d.mov").write_bytes(b"film")
    (source / "e.dng").write_bytes(b"raw")
    (source / "f.gif").write_bytes(b"GIF89a")
    (source / "g.txt").write_text("notes")
    (source / "more").mkdir()
    (source / ".hidden.jpg").write_bytes(b"")
    save_photograph(source / "wide.jpg", checks(1)[:32])
    (source / "cut.jpg").write_bytes((source / "frame0.jpg").read_bytes()[:700])
    words = ["import", source, "--into", tmp_path / "clip"]
    assert main.main([str(word) for word in words]) == main.DONE
    out, err = capsys.readouterr()
    left_out = record_of(tmp_path / "clip")["left_out"]
    assert sum(left_out.values()) == 10 and len(left_out) == 8
    for reason, count in left_out.items():
        assert f"left out: {reason}: {count}" in out and reason in err
    assert left_out[f"HEIC files; {images.HEIF_REMEDY}"] == 3


def test_a_folder_of_heic_alone_names_the_package_that_reads_it(
    tmp_path: Path, no_heif_reader: None
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.heic").write_bytes(HEIC)
    with pytest.raises(InvalidInput, match=r"no usable image; HEIC files; .*uns_pose_ros"):
        import_video(tmp_path / "images", tmp_path / "clip")
    with pytest.raises(InvalidInput, match=r"the image is a HEIC file; .*pillow-heif"):
        read_image(tmp_path / "images" / "a.heic")


def test_heic_beside_jpeg_is_read_where_its_package_is_installed(
    source: Path, tmp_path: Path
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    for number in range(3, 6):
        file = pillow_heif.from_pillow(Image.fromarray(checks(number)))
        file.save(source / f"frame{number}.heic", quality=90)
    import_video(source, tmp_path / "clip")
    record = record_of(tmp_path / "clip")
    assert record["frames"] == 6 and "left_out" not in record
    image = read_image(tmp_path / "clip" / "images" / "000006.jpg").numpy()
    assert np.abs(image.astype(int) - checks(5)).mean() < 15


def test_metadata_that_the_images_contradict_are_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "images"
    source.mkdir()
    for number, focal in enumerate((26, 26, 52)):
        save_photograph(source / f"{number}.jpg", checks(number), focal_35=focal)
    save_photograph(source / "3.jpg", checks(3), focal_35=60000)
    with caplog.at_level(logging.WARNING):
        import_video(source, tmp_path / "clip")
    assert len(record_of(tmp_path / "clip")["notes"]) == 2
    assert "the focal length changes between the images" in caplog.text
    assert "3.jpg: 1.109e+05 px cannot be the focal length of 64 x 48 px" in caplog.text


KINDS = {
    "mpo": ("RGB", "L", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "tif": ("RGB", "L", "LA", "RGBA", "CMYK", "P", "I;16"),
    "bmp": ("RGB", "L", "P"),
    "png": ("RGB", "L", "LA", "P", "RGBA", "I;16"),
}


@pytest.mark.parametrize("ending", KINDS)
def test_every_format_and_kind_of_pixels_is_imported_alike(
    tmp_path: Path, ending: str
) -> None:
    plain = Image.fromarray(checks(20))
    for number, mode in enumerate(KINDS[ending]):
        source, into = tmp_path / f"images{number}", tmp_path / f"clip{number}"
        source.mkdir()
        sixteen = mode == "I;16"
        image = Image.new(mode, (64, 48), 25700) if sixteen else plain.convert(mode)
        for index in range(3):
            image.save(source / f"{index}.{ending}")
        import_video(source, into)
        result = read_image(into / "images" / "000001.jpg").numpy().astype(int)
        gray = np.asarray(plain.convert("L"), int)[..., None]
        wanted = checks(20) if mode not in ("L", "LA") else gray
        assert np.abs(result - (100 if sixteen else wanted)).mean() < 15, mode
