"""Which topics of a bag make the tree of transforms, and in which order their messages count."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

import bag_writer
from bag_writer import KINDS, header, make, transform, write_bag
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.recorded_transforms import read_transforms
from uns_pose_ros.io.ros.transform_buffer import TransformTree

SECOND = 10**9
TF = "tf2_msgs/msg/TFMessage"
# topic, arrival in s, stamp in s, parent, child, x of the child in m
Sent = tuple[str, float, float, str, str, float]


def at(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def robot(prefix: str, x: float, odom: str = "odom", names: str = "") -> list[Sent]:
    """A robot that stands at x for a second, with a camera on a static mount."""
    sent: list[Sent] = [
        (f"{prefix}/tf_static", 0.0, 0.0, f"{names}base", f"{names}cam", 10 * x)
    ]
    return sent + [
        (f"{prefix}/tf", k / 10, k / 10, odom, f"{names}base", x) for k in range(1, 11)
    ]


def read(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: Sequence[Sent],
    image_topic: str = "/cam/image_raw",
    tf_topic: str | None = None,
    frame: str = "cam",
    images: Sequence[tuple[float, float]] = ((0.5, 0.5),),
    wanted: str = "odom",
) -> TransformTree:
    """Write a bag with images at (arrival, stamp) in s and read its transforms."""
    image_kind = KINDS["/cam/image_raw"]
    for topic in {item[0] for item in sent}:
        monkeypatch.setitem(bag_writer.KINDS, topic, TF)
    monkeypatch.setitem(bag_writer.KINDS, image_topic, image_kind)
    messages: list[tuple[str, float, Any]] = [
        (topic, arrival, make(TF, transforms=[transform(stamp, parent, child, at(x))]))
        for topic, arrival, stamp, parent, child, x in sent
    ]
    for arrival, stamp in images:
        picture = bag_writer.raw(stamp, np.zeros((4, 4, 3), np.uint8))
        picture.header = header(stamp, frame)
        messages.append((image_topic, arrival, picture))
    messages.sort(key=lambda message: message[1])
    topics = {message[0] for message in messages}
    write_bag(folder / "bag", StoragePlugin.MCAP, topics, messages=messages)
    with rosbag.open_bag(folder / "bag") as reader:
        kinds = rosbag.kinds_of(reader)
        return read_transforms(
            folder / "bag", reader, kinds, image_topic, [wanted], tf_topic
        )


def x_of(
    tree: TransformTree, frame: str, stamp: float, arrival: float | None = None
) -> float | str:
    """x of a frame in odom at times in s, or why it is not known."""
    when = None if arrival is None else round(arrival * SECOND)
    pose = tree.lookup("odom", frame, round(stamp * SECOND), when)
    return pose if isinstance(pose, str) else float(pose[0, 3])


TWO = robot("/r1", 1.0) + robot("/r2", 2.0)


@pytest.mark.parametrize(
    ("sent", "image_topic", "tf_topic", "x"),
    [
        (TWO, "/r1/image", None, 11.0),
        (TWO, "/r2/front/image/compressed", None, 22.0),
        (TWO, "/cam/image", "/r2/tf", 22.0),
        (TWO, "/r1/image", "/r2/tf_static", 22.0),
        (robot("", 3.0) + TWO, "/r1/front/image", None, 11.0),
        (robot("", 3.0) + robot("/r1", 1.0), "/cam/image", None, 33.0),
        (robot("", 3.0) + robot("/r1", 1.0), "/r2/image", None, 33.0),
        # only the mount is the robot's own: it moves as the outer tree says
        (robot("", 3.0) + robot("/r1", 1.0)[:1], "/r1/image", None, 13.0),
        (robot("", 3.0) + robot("/r1", 1.0)[:1], "/cam/image", "/r1/tf", 13.0),
        # only the motion is: it has the outer mount
        (robot("", 3.0) + robot("/r1", 1.0)[1:], "/r1/image", None, 31.0),
        # remapped names
        (
            robot("/robot", 1.0) + [("/tf_old", *item[1:]) for item in robot("", 9.0)[1:]],
            "/robot/cam/image",
            None,
            11.0,
        ),
        # a relay sends the same once more
        (robot("", 3.0) + robot("/relay", 3.0), "/cam/image", None, 33.0),
    ],
)
def test_one_tree_counts_that_of_the_cameras_namespace_or_of_the_user(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: list[Sent],
    image_topic: str,
    tf_topic: str | None,
    x: float,
) -> None:
    tree = read(tmp_path, monkeypatch, sent, image_topic, tf_topic)
    assert x_of(tree, "cam", 0.55) == pytest.approx(x)


def test_what_is_left_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        read(tmp_path, monkeypatch, TWO, "/r1/image")
    assert (
        "transforms of /r1/tf; /r2/tf, /r2/tf_static left out, since the same frames are there"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("sent", "image_topic"),
    [
        (TWO, "/cam/image"),
        (TWO, "/r3/image"),
        (robot("/robot", 1.0) + robot("/robot_old", 2.0), "/image"),
    ],
)
def test_where_nothing_decides_both_trees_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: list[Sent], image_topic: str
) -> None:
    first, second = sorted({item[0] for item in sent if not item[0].endswith("_static")})
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, monkeypatch, sent, image_topic)
    assert (
        f"{first} and {second} both know base, cam, each in a tree of its own; "
        f"name one by --tf-topic: {first}, {second}"
    ) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(
        InvalidInput, match=r"no transforms on '/r9/tf'; topics with some: /r"
    ):
        read(tmp_path / "again", monkeypatch, sent, image_topic, "/r9/tf")


def test_the_frame_of_the_images_decides_where_one_tree_only_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = robot("/r1", 1.0) + robot("/r2", 2.0)
    sent.append(("/r2/tf_static", 0.0, 0.0, "base", "eye", 5.0))
    tree = read(tmp_path, monkeypatch, sent, frame="eye")
    assert x_of(tree, "eye", 0.5) == pytest.approx(7.0)


def test_trees_without_common_frames_are_one_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = robot("/r1", 1.0, names="r1/") + robot("/r2", 2.0, names="r2/")
    sent += [("/tf", 0.0, k / 10, "world", "odom", 4.0) for k in range(1, 11)]
    tree = read(tmp_path, monkeypatch, sent, wanted="world")
    assert x_of(tree, "r1/cam", 0.5) == pytest.approx(11.0)
    assert x_of(tree, "r2/cam", 0.5) == pytest.approx(22.0)
    assert x_of(tree, "world", 0.5) == pytest.approx(-4.0)


def test_messages_of_several_topics_count_in_the_order_of_their_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of two static poses counts, from its recording on, whatever its topic's name."""
    sent = robot("", 3.0)
    sent.append(("/a_static", 0.3, 0.0, "base", "other", 1.0))
    sent.append(("/tf_static", 0.6, 0.0, "base", "cam", 50.0))
    tree = read(tmp_path, monkeypatch, sent)
    assert x_of(tree, "cam", 0.5, 0.5) == pytest.approx(33.0)
    assert x_of(tree, "cam", 0.5, 0.6) == pytest.approx(53.0)
    assert x_of(tree, "cam", 0.5) == pytest.approx(53.0)


def test_contradictions_and_unusable_transforms_are_said_with_their_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent = robot("", 3.0)
    sent += [
        ("/tf", k / 10 + 0.05, k / 10 + 0.05, "map", "base", 7.0) for k in range(1, 11)
    ]
    sent.append(("/tf", 0.2, 0.2, "base", "base", 7.0))
    with caplog.at_level(logging.WARNING):
        read(tmp_path, monkeypatch, sent)
    assert "transforms: 'base' is in 'map' and in 'odom' at once (18 times)" in caplog.text
    assert "transforms: transforms of a frame into itself (1 times)" in caplog.text


def test_a_bag_that_was_recorded_in_a_loop_has_the_poses_of_each_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = robot("", 1.0)
    second = [("/tf", item[1] + 2, *item[2:5], 8.0) for item in first[1:]]
    images = [(k / 10 + lap, k / 10) for lap in (0, 2) for k in (2, 9)]
    with caplog.at_level(logging.WARNING):
        tree = read(tmp_path, monkeypatch, first + second, images=images)
    assert [x_of(tree, "cam", 0.15, arrival) for arrival, _ in images] == pytest.approx(
        [11, 11, 18, 18]
    )
    assert "time jumps back 1 times" in caplog.text


def test_stamps_out_of_order_are_no_jump_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = robot("", 1.0)
    late = [
        ("/tf", 1.5 + k / 100, k / 100, "odom", "thing", float(k)) for k in (90, 5, 50, 20)
    ]
    images = [(k / 10, k / 10) for k in range(1, 20)]
    tree = read(tmp_path, monkeypatch, sent + late, images=images)
    assert x_of(tree, "thing", 0.35, 0.35) == pytest.approx(35.0)
    assert x_of(tree, "cam", 0.35, 1.9) == pytest.approx(11.0)
