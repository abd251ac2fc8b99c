"""Parameters of a running estimator: what changes at the next image, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

pytest.importorskip("rclpy")
from rclpy.context import Context
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient

from local_estimator import assign, close, make_node, send
from ros_robot import Robot
from scripted_node import ScriptedEstimator
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.nodes.estimator.estimator_node import EstimatorNode


class Tunable(ScriptedEstimator):
    """Keeps the settings of each image."""

    configs: ClassVar[list[EstimatorConfig]] = []

    def __init__(
        self, models: Any, backbone: Any, device: str, config: EstimatorConfig
    ) -> None:
        super().__init__(models, backbone, device, config)
        self.config = config

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.configs.append(self.config)
        return super().__call__(*arguments, **options)


@pytest.fixture
def node(ros_context: Context) -> Iterator[EstimatorNode]:
    """An active node."""
    Tunable.configs = []
    made = make_node(ros_context, make=Tunable)
    yield made
    close(made)


def test_search_and_solver_values_hold_from_the_next_image_on(node: EstimatorNode) -> None:
    send(node, 1, 1.0)
    assert not assign(
        node,
        solver__score_threshold=0.5,
        search__search_size=560,
        search__max_instances=2,
        solver__hypothesis_count=100,
    )
    send(node, 1, 2.0)
    before, after = Tunable.configs[-2:]
    assert before == EstimatorConfig()
    assert after == EstimatorConfig(
        score_threshold=0.5, search_size=560, max_instances=2, hypothesis_count=100
    )


def test_values_that_were_set_hold_for_models_that_come_later(node: EstimatorNode) -> None:
    assert not assign(node, solver__score_threshold=0.5)
    assert not assign(node, models=["plain", "size_truck"])
    assert len(send(node, 1, 1.0)) == 2
    assert Tunable.configs[-1].score_threshold == 0.5


def test_tracking_values_hold_from_the_next_image_on_and_tracks_stay(
    node: EstimatorNode,
) -> None:
    assert [sent.child_frame_id for sent in send(node, 1, 1.0)] == ["car_0"]
    assert not assign(node, tracking__tentative=False, tracking__min_hits=4)
    assert send(node, 1, 1.1) == []
    assert not assign(node, tracking__min_hits=3)
    assert [sent.child_frame_id for sent in send(node, 1, 1.2)] == ["car_0"]
    assert not assign(node, tracking__max_age=1.0)
    assert send(node, 1, 3.0) == []  # the track is older than a second: a new one begins


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"transport": "compressed"}, "transport: read by activate only; deactivate"),
        ({"tracking.fixed_frame": "odom"}, "tracking.fixed_frame: read by activate only"),
        ({"device": "cuda:0"}, "device: read by configure only; deactivate and clean up"),
        ({"solver.runtime": "torch-fp32"}, "solver.runtime: read by configure only"),
        ({"autostart": False}, "autostart: read at the start of the process only"),
        ({"rectified": True, "use_depth": True}, "use_depth: read by activate only"),
    ],
)
def test_what_needs_a_restart_says_so_and_nothing_of_the_set_is_changed(
    node: EstimatorNode, values: dict[str, Any], reason: str
) -> None:
    before = {name: node.get_parameter(name).value for name in values}
    given = {name.replace(".", "__"): value for name, value in values.items()}
    assert assign(node, **given).startswith(reason)
    assert {name: node.get_parameter(name).value for name in values} == before
    assert not node._settings.rectified


def test_what_activate_reads_can_change_while_the_node_is_inactive(
    node: EstimatorNode,
) -> None:
    node.trigger_deactivate()
    assert not assign(node, transport="compressed", tracking__fixed_frame="odom")
    assert "read by configure only" in assign(node, solver__runtime="torch-fp32")
    node.trigger_activate()
    assert node._stream is not None
    assert node._stream.image_topic == "/image/compressed"


def test_every_value_that_a_node_has_is_accepted_in_every_state(
    ros_context: Context,
) -> None:
    """`ros2 param dump`, then `ros2 param load`; read-only parameters are part of a dump."""
    override = "qos_overrides./image.subscription.reliability:=reliable"
    node = make_node(ros_context, "-p", override, "-p", "categories:=[]", active=False)
    for step in (node.trigger_configure, node.trigger_activate, node.trigger_deactivate):
        _load_dump(node)
        step()
        _load_dump(node)
    close(node)


def test_what_param_dump_writes_of_an_active_node_param_load_sets_without_a_refusal(
    plain: Robot, tmp_path: Path
) -> None:
    """The requests are those of `ros2 param dump` and `ros2 param load`, over DDS."""
    client = AsyncParameterClient(plain.node, "estimator")
    plain.wait("the parameter services", client.services_are_ready)

    def answer(future: Any) -> Any:
        plain.wait("an answer", future.done)
        return future.result()

    names = sorted(answer(client.list_parameters()).result.names)
    assert len(names) >= 50 and plain.state() == "active"
    values = answer(client.get_parameters(names)).values
    dump = {
        name: parameter_value_to_python(value)
        for name, value in zip(names, values, strict=True)
    }
    path = tmp_path / "estimator.yaml"
    path.write_text(yaml.dump({"/estimator": {"ros__parameters": _nested(dump)}}))
    results = answer(client.load_parameter_file(str(path))).results
    assert len(results) == len(names)
    assert [result.reason for result in results if not result.successful] == []
    assert plain.state() == "active"


def _load_dump(node: EstimatorNode) -> None:
    names = sorted(node.get_parameters_by_prefix(""))
    assert len(names) >= 50
    dump = [node.get_parameter(name).to_parameter_msg() for name in names]
    given = [Parameter.from_parameter_msg(message) for message in dump]
    refused = [result.reason for result in node.set_parameters(given) if result.reason]
    assert refused == []
    assert node.set_parameters_atomically(given).successful


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Parameters by the parts of their names, as `ros2 param dump` writes them."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = list(value) if not isinstance(value, (str, int, float)) else value
    return tree


def test_the_same_models_again_do_not_reset_the_tracks(node: EstimatorNode) -> None:
    send(node, 1, 1.0)
    assert not assign(node, models=["plain"])
    assert node._estimation is not None
    assert len(node._estimation.track_states()) == 1


def test_an_integer_is_a_number_and_an_empty_list_is_a_list(node: EstimatorNode) -> None:
    assert not assign(node, tracking__gate=2, categories=[], solver__silhouette_weight=1)
    assert node.get_parameter("tracking.gate").value == 2.0
    assert isinstance(node.get_parameter("tracking.gate").value, float)
    assert send(node, 1, 1.0)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("solver.score_threshold", 5, "solver.score_threshold out of range"),
        ("solver.score_threshold", -1.1, "solver.score_threshold out of range"),
        ("solver.score_threshold", math.nan, "solver.score_threshold out of range"),
        ("solver.score_threshold", math.inf, "solver.score_threshold out of range"),
        ("solver.score_threshold", "0.5", "expected 'Type.DOUBLE' got 'Type.STRING'"),
        ("solver.score_threshold", [0.5], "expected 'Type.DOUBLE' got 'Type.DOUBLE_ARRAY'"),
        ("solver.score_threshold", True, "expected 'Type.DOUBLE' got 'Type.BOOL'"),
        ("search.search_size", -5, "search.search_size out of range"),
        ("search.search_size", 280.0, "expected 'Type.INTEGER' got 'Type.DOUBLE'"),
        ("search.max_instances", 0, "search.max_instances out of range"),
        ("solver.max_modes", 0, "solver.max_modes out of range"),
        ("modles", ["a"], "parameter 'modles' is unknown; nearest: models"),
        ("triples", 5, "parameter 'triples' is now 'solver.hypothesis_count'"),
        ("qqq_zzz", 5, "parameter 'qqq_zzz' is unknown"),
    ],
)
def test_a_value_that_is_not_valid_is_refused_with_a_reason_together_with_its_set(
    node: EstimatorNode, name: str, value: Any, reason: str
) -> None:
    given = [Parameter("object_diameter", value=0.5), Parameter(name, value=value)]
    result = node.set_parameters_atomically(given)
    assert not result.successful
    assert reason in result.reason
    assert node.get_parameter("object_diameter").value == 0.0
    assert node._settings.object_diameter == 0.0


@pytest.mark.parametrize("runtime", ["tensorflow", "", "Torch"])
def test_a_runtime_that_does_not_exist_is_refused_with_those_that_do(
    ros_context: Context, runtime: str
) -> None:
    node = make_node(ros_context, active=False)
    reason = assign(node, solver__runtime=runtime)
    assert reason.startswith(
        f"solver.runtime '{runtime}': one of auto, torch, torch-fp32, "
    )
    close(node)


def test_a_search_size_between_two_multiples_of_the_patch_is_rounded_with_a_warning(
    node: EstimatorNode,
) -> None:
    assert not assign(node, search__search_size=300)
    status = node._diagnose("test", "cpu", {})
    assert "search.search_size 300: 294 px is used" in status.message
    assert not assign(node, search__search_size=308)
    assert "px is used" not in node._diagnose("test", "cpu", {}).message
