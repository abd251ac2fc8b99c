"""CO3D sequences of which something is missing or broken: the rest is imported and counted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from source_files import write_co3d
from uns_pose_ros.capture.import_co3d import parse_viewpoint
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Video
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video

Annotation = dict[str, Any]


def annotate(folder: Path, change: Callable[[Annotation], None], frame: int) -> None:
    """Change the annotation of one frame."""
    path = folder.parent / "frame_annotations.jgz"
    with gzip.open(path, "rt") as file:
        annotations = json.load(file)
    change(annotations[frame])
    with gzip.open(path, "wt") as file:
        json.dump(annotations, file)


def imported(folder: Path) -> tuple[Video, dict[str, int]]:
    into = folder.parent.parent / "clip"
    import_video(folder, into)
    record = json.loads((into / "video.json").read_text())
    return load_video(into, need_masks=False), record["left_out"]


def shrink(path: Path) -> None:
    image = cv2.imread(str(path))
    assert image is not None
    cv2.imwrite(str(path), image[:, :20])


def spoil_viewpoint(key: str, value: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        annotate(folder, lambda frame: frame["viewpoint"].update({key: value}), 2)

    return spoil


def remove(key: str) -> Callable[[Path], None]:
    return lambda folder: annotate(folder, lambda frame: frame.pop(key), 2)


def rename(key: str, name: str) -> Callable[[Path], None]:
    return lambda folder: annotate(folder, lambda frame: frame[key].update(path=name), 2)


IMAGE, MASK = "images/000002.jpg", "masks/000002.jpg.png"


def link_outside(path: Path) -> None:
    """Let an image of a sequence of a category be a link to a file beside the category."""
    target = path.parents[3] / "private.jpg"
    path.rename(target)
    path.symlink_to(target)


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an image is missing": (
        lambda f: (f / IMAGE).unlink(),
        "frames whose image cannot be used",
    ),
    "an image is empty": (
        lambda f: (f / IMAGE).write_bytes(b""),
        "frames whose image cannot be used",
    ),
    "an image is cut off": (
        lambda f: (f / IMAGE).write_bytes((f / IMAGE).read_bytes()[:400]),
        "frames whose image cannot be used",
    ),
    "an image has no path": (remove("image"), "frames whose image cannot be used"),
    "an image is a link out of the category": (
        lambda f: link_outside(f / IMAGE),
        "frames whose image cannot be used",
    ),
    "a path leaves the category": (
        rename("image", f"truck/../{IMAGE}"),
        "frames whose image cannot be used",
    ),
    "a path is absolute": (
        rename("mask", "/etc/passwd"),
        "frames whose mask cannot be read",
    ),
    "an image is cropped": (
        lambda f: shrink(f / IMAGE),
        "frames of another shape than annotated",
    ),
    "an annotated size is one number in a list": (
        lambda f: annotate(f, lambda frame: frame["image"].update(size=[48]), 2),
        "frames of another shape than annotated",
    ),
    "a mask is missing": (
        lambda f: (f / MASK).unlink(),
        "frames whose mask cannot be read",
    ),
    "a mask is no image": (
        lambda f: (f / MASK).write_bytes(b"x"),
        "frames whose mask cannot be read",
    ),
    "a mask is not annotated": (remove("mask"), "frames whose mask cannot be read"),
    "a mask is empty": (
        lambda f: cv2.imwrite(str(f / MASK), np.zeros((32, 48), np.uint8)),
        "frames whose mask is empty",
    ),
    "a mask is smaller": (lambda f: shrink(f / MASK), "frames whose mask has another size"),
    "a viewpoint is missing": (remove("viewpoint"), "frames without a viewpoint"),
    "a rotation is not finite": (
        spoil_viewpoint("R", [[float("nan")] * 3] * 3),
        "frames whose viewpoint cannot be used",
    ),
    "a rotation is a mirror": (
        spoil_viewpoint("R", [[1, 0, 0], [0, 1, 0], [0, 0, -1]]),
        "frames whose viewpoint cannot be used",
    ),
    "a translation is not finite": (
        spoil_viewpoint("T", [0, float("nan"), 1]),
        "frames whose viewpoint cannot be used",
    ),
    "a focal length is zero": (
        spoil_viewpoint("focal_length", [0, 0]),
        "frames whose viewpoint cannot be used",
    ),
    "a format is unknown": (
        spoil_viewpoint("intrinsics_format", "px"),
        "frames whose viewpoint cannot be used",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_one_frame_that_cannot_be_used_is_left_out_and_counted(
    tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, poses, camera = write_co3d(tmp_path, "ndc_isotropic")
    images = {name: read_image(folder / "images" / name) for name in poses}
    spoil, reason = SPOILED[case]
    spoil(folder)
    video, left_out = imported(folder)
    assert left_out == {reason: 1} and f"{reason}: 1 (" in caplog.text
    names = [name for name in poses if name != "000002.jpg"]
    assert len(video.frames) == len(names) == 4
    for frame, name in zip(video.frames, names, strict=True):
        assert (read_image(frame.image) == images[name]).all() and frame.mask is not None
        assert frame.cam_from_obj is not None
        np.testing.assert_allclose(frame.cam_from_obj.numpy(), poses[name], atol=1e-9)
        np.testing.assert_allclose(frame.camera.matrix.numpy(), camera.matrix.numpy())


def test_a_sequence_without_its_masks_is_imported_without_masks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _, _ = write_co3d(tmp_path, "ndc_isotropic")
    for path in (folder / "masks").iterdir():
        path.unlink()
    video, left_out = imported(folder)
    assert len(video.frames) == 5 and not left_out
    assert all(frame.mask is None for frame in video.frames)
    assert (
        "no mask can be used, none is imported: frames whose mask cannot be read: 5"
        in caplog.text
    )


def test_frames_of_several_sizes_keep_their_cameras(tmp_path: Path) -> None:
    folder, _, camera = write_co3d(tmp_path, "ndc_norm_image_bounds")
    for kind in (IMAGE, MASK):
        image = cv2.imread(str(folder / kind))
        assert image is not None
        cv2.imwrite(str(folder / kind), cv2.resize(image, (96, 64)))
    annotate(folder, lambda frame: frame["image"].update(size=[64, 96]), 2)
    video, left_out = imported(folder)
    assert not left_out
    assert [frame.camera.width for frame in video.frames] == [48, 48, 96, 48, 48]
    for frame in video.frames:
        factor = frame.camera.width / 48
        assert float(frame.camera.matrix[0, 0]) == pytest.approx(
            float(camera.matrix[0, 0]) * factor
        )


def test_a_sequence_with_too_few_usable_frames_is_one_line(tmp_path: Path) -> None:
    folder, poses, _ = write_co3d(tmp_path, "ndc_isotropic")
    for name in list(poses)[:3]:
        (folder / "images" / name).unlink()
    with pytest.raises(InvalidInput, match="2 usable images, at least 3 are needed"):
        imported(folder)


def test_masks_that_show_the_object_dark_are_counted(tmp_path: Path) -> None:
    folder, _, _ = write_co3d(tmp_path, "ndc_isotropic")
    for path in (folder / "masks").iterdir():
        Image.fromarray(255 - np.array(Image.open(path))).save(path)
    import_video(folder, tmp_path / "clip")
    record = json.loads((tmp_path / "clip" / "video.json").read_text())
    assert record["notes"] == {"masks that are dark inside a bright border: inverted?": 5}


@pytest.mark.parametrize(
    ("kind", "focal", "middle"),
    [
        ("ndc_isotropic", (400, 400), (380, 240)),
        ("ndc_norm_image_bounds", (800, 400), (360, 240)),
    ],
)
def test_a_viewpoint_gives_the_camera_of_opencv(
    kind: str, focal: tuple[int, int], middle: tuple[int, int]
) -> None:
    viewpoint = {
        "R": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
        "T": [1, 2, 3],
        "focal_length": [2, 2],
        "principal_point": [0.1, -0.2],
        "intrinsics_format": kind,
    }
    camera, pose = parse_viewpoint(viewpoint, 800, 400)
    (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
    assert (fx, fy) == pytest.approx(focal)
    # a pixel's center is at its integer, and half a pixel from its edge
    assert (cx + 0.5, cy + 0.5) == pytest.approx(middle)
    # x left and y up become x right and y down; X_cam = X R + T for rows X
    assert pose[:3].tolist() == [[0, 1, 0, -1], [-1, 0, 0, -2], [0, 0, 1, 3]]
