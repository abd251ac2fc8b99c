"""A recorded bag gives the poses of the Estimator for its images, and their accuracy."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("rosbags")
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin

import bag_writer
from bag_writer import (
    camera_info,
    compressed_depth,
    depth_of,
    header,
    make,
    raw,
    raw_depth,
    transform,
    write_bag,
    write_photographs,
)
from small_model import CLIP
from streams import HALF_TURN, estimate, pose
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.stream.expectation import Expectation
from uns_pose_ros.evaluation import bag_figures, bag_transforms, rosbag_export, rosbag_plot
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.bag_figures import (
    FrameResult,
    advise_fit,
    fit_truth_from_canon,
    summarize_bag,
)
from uns_pose_ros.evaluation.rosbag_evaluation import estimate_bag_frames
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video

OBJECT = pose((0.0, 0.0, 20.0), (0.5, 0.1, 0.0))  # map_from_object
IDENTITY = torch.eye(4, dtype=torch.float64)


def map_from_cam(k: int) -> Tensor:
    """The pose of a camera that looks at the object and turns by 4 degrees in each image."""
    away = pose((0.0, 0.0, 4.0 * k), (0.5, 0.1, 0.0)) @ pose(
        (-110.0, 0.0, 0.0), (0.0, -1.2, 0.4)
    )
    return away


def true_pose(k: int) -> Tensor:
    return torch.linalg.inv(map_from_cam(k)) @ OBJECT


def car() -> CategoryModel:
    vertices = torch.tensor(
        [[-0.4, -0.2, -0.1], [0.4, -0.2, -0.1], [0.0, 0.2, -0.1], [0.0, 0.0, 0.1]]
    )
    unit = torch.nn.functional.normalize(torch.ones(4, 8), dim=1)
    return CategoryModel(
        "car",
        vertices,
        torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]),
        unit,
        unit[:1],
        {},
        diameter=0.2,
    )


class Scripted:
    """An estimator that knows the true pose of image k, whose gray value is 10 k.

    It gives a flipped pose in images of `flipped`, and no pose in images of `missed`.
    """

    def __init__(
        self,
        flipped: Sequence[int] = (),
        missed: Sequence[int] = (),
        canon_from_own: Tensor = IDENTITY,
    ) -> None:
        self.models = (car(),)
        self._flipped, self._missed, self._turn = flipped, missed, canon_from_own
        self.depths: dict[int, np.ndarray] = {}  # the depth of each image

    def __call__(
        self,
        image: np.ndarray,
        camera: Camera,
        regions: None = None,
        depth: np.ndarray | None = None,
        expected: Expectation | None = None,
    ) -> list[PoseEstimate]:
        k = int(image[0, 0, 0]) // 10
        if depth is not None:
            self.depths[k] = depth
        if k in self._missed:
            return []
        truth = true_pose(k) @ self._turn
        return [
            estimate(
                truth @ HALF_TURN if k in self._flipped else truth,
                score=0.3 if k in self._flipped else 0.8,
            )
        ]


@pytest.fixture
def bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bag of 20 images, one every 0.1 s, with the pose of the object on TF and on /truth."""
    monkeypatch.setitem(bag_writer.KINDS, "/truth", bag_transforms.POSE)
    messages: list[tuple[str, float, Any]] = [
        ("/cam/camera_info", 100.0, camera_info(100.0))
    ]
    for k in range(20):
        at = 100 + k / 10
        tf = [
            transform(at, "map", "cam_optical", map_from_cam(k).numpy()),
            transform(at, "map", "thing", OBJECT.numpy()),
        ]
        messages.append(("/tf", at, make("tf2_msgs/msg/TFMessage", transforms=tf)))
        parts = transform(at, "map", "", OBJECT.numpy()).transform
        position = make(
            "geometry_msgs/msg/Point",
            x=parts.translation.x,
            y=parts.translation.y,
            z=parts.translation.z,
        )
        placed = make(
            "geometry_msgs/msg/Pose", position=position, orientation=parts.rotation
        )
        messages.append(
            (
                "/truth",
                at,
                make(bag_transforms.POSE, header=header(at, "map"), pose=placed),
            )
        )
        messages.append(
            ("/cam/image_raw", at, raw(at, np.full((48, 64, 3), 10 * k, np.uint8)))
        )
    topics = {"/cam/image_raw", "/cam/camera_info", "/tf", "/truth"}
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, topics, messages=messages)
    return tmp_path / "bag"


def silent(what: str, done: int, total: int) -> None:
    pass


def frame_results(bag: Path, estimator: Scripted, **settings: Any) -> list[FrameResult]:
    # Scripted has the interface of an Estimator
    return estimate_bag_frames(bag, estimator, BagConfig(**settings), silent)  # type: ignore[arg-type]


def figures(bag: Path, estimator: Scripted, **settings: Any) -> dict[str, Any]:
    return summarize_bag(frame_results(bag, estimator, **settings), car(), IDENTITY)


def test_errors_losses_and_jitter_are_counted(bag: Path) -> None:
    result = figures(bag, Scripted(flipped=[3, 10], missed=[6, 7]), truth_frame="thing")
    assert (result["images"], result["estimated"], result["with_truth"]) == (20, 18, 20)
    assert result["acc30"] == pytest.approx(80)  # 2 flipped, 2 missed
    assert result["median_deg"] == pytest.approx(0, abs=1e-4)
    assert result["translation_m"]["max"] == pytest.approx(0, abs=1e-6)
    assert result["auroc"] == 1.0
    tracks = result["tracks"]
    assert (tracks["ids"], tracks["gaps"], tracks["longest_gap_images"]) == (1, 1, 2)
    assert tracks["longest_gap_s"] == pytest.approx(0.3)
    jitter = result["jitter"]
    assert (jitter["against"], jitter["steps"]) == ("truth", 16)
    assert jitter["deg"]["p50"] == pytest.approx(0, abs=1e-4)
    assert jitter["deg"]["max"] == pytest.approx(180, abs=1e-3)


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


def test_fusion_with_the_cameras_known_motion_removes_the_flips(bag: Path) -> None:
    result = figures(
        bag, Scripted(flipped=[3, 10]), truth_frame="thing", fixed_frame="map", fuse=True
    )
    assert result["acc10"] == 100
    assert result["jitter"]["deg"]["max"] < 1


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


def test_without_truth_only_jitter_is_measured_against_the_cameras_motion_or_rest(
    bag: Path,
) -> None:
    result = figures(bag, Scripted(), fixed_frame="map")
    assert result["acc30"] is None
    assert result["with_truth"] == 0
    assert result["jitter"]["against"] == "camera's motion"
    assert result["jitter"]["deg"]["max"] == pytest.approx(0, abs=1e-4)
    result = figures(bag, Scripted())
    assert result["jitter"]["against"].startswith("nothing: the camera or the object moved")
    assert "--fixed-frame" in result["jitter"]["against"]
    assert result["jitter"]["deg"]["p50"] == pytest.approx(4, abs=1e-3)  # the camera's turn


@pytest.mark.parametrize("flips", [(), (3, 10, 11)])
def test_jitter_of_a_camera_at_rest_is_measured_against_rest(
    bag: Path, flips: Sequence[int]
) -> None:
    moving = frame_results(bag, Scripted(flipped=flips))
    shaken = [
        replace(result, estimates=(replace(first.estimates[0], cam_from_canon=still),))
        for result, first, still in zip(moving, moving, _shaken(len(moving)), strict=True)
    ]
    result = summarize_bag(shaken, car(), IDENTITY)["jitter"]
    assert result["against"] == "an object and a camera at rest"


def _shaken(count: int) -> list[Tensor]:
    """Poses that turn by some degrees about a pose at rest, by chance."""
    angles = np.random.default_rng(0).normal(0, 4, count)
    return [
        true_pose(0) @ pose((0.0, float(angle), 0.0), (0.0, 0.0, 0.0)) for angle in angles
    ]


def test_a_constant_turn_between_the_frames_is_said_with_what_mends_it(
    bag: Path,
) -> None:
    turn = pose((10.0, 80.0, -30.0), (0.02, 0.0, 0.01))
    turned = Scripted(flipped=[3, 10], canon_from_own=turn)
    results = frame_results(bag, turned, truth_frame="thing")
    advice = advise_fit(results, car(), IDENTITY)
    assert re.match(r"the frame of the truth is turned by a constant \d+° from the", advice)
    assert "with --fit the median would be 0.0° in place of " in advice
    fitted = fit_truth_from_canon(results, car())
    assert advise_fit(results, car(), fitted) == ""  # --fit was given
    right = frame_results(bag, Scripted(flipped=[3, 10]), truth_frame="thing")
    assert advise_fit(right, car(), IDENTITY) == ""
    assert advise_fit(results[:4], car(), IDENTITY) == ""  # too few images
    assert advise_fit(frame_results(bag, turned), car(), IDENTITY) == ""  # no truth


def test_without_one_turn_for_most_images_no_fit_is_advised(bag: Path) -> None:
    results = frame_results(bag, Scripted(flipped=range(0, 20, 2)), truth_frame="thing")
    mixed = [
        replace(
            result,
            estimates=(
                replace(
                    result.estimates[0],
                    cam_from_canon=result.estimates[0].cam_from_canon
                    @ pose((37.0 * k, 81.0 * k, 0.0), (0.0, 0.0, 0.0)),
                ),
            ),
        )
        for k, result in enumerate(results)
    ]
    assert advise_fit(mixed, car(), IDENTITY) == ""


def test_a_model_with_another_frame_than_the_truth_is_fitted_on_demand(bag: Path) -> None:
    turn = pose((10.0, 80.0, -30.0), (0.02, 0.0, 0.01))
    results = frame_results(
        bag, Scripted(flipped=[3, 10], canon_from_own=turn), truth_frame="thing"
    )
    assert summarize_bag(results, car(), IDENTITY)["acc30"] == 0
    fitted = fit_truth_from_canon(results, car())
    assert torch.allclose(fitted, turn, atol=1e-5)
    assert summarize_bag(results, car(), fitted)["acc10"] == 90


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


@pytest.mark.parametrize("name", ["out.mcap", "out"])
def test_the_results_bag_holds_the_poses_with_the_stamps_of_the_images(
    bag: Path, tmp_path: Path, name: str
) -> None:
    results = frame_results(bag, Scripted(missed=[5]))
    rosbag_export.write_bag(tmp_path / name, results, car())
    with AnyReader(
        [tmp_path / name], default_typestore=rosbag_export.message_types()
    ) as reader:
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
        messages: list[tuple[str, int, Any]] = [
            (c.topic, stamp, reader.deserialize(data, c.msgtype))
            for c, stamp, data in reader.messages()
        ]
    others = (rosbag_export.TOPIC, rosbag_export.MARKERS_TOPIC, rosbag_export.POSES_TOPIC)
    assert counts == {"/tf": 19, **dict.fromkeys(others, 20)}
    sent = {
        stamp: message.transforms[0] for topic, stamp, message in messages if topic == "/tf"
    }
    fourth = sent[100_400 * 10**6]
    assert (fourth.header.frame_id, fourth.child_frame_id) == ("cam_optical", "car_0")
    shift = fourth.transform.translation
    assert [shift.x, shift.y, shift.z] == pytest.approx(true_pose(4)[:3, 3].tolist())
    detections = {
        stamp: message.detections
        for topic, stamp, message in messages
        if topic == rosbag_export.TOPIC
    }
    assert len(detections[100_500 * 10**6]) == 0
    (detection,) = detections[100_400 * 10**6]
    assert (detection.id, detection.results[0].hypothesis.class_id) == ("0", "car")
    shown = {
        stamp: message.markers
        for topic, stamp, message in messages
        if topic == rosbag_export.MARKERS_TOPIC
    }
    assert [marker.action for marker in shown[100_500 * 10**6]] == [3]  # all boxes go
    _, box, label = shown[100_400 * 10**6]
    assert (box.ns, box.id, box.type, label.type) == ("car", 0, 1, 9)
    assert label.text == f"car 0  {detection.results[0].hypothesis.score:.2f}"
    assert (box.pose.position, box.scale) == (
        detection.bbox.center.position,
        detection.bbox.size,
    )
    with pytest.raises(InvalidInput, match="is there already"):
        rosbag_export.write_bag(tmp_path / name, results, car())


def test_viewers_of_mcap_find_the_schemas_of_the_results(bag: Path, tmp_path: Path) -> None:
    rosbag_export.write_bag(tmp_path / "out.mcap", frame_results(bag, Scripted()), car())
    content = (tmp_path / "out.mcap").read_bytes()
    kinds = ["vision_msgs/msg/Detection3DArray", "visualization_msgs/msg/MarkerArray"]
    kinds += ["tf2_msgs/msg/TFMessage", "geometry_msgs/msg/PoseArray"]
    for kind in kinds:  # a name, the encoding of the schema, and what it contains
        name = kind.encode()
        start = content.index(len(name).to_bytes(4, "little") + name)
        encoding = content[start + 4 + len(name) :][:11]
        assert encoding == (7).to_bytes(4, "little") + b"ros2msg"
    assert b"MSG: vision_msgs/ObjectHypothesisWithPose" in content
    assert b"\x03\x00\x00\x00cdr" in content
    assert b"\x04\x00\x00\x00ros2" in content  # the profile


def test_the_bop_file_holds_every_estimate_in_millimeters(
    bag: Path, tmp_path: Path
) -> None:
    rosbag_export.write_bop(tmp_path / "bop.csv", frame_results(bag, Scripted(missed=[5])))
    with (tmp_path / "bop.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 19
    fifth = rows[5]  # the sixth image has no estimate
    assert (fifth["scene_id"], fifth["im_id"], fifth["obj_id"]) == ("1", "6", "1")
    assert [float(x) for x in fifth["t"].split()] == pytest.approx(
        (1000 * true_pose(6)[:3, 3]).tolist(), abs=1e-3
    )
    assert [float(x) for x in fifth["R"].split()] == pytest.approx(
        true_pose(6)[:3, :3].flatten().tolist(), abs=1e-6
    )


def test_the_errors_of_every_image_are_listed_and_drawn(bag: Path, tmp_path: Path) -> None:
    results = frame_results(bag, Scripted(flipped=[3], missed=[5]), truth_frame="thing")
    errors = bag_figures.pose_errors(results, car(), IDENTITY)
    assert [error is not None and error.estimated for error in errors] == [
        k != 5 for k in range(20)
    ]
    listed = rosbag_export.frame_records(results, errors, IDENTITY)
    assert [k for k, record in enumerate(listed) if record.get("error_deg", 0) > 1] == [3]
    assert "error_deg" not in listed[5]
    rosbag_plot.write_bag_plot(tmp_path / "plot.svg", results, errors)
    drawn = (tmp_path / "plot.svg").read_text()
    assert all(
        f"<!-- {label} -->" in drawn
        for label in ("rotation error (°)", "translation error (m)", "time per image (s)")
    )
    assert "no truth" not in drawn
    unknown = frame_results(bag, Scripted())
    rosbag_plot.write_bag_plot(
        tmp_path / "plot.svg",
        unknown,
        bag_figures.pose_errors(unknown, car(), IDENTITY),
    )
    assert "no truth is known" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(
        InvalidInput, match="plot.jpg: a name that ends with .png, .svg, .pdf is valid"
    ):
        rosbag_plot.write_bag_plot(tmp_path / "plot.jpg", results, errors)


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
