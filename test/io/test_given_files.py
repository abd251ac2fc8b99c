"""Names and files from strangers: nothing outside of a folder, nothing that blocks."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import given_files
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.colmap import read_sparse
from uns_pose_ros.io.depth_images import read_depth
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.ply import read_ply


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a\nb",
        "a\0b",
        "\ud800",
        "x" * 300,
    ],
)
def test_a_name_that_leaves_its_folder_or_is_no_name_is_refused(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidInput, match="leaves the folder"):
        given_files.path_inside(tmp_path, name)


@pytest.mark.parametrize("name", ["a/b", "a/", "./a", "."])
def test_a_path_is_no_name_of_an_entry(name: str) -> None:
    assert not given_files.is_entry_name(name) and given_files.is_entry_name("a")


def test_a_link_is_followed_within_the_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "real").write_text("here")
    (tmp_path / "secret").write_text("there")
    for name, target in {
        "inside": folder / "real",
        "outside": tmp_path / "secret",
        "twice": folder / "outside",
        "loop": folder / "loop",
        "folder": tmp_path,
    }.items():
        (folder / name).symlink_to(target)
    assert given_files.path_inside(folder, "inside").read_text() == "here"
    for name in ("outside", "twice", "folder/secret"):
        with pytest.raises(InvalidInput, match="leaves the folder"):
            given_files.path_inside(folder, name)
    link = tmp_path / "link_to_model"
    link.symlink_to(folder)  # the folder itself may be a link
    assert given_files.path_inside(link, "real").read_text() == "here"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


SPECIAL: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "folder": Path.mkdir,
}
READERS: dict[str, Callable[[Path], object]] = {
    "a.json": read_json,
    "a.ply": read_ply,
    "a.png": lambda path: read_depth(path, (4, 4)),
    "a.jpg": read_image,
    "b.png": read_mask,
    "images.txt": lambda path: read_sparse(path.parent),
    "images.bin": lambda path: read_sparse(path.parent),
}


@pytest.mark.timeout(100)
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", SPECIAL)
def test_no_reader_waits_for_a_file_that_is_not_a_regular_one(
    tmp_path: Path, kind: str, name: str
) -> None:
    if name.startswith("images"):
        (tmp_path / "cameras.txt").write_text("1 PINHOLE 4 4 5 5 2 2\n")
    SPECIAL[kind](tmp_path / name)
    with pytest.raises(InvalidInput) as refused:
        READERS[name](tmp_path / name)
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_larger_than_its_bound_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: no disk, but a size
    with pytest.raises(InvalidInput, match="at most 100 are read"):
        given_files.read_given(path, 100)
    path.write_bytes(b"x" * 100)
    assert given_files.read_given(path, 100) == b"x" * 100
