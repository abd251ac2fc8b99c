"""A bag with several cameras gives the figures of each, and of all fused as the node fuses them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

import bag_writer
from bag_writer import KINDS, camera_info, header, make, transform, write_bag
from small_model import one_triangle
from streams import HALF_TURN, estimate, pose
from uns_pose_ros.cli import main, rosbag_command
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, invert
from uns_pose_ros.core.types import PoseEstimate, PoseMode
from uns_pose_ros.estimation.cameras.camera_fusion import CameraFusionConfig
from uns_pose_ros.evaluation import bag_cameras, rosbag_export
from uns_pose_ros.evaluation.bag_cameras import CameraResults, estimate_bag, fuse_cameras
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.bag_figures import FrameResult
from uns_pose_ros.io import artifacts

OBJECT = pose((0.0, 0.0, 20.0), (0.5, 0.1, 0.0))  # map_from_object
SIDES = ("left", "right")
TOPICS = tuple(f"/{side}/image_raw" for side in SIDES)
COUNT = 6


def map_from_cam(side: str) -> Tensor:
    """The pose of a camera that looks at the object."""
    turn = {"left": 0.0, "right": 90.0, "third": 180.0}[side]
    return pose((0.0, 0.0, turn), (0.5, 0.1, 0.0)) @ pose(
        (-110.0, 0.0, 0.0), (0.0, -1.2, 0.4)
    )


class TwoCameras:
    """An estimator that knows the true pose by the gray value of the image.

    The left camera is wrong by half a turn, and holds the right pose possible.
    """

    def __init__(self) -> None:
        self.models = (one_triangle("car", diameter=0.2),)

    def __call__(self, image: np.ndarray, *_: Any, **__: Any) -> list[PoseEstimate]:
        side = SIDES[int(image[0, 0, 0]) // 100]
        truth = invert(map_from_cam(side)) @ OBJECT
        if side == "left":
            wrong = (PoseMode(truth, -0.3),)
            return [estimate(truth @ HALF_TURN, 0.5, wrong)]
        return [estimate(truth, 0.8)]


@pytest.fixture
def bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cameras, whose images come by turns, and the true pose on TF."""
    messages: list[tuple[str, float, Any]] = []
    tf = [transform(100, "map", "thing", OBJECT.numpy())]
    for number, side in enumerate(SIDES):
        for name, kind in (
            ("image_raw", "sensor_msgs/msg/Image"),
            ("camera_info", "sensor_msgs/msg/CameraInfo"),
        ):
            monkeypatch.setitem(bag_writer.KINDS, f"/{side}/{name}", kind)
        tf.append(transform(100, "map", side, map_from_cam(side).numpy()))
        messages.append((f"/{side}/camera_info", 100.0, camera_info(100.0)))
        for k in range(COUNT):
            at = 100 + k / 5 + number / 10
            image = np.full((48, 64, 3), 100 * number, np.uint8)
            messages.append((f"/{side}/image_raw", at, shown(at, side, image)))
    static = make("tf2_msgs/msg/TFMessage", transforms=tf)
    messages.append(("/tf_static", 99.0, static))
    topics = {*TOPICS, "/left/camera_info", "/right/camera_info", "/tf_static"}
    write_bag(
        tmp_path / "bag",
        StoragePlugin.MCAP,
        topics,
        messages=sorted(messages, key=lambda entry: entry[1]),
    )
    assert "/tf_static" in KINDS
    return tmp_path / "bag"


def shown(at: float, frame: str, image: np.ndarray) -> Any:
    return make(
        "sensor_msgs/msg/Image",
        header=header(at, frame),
        height=48,
        width=64,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * 64,
        data=image.ravel(),
    )


def settings(**more: Any) -> BagConfig:
    given = {"image_topics": TOPICS, "fixed_frame": "map", "truth_frame": "thing"} | more
    return BagConfig(**given)


def results_of(bag: Path, **more: Any) -> CameraResults:
    return estimate_bag(
        bag,
        TwoCameras(),  # type: ignore[arg-type]
        settings(**more),
        lambda step, done, total: None,
    )


def test_cameras_are_fused_at_each_stamp_and_decide_what_one_has_wrong(bag: Path) -> None:
    results = results_of(bag)
    model = one_triangle("car", diameter=0.2)
    record = bag_cameras.summarize_results(
        results, model, torch.eye(4, dtype=torch.float64)
    )
    left, right = (record["cameras"][topic] for topic in TOPICS)
    assert (left["images"], left["acc10"], right["acc10"]) == (COUNT, 0.0, 100.0)
    assert record["images"] == 2 * COUNT
    # the left camera alone saw the first stamp
    assert record["acc10"] == pytest.approx(100 * (2 * COUNT - 1) / (2 * COUNT))
    assert record["tracks"]["ids"] == 1
    assert record["translation_m"]["p95"] < 0.01
    assert record["jitter"]["against"] == "truth"
    assert record["jitter"]["steps"] == 2 * COUNT - 1
    (first, second) = results.frames[:2]
    assert [first.frame, second.frame] == list(SIDES)


def test_images_that_are_too_old_are_not_fused(bag: Path) -> None:
    results = results_of(bag, max_difference=0.05)
    model = one_triangle("car", diameter=0.2)
    record = bag_cameras.summarize_results(
        results, model, torch.eye(4, dtype=torch.float64)
    )
    assert record["acc10"] == pytest.approx(50.0)


def test_results_in_the_fixed_frame_lie_at_the_object(bag: Path) -> None:
    results = results_of(bag)
    for result in results.in_fixed_frame("map")[1:]:
        assert result.frame == "map"
        assert result.best is not None
        found = result.best.cam_from_canon
        assert float(angle_between(found[:3, :3], OBJECT[:3, :3])) < 1
        assert float((found - OBJECT)[:3, 3].norm()) < 0.01


def test_what_cannot_be_fused_is_left_out_and_counted() -> None:
    place = map_from_cam("left")
    known = FrameResult(
        10**9, "left", (estimate(invert(place) @ OBJECT),), (0,), 0.1, None, None, place
    )
    lost = replace(known, stamp=2 * 10**9, fixed_from_cam=None)
    sizeless = replace(
        known,
        stamp=3 * 10**9,
        estimates=(estimate(invert(place) @ OBJECT, metric=False),),
    )
    frames, left_out = fuse_cameras(
        {"left": [known, lost], "right": [sizeless]}, CameraFusionConfig(max_difference=0.5)
    )
    assert [len(frame.estimates) for frame in frames] == [1, 0]
    assert left_out.counts == {
        "images of left without a transform to the fixed frame": 1,
        "estimates of right without a size in meters": 1,
    }


def test_without_transforms_one_line_says_what_is_needed(bag: Path) -> None:
    with pytest.raises(InvalidInput, match="no image can be fused|'attic'"):
        results_of(bag, fixed_frame="attic", truth_frame=None)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"fixed_frame": None}, "--fixed-frame FRAME is needed too"),
        ({"image_topics": TOPICS[:1]}, "two or more, each once, are valid"),
        ({"image_topics": TOPICS[:1] * 2}, "two or more, each once, are valid"),
        ({"depth_topic": "/d"}, "--depth-topic with --image-topics: valid for one camera"),
        ({"max_difference": 0.0}, "max_difference 0.0: 0.001 to 10 is valid"),
    ],
)
def test_settings_that_do_not_fit_several_cameras_are_refused(
    more: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        settings(**more)


def test_the_command_prints_each_camera_and_all_fused(
    bag: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = one_triangle("car", diameter=0.2)
    monkeypatch.setattr(rosbag_command, "Estimator", lambda *_, **__: TwoCameras())
    monkeypatch.setattr(artifacts, "load_model", lambda _: model)
    out = tmp_path / "out.json"
    words = ["evaluate", "bag", str(tmp_path), str(bag), "--image-topics", *TOPICS]
    words += ["--fixed-frame", "map", "--truth-frame", "thing", "--json", str(out)]
    assert main.main([*words, "--results", str(tmp_path / "fused.mcap")]) == 0
    text = capsys.readouterr().out
    assert "12 stamps of several cameras" in text
    assert "fused" in text and "/left/image_raw" in text
    record = json.loads(out.read_text())
    assert set(record["cameras"]) == set(TOPICS)
    assert len(record["frames"]) == 2 * COUNT
    assert rosbag_export.TOPIC == "/estimator/detections"
    assert (tmp_path / "fused.mcap").exists()
