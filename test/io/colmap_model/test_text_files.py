"""COLMAP text as other programs write it: the same values come out, what does not is counted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.colmap import Sparse, read_sparse
from uns_pose_ros.io.colmap_model.camera_models import CameraRow

CAMERAS = (
    "3 PINHOLE 640 480 500.5 510.25 320 240\n12 SIMPLE_RADIAL 320 240 250 160 120 -0.1\n"
)
IMAGES = (
    "1 1 0 0 0 1.5 2 3 3 b c.jpg\n10.5 20 -1 30 40.25 5\n"
    "7 0 0 0 1 -0.25 1 2 12 a.jpg\n1 2 4 3 4 -1 5 6 -1\n"
)
POINTS = "1 0.5 1 2 128 128 128 0.1 1 0 2 1\n9 -1 -2 -3 0 0 0 0\n"


def write(
    folder: Path, cameras: str = CAMERAS, images: str = IMAGES, points: str | None = POINTS
) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in (("cameras", cameras), ("images", images), ("points3D", points)):
        if text is not None:
            (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


def check(sparse: Sparse) -> None:
    """The values of `CAMERAS`, `IMAGES` and `POINTS`, written down by hand."""
    assert sparse.cameras[3].matrix.tolist() == [
        [500.5, 0, 319.5],
        [0, 510.25, 239.5],
        [0, 0, 1],
    ]
    assert sparse.cameras[12].matrix.tolist() == [
        [250, 0, 159.5],
        [0, 250, 119.5],
        [0, 0, 1],
    ]
    assert sparse.cameras[12].distortion.tolist() == [-0.1, 0, 0, 0]
    first, second = sparse.images
    assert (first.name, first.camera_id) == ("a.jpg", 12)
    assert first.cam_from_obj.tolist() == [
        [-1, 0, 0, -0.25],
        [0, -1, 0, 1],
        [0, 0, 1, 2],
        [0, 0, 0, 1],
    ]
    assert (second.name, second.camera_id) == ("b c.jpg", 3)
    assert second.cam_from_obj[:3].tolist() == [[1, 0, 0, 1.5], [0, 1, 0, 2], [0, 0, 1, 3]]


def every(text: str, old: str, new: str) -> str:
    """`old` becomes `new` in all lines; names keep their blanks."""
    return text.replace("b c.jpg", "b\x01c.jpg").replace(old, new).replace("\x01", " ")


DIALECTS = {
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "carriage returns alone": lambda text: text.replace("\n", "\r"),
    "carriage returns twice": lambda text: text.replace("\n", "\r\r\n"),
    "tabs": lambda text: every(text, " ", "\t"),
    "several blanks": lambda text: every(text, " ", "   ").replace("\n", "  \n"),
    "blanks in front": lambda text: "".join(f"  {line}\n" for line in text.splitlines()),
    "commas and blanks": lambda text: every(text, " ", ", "),
    "commas": lambda text: every(text, " ", ","),
    "semicolons": lambda text: every(text, " ", ";"),
    "decimal commas": lambda text: every(text, ".", ",").replace(",jpg", ".jpg"),
    "semicolons and decimal commas": lambda text: (
        every(text, " ", ";").replace(".", ",").replace(",jpg", ".jpg")
    ),
    "a byte order mark": lambda text: "\ufeff" + text,
    "comments and empty lines": lambda text: (
        "# of another program\n\n" + text.replace("\n", "\n# next\n")
    ),
    "empty lines between all lines": lambda text: text.replace("\n", "\n\n"),
    "no line end at the end": lambda text: text.rstrip("\n"),
    "scientific notation": lambda text: (
        text.replace("500.5", "5.005e+02")
        .replace("-0.25", "-2.5E-1")
        .replace("1.5", "15e-1")
    ),
    "whole numbers with decimals": lambda text: text.replace(
        "640 480", "640.0 480.0"
    ).replace("3 b c", "3.0 b c"),
    "quaternions that are not normalized": lambda text: text.replace(
        "1 1 0 0 0", "1 0.2 0 0 0"
    ).replace("7 0 0 0 1", "7 0 0 0 30"),
    "small letters": lambda text: text.replace("PINHOLE", "pinhole"),
    "quoted names": lambda text: text.replace("b c.jpg", '"b c.jpg"'),
    "names from here": lambda text: text.replace("a.jpg", "./a.jpg"),
    "parameters in one column": lambda text: text.replace(
        "500.5 510.25 320 240", "500.5,510.25,320,240"
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_gives_the_same_values_and_nothing_is_left_out(
    tmp_path: Path, dialect: str
) -> None:
    change = DIALECTS[dialect]
    sparse = read_sparse(write(tmp_path, change(CAMERAS), change(IMAGES), change(POINTS)))
    check(sparse)
    assert sparse.points.tolist() == [[0.5, 1, 2], [-1, -2, -3]]
    assert not sparse.left_out, sparse.left_out.lines()


@pytest.mark.parametrize(
    "images",
    [
        "1 1 0 0 0 1.5 2 3 3 b c.jpg\n7 0 0 0 1 -0.25 1 2 12 a.jpg\n",
        "1 1 0 0 0 1.5 2 3 3 b c.jpg\n\n7 0 0 0 1 -0.25 1 2 12 a.jpg\n\n",
        "1 1 0 0 0 1.5 2 3 3 b c.jpg\n7 0 0 0 1 -0.25 1 2 12 a.jpg\n1 2 4\n",
        "1 1 0 0 0 1.5 2 3 3 b c.jpg\n# none\n7 0 0 0 1 -0.25 1 2 12 a.jpg",
    ],
    ids=["missing", "empty", "missing for one", "a comment"],
)
def test_images_are_read_whether_or_not_lines_of_points_follow_them(
    tmp_path: Path, images: str
) -> None:
    sparse = read_sparse(write(tmp_path, images=images, points=None))
    check(sparse)
    assert not sparse.left_out and sparse.points.shape == (0, 3)


def test_names_that_are_numbers_and_names_in_windows_folders_are_read(
    tmp_path: Path,
) -> None:
    images = "1 1 0 0 0 1 2 3 3 0001\n2 1 0 0 0 1 2 3 3 left\\0002.jpg\n3 1 0 0 0 1 2 3 3 a,b.jpg"
    sparse = read_sparse(write(tmp_path, images=images))
    assert [image.name for image in sparse.images] == ["0001", "a,b.jpg", "left/0002.jpg"]


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_text_in_windows_encodings_is_read(tmp_path: Path, encoding: str) -> None:
    write(tmp_path)
    (tmp_path / "images.txt").write_bytes("1 1 0 0 0 1 2 3 3 Tür.jpg\n".encode(encoding))
    assert [image.name for image in read_sparse(tmp_path).images] == ["Tür.jpg"]


def test_what_cannot_be_read_is_left_out_and_counted_by_reason(tmp_path: Path) -> None:
    cameras = (
        "1 PINHOLE 640 480 500 500 320 240\n2 OPENCV_FISHEYE 640 480 500 500 320 240 0 0 0 0\n"
        "3 FOV 640 480 500 500 320 240 1\n4 PINHOLE 640 480 500\nfive\n1 PINHOLE 9 9 1 1 1 1\n"
    )
    images = (
        "1 1 0 0 0 1 2 3 1 a.jpg\n\n2 1 0 0 0 1 2 3 2 b.jpg\n\n3 1 0 0 0 1 2 3 2 c.jpg\n\n"
        "4 1 0 0 0 1 2 3 9 d.jpg\n\n5 0 0 0 0 1 2 3 1 e.jpg\n\n6 nan 0 0 0 1 2 3 1 f.jpg\n\n"
        "7 1 0 0 0 1 2 3 1 /g.jpg\n\n8 1 0 0 0 1 2 3 1 C:\\h.jpg\n\n9 1 0 0 0 9 9 9 1 a.jpg\n\n"
        "10 1 0 0 zero 1 2 3 1 i.jpg\n1 2 3\nend of file\n"
    )
    sparse = read_sparse(write(tmp_path, cameras, images, "1 2 3 4\n2 nan 0 0\nx\n"))
    assert [image.name for image in sparse.images] == ["a.jpg"]
    assert sparse.images[0].cam_from_obj[:3, 3].tolist() == [1, 2, 3]
    assert sparse.cameras[1].width == 640
    assert sparse.left_out.counts == {
        "lines that are no camera": 1,
        "cameras that cannot be used": 3,
        "cameras whose id is given twice": 1,
        "lines that are no image": 2,
        "images whose camera cannot be used": 2,
        "images whose camera is not in the model": 1,
        "images that cannot be used": 4,
        "images that are named twice": 1,
        "lines that are no point": 1,
        "points that are not finite": 1,
    }
    lines = sparse.remarks()
    assert any(
        "cameras.txt, line 2: camera model OPENCV_FISHEYE is not supported: " in line
        for line in lines
    )
    assert (
        "images whose camera cannot be used: 2 (image b.jpg names camera 2; "
        in "\n".join(lines)
    )


def test_a_model_of_fisheye_cameras_alone_is_refused_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, "3 THIN_PRISM_FISHEYE 64 48 5 5 3 2 0 0 0 0 0 0 0 0\n")
    with pytest.raises(
        InvalidInput,
        match=r"no image of the model can be used; .*THIN_PRISM_FISHEYE is not supported: "
        r"SIMPLE_PINHOLE, .*image_undistorter",
    ) as caught:
        read_sparse(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_list_of_images_that_was_emptied_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "1 PINHOLE 64 48 60 60 32 24\n")
    (tmp_path / "images.txt").write_text("# nothing\n")
    with pytest.raises(
        InvalidInput, match=r"no image of the model can be used; images.txt"
    ):
        read_sparse(tmp_path)


def test_a_line_of_a_million_characters_is_not_repeated(tmp_path: Path) -> None:
    write(tmp_path, f"1 PINHOLE 64 48 60 {'[' * 1_000_000} 32 24\n")
    with pytest.raises(InvalidInput, match="lines that are no camera: 1") as caught:
        read_sparse(tmp_path)
    assert len(str(caught.value)) < 1000


def test_a_camera_whose_image_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "1 PINHOLE 6400000 48 60 60 32 24\n")
    with pytest.raises(InvalidInput, match="6400000 x 48 px: sides of 1 to 100000 px are"):
        read_sparse(tmp_path)


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        ("SIMPLE_PINHOLE", (1e38, 320, 240), r"parameter of 1e\+38: at most 1e\+07"),
        ("PINHOLE", (500, 500, -2e7, 240), r"parameter of -2e\+07: at most 1e\+07"),
        ("SIMPLE_RADIAL", (500, 320, 240, 1e10), r"parameter of 1e\+10: at most 1e\+09"),
        ("SIMPLE_PINHOLE", (math.nan, 320, 240), "parameter of nan"),
    ],
)
def test_a_camera_that_no_lens_has_is_refused(
    model: str, values: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CameraRow(1, model, 640, 480, values).to_camera()
