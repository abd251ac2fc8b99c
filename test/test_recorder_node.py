"""The recorder node as a process of its own, over real DDS: what was published is in the folder."""

from __future__ import annotations

import dataclasses
import itertools
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
import torch
from lifecycle_msgs.msg import Transition
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter

from ros_film import SECOND, Film, files, pixels
from ros_robot import PATIENCE
from test_orbit import view
from test_recording import INFO, camera
from uns_pose_ros.datatypes import InvalidInput
from uns_pose_ros.guidance import MISSING, SEEN
from uns_pose_ros.keyframes import KeyframeConfig
from uns_pose_ros.nodes import session
from uns_pose_ros.nodes.diagnostics import Health
from uns_pose_ros.nodes.recorder_node import SETTINGS, RecorderNode
from uns_pose_ros.nodes.recorder_parameters import RecorderParameters
from uns_pose_ros.nodes.session import Session
from uns_pose_ros.nodes.worker import Worker
from uns_pose_ros.photo import Photo
from uns_pose_ros.recording import Recording, Shot, recover
from uns_pose_ros.storage import read_json
from uns_pose_ros.video import load_video, read_image

NOW = 1_700_000_000 * SECOND + 123_456_789  # ns, stamp of the first picture
STAMPS = itertools.count(NOW, SECOND // 30)


@pytest.fixture(scope="module")
def node(module_domain: int) -> Iterator[Film]:
    """One recorder for all tests that do not need a start of their own."""
    film = Film(module_domain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(module_domain))
        film.record()
    film.wait_until_listening()
    yield film
    film.close()


@pytest.fixture
def film(node: Film, tmp_path: Path) -> Film:
    """A recorder as if just started, whose category is tmp_path/mug."""
    node.stop()
    defaults = {"fixed_frame": "", "transport": "raw", "format": "jpg", "clip": "", "record": False, "tf_wait": 5.0}
    config = KeyframeConfig()
    defaults |= {name: getattr(config, name) for name in ("sharpness", "darkest", "clipped", "view_angle")}
    node.renew(**{**defaults, "category": str(tmp_path / "mug")})
    node.told.clear()
    node.overlays.clear()
    return node


@pytest.fixture
def own(ros_domain: int) -> Iterator[Film]:
    """A camera for recorders that the test itself starts."""
    film = Film(ros_domain)
    yield film
    film.close()


def anew(film: Film, **parameters: Any) -> None:
    film.renew(**parameters)
    if film.counts() is not None and parameters.get("fixed_frame"):
        film.wait_until_following()


def base(film: Film) -> dict[str, int]:
    """Pictures received and dropped so far, which a recorder counts all its life."""
    film.wait("status", lambda: film.told)
    now = film.counts()
    return {key: int(value) for key, value in now.items() if key == "images received" or key.startswith("dropped: ")}


def orbit_film(film: Film, azimuths: list[float], compressed: bool = False) -> tuple[list[int], list[bytes]]:
    """Film a picture from each azimuth, with the camera's pose in TF before or after it; stamps (ns) and files."""
    stamps = list(itertools.islice(STAMPS, len(azimuths)))
    data = []
    film.calibrate()
    for number, (azimuth, stamp) in enumerate(zip(azimuths, stamps, strict=True)):
        if not number % 2:
            film.place(stamp, view(azimuth))
        data.append(film.film(pixels(number), stamp, compressed))
        if number % 2:
            film.place(stamp, view(azimuth))
    return stamps, data


def test_what_is_published_is_in_the_folder_with_poses_stamps_and_camera(film: Film, tmp_path: Path) -> None:
    anew(film, fixed_frame="odom", format="png")
    begun = film.begin()
    assert (begun.success, begun.message) == (True, f"recording into {tmp_path}/mug/clip_01")
    azimuths = [0.0, 20.0, 40.0, 60.0, 100.0]
    stamps, _ = orbit_film(film, azimuths)
    figures = film.wait_for(kept=5)
    assert (figures["coverage"], figures["elevations"]) == ("21 %", "20..20 deg")
    ended = film.stop()
    assert (ended.success, ended.message) == (True, f"{tmp_path}/mug/clip_01: 5 pictures kept")
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False)
    assert (len(video.frames), video.metric) == (5, True)
    for number, frame in enumerate(video.frames):
        assert torch.equal(read_image(frame.image), torch.from_numpy(pixels(number)))
        assert frame.cam_from_obj is not None
        assert np.abs(frame.cam_from_obj.numpy() - view(azimuths[number])).max() < 1e-6
        assert frame.camera.matrix.tolist() == [[150, 0, 79], [0, 151, 61], [0, 0, 1]]
    said = read_json(tmp_path / "mug" / "clip_01" / "video.json")
    assert list(said["stamps_ns"].values()) == stamps
    assert said["topics"] == {"image": "/image", "camera_info": "/camera_info"}
    assert (said["fixed_frame"], said["cameras"][0]["camera_info"]["frame_id"]) == ("odom", "eye")


def test_poses_between_transforms_are_interpolated_through_a_chain_of_frames(film: Film, tmp_path: Path) -> None:
    anew(film, fixed_frame="odom")
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


@pytest.mark.parametrize(("plugin", "kind"), [("MCAP", "raw"), ("SQLITE3", "compressed")])
def test_a_recorder_that_hears_a_bag_gives_the_same_folder_as_its_import(
    film: Film, tmp_path: Path, plugin: str, kind: str
) -> None:
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from bag_writer import KINDS, write_bag
    from uns_pose_ros.draft import ImportConfig
    from uns_pose_ros.importing import import_video

    pictures = {"raw": "/cam/image_raw", "compressed": "/cam/image_raw/compressed"}
    topics = set(KINDS) - set(pictures.values()) | {pictures[kind]}
    write_bag(tmp_path / "bag", rosbag2.StoragePlugin[plugin], topics)
    assert import_video(tmp_path / "bag", tmp_path / "imported", ImportConfig(fixed_frame="odom"))
    anew(film, fixed_frame="odom", transport=kind, sharpness=0.0, darkest=0, clipped=1.0, view_angle=1.0)
    assert film.begin().success
    publishers = {
        "/tf_static": film.static_out, "/tf": film.transforms_out, "/cam/camera_info": film.infos,
        "/cam/image_raw": film.images, "/cam/image_raw/compressed": film.files,
    }  # fmt: skip
    with rosbag2.Reader(tmp_path / "bag") as reader:
        messages = [(connection.topic, bytes(data)) for connection, _, data in reader.messages()]
    for topic in publishers:  # pictures last: what they are waiting for comes in any case
        for _, data in (message for message in messages if message[0] == topic):
            publishers[topic].publish(data)
            film.turn()
            if topic == "/cam/camera_info":
                film.expect_first()
            elif topic == pictures[kind]:
                film.wait_for_first()
    film.wait_for(kept=8)
    assert film.stop().success
    recorded = tmp_path / "mug" / "clip_01"
    assert files(recorded) == files(tmp_path / "imported")
    mine, theirs = (read_json(folder / "video.json") for folder in (recorded, tmp_path / "imported"))
    assert mine["metric"] is theirs["metric"] is True
    for key in ("frames", "stamps", "camera", "fixed_frame"):
        assert mine[key] == theirs[key]
    videos = [load_video(folder, need_masks=False).frames for folder in (recorded, tmp_path / "imported")]
    for own, imported in zip(*videos, strict=True):
        assert own.cam_from_obj is not None and imported.cam_from_obj is not None
        assert own.name == imported.name
        assert torch.allclose(own.cam_from_obj, imported.cam_from_obj, atol=1e-6)
        assert torch.equal(own.camera.matrix, imported.camera.matrix)


@pytest.mark.parametrize("posed", [True, False])
def test_compressed_pictures_are_kept_byte_by_byte(film: Film, tmp_path: Path, posed: bool) -> None:
    anew(film, transport="compressed", format="png", fixed_frame="odom" if posed else "")
    assert film.begin().success
    _, data = orbit_film(film, [0.0, 20.0, 40.0], compressed=True)
    film.wait_for(kept=3)
    assert film.stop().success
    assert files(tmp_path / "mug" / "clip_01") == data
    assert load_video(tmp_path / "mug" / "clip_01", need_masks=False, need_poses=posed).metric == posed
    assert (tmp_path / "mug" / "clip_01" / "sparse").exists() == posed


def test_raw_pictures_as_jpeg_are_nearly_what_was_published(film: Film, tmp_path: Path) -> None:
    assert film.begin().success
    film.calibrate()
    for number in range(3):
        film.film(pixels(number), next(STAMPS))
    figures = film.wait_for(kept=3)
    assert (figures["coverage"], figures["missing azimuths"]) == ("unknown", "unknown")
    assert film.stop().success
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False, need_poses=False)
    for number, frame in enumerate(video.frames):
        assert frame.image.read_bytes() == Photo.of_pixels(pixels(number)).encoded(".jpg", 95)[0]
        assert np.abs(read_image(frame.image).numpy().astype(int) - pixels(number)).mean() < 8


def test_what_is_left_out_is_counted_by_reason(film: Film, tmp_path: Path) -> None:
    assert film.begin().success
    before = base(film)
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
    reasons = {"same view as before": 2, "blurred": 1, "too dark": 1, "overexposed": 1, "stamp seen before": 1}
    expected = {name.replace(" ", "_"): before.get(f"dropped: {name}", 0) + count for name, count in reasons.items()}
    film.wait_for(**expected, received=before["images received"] + 12)
    assert film.stop().success
    shown = [Photo.of_pixels(pixels(number)).encoded(".jpg", 95)[0] for number in (0, 1, 2, 3, 4, 6)]
    assert files(tmp_path / "mug" / "clip_01") == shown


def test_a_picture_without_transform_is_left_out_and_told(film: Film, tmp_path: Path) -> None:
    anew(film, fixed_frame="odom", tf_wait=0.05)
    assert film.begin().success
    lost = base(film).get("dropped: no transform at the picture's stamp", 0)
    film.calibrate()
    film.film(pixels(0), next(STAMPS))
    film.wait(
        "the missing transform",
        lambda: film.counts().get("dropped: no transform at the picture's stamp") == str(lost + 1),
    )
    assert "'eye' and 'odom' are not connected" in film.told[-1].message or "known in" in film.told[-1].message
    assert film.told[-1].level == b"\x01"
    assert film.stop().success
    assert not (tmp_path / "mug" / "clip_01").exists()


def test_the_overlay_shows_the_ring_and_status_what_is_missing(film: Film) -> None:
    anew(film, fixed_frame="odom")
    film.watch()
    film.calibrate()
    film.film(pixels(0), next(STAMPS))
    overlay = film.wait("an overlay", lambda: film.overlays)[-1]
    assert (overlay.width, overlay.height, overlay.encoding, overlay.header.frame_id) == (160, 120, "rgb8", "eye")
    assert film.begin().success
    orbit_film(film, [10.0, 25.0, 40.0])
    figures = film.wait_for(kept=3)
    assert (figures["coverage"], figures["missing azimuths"]) == ("12 %", "45..360 deg")
    stamp = next(STAMPS)
    film.overlays.clear()
    time.sleep(0.2)  # overlays come ten times a second at most
    film.place(stamp, view(41.0))
    film.film(pixels(3), stamp)
    overlay = film.wait("an overlay", lambda: film.overlays)[-1]
    shown = {tuple(colour) for colour in np.frombuffer(overlay.data, np.uint8).reshape(-1, 3)}
    assert {MISSING, SEEN} <= shown


def test_recordings_follow_each_other_and_one_can_be_gone_on_with(film: Film, tmp_path: Path) -> None:
    for clip, numbers in (("", range(3)), ("", range(3)), ("clip_01", range(3, 5)), ("left side", range(3))):
        assert film.set(Parameter("clip", value=clip)).successful
        assert film.begin().success
        film.calibrate()
        for number in numbers:
            film.film(pixels(number), next(STAMPS))
        film.wait_for(kept=numbers.stop)
        assert film.stop().success
    assert sorted(path.name for path in (tmp_path / "mug").iterdir()) == ["clip_01", "clip_02", "left side"]
    assert [len(files(folder)) for folder in sorted((tmp_path / "mug").iterdir())] == [5, 3, 3]


def test_services_and_parameters_answer_in_every_state(film: Film, tmp_path: Path) -> None:
    assert (film.stop().success, film.stop().message) == (False, "not recording")
    assert "deactivate the node first" in film.set(Parameter("fixed_frame", value="odom")).reason
    for name, value, reason in (
        ("clip", "../mug", "a name such as clip_01"),
        ("format", "gif", "one of jpg, png is valid"),
        ("jpeg_quality", 0, "Min: 1, Max: 100"),
        ("view_angle", 181.0, "Min: 0.0, Max: 180.0"),
        ("sharpness", float("nan"), "out of range"),
        ("darkest", "dark", "INTEGER"),
    ):
        assert reason in film.set(Parameter(name, value=value)).reason
    assert film.begin().success
    again = film.begin()
    assert (again.success, "already recording into" in again.message) == (False, True)
    assert "call ~/stop before" in film.set(Parameter("sharpness", value=0.4)).reason
    assert film.transition(Transition.TRANSITION_DEACTIVATE)
    assert not (tmp_path / "mug" / "clip_01").exists()  # nothing was filmed
    assert "not active" in film.begin().message
    assert film.set(Parameter("category", value="")).successful
    assert film.transition(Transition.TRANSITION_ACTIVATE)
    refused = film.begin()
    assert (refused.success, "no category: set the parameter category" in refused.message) == (False, True)
    (tmp_path / "mug").mkdir(exist_ok=True)
    (tmp_path / "mug" / "file").write_text("in the way")
    assert film.set(Parameter("category", value=str(tmp_path / "mug" / "file"))).successful
    refused = film.begin()
    assert (refused.success, "cannot record" in refused.message) == (False, True)


def test_an_uncalibrated_camera_is_recorded_only_where_no_poses_are_asked_for(film: Film, tmp_path: Path) -> None:
    assert film.begin().success
    film.calibrate(k=[0.0] * 9)
    for number in range(3):
        film.film(pixels(number), next(STAMPS))
    film.wait_for(kept=3)
    assert "recorded without calibration" in film.told[-1].message
    assert film.stop().success
    assert read_json(tmp_path / "mug" / "clip_01" / "video.json")["cameras"][0]["K"] is None
    anew(film, fixed_frame="odom")
    assert film.begin().success
    unusable = base(film).get("dropped: unusable image or camera_info", 0)
    film.calibrate(k=[0.0] * 9)
    stamp = next(STAMPS)
    film.place(stamp, view(0.0))
    film.film(pixels(0), stamp)
    film.wait_for(unusable_image_or_camera_info=unusable + 1)
    assert "poses without calibration are of no use" in film.told[-1].message
    assert film.stop().success


def test_pictures_that_cannot_be_read_are_told_and_the_recording_goes_on(film: Film, tmp_path: Path) -> None:
    anew(film, transport="compressed")
    assert film.begin().success
    unusable = base(film).get("dropped: unusable image or camera_info", 0)
    film.calibrate()
    whole = film.film(pixels(0), next(STAMPS), compressed=True)
    film.film(pixels(1), next(STAMPS), compressed=True, data=whole[: len(whole) // 2])
    film.film(pixels(1), next(STAMPS), compressed=True, data=b"no picture")
    film.wait_for(kept=1, unusable_image_or_camera_info=unusable + 2)
    last = film.film(pixels(2), next(STAMPS), compressed=True)
    film.wait_for(kept=2)
    assert film.stop().success
    assert files(tmp_path / "mug" / "clip_01") == [whole, last]


def test_killed_while_recording_the_folder_is_a_video_and_the_next_recorder_goes_on(ros_domain: int, tmp_path: Path) -> None:
    images = tmp_path / "mug" / "clip_01" / "images"
    for start in range(2):
        film = Film(ros_domain)  # anew: the last one believes for a while that the dead recorder lives
        process = film.record(f"category:={tmp_path}/mug", "clip:=clip_01", "record:=true", "format:=png")
        film.wait_until_listening()
        film.calibrate()
        kept = len(list(images.glob("0*.png")))
        for number in range(4):
            film.film(pixels(4 * start + number), next(STAMPS))
        film.wait("pictures on the disk", partial(_at_least, images, kept + 3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        film.close()
    kept = len(list(images.glob("0*.png")))
    assert kept >= 6
    assert recover(tmp_path / "mug") == ["clip_01"]
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False, need_poses=False)
    assert len(video.frames) == len(read_json(tmp_path / "mug" / "clip_01" / "video.json")["stamps_ns"]) == kept
    shown = [pixels(number) for number in range(8)]
    for frame in video.frames:
        assert any(np.array_equal(read_image(frame.image), picture) for picture in shown)


def _at_least(images: Path, count: int) -> bool:
    return len(list(images.glob("0*.*"))) >= count


def test_ctrl_c_while_recording_finishes_the_folder(own: Film, tmp_path: Path) -> None:
    process = own.record(f"category:={tmp_path}/mug", "record:=true", "fixed_frame:=odom")
    own.wait_until_listening()
    own.wait_until_following()
    orbit_film(own, [0.0, 20.0, 40.0, 60.0])
    own.wait("pictures on the disk", partial(_at_least, tmp_path / "mug" / "clip_01" / "images", 3))
    code, log = own.interrupt(process)
    assert code == 0, log
    assert "Traceback" not in log
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False)
    assert len(video.frames) == len(files(tmp_path / "mug" / "clip_01"))
    assert sorted(path.name for path in (tmp_path / "mug" / "clip_01").iterdir()) == ["images", "sparse", "video.json"]


def test_ctrl_c_at_any_moment_ends_clean(own: Film, tmp_path: Path) -> None:
    processes = [own.record(f"category:={tmp_path}/{number}", "record:=true") for number in range(3)]
    ends = []
    for process in processes:
        time.sleep(1.2)
        ends.append(own.interrupt(process))
    assert [code for code, _ in ends] == [0] * len(ends), ends
    assert not [log for _, log in ends if "Traceback" in log]
    assert not list(tmp_path.rglob("video.json"))


def test_time_that_jumps_back_is_another_time_and_the_recording_goes_on(film: Film, tmp_path: Path) -> None:
    anew(film, fixed_frame="odom")
    assert film.begin().success
    film.calibrate()
    film.place(NOW, view(0.0))

    def kept(number: int, stamp: int) -> bool:
        """Tell where the camera is again and again: what came before the first picture of another time is forgotten."""
        film.place(stamp, view(20.0 * number))
        return film.counts().get("pictures in the folder") == str(number + 1)

    for number, stamp in enumerate((NOW, NOW + SECOND, NOW - SECOND, NOW)):
        film.film(pixels(number), stamp)
        film.wait("the picture in the folder", partial(kept, number, stamp))
    assert film.stop().success
    video = load_video(tmp_path / "mug" / "clip_01", need_masks=False)
    for number, frame in enumerate(video.frames):
        assert frame.cam_from_obj is not None
        assert np.abs(frame.cam_from_obj.numpy() - view(20.0 * number)).max() < 1e-6


def test_sigterm_while_recording_finishes_the_folder(own: Film, tmp_path: Path) -> None:
    process = own.record(f"category:={tmp_path}/mug", "record:=true")
    own.wait_until_listening()
    own.calibrate()
    for number in range(3):
        own.film(pixels(number), next(STAMPS))
    own.wait("pictures on the disk", partial(_at_least, tmp_path / "mug" / "clip_01" / "images", 3))
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, log
    assert sorted(path.name for path in (tmp_path / "mug" / "clip_01").iterdir()) == ["images", "video.json"]
    assert read_json(tmp_path / "mug" / "clip_01" / "video.json")["frames"] == 3


FULL = """
import errno, sys
from uns_pose_ros import recording
from uns_pose_ros.nodes import recorder_node
class Full(recording.Recording):
    def add(self, *given):
        if len(self) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().add(*given)
recorder_node.Recording = Full
sys.exit(recorder_node.main(sys.argv))
"""


def test_a_full_disk_ends_the_recording_with_one_error_and_everything_before_kept(own: Film, tmp_path: Path) -> None:
    process = own.record(f"category:={tmp_path}/mug", "record:=true", "format:=png", program=("-c", FULL))
    own.wait_until_listening()
    own.calibrate()
    for number in range(6):
        own.film(pixels(number), next(STAMPS))
    own.wait("the end", lambda: own.counts().get("recording") == "no")
    folder = tmp_path / "mug" / "clip_01"
    assert f"recording stopped: No space left on device; 3 pictures kept in {folder}" in own.told[-1].message
    assert own.told[-1].level == b"\x02"
    video = load_video(folder, need_masks=False, need_poses=False)
    assert [np.array_equal(read_image(f.image), pixels(k)) for k, f in enumerate(video.frames)] == [True] * 3
    assert sorted(path.name for path in folder.iterdir()) == ["images", "video.json"]
    assert own.stop().message == "not recording"
    code, log = own.interrupt(process)
    assert code == 0
    assert log.count("No space left") == 1


def test_a_bad_parameter_ends_the_start_with_code_2_and_one_line(own: Film) -> None:
    process: subprocess.Popen[str] = own.record("transport:=theora")
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert log == "recorder: transport 'theora': one of raw, compressed is valid\n"


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("jpeg_quality:=101", "Min: 1, Max: 100"),
        ("clip:=a/b", "a name such as clip_01 is valid"),
        ("fixed_frame:='my odom'", "a name without blanks is valid"),
        ("category:=3", "STRING"),
        ("view_angle:=-1.0", "Min: 0.0, Max: 180.0"),
    ],
)
def test_parameters_that_are_not_valid_are_refused_with_what_is(own: Film, argument: str, reason: str) -> None:
    with pytest.raises((InvalidInput, ParameterException), match=reason):
        RecorderNode(context=own.context, cli_args=["--ros-args", "-p", argument])


def test_every_parameter_is_described_and_every_number_has_a_range(own: Film) -> None:
    made = RecorderNode(context=own.context)
    for settings in SETTINGS:
        for item in dataclasses.fields(settings):
            said = made.describe_parameter(item.name)
            assert len(said.description) > 10
            assert len(said.floating_point_range) + len(said.integer_range) == (type(item.default) in (int, float)), item.name
    made.destroy_node()


def test_a_worker_with_slots_keeps_the_order_drops_the_oldest_and_finishes_what_waits() -> None:
    go, begun, seen, replaced = threading.Event(), threading.Event(), list[int](), list[int]()

    def work(item: int) -> None:
        begun.set()
        go.wait(PATIENCE)
        seen.append(item)

    worker: Worker[int] = Worker(work, lambda: replaced.append(1), slots=2)
    worker.put(0)
    assert begun.wait(PATIENCE)
    for item in (1, 2, 3):
        worker.put(item)
    assert not worker.offer(4)
    go.set()
    assert worker.stop(60, finish=True)
    assert (seen, len(replaced)) == ([0, 2, 3], 1)
    assert not worker.offer(5)


def taken(scene: int) -> tuple[Photo, Shot]:
    return Photo.of_pixels(pixels(scene)), Shot(scene, camera(), INFO, None)


def test_pictures_that_a_slow_disk_cannot_take_are_left_out_and_the_next_is_tried(tmp_path: Path) -> None:
    go, failures = threading.Event(), list[str]()

    class Slow(Recording):
        def add(self, *given: Any) -> str:
            go.wait(PATIENCE)
            return super().add(*given)

    health = Health()
    settings = RecorderParameters(queue=2)
    opened = Session(Slow(tmp_path / "clip", {}), settings, KeyframeConfig(), health, failures.append)
    outcomes = [opened.take(*taken(number), lambda: 0.0) for number in range(5)]
    assert outcomes[:2] == [None, None]
    assert outcomes[3:] == [session.SLOW, session.SLOW]  # one at most is being written, two wait
    go.set()
    assert opened.finish().endswith(f"{outcomes.count(None)} pictures kept")
    assert len(files(tmp_path / "clip")) == outcomes.count(None)
    assert not failures


def test_after_a_failure_nothing_is_taken_and_the_reason_stays(tmp_path: Path) -> None:
    done = threading.Event()

    class Broken(Recording):
        def add(self, *given: Any) -> str:
            raise OSError(5, "Input/output error")

    health = Health()
    opened = Session(Broken(tmp_path / "clip", {}), RecorderParameters(), KeyframeConfig(), health, lambda text: done.set())
    assert opened.take(*taken(0), lambda: 0.0) is None
    assert done.wait(PATIENCE)
    opened.take(*taken(1), lambda: 0.0)
    with pytest.raises(InvalidInput, match="recording stopped: Input/output error; 0 pictures kept"):
        opened.finish()
    assert sum(health.drops.values()) >= 1
    assert not (tmp_path / "clip").exists()
