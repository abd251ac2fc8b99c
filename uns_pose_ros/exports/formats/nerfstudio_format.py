"""Nerfstudio: a folder with transforms.json, images and masks for each object.

https://docs.nerf.studio/quickstart/data_conventions.html. The world is the model frame of the
object, z up. Cameras look along -z with y up. Principal points are measured from the corner of the
image, half a pixel from the center of its first pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from uns_pose_ros.core.types import Camera
from uns_pose_ros.exports.formats.bop_format import encode_mask
from uns_pose_ros.exports.formats.written_files import WrittenFiles
from uns_pose_ros.exports.label_set import LabelScene, Matrix
from uns_pose_ros.exports.label_views import LabelRenderer
from uns_pose_ros.io.artifacts import write_json

TRANSFORMS = "transforms.json"
_GL_FROM_CV = np.diag([1.0, -1.0, -1.0, 1.0])


def write_nerfstudio(folder: Path, renderer: LabelRenderer, written: WrittenFiles) -> None:
    """Write CATEGORY/OBJECT/ with transforms.json, images/ and masks/ for every object."""
    labels = renderer.labels
    for number, instance in enumerate(labels.instances):
        place = folder / labels.categories[instance.category] / instance.name
        for name in ("images", "masks"):
            (place / name).mkdir(parents=True)
        frames: list[dict[str, Any]] = []
        intrinsics: list[dict[str, Any]] = []
        for scene in labels.scenes_of(number):
            _write_scene(place, scene, renderer, written, frames, intrinsics)
        transforms: dict[str, Any] = {
            "camera_model": "OPENCV",
            "unit": "meter" if instance.metric else "object diameter of the category",
        }
        if all(entry == intrinsics[0] for entry in intrinsics):
            transforms |= intrinsics[0] if intrinsics else {}
        else:
            frames = [
                frame | entry for frame, entry in zip(frames, intrinsics, strict=True)
            ]
        write_json(place / TRANSFORMS, transforms | {"frames": frames})


def _write_scene(
    place: Path,
    scene: LabelScene,
    renderer: LabelRenderer,
    written: WrittenFiles,
    frames: list[dict[str, Any]],
    intrinsics: list[dict[str, Any]],
) -> None:
    for view in renderer.views(scene):
        (shown,) = view.objects
        name = f"{len(frames):06d}"
        image = place / "images" / f"{name}{view.ending}"
        image.write_bytes(view.file)
        written.note(image, scene, view)
        (place / "masks" / f"{name}.png").write_bytes(encode_mask(shown.visible))
        frames.append(
            {
                "file_path": f"images/{image.name}",
                "mask_path": f"masks/{name}.png",
                "transform_matrix": camera_to_world(shown.label.cam_from_model).tolist(),
            }
        )
        intrinsics.append(_intrinsics(view.camera))


def camera_to_world(cam_from_model: Matrix) -> Matrix:
    """model_from_camera (4, 4) of a camera with x right, y up and z back."""
    return np.asarray(np.linalg.inv(cam_from_model) @ _GL_FROM_CV)


def _intrinsics(camera: Camera) -> dict[str, Any]:
    matrix = camera.matrix.tolist()
    return {
        "fl_x": matrix[0][0],
        "fl_y": matrix[1][1],
        "cx": matrix[0][2] + 0.5,
        "cy": matrix[1][2] + 0.5,
        "w": camera.width,
        "h": camera.height,
        "k1": 0.0,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
    }
