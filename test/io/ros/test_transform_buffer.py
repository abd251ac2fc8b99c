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


def test_a_frame_that_changes_its_parent_keeps_its_past_and_the_older_pose_holds_between() -> (
    None
):
    tree = TransformTree()
    for second in (0, 1):
        tree.add("table", "cup", second * SECOND, np.array([second, 0.0, 0.0]), STILL)
    for second in (2, 3):
        tree.add("hand", "cup", second * SECOND, np.array([0.0, second, 0.0]), STILL)
    assert found(tree.lookup("table", "cup", SECOND // 2))[0, 3] == 0.5
    assert found(tree.lookup("table", "cup", 2 * SECOND - 1))[0, 3] == 1.0, "tf2 holds it"
    assert isinstance(tree.lookup("table", "cup", 2 * SECOND), str)
    assert found(tree.lookup("hand", "cup", 5 * SECOND // 2))[1, 3] == 2.5
    assert isinstance(tree.lookup("hand", "cup", 2 * SECOND - 1), str)
    assert tree.faults == {}


def test_two_publishers_with_different_parents_are_named_and_counted() -> None:
    tree = TransformTree()
    for tenth in range(10):
        parent = ("odom", "map")[tenth % 2]
        tree.add(parent, "base", tenth * SECOND // 10, np.zeros(3), STILL)
    assert tree.faults == {"'base' is in 'map' and in 'odom' at once": 8}


def test_two_publishers_of_one_pose_are_named_and_a_noisy_one_is_not() -> None:
    rng = np.random.default_rng(0)
    for apart, named in ((1.0, True), (0.0, False)):
        tree = TransformTree()
        for tenth in range(40):
            x = 0.02 * tenth + apart * (tenth % 2) + rng.normal(0, 0.01)
            tree.add("odom", "base", tenth * SECOND // 10, np.array([x, 0.0, 0.0]), STILL)
        assert ("'base' jumps between two places" in " ".join(tree.faults)) == named


def test_a_frame_that_becomes_static_or_moving_begins_anew_and_a_recording_keeps_both() -> (
    None
):
    trees = TransformTree(), TransformTree(math.inf, recording=True)
    for tree in trees:
        tree.add("a", "b", 5 * SECOND, np.array([1.0, 0, 0]), STILL, static=True, arrival=1)
        tree.add("a", "b", 5 * SECOND, np.array([1.0, 0, 0]), STILL, static=True, arrival=2)
        tree.add("a", "b", 6 * SECOND, np.array([2.0, 0, 0]), STILL, static=True, arrival=4)
        tree.add("a", "b", 7 * SECOND, np.array([3.0, 0, 0]), STILL, arrival=6)
        assert found(tree.lookup("a", "b", 7 * SECOND))[0, 3] == 3
        assert isinstance(tree.lookup("a", "b", 6 * SECOND), str)
        assert tree.faults == {
            "static 'b' has several poses in 'a'; the last one counts": 1,
            "'b' is static and moving by turns; the last one counts": 1,
        }
    recorded = trees[1]
    for arrival, x in ((0, 1), (3, 1), (4, 2), (5, 2), (6, 3)):
        assert found(recorded.lookup("a", "b", 7 * SECOND, arrival))[0, 3] == x


def test_a_recording_whose_time_jumps_back_has_two_histories() -> None:
    tree = TransformTree(math.inf, recording=True, jumps=(100,))
    tree.add("base", "camera", 0, np.zeros(3), STILL, static=True, arrival=0)
    for lap, x in ((0, 0.0), (1, 9.0)):
        for second in (1, 2):
            arrival = 100 * lap + second
            tree.add(
                "odom", "base", second * SECOND, np.array([x, 0, 0]), STILL, False, arrival
            )
    tree.add("odom", "other", SECOND, np.zeros(3), STILL, arrival=50)
    for arrival, x in ((1, 0), (99, 0), (100, 9), (150, 9)):
        assert found(tree.lookup("odom", "camera", 3 * SECOND // 2, arrival))[0, 3] == x
    assert "jump back of time" in str(tree.lookup("odom", "other", SECOND, 100))


def test_unusable_transforms_are_counted_by_reason_and_lengths_of_quaternions_are_normalized() -> (
    None
):
    tree = TransformTree()
    nan, far = np.array([np.nan, 0, 0]), np.array([1e300, 0, 0])
    for parent, child, translation, quaternion in (
        ("", "b", np.zeros(3), STILL),
        ("a", "", np.zeros(3), STILL),
        ("a", "a", np.zeros(3), STILL),
        ("a", "b", nan, STILL),
        ("a", "b", far, STILL),
        ("a", "b", np.zeros(3), np.zeros(4)),
        ("a", "b", np.zeros(3), np.array([np.nan, 0, 0, 1])),
        ("a", "b", np.zeros(3), np.array([np.inf, 0, 0, 1])),
    ):
        assert not tree.add(parent, child, 0, translation, quaternion)
    assert tree.add("a", "b", 0, np.zeros(3), np.array([0, 0, 0, 2.0]))
    assert tree.faults == {
        "transforms without the name of a frame": 2,
        "transforms of a frame into itself": 1,
        "transforms with a translation that is not finite": 2,
        "transforms with a quaternion without direction": 3,
        "quaternions that are not of length 1, normalized": 1,
    }
    assert tree.frames == ["a", "b"]


def test_a_circle_is_named_as_the_reason_where_tf2_fails_on_it() -> None:
    tree = TransformTree()
    for parent, child in (("a", "b"), ("b", "c"), ("c", "a"), ("b", "leaf")):
        tree.add(parent, child, 0, np.array([1.0, 0, 0]), STILL, static=True)
    assert found(tree.lookup("a", "leaf", 0))[0, 3] == 2, (
        "the target is met before the circle"
    )
    assert tree.lookup("elsewhere", "c", 0) == "the transforms go in a circle: c, b, a"
    assert "circle" in str(tree.lookup("leaf", "c", 0))


def test_stamps_of_another_clock_are_named_and_an_image_without_time_has_static_poses_only() -> (
    None
):
    tree = TransformTree()
    tree.add("odom", "base", 3 * SECOND, np.zeros(3), STILL)
    tree.add("base", "camera", 0, np.ones(3), STILL, static=True)
    assert str(tree.lookup("odom", "base", 1_700_000_000 * SECOND)).endswith(
        "the stamps of transforms and images are not of one clock"
    )
    assert tree.lookup("odom", "camera", None) == (
        "'base' moves, and the image has no stamp of its own"
    )
    assert isinstance(tree.lookup("base", "camera", None), np.ndarray)


def slow_lookup(
    added: list[tuple[str, str, int, np.ndarray, np.ndarray, bool]],
    target: str,
    source: str,
    stamp: int,
) -> np.ndarray | None:
    """What tf2 does, from all that was added, by brute force; no memory limit."""

    def parent_of(frame: str) -> tuple[str, np.ndarray] | None:
        of_frame = [item for item in added if item[1] == frame]
        if not of_frame:
            return None
        if of_frame[-1][5]:
            return of_frame[-1][0], matrix(list(of_frame[-1][3]), of_frame[-1][4])
        statics = [index for index, item in enumerate(of_frame) if item[5]]
        of_frame = of_frame[statics[-1] + 1 if statics else 0 :]
        by_stamp = {item[2]: item for item in of_frame}  # the last one of a stamp
        before = [time for time in by_stamp if time <= stamp]
        after = [time for time in by_stamp if time >= stamp]
        if not before or not after:
            return None
        one, two = by_stamp[max(before)], by_stamp[min(after)]
        if one[2] == two[2] or one[0] != two[0]:
            return one[0], matrix(list(one[3]), one[4])
        part = (stamp - one[2]) / (two[2] - one[2])
        turn = Slerp([0, 1], Rotation.from_quat(np.stack([one[4], two[4]])))(part).as_quat()
        return one[0], matrix(list(one[3] + part * (two[3] - one[3])), turn)

    def ancestors(frame: str) -> list[tuple[str, np.ndarray]]:
        way = [(frame, np.eye(4))]
        while (step := parent_of(way[-1][0])) is not None:
            way.append((step[0], step[1] @ way[-1][1]))
        return way

    up, down = ancestors(source), dict(ancestors(target))
    for frame, pose in up:
        if frame in down:
            return np.asarray(np.linalg.inv(down[frame]) @ pose)
    return None


@pytest.mark.parametrize("seed", range(3))
def test_random_trees_give_what_a_slow_twin_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"f{k}" for k in range(6)]
    tree, recorded = TransformTree(math.inf), TransformTree(math.inf, recording=True)
    added = []
    asked = known = 0
    for arrival in range(60):
        child = int(rng.integers(1, len(names)))
        # parents have lower numbers: no circles
        parent = int(rng.integers(0, child)) if rng.random() < 0.2 else child - 1
        item = (
            names[parent],
            names[child],
            int(rng.integers(1, 20)) * SECOND,
            rng.normal(size=3),
            Rotation.random(random_state=int(rng.integers(1 << 30))).as_quat(),
            bool(rng.random() < (0.1 if child % 2 else 0.0)),
        )
        added.append(item)
        for one in (tree, recorded):
            assert one.add(*item, arrival=arrival)
        for _ in range(3):
            target, source = rng.choice(names, 2)
            stamp = int(rng.integers(0, 42)) * SECOND // 2
            expected = slow_lookup(added, target, source, stamp)
            for one, answer in (
                (tree, tree.lookup(target, source, stamp)),
                (recorded, recorded.lookup(target, source, stamp, arrival)),
            ):
                assert isinstance(answer, np.ndarray) == (expected is not None), (
                    one,
                    answer,
                )
                if expected is not None:
                    np.testing.assert_allclose(found(answer), expected, atol=1e-9)
            asked, known = asked + 1, known + (expected is not None)
    assert 0.2 < known / asked < 0.9
