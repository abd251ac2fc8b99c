"""Cameras, sparse models, named frames, boards and labeled poses, to be spoiled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import fuzz_checks
from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.evaluation import bag_transforms, rotation_labels
from uns_pose_ros.io.colmap import read_sparse
from uns_pose_ros.io.schema.board_record import read_board_record
from uns_pose_ros.io.schema.frames_record import (
    FRAMES,
    MAX_FRAMES,
    read_frames,
    write_frames,
)

_NAMES = ("clip_01", "clip_02")  # of labels


def write_camera(folder: Path) -> None:
    k = [500.0, 0, 31.5, 0, 500.0, 23.5, 0, 0, 1]
    (folder / "K.json").write_text(
        json.dumps({"K": k, "D": [0.1, 0.2, 0, 0, 0], "width": 64, "height": 48})
    )


def write_text_model(folder: Path) -> None:
    (folder / "cameras.txt").write_text(
        "# cameras\n1 PINHOLE 640 480 500 510 320 240\n2 OPENCV 64 48 50 51 32 24 .1 .2 0 0\n"
    )
    (folder / "images.txt").write_text(
        "1 1 0 0 0 1 2 3 1 a.jpg\n10 20 -1 3 4 1\n2 0 1 0 0 4 5 6 2 b/c d.jpg\n\n"
    )
    (folder / "points3D.txt").write_text(
        "1 0.5 1 2 128 128 128 0.1 1 0 2 1\n2 -1 -2 -3 0 0 0 0\n"
    )


def write_dialects(folder: Path) -> None:
    """The text model as other programs write it, one dialect a subfolder."""
    write_text_model(folder)
    files = [path for path in folder.iterdir() if path.is_file()]
    for number, (blank, point, end) in enumerate(
        [(";", ",", "\n"), (", ", ".", "\r\n"), ("\t", ",", "\n\n"), (",", ".", "\r")]
    ):
        (folder / str(number)).mkdir()
        for path in files:
            text = path.read_text().replace(".", point).replace(" ", blank)
            text = text.replace("\n", end).replace(",jpg", ".jpg")
            (folder / str(number) / path.name).write_text("\ufeff" + text, newline="")
    for path in files:
        path.unlink()


def write_labels(folder: Path) -> None:
    eye = np.eye(3).tolist()
    (folder / "labels.json").write_text(
        json.dumps({name: {"canon_from_obj": eye} for name in _NAMES})
    )


def write_resting(folder: Path) -> None:
    (folder / "pose.json").write_text(
        json.dumps({"frame": "odom", "pose": np.eye(4).tolist()})
    )


def read_sparse_model(folder: Path, _: Path) -> None:
    sparse = read_sparse(folder)
    fuzz_checks.check_sparse(sparse)
    assert all("\n" not in line for line in sparse.remarks())


def write_named_frames(folder: Path) -> None:
    turn = rotation_from_vector(torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64))
    place = torch.tensor([0.4, -0.1, 0.2], dtype=torch.float64)
    one = NamedFrame("handle", place, turn, 0.08)
    two = NamedFrame("rim", -place, turn.T, follow="rigid", prefer=place)
    write_frames([one, two], folder / FRAMES)


def write_board(folder: Path) -> None:
    (folder / "board.yaml").write_text(
        "kind: charuco\nsquares: [7, 5]\nsquare: 0.03\nmarker: 0.022\n"
        "board_from_object: [[1, 0, 0, 0.1], [0, 1, 0, 0.1], [0, 0, 1, 0], [0, 0, 0, 1]]\n"
    )


def read_board(folder: Path, _: Path) -> None:
    record = read_board_record(folder / "board.yaml")
    assert 0 < record.marker_side <= record.square
    assert all(0 < side < 3000 for side in record.size)


def read_named_frames(folder: Path, _: Path) -> None:
    frames = read_frames(folder)
    assert len({frame.name for frame in frames}) == len(frames) <= MAX_FRAMES
    for frame in frames:
        fuzz_checks.check_pose(frame.canon_from_frame)
        assert float(frame.position.abs().max()) <= 10
        assert frame.width is None or 0 < frame.width <= 10


def read_labels(_: Path, spoiled: Path) -> None:
    labels = rotation_labels.load_labels(spoiled, _NAMES)
    assert labels and labels.keys() <= {*_NAMES}
    for rotation in labels.values():
        fuzz_checks.check_rotation(rotation)


def read_resting(_: Path, spoiled: Path) -> None:
    frame, pose = bag_transforms._resting(spoiled)
    assert frame.strip("/") and len(frame) <= 1000
    fuzz_checks.check_pose(torch.from_numpy(pose), most=0.03)
