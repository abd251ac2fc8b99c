"""Depth beside pictures.

What messages and files say, and the metres that it gives to poses found in pictures.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from textured import camera_of
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import depth_images
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.colmap import read_sparse
from uns_pose_ros.io.depth_images import Depth
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.pipeline.poses_and_masks.pose_preparation import ensure_poses
from uns_pose_ros.reconstruction.depth_scale import metres_per_unit
from walks import CONFIG, write_walk

UNIT = 0.25  # m of a unit of the walk


def message(pixels: np.ndarray, encoding: str, big: bool = False, padding: int = 3) -> Any:
    """An Image with rows longer than their pixels."""
    height, width = pixels.shape
    data = np.ascontiguousarray(
        pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    ).view(np.uint8)
    rows = np.pad(data.reshape(height, -1), ((0, 0), (0, padding)), constant_values=7)
    fields = {
        "height": height,
        "width": width,
        "step": rows.shape[1],
        "is_bigendian": int(big),
        "data": rows.ravel(),
    }
    return SimpleNamespace(encoding=encoding, **fields)


def compressed(pixels: np.ndarray, form: str, header: bytes = b"\0" * 12) -> Any:
    file = cv2.imencode(".png", pixels)[1].tobytes()
    return SimpleNamespace(format=form, data=header + file)


@pytest.mark.parametrize("big", [False, True])
def test_millimetres_of_a_message_are_kept_as_they_are(big: bool) -> None:
    pixels = np.arange(0, 60000, 5000, dtype=np.uint16).reshape(3, 4)
    assert (
        depth_images.decode_depth(message(pixels, "16UC1", big)).tolist() == pixels.tolist()
    )
    assert (
        depth_images.decode_depth(compressed(pixels, "16UC1; compressedDepth png")).tolist()
        == pixels.tolist()
    )
    assert (
        depth_images.decode_depth(
            compressed(pixels, "16UC1; compressedDepth", b"")
        ).tolist()
        == pixels.tolist()
    )


@pytest.mark.parametrize("big", [False, True])
def test_metres_become_millimetres_and_what_was_not_measured_zero(big: bool) -> None:
    metres = np.array(
        [[0.5, 1.2344, 65.535], [np.nan, np.inf, -1.0], [0.0, 65.6, 1e30]], np.float32
    )
    assert depth_images.decode_depth(message(metres, "32FC1", big)).tolist() == [
        [500, 1234, 65535],
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_quantised_inverse_depth_is_what_the_codec_of_ros_decodes() -> None:
    a, b = (
        100.0 * 101.0,
        1.0 - 100.0 * 101.0 / 10.0,
    )  # as it chooses them for 100 of precision and at most 10 m
    values = np.array(
        [[round(a / metres + b) for metres in (0.5, 1.0, 9.0)] + [0]], np.uint16
    )
    found = depth_images.decode_depth(
        compressed(values, "32FC1; compressedDepth png", struct.pack("<iff", 0, a, b))
    )
    assert found.tolist()[0] == pytest.approx([500, 1000, 9000, 0], abs=5)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (message(np.zeros((2, 2), np.uint16), "mono16"), "encoding is 'mono16': 16UC1"),
        (
            SimpleNamespace(
                encoding="16UC1", height=9, width=9, step=18, is_bigendian=0, data=b"12"
            ),
            "9 x 9 px .* 2 bytes",
        ),
        (
            compressed(
                np.zeros((2, 2), np.uint16), "16UC1; compressedDepth rvl", b"\0" * 40
            ),
            "RVL is not",
        ),
        (compressed(np.zeros((2, 2), np.uint16), "jpeg"), "format 'jpeg'"),
        (
            compressed(np.zeros((2, 2), np.uint16), "32FC1; compressedDepth png", b""),
            "lacks the header",
        ),
        (
            compressed(np.zeros((2, 2, 3), np.uint8), "16UC1; compressedDepth png"),
            "of kind RGB; a PNG of 16 bits and one channel is valid",
        ),
        (
            SimpleNamespace(
                format="16UC1; compressedDepth png",
                data=b"\0" * 12 + b"\x89PNG\r\n\x1a\nxxxx",
            ),
            "of unknown format; a PNG of 16 bits",
        ),
    ],
)
def test_what_is_no_depth_is_one_line(given: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        depth_images.decode_depth(given)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_cut_off_or_of_another_size_is_named(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65535, (40, 50)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(depth_images.encode_depth(pixels))
    assert depth_images.read_depth(tmp_path / "a.png", (50, 40)).tolist() == pixels.tolist()
    with pytest.raises(
        InvalidInput, match=r"a\.png: the depth is 50 x 40 px, the image 40 x 50 px"
    ):
        depth_images.read_depth(tmp_path / "a.png", (40, 50))
    (tmp_path / "a.png").write_bytes(depth_images.encode_depth(pixels)[:900])
    with pytest.raises(InvalidInput, match=r"a\.png: the depth is broken"):
        depth_images.read_depth(tmp_path / "a.png", (50, 40))
    with pytest.raises(InvalidInput, match=r"b\.png: the depth cannot be read"):
        depth_images.read_depth(tmp_path / "b.png", (50, 40))


def observations(wrong: float, noise: float = 0.003) -> list[tuple[np.ndarray, Depth]]:
    """Points that four pictures see with a unit of 0.37 m; a part of them shows anything else."""
    rng, found = np.random.default_rng(1), []
    for _ in range(4):
        z = rng.uniform(1, 4, 100)
        points = np.column_stack([np.arange(100), np.zeros(100), z])
        metres = 0.37 * z * rng.normal(1, noise, 100)
        metres[rng.uniform(size=100) < wrong] *= 2.5
        metres[rng.uniform(size=100) < wrong / 2] = rng.uniform(0.2, 9)
        found.append((points, np.rint(1000 * metres).astype(np.uint16)[None]))
    return found


def test_the_unit_that_most_observations_agree_on_holds() -> None:
    found = metres_per_unit(observations(0.4))
    assert found.unit_m == pytest.approx(0.37, rel=0.005)
    assert (found.observations, found.frames) == (400, 4) and 160 <= found.agreeing < 300


def test_depth_that_is_missing_or_contradicts_itself_gives_no_metres() -> None:
    seen = observations(0.0)
    assert metres_per_unit([]).unit_m is None
    nothing = metres_per_unit([(points, np.zeros_like(pixels)) for points, pixels in seen])
    assert (nothing.unit_m, nothing.observations) == (None, 0)
    assert (
        metres_per_unit([(points[:5], pixels) for points, pixels in seen]).unit_m is None
    ), "20 points"
    assert metres_per_unit(seen[:2]).unit_m is None, "two pictures"
    assert metres_per_unit(observations(0.0, noise=0.5)).unit_m is None


def floor_depth(cam_from_canon: np.ndarray, mask: np.ndarray) -> Depth:
    """mm to the floor z = 0 (H, W); 0 on the truck and beyond the horizon."""
    camera, canon_from_cam = camera_of(256), np.linalg.inv(cam_from_canon)
    v, u = np.mgrid[: camera.height, : camera.width].astype(float)
    rays = (
        np.stack([u, v, np.ones_like(u)], -1)
        @ np.linalg.inv(camera.matrix.numpy()).T
        @ canon_from_cam[:3, :3].T
    )
    with np.errstate(divide="ignore"):
        z = -canon_from_cam[2, 3] / rays[..., 2]
    return np.rint(np.where((z > 0) & (z < 10) & ~mask, 1000 * UNIT * z, 0)).astype(
        np.uint16
    )


def test_depth_makes_a_video_of_pictures_metric_and_without_it_metres_go(
    tmp_path: Path,
) -> None:
    pytest.importorskip("pycolmap")
    truth = write_walk(tmp_path / "clip", views=9)
    (tmp_path / "clip" / "depth").mkdir()
    for name, pose in truth.items():
        mask = (
            np.array(
                Image.open(
                    io.BytesIO((tmp_path / "clip" / "truth" / f"{name}.png").read_bytes())
                )
            )
            > 0
        )
        depth_images.depth_path(tmp_path / "clip", name).write_bytes(
            depth_images.encode_depth(floor_depth(pose, mask))
        )
    assert ensure_poses(tmp_path / "clip", CONFIG) and not ensure_poses(
        tmp_path / "clip", CONFIG
    )
    assert load_video(tmp_path / "clip", need_masks=False).metric
    metres = read_json(tmp_path / "clip" / "video.json")["poses"]["metres"]
    assert metres["frames"] == 9 and metres["agreeing"] > 0.8 * metres["observations"] > 200
    sparse = read_sparse(tmp_path / "clip" / "sparse")
    ours = torch.stack([image.cam_from_obj for image in sparse.images])
    true = torch.stack([torch.from_numpy(truth[image.name]) for image in sparse.images])
    ways = [-(p[:, :3, :3].mT @ p[:, :3, 3:])[..., 0] for p in (ours, true)]
    first, second = (float((way[-1] - way[0]).norm()) for way in ways)
    assert first == pytest.approx(UNIT * second, rel=0.01), (
        "m from the first camera to the last"
    )
    for path in (tmp_path / "clip" / "depth").iterdir():
        path.unlink()
    assert ensure_poses(tmp_path / "clip", CONFIG)
    assert not load_video(tmp_path / "clip", need_masks=False).metric
    assert "metres" not in read_json(tmp_path / "clip" / "video.json")["poses"]


@pytest.mark.parametrize(("share", "known"), [(0.35, False), (0.45, True)])
def test_two_fifths_of_the_observations_must_agree(share: float, known: bool) -> None:
    """The others are spread over a factor of ten thousand, so that few agree by chance."""
    count = 1000
    found = list[tuple[np.ndarray, np.ndarray]]()
    for _ in range(4):
        ratio = np.geomspace(0.005, 50, count)[np.random.default_rng(0).permutation(count)]
        ratio[: round(share * count)] = 0.37
        z = np.ones(count)
        points = np.column_stack([np.arange(count), np.zeros(count), z])
        found.append((points, np.rint(1000 * ratio * z).astype(np.uint16)[None]))
    metres = metres_per_unit(found)
    assert metres.agreeing == pytest.approx(share * metres.observations, rel=0.03)
    assert metres.frames == 4
    assert metres.unit_m == (pytest.approx(0.37, rel=1e-3) if known else None)
