"""Transforms over time: chains, interpolation, and what is not known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from uns_pose_ros.io.ros.transform_buffer import TransformTree

SECOND = 10**9
STILL = np.array([0.0, 0.0, 0.0, 1.0])


def matrix(translation: list[float], quaternion: np.ndarray = STILL) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), translation
    return pose


def about_z(degrees: float) -> np.ndarray:
    return Rotation.from_euler("z", degrees, degrees=True).as_quat()


@pytest.fixture
def tree() -> TransformTree:
    """map > odom > base > camera (static).

    Odom is known later than base, base turns by 90 degrees a second.
    """
    tree = TransformTree()
    for second in range(5):
        tree.add(
            "odom",
            "base",
            second * SECOND,
            np.array([second, 0.0, 0.0]),
            about_z(90 * second),
        )
    tree.add("map", "odom", 3 * SECOND, np.array([0.0, 10.0, 0.0]), STILL)
    tree.add("base", "camera", 0, np.array([0.0, 0.0, 1.0]), STILL, static=True)
    return tree


def found(answer: np.ndarray | str) -> np.ndarray:
    assert isinstance(answer, np.ndarray), answer
    return answer


def test_at_a_known_stamp_a_chain_is_the_product_of_its_poses(tree: TransformTree) -> None:
    expected = matrix([0, 10, 0]) @ matrix([3, 0, 0], about_z(270)) @ matrix([0, 0, 1])
    assert np.allclose(
        found(tree.lookup("map", "camera", 3 * SECOND)), expected, atol=1e-12
    )
    assert np.allclose(
        found(tree.lookup("camera", "map", 3 * SECOND)), np.linalg.inv(expected), atol=1e-12
    )
    assert np.allclose(found(tree.lookup("camera", "camera", 17)), np.eye(4))


def test_between_stamps_poses_are_interpolated() -> None:
    rng = np.random.default_rng(0)
    ends = Rotation.random(2, random_state=1)
    quaternions = [
        ends[0].as_quat(),
        -ends[1].as_quat(),
    ]  # the sign of a quaternion means nothing
    places = rng.normal(size=(2, 3))
    tree = TransformTree()
    for k in (0, 1):
        tree.add("odom", "camera", k * SECOND, places[k], quaternions[k])
    for part in (0.0, 0.1, 0.5, 0.9, 1.0):
        pose = found(tree.lookup("odom", "camera", round(part * SECOND)))
        assert np.allclose(
            pose[:3, 3], (1 - part) * places[0] + part * places[1], atol=1e-12
        )
        assert np.allclose(pose[:3, :3], Slerp([0, 1], ends)(part).as_matrix(), atol=1e-9)


def test_nothing_is_extrapolated_and_only_the_way_needed_must_be_known(
    tree: TransformTree,
) -> None:
    assert (
        tree.lookup("odom", "camera", 5 * SECOND)
        == "'base' is known in 'odom' from -5.000 to -1.000 s about the image only"
    )
    assert isinstance(tree.lookup("odom", "camera", -1), str)
    assert isinstance(tree.lookup("map", "camera", SECOND), str)
    assert np.allclose(
        found(tree.lookup("odom", "camera", SECOND)),
        matrix([1, 0, 0], about_z(90)) @ matrix([0, 0, 1]),
    )
    assert isinstance(found(tree.lookup("base", "camera", 99 * SECOND)), np.ndarray)


def test_frames_without_connection_are_named(tree: TransformTree) -> None:
    there = "are not connected by transforms; there are base, camera, map, odom"
    assert tree.lookup("world", "camera", 3 * SECOND) == f"'world' and 'camera' {there}"
    assert tree.lookup("map", "lidar", 3 * SECOND) == f"'map' and 'lidar' {there}"
    assert str(TransformTree().lookup("a", "b", 0)).endswith("there are none")


def test_a_circle_ends() -> None:
    tree = TransformTree()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a")):
        tree.add(parent, child, 0, np.zeros(3), STILL, static=True)
    assert isinstance(tree.lookup("elsewhere", "a", 0), str)


def test_transforms_may_come_in_any_order_and_the_same_stamp_counts_once() -> None:
    tree = TransformTree()
    for stamp, x in ((3, 3.0), (1, 1.0), (2, 9.0), (2, 2.0)):
        assert tree.add("odom", "camera", stamp * SECOND, np.array([x, 0.0, 0.0]), STILL)
    for half in (2, 3, 4, 5, 6):
        assert found(tree.lookup("odom", "camera", half * SECOND // 2))[
            0, 3
        ] == pytest.approx(half / 2)


def test_old_poses_are_forgotten_and_useless_ones_not_taken(tree: TransformTree) -> None:
    tree.add("odom", "base", 12 * SECOND, np.zeros(3), STILL)
    assert isinstance(tree.lookup("odom", "base", SECOND), str)
    assert isinstance(found(tree.lookup("odom", "base", 2 * SECOND)), np.ndarray)
    assert not tree.add("odom", "base", SECOND, np.zeros(3), STILL)
    assert not tree.add("odom", "base", 12 * SECOND, np.array([np.nan, 0, 0]), STILL)
    assert not tree.add("odom", "base", 12 * SECOND, np.zeros(3), np.zeros(4))
    assert not tree.add("odom", "odom", 12 * SECOND, np.zeros(3), STILL)


def test_a_recording_is_kept_whole_and_not_bridged_over_a_long_gap() -> None:
    tree = TransformTree(math.inf, gap=0.5)
    for second in (0, 100, 102):
        tree.add("odom", "camera", second * SECOND, np.array([second, 0.0, 0.0]), STILL)
    assert found(tree.lookup("odom", "camera", 0))[0, 3] == 0
    assert found(tree.lookup("odom", "camera", 102 * SECOND))[0, 3] == 102
    told = "'camera' is known in 'odom' not for 2.0 s about the image; 0.5 s are bridged"
    assert tree.lookup("odom", "camera", 101 * SECOND) == told


def test_messages_are_taken_with_their_stamps_and_without_leading_slashes() -> None:
    tree = TransformTree()
    point, turn = (
        SimpleNamespace(x=1.0, y=2.0, z=3.0),
        SimpleNamespace(x=0.0, y=0.0, z=0.0, w=2.0),
    )
    header = SimpleNamespace(frame_id="/odom", stamp=SimpleNamespace(sec=7, nanosec=5))
    one = SimpleNamespace(
        header=header,
        child_frame_id="/camera",
        transform=SimpleNamespace(translation=point, rotation=turn),
    )
    tree.take(SimpleNamespace(transforms=[one]), static=False)
    assert np.allclose(
        found(tree.lookup("odom", "camera", 7 * SECOND + 5)), matrix([1, 2, 3])
    )
    assert isinstance(tree.lookup("odom", "camera", 7 * SECOND), str)
    assert tree.frames == ["camera", "odom"]


def test_after_time_has_jumped_back_only_static_transforms_are_known(
    tree: TransformTree,
) -> None:
    tree.clear()
    assert isinstance(tree.lookup("odom", "base", 3 * SECOND), str)
    assert np.allclose(found(tree.lookup("base", "camera", 0)), matrix([0, 0, 1]))
    assert tree.add("odom", "base", 0, np.zeros(3), STILL)


def test_a_frame_that_gets_another_parent_hangs_there_only(tree: TransformTree) -> None:
    tree.add("dock", "base", 3 * SECOND, np.array([0.0, 0.0, 7.0]), STILL)
    assert found(tree.lookup("dock", "camera", 3 * SECOND))[2, 3] == 8
    assert isinstance(tree.lookup("odom", "camera", 3 * SECOND), str)
