"""How the estimator node starts, is managed and ends, in a process of its own."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter

from interrupted_node import STAGES, stop_at
from ros_robot import PATIENCE, Robot

PLAIN = ("-p", "models:=[plain]")


def test_a_model_that_cannot_be_loaded_is_a_failed_configure_with_one_line_and_may_be_tried_again(
    robot: Robot,
) -> None:
    node = robot.start("-p", "models:=[nothing_there]")
    robot.diagnosis(
        "cannot configure: ['nothing_there']: there is no model; plain or size are valid"
    )
    assert robot.state() == "unconfigured"
    assert not robot.transition(Transition.TRANSITION_CONFIGURE)
    assert robot.set(Parameter("models", value=["plain"])).successful
    assert robot.transition(Transition.TRANSITION_CONFIGURE)
    assert robot.transition(Transition.TRANSITION_ACTIVATE)
    robot.wait_until_listening()
    code, log = robot.interrupt(node)
    assert code == 0, log
    assert log.count("nothing_there") == 2  # one line for each attempt
    assert "Traceback" not in log


def test_a_lifecycle_manager_starts_stops_and_restarts_it_where_autostart_is_off(
    robot: Robot,
) -> None:
    node = robot.start(*PLAIN, "-p", "autostart:=false")
    assert robot.state() == "unconfigured"
    for _ in range(2):  # everything is made anew the second time
        assert robot.transition(Transition.TRANSITION_CONFIGURE)
        assert robot.images.get_subscription_count() == 0
        refused = robot.set(Parameter("device", value="cuda:7"))
        assert "device: read by configure only" in refused.reason
        assert robot.set(Parameter("frame_prefix", value="a/")).successful
        assert "no blanks" in robot.set(Parameter("frame_prefix", value="a b")).reason
        assert robot.transition(Transition.TRANSITION_ACTIVATE)
        robot.wait_until_listening()
        robot.calibrate()
        robot.received["detections"].clear()
        robot.show(1, seconds=5)
        robot.results(5)
        assert robot.transition(Transition.TRANSITION_DEACTIVATE)
        robot.wait("silence", lambda: robot.images.get_subscription_count() == 0)
        assert robot.transition(Transition.TRANSITION_CLEANUP)
    assert robot.set(Parameter("models", value=["size"])).successful
    assert robot.transition(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert robot.state() == "finalized"
    assert robot.interrupt(node)[0] == 0


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_at_any_moment_ends_clean(robot: Robot, stage: str) -> None:
    """Ctrl-C comes during the import, before rclpy, while the node is made, and while it runs."""
    process = robot.start(
        "-p", "models:=[nothing_there]", program=("-c", stop_at("estimator", stage))
    )
    robot.wait_for_line(process, stage)
    code, log = robot.interrupt(process)
    assert code == 0, log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "argument", ["transport:=theora", "object_diameter:=-1.0", "models:=plain"]
)
def test_a_bad_parameter_ends_the_start_with_code_2_and_one_line(
    robot: Robot, argument: str
) -> None:
    process = robot.start("-p", argument)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert len(log.splitlines()) == 1
    assert argument.split(":=")[0] in log
