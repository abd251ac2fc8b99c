"""Small COLMAP models."""

import struct
from pathlib import Path

import torch

NO_POINTS = torch.zeros(0, 3, dtype=torch.float64)


def write_binary(folder: Path) -> Path:
    """Two cameras, two images, one with 2D points, two points with tracks, by COLMAP's description
    of its files.
    """
    folder.mkdir(parents=True)
    cameras = struct.pack("<QiiQQ4d", 2, 1, 1, 640, 480, 500, 510, 320, 240)
    cameras += struct.pack(
        "<iiQQ8d", 7, 4, 320, 240, 250, 251, 160, 120, 0.1, -0.2, 0.003, 0.004
    )
    (folder / "cameras.bin").write_bytes(cameras)
    images = (
        struct.pack("<Qi7di", 2, 1, 0, 0, 1, 0, 1, 2, 3, 7)
        + b"b c.jpg\0"
        + struct.pack("<Q2dq2dq", 2, 1, 2, 5, 3, 4, -1)
    )
    images += (
        struct.pack("<i7di", 2, 1, 0, 0, 0, 4, 5, 6, 1) + b"a.jpg\0" + struct.pack("<Q", 0)
    )
    (folder / "images.bin").write_bytes(images)
    points = struct.pack("<QQ3d3BdQ2i2i", 2, 5, 0.5, 1, 2, 1, 2, 3, 0.1, 2, 1, 0, 2, 0)
    points += struct.pack("<Q3d3BdQ", 6, -1, -2, -3, 0, 0, 0, 0.2, 0)
    (folder / "points3D.bin").write_bytes(points)
    return folder
