"""Imports of films, photographs, COLMAP datasets and CO3D sequences.

What becomes of them, and of broken ones.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from source_files import checks, save_photograph, write_co3d, write_film
from synthetic import write_video
from uns_pose_ros.capture.import_source import detect_kind, import_video
from uns_pose_ros.capture.video_writer import ImportConfig, select_sharpest
from uns_pose_ros.core.camera import resize_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import load_video


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """30 images; of each window of five only one is sharp."""
    return write_film(
        tmp_path / "film.mp4", [checks(k, blur=k % 5 != 3) for k in range(30)]
    )


def rotate_90(path: Path) -> None:
    """Write the rotation by 90 degrees clockwise into the track header, as a phone held upright
    does.
    """
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 40
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(
        value.to_bytes(4, "big", signed=True) for value in turned
    )
    path.write_bytes(data)


def test_the_sharpest_image_of_each_window_of_a_film_is_kept(
    film: Path, tmp_path: Path
) -> None:
    assert import_video(film, tmp_path / "mug" / "clip", ImportConfig(frames=6))
    video = load_video(tmp_path / "mug" / "clip", need_masks=False, need_poses=False)
    assert [frame.name for frame in video.frames] == [f"{k:06d}.jpg" for k in range(1, 7)]
    red = [float(read_image(frame.image)[..., 0].double().mean()) for frame in video.frames]
    assert red == pytest.approx([5 * k for k in range(3, 30, 5)], abs=4)
    stamps = json.loads((video.folder / "video.json").read_text())["stamps"]
    assert list(stamps.values()) == pytest.approx(
        [k / 30 for k in range(3, 30, 5)], abs=0.04
    )


def test_a_film_is_turned_as_its_metadata_say(film: Path, tmp_path: Path) -> None:
    rotate_90(film)
    import_video(film, tmp_path / "clip")
    image = read_image(tmp_path / "clip" / "images" / "000001.jpg").double()
    assert image.shape == (64, 48, 3)
    assert image[:24, :, 2].mean() > 100 > 50 > image[40:, :, 2].mean(), (
        "the bright left half is on top now"
    )


def test_the_focal_length_is_given_or_guessed_and_video_json_says_which(
    film: Path, tmp_path: Path
) -> None:
    import_video(film, tmp_path / "guessed")
    import_video(film, tmp_path / "focal", ImportConfig(focal=80.0))
    camera = Camera(
        torch.tensor([[160.0, 0, 63.5], [0, 160.0, 47.5], [0, 0, 1]]).double(), 128, 96
    )
    import_video(film, tmp_path / "given", camera=camera)
    record = json.loads((tmp_path / "guessed" / "video.json").read_text())["camera"]
    assert record["from"] == "guessed" and record["K"][0] == pytest.approx(
        32 / np.tan(np.radians(30))
    )
    for name in ("focal", "given"):
        assert (
            json.loads((tmp_path / name / "video.json").read_text())["camera"]["from"]
            == "given"
        )
        frame = load_video(tmp_path / name, need_masks=False, need_poses=False).frames[0]
        assert frame.camera.matrix.tolist() == [[80, 0, 31.5], [0, 80, 23.5], [0, 0, 1]]
    other = Camera(camera.matrix, 96, 96)
    with pytest.raises(InvalidInput, match="64 x 48 px, their camera 96 x 96 px"):
        import_video(film, tmp_path / "other", camera=other)


def test_large_images_are_shrunk_with_their_camera(film: Path, tmp_path: Path) -> None:
    import_video(film, tmp_path / "clip", ImportConfig(longest=32, focal=80.0))
    frame = load_video(tmp_path / "clip", need_masks=False, need_poses=False).frames[0]
    assert (frame.camera.width, frame.camera.height) == (32, 24)
    assert frame.camera.matrix.tolist() == [[40, 0, 15.5], [0, 40, 11.5], [0, 0, 1]]


def test_resizing_a_camera_keeps_what_its_pixels_see() -> None:
    camera = Camera(
        torch.tensor([[100.0, 0, 20], [0, 110, 30], [0, 0, 1]]).double(), 64, 48
    )
    small = resize_camera(camera, 32, 24)
    # pixel (0, 0) of the small image covers pixels (0, 0) to (1, 1) of the large one
    ray = torch.linalg.solve(small.matrix, torch.tensor([0.0, 0, 1]).double())
    assert (camera.matrix @ ray).tolist() == pytest.approx([0.5, 0.5, 1])


def test_windows_are_even_and_hold_every_image() -> None:
    assert select_sharpest([0, 3, 1, 9, 2, 2, 5], 3) == [1, 3, 6]
    assert select_sharpest([1, 2], 40) == [0, 1]
    assert select_sharpest([], 40) == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:1500]),
            "film.mp4: broken, cut off or of unknown format",
        ),
        (
            lambda path: path.write_bytes(b""),
            "film.mp4: broken, cut off or of unknown format",
        ),
        (lambda path: path.unlink(), "film.mp4: not there; valid are a film"),
        (
            lambda path: write_film(path, [checks(1)] * 2),
            "film.mp4: 2 usable images, at least 3 are needed",
        ),
    ],
)
def test_a_broken_film_is_refused_and_leaves_nothing(
    film: Path, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(film)
    with pytest.raises(InvalidInput, match=re.escape(reason)):
        import_video(film, tmp_path / "mug" / "clip")
    assert not (tmp_path / "mug").exists() or not list((tmp_path / "mug").iterdir())


def test_the_command_says_of_a_film_that_is_cut_off_one_line_and_nothing_else(
    film: Path, tmp_path: Path
) -> None:
    film.write_bytes(film.read_bytes()[:1500])
    done = subprocess.run(
        [
            Path(sys.executable).with_name("uns-pose"),
            "import",
            film,
            "--into",
            tmp_path / "mug" / "clip",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert (
        len(done.stderr.splitlines()) == 1
        and "film.mp4: broken, cut off or of unknown format" in done.stderr
    )


def test_a_film_longer_than_the_limit_is_refused(film: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match="longer than 20 images; cut it, or raise --most"
    ):
        import_video(film, tmp_path / "clip", ImportConfig(most=20))


def test_importing_again_does_nothing_and_never_overwrites(
    film: Path, tmp_path: Path
) -> None:
    into = tmp_path / "clip"
    assert import_video(film, into)
    before = (into / "video.json").stat().st_mtime_ns
    assert (
        not import_video(film, into) and (into / "video.json").stat().st_mtime_ns == before
    )
    with pytest.raises(InvalidInput, match="clip: exists already and was not made from"):
        import_video(film, into, ImportConfig(frames=5))


def test_photographs_are_turned_and_their_focal_length_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    for k in range(4):
        save_photograph(
            source / f"{k}.jpg", checks(k), orientation=6, focal_35=26
        )  # 6: turn by 90 degrees clockwise
    save_photograph(source / "wide.jpg", checks(4), focal_35=26)
    (source / "cut.jpg").write_bytes((source / "0.jpg").read_bytes()[:700])
    with caplog.at_level(logging.WARNING):
        import_video(source, tmp_path / "clip")
    assert len(caplog.messages) == 2
    assert (
        "cut.jpg: the image is broken" in caplog.text
        and "wide.jpg: 64 x 48 px, most have 48 x 64" in caplog.text
    )
    frames = load_video(tmp_path / "clip", need_masks=False, need_poses=False).frames
    assert [(frame.camera.width, frame.camera.height) for frame in frames] == [(48, 64)] * 4
    assert frames[0].camera.matrix[0, 0] == pytest.approx(26 * 80 / 43.267, rel=1e-4)
    image = read_image(frames[0].image).double()
    assert image[:24, :, 2].mean() > 100 > 50 > image[40:, :, 2].mean()
    record = json.loads((tmp_path / "clip" / "video.json").read_text())
    assert record["camera"]["from"] == "exif" and record["files"]["000001.jpg"] == "0.jpg"


def test_an_upright_jpeg_is_copied_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    for k in range(3):
        save_photograph(source / f"{k}.jpg", checks(k))
    import_video(source, tmp_path / "clip")
    assert (tmp_path / "clip" / "images" / "000002.jpg").read_bytes() == (
        source / "1.jpg"
    ).read_bytes()


@pytest.mark.parametrize("content", [b"no image", b""])
def test_photographs_of_which_none_can_be_read_are_one_line(
    tmp_path: Path, content: bytes
) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    (source / "a.jpg").write_bytes(content)
    with pytest.raises(
        InvalidInput,
        match=r"no usable image; .*a\.jpg: the image is broken or of unknown format",
    ):
        import_video(source, tmp_path / "clip")


def test_a_colmap_dataset_keeps_names_poses_points_and_masks(tmp_path: Path) -> None:
    truth = write_video(tmp_path / "colmap", seed=1, views=8, size=48)
    shutil.move(tmp_path / "colmap" / "sparse", tmp_path / "s")
    (tmp_path / "colmap" / "sparse").mkdir()
    shutil.move(
        tmp_path / "s", tmp_path / "colmap" / "sparse" / "0"
    )  # where COLMAP itself puts it
    import_video(tmp_path / "colmap", tmp_path / "clip")
    video = load_video(tmp_path / "clip")
    assert [frame.name for frame in video.frames] == list(truth.cam_from_obj)
    for frame in video.frames:
        assert frame.cam_from_obj is not None and frame.mask is not None
        np.testing.assert_allclose(
            frame.cam_from_obj.numpy(), truth.cam_from_obj[frame.name], atol=1e-9
        )
        assert (
            frame.image.read_bytes()
            == (tmp_path / "colmap" / "images" / frame.name).read_bytes()
        )
        assert torch.equal(
            read_mask(frame.mask),
            read_mask(tmp_path / "colmap" / "masks" / f"{frame.name}.png"),
        )


@pytest.mark.parametrize("kind", ["ndc_isotropic", "ndc_norm_image_bounds"])
def test_a_co3d_sequence_gives_the_cameras_it_was_written_with(
    tmp_path: Path, kind: str
) -> None:
    folder, poses, camera = write_co3d(tmp_path, kind)
    import_video(folder, tmp_path / "clip")
    video = load_video(tmp_path / "clip")
    assert len(video.frames) == 5
    for frame, pose in zip(video.frames, poses.values(), strict=True):
        assert frame.cam_from_obj is not None
        np.testing.assert_allclose(frame.cam_from_obj.numpy(), pose, atol=1e-9)
        np.testing.assert_allclose(
            frame.camera.matrix.numpy(), camera.matrix.numpy(), atol=1e-9
        )


def test_broken_co3d_annotations_are_one_line(tmp_path: Path) -> None:
    folder, _, _ = write_co3d(tmp_path, "ndc_isotropic")
    annotations = tmp_path / "truck" / "frame_annotations.jgz"
    whole = annotations.read_bytes()
    for data, reason in (
        (whole[:200], "not a gzipped JSON list"),
        (gzip.compress(b"[]"), "no frame of the sequence 101_1_2"),
    ):
        annotations.write_bytes(data)
        with pytest.raises(InvalidInput, match=reason):
            import_video(folder, tmp_path / "clip")
    assert not (tmp_path / "clip").exists()


def test_what_cannot_be_imported_says_what_can(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for source in ("notes.txt", "empty"):
        with pytest.raises(
            InvalidInput,
            match=rf"{source}: cannot be imported; valid are a film \(mp4, mov\)",
        ):
            import_video(tmp_path / source, tmp_path / "clip")


@pytest.mark.parametrize(
    "words", [{"frames": 2}, {"quality": 101}, {"focal": -1.0}, {"longest": 0}]
)
def test_settings_out_of_range_are_refused(words: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(words))):
        ImportConfig(**words)  # type: ignore[arg-type]


def test_a_source_that_is_nearly_right_gets_advice(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    (folder / "session").mkdir(parents=True)
    image = folder / "session" / "a.png"
    cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(image)
    advice = {
        folder: "images are in session; give that folder",
        image: "one image; give its folder",
        tmp_path / "a.zip": "an archive; unpack it",
    }
    for source, words in advice.items():
        with pytest.raises(InvalidInput, match=words):
            detect_kind(source)
