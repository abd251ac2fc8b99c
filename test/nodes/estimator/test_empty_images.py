"""A node that finds nothing says how near the best pose came to the threshold."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context

from local_estimator import assign, close, make_node, send
from scripted_node import ScriptedEstimator
from uns_pose_ros.nodes.diagnostics import WARN
from uns_pose_ros.nodes.estimator.empty_images import PATIENCE
from uns_pose_ros.nodes.estimator.estimator_node import EstimatorNode


class Strict(ScriptedEstimator):
    """Has a pose with a score below the threshold in every image."""

    best: ClassVar[float | None] = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.best_rejected = self.best
        return super().__call__(*arguments, **options)


@pytest.fixture
def node(ros_context: Context) -> Iterator[EstimatorNode]:
    """An active node."""
    made = make_node(ros_context, make=Strict)
    yield made
    close(made)


def see_nothing(node: EstimatorNode, best: float | None, count: int, begin: float) -> None:
    Strict.best = best
    for k in range(count):
        send(node, 0, begin + k)


def diagnose(node: EstimatorNode) -> tuple[DiagnosticStatus, str]:
    """The status of a node, and what it says of images without an object."""
    sent: list[DiagnosticArray] = []
    node._diagnostics_publisher = cast(Any, SimpleNamespace(publish=sent.append))
    node._tick()
    (status,) = sent[-1].status
    values = {value.key: value.value for value in status.values}
    return status, values.get("images without an object", "")


def test_a_score_near_the_threshold_is_a_warning_until_an_object_is_found(
    node: EstimatorNode,
) -> None:
    assign(node, solver__score_threshold=0.22)
    see_nothing(node, 0.17, PATIENCE - 1, 1.0)
    assert diagnose(node)[1] == ""
    see_nothing(node, 0.1, 1, 50.0)
    status, text = diagnose(node)
    assert text == "nothing found: best score 0.17, threshold 0.22"
    assert status.level == WARN
    assert text in status.message
    send(node, 1, 51.0)
    status, text = diagnose(node)
    assert text == ""
    assert "nothing found" not in status.message


@pytest.mark.parametrize(
    ("best", "text"),
    [
        (0.05, "nothing found: best score 0.05, threshold 0.22"),
        (None, "nothing found: no region looks like an object"),
    ],
)
def test_a_scene_without_an_object_is_no_warning(
    node: EstimatorNode, best: float | None, text: str
) -> None:
    assign(node, solver__score_threshold=0.22, object_diameter=0.3)
    see_nothing(node, best, PATIENCE, 1.0)
    status, shown = diagnose(node)
    assert shown == text
    assert "nothing found" not in status.message


def test_a_high_threshold_that_hides_what_the_default_shows_is_a_warning(
    node: EstimatorNode,
) -> None:
    assign(node, solver__score_threshold=0.5)
    see_nothing(node, 0.3, PATIENCE, 1.0)
    assert "best score 0.30, threshold 0.50" in diagnose(node)[0].message


def test_another_threshold_and_a_reset_begin_anew(node: EstimatorNode) -> None:
    assign(node, solver__score_threshold=0.5)
    see_nothing(node, 0.45, PATIENCE, 1.0)
    assert assign(node, solver__score_threshold=0.48) == ""
    see_nothing(node, 0.45, 1, 50.0)
    assert diagnose(node)[1] == ""
    see_nothing(node, 0.45, PATIENCE, 51.0)
    assert diagnose(node)[1] != ""
    assert node._estimation is not None
    node._estimation.reset()
    status, text = diagnose(node)
    assert text == ""
    assert "nothing found" not in status.message
