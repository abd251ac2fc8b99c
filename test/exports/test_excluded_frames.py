"""exclude.txt strikes out videos and frames, and a line that names nothing is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.exports.excluded_frames import read_exclusion

FRAMES = {"clip_01": ["000001.jpg", "a/2.png"], "clip_02": ["000001.jpg"]}


def excluded(folder: Path, text: str) -> list[str]:
    (folder / "exclude.txt").write_text(text, encoding="utf-8")
    exclusion = read_exclusion(folder)
    exclusion.check_names(FRAMES)
    return [
        f"{video}/{name}"
        for video, names in FRAMES.items()
        for name in names
        if exclusion.excludes_frame(video, name)
    ]


def test_lines_are_videos_frames_or_patterns_of_them(tmp_path: Path) -> None:
    assert excluded(tmp_path, "") == []
    assert excluded(tmp_path, "\n# all is well\n  \n") == []
    assert excluded(tmp_path, "clip_02") == ["clip_02/000001.jpg"]
    assert excluded(tmp_path, "\ufeffclip_02/  # shaken\r\n") == ["clip_02/000001.jpg"]
    assert excluded(tmp_path, "clip_01/a/2.png") == ["clip_01/a/2.png"]
    assert excluded(tmp_path, "*/000001.jpg") == [
        "clip_01/000001.jpg",
        "clip_02/000001.jpg",
    ]
    assert read_exclusion(tmp_path).excludes_video("clip_01") is False


def test_a_line_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"exclude.txt, line 3: 'clip_1' is no video and no"
    ):
        excluded(tmp_path, "# typo\nclip_01\nclip_1\n")
    with pytest.raises(InvalidInput, match="line 1: '000001.jpg' is no video"):
        excluded(tmp_path, "000001.jpg")
    (tmp_path / "exclude.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="not a text file in UTF-8"):
        read_exclusion(tmp_path)


def test_only_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    assert read_exclusion(tmp_path).lines == ()
    with pytest.raises(InvalidInput, match="list of what is struck out is not there"):
        read_exclusion(tmp_path, tmp_path / "other.txt")


def test_a_pattern_that_takes_minutes_to_compare_is_refused_by_its_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "exclude.txt").write_text("clip_01\n" + "[" * 50_000 + "\n")
    with pytest.raises(
        InvalidInput, match=r"exclude\.txt, line 2: 50000 characters; at most"
    ):
        read_exclusion(tmp_path)
