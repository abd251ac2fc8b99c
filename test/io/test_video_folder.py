import json
import logging
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from synthetic import write_video
from uns_pose_ros.core.camera import assumed_camera, undistort
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import list_videos, load_video, read_frame

IMAGE, MASK = "images/000001.jpg", "masks/000001.jpg.png"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truck") / "clip_01"
    write_video(folder, seed=1, views=5, size=48)
    return folder


@pytest.fixture
def clip(rendered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rendered, tmp_path / "clip_01"))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + b"IDAT"
    )


def test_videos_are_the_subfolders_with_images_in_order(tmp_path: Path) -> None:
    for name in ("clip_02", "clip_10", "clip_01", ".hidden"):
        (tmp_path / name / "images").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    assert [v.name for v in list_videos(tmp_path, None)] == [
        "clip_01",
        "clip_02",
        "clip_10",
    ]
    assert [v.name for v in list_videos(tmp_path, "clip_1*, clip_0[12]")] == [
        "clip_01",
        "clip_02",
        "clip_10",
    ]
    assert [v.name for v in list_videos(tmp_path, "clip_02")] == ["clip_02"]


def test_a_pattern_that_matches_nothing_lists_the_videos(tmp_path: Path) -> None:
    (tmp_path / "clip_01" / "images").mkdir(parents=True)
    with pytest.raises(
        InvalidInput, match=r"no video is called 'clop\*'; there are clip_01"
    ):
        list_videos(tmp_path, "clip_01,clop*")


def test_a_category_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="mug: no such folder"):
        list_videos(tmp_path / "mug", None)
    with pytest.raises(
        InvalidInput, match="no videos; each video is a subfolder with images/"
    ):
        list_videos(tmp_path, None)


def test_a_video_has_its_frames_by_name_with_masks_poses_and_cameras(clip: Path) -> None:
    video = load_video(clip)
    assert [frame.name for frame in video.frames] == [f"{k:06d}.jpg" for k in range(5)]
    image, mask, camera = read_frame(video.frames[2])
    assert image.shape == (48, 48, 3) and image.dtype == torch.uint8
    assert (
        mask is not None
        and mask.shape == (48, 48)
        and 0.05 < float(mask.double().mean()) < 0.6
    )
    assert camera.matrix[0, 2] == 23.5 and not len(camera.distortion)
    pose = video.frames[2].cam_from_obj
    assert pose is not None and torch.allclose(
        pose[:3, :3] @ pose[:3, :3].T, torch.eye(3).double(), atol=1e-9
    )


def test_metric_is_what_video_json_says(clip: Path) -> None:
    assert load_video(clip).metric is False
    (clip / "video.json").write_text(json.dumps({"metric": True, "stamps": [1, 2]}))
    assert load_video(clip).metric is True


@pytest.mark.parametrize("text", ["[]", '{"metric": "yes"}', "{"])
def test_a_video_json_that_is_no_such_object_is_refused(clip: Path, text: str) -> None:
    (clip / "video.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"video\.json"):
        load_video(clip)


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def resize(clip: Path) -> None:
    Image.new("RGB", (40, 48)).save(clip / IMAGE)
    Image.new("L", (40, 48), 255).save(clip / MASK)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda clip: cut(clip / IMAGE, 400), f"{IMAGE}: the image is broken"),
        (
            lambda clip: (clip / IMAGE).write_text("no image"),
            f"{IMAGE}: the image is broken or of unknown format",
        ),
        (lambda clip: (clip / IMAGE).unlink(), f"{IMAGE}: named in sparse/ but not there"),
        (lambda clip: cut(clip / MASK, 60), f"{MASK}: the mask is broken"),
        (lambda clip: (clip / MASK).unlink(), f"{MASK}: the mask is not there"),
        (
            lambda clip: Image.new("L", (48, 48)).save(clip / MASK),
            f"{MASK}: the mask is empty",
        ),
        (
            lambda clip: Image.new("L", (40, 48), 255).save(clip / MASK),
            f"{MASK}: 40 x 48 px, its image has 48 x 48",
        ),
        (resize, f"{IMAGE}: 40 x 48 px, its camera in sparse/ has 48 x 48"),
    ],
)
def test_a_bad_frame_is_left_out_with_one_warning_that_names_it(
    clip: Path,
    damage: Callable[[Path], object],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    damage(clip)
    with caplog.at_level(logging.WARNING):
        video = load_video(clip)
    assert [frame.name for frame in video.frames] == [
        "000000.jpg",
        "000002.jpg",
        "000003.jpg",
        "000004.jpg",
    ]
    assert len(caplog.messages) == 1 and reason in caplog.messages[0]


def test_too_few_usable_frames_are_an_error_with_the_first_reason(clip: Path) -> None:
    for k in range(3):
        (clip / "masks" / f"{k:06d}.jpg.png").unlink()
    with pytest.raises(
        InvalidInput,
        match=r"clip_01: 2 of 5 frames are usable, 3 needed; the first left out: .*000000.jpg.png",
    ):
        load_video(clip)
    assert len(load_video(clip, need_masks=False).frames) == 5


def test_missing_parts_say_what_is_needed(clip: Path) -> None:
    shutil.rmtree(clip / "masks")
    with pytest.raises(
        InvalidInput, match=r"clip_01: no object masks; masks/<image name>.png"
    ):
        load_video(clip)
    shutil.rmtree(clip / "sparse")
    with pytest.raises(InvalidInput, match=r"clip_01: no camera poses; a COLMAP model"):
        load_video(clip, need_masks=False)
    with pytest.raises(InvalidInput, match="no video there"):
        load_video(clip / "images")


def test_without_poses_frames_get_the_assumed_camera(clip: Path) -> None:
    shutil.rmtree(clip / "sparse")
    frame = load_video(clip, need_poses=False).frames[0]
    assert frame.cam_from_obj is None and torch.equal(
        frame.camera.matrix, assumed_camera(48, 48).matrix
    )


def test_the_assumed_camera_sees_its_angle_along_the_longer_side() -> None:
    camera = assumed_camera(640, 480, fov_deg=90)
    assert camera.matrix.tolist() == [
        [pytest.approx(320), 0, 319.5],
        [0, pytest.approx(320), 239.5],
        [0, 0, 1],
    ]


def test_an_image_that_claims_a_billion_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.png").write_bytes(png_header(40000, 25000))
    with pytest.raises(InvalidInput, match="too large|claims 40000 x 25000 px"):
        read_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png_header(10000, 8001))
    with pytest.raises(
        InvalidInput, match="claims 10000 x 8001 px; .* at most 80 megapixels"
    ):
        read_image(tmp_path / "b.png")


def test_sixteen_bit_images_are_scaled_by_the_full_range(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4), 1000, np.uint16))
    assert read_image(tmp_path / "a.png").unique().tolist() == [4]


def test_images_are_rgb_as_stored_without_exif_rotation(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = (255, 10, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png").numpy(), pixels)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (30, 200)])
def test_masks_of_any_two_values_are_cut_between_them(
    tmp_path: Path, values: tuple[int, int]
) -> None:
    gray = np.array([[values[0], values[1]], [values[1], values[0]]], np.uint8)
    cv2.imwrite(str(tmp_path / "m.png"), gray)
    assert read_mask(tmp_path / "m.png").tolist() == [[False, True], [True, False]]


def test_undistorting_moves_a_point_to_where_a_pinhole_sees_it() -> None:
    matrix = torch.tensor(
        [[200.0, 0, 99.5], [0, 200, 79.5], [0, 0, 1]], dtype=torch.float64
    )
    distortion = torch.tensor([-0.3, 0.05, 0.002, -0.003], dtype=torch.float64)
    point = np.array([[0.32, -0.25, 1.0]])
    seen = cv2.projectPoints(
        point, np.zeros(3), np.zeros(3), matrix.numpy(), distortion.numpy()
    )[0][0, 0]
    v, u = np.mgrid[:160, :200]
    blob = 255 * np.exp(-((u - seen[0]) ** 2 + (v - seen[1]) ** 2) / 8)
    image = torch.from_numpy(np.repeat(blob.astype(np.uint8)[..., None], 3, 2))
    straight, mask, pinhole = undistort(
        image, image[..., 0] > 100, Camera(matrix, 200, 160, distortion)
    )
    want = [200 * 0.32 + 99.5, 200 * -0.25 + 79.5]
    assert np.abs(want - seen).max() > 2
    weight = straight[..., 0].double().numpy()
    assert [
        (weight * u).sum() / weight.sum(),
        (weight * v).sum() / weight.sum(),
    ] == pytest.approx(want, abs=0.2)
    assert (
        mask is not None
        and mask[round(want[1]), round(want[0])]
        and not len(pinhole.distortion)
    )


def test_masks_are_taken_by_both_of_colmaps_names_and_others_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = write_video(tmp_path / "clip", seed=1, views=5, size=48)
    names, masks = list(truth.cam_from_obj), tmp_path / "clip" / "masks"
    for name in names[:3]:
        (masks / f"{name}.png").rename((masks / name).with_suffix(".png"))
    (masks / f"{names[3]}.png").rename(masks / "other.png")
    frames = load_video(tmp_path / "clip").frames
    assert [frame.name for frame in frames] == [*names[:3], names[4]]
    assert "1 masks of no image: other.png" in caplog.text


def test_frames_come_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    (tmp_path / "clip" / "images").mkdir(parents=True)
    for name in ("frame10.jpg", "frame2.JPG", "frame1.jpg", "b/frame1.png", "frame3"):
        path = tmp_path / "clip" / "images" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path, "PNG")
    frames = load_video(tmp_path / "clip", need_masks=False, need_poses=False).frames
    assert [frame.name for frame in frames] == [
        "b/frame1.png",
        "frame1.jpg",
        "frame2.JPG",
        "frame3",
        "frame10.jpg",
    ]


def test_masks_that_show_the_object_dark_are_said(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_video(clip)
    assert "inverted" not in caplog.text
    for path in (clip / "masks").iterdir():
        Image.fromarray(255 - np.array(Image.open(path))).save(path)
    load_video(clip)
    assert "5 masks are dark inside a bright border; white is the object" in caplog.text
