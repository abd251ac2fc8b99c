"""A node that gets many requests at once answers each, still works, and ends on SIGTERM."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
from lifecycle_msgs.srv import GetAvailableStates, GetState
from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from ros_film import Film
from ros_robot import PATIENCE, Robot

CLIENTS = 3  # of each service
# requests of a client in a flood, and in one that the middleware, which keeps 10, loses nothing of
MANY, FEW = 20, 3


def requests_of(target: str, triggers: tuple[str, ...]) -> dict[str, tuple[type, Any]]:
    """Type and request by name of a service; some are nonsense."""
    values = (
        Parameter("no_such", value=1),
        Parameter("score", value="x"),
        Parameter("x" * 5000, value=[1.0] * 5000),
    )
    given = SetParameters.Request(parameters=[value.to_parameter_msg() for value in values])
    names = DescribeParameters.Request(names=["no_such", "", "x" * 5000])
    return {
        **{f"{target}/{name}": (Trigger, Trigger.Request()) for name in triggers},
        f"{target}/get_state": (GetState, GetState.Request()),
        f"{target}/get_available_states": (
            GetAvailableStates,
            GetAvailableStates.Request(),
        ),
        f"{target}/list_parameters": (ListParameters, ListParameters.Request()),
        f"{target}/describe_parameters": (DescribeParameters, names),
        f"{target}/set_parameters": (SetParameters, given),
    }


def flood(robot: Robot, services: dict[str, tuple[type, Any]]) -> None:
    """Send very many requests of each service together, then a few, and wait for their answers."""
    clients = [
        (robot.node.create_client(kind, name), request)
        for name, (kind, request) in services.items()
        for _ in range(CLIENTS)
    ]
    robot.wait("services", lambda: all(c.service_is_ready() for c, _ in clients))
    lost = [(c, c.call_async(request)) for _ in range(MANY) for c, request in clients]
    robot.state()  # behind the flood
    for client, future in lost:
        client.remove_pending_request(future)
    sent = [
        (client.srv_name, client.call_async(request))
        for _ in range(FEW)
        for client, request in clients
    ]
    try:
        robot.wait("answers", lambda: all(future.done() for _, future in sent))
    except AssertionError:
        names = [name for name, future in sent if not future.done()]
        raise AssertionError(f"no answer: {names}") from None
    assert all(future.result() is not None for _, future in sent)
    for client, _ in clients:
        robot.node.destroy_client(client)


@pytest.mark.parametrize("node", ["estimator", "recorder"])
def test_a_flood_of_requests_is_answered_and_the_node_still_works_and_ends_on_sigterm(
    ros_domain: int, tmp_path: Path, node: str
) -> None:
    robot = Robot(ros_domain) if node == "estimator" else Film(ros_domain)
    try:
        if isinstance(robot, Film):
            process = robot.record(f"category:={tmp_path / 'mug'}")
            triggers: tuple[str, ...] = ("start", "stop")
        else:
            process = robot.start("-p", "models:=[plain]")
            triggers = ("reset",)
        robot.wait_until_listening()
        flood(robot, requests_of(robot.target, triggers))
        assert robot.state() == "active"
        if isinstance(robot, Film):
            robot.stop()
            assert robot.begin().success and robot.stop().success
        else:
            robot.calibrate()
            robot.show(2, 10)
            assert robot.results(10)["detections"]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, log
        assert "Traceback" not in log
    finally:
        robot.close()
