"""What a node says and does where the stamps of images are no times."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
from std_msgs.msg import Header

from uns_pose_ros.nodes.estimator.image_subscriber import lost_count
from uns_pose_ros.nodes.image_stamps import StampOrder, StampWatch, stamp_ns

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
EXTREMES = [(0, 0), (-1, 0), (-(2**31), 0), (2**31 - 1, 2**32 - 1), (1, 2**32 - 1), (-1, 1)]


@pytest.mark.parametrize(
    ("stamps", "said", "dropped"),
    [
        ([NOW, NOW + 1, NOW + 2], "", 0),
        ([NOW, NOW, NOW + 1], "", 0),  # one image came twice
        ([0, 0, 0], "stamp 0", 0),
        ([5, 5, 5, 5], "does not advance", 0),
        ([NOW, NOW - SECOND], "an earlier stamp", 0),
        ([NOW + 60 * SECOND], "later than this node's clock", 0),
        ([NOW, 7 * SECOND, NOW + 1, 8 * SECOND], "an earlier stamp", 0),  # two clocks
        ([-1, -5], "a negative stamp", 2),
    ],
)
def test_stamps_that_are_no_times_are_said_and_counted(
    stamps: list[int], said: str, dropped: int
) -> None:
    watch = StampWatch()
    assert sum(watch.take(stamp, NOW) for stamp in stamps) == dropped
    report = watch.report("/image")
    assert said in report and bool(report) == bool(said)
    assert not said or sum(watch.counts().values()) >= 1


def test_an_image_that_came_twice_is_not_processed_and_stamps_that_stand_still_are() -> (
    None
):
    for stamp, processed in ((0, [True] * 5), (5, [True, False, True, True, True])):
        order = StampOrder()
        times = []
        taken = []
        for _ in range(5):
            taken.append(order.advance(stamp, pytest.fail))
            times.append(order.time)
        assert taken == processed
        assert not order.is_time
        assert times == sorted(times), "the tracker's time advances"
    assert order.advance(6, lambda: None)
    assert order.is_time
    assert order.time == 6


def test_any_stamp_of_a_message_can_be_taken() -> None:
    for pair in itertools.product(EXTREMES, EXTREMES):
        watch, order = StampWatch(), StampOrder()
        for sec, nanosec in pair:
            header = Header()
            header.stamp.sec, header.stamp.nanosec = sec, nanosec
            stamp = stamp_ns(SimpleNamespace(header=header))
            assert watch.take(stamp, NOW) == (stamp < 0)
            if stamp >= 0:
                order.advance(stamp, order.forget)
                assert order.time >= stamp


@pytest.mark.parametrize(
    ("total", "change", "count"),
    [(5, 2, 2), (5, 5, 5), (1, 0, 1), (2**64 - 5, 2**64 - 427_000_000, 1), (3, 7, 1)],
)
def test_counts_that_the_middleware_left_unset_are_no_number_of_lost_messages(
    total: int, change: int, count: int
) -> None:
    event = SimpleNamespace(total_count=total, total_count_change=change)
    assert lost_count(event) == count
