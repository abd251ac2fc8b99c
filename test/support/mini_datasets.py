"""Miniatures of public data sets in their documented formats, and an estimator that knows them.

An image has one color, and its red channel is the number of the image.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from scipy.io import savemat
from torch import Tensor

from source_files import write_film
from uns_pose_ros.core.geometry import from_parts, matrix_to_quaternion
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry

WIDTH, HEIGHT = 96, 64  # px
# azimuth, elevation, theta (degrees), distance, and the rotation from the object's axes left, back,
# up to the camera that the convention gives for it
VIEWS: tuple[tuple[tuple[float, float, float, float], list[list[float]]], ...] = (
    ((0, 0, 0, 2), [[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    ((90, 0, 0, 2), [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]),
    (
        (0, 0, 10, 2),
        [
            [0.9848077530, 0, -0.1736481777],
            [-0.1736481777, 0, -0.9848077530],
            [0, 1, 0],
        ],
    ),
    (
        (30, 20, 5, 4),
        [
            [0.8776, 0.4723, -0.0819],
            [0.0949, -0.3386, -0.9361],
            [-0.4698, 0.8138, -0.3420],
        ],
    ),
)
# the object's forward, left and up in its axes left, back, up
AXES = ((0, -1, 0), (1, 0, 0), (0, 0, 1))
AT = (40.0, 30.0)  # px, where the object's origin is seen
CORNERS = (20.0, 12.0, 64.0, 50.0)  # px, counted from 0


class KnowsColors:
    """An estimator that knows the poses of the objects in the image of each color."""

    # by color: cam_from_canon in the true camera, of each object, and its box
    known: ClassVar[Mapping[int, Sequence[PoseEstimate]]] = {}

    def __init__(self, model: CategoryModel, device: str, config: object) -> None:
        self.models = (model,)

    def __call__(
        self, image: Tensor, camera: Camera, regions: Tensor | None = None
    ) -> list[PoseEstimate]:
        known = list(self.known[int(image[0, 0, 0])])
        if regions is None:
            return known
        middle = (regions[0, :2] + regions[0, 2:]) / 2
        return sorted(
            known, key=lambda one: float((one.box.view(2, 2).mean(0) - middle).norm())
        )[:1]

    def without_threshold(
        self, image: Tensor, camera: Camera, regions: Tensor | None = None
    ) -> list[PoseEstimate]:
        return self(image, camera, regions)


def estimate_of(
    category: str,
    rotation: Any,
    translation: Any = (0, 0, 3.0),
    box: Sequence[float] = CORNERS,
    size: Any = (1.0, 1.0, 1.0),
    metric: bool = False,
    score: float = 0.7,
) -> PoseEstimate:
    """An estimate with a given pose; its canonical frame is forward, left, up."""
    rotation, translation, box_px, sides = (
        _double(value) for value in (rotation, translation, box, size)
    )
    pose = from_parts(rotation, translation)
    return PoseEstimate(
        *(category, pose, 1.0, metric, sides, score, None, Symmetry(), 12, 1.5, box_px)
    )


def centered_model(category: str, **details: Any) -> CategoryModel:
    """A model whose box is centered on the origin; nothing is estimated with it."""
    corners = torch.tensor(
        [[-0.5, -0.5, -0.5], [0.5, 0.5, -0.5], [0.5, -0.5, 0.5], [-0.5, 0.5, 0.5]]
    )
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return CategoryModel(
        category, corners, triangles, torch.eye(4), torch.eye(4), {}, **details
    )


def write_colored(path: Path, color: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """An image of one color; PNG whatever its ending, so that the color is exact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), (0, 0, color), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def matlab_objects(items: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """A struct array (1, N) as MATLAB writes it; what an item lacks is an empty matrix."""
    names = sorted({name for item in items for name in item})
    array = np.zeros((1, len(items)), [(name, object) for name in names])
    for k, item in enumerate(items):
        array[0, k] = tuple(item.get(name, np.zeros((0, 0))) for name in names)
    return array


def pascal_item(view: tuple[float, float, float, float], **more: Any) -> dict[str, Any]:
    """An object of PASCAL3D+ seen at AT, with its box counted from 1."""
    azimuth, elevation, theta, distance = view
    viewpoint = {
        **{"azimuth": azimuth, "elevation": elevation, "theta": theta},
        **{"distance": distance, "focal": 1.0, "viewport": 3000.0},
        **{"px": AT[0], "py": AT[1], "azimuth_coarse": 0.0, "elevation_coarse": 0.0},
    }
    item = {
        "class": "car",
        "bbox": np.array([[edge + 1 for edge in CORNERS]]),
        "cad_index": 1.0,
        **{"truncated": 0.0, "occluded": 0.0, "difficult": 0.0},
        "anchors": {"wheel": {"location": np.array([[30.0, 20]]), "status": 1.0}},
        "viewpoint": viewpoint,
    }
    return item | more


def write_matlab(path: Path, items: Sequence[Mapping[str, Any]], packed: bool) -> None:
    """An annotation file with the objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "filename": f"{path.stem}.JPEG",
        "imgsize": np.array([[WIDTH, HEIGHT, 3]]),
        "size": {"width": WIDTH, "height": HEIGHT, "depth": 3},
        "objects": matlab_objects(items),
    }
    savemat(path, {"record": record}, do_compression=packed)


def write_pascal3d(root: Path, category: str = "car") -> None:
    """VIEWS as test images of a category, the last one occluded."""
    names = [f"n0{k}" for k in range(len(VIEWS))]
    for k, (view, _) in enumerate(VIEWS):
        item = pascal_item(view, occluded=float(k == 3)) | {"class": category}
        folder = root / "Annotations" / f"{category}_imagenet"
        write_matlab(folder / f"{names[k]}.mat", [item], packed=k % 2 == 0)
        write_colored(root / "Images" / f"{category}_imagenet" / f"{names[k]}.JPEG", 10 * k)
    (root / "Image_sets").mkdir(exist_ok=True)
    (root / "Image_sets" / f"{category}_imagenet_val.txt").write_text(
        "\n".join(names) + "\n"
    )


def know_views(category: str = "car") -> dict[int, list[PoseEstimate]]:
    """The estimates of VIEWS as a camera of 60° sees them, whose middle is that of the image."""
    focal = WIDTH / 2 / np.tan(np.pi / 6)
    ray = np.array([AT[0] - (WIDTH - 1) / 2, AT[1] - (HEIGHT - 1) / 2, focal])
    turn, _ = cv2.Rodrigues(_between(np.array([0.0, 0, 1]), ray))
    return {
        10 * k: [
            estimate_of(category, turn @ np.array(rotation) @ np.array(AXES).T, ray / 20)
        ]
        for k, (_, rotation) in enumerate(VIEWS)
    }


def _double(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        value = torch.from_numpy(np.asarray(value, float).copy())
    return value.double()


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation vector (3,) of the least turn from a to b."""
    axis = np.cross(a, b)
    sine, cosine = np.linalg.norm(axis), a @ b
    return np.asarray(axis / sine * np.arctan2(sine, cosine))


def imagenet_item(view: tuple[float, float, float, float], **more: Any) -> dict[str, Any]:
    """An object of ImageNet3D seen at AT; angles in radians, from 0 to a full turn."""
    azimuth, elevation, theta = (np.radians(angle) % (2 * np.pi) for angle in view[:3])
    item = {
        **{"azimuth": azimuth, "elevation": elevation, "theta": theta},
        **{"distance": np.float64(view[3]), "focal": 1.0, "viewport": 3000},
        **{"px": AT[0], "py": AT[1], "principal": np.array(AT), "cad_index": 3},
        **{"bbox": np.array(CORNERS), "height": HEIGHT, "width": WIDTH, "class": "car"},
        **{"ignore": 0, "object_status": "status_good", "dense": "dense_no"},
    }
    return item | more


def write_annotations(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
    """The .npz of an image, pickled as its authors do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = np.empty(len(items), object)
    listed[:] = list(items)
    np.savez(path, annotations=listed)


def write_imagenet3d(root: Path) -> None:
    """VIEWS as test images of cars, the last one hardly visible."""
    names = [f"n0{k}" for k in range(len(VIEWS))]
    for k, (view, _) in enumerate(VIEWS):
        status = "status_barely" if k == 3 else "status_good"
        item = imagenet_item(view, object_status=status)
        write_annotations(root / "annotations" / "car" / f"{names[k]}.npz", [item])
        write_colored(root / "images" / "car" / f"{names[k]}.JPEG", 10 * k)
    (root / "lists").mkdir()
    (root / "lists" / "car_imagenet_val.txt").write_text("\n".join(names) + "\n")


def write_objectnet3d(root: Path) -> None:
    """VIEWS as test images of cars with a bus beside, and an image of a bus with a car beside."""
    names = [f"n0{k}" for k in range(len(VIEWS))]
    bus = pascal_item((45, 0, 0, 2), **{"class": "bus"})
    for k, (view, _) in enumerate(VIEWS):
        item = pascal_item(view)
        if k == 1:  # annotated coarsely only
            coarse = {"azimuth_coarse": view[0], "elevation_coarse": view[1]}
            viewpoint = item["viewpoint"] | coarse
            item["viewpoint"] = {
                name: value
                for name, value in viewpoint.items()
                if name not in ("azimuth", "elevation")
            }
        write_matlab(root / "Annotations" / f"{names[k]}.mat", [item, bus], packed=True)
        write_colored(root / "Images" / f"{names[k]}.JPEG", 10 * k)
    write_matlab(
        root / "Annotations" / "n04.mat", [bus, pascal_item((0, 0, 0, 2))], packed=True
    )
    (root / "Image_sets").mkdir()
    (root / "Image_sets" / "test.txt").write_text("\n".join([*names, "n04"]) + "\n")


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


def message(fields: Sequence[tuple[int, Any]]) -> bytes:
    """A protobuf message: ints, float32, texts, bytes of messages, and packed lists of float32."""
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += _varint(number << 3) + _varint(value)
        elif isinstance(value, float):
            data += _varint(number << 3 | 5) + np.float32(value).tobytes()
        else:
            if isinstance(value, list):
                value = np.array(value, "<f4").tobytes()
            content = value.encode() if isinstance(value, str) else value
            data += _varint(number << 3 | 2) + _varint(len(content)) + content
    return data


def _varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


LANDSCAPE = (640, 480)  # px of the camera, which is held upright: the film has 480 x 640
# projection of OpenGL, row by row; f 600 and 620 px, principal point off the middle
PROJECTION = np.array(
    [
        [2 * 600 / 640, 0, 1 - 2 * 330 / 640, 0],
        [0, 2 * 620 / 480, 2 * 230 / 480 - 1, 0],
        [0, 0, -1, -0.02],
        [0, 0, -1, 0],
    ]
)
# the same camera for the upright image: a pixel of the landscape image at row r is at 480 - 1 - r
PORTRAIT = np.array([[620.0, 0, 480 - 230 - 0.5], [0, 600, 330 - 0.5], [0, 0, 1]])


def objectron_keypoints(pose: np.ndarray, extents: np.ndarray) -> list[tuple[int, bytes]]:
    """The keypoints of a box: x slowest, in the camera of OpenGL held in landscape."""
    sides = LEFT_UP_FRONT.T @ extents
    unit = np.array(
        [[0.0, 0, 0]]
        + [[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
    )
    seen = (unit * sides) @ (pose[:3, :3] @ LEFT_UP_FRONT).T + pose[:3, 3]
    # upright, OpenCV: x right, y down, z forward; landscape, OpenGL: the phone's x is down
    points = np.stack([seen[:, 1], seen[:, 0], -seen[:, 2]], 1)
    clip = np.c_[points, np.ones(9)] @ PROJECTION.T
    x, y = (clip[:, :2] / clip[:, 3:]).T
    fields = []
    for k in range(9):
        inside = message([(axis + 1, float(points[k, axis])) for axis in range(3)])
        pixel = message([(1, float((1 + y[k]) / 2)), (2, float((1 + x[k]) / 2))])
        keypoint = message(
            [(1, k), (2, inside), (3, pixel)] if k else [(2, inside), (3, pixel)]
        )
        fields.append((2, keypoint))
    return fields


def objectron_sequence(
    frames: int = 11, category: str = "shoe", visibility: float = 0.9, **change: Any
) -> bytes:
    """The annotation of a film that shows BOXED in every frame."""
    objects = [
        (1, message([(1, k + 1), (2, category), (3, 1), (6, [1.0, 1, 1])]))
        for k in range(len(BOXED))
    ]
    projection = change.get("projection", PROJECTION)
    camera = message(
        [
            (3, [0.0] * 16),
            (5, LANDSCAPE[0]),
            (6, LANDSCAPE[1]),
            (8, projection.ravel().tolist()),
        ]
    )
    listed = []
    for number in range(frames):
        annotations = [
            (2, message([(1, k + 1), *objectron_keypoints(*box), (3, visibility)]))
            for k, box in enumerate(BOXED)
        ]
        fields = [*annotations, (3, camera)]
        listed.append((2, message([(1, number), *fields] if number else fields)))
    return message([*objects, *listed])


def write_objectron(root: Path, data: bytes | None = None) -> None:
    """A film of eleven frames in which BOXED stand still as shoes."""
    for folder in ("annotations/shoe/batch-1", "videos/shoe/batch-1/0", "index"):
        (root / folder).mkdir(parents=True)
    (root / "index" / "shoe_annotations_test").write_text("shoe/batch-1/0\n")
    annotated = root / "annotations" / "shoe" / "batch-1" / "0.pbdata"
    annotated.write_bytes(objectron_sequence() if data is None else data)
    black = [np.zeros((LANDSCAPE[0], LANDSCAPE[1], 3), np.uint8)] * 11
    film = write_film(root / "videos" / "shoe" / "batch-1" / "0" / "film.mp4", black)
    film.rename(film.with_name("video.MOV"))


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
