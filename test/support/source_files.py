"""Small sources of every kind that `uns-pose import` reads."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from synthetic import write_video
from uns_pose_ros.core.types import Camera


def write_film(path: Path, pictures: list[np.ndarray]) -> Path:
    """An mp4 of RGB pictures at 30 Hz."""
    height, width = pictures[0].shape[:2]
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (width, height))
    for picture in pictures:
        film.write(np.ascontiguousarray(picture[..., ::-1]))
    film.release()
    return path


def checks(number: int, blur: bool = False) -> np.ndarray:
    """A checkerboard (48, 64, 3) whose red channel says its number, with a bright left half."""
    v, u = np.mgrid[:48, :64]
    image = np.stack(
        [np.full((48, 64), 5 * number), 60 * ((u // 4 + v // 4) % 2), 150 * (u < 32)], -1
    ).astype(np.uint8)
    return cv2.blur(image, (9, 9)).astype(np.uint8) if blur else image


def save_photograph(
    path: Path, image: np.ndarray, orientation: int = 1, focal_35: int | None = None
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if focal_35 is not None:
        exif.get_ifd(0x8769)[0xA405] = focal_35
    Image.fromarray(image).save(path, exif=exif, quality=95)


def write_co3d(root: Path, kind: str) -> tuple[Path, dict[str, np.ndarray], Camera]:
    """A truck as CO3D writes a sequence.

    Returns its folder, cam_from_obj by image name, and the camera.
    """
    folder = root / "truck" / "101_1_2"
    truth = write_video(folder, seed=2, views=5, size=48)
    shutil.rmtree(folder / "sparse")
    for path in list(
        (folder / "images").iterdir()
    ):  # not square, so that the two kinds of NDC differ
        image = cv2.imread(str(path))
        mask = cv2.imread(str(folder / "masks" / f"{path.name}.png"))
        assert image is not None and mask is not None
        cv2.imwrite(str(path), image[:32])
        cv2.imwrite(str(folder / "masks" / f"{path.name}.png"), mask[:32])
    (fx, _, cx), (_, fy, cy), _ = truth.camera.matrix.tolist()
    width, height = 48, 32
    half = np.array([16, 16]) if kind == "ndc_isotropic" else np.array([24, 16])
    annotations = []
    for number, (name, pose) in enumerate(truth.cam_from_obj.items()):
        # PyTorch3D: x left, y up, and row vectors
        flip = np.diag([-1.0, -1, 1])
        annotations.append(
            {
                "sequence_name": "101_1_2",
                "frame_number": number,
                "image": {"path": f"truck/101_1_2/images/{name}", "size": [height, width]},
                "mask": {"path": f"truck/101_1_2/masks/{name}.png", "mass": 300.0},
                "viewpoint": {
                    "R": (flip @ pose[:3, :3]).T.tolist(),
                    "T": (flip @ pose[:3, 3]).tolist(),
                    "focal_length": (np.array([fx, fy]) / half).tolist(),
                    "principal_point": (
                        -(np.array([cx, cy]) + 0.5 - [width / 2, height / 2]) / half
                    ).tolist(),
                    "intrinsics_format": kind,
                },
            }
        )
    annotations.append({**annotations[0], "sequence_name": "another"})
    with gzip.open(root / "truck" / "frame_annotations.jgz", "wt") as file:
        json.dump(annotations, file)
    camera = Camera(truth.camera.matrix, width, height)
    return folder, truth.cam_from_obj, camera
