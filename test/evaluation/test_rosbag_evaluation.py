"""The images of a bag are estimated with the truth and the depth of their stamps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

from bag_writer import (
    camera_info,
    compressed_depth,
    depth_of,
    make,
    raw,
    raw_depth,
    transform,
    write_bag,
    write_photographs,
)
from scripted_bag import OBJECT, Scripted, figures, frame_results, true_pose
from small_model import CLIP
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video


def test_images_whose_stamps_are_no_times_have_no_truth_from_moving_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages: list[tuple[str, float, Any]] = [
        ("/cam/camera_info", 100.0, camera_info(100.0))
    ]
    for k, stamp in enumerate([100.0, 100.0, 100.0, 0.0, 100.4, -3.0]):
        at = 100 + k / 10
        tf = transform(at, "cam_optical", "thing", true_pose(0).numpy())
        messages.append(("/tf", at, make("tf2_msgs/msg/TFMessage", transforms=[tf])))
        messages.append(
            ("/cam/image_raw", at, raw(stamp, np.full((48, 64, 3), 10 * k, np.uint8)))
        )
    topics = {"/cam/image_raw", "/cam/camera_info", "/tf"}
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, topics, messages=messages)
    results = frame_results(tmp_path / "bag", Scripted(), truth_frame="thing")
    known = [result.truth is not None for result in results]
    assert known == [True, False, False, False, True]
    assert "1 of 6 images have a stamp 0" in caplog.text
    assert "2 of 6 images have a stamp seen before" in caplog.text
    assert "negative stamp" in caplog.text


def test_the_truth_may_be_a_topic_or_an_object_at_rest_and_all_say_the_same(
    bag: Path, tmp_path: Path
) -> None:
    (tmp_path / "rest.json").write_text(
        json.dumps({"frame": "map", "pose": OBJECT.tolist()})
    )
    for settings in ({"truth_topic": "/truth"}, {"truth_pose": tmp_path / "rest.json"}):
        result = figures(bag, Scripted(flipped=[3]), **settings)
        assert (result["with_truth"], result["acc10"]) == (20, 95.0)
        assert result["translation_m"]["max"] < 1e-4


@pytest.mark.parametrize(
    "wanted", ["/cam/depth/image_raw", "/cam/depth/image_raw/compressedDepth"]
)
@pytest.mark.parametrize("late", [-0.25, 0.0, 0.25], ids=["before", "with", "after"])
def test_each_image_gets_the_depth_of_its_stamp_whichever_is_recorded_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wanted: str, late: float
) -> None:
    """The depth of images 3 and 9 is missing."""
    messages: list[tuple[str, float, Any]] = [("/cam/camera_info", 90.0, camera_info(90.0))]
    make_depth = compressed_depth if wanted.endswith("compressedDepth") else raw_depth
    for k in range(10):
        at = 100 + k / 10
        messages.append(
            ("/cam/image_raw", at, raw(at, np.full((48, 64, 3), 10 * k, np.uint8)))
        )
        if k not in (3, 9):
            messages.append((wanted, at + late, make_depth(at, depth_of(k))))
    messages.sort(key=lambda message: message[1])
    write_bag(
        tmp_path / "bag",
        StoragePlugin.SQLITE3,
        {message[0] for message in messages},
        messages=messages,
    )
    find = Scripted()
    results = frame_results(tmp_path / "bag", find, depth_topic="/cam/depth/image_raw")
    assert list(find.depths) == [0, 1, 2, 4, 5, 6, 7, 8]
    for k, given in find.depths.items():
        assert np.isnan(given[:8, :8]).all()
        assert np.allclose(given[8:], depth_of(k)[8:] / 1000)
    assert [round((result.stamp / 1e9 - 100) * 10) for result in results] == list(
        find.depths
    )
    assert "left out: images: no depth of its stamp: 2" in caplog.text
    with pytest.raises(InvalidInput, match="no depth images on '/nothing'"):
        frame_results(tmp_path / "bag", find, depth_topic="/nothing")


def test_every_nth_image_can_be_estimated_alone(bag: Path) -> None:
    assert [a.stamp for a in frame_results(bag, Scripted(), every=7)] == [
        (100_000 + 100 * k) * 10**6 for k in (0, 7, 14)
    ]


def test_what_cannot_be_true_is_refused_with_one_line(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match="truth_frame and truth_topic both say what is true"
    ):
        BagConfig(truth_frame="a", truth_topic="/b")
    with pytest.raises(
        InvalidInput, match=r"/tf has no frame 'cup'; its frames: cam_optical, map, thing"
    ):
        frame_results(bag, Scripted(), truth_frame="cup")
    with pytest.raises(InvalidInput, match="topics with one: /truth"):
        frame_results(bag, Scripted(), truth_topic="/tf")
    rows = "[0, 1, 0, 0], [0, 0, 1, 0]"
    for rest in (
        "[[1, 2], [3, 4]]",
        f"[[1, 0, 0, 0], {rows}, [0, 0, 0, 2]]",
        f"[[-1, 0, 0, 0], {rows}, [0, 0, 0, 1]]",
        f"[[1, 0, 0, 1e300], {rows}, [0, 0, 0, 1]]",
    ):
        (tmp_path / "rest.json").write_text(f'{{"frame": "map", "pose": {rest}}}')
        with pytest.raises(InvalidInput, match="4x4 rigid frame_from_object"):
            frame_results(bag, Scripted(), truth_pose=tmp_path / "rest.json")


def test_a_bag_of_photographs_gives_the_estimators_poses(
    chair_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = load_video(CLIP).frames[:3]
    write_photographs(tmp_path / "photos", frames)
    words = [
        "evaluate",
        "bag",
        str(chair_model),
        str(tmp_path / "photos"),
        "--device",
        "cpu",
        "--search-every",
        "1",
        "--json",
        "-",
    ]
    written = {
        "--results": tmp_path / "out.mcap",
        "--bop": tmp_path / "bop.csv",
        "--plot": tmp_path / "plot.png",
    }
    assert (
        main.main([*words, *(str(word) for pair in written.items() for word in pair)]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    find = Estimator(artifacts.load_model(chair_model), device="cpu")
    assert result["images"] == 3
    assert result["estimated"] >= 2
    for frame, record in zip(frames, result["frames"], strict=True):
        direct = find(read_image(frame.image), frame.camera)
        assert ("score" in record) == bool(direct)
        if direct:
            assert record["score"] == pytest.approx(direct[0].score, abs=1e-4)
            assert np.allclose(
                record["cam_from_canon"], direct[0].cam_from_canon, atol=1e-4
            )
    assert all(path.is_file() for path in written.values())
