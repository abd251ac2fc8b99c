"""`uns-pose import` of sources that hold nothing usable.

One line that names them, exit code 2, no video folder.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from source_files import write_co3d
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput


def noise(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def film(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (64, 48))
    for number in range(count):
        writer.write(noise(number))
    writer.release()
    return path


def text_film(folder: Path) -> Path:
    (folder / "a.mov").write_text("not a film")
    return folder / "a.mov"


def photographs_of_all_sizes(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for number in range(5):
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), noise(number, 64 + number))
    return folder / "photos"


def bag(folder: Path, sizes: list[tuple[int, int]], info: bool = True) -> Path:
    """A bag whose images have these sizes, width and height in px."""
    pytest.importorskip("rosbags")
    from rosbags.rosbag2 import StoragePlugin

    from bag_writer import KINDS, camera_info, raw, write_bag

    messages = [("/cam/camera_info", 1.0, camera_info(1.0))]
    messages += [
        ("/cam/image_raw", 1.0 + k, raw(1.0 + k, noise(k, *size)))
        for k, size in enumerate(sizes)
    ]
    topics = (
        set(KINDS)
        - {"/cam/image_raw/compressed", "/tf", "/tf_static"}
        - (set() if info else {"/cam/camera_info"})
    )
    write_bag(folder / "bag", StoragePlugin.MCAP, topics, messages=messages)
    return folder / "bag"


SPOILED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a film that is none": (text_film, "a.mov: broken, cut off or of unknown format"),
    "a film without images": (
        lambda folder: film(folder / "a.mp4", 0),
        "a.mp4: broken, cut off or of unknown format",
    ),
    "photographs of all sizes": (
        photographs_of_all_sizes,
        "photos: 1 usable images, at least 3 are needed",
    ),
    "a bag whose topic is empty": (
        lambda folder: bag(folder, []),
        "no usable image on /cam/image_raw, it is empty",
    ),
    "a bag of all sizes": (
        lambda folder: bag(folder, [(64, 48), (65, 48), (66, 48), (67, 48)]),
        "bag: 1 usable images, at least 3 are needed",
    ),
    "a bag without camera_info": (
        lambda folder: bag(folder, [(64, 48)] * 4, info=False),
        "no camera_info on '/cam/camera_info'",
    ),
    "a bag with the camera_info of another camera": (
        lambda folder: bag(folder, [(80, 48)] * 4),
        "px, ",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILED.values(), ids=SPOILED)
def test_a_source_with_nothing_usable_is_one_line(
    spoil: Callable[[Path], Path],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "source").mkdir()
    source = spoil(tmp_path / "source")
    assert (
        main.main(["import", str(source), "--into", str(tmp_path / "mug" / "clip_01")])
        == main.BAD_INPUT
    )
    out, err = capsys.readouterr()
    [line] = [line for line in err.splitlines() if "WARNING" not in line]
    assert line.startswith("uns-pose import: ") and str(source) in line and reason in line
    assert not out
    assert not list((tmp_path / "mug").iterdir()) if (tmp_path / "mug").exists() else True


def test_a_camera_of_another_shape_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, camera = film(tmp_path / "a.mp4", 5), tmp_path / "K.json"
    camera.write_text(
        json.dumps({"K": [100, 0, 32, 0, 100, 32, 0, 0, 1], "width": 64, "height": 64})
    )
    words = [
        "import",
        str(source),
        "--into",
        str(tmp_path / "mug" / "clip_01"),
        "--camera",
        str(camera),
    ]
    assert main.main(words) == main.BAD_INPUT
    [line] = capsys.readouterr().err.splitlines()
    assert "have 64 x 48 px, their camera 64 x 64 px" in line
    assert not (tmp_path / "mug" / "clip_01").exists()


@pytest.mark.parametrize(
    "item",
    [
        b"1,",
        b"{},",
        b'{"sequence_name":0},',
        b'{"sequence_name":"' + b"x" * 60 + b'"},',
        b" ",
        b'"' + b"x" * 1000,
    ],
)
def test_annotations_that_unpack_to_many_times_their_size_are_refused_within_seconds(
    tmp_path: Path, item: bytes
) -> None:
    folder, _, _ = write_co3d(tmp_path, "ndc_isotropic")
    path = tmp_path / "truck" / "frame_annotations.jgz"
    block = (item * (2**20 // len(item) + 1))[: 2**20 // len(item) * len(item)]
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(b"["))
        for _ in range(60):
            file.write(packer.compress(block))
        file.write(packer.flush())
    started = time.process_time()
    with pytest.raises(InvalidInput, match="not a gzipped JSON list"):
        import_video(folder, tmp_path / "into", ImportConfig(frames=3))
    assert time.process_time() - started < 5
