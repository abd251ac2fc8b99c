"""A session of the recorder without its node: order of images, slow and broken disks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from recordings import INFO, camera
from ros_film import files, pixels
from ros_robot import PATIENCE
from uns_pose_ros.capture.keyframes import KeyframeConfig
from uns_pose_ros.capture.recording import FrameRecord, Recording
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.nodes.diagnostics import NodeDiagnostics
from uns_pose_ros.nodes.recorder import recording_session
from uns_pose_ros.nodes.recorder.recorder_parameters import RecorderParameters
from uns_pose_ros.nodes.recorder.recording_session import RecordingSession


def image_of(scene: int) -> tuple[EncodedImage, FrameRecord]:
    """An image of a scene with its record."""
    return EncodedImage.of_pixels(pixels(scene)), FrameRecord(scene, camera(), INFO, None)


def test_images_that_a_slow_disk_cannot_take_are_dropped_and_the_next_is_tried(
    tmp_path: Path,
) -> None:
    go = threading.Event()
    failures = list[str]()

    class Slow(Recording):
        def add(self, *given: Any) -> str:
            go.wait(PATIENCE)
            return super().add(*given)

    diagnostics = NodeDiagnostics()
    settings = RecorderParameters(queue=2)
    session = RecordingSession(
        Slow.open_or_recover(tmp_path / "clip", {}),
        settings,
        KeyframeConfig(),
        diagnostics,
        failures.append,
    )
    outcomes = [session.take(*image_of(number), lambda: 0.0) for number in range(5)]
    assert outcomes[:2] == [None, None]
    assert outcomes[3:] == [
        recording_session.SLOW,
        recording_session.SLOW,
    ]  # one at most is being written, two wait
    go.set()
    assert session.finish().endswith(f"{outcomes.count(None)} images kept")
    assert len(files(tmp_path / "clip")) == outcomes.count(None)
    assert not failures


def test_after_a_failure_nothing_is_taken_and_the_reason_stays(tmp_path: Path) -> None:
    done = threading.Event()

    class Broken(Recording):
        def add(self, *given: Any) -> str:
            raise OSError(5, "Input/output error")

    diagnostics = NodeDiagnostics()
    session = RecordingSession(
        Broken.open_or_recover(tmp_path / "clip", {}),
        RecorderParameters(),
        KeyframeConfig(),
        diagnostics,
        lambda text: done.set(),
    )
    assert session.take(*image_of(0), lambda: 0.0) is None
    assert done.wait(PATIENCE)
    session.take(*image_of(1), lambda: 0.0)
    with pytest.raises(
        InvalidInput, match="recording stopped: Input/output error; 0 images kept"
    ):
        session.finish()
    assert sum(diagnostics.drops.values()) >= 1
    assert not (tmp_path / "clip").exists()
