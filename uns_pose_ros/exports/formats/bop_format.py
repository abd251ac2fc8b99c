"""BOP scenewise: one scene for each video, one object for each instance, lengths in mm.

https://github.com/thodan/bop_toolkit/blob/master/docs/bop_datasets_format.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.spatial.distance import pdist

from uns_pose_ros.core.geometry import symmetry_rotations
from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.exports.formats.written_files import WrittenFiles
from uns_pose_ros.exports.label_set import LabelScene, ObjectInstance
from uns_pose_ros.exports.label_views import ImageView, LabelRenderer, Mask, ObjectView
from uns_pose_ros.io.artifacts import write_json
from uns_pose_ros.io.depth_images import encode_depth
from uns_pose_ros.io.ply import write_ply

_MM = 1000.0  # in a unit of the model frame, which is 1 m or counts as such


def write_bop_scenes(folder: Path, renderer: LabelRenderer, written: WrittenFiles) -> None:
    """Write models/ and a folder for each scene below train/, val/ and test/."""
    labels = renderer.labels
    models = folder / "models"
    models.mkdir()
    infos = {}
    for number, instance in enumerate(labels.instances, 1):
        vertices = torch.from_numpy(_MM * instance.vertices).float()
        triangles = torch.from_numpy(instance.triangles)
        write_ply(models / f"obj_{number:06d}.ply", vertices, triangles)
        infos[str(number)] = model_info(instance)
    write_json(models / "models_info.json", infos)
    for number, scene in enumerate(labels.scenes, 1):
        _write_scene(folder, scene, number, renderer, written)


def model_info(instance: ObjectInstance) -> dict[str, Any]:
    """The entry of an object in models_info.json, mm."""
    low, high = instance.vertices.min(0), instance.vertices.max(0)
    info: dict[str, Any] = {"diameter": _MM * float(pdist(instance.vertices).max())}
    for axis, name in enumerate("xyz"):
        info[f"min_{name}"] = _MM * float(low[axis])
        info[f"size_{name}"] = _MM * float(high[axis] - low[axis])
    return info | _symmetries(instance.symmetry)


def _symmetries(symmetry: Symmetry) -> dict[str, Any]:
    """Rotations other than the identity; the axis of the category goes through the origin."""
    axis = (symmetry.axis / symmetry.axis.norm()).tolist()
    if symmetry.order == 0:
        return {"symmetries_continuous": [{"axis": axis, "offset": [0.0, 0.0, 0.0]}]}
    if symmetry.order == 1:
        return {}
    matrices = []
    for rotation in symmetry_rotations(symmetry.order, symmetry.axis)[1:]:
        matrix = np.eye(4)
        matrix[:3, :3] = rotation.numpy()
        matrices.append(matrix.ravel().tolist())
    return {"symmetries_discrete": matrices}


def _write_scene(
    folder: Path,
    scene: LabelScene,
    number: int,
    renderer: LabelRenderer,
    written: WrittenFiles,
) -> None:
    place = folder / scene.split / f"{number:06d}"
    for name in ("rgb", "mask", "mask_visib"):
        (place / name).mkdir(parents=True)
    has_depth = all(frame.depth is not None for frame in scene.frames)
    if has_depth:
        (place / "depth").mkdir()
    cameras, poses, infos = {}, {}, {}
    for k, view in enumerate(renderer.views(scene)):
        image = place / "rgb" / f"{k:06d}{view.ending}"
        image.write_bytes(view.file)
        written.note(image, scene, view)
        depth = view.measured_depth() if has_depth else None
        if depth is not None:
            (place / "depth" / f"{k:06d}.png").write_bytes(encode_depth(depth))
        matrix = view.camera.matrix.ravel().tolist()
        cameras[str(k)] = {"cam_K": matrix, "depth_scale": 1.0}
        poses[str(k)] = [_pose(shown) for shown in view.objects]
        infos[str(k)] = [_info(shown, depth) for shown in view.objects]
        _write_masks(place, k, view)
    write_json(place / "scene_camera.json", cameras)
    write_json(place / "scene_gt.json", poses)
    write_json(place / "scene_gt_info.json", infos)


def _pose(view: ObjectView) -> dict[str, Any]:
    pose = view.label.cam_from_model
    return {
        "cam_R_m2c": pose[:3, :3].ravel().tolist(),
        "cam_t_m2c": (_MM * pose[:3, 3]).tolist(),
        "obj_id": view.label.instance + 1,
    }


def _info(view: ObjectView, depth: np.ndarray | None) -> dict[str, Any]:
    """Boxes are x, y of the first pixel, and the distance to the last one, as in BOP's tools."""
    visible = int(view.visible.sum())
    x, y, width, height = view.whole_box
    left, top, columns, rows = view.box
    valid = 0 if depth is None else int((depth[view.silhouette] > 0).sum())
    return {
        "bbox_obj": [x, y, width - 1, height - 1],
        "bbox_visib": [left, top, columns - 1, rows - 1],
        "px_count_all": view.whole_pixels,
        "px_count_valid": valid,
        "px_count_visib": visible,
        "visib_fract": visible / view.whole_pixels,
    }


def _write_masks(place: Path, image: int, view: ImageView) -> None:
    for number, shown in enumerate(view.objects):
        name = f"{image:06d}_{number:06d}.png"
        (place / "mask" / name).write_bytes(encode_mask(shown.silhouette))
        (place / "mask_visib" / name).write_bytes(encode_mask(shown.visible))


def encode_mask(mask: Mask) -> bytes:
    """A mask (H, W) as a PNG file of 0 and 255."""
    return bytes(cv2.imencode(".png", 255 * mask.astype(np.uint8))[1].tobytes())
