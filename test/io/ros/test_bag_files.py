"""Recordings that a crash or a rename left behind are read as far as they go."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")
from backports import zstd
from rosbags.rosbag2 import StoragePlugin

from bag_writer import camera_info, raw, write_bag
from uns_pose_ros.core.errors import DiskError, InvalidInput
from uns_pose_ros.io.ros import rosbag

MCAP, SQLITE = StoragePlugin.MCAP, StoragePlugin.SQLITE3
TOPIC, INFO = "/cam/image_raw", "/cam/camera_info"


def write(path: Path, plugin: StoragePlugin, times: range) -> Path:
    """A bag with an image each second; returns its data file."""
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
    wanted = [(TOPIC, float(time), raw(time, images[time])) for time in times]
    write_bag(path, plugin, {TOPIC}, messages=wanted)
    return next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))


def stamps(path: Path) -> list[int]:
    with rosbag.open_bag(path) as reader:
        return [m.header.stamp.sec for m in rosbag.messages(path, reader, TOPIC, 99)]


def cut(file: Path, share: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("as_file", [False, True])
def test_an_mcap_file_that_was_cut_off_is_read_up_to_the_cut_and_not_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, as_file: bool
) -> None:
    file = write(tmp_path / "bag", MCAP, range(10))
    (tmp_path / "bag/metadata.yaml").unlink()
    cut(file, 0.5)
    before = file.read_bytes()
    there = stamps(file if as_file else tmp_path / "bag")
    assert there == list(range(len(there))) and 3 <= len(there) <= 6
    assert "its recording was cut off; read up to byte" in caplog.text
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def chunked(file: Path, compression: bytes) -> bytes:
    """The file's records between header and end, in one chunk."""
    data = file.read_bytes()
    begin = 8 + 9 + struct.unpack_from("<Q", data, 9)[0]
    records, at = b"", begin
    while data[at] not in (0x0F, 0x02):
        after = at + 9 + struct.unpack_from("<Q", data, at + 1)[0]
        if data[at] == 0x06:
            records += data[at + 9 + 40 : after]
        elif data[at] in (3, 4, 5):
            records += data[at:after]
        at = after
    packed = zstd.compress(records) if compression else records
    body = struct.pack("<QQQII", 0, 2**62, len(records), 0, len(compression)) + compression
    body += struct.pack("<Q", len(packed)) + packed
    return data[:begin] + b"\x06" + struct.pack("<Q", len(body)) + body


@pytest.mark.parametrize("compression", [b"", b"zstd"])
def test_a_chunk_that_was_cut_off_gives_its_whole_records(
    tmp_path: Path, compression: bytes
) -> None:
    file = write(tmp_path / "bag", MCAP, range(40))
    (tmp_path / "bag/metadata.yaml").unlink()
    file.write_bytes(chunked(file, compression))
    assert stamps(file) == list(range(40))
    cut(file, 0.6)
    there = stamps(file)
    assert there == list(range(len(there))) and 5 <= len(there) < 40


@pytest.mark.parametrize("plugin", [MCAP, SQLITE])
def test_a_split_bag_without_metadata_is_read_in_the_order_of_time(
    tmp_path: Path, plugin: StoragePlugin
) -> None:
    late, early = (
        write(tmp_path / n, plugin, r) for n, r in (("a", range(3, 6)), ("b", range(3)))
    )
    both = tmp_path / "both"
    both.mkdir()
    for number, file in enumerate((late, early)):
        shutil.copy(file, both / f"bag_{number}{file.suffix}")
    assert stamps(both) == list(range(6))


@pytest.mark.parametrize("plugin", [MCAP, SQLITE])
def test_a_bag_without_storage_identifier_or_with_renamed_files_is_read(
    tmp_path: Path, plugin: StoragePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "bag", plugin, range(3))
    about = tmp_path / "bag/metadata.yaml"
    name = "mcap" if plugin is MCAP else "sqlite3"
    text = about.read_text()
    assert f"storage_identifier: {name}" in text
    about.write_text(text.replace(f"storage_identifier: {name}", "storage_identifier: ''"))
    assert stamps(tmp_path / "bag") == [0, 1, 2]
    about.write_text(text)
    shutil.copy(file, file.with_name(f"other{file.suffix}"))
    assert stamps(tmp_path / "bag") == [0, 1, 2]
    assert f"does not list other{file.suffix}; left out" in caplog.text
    file.unlink()
    assert stamps(tmp_path / "bag") == [0, 1, 2]
    assert f"lists {file.name}, not there" in caplog.text


def test_a_database_with_a_write_ahead_log_is_read_with_it_in_a_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write(tmp_path / "bag", SQLITE, range(3))
    live = sqlite3.connect(whole)
    live.execute("PRAGMA journal_mode=WAL")
    live.execute("UPDATE messages SET timestamp = timestamp + 1")
    live.execute("DELETE FROM messages WHERE id = 3")
    live.commit()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in whole.parent.glob("*.db3*"):
        shutil.copy(file, crashed / file.name)
    live.close()
    names = sorted(file.name for file in crashed.iterdir())
    assert stamps(crashed) == [0, 1]
    assert "read with" in caplog.text
    assert sorted(file.name for file in crashed.iterdir()) == names


def info_bag(path: Path, *focals: float) -> Any:
    wanted = [(INFO, float(k), camera_info(k, focal)) for k, focal in enumerate(focals)]
    for _, _, message in wanted:
        message.p[[0, 5]] = message.k[0]
    write_bag(path, SQLITE, {INFO}, messages=wanted)
    with rosbag.open_bag(path) as reader:
        kinds = rosbag.kinds_of(reader)
        return rosbag.camera_info(path, reader, kinds, TOPIC, None)


def test_uncalibrated_camera_infos_before_the_calibrated_ones_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert info_bag(tmp_path / "late", 0.0, 0.0, 100.0, 100.5).k[0] == 100
    assert "2 uncalibrated messages on /cam/camera_info left out" in caplog.text
    assert info_bag(tmp_path / "never", 0.0, 0.0).k[0] == 0


def test_a_calibration_that_changes_during_a_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"changes during .* \(focal length 100 px, then 150"
    ):
        info_bag(tmp_path / "zoom", 100.0, 150.0)


def two_cameras(path: Path, images: str, frames: tuple[str, str]) -> Any:
    """The camera_info of images in a frame, beside two cameras that share a topic."""
    wanted: list[tuple[str, float, Any]] = []
    for time in range(4):
        info = camera_info(time, 100.0 + 50 * (time % 2))
        info.header.frame_id = frames[time % 2]
        wanted.append((INFO, float(time), info))
    image = raw(0, np.zeros((48, 64, 3), np.uint8))
    image.header.frame_id = images
    write_bag(path, SQLITE, {INFO, TOPIC}, messages=[*wanted, (TOPIC, 9.0, image)])
    with rosbag.open_bag(path) as reader:
        kinds = rosbag.kinds_of(reader)
        return rosbag.camera_info(path, reader, kinds, TOPIC, None)


def test_of_two_cameras_on_one_topic_that_of_the_images_frame_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = ("left", "right")
    assert two_cameras(tmp_path / "a", "left", frames).k[0] == 100
    assert two_cameras(tmp_path / "b", "/right", frames).k[0] == 150
    assert (
        "several cameras, of the frames 'left', 'right'; that of the images, 'right'"
        in (caplog.text)
    )
    with pytest.raises(InvalidInput, match="'left', 'right'; the images are in 'eye'"):
        two_cameras(tmp_path / "c", "eye", frames)


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/cam/image_rect", True),
        ("/cam/image_rect_color/compressed", True),
        ("/rect/image_raw", False),
        ("/cam/rectified", True),
        ("/cam/image_direct", False),
        ("/cam/image_corrected", False),
    ],
)
def test_the_name_of_a_topic_says_whether_its_images_are_rectified(
    topic: str, rectified: bool
) -> None:
    assert rosbag.is_rectified(topic) == rectified


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ENOSPC])
def test_an_error_of_the_disk_while_a_bag_is_read_is_no_broken_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write(tmp_path / "bag", MCAP, range(3))

    def fail(*_: Any) -> list[Path]:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(rosbag, "readable_files", fail)
    with pytest.raises(DiskError, match=f"bag: cannot be read .{os.strerror(code)}"):
        stamps(tmp_path / "bag")


def test_a_topic_that_was_recorded_empty_does_not_stand_beside_a_full_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    image = np.zeros((48, 64, 3), np.uint8)
    topics = {TOPIC, "/cam/depth/image_raw"}
    write_bag(tmp_path / "bag", SQLITE, topics, messages=[(TOPIC, 0.0, raw(0, image))])
    with rosbag.open_bag(tmp_path / "bag") as reader:
        kinds = rosbag.kinds_of(reader)
    assert rosbag.image_topic(tmp_path / "bag", kinds, None) == TOPIC


def test_a_database_without_its_end_gives_the_messages_that_are_left_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "bag", SQLITE, range(40))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 3 // 4])
    there = stamps(tmp_path / "bag")
    assert there == sorted(there) and 20 <= len(there) < 40
    missing = len(data) - len(data) * 3 // 4
    lost = f"{missing} bytes are missing; {len(there)} messages can be read"
    assert f"its recording was cut off, {lost}" in caplog.text
    file.write_bytes(data[:2048])
    with pytest.raises(InvalidInput, match="topics"):
        stamps(file)


def test_a_database_that_is_broken_in_its_midst_gives_the_messages_that_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "bag", SQLITE, range(40))
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 9000] = b"\xa5" * 9000
    file.write_bytes(data)
    there = stamps(tmp_path / "bag")
    assert there == sorted(there) and 30 <= len(there) < 40
    assert f"broken in its midst; {len(there)} messages can be read" in caplog.text
    assert file.read_bytes() == data


def test_a_definition_that_is_no_text_is_refused_by_one_short_line(tmp_path: Path) -> None:
    file = write(tmp_path / "bag", SQLITE, range(8))
    data = file.read_bytes()
    at = data.index(b"std_msgs/Header header\n")
    file.write_bytes((data[:at] + b"\xff" + data[at + 1 :])[:-99])
    with pytest.raises(
        InvalidInput, match="99 bytes are missing, .*Could not dec"
    ) as error:
        stamps(file)
    said = str(error.value).removeprefix(str(file))
    assert len(said) < 300
