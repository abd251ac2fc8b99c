"""The parts of `make demo` around its stages, with known answers.

The demo itself is run by `make demo`.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

pytest.importorskip("rclpy")
import live
import run_demo
from live import Answer, LiveCamera
from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.evaluation import metrics, rotation_labels
from uns_pose_ros.io.video_folder import list_videos, load_video

DATA = run_demo.DEMO / "data"


@pytest.fixture
def model() -> CategoryModel:
    """A model whose canonical frame is the labels', turned a quarter about z."""
    quarter = rotation_from_vector(
        torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64)
    )
    frames = {}
    for name, label in labels().items():
        canon_from_obj = torch.eye(4, dtype=torch.float64)
        canon_from_obj[:3, :3] = 0.5 * quarter @ label
        frames[name] = canon_from_obj.tolist()
    unit = torch.nn.functional.normalize(torch.ones(3, 4), dim=1)
    triangle = torch.tensor([[0, 1, 2]])
    return CategoryModel(
        "chair",
        torch.eye(3),
        triangle,
        unit,
        unit[:1],
        {},
        provenance={"canon_from_obj": frames},
    )


def labels() -> dict[str, torch.Tensor]:
    names = [f"clip_{k:02d}" for k in range(1, 11)]
    return rotation_labels.load_labels(DATA / "chair" / "labels.json", names)


def test_the_training_videos_are_copied_once_and_the_unseen_chairs_are_not_among_them(
    tmp_path: Path,
) -> None:
    run_demo.copy_videos(DATA / "chair", tmp_path)
    assert [folder.name for folder in list_videos(tmp_path)] == [
        f"clip_0{k}" for k in range(1, 9)
    ]
    (tmp_path / "clip_01" / "mesh.ply").write_text("made by a stage")
    run_demo.copy_videos(DATA / "chair", tmp_path)
    assert (tmp_path / "clip_01" / "mesh.ply").read_text() == "made by a stage"


def test_answers_are_compared_with_the_truth_in_the_frame_of_the_model(
    model: CategoryModel,
) -> None:
    walks = [load_video(folder) for folder in list_videos(DATA / "live")]
    walk = walks[0]
    live = rotation_labels.load_labels(
        DATA / "live" / "labels.json", ["live_01", "live_02"]
    )["live_01"]
    quarter = rotation_from_vector(
        torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64)
    )
    tenth = rotation_from_vector(
        torch.tensor([math.radians(10), 0.0, 0.0], dtype=torch.float64)
    )
    answers: list[Answer | None] = []
    for k, frame in enumerate(walk.frames):
        assert frame.cam_from_obj is not None
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = (
            frame.cam_from_obj[:3, :3]
            @ live.T
            @ quarter.T
            @ (tenth if k == 1 else torch.eye(3).double())
        )
        answers.append(
            Answer("chair_0", pose, 0.5, torch.ones(3, dtype=torch.float64), 0.25, None)
        )
    answers[2] = None
    results = run_demo.compare(
        model,
        walks,
        {"live_01": answers, "live_02": [None] * len(walks[1].frames)},
        labels(),
    )
    errors = [result.error for result in results]
    assert errors[0] == pytest.approx(0, abs=1e-4)
    assert errors[1] == pytest.approx(10, abs=1e-4)
    assert errors[2] == metrics.MISSING
    assert results[2].estimate is None
    assert results[0].seconds == 0.25
    assert len(results) == 32


class SlowNode(LiveCamera):
    """A camera whose node answers each image after some seconds of a clock of its own."""

    def __init__(self, *delays: float) -> None:
        self._transforms, self._detections, self._overlays = {}, {}, {}
        self._delays = delays
        self._due = list[float]()
        self.sent = list[float]()
        self.now = 0.0

    def _forget(self) -> None:
        """There is nothing to forget."""

    def _publish(self, frame: object) -> int:
        self._due.append(self.now + self._delays[len(self.sent)])
        self.sent.append(self.now)
        return len(self.sent) - 1

    def _spin(self, seconds: float) -> None:
        self.now += seconds
        for stamp, due in enumerate(self._due):
            if self.now < due:
                continue
            self._overlays[stamp] = cast("Any", None)
            if self.now < due + 1:  # the detection comes a second later than the overlay
                continue
            hypothesis = SimpleNamespace(class_id="chair", score=0.5)
            best = SimpleNamespace(id="0", results=[SimpleNamespace(hypothesis=hypothesis)])
            self._detections[stamp] = cast("Any", best)
            self._transforms[stamp] = [(SimpleNamespace(child_frame_id="chair_0"), 0.0)]

    def _answer(self, stamp: int) -> Answer | None:
        return cast("Any", self._is_answered(stamp)) or None


def test_the_camera_sends_the_next_image_when_the_last_is_answered_or_its_patience_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    camera = SlowNode(0.1, 7.0, 1000.0, 0.1)
    monkeypatch.setattr(live.time, "monotonic", lambda: camera.now)
    answers = camera.film([cast("Any", None)] * 4, 2.0)
    assert [answer is not None for answer in answers] == [True, True, False, True]
    gaps = [
        after - before
        for before, after in zip(camera.sent[:-1], camera.sent[1:], strict=True)
    ]
    assert gaps == pytest.approx([2.0, 8.0, live.LONGEST], abs=0.1)
