"""A recording on a disk that is full or fails keeps every image before it."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from disk_faults import CODES, Failing, watched_disk
from recorded_folders import SOURCE, check, frame_record, picture, record
from uns_pose_ros.capture import recording
from uns_pose_ros.capture.recording import Recording, recover


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
