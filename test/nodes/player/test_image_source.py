"""What the camera player reads of films, folders and bags."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rosbags.rosbag2 import StoragePlugin

from bag_writer import CAMERA, raw, write_bag
from source_files import checks, save_photograph, write_film
from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.camera_json import camera_record
from uns_pose_ros.nodes.player.image_source import ImageSource, PlayedImage

KNOWN = Camera(torch.tensor([[80.0, 0, 30], [0, 80, 20], [0, 0, 1]]).double(), 64, 48)


def played(path: Path, **options: object) -> list[PlayedImage]:
    return list(ImageSource(path, **options).images())  # type: ignore[arg-type]


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        save_photograph(folder / name, checks(number))


def test_a_film_is_played_at_the_times_of_its_images(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", [checks(10 * k) for k in range(6)])
    images = played(film)
    assert [round(image.seconds * 30) for image in images] == list(range(6))
    assert [image.pixels.shape for image in images] == [(48, 64, 3)] * 6
    red = [float(image.pixels[..., 0].mean()) for image in images]
    assert np.allclose(red, [50 * k for k in range(6)], atol=12)  # RGB, in order
    assert {image.camera_from for image in images} == {"assumed"}
    expected = assumed_camera(64, 48).matrix
    assert torch.equal(images[0].camera.matrix, expected)


def test_a_rate_replaces_the_times(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", [checks(k) for k in range(3)])
    assert [image.seconds for image in played(film, rate=2.0)] == [0.0, 0.5, 1.0]


def test_images_of_a_folder_come_upright_in_natural_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "some", ["10.jpg", "9.jpg"])
    save_photograph(tmp_path / "some" / "1.jpg", checks(3), orientation=6, focal_35=36)
    (tmp_path / "some" / "notes.txt").write_text("no image")
    with caplog.at_level(logging.WARNING):
        images = played(tmp_path / "some")
    assert "left out" in caplog.text and "notes.txt" in caplog.text
    assert [image.pixels.shape for image in images] == [(64, 48, 3)] + [(48, 64, 3)] * 2
    assert images[1].pixels[..., 0].mean() < images[2].pixels[..., 0].mean() + 10
    assert [image.seconds for image in images] == [0.0, 0.2, 0.4]
    assert [image.camera_from for image in images] == ["exif", "assumed", "assumed"]
    assert float(images[0].camera.matrix[0, 0]) == pytest.approx(64, abs=5)


def test_a_video_folder_brings_its_camera(tmp_path: Path) -> None:
    folder = tmp_path / "clip_01"
    write_images(folder / "images", ["000001.jpg", "000002.jpg"])
    record = {"camera": {**camera_record(KNOWN), "from": "given"}}
    artifacts.write_json(folder / "video.json", record)
    images = played(folder)
    assert [image.camera_from for image in images] == ["video"] * 2
    assert torch.equal(images[0].camera.matrix, KNOWN.matrix)
    artifacts.write_json(folder / "video.json", {})
    assert played(folder)[0].camera_from == "assumed"


def test_a_bag_is_played_with_its_camera_info_frame_and_times(tmp_path: Path) -> None:
    write_bag(
        tmp_path / "bag",
        StoragePlugin.MCAP,
        {"/cam/image_raw", "/cam/camera_info", "/tf"},
        views=4,
    )
    images = played(tmp_path / "bag")
    assert len(images) == 4
    assert {image.frame for image in images} == {"cam_optical"}
    assert torch.equal(images[0].camera.matrix, CAMERA.matrix)
    times = [image.seconds for image in images]
    assert times[0] == 0.0 and sorted(set(times)) == times


def test_a_bag_without_calibration_needs_a_camera_and_counts_what_it_leaves_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = raw(2.0, checks(2))
    broken.step = 1
    sent = [
        ("/cam/image_raw", 1.0, raw(1.0, checks(1))),
        ("/cam/image_raw", 2.0, broken),
        ("/cam/image_raw", 3.5, raw(3.5, checks(3))),
    ]
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, {"/cam/image_raw"}, messages=sent)
    with pytest.raises(InvalidInput, match=r"no camera_info on .*, or --camera$"):
        played(tmp_path / "bag")
    images = played(tmp_path / "bag", camera=KNOWN)
    assert [image.seconds for image in images] == [0.0, 2.5]
    assert "1 images left out; the first: an image of 64 x 48 px" in caplog.text


def test_large_images_are_made_smaller_with_their_camera(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1500, 2000, 3), np.uint8)).save(tmp_path / "large.png")
    (image,) = played(tmp_path / "large.png", camera=KNOWN)
    assert image.pixels.shape == (960, 1280, 3)
    assert (image.camera.width, image.camera.height) == (1280, 960)
    assert float(image.camera.matrix[0, 0]) == pytest.approx(80 * 20)
    assert image.camera_from == "given"
    (image,) = played(tmp_path / "large.png", longest=4000)
    assert image.pixels.shape == (1500, 2000, 3)


def test_what_cannot_be_played_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no film")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    save_photograph(tmp_path / "image.jpg", checks(1))
    wide = Camera(KNOWN.matrix, 100, 20)
    for name, options, reason in (
        ("nothing", {}, "not there; a film, a folder of images"),
        ("text.txt", {}, "cannot be played; a film"),
        ("empty", {}, "no image can be read; a film"),
        ("broken.mp4", {}, "broken, cut off or of unknown format"),
        (
            "image.jpg",
            {"camera": wide},
            "the images have 64 x 48 px, their camera 100 x 20 px",
        ),
    ):
        with pytest.raises(InvalidInput, match=reason) as caught:
            played(tmp_path / name, **options)
        assert "\n" not in str(caught.value)
