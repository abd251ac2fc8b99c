"""Control of the recorder node: services, parameters, states, and unusable input."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
from lifecycle_msgs.msg import Transition
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter

from camera_ring import view
from ros_film import STAMPS, Film, files, pixels
from ros_robot import PATIENCE
from uns_pose_ros.capture.recording import Recording
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.nodes.recorder.recorder_node import SETTINGS, RecorderNode


def test_recordings_follow_each_other_and_can_be_continued(
    film: Film, tmp_path: Path
) -> None:
    for clip, numbers in (
        ("", range(3)),
        ("", range(3)),
        ("clip_01", range(3, 5)),
        ("left side", range(3)),
    ):
        assert film.set(Parameter("clip", value=clip)).successful
        assert film.begin().success
        film.calibrate()
        for number in numbers:
            film.film(pixels(number), next(STAMPS))
        film.wait_for(kept=numbers.stop)
        assert film.stop().success
    assert sorted(path.name for path in (tmp_path / "mug").iterdir()) == [
        "clip_01",
        "clip_02",
        "left side",
    ]
    assert [len(files(folder)) for folder in sorted((tmp_path / "mug").iterdir())] == [
        5,
        3,
        3,
    ]


def test_a_folder_that_another_recorder_writes_is_refused_in_one_line(
    film: Film, tmp_path: Path
) -> None:
    other = Recording.open_or_recover(tmp_path / "mug" / "clip_01", {})
    assert film.set(Parameter("clip", value="clip_01")).successful
    refused = film.begin()
    assert not refused.success
    assert "clip_01" in refused.message and "is at work here" in refused.message
    assert "\n" not in refused.message
    assert film.set(Parameter("clip", value="")).successful
    assert film.begin().message.endswith("clip_02")  # a free one
    film.stop()
    other.close()


def test_services_and_parameters_answer_in_every_state(film: Film, tmp_path: Path) -> None:
    assert (film.stop().success, film.stop().message) == (False, "not recording")
    assert (
        "deactivate the node first"
        in film.set(Parameter("fixed_frame", value="odom")).reason
    )
    for name, value, reason in (
        ("clip", "../mug", "a name such as clip_01"),
        ("format", "gif", "one of jpg, png is valid"),
        ("jpeg_quality", 0, "Min: 1, Max: 100"),
        ("view_angle", 46.0, "Min: 0.0, Max: 45.0"),
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
    assert (
        refused.success,
        "no category: set the parameter category" in refused.message,
    ) == (False, True)
    (tmp_path / "mug").mkdir(exist_ok=True)
    (tmp_path / "mug" / "file").write_text("in the way")
    assert film.set(Parameter("category", value=str(tmp_path / "mug" / "file"))).successful
    refused = film.begin()
    assert (refused.success, "cannot record" in refused.message) == (False, True)


def test_an_uncalibrated_camera_is_recorded_only_where_no_poses_are_asked_for(
    film: Film, tmp_path: Path
) -> None:
    assert film.begin().success
    film.calibrate(k=[0.0] * 9)
    for number in range(3):
        film.film(pixels(number), next(STAMPS))
    film.wait_for(kept=3)
    assert "recorded without calibration" in film.statuses[-1].message
    assert film.stop().success
    assert read_json(tmp_path / "mug" / "clip_01" / "video.json")["cameras"][0]["K"] is None
    film.anew(fixed_frame="odom")
    assert film.begin().success
    unusable = film.base().get("dropped: unusable image or camera_info", 0)
    film.calibrate(k=[0.0] * 9)
    stamp = next(STAMPS)
    film.place(stamp, view(0.0))
    film.film(pixels(0), stamp)
    film.wait_for(unusable_image_or_camera_info=unusable + 1)
    assert "poses without calibration are of no use" in film.statuses[-1].message
    assert film.stop().success


def test_unreadable_images_are_reported_and_the_recording_goes_on(
    film: Film, tmp_path: Path
) -> None:
    film.anew(transport="compressed")
    assert film.begin().success
    unusable = film.base().get("dropped: unusable image or camera_info", 0)
    film.calibrate()
    whole = film.film(pixels(0), next(STAMPS), compressed=True)
    film.film(pixels(1), next(STAMPS), compressed=True, data=whole[: len(whole) // 2])
    film.film(pixels(1), next(STAMPS), compressed=True, data=b"no image")
    film.wait_for(kept=1, unusable_image_or_camera_info=unusable + 2)
    last = film.film(pixels(2), next(STAMPS), compressed=True)
    film.wait_for(kept=2)
    assert film.stop().success
    assert files(tmp_path / "mug" / "clip_01") == [whole, last]


def test_a_bad_parameter_ends_the_start_with_code_2_and_one_line(own: Film) -> None:
    process = own.record("transport:=theora")
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
        ("category:=~nosuchuser/x", "category '~nosuchuser/x': there is no such user"),
        ("view_angle:=-1.0", "Min: 0.0, Max: 45.0"),
    ],
)
def test_parameters_that_are_not_valid_are_refused_with_what_is(
    own: Film, argument: str, reason: str
) -> None:
    with pytest.raises((InvalidInput, ParameterException), match=reason):
        RecorderNode(context=own.context, cli_args=["--ros-args", "-p", argument])


def test_every_parameter_is_described_and_every_number_has_a_range(own: Film) -> None:
    made = RecorderNode(context=own.context)
    for settings in SETTINGS:
        for item in dataclasses.fields(settings):
            description = made.describe_parameter(item.name)
            assert len(description.description) > 10
            assert len(description.floating_point_range) + len(
                description.integer_range
            ) == (type(item.default) in (int, float)), item.name
    made.destroy_node()
