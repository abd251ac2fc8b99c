"""YOLO-pose: the keypoints are those that were chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from label_checks import export
from label_readers import (
    iterate_objects,
    read_labels,
    source_of,
)
from labeled_category import (
    CAMERA,
    TrueVideo,
)


def test_the_frame_of_an_object_can_be_the_keypoints(
    category: tuple[Path, dict[str, TrueVideo]],
) -> None:
    folder, truths = category
    out = export(folder, "yolo-pose", keypoints="frame")
    sources = source_of(out)
    text = (out / "dataset.yaml").read_text()
    assert "kpt_shape: [4, 3]" in text and "flip_idx" not in text
    for image, thing in iterate_objects(read_labels(out)):
        _, _, video, frame = sources[image.path.relative_to(out).as_posix()]
        pose = truths[video].cam_from_canon[frame]
        tips = np.vstack([np.zeros(3), 0.5 * np.eye(3)]) @ pose[:3, :3].T + pose[:3, 3]
        uvw = tips @ CAMERA.matrix.numpy().T
        assert thing.keypoints is not None
        shown = thing.keypoints[:, 2] > 0
        pixels = uvw[:, :2] / uvw[:, 2:]
        np.testing.assert_allclose(thing.keypoints[shown, :2], pixels[shown], atol=1e-4)
        assert thing.keypoints[0, 2] == 1  # the origin is inside of the truck
