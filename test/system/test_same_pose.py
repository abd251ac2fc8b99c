"""One image, one pose.

From the Estimator called directly, from the command line, and from the node over DDS.
"""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

pytest.importorskip("rosbags")
from rosbags.typesys import Stores, get_typestore

from bag_writer import write_photographs
from small_model import CLIP
from uns_pose_ros.cli import main
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.types import Camera, PoseEstimate
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from warm_processes import start_warm

if TYPE_CHECKING:
    from ros_robot import Robot

_RESENT = 10.0  # s without an answer


@dataclass(frozen=True)
class Case:
    """A trained model, one of the pictures it was trained on, and what the Estimator says of it."""

    model: Path
    image: Path
    camera: Camera
    cam_from_obj: torch.Tensor  # the truth: the model's frame is the video's
    expected: PoseEstimate


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as the processes that are started do.

    Other numbers of threads add in another order, and in bfloat16 this shows.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def case(one_thread: None, chair_model: Path) -> Case:
    frame = load_video(CLIP).frames[2]
    assert frame.cam_from_obj is not None
    found = Estimator(artifacts.load_model(chair_model), device="cpu")(
        read_image(frame.image), frame.camera
    )
    return Case(chair_model, frame.image, frame.camera, frame.cam_from_obj, found[0])


def test_the_estimator_knows_the_picture_that_it_was_trained_on(case: Case) -> None:
    assert (
        float(
            angle_between(case.expected.cam_from_canon[:3, :3], case.cam_from_obj[:3, :3])
        )
        < 15
    )


def test_the_command_line_gives_the_estimators_pose(case: Case, tmp_path: Path) -> None:
    camera = {
        "K": case.camera.matrix.flatten().tolist(),
        "width": case.camera.width,
        "height": case.camera.height,
    }
    (tmp_path / "K.json").write_text(json.dumps(camera))
    words = [
        "estimate",
        str(case.model),
        str(case.image),
        "--camera",
        str(tmp_path / "K.json"),
        "--device",
        "cpu",
        "--json",
        "-",
    ]
    code = "import sys; from uns_pose_ros.cli.main import main; sys.exit(main())"
    process = start_warm(["-c", code, *words])
    printed, complaints = process.communicate(timeout=500)
    assert process.returncode == 0, complaints
    (best, *_) = json.loads(printed)["images"][0]["estimates"]
    assert best["score"] == pytest.approx(case.expected.score, abs=1e-4)
    assert np.allclose(best["cam_from_canon"], case.expected.cam_from_canon, atol=1e-4)


def test_the_node_gives_the_estimators_pose_on_tf_and_as_a_detection(
    case: Case, robot: Robot
) -> None:
    program = ["-m", "uns_pose_ros.nodes.entry_points", str(case.model), "--device", "cpu"]
    node = robot.start(program=program)
    robot.wait_until_listening()
    robot.photograph(read_image(case.image).numpy(), case.camera, seconds=11, frame="eye")
    (detections,) = robot.results(11)["detections"]
    best = detections.detections[0].results[0]
    assert best.hypothesis.score == pytest.approx(case.expected.score, abs=1e-4)
    covariance = case.expected.covariance
    assert covariance is not None
    assert np.allclose(best.pose.covariance, covariance.flatten(), rtol=0.02, atol=1e-9)
    sent = robot.wait("the transform", lambda: robot.transforms().get((11, "chair_0")))
    assert sent.header.frame_id == "eye"
    shift = sent.transform.translation  # the model knows no size: a diameter is sent as 1 m
    assert np.allclose(
        [shift.x, shift.y, shift.z], case.expected.cam_from_canon[:3, 3], atol=1e-4
    )
    turn = sent.transform.rotation
    rotation = torch.from_numpy(
        Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    )
    assert float(angle_between(rotation, case.expected.cam_from_canon[:3, :3])) < 0.05
    assert robot.interrupt(node)[0] == 0


def messages_of(bag: Path) -> tuple[Any, list[Any]]:
    """The camera_info and the pictures of a bag, from the bytes in it, as ROS messages."""
    from rclpy.serialization import deserialize_message
    from rosbags.highlevel import AnyReader
    from sensor_msgs.msg import CameraInfo, Image

    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        found = [(connection.msgtype, data) for connection, _, data in reader.messages()]
    (info,) = [
        deserialize_message(data, CameraInfo)
        for kind, data in found
        if kind.endswith("CameraInfo")
    ]
    return info, [
        deserialize_message(data, Image) for kind, data in found if kind.endswith("Image")
    ]


def test_a_bag_played_into_the_live_node_gives_the_poses_of_its_evaluation(
    case: Case, robot: Robot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Message by message; a picture that is not answered for long is sent again.

    The node takes a stamp once.
    """
    frames = load_video(CLIP).frames[:8:2]
    write_photographs(tmp_path / "bag", frames)
    words = [
        "evaluate",
        "bag",
        str(case.model),
        str(tmp_path / "bag"),
        "--fuse",
        "--device",
        "cpu",
        "--json",
        "-",
    ]
    assert main.main(words) == 0
    evaluated = {
        record["stamp_ns"]: record
        for record in json.loads(capsys.readouterr().out)["frames"]
    }
    node = robot.start(
        program=[
            "-m",
            "uns_pose_ros.nodes.entry_points",
            str(case.model),
            "--device",
            "cpu",
        ]
    )
    robot.wait_until_listening()
    black, early = (
        np.zeros((frames[0].camera.height, frames[0].camera.width, 3), np.uint8),
        itertools.count(100),
    )

    def received() -> list[Any]:
        robot.photograph(black, frames[0].camera, next(early))
        return robot.received["detections"]

    robot.wait("any answer", received)
    assert robot.reset().success  # the bag's stamps are older
    info, pictures = messages_of(tmp_path / "bag")

    sent: dict[int, float] = {}

    def answered(picture: Any) -> Any:
        # sent again and again, a stamp would stand still, and the node would count each picture
        if time.monotonic() - sent.get(picture.header.stamp.sec, -math.inf) > _RESENT:
            robot.infos.publish(info)
            robot.images.publish(picture)
            sent[picture.header.stamp.sec] = time.monotonic()
        return [
            m
            for m in robot.received["detections"]
            if m.header.stamp == picture.header.stamp
        ]

    compared = 0
    for picture in pictures:
        (answer, *_) = robot.wait(
            f"the answer to {picture.header.stamp}",
            partial(answered, picture),
        )
        record = evaluated[picture.header.stamp.sec * 10**9]
        assert bool(answer.detections) == ("score" in record)
        for best in sorted(answer.detections, key=lambda d: -d.results[0].hypothesis.score)[
            :1
        ]:
            pose, expected = best.results[0].pose.pose, np.array(record["cam_from_canon"])
            assert best.results[0].hypothesis.score == pytest.approx(
                record["score"], abs=1e-3
            )
            assert np.allclose(
                [pose.position.x, pose.position.y, pose.position.z],
                expected[:3, 3],
                atol=1e-2,
            )
            turn = Rotation.from_quat(
                [
                    pose.orientation.x,
                    pose.orientation.y,
                    pose.orientation.z,
                    pose.orientation.w,
                ]
            )
            assert (
                float(
                    angle_between(
                        torch.from_numpy(turn.as_matrix()),
                        torch.from_numpy(expected[:3, :3]),
                    )
                )
                < 0.5
            )
            compared += 1
    assert compared >= 3
    assert robot.interrupt(node)[0] == 0


def test_only_the_worker_of_a_node_keeps_threads_to_compute_with(chair_model: Path) -> None:
    """Compute threads of a second thread would slow the worker down: `run_in_temporary_thread`."""
    code = f"""
import time
from pathlib import Path
import rclpy
from uns_pose_ros.nodes.estimator.estimator_node import EstimatorNode

def threads():
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sum(not name.startswith("dds") for name in names)

rclpy.init(args=["--ros-args", "-p", "models:=[{chair_model}]", "-p", "device:=cpu"])
node = EstimatorNode()
before = threads()
node.start()
end = time.monotonic() + 30
while threads() > before + 1 and time.monotonic() < end:
    time.sleep(0.1)
print(threads() - before)
node.close()
rclpy.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split()[-1:] == ["1"], (
        done.stdout + done.stderr[-500:]
    )  # the worker, which has not computed yet
