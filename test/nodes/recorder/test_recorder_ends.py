"""How recordings end: kills, signals, a full disk; the kept images are a video."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from interrupted_node import STAGES, stop_at
from ros_film import STAMPS, Film, at_least, files, pixels
from ros_robot import PATIENCE
from uns_pose_ros.capture.recording import recover
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video


def test_killed_while_recording_the_folder_is_a_video_and_the_next_recorder_goes_on(
    ros_domain: int, tmp_path: Path
) -> None:
    images = tmp_path / "mug" / "clip_01" / "images"
    for start in range(2):
        # a new one: the last one believes for a while that the killed recorder still runs
        film = Film(ros_domain)
        process = film.record(
            f"category:={tmp_path}/mug", "clip:=clip_01", "record:=true", "format:=png"
        )
        film.wait_until_listening()
        film.calibrate()
        kept = len(list(images.glob("0*.png")))
        for number in range(4):
            film.film(pixels(4 * start + number), next(STAMPS))
        film.wait("images on the disk", partial(at_least, images, kept + 3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        film.close()
    kept = len(list(images.glob("0*.png")))
    assert kept >= 6
    assert recover(tmp_path / "mug") == ["clip_01"]
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False, need_poses=False)
    assert (
        len(video.frames)
        == len(read_json(tmp_path / "mug" / "clip_01" / "video.json")["stamps_ns"])
        == kept
    )
    shown = [pixels(number) for number in range(8)]
    for frame in video.frames:
        assert any(np.array_equal(read_image(frame.image), image) for image in shown)


def test_ctrl_c_while_recording_finishes_the_folder(own: Film, tmp_path: Path) -> None:
    process = own.record(f"category:={tmp_path}/mug", "record:=true", "fixed_frame:=odom")
    own.wait_until_listening()
    own.wait_until_following()
    own.orbit([0.0, 20.0, 40.0, 60.0])
    own.wait(
        "images on the disk",
        partial(at_least, tmp_path / "mug" / "clip_01" / "images", 3),
    )
    code, log = own.interrupt(process)
    assert code == 0, log
    assert "Traceback" not in log
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False)
    assert len(video.frames) == len(files(tmp_path / "mug" / "clip_01"))
    assert sorted(path.name for path in (tmp_path / "mug" / "clip_01").iterdir()) == [
        "images",
        "sparse",
        "video.json",
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_at_any_moment_ends_clean(own: Film, tmp_path: Path, stage: str) -> None:
    process = own.record(
        f"category:={tmp_path}/mug",
        "record:=true",
        program=("-c", stop_at("recorder", stage)),
    )
    own.wait_for_line(process, stage)
    code, log = own.interrupt(process)
    assert code == 0, log
    assert "Traceback" not in log
    assert not list(tmp_path.rglob("video.json"))


def test_sigterm_while_recording_finishes_the_folder(own: Film, tmp_path: Path) -> None:
    process = own.record(f"category:={tmp_path}/mug", "record:=true")
    own.wait_until_listening()
    own.calibrate()
    for number in range(3):
        own.film(pixels(number), next(STAMPS))
    own.wait(
        "images on the disk",
        partial(at_least, tmp_path / "mug" / "clip_01" / "images", 3),
    )
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, log
    assert sorted(path.name for path in (tmp_path / "mug" / "clip_01").iterdir()) == [
        "images",
        "video.json",
    ]
    assert read_json(tmp_path / "mug" / "clip_01" / "video.json")["frames"] == 3


FULL = """
import errno, sys
from uns_pose_ros.capture import recording
from uns_pose_ros.nodes.recorder import recorder_node
class Full(recording.Recording):
    def add(self, *given):
        if len(self) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().add(*given)
recorder_node.Recording = Full
sys.exit(recorder_node.run_recorder(sys.argv))
"""


def test_a_full_disk_ends_the_recording_with_one_error_and_everything_before_kept(
    own: Film, tmp_path: Path
) -> None:
    process = own.record(
        f"category:={tmp_path}/mug", "record:=true", "format:=png", program=("-c", FULL)
    )
    own.wait_until_listening()
    own.calibrate()
    for number in range(6):
        own.film(pixels(number), next(STAMPS))
    own.wait("the end", lambda: own.counts().get("recording") == "no")
    folder = tmp_path / "mug" / "clip_01"
    assert (
        f"recording stopped: No space left on device; 3 images kept in {folder}"
        in own.statuses[-1].message
    )
    assert own.statuses[-1].level == b"\x02"
    video = load_video(folder, need_masks=False, need_poses=False)
    assert [
        np.array_equal(read_image(f.image), pixels(k)) for k, f in enumerate(video.frames)
    ] == [True] * 3
    assert sorted(path.name for path in folder.iterdir()) == ["images", "video.json"]
    assert own.stop().message == "not recording"
    code, log = own.interrupt(process)
    assert code == 0
    assert log.count("No space left") == 1
