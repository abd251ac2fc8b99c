"""A request is answered for one image, also for one that is past, while the node is busy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")
from rclpy.duration import Duration
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from ros_robot import PATIENCE, Robot
from scripted_node import ASKED, MEMORY
from uns_pose_ros.nodes import PoseClient
from uns_pose_ros.nodes.diagnostics import NodeDiagnostics
from uns_pose_ros.nodes.estimator.on_demand import pose_requests
from uns_pose_ros.nodes.estimator.on_demand.pose_requests import PoseRequests, group_regions
from uns_pose_ros.nodes.image_stamps import stamp_ns
from uns_pose_ros.nodes.pose_client import _request_message

SECOND = 10**9


@pytest.fixture
def client(plain: Robot) -> Iterator[PoseClient]:
    with PoseClient(context=plain.context) as client:
        client._request_publisher()
        topic = "/estimator/request"
        plain.wait("the request's publisher", lambda: plain.node.count_publishers(topic))
        plain.calibrate()
        # an answer shows that the node knows the publisher too: from now on it keeps images
        ask(plain, client)
        yield client


def ask(
    robot: Robot,
    client: PoseClient,
    category: str = "",
    stamp: int = 0,
    boxes: Sequence[Sequence[float]] = (),
) -> Any:
    """Call `estimate` in another thread, so that this end goes on."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.estimate, category, stamp, boxes, 60.0)
        robot.wait("an answer", future.done)
    return future.result()


def test_a_request_is_answered_for_the_newest_and_for_a_past_image_in_its_boxes(
    plain: Robot, client: PoseClient
) -> None:
    robot = plain
    robot.show(1, 1)
    robot.results(1)
    for seconds in (2, 3):
        robot.show(2, seconds)
        robot.results(seconds)
    newest = ask(robot, client, "car")
    assert [pose.stamp for pose in newest] == [3 * SECOND] * 2
    assert {(pose.category, pose.track, pose.frame) for pose in newest} == {
        ("car", -1, "camera")
    }
    boxes = [(10, 10, 60, 60), (100, 10, 150, 60), (300, 10, 350, 60)]
    inside = ask(robot, client, "car", 3 * SECOND, boxes)
    assert [pose.frame_from_canon[0, 3] for pose in inside] == [0.0, 1.0, 2.0]
    # the client's other answers and the tracks are as before
    assert client.pose_at("car", 3 * SECOND) is not None
    robot.show(2, 4)
    assert [d.id for d in robot.results(4)["detections"][0].detections] == ["0", "1"]
    assert len(ask(robot, client, stamp=3 * SECOND)) == 2


def test_a_request_comes_before_the_images_that_wait(
    plain: Robot, client: PoseClient
) -> None:
    robot = plain
    robot.show(1, ASKED)
    robot.results(ASKED)
    in_work, waiting = ASKED + 1, ASKED + 2
    robot.show(1, in_work, held=True)
    robot.wait_until_held()
    robot.show(1, waiting)
    assert robot.images.wait_for_all_acked(Duration(seconds=PATIENCE))
    (pose,) = ask(robot, client, "car", ASKED * SECOND)
    assert pose.stamp == ASKED * SECOND

    def order() -> list[tuple[int, str]]:
        return [
            (stamp_ns(m) // SECOND, m.detections[0].id)
            for m in robot.received["detections"]
            if m.detections  # the client's first request came before all images
        ]

    robot.results(waiting)
    assert order().index((ASKED, "-1")) < order().index((waiting, "0")), order()


def test_what_cannot_be_answered_is_empty_and_has_a_line_in_diagnostics(
    plain: Robot, client: PoseClient
) -> None:
    robot = plain
    assert ask(robot, client) == []
    robot.diagnosis("request of stamp 0.000 s refused: no image has come")
    robot.show(1, 5)
    robot.results(5)
    assert ask(robot, client, "car", 77 * SECOND) == []
    robot.diagnosis(
        f"request of stamp 77.000 s refused: no image of the last {MEMORY:.0f} s has its stamp"
    )
    assert ask(robot, client, "unicorn") == []
    robot.diagnosis("regions of requests left out: another class than car")
    assert ask(robot, client, "car", boxes=[(2000, 10, 2100, 60)]) == []
    robot.diagnosis("regions of requests left out: outside the image or narrower than 4 px")
    robot.show(255, 6)
    robot.diagnosis("scripted fault")
    assert ask(robot, client, "car") == []
    robot.diagnosis(
        "request of stamp 0.000 s refused: failed: RuntimeError: scripted fault"
    )
    robot.call(SetBool, "/estimator/enable", SetBool.Request(data=False))
    assert ask(robot, client, "car") == []
    robot.diagnosis("request of stamp 0.000 s refused: no image has come")
    robot.renew(enabled=True)


def test_images_are_kept_for_two_seconds_and_only_while_somebody_may_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    publishers = 0
    monkeypatch.setattr(pose_requests.time, "monotonic", lambda: now)
    node = SimpleNamespace(
        create_subscription=lambda *_: SimpleNamespace(topic_name="~/request"),
        count_publishers=lambda topic: publishers,
        get_logger=lambda: SimpleNamespace(warning=lambda *_, **__: None),
    )
    answered: list[Any] = []

    def at_once(job: Callable[[], None], most: int) -> bool:
        job()
        return True

    refused: list[Header] = []
    requests = PoseRequests(
        node,  # type: ignore[arg-type]
        NodeDiagnostics(),
        at_once,
        lambda item, request: answered.append(item[0].header.stamp.sec),
        refused.append,
    )

    def send(seconds: int) -> None:
        image = SimpleNamespace(header=Header())
        image.header.stamp.sec = seconds
        item: Any = (image, None, {})
        requests.add(item)

    def ask_for(seconds: int) -> None:
        requests._on_request(_request_message("", seconds * SECOND, ()))

    send(1)
    send(2)
    for seconds in (1, 2, 0):
        ask_for(seconds)
    assert (answered, len(refused)) == ([2, 2], 1)
    publishers = 1
    for now, seconds in ((1.0, 3), (1.5, 4), (3.2, 5)):  # noqa: B007
        send(seconds)
    for seconds in (2, 3, 4, 5, 0):
        ask_for(seconds)
    assert (answered[2:], len(refused)) == ([4, 5, 5], 3)


def test_regions_are_grouped_by_their_best_known_class() -> None:
    left_out: Counter[str] = Counter()
    boxes = [(0.0, 0.0, 9.0, 9.0), (5.0, 0.0, 9.0, 9.0)]
    request = _request_message("mug", 0, boxes)
    request.detections += _request_message("", 0, boxes[:1]).detections
    request.detections += _request_message("shoe", 0, boxes).detections
    groups = group_regions(request, ["mug", "car"], left_out)
    assert {name: len(group.detections) for name, group in groups.items() if group} == {
        "mug": 2,
        "": 1,
    }
    assert left_out == {"another class than car, mug": 2}
    assert group_regions(Detection2DArray(), ["mug"], left_out) == {"": None}
    assert group_regions(_request_message("mug", 0, ()), ["mug"], left_out) == {"mug": None}
