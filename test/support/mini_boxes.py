"""Miniatures of NOCS and ROPE, which label boxes in meters."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from known_colors import estimate_of, write_colored
from uns_pose_ros.core.geometry import matrix_to_quaternion

# two objects in meters: cam_from_object with our axes, and extents along them
BOXED = (
    (
        np.array(
            [[0.0, -1, 0, -0.1], [0, 0, -1, 0.05], [1, 0, 0, 1.0], [0, 0, 0, 1]]
        ),  # seen from behind
        np.array([0.2, 0.1, 0.3]),
    ),
    (
        np.array(
            [[-0.8, 0.6, 0, 0.15], [0, 0, -1, 0.0], [-0.6, -0.8, 0, 1.2], [0, 0, 0, 1]]
        ),
        np.array([0.12, 0.12, 0.1]),
    ),
)
# the object's left, up and front in our axes forward, left, up
LEFT_UP_FRONT = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])


def project_box(matrix: np.ndarray, pose: np.ndarray, extents: np.ndarray) -> list[float]:
    """x0 y0 x1 y1 px around the projected corners of a box."""
    corners = (np.indices((2, 2, 2)).reshape(3, 8).T - 0.5) * extents
    seen = (corners @ pose[:3, :3].T + pose[:3, 3]) @ matrix.T
    pixels = seen[:, :2] / seen[:, 2:]
    return [*pixels.min(0), *pixels.max(0)]


def know_boxed(category: str, matrix: np.ndarray, color: int = 0) -> dict[int, list[Any]]:
    """The estimates of BOXED in one image, in meters and without any error."""
    return {
        color: [
            estimate_of(
                category,
                pose[:3, :3],
                pose[:3, 3],
                project_box(matrix, pose, extents),
                extents,
                metric=True,
                score=0.5 + 0.1 * k,
            )
            for k, (pose, extents) in enumerate(BOXED)
        ]
    }


REAL275 = np.array([[591.0125, 0, 322.525], [0, 590.16775, 244.11084], [0, 0, 1]])


def nocs_truth(number: int = 6, handles: Sequence[int] = (1, 0)) -> dict[str, Any]:
    """The truth of an image with BOXED as objects of a class, and a laptop as a third one."""
    scales = [0.4, 0.2]
    poses, sizes, boxes = [], [], []
    for (pose, extents), scale in zip(BOXED, scales, strict=True):
        theirs = pose.copy()
        theirs[:3, :3] = scale * pose[:3, :3] @ LEFT_UP_FRONT
        poses.append(theirs)
        sizes.append(LEFT_UP_FRONT.T @ extents / scale)
        x0, y0, x1, y1 = project_box(REAL275, pose, extents)
        boxes.append([y0, x0, y1 + 1, x1 + 1])
    return {
        "gt_class_ids": np.array([number, number, 5], np.int32),
        "gt_RTs": np.array([*poses, poses[0]]),
        "gt_scales": np.array([*sizes, sizes[0]], np.float64),
        "gt_bboxes": np.array([*boxes, boxes[0]]),
        "gt_handle_visibility": np.array([*handles, 1]),
        "image_path": "data/real/test/scene_1/0000",
        "obj_list": ["mug", ("a", 1)],
    }


def write_nocs(root: Path, **truth: Any) -> None:
    """One image of REAL275 with two mugs, the handle of the second one hidden, and a laptop."""
    folder = root / "gts" / "real_test"
    folder.mkdir(parents=True)
    path = folder / "results_real_test_scene_1_0000.pkl"
    path.write_bytes(pickle.dumps(nocs_truth() | truth))
    write_colored(root / "real" / "test" / "scene_1" / "0000_color.png", 0, (640, 480))


ROPE_CAMERA = np.array([[615.0, 0, 322.0], [0, 610, 242], [0, 0, 1]])


def rope_tag(**axes: str) -> dict[str, Any]:
    """A symmetry tag: none about each axis that is not given."""
    return {"any": False, **dict.fromkeys("xyz", "none"), **axes}


def rope_image(**change: Any) -> dict[str, Any]:
    """The annotation of an image with BOXED as bowls, and what is left out."""
    objects = {}
    for k, (pose, extents) in enumerate(BOXED):
        rotation = torch.from_numpy(pose[:3, :3] @ LEFT_UP_FRONT)
        meta = {
            **{"oid": f"real-bowl-{k}", "class_name": "bowl", "class_label": 3},
            **{"scale": [0.5] * 3, "is_background": False},
            "bbox_side_len": (LEFT_UP_FRONT.T @ extents).tolist(),
        }
        objects[f"{k + 1}_bowl"] = {
            "meta": meta,
            "quaternion_wxyz": matrix_to_quaternion(rotation).tolist(),
            "translation": pose[:3, 3].tolist(),
            **{"is_valid": True, "id": k, "material": []},
        }
    objects["9_bowl"] = objects["1_bowl"] | {"is_valid": False}
    objects["8_box"] = objects["1_bowl"] | {
        "meta": objects["1_bowl"]["meta"] | {"class_name": "box"}
    }
    lens = {
        **{"fx": ROPE_CAMERA[0, 0], "fy": ROPE_CAMERA[1, 1]},
        **{"cx": ROPE_CAMERA[0, 2], "cy": ROPE_CAMERA[1, 2], "width": 640, "height": 480},
    }
    return {"camera": {"intrinsics": lens, "kind": ""}, "objects": objects} | change


def write_ropes(root: Path, **change: Any) -> None:
    """One image of ROPE; the first bowl is round, the second one has no symmetry."""
    instances = {
        f"real-bowl-{k}": {
            "dimensions": (LEFT_UP_FRONT.T @ extents / 0.5).tolist(),
            "tag": {"symmetry": rope_tag(y="none" if k else "any"), "datatype": "test"},
            **{"class_name": "bowl", "class_label": 3},
        }
        for k, (_, extents) in enumerate(BOXED)
    }
    (root / "Meta").mkdir(parents=True)
    (root / "Meta" / "real_obj_meta.json").write_text(
        json.dumps({"class_list": [], "instance_dict": instances})
    )
    write_colored(root / "ROPE" / "000003" / "000010_color.png", 0, (640, 480))
    path = root / "ROPE" / "000003" / "000010_meta.json"
    path.write_text(json.dumps(rope_image(**change)))
