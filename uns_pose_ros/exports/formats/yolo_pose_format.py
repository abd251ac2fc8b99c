"""YOLO-pose: a text file for each image, a line for each object, and the dataset's YAML.

https://docs.ultralytics.com/datasets/pose: class, box center, box size, then x y and visibility of
every keypoint. Coordinates are shares of the image, measured from its corner.
"""

from __future__ import annotations

import json
from pathlib import Path

from uns_pose_ros.exports.formats.written_files import WrittenFiles
from uns_pose_ros.exports.label_set import KEYPOINTS, SPLITS, LabelSet
from uns_pose_ros.exports.label_views import LabelRenderer, ObjectView

DATASET = "dataset.yaml"
_MIRRORED = [corner ^ 2 for corner in range(8)]  # left and right change places


def write_yolo_pose(
    folder: Path, renderer: LabelRenderer, written: WrittenFiles, keypoints: str
) -> None:
    """Write images/SPLIT/, labels/SPLIT/ and dataset.yaml."""
    labels = renderer.labels
    number = 0
    for split in SPLITS:
        scenes = [scene for scene in labels.scenes if scene.split == split]
        if not scenes:
            continue
        images, texts = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        texts.mkdir(parents=True)
        for scene in scenes:
            for view in renderer.views(scene):
                number += 1
                path = images / f"{number:06d}{view.ending}"
                path.write_bytes(view.file)
                written.note(path, scene, view)
                lines = [f"{label_line(shown, keypoints)}\n" for shown in view.objects]
                (texts / f"{number:06d}.txt").write_text("".join(lines), encoding="ascii")
    text = dataset_text(labels, keypoints)
    (folder / DATASET).write_text(text, encoding="utf-8")


def label_line(view: ObjectView, keypoints: str) -> str:
    """The line of an object."""
    width, height = view.camera.width, view.camera.height
    x, y, columns, rows = view.box
    values = [
        (x + columns / 2) / width,
        (y + rows / 2) / height,
        columns / width,
        rows / height,
    ]
    words = [str(view.instance.category), *(f"{value:.7f}" for value in values)]
    pixels, flags = view.keypoints(keypoints)
    for (u, v), flag in zip(pixels.tolist(), flags.tolist(), strict=True):
        if flag:  # integers are pixel centers, half a pixel from the corner of the image
            words += [f"{(u + 0.5) / width:.7f}", f"{(v + 0.5) / height:.7f}", str(flag)]
        else:
            words += ["0", "0", "0"]
    return " ".join(words)


def dataset_text(labels: LabelSet, keypoints: str) -> str:
    """The dataset's YAML; without `path`, the folder of the file is meant."""
    used = {scene.split for scene in labels.scenes}
    lines = [f"{split}: images/{split}" for split in SPLITS if split in used]
    names = KEYPOINTS[keypoints]
    lines.append(f"kpt_shape: [{len(names)}, 3]")
    if keypoints == "box":
        lines += [
            "# for categories whose shape is its own mirror image; allows `fliplr`:",
            f"# flip_idx: {_MIRRORED}",
        ]
    lines.append("names:")
    lines += [
        f"  {number}: {json.dumps(name, ensure_ascii=False)}"
        for number, name in enumerate(labels.categories)
    ]
    lines.append("kpt_names:")
    for number in range(len(labels.categories)):
        lines += [f"  {number}: [{', '.join(names)}]"]
    return "\n".join(lines) + "\n"
