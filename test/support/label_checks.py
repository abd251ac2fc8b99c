"""Export a category of toy trucks, and compare every file of the export with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from label_readers import (
    ReadImage,
    overlap,
    paint_model,
    read_labels,
    source_of,
)
from labeled_category import (
    CAMERA,
    TrueVideo,
)
from uns_pose_ros.exports.label_export import ExportConfig, export_labels
from uns_pose_ros.io.images import read_image, read_mask


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def export(category: Path, kind: str, **settings: Any) -> Path:
    """Export beside the category; returns the folder."""
    out = category.with_name(f"{category.name}-{kind}")
    export_labels([category], out, ExportConfig(kind, **settings), quiet)
    return out


def check_labels(
    folder: Path, category: Path, truths: dict[str, TrueVideo], metric: bool = True
) -> None:
    """Compare every file of an export with the truth; AssertionError where they differ."""
    images = read_labels(folder)
    sources = source_of(folder)
    assert (
        len(images) == len(sources) == sum(len(t.cam_from_canon) for t in truths.values())
    )
    for image in images:
        split, name, video, frame = sources[image.path.relative_to(folder).as_posix()]
        assert name == "truck" and image.split in ("", split)
        check_image(image, category / video, frame, truths[video], metric)


def check_image(
    image: ReadImage, video: Path, frame: str, truth: TrueVideo, metric: bool
) -> None:
    source = read_image(video / "images" / frame).numpy()
    assert (image.pixels == source).all()
    assert image.size in (None, (CAMERA.width, CAMERA.height))
    if image.matrix is not None:
        np.testing.assert_allclose(image.matrix, CAMERA.matrix.numpy(), atol=1e-6)
    unit = truth.unit if metric else 1.0
    mask = read_mask(video / "masks" / f"{frame}.png").numpy()
    (thing,) = image.objects
    assert thing.category == "truck"
    pose = truth.cam_from_canon[frame]
    if thing.rotation is not None and thing.translation is not None:
        np.testing.assert_allclose(thing.rotation, pose[:3, :3], atol=2e-7)
        np.testing.assert_allclose(thing.translation, unit * pose[:3, 3], atol=2e-6)
    if thing.mask is not None:
        assert (thing.mask == mask).all()
    if thing.box is not None:
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(thing.box, box, atol=1e-4)
    if thing.keypoints is not None:
        check_keypoints(thing.keypoints, truth, pose)
    if thing.vertices is not None:
        np.testing.assert_allclose(np.ptp(thing.vertices, 0), unit * truth.size, atol=1e-5)
        assert overlap(paint_model(image, thing), mask) > 0.9


def check_keypoints(keypoints: np.ndarray, truth: TrueVideo, pose: np.ndarray) -> None:
    low = np.min([box[0] for box in truth.boxes], axis=0)
    high = np.max([box[1] for box in truth.boxes], axis=0)
    corners = np.array([np.where([c & 1, c & 2, c & 4], high, low) for c in range(8)])
    uvw = (corners @ pose[:3, :3].T + pose[:3, 3]) @ CAMERA.matrix.numpy().T
    pixels = uvw[:, :2] / uvw[:, 2:]
    size = [CAMERA.width, CAMERA.height]
    inside = ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(1)
    assert ((keypoints[:, 2] > 0) == inside).all()
    assert (keypoints[~inside] == 0).all()
    np.testing.assert_allclose(keypoints[inside, :2], pixels[inside], atol=6e-4)
