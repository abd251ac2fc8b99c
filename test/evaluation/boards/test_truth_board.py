"""A printed board below the object gives its true pose in every image."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

from bag_writer import camera_info, header, make, write_bag
from painted_board import CAMERA, board_view, paint_board
from small_model import one_triangle
from streams import estimate, pose
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.types import Camera, PoseEstimate
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.bag_figures import (
    FrameResult,
    fit_truth_from_canon,
    summarize_bag,
)
from uns_pose_ros.evaluation.boards import truth_board
from uns_pose_ros.evaluation.boards.truth_board import TruthBoard, read_truth_board
from uns_pose_ros.evaluation.rosbag_evaluation import estimate_bag_frames
from uns_pose_ros.io.schema.board_record import BoardRecord

CHARUCO = BoardRecord("charuco", (7, 5), 0.03, 0.022)
TAGS = BoardRecord("apriltag", (4, 3), 0.05)
IDENTITY = torch.eye(4, dtype=torch.float64)
# where the object stands on the board: its z axis points out of the table
OBJECT = pose((180.0, 0.0, 0.0), (0.1, 0.07, 0.0)) @ pose((0.0, 0.0, 25.0), (0.0, 0.0, 0.0))


def errors(found: Tensor | str, truth: Tensor) -> tuple[float, float]:
    """Degrees, and percent of the distance."""
    assert not isinstance(found, str), found
    away = float((found - truth)[:3, 3].norm() / truth[:3, 3].norm())
    return float(angle_between(found[:3, :3], truth[:3, :3])), 100 * away


@pytest.mark.parametrize("record", [CHARUCO, TAGS], ids=["charuco", "apriltag"])
@pytest.mark.parametrize(("tilt", "turn"), [(25.0, 0.0), (50.0, 130.0), (60.0, -80.0)])
@pytest.mark.parametrize("distance", [0.4, 0.7])
def test_a_painted_board_has_its_true_pose(
    record: BoardRecord, tilt: float, turn: float, distance: float
) -> None:
    truth = board_view(record, tilt, turn, distance)
    degrees, percent = errors(
        TruthBoard(record).find(paint_board(record, truth), CAMERA), truth
    )
    assert degrees < 1.0
    assert percent < 2.0


def test_the_distortion_of_the_lens_is_removed() -> None:
    truth = board_view(CHARUCO, 40.0, 30.0, 0.45)
    bent = replace(CAMERA, distortion=torch.tensor([-0.2, 0.05, 0.0, 0.0]).double())
    x, y = np.meshgrid(np.arange(640.0), np.arange(480.0))
    straight = cv2.undistortPoints(
        np.stack([x.ravel(), y.ravel()], 1)[:, None],
        CAMERA.matrix.numpy(),
        bent.distortion.numpy(),
        P=CAMERA.matrix.numpy(),
    ).reshape(480, 640, 2)
    image = cv2.remap(
        paint_board(CHARUCO, truth),
        straight[..., 0].astype(np.float32),
        straight[..., 1].astype(np.float32),
        cv2.INTER_LINEAR,
    )
    degrees, percent = errors(
        TruthBoard(CHARUCO).find(np.asarray(image, np.uint8), bent), truth
    )
    assert degrees < 1.0
    assert percent < 2.0


def test_a_covered_board_is_still_seen_and_an_unseen_one_says_so() -> None:
    truth = board_view(CHARUCO, 40.0, 10.0, 0.45)
    image = paint_board(CHARUCO, truth)
    image[190:300, 260:380] = (200, 40, 40)  # the object
    degrees, percent = errors(TruthBoard(CHARUCO).find(image, CAMERA), truth)
    assert degrees < 1.0 and percent < 2.0
    board = TruthBoard(CHARUCO)
    assert board.find(np.full_like(image, 90), CAMERA) == truth_board.NOT_SEEN
    image[:, :430] = 128
    assert board.find(image, CAMERA) in (truth_board.TOO_FEW, truth_board.NOT_SEEN)


def test_points_that_fit_no_pose_or_two_are_no_truth() -> None:
    points = np.array([[x, y, 0.0] for x in (0, 0.03, 0.06) for y in (0, 0.03, 0.06)])
    far = pose((35.0, 0.0, 0.0), (0.0, 0.0, 30.0)).numpy()
    shown = points @ far[:3, :3].T + far[:3, 3]
    matrix = CAMERA.matrix.numpy()
    pixels = (shown @ matrix.T)[:, :2] / shown[:, 2:]
    assert truth_board.board_pose(points, pixels, CAMERA) == truth_board.AMBIGUOUS
    wild = np.random.default_rng(0).uniform(0, 400, (9, 2))
    assert truth_board.board_pose(points, wild, CAMERA) == truth_board.BAD_FIT


class Seen:
    """An estimator that is wrong by 4 degrees and by 3 percent of the depth in each image."""

    def __init__(self, cameras: list[Tensor]) -> None:
        self.models = (one_triangle("car", diameter=0.2),)
        self._cameras = cameras

    def __call__(self, image: np.ndarray, *_: Any, **__: Any) -> list[PoseEstimate]:
        k = int(image[0, 0, 0]) // 10
        wrong = self._cameras[k] @ OBJECT @ pose((0.0, 0.0, 4.0), (0.0, 0.0, 0.0))
        wrong[:3, 3] *= 1.03
        return [estimate(wrong, score=0.8)]


def board_bag(folder: Path, blank: int) -> tuple[Path, list[Tensor]]:
    """A bag of six images of a board; one shows none. Returns it and cam_from_board (4, 4)."""
    cameras = [
        board_view(CHARUCO, 30.0 + 4 * k, 40.0 * k, 0.4 + 0.05 * k) for k in range(6)
    ]
    info = camera_info(100.0, 600.0)
    fields = {name: getattr(info, name) for name in info.__dataclass_fields__}
    fields.pop("__msgtype__", None)
    fields |= {"width": 640, "height": 480, "k": CAMERA.matrix.numpy().ravel()}
    messages = [("/cam/camera_info", 100.0, make("sensor_msgs/msg/CameraInfo", **fields))]
    for k, camera in enumerate(cameras):
        image = paint_board(CHARUCO, camera)
        if k == blank:
            image[:] = 128
        image[:4, :4] = 10 * k
        message = make(
            "sensor_msgs/msg/Image",
            header=header(100 + k / 10, "cam_optical"),
            height=480,
            width=640,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * 640,
            data=image.ravel(),
        )
        messages.append(("/cam/image_raw", 100 + k / 10, message))
    bag = folder / "bag"
    topics = {"/cam/image_raw", "/cam/camera_info"}
    write_bag(bag, StoragePlugin.MCAP, topics, messages=messages)
    return bag, cameras


def write_board(path: Path, board_from_object: Tensor | None = None) -> Path:
    text = "kind: charuco\nsquares: [7, 5]\nsquare: 0.03\nmarker: 0.022\n"
    if board_from_object is not None:
        text += f"board_from_object: {board_from_object.tolist()}\n"
    path.write_text(text)
    return path


def results_of(bag: Path, cameras: list[Tensor], board: Path) -> list[FrameResult]:
    return estimate_bag_frames(
        bag,
        Seen(cameras),  # type: ignore[arg-type]
        BagConfig(truth_board=board),
        lambda step, done, total: None,
    )


def test_a_bag_is_measured_against_its_board_as_against_the_known_truth(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bag, cameras = board_bag(tmp_path, blank=4)
    with caplog.at_level(logging.WARNING):
        results = results_of(bag, cameras, write_board(tmp_path / "a.yaml", OBJECT))
    assert "without truth: images: the board is not seen: 1" in caplog.text
    assert results[4].truth is None
    for k in (0, 1, 2, 3, 5):
        truth = results[k].truth
        assert truth is not None
        degrees, percent = errors(truth, cameras[k] @ OBJECT)
        assert degrees < 1.0 and percent < 2.0
    model = one_triangle("car", diameter=0.2)
    record = summarize_bag(results, model, IDENTITY)
    assert record["with_truth"] == 5
    assert record["median_deg"] == pytest.approx(4.0, abs=1.0)
    assert record["translation_percent"]["p50"] == pytest.approx(3.0, abs=2.0)
    placed = results_of(bag, cameras, write_board(tmp_path / "b.yaml"))
    fitted = fit_truth_from_canon(placed, model)
    assert errors(fitted, OBJECT @ pose((0.0, 0.0, 4.0), (0.0, 0.0, 0.0)))[0] < 1.0
    record = summarize_bag(placed, model, fitted)
    assert record["median_deg"] < 1.0
    assert (
        record["translation_percent"]["p95"] < 3.0
    )  # of the depth, which a fit cannot mend


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "chess"}, "Invalid enum value 'chess'"),
        ({"squares": [1, 7]}, "squares: 3 and 2 or more are valid"),
        ({"square": 0}, "square: Expected `float` >= 0.0001"),
        ({"marker": 0.04}, "marker: less than the square is valid"),
        ({"gap": 0.01}, "gap: only of the kind apriltag"),
        ({"dictionary": "DICT_4X4_9"}, "dictionary 'DICT_4X4_9': one of OpenCV"),
        ({"squares": [60, 60]}, "60 x 60 squares need 1800 markers"),
        ({"side": 1}, "unknown field `side`"),
        ({"board_from_object": (2 * IDENTITY).tolist()}, "the last row of a pose"),
    ],
)
def test_a_board_that_is_none_is_refused_with_one_line(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    path = tmp_path / "board.yaml"
    record = {"kind": "charuco", "squares": [7, 5], "square": 0.03} | change
    path.write_bytes(msgspec.yaml.encode(record))
    with pytest.raises(InvalidInput) as raised:
        read_truth_board(path)
    assert says in str(raised.value)
    assert str(raised.value).startswith(str(path))


def test_a_board_and_another_truth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="truth_frame and truth_board both say"):
        BagConfig(truth_frame="mug", truth_board=tmp_path / "board.yaml")


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_the_page_has_the_board_at_its_true_size(tmp_path: Path, suffix: str) -> None:
    page = tmp_path / f"board{suffix}"
    board = write_board(tmp_path / "board.yaml")
    assert main.main(["board", str(board), str(page)]) == 0
    data = page.read_bytes()
    if suffix == ".pdf":  # points: the paper lies across
        assert b"/MediaBox [ 0 0 841.889" in data
        return
    text = data.decode()
    assert 'width="841.889' in text and 'height="595.27' in text
    shown = re.search(r'width="(\d+)" height="\d+" transform="matrix\(([\d.]+) 0 0', text)
    assert shown is not None
    width = float(shown[1]) * float(shown[2])
    assert width == pytest.approx(0.21 / 0.0254 * 72, rel=2e-3)


def test_a_page_that_cannot_be_is_refused_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = tmp_path / "board.yaml"
    board.write_text("kind: apriltag\nsquares: [6, 6]\nsquare: 0.05\n")
    page = tmp_path / "board.pdf"
    assert main.main(["board", str(board), str(page)]) == 2
    assert "375 x 375 mm, too large for a4" in capsys.readouterr().err
    assert main.main(["board", str(board), str(page), "--paper", "a2"]) == 0
    assert main.main(["board", str(board), str(tmp_path / "board.png")]) == 2
    assert "ends with .pdf or .svg is valid" in capsys.readouterr().err
    assert main.main(["board", str(board), str(page), "--paper", "b5"]) == 2


def test_the_drawn_board_is_found_in_itself() -> None:
    """A camera that looks straight at it sees it without two poses."""
    truth = board_view(TAGS, 0.0, 0.0, 0.4)
    found = TruthBoard(TAGS).find(paint_board(TAGS, truth), Camera(CAMERA.matrix, 640, 480))
    assert errors(found, truth)[0] < 1.0
