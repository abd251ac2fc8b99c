"""The recorder node in a process of its own, over real DDS: the images are in the folder."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
import torch

from camera_ring import view
from ros_film import NOW, SECOND, STAMPS, Film, files, pixels
from uns_pose_ros.capture.guidance import MISSING, SEEN
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.depth_images import depth_path, read_depth
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video


def test_what_is_published_is_in_the_folder_with_poses_stamps_and_camera(
    film: Film, tmp_path: Path
) -> None:
    film.anew(fixed_frame="odom", format="png")
    begun = film.begin()
    assert (begun.success, begun.message) == (
        True,
        f"recording into {tmp_path}/mug/clip_01",
    )
    azimuths = [0.0, 20.0, 40.0, 60.0, 100.0]
    stamps, _ = film.orbit(azimuths)
    figures = film.wait_for(kept=5)
    assert (figures["coverage"], figures["elevations"]) == ("21 %", "20..20 deg")
    ended = film.stop()
    assert (ended.success, ended.message) == (
        True,
        f"{tmp_path}/mug/clip_01: 5 images kept",
    )
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False)
    assert (len(video.frames), video.metric) == (5, True)
    for number, frame in enumerate(video.frames):
        assert torch.equal(read_image(frame.image), torch.from_numpy(pixels(number)))
        assert frame.cam_from_obj is not None
        assert np.abs(frame.cam_from_obj.numpy() - view(azimuths[number])).max() < 1e-6
        assert frame.camera.matrix.tolist() == [[150, 0, 79], [0, 151, 61], [0, 0, 1]]
    record = read_json(tmp_path / "mug" / "clip_01" / "video.json")
    assert list(record["stamps_ns"].values()) == stamps
    assert record["topics"] == {"image": "/image", "camera_info": "/camera_info"}
    assert (record["fixed_frame"], record["cameras"][0]["camera_info"]["frame_id"]) == (
        "odom",
        "eye",
    )


def test_poses_between_transforms_are_interpolated_through_a_chain_of_frames(
    film: Film, tmp_path: Path
) -> None:
    film.anew(fixed_frame="odom")
    assert film.begin().success
    film.calibrate()
    stamps = list(itertools.islice(STAMPS, 9))
    for number, stamp in enumerate(stamps[:8:2]):
        film.place(stamp, view(20.0 * number))
    for number in (0, 1, 2):
        film.film(pixels(number), stamps[2 * number + 1])
    film.wait_for(kept=3)
    assert film.stop().success
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False)
    for number, frame in enumerate(video.frames):
        assert frame.cam_from_obj is not None
        middle = np.linalg.inv(frame.cam_from_obj.numpy())
        ends = [np.linalg.inv(view(20.0 * k)) for k in (number, number + 1)]
        assert np.abs(middle[:3, 3] - (ends[0][:3, 3] + ends[1][:3, 3]) / 2).max() < 1e-6
        assert np.abs(middle[:3, 1] - view(20.0 * number + 10)[1, :3]).max() < 1e-6


@pytest.mark.parametrize("plugin", ["MCAP", "SQLITE3"])
@pytest.mark.parametrize("kind", ["raw", "compressed"])
def test_a_recorder_gives_the_same_folder_for_a_bag_as_its_import(
    film: Film, tmp_path: Path, plugin: str, kind: str
) -> None:
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from bag_writer import DEPTHS, KINDS, depth_of, write_bag
    from uns_pose_ros.capture.import_source import import_video
    from uns_pose_ros.capture.video_writer import ImportConfig

    image_topics = {"raw": "/cam/image_raw", "compressed": "/cam/image_raw/compressed"}
    deep = dict(zip(("raw", "compressed"), DEPTHS, strict=True))[kind]
    topics = set(KINDS) - set(image_topics.values()) | {image_topics[kind], deep}
    write_bag(tmp_path / "bag", rosbag2.StoragePlugin[plugin], topics)
    config = ImportConfig(fixed_frame="odom", depth_topic="/cam/depth/image_raw")
    assert import_video(tmp_path / "bag", tmp_path / "imported", config)
    film.anew(
        fixed_frame="odom",
        transport=kind,
        depth=kind,
        sharpness=0.0,
        darkest=0,
        clipped=1.0,
        view_angle=1.0,
    )
    assert film.begin().success
    publishers = {
        "/tf_static": film.static_out,
        "/tf": film.transforms_out,
        deep: film.depths[kind],
        "/cam/camera_info": film.infos,
        "/cam/image_raw": film.images,
        "/cam/image_raw/compressed": film.files,
    }
    with rosbag2.Reader(tmp_path / "bag") as reader:
        messages = [
            (connection.topic, bytes(data)) for connection, _, data in reader.messages()
        ]
    for topic in publishers:  # images last: everything that they wait for has come then
        for _, data in (message for message in messages if message[0] == topic):
            if topic == image_topics[kind]:
                film.send_image(publishers[topic], data)
                continue
            publishers[topic].publish(data)
            film.turn()
            if topic == "/cam/camera_info":
                film.expect_first()
    film.wait_for(kept=8)
    assert film.stop().success
    recorded = tmp_path / "mug" / "clip_01"
    assert files(recorded) == files(tmp_path / "imported")
    for number in range(8):
        path = depth_path(recorded, f"{number + 1:06d}.jpg")
        assert (
            path.read_bytes() == depth_path(tmp_path / "imported", path.stem).read_bytes()
        )
        assert read_depth(path, (64, 48)).tolist() == depth_of(number).tolist()
    mine, theirs = (
        read_json(folder / "video.json") for folder in (recorded, tmp_path / "imported")
    )
    assert mine["metric"] is theirs["metric"] is True
    for key in ("frames", "stamps", "camera", "fixed_frame"):
        assert mine[key] == theirs[key]
    videos = [
        load_video(folder, need_masks=False).frames
        for folder in (recorded, tmp_path / "imported")
    ]
    for own, imported in zip(*videos, strict=True):
        assert own.cam_from_obj is not None and imported.cam_from_obj is not None
        assert own.name == imported.name
        assert torch.allclose(own.cam_from_obj, imported.cam_from_obj, atol=1e-6)
        assert torch.equal(own.camera.matrix, imported.camera.matrix)


@pytest.mark.parametrize("posed", [True, False])
def test_compressed_images_are_kept_byte_by_byte(
    film: Film, tmp_path: Path, posed: bool
) -> None:
    film.anew(transport="compressed", format="png", fixed_frame="odom" if posed else "")
    assert film.begin().success
    _, data = film.orbit([0.0, 20.0, 40.0], compressed=True)
    film.wait_for(kept=3)
    assert film.stop().success
    assert files(tmp_path / "mug" / "clip_01") == data
    assert (
        load_video(tmp_path / "mug" / "clip_01", need_masks=False, need_poses=posed).metric
        == posed
    )
    assert (tmp_path / "mug" / "clip_01" / "sparse").exists() == posed


def test_with_depth_only_images_that_have_it_are_kept(film: Film, tmp_path: Path) -> None:
    film.anew(format="png", depth="raw")
    assert film.begin().success
    before = film.base()
    film.calibrate()
    depths = [np.full((120, 160), 1000 + number, np.uint16) for number in range(4)]
    stamps = list(itertools.islice(STAMPS, 4))
    film.measure(depths[0], stamps[0])
    film.film(pixels(0), stamps[0])
    film.film(pixels(1), stamps[1])  # its depth never comes
    film.film(pixels(2), stamps[2])
    film.measure(depths[2], stamps[2])
    film.measure(depths[3][:60], stamps[3])
    film.film(pixels(3), stamps[3])
    lost = {
        name: before.get(f"dropped: {name}", 0) + 1
        for name in ("no depth of its stamp", "unusable image or camera_info")
    }
    film.wait_for(kept=2, **{name.replace(" ", "_"): count for name, count in lost.items()})
    assert film.stop().success
    folder = tmp_path / "mug" / "clip_01"
    for name, number in (("000001.png", 0), ("000002.png", 2)):
        assert torch.equal(
            read_image(folder / "images" / name), torch.from_numpy(pixels(number))
        )
        assert (
            read_depth(depth_path(folder, name), (160, 120)).tolist()
            == depths[number].tolist()
        )
    assert read_json(folder / "video.json")["topics"]["depth"] == "/depth"
    assert len(list((folder / "depth").iterdir())) == 2


def test_raw_images_as_jpeg_are_nearly_what_was_published(
    film: Film, tmp_path: Path
) -> None:
    assert film.begin().success
    film.calibrate()
    for number in range(3):
        film.film(pixels(number), next(STAMPS))
    figures = film.wait_for(kept=3)
    assert (figures["coverage"], figures["missing azimuths"]) == ("unknown", "unknown")
    assert film.stop().success
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False, need_poses=False)
    for number, frame in enumerate(video.frames):
        assert (
            frame.image.read_bytes()
            == EncodedImage.of_pixels(pixels(number)).encoded(".jpg", 95)[0]
        )
        assert (
            np.abs(read_image(frame.image).numpy().astype(int) - pixels(number)).mean() < 8
        )


def test_dropped_images_are_counted_by_reason(film: Film, tmp_path: Path) -> None:
    assert film.begin().success
    before = film.base()
    film.calibrate()
    for number in range(5):
        film.film(pixels(number), next(STAMPS))
    for rejected in (
        pixels(4),
        pixels(4),
        pixels(5, blur=9),
        np.zeros((120, 160, 3), np.uint8),
        np.full((120, 160, 3), 255, np.uint8),
    ):
        film.film(rejected, next(STAMPS))
    twice = next(STAMPS)
    film.film(pixels(6), twice)
    film.film(pixels(7), twice)
    reasons = {
        "same view as before": 2,
        "blurred": 1,
        "too dark": 1,
        "overexposed": 1,
        "stamp seen before": 1,
    }
    expected = {
        name.replace(" ", "_"): before.get(f"dropped: {name}", 0) + count
        for name, count in reasons.items()
    }
    film.wait_for(**expected, received=before["images received"] + 12)
    assert film.stop().success
    shown = [
        EncodedImage.of_pixels(pixels(number)).encoded(".jpg", 95)[0]
        for number in (0, 1, 2, 3, 4, 6)
    ]
    assert files(tmp_path / "mug" / "clip_01") == shown


def test_an_image_without_transform_is_dropped_and_reported(
    film: Film, tmp_path: Path
) -> None:
    film.anew(fixed_frame="odom", tf_wait=0.05)
    assert film.begin().success
    lost = film.base().get("dropped: no transform at the image's stamp", 0)
    film.calibrate()
    film.film(pixels(0), next(STAMPS))
    film.wait(
        "the missing transform",
        lambda: (
            film.counts().get("dropped: no transform at the image's stamp") == str(lost + 1)
        ),
    )
    assert (
        "'eye' and 'odom' are not connected" in film.statuses[-1].message
        or "known in" in film.statuses[-1].message
    )
    assert film.statuses[-1].level == b"\x01"
    assert film.stop().success
    assert not (tmp_path / "mug" / "clip_01").exists()


def test_the_overlay_shows_the_ring_and_status_what_is_missing(film: Film) -> None:
    film.anew(fixed_frame="odom")
    film.watch()
    film.calibrate()

    def overlay_arrived(number: int, azimuth: float) -> bool:
        """Film one image and wait until the node has processed it.

        The node may not know of the subscriber yet, or may have sent the last overlay just now.
        """
        stamp = next(STAMPS)
        film.place(stamp, view(azimuth))
        film.expect_first()
        film.film(pixels(number), stamp)
        return bool(film.overlays)

    film.wait("an overlay", lambda: overlay_arrived(0, 0.0))
    overlay = film.overlays[-1]
    assert (overlay.width, overlay.height, overlay.encoding, overlay.header.frame_id) == (
        160,
        120,
        "rgb8",
        "eye",
    )
    assert film.begin().success
    film.orbit([10.0, 25.0, 40.0])
    figures = film.wait_for(kept=3)
    assert (figures["coverage"], figures["missing azimuths"]) == ("12 %", "45..360 deg")
    film.overlays.clear()

    film.wait("an overlay", lambda: overlay_arrived(3, 41.0))
    overlay = film.overlays[-1]
    shown = {tuple(color) for color in np.frombuffer(overlay.data, np.uint8).reshape(-1, 3)}
    assert {MISSING, SEEN} <= shown


def test_time_that_jumps_back_is_another_time_and_the_recording_goes_on(
    film: Film, tmp_path: Path
) -> None:
    film.anew(fixed_frame="odom")
    assert film.begin().success
    film.calibrate()
    film.place(NOW, view(0.0), single=True)

    def kept(number: int, stamp: int) -> bool:
        """Send the pose with every status: the node forgets it when the time jumps."""
        if len(film.statuses) > lengths[-1]:
            lengths.append(len(film.statuses))
            film.place(stamp, view(20.0 * number), single=True)
        return film.counts().get("images in the folder") == str(number + 1)

    lengths = [-1]
    for number, stamp in enumerate((NOW, NOW + SECOND, NOW - SECOND, NOW)):
        film.film(pixels(number), stamp)
        film.wait("the image in the folder", partial(kept, number, stamp))
        # a pose of this time that came after the next image would count as one of the next time
        film.settle()
    assert film.stop().success
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False)
    for number, frame in enumerate(video.frames):
        assert frame.cam_from_obj is not None
        assert np.abs(frame.cam_from_obj.numpy() - view(20.0 * number)).max() < 1e-6
