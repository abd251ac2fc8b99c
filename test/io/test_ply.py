"""A PLY file is laid out as its header says, and a damaged one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from small_artifacts import TETRAHEDRON, a_mesh
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.ply import read_ply, write_ply


def test_a_ply_file_is_laid_out_as_its_header_says(tmp_path: Path) -> None:
    write_ply(
        tmp_path / "a.ply",
        torch.tensor([[1.0, 2, 3], [0, 0, 0], [4, 5, 6]]),
        torch.tensor([[2, 1, 0]]),
    )
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    assert b"element vertex 3" in header and b"element face 1" in header
    assert (
        body[:12].hex() == "0000803f0000004000004040"
        and body[-13:].hex() == "03020000000100000000000000"
    )


@pytest.mark.parametrize("damage", ["cut", "text", "count", "corner"])
def test_a_damaged_ply_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.ply"
    write_ply(path, a_mesh().vertices, TETRAHEDRON)
    data = path.read_bytes()
    changed = {
        "cut": data[:-1],
        "text": b"ply\nformat ascii 1.0\nend_header\n",
        "count": data.replace(b"vertex 4", b"vertex 999999999999"),
        "corner": data[:-4] + b"\x04\0\0\0",
    }
    path.write_bytes(changed[damage])
    with pytest.raises(InvalidInput, match="a.ply"):
        read_ply(path)
