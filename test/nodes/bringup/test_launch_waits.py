"""RViz waits for an image, the player of a bag for an active node."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="launch_ros has no wheel; ros2 launch is needed")
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from launch_prefix import Prefix

# a node that can be configured or not, and is slow to start
LIFECYCLE = f"""exec {sys.executable} -c "
import rclpy, signal, time
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn as Answer
class Slow(LifecycleNode):
    def on_configure(self, state):
        time.sleep(0.5)
        return Answer.SUCCESS if ANSWER else Answer.FAILURE
signal.signal(signal.SIGINT, signal.SIG_DFL)
rclpy.init()
node = Slow('estimator', namespace='NAMESPACE' or None)
if str(node.trigger_configure()).endswith('SUCCESS'):
    node.trigger_activate()
rclpy.spin(node)
" """


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ros_domain: int) -> Prefix:
    return Prefix(tmp_path, monkeypatch)


@pytest.fixture
def camera(ros_domain: int) -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = Node("camera", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def node_is(prefix: Prefix, active: bool, namespace: str = "") -> None:
    """Write an estimator that becomes active, or that cannot be configured."""
    program = LIFECYCLE.replace("ANSWER", str(active)).replace("NAMESPACE", namespace)
    prefix.write("estimator", program, "uns_pose_ros")


@pytest.mark.parametrize("kind", [Image, CompressedImage])
def test_rviz_opens_in_the_frame_of_the_first_image(
    prefix: Prefix, camera: Node, kind: type
) -> None:
    topic = "/left/eye" + ("" if kind is Image else "/compressed")
    publisher = camera.create_publisher(kind, topic, 1)
    wait = f"while [ ! -e {prefix.out}/rviz2 ]; do sleep 0.05; done; sleep 0.3; exit 0"
    prefix.write("estimator", wait, "uns_pose_ros")
    ended = threading.Event()

    def film() -> None:
        message = kind()
        message.header.frame_id = "left_optical"
        while not ended.wait(0.1):
            publisher.publish(message)

    thread = threading.Thread(target=film)
    thread.start()
    try:
        given = {"namespace": "left", "image": "eye", "rviz": "true"}
        assert prefix.run("estimate", given) == 0
    finally:
        ended.set()
        thread.join()
    assert "-f left_optical" in prefix.arguments("rviz2")


def test_the_player_starts_when_the_node_is_active_and_the_launch_ends_after_it(
    prefix: Prefix, tmp_path: Path
) -> None:
    node_is(prefix, active=True, namespace="left")
    prefix.write("ros2", "exit 0")
    begun = time.monotonic()
    given = {"bag": str(tmp_path), "rviz": "false", "namespace": "left", "delay": "0"}
    assert prefix.run("replay", given) == 0
    assert prefix.arguments("ros2") == f"bag play {tmp_path} --clock --rate 1.0"
    assert time.monotonic() - begun > 3  # for the estimate of the last image
    assert "use_sim_time: true" in prefix.arguments("estimator.yaml")


def test_a_player_that_fails_ends_the_launch_with_an_error(
    prefix: Prefix, tmp_path: Path
) -> None:
    node_is(prefix, active=True)
    prefix.write("ros2", "exit 2")
    assert prefix.run("replay", {"bag": str(tmp_path), "rviz": "false"}) == 1


def test_a_node_that_cannot_be_configured_ends_the_replay_with_an_error(
    prefix: Prefix, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node_is(prefix, active=False)
    assert prefix.run("replay", {"bag": str(tmp_path), "rviz": "false"}) == 1
    assert "/estimator stays unconfigured" in caplog.text
    assert prefix.arguments("ros2") == ""


def test_rviz_stays_open_after_the_bag_and_ends_the_replay(
    prefix: Prefix, tmp_path: Path
) -> None:
    node_is(prefix, active=True)
    played = f"{prefix.out}/played"
    prefix.write("ros2", f"touch {played}; exit 0")
    wait = (
        f"while [ ! -e {played} ]; do sleep 0.05; done; sleep 1; touch {prefix.out}/closed"
    )
    prefix.write("rviz2", wait, "rviz2")
    assert prefix.run("replay", {"bag": str(tmp_path), "rviz_fixed_frame": "odom"}) == 0
    assert (prefix.out / "closed").exists()


def test_a_bag_without_images_on_the_topic_ends_the_replay_with_an_error(
    prefix: Prefix, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node_is(prefix, active=True)
    prefix.write("ros2", "exit 0")
    assert prefix.run("replay", {"bag": str(tmp_path), "image": "/wrong"}) == 1
    assert "no image came on /wrong" in caplog.text
