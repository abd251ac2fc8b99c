"""Compressed bags are read, and those that unpack to too much are refused before memory or disk
are full.
"""

from __future__ import annotations

import bz2
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")
import lz4.frame
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.reader import zstd

from bag_writer import KINDS, STORE, raw
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import bounded_decompression
from uns_pose_ros.io.bounded_decompression import unpacked
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.ros_messages import decode_image

TOPIC = "/cam/image_raw"

ZSTD = getattr(zstd, "_module", zstd)  # as it was before it was bounded
KINDS_OF_DATA: dict[str, tuple[Callable[[bytes], bytes], Callable[[], Any]]] = {
    "zstd": (ZSTD.compress, ZSTD.ZstdDecompressor),
    "lz4": (lz4.frame.compress, lz4.frame.LZ4FrameDecompressor),
    "bz2": (bz2.compress, bz2.BZ2Decompressor),
}


@pytest.mark.parametrize("kind", KINDS_OF_DATA)
def test_what_fits_is_unpacked_and_what_does_not_is_refused_before_it_is_made(
    kind: str,
) -> None:
    pack, make = KINDS_OF_DATA[kind]
    assert unpacked(make, pack(b"abc" * 1000) + pack(b"de"), 3002) == b"abc" * 1000 + b"de"
    assert unpacked(make, b"", 10) == b""
    with pytest.raises(ValueError, match="unpack to more than 3001"):
        unpacked(make, pack(b"abc" * 1000) + pack(b"de"), 3001)
    with pytest.raises(ValueError, match="cut off"):
        unpacked(make, pack(bytes(range(256)) * 40)[:-8], 100_000)
    bomb = pack(bytes(50_000_000))
    assert len(bomb) < 500_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpack to more than 1000000"):
        unpacked(make, bomb, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def bag(path: Path, plugin: StoragePlugin, mode: CompressionMode) -> list[np.ndarray]:
    """A compressed bag with three pictures."""
    pictures = [np.full((300, 400, 3), 50 * k, np.uint8) for k in range(3)]
    writer = Writer(path, version=8, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(TOPIC, KINDS[TOPIC], typestore=STORE)
        for k, shown in enumerate(pictures):
            writer.write(
                connection, k, STORE.serialize_cdr(raw(float(k), shown), KINDS[TOPIC])
            )
    return pictures


def read(path: Path) -> list[np.ndarray]:
    with rosbag.open_bag(path) as reader:
        return [
            decode_image(message) for message in rosbag.messages(path, reader, TOPIC, 10)
        ]


@pytest.mark.parametrize(
    ("plugin", "mode"),
    [
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
    ],
    ids=["file", "message", "chunks"],
)
def test_a_compressed_bag_is_read_and_one_that_unpacks_to_too_much_is_refused_with_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plugin: StoragePlugin,
    mode: CompressionMode,
) -> None:
    pictures = bag(tmp_path / "bag", plugin, mode)
    assert all(
        np.array_equal(a, b) for a, b in zip(read(tmp_path / "bag"), pictures, strict=True)
    )
    monkeypatch.setattr(bounded_decompression, "MOST", 100_000)
    monkeypatch.setattr(bounded_decompression, "RATIO", 1)
    with pytest.raises(
        InvalidInput,
        match=r"bag: broken, cut off or no rosbag2 recording .*unpacks? to more than",
    ):
        read(tmp_path / "bag")
    monkeypatch.setattr(bounded_decompression, "MOST", 10_000_000)
    monkeypatch.setattr(bounded_decompression, "SPARED", 1 << 60)
    if mode == CompressionMode.FILE:
        with pytest.raises(InvalidInput, match="too little room"):
            read(tmp_path / "bag")


def test_a_bag_of_many_chunks_that_together_unpack_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bag"
    writer = Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    black = np.zeros((600, 900, 3), np.uint8)
    with writer:
        connection = writer.add_connection(TOPIC, KINDS[TOPIC], typestore=STORE)
        data = STORE.serialize_cdr(raw(0.0, black), KINDS[TOPIC])
        for k in range(6):
            writer.write(connection, k, data)
    size = sum(file.stat().st_size for file in folder.iterdir())
    chunk = 2 * len(data)  # that each chunk holds at most
    monkeypatch.setattr(bounded_decompression, "MOST", chunk)
    monkeypatch.setattr(bounded_decompression, "RATIO", -(-8 * len(data) // size))
    assert len(read(folder)) == 6  # each time that it is read counts by itself
    assert len(read(folder)) == 6
    monkeypatch.setattr(bounded_decompression, "RATIO", 4 * len(data) // size)
    with pytest.raises(InvalidInput, match="its parts unpack to more than .* together"):
        read(folder)
