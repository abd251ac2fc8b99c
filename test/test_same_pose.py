"""One image, one pose: from the Estimator called directly, from the command line, and from the node over DDS."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from small_model import CLIP
from uns_pose_ros import storage
from uns_pose_ros.datatypes import Camera, PoseEstimate
from uns_pose_ros.geometry import angle_between
from uns_pose_ros.inference import Estimator
from uns_pose_ros.video import load_video, read_image

if TYPE_CHECKING:
    from ros_robot import Robot


@dataclass(frozen=True)
class Case:
    """A trained model, one of the pictures it was trained on, and what the Estimator says of it."""

    model: Path
    image: Path
    camera: Camera
    cam_from_obj: torch.Tensor  # the truth: the model's frame is the video's
    expected: PoseEstimate


@pytest.fixture(scope="module")
def case(chair_model: Path) -> Case:
    frame = load_video(CLIP).frames[2]
    assert frame.cam_from_obj is not None
    found = Estimator(storage.load_model(chair_model), device="cpu")(read_image(frame.image), frame.camera)
    return Case(chair_model, frame.image, frame.camera, frame.cam_from_obj, found[0])


def test_the_estimator_knows_the_picture_that_it_was_trained_on(case: Case) -> None:
    assert float(angle_between(case.expected.cam_from_canon[:3, :3], case.cam_from_obj[:3, :3])) < 15


def test_the_command_line_gives_the_estimators_pose(case: Case, tmp_path: Path) -> None:
    camera = {"K": case.camera.matrix.flatten().tolist(), "width": case.camera.width, "height": case.camera.height}
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
    code = "import sys; from uns_pose_ros.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    (best, *_) = json.loads(done.stdout)["images"][0]["estimates"]
    assert best["score"] == pytest.approx(case.expected.score, abs=1e-4)
    assert np.allclose(best["cam_from_canon"], case.expected.cam_from_canon, atol=1e-4)


def test_the_node_gives_the_estimators_pose_on_tf_and_as_a_detection(case: Case, robot: Robot) -> None:
    program = ["-m", "uns_pose_ros.nodes.bringup", str(case.model), "--device", "cpu"]
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
    assert np.allclose([shift.x, shift.y, shift.z], case.expected.cam_from_canon[:3, 3], atol=1e-4)
    turn = sent.transform.rotation
    rotation = torch.from_numpy(Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix())
    assert float(angle_between(rotation, case.expected.cam_from_canon[:3, :3])) < 0.05
    assert robot.interrupt(node)[0] == 0
