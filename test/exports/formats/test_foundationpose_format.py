"""FoundationPose: depth is the measured one, or that of the surface of the mesh."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch

from label_checks import export
from label_readers import (
    iterate_objects,
    read_labels,
)
from labeled_category import (
    CAMERA,
    TrueVideo,
    write_labeled_category,
)
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.io.depth_images import read_depth


def test_rendered_depth_is_that_of_the_surface(
    category: tuple[Path, dict[str, TrueVideo]],
) -> None:
    out = export(category[0], "foundationpose")
    for image, thing in list(iterate_objects(read_labels(out)))[::5]:
        assert (
            thing.depth is not None and thing.mask is not None and image.matrix is not None
        )
        assert thing.rotation is not None and thing.translation is not None
        assert thing.vertices is not None and thing.triangles is not None
        rows, columns = np.nonzero(thing.mask & (thing.depth > 0))
        assert len(rows) > 0.95 * thing.mask.sum()
        pixels = np.stack([columns, rows, np.ones_like(rows)], 1)
        rays = pixels @ np.linalg.inv(image.matrix).T @ thing.rotation
        eye = -thing.rotation.T @ thing.translation
        eye, rays, vertices, triangles = map(
            torch.from_numpy, (eye, rays, thing.vertices, thing.triangles)
        )
        hit = cast_rays(eye, rays, vertices, triangles)[0].numpy()
        wrong = np.abs(thing.depth[rows, columns] - hit) > 6e-4  # m: half a mm is lost
        assert wrong.mean() < 0.005
    record = json.loads((out / "export.json").read_text())
    assert record["depth_images"] == {"measured": 0, "rendered": 12}


def test_measured_depth_goes_before_rendered_depth(tmp_path: Path) -> None:
    write_labeled_category(tmp_path / "truck", {"clip_01": 1})
    depth = np.full((72, 96), 1234, np.uint16)
    (tmp_path / "truck" / "clip_01" / "depth").mkdir()
    for k in range(4):
        place = tmp_path / "truck" / "clip_01" / "depth" / f"{k:06d}.jpg.png"
        cv2.imwrite(str(place), depth)
    out = export(tmp_path / "truck", "foundationpose")
    assert all(
        thing.depth is not None and (thing.depth == 1.234).all()
        for _, thing in iterate_objects(read_labels(out))
    )
    scene = export(tmp_path / "truck", "bop") / "train" / "000001"
    place = scene / "depth" / "000003.png"
    assert (read_depth(place, (CAMERA.width, CAMERA.height)) == 1234).all()
    infos = json.loads((scene / "scene_gt_info.json").read_text())
    assert infos["0"][0]["px_count_valid"] > 0
