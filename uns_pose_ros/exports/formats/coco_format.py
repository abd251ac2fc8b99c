"""COCO: boxes, masks as run lengths, and keypoints, in one file of annotations for each split.

https://cocodataset.org/#format-data. Boxes are measured from the corner of the image, keypoints
from the center of its first pixel.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from uns_pose_ros.exports.formats.written_files import WrittenFiles
from uns_pose_ros.exports.label_set import KEYPOINTS, SPLITS, LabelSet
from uns_pose_ros.exports.label_views import ImageView, LabelRenderer, Mask, ObjectView
from uns_pose_ros.io.artifacts import write_json

# pairs of keypoints, counted from 1
_SKELETONS = {
    "box": [[a + 1, (a | bit) + 1] for a in range(8) for bit in (1, 2, 4) if not a & bit],
    "frame": [[1, 2], [1, 3], [1, 4]],
}


def write_coco(
    folder: Path, renderer: LabelRenderer, written: WrittenFiles, keypoints: str
) -> None:
    """Write images/SPLIT/ and annotations/SPLIT.json."""
    labels = renderer.labels
    (folder / "annotations").mkdir()
    image_ids, label_ids = count(1), count(1)
    for split in SPLITS:
        scenes = [scene for scene in labels.scenes if scene.split == split]
        if not scenes:
            continue
        place = folder / "images" / split
        place.mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for scene in scenes:
            for view in renderer.views(scene):
                number = next(image_ids)
                path = place / f"{number:06d}{view.ending}"
                path.write_bytes(view.file)
                written.note(path, scene, view)
                images.append(_image(view, number, path.name, scene.name))
                annotations += [
                    _annotation(shown, number, next(label_ids), keypoints)
                    for shown in view.objects
                ]
        write_json(
            folder / "annotations" / f"{split}.json",
            {
                "info": {"description": "poses, masks and boxes by uns_pose_ros"},
                "licenses": [],
                "images": images,
                "annotations": annotations,
                "categories": _categories(labels, keypoints),
            },
        )


def run_lengths(mask: Mask) -> list[int]:
    """The run lengths of a mask (H, W), down the columns, beginning with pixels outside."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    edges = np.concatenate([[0], changes, [mask.size]])
    return [int(length) for length in np.diff(edges)]


def _image(view: ImageView, number: int, name: str, video: str) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": name,
        "width": view.camera.width,
        "height": view.camera.height,
        "video": video,
        "cam_K": view.camera.matrix.ravel().tolist(),
    }


def _annotation(view: ObjectView, image: int, number: int, kind: str) -> dict[str, Any]:
    pixels, flags = view.keypoints(kind)
    flat = [
        value
        for (x, y), flag in zip(pixels.tolist(), flags.tolist(), strict=True)
        for value in ((round(x, 3), round(y, 3), flag) if flag else (0, 0, 0))
    ]
    pose = view.label.cam_from_model
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": view.instance.category + 1,
        "bbox": list(view.box),
        "area": int(view.visible.sum()),
        "iscrowd": 0,
        "segmentation": {
            "size": list(view.visible.shape),
            "counts": run_lengths(view.visible),
        },
        "keypoints": flat,
        "num_keypoints": int((flags > 0).sum()),
        "object_id": view.label.instance + 1,
        "cam_R_m2c": pose[:3, :3].ravel().tolist(),
        "cam_t_m2c": pose[:3, 3].tolist(),
        "metric": view.instance.metric,
    }
    return annotation | ({} if view.label.score is None else {"score": view.label.score})


def _categories(labels: LabelSet, keypoints: str) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "name": name,
            "supercategory": "object",
            "keypoints": list(KEYPOINTS[keypoints]),
            "skeleton": _SKELETONS[keypoints],
        }
        for number, name in enumerate(labels.categories, 1)
    ]
