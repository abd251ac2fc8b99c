"""Recorded video folders: what is in them, going on with one, kills and full disks."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from camera_ring import view
from disk_faults import CODES, Failing, watched_disk
from recordings import INFO, camera
from uns_pose_ros.capture import recording
from uns_pose_ros.capture.recording import (
    JOURNAL,
    FrameRecord,
    Recording,
    next_clip,
    recover,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import colmap
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.depth_images import depth_path
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video

SOURCE = {"image": "/camera/image_raw"}


def picture(number: int) -> bytes:
    """A PNG file of 64 x 48 px, different for every number."""
    pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def frame_record(number: int, posed: bool = True, focal: float = 60.0) -> FrameRecord:
    pose = torch.from_numpy(view(10.0 * number)) if posed else None
    return FrameRecord(1_700_000_000_123_456_789 + number, camera(focal), INFO, pose)


def record(folder: Path, numbers: range, frame: str = "odom", **options: Any) -> Recording:
    """An open recording with so many images added to it."""
    opened = Recording.open_or_recover(folder, SOURCE, frame, **options)
    for number in numbers:
        opened.add(picture(number), ".png", frame_record(number, posed=bool(frame)))
    return opened


def check(folder: Path, numbers: range) -> None:
    """The folder is a whole video of these images, each with its own pixels, pose and stamp."""
    video = load_video(folder, need_masks=False)
    assert [frame.name for frame in video.frames] == [
        f"{k:06d}.png" for k in range(1, len(numbers) + 1)
    ]
    assert video.metric
    stamps = read_json(folder / "video.json")["stamps_ns"]
    for frame, number in zip(video.frames, numbers, strict=True):
        assert frame.image.read_bytes() == picture(number)
        assert frame.cam_from_obj is not None
        assert np.allclose(frame.cam_from_obj.numpy(), view(10.0 * number), atol=1e-9)
        assert torch.allclose(frame.camera.matrix, camera().matrix)
        assert torch.allclose(frame.camera.distortion, camera().distortion)
        assert stamps[frame.name] == 1_700_000_000_123_456_789 + number
    assert sorted(path.name for path in folder.iterdir()) == [
        "images",
        "sparse",
        "video.json",
    ]


def test_a_recorded_folder_is_a_video_with_poses_stamps_and_cameras(tmp_path: Path) -> None:
    record(tmp_path / "clip", range(4)).close()
    check(tmp_path / "clip", range(4))
    said = read_json(tmp_path / "clip" / "video.json")
    assert (said["metric"], said["fixed_frame"], said["topics"], said["frames"]) == (
        True,
        "odom",
        SOURCE,
        4,
    )
    assert said["stamps"]["000001.png"] == pytest.approx(1_700_000_000.123456789, abs=1e-6)
    assert [entry["camera_info"] for entry in said["cameras"]] == [INFO]
    assert said["camera"]["K"] == camera().matrix.flatten().tolist()


def test_without_poses_there_is_no_sparse_model_and_no_metre(tmp_path: Path) -> None:
    record(tmp_path / "clip", range(4), frame="").close()
    video = load_video(tmp_path / "clip", need_masks=False, need_poses=False)
    assert (len(video.frames), video.metric) == (4, False)
    assert not (tmp_path / "clip" / "sparse").exists()
    assert torch.equal(read_image(video.frames[2].image), torch.from_numpy(_pixels(2)))


def _pixels(number: int) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(picture(number))))


def test_going_on_with_a_recording_numbers_on_and_keeps_what_was_there(
    tmp_path: Path,
) -> None:
    record(tmp_path / "clip", range(3)).close()
    record(tmp_path / "clip", range(3, 5)).close()
    record(tmp_path / "clip", range(5, 5)).close()
    check(tmp_path / "clip", range(5))


def test_a_camera_that_changes_while_recording_is_kept_for_its_images(
    tmp_path: Path,
) -> None:
    opened = record(tmp_path / "clip", range(2))
    opened.add(picture(2), ".png", frame_record(2, focal=80.0))
    opened.add(picture(3), ".png", frame_record(3, focal=80.0))
    opened.close()
    record(tmp_path / "clip", range(4, 5)).close()
    video = load_video(tmp_path / "clip", need_masks=False)
    assert [float(frame.camera.matrix[0, 0]) for frame in video.frames] == [
        60,
        60,
        80,
        80,
        60,
    ]
    said = read_json(tmp_path / "clip" / "video.json")
    assert [entry["first"] for entry in said["cameras"]] == [
        "000001.png",
        "000003.png",
        "000005.png",
    ]
    assert "camera" not in said


def test_an_uncalibrated_camera_is_recorded_with_what_it_said(tmp_path: Path) -> None:
    opened = Recording.open_or_recover(tmp_path / "clip", SOURCE)
    for number in range(3):
        opened.add(picture(number), ".png", FrameRecord(number, None, INFO))
    opened.close()
    assert (
        len(load_video(tmp_path / "clip", need_masks=False, need_poses=False).frames) == 3
    )
    said = read_json(tmp_path / "clip" / "video.json")
    assert (said["cameras"][0]["K"], said["cameras"][0]["camera_info"]) == (None, INFO)
    assert [
        again.camera
        for again in Recording.open_or_recover(tmp_path / "clip", SOURCE).frames.values()
    ] == [None] * 3


def test_the_last_images_are_listed_also_when_no_more_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = record(tmp_path / "clip", range(3))
    assert read_json(tmp_path / "clip" / "video.json")["frames"] == 0
    opened.settle()  # too soon
    assert read_json(tmp_path / "clip" / "video.json")["frames"] == 0
    monkeypatch.setattr(opened, "_pause", 0.0)
    opened.settle()
    assert read_json(tmp_path / "clip" / "video.json")["frames"] == 3
    assert len(load_video(tmp_path / "clip", need_masks=False).frames) == 3
    before = (tmp_path / "clip" / "video.json").stat().st_mtime_ns
    opened.settle()  # nothing new
    assert (tmp_path / "clip" / "video.json").stat().st_mtime_ns == before
    opened.close()


def test_a_recording_without_an_image_leaves_nothing(tmp_path: Path) -> None:
    Recording.open_or_recover(tmp_path / "mug" / "clip", SOURCE).close()
    assert not (tmp_path / "mug" / "clip").exists()


def test_a_folder_that_no_recorder_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000001.jpg").write_bytes(b"an image")
    with pytest.raises(InvalidInput, match="no recorder made"):
        Recording.open_or_recover(tmp_path, SOURCE)
    (tmp_path / "video.json").write_text('{"metric": true}')
    with pytest.raises(InvalidInput, match="no recorder made"):
        Recording.open_or_recover(tmp_path, SOURCE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "video.json"]


@pytest.mark.parametrize(("before", "after"), [("odom", "map"), ("odom", ""), ("", "odom")])
def test_poses_of_another_frame_are_not_mixed_in(
    tmp_path: Path, before: str, after: str
) -> None:
    record(tmp_path / "clip", range(3), frame=before).close()
    with pytest.raises(InvalidInput, match="choose another folder"):
        Recording.open_or_recover(tmp_path / "clip", SOURCE, after)


def test_a_second_recorder_of_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = record(tmp_path / "clip", range(3))
    with pytest.raises(InvalidInput, match=r"clip: `\S+` \(process \d+\) is at work here"):
        Recording.open_or_recover(tmp_path / "clip", SOURCE, "odom")
    assert recover(tmp_path) == []
    first.close()
    check(tmp_path / "clip", range(3))


def test_a_record_that_somebody_broke_is_refused_in_one_line(tmp_path: Path) -> None:
    record(tmp_path / "clip", range(3)).close()
    path = tmp_path / "clip" / "video.json"
    said = read_json(path)
    broken: dict[str, Any]
    for broken in (
        {"cameras": None},
        {"cameras": []},
        {"stamps_ns": 3},
        {"stamps_ns": {"000001.png": "now"}},
    ):
        path.write_text(json.dumps({**said, **broken}))
        with pytest.raises(InvalidInput, match="not a valid recording"):
            Recording.open_or_recover(tmp_path / "clip", SOURCE, "odom")


def test_depth_is_there_before_its_image_and_goes_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = tmp_path / "clip", ("000001.png", "000002.png")
    opened = Recording.open_or_recover(folder, SOURCE, "odom")
    for number in (0, 1):
        opened.add(picture(number), ".png", frame_record(number), b"depth %d" % number)
    # without close(): as if killed, just before the next image had its name
    opened.journal.close()
    depth_path(folder, "000003.png").write_bytes(b"depth 2")
    (folder / "depth" / ".000004.png.png.77.tmp").write_bytes(b"half of it")
    opened = Recording.open_or_recover(folder, SOURCE, "odom")
    assert [depth_path(folder, name).read_bytes() for name in names] == [
        b"depth 0",
        b"depth 1",
    ]
    assert len(list((folder / "depth").iterdir())) == 2

    def full(temporary: Path, data: bytes) -> None:
        temporary.write_bytes(data)
        if not data.startswith(b"depth"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(recording, "_write_durably", full)
        with pytest.raises(OSError, match="No space left"):
            opened.add(picture(2), ".png", frame_record(2), b"depth 2")
    assert len(list((folder / "depth").iterdir())) == 2
    opened.add(picture(2), ".png", frame_record(2), b"depth 2")
    opened.close()
    assert depth_path(folder, "000003.png").read_bytes() == b"depth 2"


def test_clips_are_numbered_on(tmp_path: Path) -> None:
    assert next_clip(tmp_path / "mug").name == "clip_01"
    (tmp_path / "mug" / "clip_01").mkdir(parents=True)
    (tmp_path / "mug" / "clip_03").mkdir()
    assert next_clip(tmp_path / "mug").name == "clip_02"


def test_what_a_process_left_that_was_killed_is_a_valid_video_and_whole_again_after_recovery(
    tmp_path: Path,
) -> None:
    opened = record(tmp_path / "mug" / "clip_01", range(4))
    opened.save()
    for number in range(4, 7):
        opened.add(picture(number), ".png", frame_record(number))
    folder = (
        Path(shutil.copytree(tmp_path / "mug", tmp_path / "cup")) / "clip_01"
    )  # as it is on disk now
    (folder / "images" / ".000008.png.77.tmp").write_bytes(b"half a pic")
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(b'{"name": "000008.png", "stamp": 17000')
    assert len(load_video(folder, need_masks=False).frames) == 4
    assert recover(tmp_path / "cup") == ["clip_01"]
    check(folder, range(7))
    opened.close()


def test_after_a_torn_line_of_the_journal_recording_goes_on(tmp_path: Path) -> None:
    opened = record(tmp_path / "clip", range(3))
    opened.journal.close()  # without close(): as if killed
    with (tmp_path / "clip" / JOURNAL).open("ab") as journal:
        journal.write(b'{"name": "0000')
    again = record(tmp_path / "clip", range(3, 5))
    again.journal.close()
    record(tmp_path / "clip", range(5, 6)).close()
    check(tmp_path / "clip", range(6))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 3},
        {"name": ["a"]},
        {"name": "../../x.png"},
        {"name": "/etc/passwd"},
        {"stamp": "now"},
        {"stamp": 1e300},
        {"stamp": True},
        {"stamp": -1},
        {"camera": None},
        {"camera": {"K": "a camera", "D": []}},
        {"camera": {"K": [1.0] * 8, "D": []}},
        {"camera": {"K": [1.0] * 9, "D": [], "width": "64", "height": 48}},
        {"camera": {"K": [1.0] * 9, "D": []}},
        {"camera": {"K": [0.0] * 9, "D": [], "width": 64, "height": 48}},
        {"camera": {"K": None, "D": [], "camera_info": 3}},
        {"cam_from_obj": "here"},
        {"cam_from_obj": [[0.0] * 4] * 4},
        {"cam_from_obj": [[1.0, 0, 0, 0]] * 3},
    ],
)
def test_a_line_of_the_journal_with_wrong_types_is_left_out_with_one_warning(
    tmp_path: Path, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    opened = record(tmp_path / "mug" / "clip", range(3))
    opened.journal.close()  # without close(): as if killed
    journal = tmp_path / "mug" / "clip" / JOURNAL
    lines = journal.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **wrong})
    journal.write_text("\n".join([*lines, "3", "[]", ""]))
    (tmp_path / "mug" / "clip" / "video.json").unlink()
    again = Recording.open_or_recover(tmp_path / "mug" / "clip", SOURCE, "odom")
    again.close()
    assert sorted(again.frames) == ["000001.png", "000003.png"]
    (warning,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert warning.startswith("3 lines left out, the first: ") and "\n" not in warning
    assert recover(tmp_path / "mug") == []


@pytest.mark.timeout(100)
@pytest.mark.parametrize("kind", ["fifo", "device", "outside"])
def test_a_journal_that_is_no_file_of_the_folder_is_refused(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "clip" / "images").mkdir(parents=True)
    journal, other = tmp_path / "clip" / JOURNAL, tmp_path / "profile"
    other.write_text("mine")
    if kind == "fifo":
        os.mkfifo(journal)
    else:
        journal.symlink_to("/dev/zero" if kind == "device" else other)
    with pytest.raises(InvalidInput, match="not a regular file|leaves the folder"):
        Recording.open_or_recover(tmp_path / "clip", SOURCE, "odom")
    assert other.read_text() == "mine"


def test_a_camera_info_whose_numbers_are_not_finite_is_recorded_with_null(
    tmp_path: Path,
) -> None:
    opened = record(tmp_path / "clip", range(2))
    info = {**INFO, "p": [float("nan")] * 12}
    opened.add(picture(2), ".png", FrameRecord(9**19, camera(60.0), info, None))
    opened.close()
    cameras = read_json(tmp_path / "clip" / "video.json")["cameras"]
    assert cameras[-1]["camera_info"]["p"] == [None] * 12


def test_an_image_in_the_journal_that_never_got_its_name_is_recorded_anew(
    tmp_path: Path,
) -> None:
    opened = record(tmp_path / "clip", range(3))
    opened.journal.close()
    (tmp_path / "clip" / "images" / "000003.png").unlink()
    again = record(tmp_path / "clip", range(2, 4))
    again.close()
    check(tmp_path / "clip", range(4))


def test_a_full_disk_leaves_every_image_before_it_and_room_is_used_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = record(tmp_path / "clip", range(4))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                opened.add(picture(9), ".png", frame_record(9))
        assert len(opened) == 4
        assert len(list((tmp_path / "clip" / "images").iterdir())) == 4
    opened.add(picture(4), ".png", frame_record(4))
    opened.close()
    check(tmp_path / "clip", range(5))


def test_a_disk_so_full_that_the_end_cannot_be_written_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = record(tmp_path / "clip", range(4))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(recording, "write_json", full)
        with pytest.raises(OSError, match="No space left"):
            opened.close()
    assert recover(tmp_path) == ["clip"]
    check(tmp_path / "clip", range(4))


def test_some_room_on_the_disk_is_left_free(tmp_path: Path) -> None:
    opened = record(tmp_path / "clip", range(0), keep_free=1e9)
    with pytest.raises(OSError, match=r"MB would stay free, keep_free is 1000000000 MB"):
        opened.add(picture(0), ".png", frame_record(0))
    opened.close()
    assert not (tmp_path / "clip").exists()


def _record_on(folder: Path, count: int) -> None:
    """Record images from number `count` on until killed."""
    # a fork must not clean up the ROS nodes that other tests left: their threads are not here
    gc.disable()
    # many chances to be killed while video.json and sparse/ are written
    recording._MIN_PAUSE = 0.0
    recording._MAX_SHARE = 1.0
    opened = Recording.open_or_recover(folder, SOURCE, "odom")
    if len(opened) != count:
        os._exit(7)
    for number in itertools.count(count):
        opened.add(picture(number), ".png", frame_record(number))


def test_killed_at_random_moments_nothing_kept_is_lost_or_broken(tmp_path: Path) -> None:
    folder, rng, known = tmp_path / "mug" / "clip_01", np.random.default_rng(0), 3
    record(folder, range(known)).close()
    for _ in range(20):
        process = multiprocessing.get_context("fork").Process(
            target=_record_on, args=(folder, known), daemon=True
        )
        process.start()
        while (
            process.is_alive() and len(list((folder / "images").glob("0*.png"))) < known + 3
        ):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        known = len(list((folder / "images").glob("0*.png")))
        video = load_video(
            folder, need_masks=False
        )  # whatever the moment, without any repair
        assert (
            known >= len(video.frames) == len(colmap.read_sparse(folder / "sparse").images)
        )
    assert recover(tmp_path / "mug") == ["clip_01"]
    check(folder, range(known))


def test_wherever_the_disk_fails_what_was_kept_stays_and_the_next_start_goes_on(
    tmp_path: Path,
) -> None:
    def film(folder: Path) -> list[int]:
        """Record four images; the numbers of those that were kept."""
        kept = []
        opened = Recording.open_or_recover(folder, SOURCE, "odom")
        try:
            for number in range(4):
                opened.add(picture(number), ".png", frame_record(number))
                kept.append(number)
        finally:
            try:
                opened.close()
            finally:
                film.kept = kept  # type: ignore[attr-defined]
        return kept

    with watched_disk(tmp_path, lambda *_: None) as disk:
        film(tmp_path / "whole")
    changes = disk.count
    assert changes > 40
    for change in range(1, changes + 1, 3):
        folder, code = tmp_path / f"clip_{change}", CODES[change % len(CODES)]
        film.kept = []  # type: ignore[attr-defined]
        with watched_disk(folder, Failing(change, code)), contextlib.suppress(OSError):
            film(folder)
        kept = film.kept  # type: ignore[attr-defined]
        again = Recording.open_or_recover(folder, SOURCE, "odom")
        stamps = [frame.stamp - frame_record(0).stamp for frame in again.frames.values()]
        again.close()
        assert stamps[: len(kept)] == kept, f"change {change}"
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
