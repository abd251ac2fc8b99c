"""Readers of exported label sets, written from the formats' documentation and not from the writers.

All give the same: images with their camera and objects, in px and in the unit of the set.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

Array = np.ndarray


@dataclass
class ReadObject:
    """An object in an image, as far as its format says something of it."""

    category: str
    object_id: int = 0
    rotation: Array | None = None  # (3, 3) from the model to the camera
    translation: Array | None = None  # (3,) m
    mask: Array | None = None  # (H, W) bool, visible pixels
    silhouette: Array | None = None  # (H, W) bool, the whole object
    # x0 y0 x1 y1 px, where 0 0 is the corner of the image
    box: Array | None = None
    keypoints: Array | None = (
        None  # (K, 3) x y and flag, where 0 0 is the first pixel's center
    )
    vertices: Array | None = None  # (V, 3) m
    triangles: Array | None = None  # (T, 3)
    depth: Array | None = None  # (H, W) m


@dataclass
class ReadImage:
    """An image and its objects."""

    path: Path
    split: str
    objects: list[ReadObject]
    matrix: Array | None = None  # (3, 3) px, where 0 0 is the first pixel's center
    size: tuple[int, int] | None = None  # width and height, as the labels say
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def pixels(self) -> Array:
        """(H, W, 3) RGB."""
        return _decode(self.path)[..., ::-1]


def read_labels(folder: Path) -> list[ReadImage]:
    """All images of an export, in the order of its files."""
    kind = json.loads((folder / "export.json").read_text())["format"]
    return READERS[kind](folder)


def source_of(folder: Path) -> dict[str, tuple[str, str, str, str]]:
    """File: split, category, video and image, by frames.csv."""
    with (folder / "frames.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        row["file"]: (row["split"], row["category"], row["video"], row["image"])
        for row in rows
    }


def _object_names(folder: Path) -> dict[int, str]:
    """Category by object; BOP and FoundationPose have numbers only."""
    record = json.loads((folder / "export.json").read_text())
    return {entry["id"]: entry["category"] for entry in record["objects"]}


def read_bop(folder: Path) -> list[ReadImage]:
    """https://github.com/thodan/bop_toolkit/blob/master/docs/bop_datasets_format.md"""
    names = _object_names(folder)
    models = {
        int(path.stem.removeprefix("obj_")): read_binary_ply(path)
        for path in (folder / "models").glob("obj_*.ply")
    }
    images = []
    for scene in sorted(folder.glob("*/[0-9]*")):
        cameras = json.loads((scene / "scene_camera.json").read_text())
        poses = json.loads((scene / "scene_gt.json").read_text())
        infos = json.loads((scene / "scene_gt_info.json").read_text())
        for key, camera in cameras.items():
            (path,) = (scene / "rgb").glob(f"{int(key):06d}.*")
            objects = []
            entries = zip(poses[key], infos[key], strict=True)
            for number, (pose, info) in enumerate(entries):
                x, y, width, height = info["bbox_visib"]
                name = f"{int(key):06d}_{number:06d}.png"
                vertices, triangles = models[pose["obj_id"]]
                objects.append(
                    ReadObject(
                        category=names[pose["obj_id"]],
                        object_id=pose["obj_id"],
                        rotation=np.reshape(pose["cam_R_m2c"], (3, 3)),
                        translation=np.array(pose["cam_t_m2c"]) / 1000,
                        mask=_mask(scene / "mask_visib" / name),
                        silhouette=_mask(scene / "mask" / name),
                        box=np.array([x, y, x + width + 1, y + height + 1], float),
                        vertices=vertices / 1000,
                        triangles=triangles,
                    )
                )
            images.append(
                ReadImage(
                    path,
                    scene.parent.name,
                    objects,
                    matrix=np.reshape(camera["cam_K"], (3, 3)),
                    extra={"infos": infos[key], "depth_scale": camera["depth_scale"]},
                )
            )
    return images


def read_coco(folder: Path) -> list[ReadImage]:
    """https://cocodataset.org/#format-data"""
    images = []
    for path in sorted((folder / "annotations").glob("*.json")):
        content = json.loads(path.read_text())
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        for image in content["images"]:
            objects = []
            for entry in content["annotations"]:
                if entry["image_id"] != image["id"]:
                    continue
                x, y, width, height = entry["bbox"]
                objects.append(
                    ReadObject(
                        category=categories[entry["category_id"]],
                        object_id=entry["object_id"],
                        rotation=np.reshape(entry["cam_R_m2c"], (3, 3)),
                        translation=np.array(entry["cam_t_m2c"]),
                        mask=decode_run_lengths(entry["segmentation"]),
                        box=np.array([x, y, x + width, y + height], float),
                        keypoints=np.reshape(entry["keypoints"], (-1, 3)).astype(float),
                    )
                )
            images.append(
                ReadImage(
                    folder / "images" / path.stem / image["file_name"],
                    path.stem,
                    objects,
                    matrix=np.reshape(image["cam_K"], (3, 3)),
                    size=(image["width"], image["height"]),
                )
            )
    return images


def decode_run_lengths(segmentation: dict[str, Any]) -> Array:
    """A mask (H, W) of uncompressed run lengths, down the columns."""
    values = np.zeros(sum(segmentation["counts"]), bool)
    start, inside = 0, False
    for length in segmentation["counts"]:
        values[start : start + length] = inside
        start, inside = start + length, not inside
    height, width = segmentation["size"]
    return values.reshape(width, height).T


def read_yolo_pose(folder: Path) -> list[ReadImage]:
    """https://docs.ultralytics.com/datasets/pose; `path` is the folder of the YAML."""
    dataset = yaml.safe_load((folder / "dataset.yaml").read_text(encoding="utf-8"))
    count, values = dataset["kpt_shape"]
    assert values == 3
    images = []
    for split in ("train", "val", "test"):
        if split not in dataset:
            continue
        for path in sorted((folder / dataset[split]).iterdir()):
            text = path.with_suffix(".txt").as_posix().replace("/images/", "/labels/")
            height, width = _decode(path).shape[:2]
            objects = []
            for line in Path(text).read_text().splitlines():
                words = line.split()
                assert len(words) == 5 + 3 * count
                numbers = np.array([float(word) for word in words[1:]])
                assert (numbers[:4] >= 0).all() and (numbers[:4] <= 1).all()
                x, y, columns, rows = numbers[:4] * [width, height, width, height]
                points = numbers[4:].reshape(-1, 3)
                assert (points[:, :2] >= 0).all() and (points[:, :2] <= 1).all()
                shown = points[:, 2:] > 0
                pixels = points[:, :2] * [width, height] - 0.5
                objects.append(
                    ReadObject(
                        category=dataset["names"][int(words[0])],
                        box=np.array(
                            [
                                x - columns / 2,
                                y - rows / 2,
                                x + columns / 2,
                                y + rows / 2,
                            ]
                        ),
                        keypoints=np.hstack([np.where(shown, pixels, 0), points[:, 2:]]),
                    )
                )
            images.append(ReadImage(path, split, objects))
    return images


def read_nerfstudio(folder: Path) -> list[ReadImage]:
    """https://docs.nerf.studio/quickstart/data_conventions.html"""
    images = []
    for path in sorted(folder.rglob("transforms.json")):
        content = json.loads(path.read_text())
        for frame in content["frames"]:
            values = content | frame
            pose = np.linalg.inv(np.array(frame["transform_matrix"]))
            pose = (
                np.diag([1.0, -1.0, -1.0, 1.0]) @ pose
            )  # y and z of the camera turn around
            matrix = np.array(
                [
                    [values["fl_x"], 0, values["cx"] - 0.5],
                    [0, values["fl_y"], values["cy"] - 0.5],
                    [0, 0, 1],
                ]
            )
            thing = ReadObject(
                category=path.parent.parent.name,
                rotation=pose[:3, :3],
                translation=pose[:3, 3],
                mask=_mask(path.parent / frame["mask_path"]),
            )
            images.append(
                ReadImage(
                    path.parent / frame["file_path"],
                    "",
                    [thing],
                    matrix=matrix,
                    size=(values["w"], values["h"]),
                )
            )
    return images


def read_foundationpose(folder: Path) -> list[ReadImage]:
    """As `run_one_ob` of https://github.com/NVlabs/FoundationPose/blob/main/bundlesdf/run_nerf.py"""
    names = _object_names(folder)
    images = []
    for place in sorted(folder.glob("ob_*")):
        number = int(place.name.removeprefix("ob_"))
        chosen = yaml.safe_load((place / "select_frames.yml").read_text())
        matrix = np.loadtxt(place / "K.txt").reshape(3, 3)
        vertices, triangles = read_wavefront(place / "model" / "model.obj")
        paths = sorted((place / "rgb").glob("*.png"))
        assert len(paths) == len(chosen)
        for path in paths:
            depth = _decode(place / "depth_enhanced" / path.name)
            assert depth.dtype == np.uint16
            model_from_cam = np.loadtxt(place / "cam_in_ob" / f"{path.stem}.txt")
            pose = np.linalg.inv(model_from_cam.reshape(4, 4))
            thing = ReadObject(
                category=names[number],
                object_id=number,
                rotation=pose[:3, :3],
                translation=pose[:3, 3],
                mask=_mask(place / "mask" / path.name),
                vertices=vertices,
                triangles=triangles,
                depth=depth / 1e3,
            )
            images.append(ReadImage(path, "", [thing], matrix=matrix))
    return images


READERS: dict[str, Callable[[Path], list[ReadImage]]] = {
    "bop": read_bop,
    "coco": read_coco,
    "yolo-pose": read_yolo_pose,
    "nerfstudio": read_nerfstudio,
    "foundationpose": read_foundationpose,
}


def _decode(path: Path) -> Array:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, path
    return np.asarray(pixels)


def _mask(path: Path) -> Array:
    pixels = _decode(path)
    assert pixels.ndim == 2, path
    assert set(np.unique(pixels)) <= {0, 255}
    return np.asarray(pixels > 0)


def read_binary_ply(path: Path) -> tuple[Array, Array]:
    """Vertices and triangles of a binary PLY of x y z floats."""
    data = path.read_bytes()
    head, body = data.split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    assert lines[1] == "format binary_little_endian 1.0"
    counts = {w[1]: int(w[2]) for w in map(str.split, lines) if w[0] == "element"}
    vertices = np.frombuffer(body, "<f4", 3 * counts["vertex"]).reshape(-1, 3)
    rows = np.frombuffer(
        body[vertices.nbytes :], np.dtype([("n", "u1"), ("corner", "<i4", 3)])
    )
    assert len(rows) == counts["face"] and (rows["n"] == 3).all()
    return vertices.astype(float), rows["corner"].astype(np.int64)


def read_wavefront(path: Path) -> tuple[Array, Array]:
    """Vertices and triangles of an OBJ file."""
    words = [line.split() for line in path.read_text().splitlines()]
    vertices = [[float(x) for x in w[1:]] for w in words if w[0] == "v"]
    faces = [[int(x) - 1 for x in w[1:]] for w in words if w[0] == "f"]
    return np.array(vertices), np.array(faces)


def project_points(image: ReadImage, thing: ReadObject, points: Array) -> Array:
    """Pixels (N, 2) of points (N, 3) of the model."""
    assert image.matrix is not None
    assert thing.rotation is not None and thing.translation is not None
    uvw = (points @ thing.rotation.T + thing.translation) @ image.matrix.T
    return np.asarray(uvw[:, :2] / uvw[:, 2:])


def paint_model(image: ReadImage, thing: ReadObject) -> Array:
    """The silhouette (H, W) of an object's model as its labels place it."""
    assert thing.vertices is not None and thing.triangles is not None
    pixels = project_points(image, thing, thing.vertices)
    canvas = np.zeros(image.pixels.shape[:2], np.uint8)
    for triangle in thing.triangles:
        polygon = np.rint(16 * pixels[triangle]).astype(np.int32)
        cv2.fillConvexPoly(canvas, polygon, 1, cv2.LINE_8, 4)
    return canvas > 0


def overlap(first: Array, second: Array) -> float:
    """Intersection over union of two masks."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def iterate_objects(images: list[ReadImage]) -> Iterator[tuple[ReadImage, ReadObject]]:
    """Every object with its image."""
    for image in images:
        for thing in image.objects:
            yield image, thing
