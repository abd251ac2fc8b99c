"""frames.yaml is read and written whole, and every fault in it is one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.io.schema.frames_record import (
    FRAMES,
    parse_frames,
    read_frames,
    write_frames,
)

HANDLE = "name: handle, position: [0.4, 0, 0.1]"


def test_frames_are_read_as_they_were_written(tmp_path: Path) -> None:
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    place = torch.tensor([0.4, -0.1, 0.2], dtype=torch.float64)
    toward = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    frames = (
        NamedFrame("handle", place, turn, 0.08),
        NamedFrame("rim", -place, turn.T, follow="rigid", prefer=toward),
    )
    write_frames(frames, tmp_path / FRAMES)
    read = read_frames(tmp_path)
    assert [(f.name, f.width, f.follow) for f in read] == [
        ("handle", 0.08, "surface"),
        ("rim", None, "rigid"),
    ]
    for before, after in zip(frames, read, strict=True):
        torch.testing.assert_close(after.canon_from_frame, before.canon_from_frame)
    assert read[0].prefer is None and read[1].prefer is not None
    assert read[1].prefer.tolist() == [0.0, 0.0, -1.0]
    assert "object diameters" in (tmp_path / FRAMES).read_text()


def test_a_folder_without_the_file_has_no_frames(tmp_path: Path) -> None:
    assert read_frames(tmp_path) == ()
    (tmp_path / FRAMES).write_text("")
    assert read_frames(tmp_path) == ()


@pytest.mark.parametrize(
    ("axes", "x", "z"),
    [
        ("", [1, 0, 0], [0, 0, 1]),
        ("x_axis: [-2, 0, 0]", [-1, 0, 0], [0, 0, 1]),
        ("z_axis: [0, 1, 0]", [1, 0, 0], [0, 1, 0]),
        ("x_axis: [0, 0, 1]", [0, 0, 1], [0, 1, 0]),
        ("x_axis: [0, 1, 0], z_axis: [1, 0, 0]", [0, 1, 0], [1, 0, 0]),
        ("quaternion: [0, 0, 0.7071068, 0.7071068]", [0, 1, 0], [0, 0, 1]),
    ],
)
def test_axes_are_a_quaternion_or_directions(
    axes: str, x: list[float], z: list[float]
) -> None:
    text = f"frames: [{{{HANDLE}{', ' if axes else ''}{axes}}}]"
    [frame] = parse_frames(text.encode(), Path("f"))
    torch.testing.assert_close(frame.rotation[:, 0], torch.tensor(x).double())
    torch.testing.assert_close(frame.rotation[:, 2], torch.tensor(z).double())
    assert float(torch.linalg.det(frame.rotation)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("frames: [{name: handle}]", "frames[0]: Object missing required field `position`"),
        ("frames: 3", "frames: Expected `array`"),
        ("[1, 2]", "Expected `object`"),
        (f"frames: [{{{HANDLE}}}, {{{HANDLE}}}]", "two frames are named handle"),
        (f"frames: [{{{HANDLE}, colour: 3}}]", "unknown field `colour`"),
        ("frames: [{name: a/b, position: [0, 0, 0]}]", "name 'a/b': a letter"),
        ("frames: [{name: '', position: [0, 0, 0]}]", "name '': a letter"),
        ("frames: [{name: on, position: [0, 0, 0]}]", "Expected `str`, got `bool`"),
        ("frames: [{name: a, position: [0, 0]}]", "length >= 3"),
        ("frames: [{name: a, position: [0, .nan, 0]}]", "Expected `float` >="),
        ("frames: [{name: a, position: [0, .inf, 0]}]", "Expected `float` <="),
        ("frames: [{name: a, position: [0, 0, 11]}]", "a: position [0.0, 0.0, 11.0]"),
        (f"frames: [{{{HANDLE}, width: 0}}]", "handle: width 0"),
        (f"frames: [{{{HANDLE}, width: .nan}}]", "handle: width nan"),
        (f"frames: [{{{HANDLE}, follow: skin}}]", "surface or rigid is valid"),
        (f"frames: [{{{HANDLE}, prefer: [0, 0, 0]}}]", "prefer is zero"),
        (f"frames: [{{{HANDLE}, x_axis: [0, 0, 0]}}]", "handle: an axis is zero"),
        (f"frames: [{{{HANDLE}, x_axis: [0, .nan, 0]}}]", "Expected `float` >="),
        (
            f"frames: [{{{HANDLE}, x_axis: [1, 0, 0], z_axis: [1, 0, 1]}}]",
            "handle: x_axis and z_axis are not at right angles",
        ),
        (f"frames: [{{{HANDLE}, quaternion: [0, 0, 0, 0]}}]", "the quaternion is zero"),
        (
            f"frames: [{{{HANDLE}, quaternion: [0, 0, 0, 1], x_axis: [1, 0, 0]}}]",
            "a quaternion and axes",
        ),
        ("frames: &a [*a]", "an alias is not valid, line 1"),
        (
            "frames: []\nframes: []",
            "two entries 'frames' in one place is not valid, line 2",
        ),
        ("frames: [", "line 1"),
        ("frames: !!python/object:os.system {}", "could not determine a constructor"),
        ("[" * 600, "lie too deep"),
        (
            "frames:\n"
            + "\n".join(f"- {{name: a{k}, position: [0, 0, 0]}}" for k in range(33)),
            "length <= 32",
        ),
    ],
)
def test_a_fault_is_one_line_that_names_file_and_fault(text: str, fault: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(fault)) as error:
        parse_frames(text.encode(), Path("mug/frames.yaml"))
    assert str(error.value).startswith("mug/frames.yaml: not a valid list of frames (")
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused() -> None:
    for data in (b"\xff\xfe", b"a: \x01"):
        with pytest.raises(InvalidInput, match="f: not a valid list of frames"):
            parse_frames(data, Path("f"))


def test_a_large_file_or_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / FRAMES).write_text("#" * 70_000)
    with pytest.raises(InvalidInput, match="at most 65536 are read"):
        read_frames(tmp_path)
    (tmp_path / FRAMES).unlink()
    (tmp_path / FRAMES).symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="leaves the folder"):
        read_frames(tmp_path)
