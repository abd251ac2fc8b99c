"""A recording whose process was killed is a valid video, and recovery makes it whole again."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recorded_folders import SOURCE, check, frame_record, picture, record
from uns_pose_ros.capture import recording
from uns_pose_ros.capture.recording import JOURNAL, Recording, recover
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import colmap
from uns_pose_ros.io.depth_images import depth_path
from uns_pose_ros.io.video_folder import load_video


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


def test_an_image_in_the_journal_that_never_got_its_name_is_recorded_anew(
    tmp_path: Path,
) -> None:
    opened = record(tmp_path / "clip", range(3))
    opened.journal.close()
    (tmp_path / "clip" / "images" / "000003.png").unlink()
    again = record(tmp_path / "clip", range(2, 4))
    again.close()
    check(tmp_path / "clip", range(4))


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
