"""Miniatures of PASCAL3D+, ImageNet3D and ObjectNet3D, which label the view of an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.io import savemat

from known_colors import CORNERS, HEIGHT, WIDTH, estimate_of, write_colored
from uns_pose_ros.core.types import PoseEstimate

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
