"""A miniature of Objectron, whose films are labeled with the keypoints of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mini_boxes import BOXED, LEFT_UP_FRONT
from source_files import write_film


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
