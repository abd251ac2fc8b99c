"""ROS parameters are made from dataclasses and refuse what is not valid, over a real node."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

pytest.importorskip("rclpy")
import rclpy
from rclpy.context import Context
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.settings import setting
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.tracker import TrackerConfig
from uns_pose_ros.nodes import parameter_declaration
from uns_pose_ros.nodes.estimator.estimator_parameters import NodeParameters
from uns_pose_ros.nodes.managed_node import SUCCESS, ManagedNode


@pytest.fixture
def context(ros_domain: int) -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=ros_domain)
    yield context
    rclpy.shutdown(context=context)


def node(context: Context, *arguments: str) -> Node:
    given = [item for argument in arguments for item in ("-p", argument)]
    made = Node(
        "estimator", context=context, cli_args=["--ros-args", *given] if given else None
    )
    parameter_declaration.declare(made, NodeParameters)
    return made


def test_without_overrides_the_defaults_of_the_dataclass_hold(context: Context) -> None:
    made = node(context)
    assert parameter_declaration.read(made, NodeParameters) == NodeParameters()
    assert parameter_declaration.read(made, NodeParameters).model_folders == []


def test_overrides_arrive_in_the_dataclass(context: Context) -> None:
    made = node(
        context,
        "models:=[a/model, b/model]",
        "object_diameter:=0.2",
        "rectified:=true",
        "transport:=compressed",
    )
    settings = parameter_declaration.read(made, NodeParameters)
    assert settings.model_folders == ["a/model", "b/model"]
    assert (settings.object_diameter, settings.rectified, settings.transport) == (
        0.2,
        True,
        "compressed",
    )


def test_an_empty_list_from_the_command_line_names_no_model(context: Context) -> None:
    assert (
        parameter_declaration.read(
            node(context, "models:=[]"), NodeParameters
        ).model_folders
        == []
    )


def test_every_parameter_is_described_and_numbers_have_a_range(context: Context) -> None:
    made = node(context)
    for name in parameter_declaration.names(NodeParameters):
        assert len(made.describe_parameter(name).description) > 20, name
    (bounds,) = made.describe_parameter("object_diameter").floating_point_range
    assert (bounds.from_value, bounds.to_value) == (0.0, 100.0)
    assert (
        made.describe_parameter("transport").additional_constraints
        == "one of raw, compressed"
    )


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("object_diameter:=-1.0", "Min: 0.0, Max: 100.0"),
        ("object_diameter:=large", "DOUBLE"),
        ("models:=mug", "STRING_ARRAY"),
    ],
)
def test_an_override_out_of_range_or_of_another_type_is_refused_at_start(
    context: Context, argument: str, reason: str
) -> None:
    with pytest.raises(ParameterException, match=reason):
        node(context, argument)


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("transport:=theora", "transport 'theora': one of raw, compressed is valid"),
        ("device:=tpu", "auto, cpu, cuda or cuda:N are valid"),
        ("frame_prefix:='my robot/'", "no blanks and no leading slash"),
    ],
)
def test_a_word_that_is_not_valid_is_refused_with_those_that_are(
    context: Context, argument: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        parameter_declaration.read(node(context, argument), NodeParameters)


def test_a_value_about_to_be_set_is_checked_in_place_of_the_present_one(
    context: Context,
) -> None:
    made = node(context)
    changed = [Parameter("transport", value="compressed")]
    assert (
        parameter_declaration.read(made, NodeParameters, changed).transport == "compressed"
    )
    assert parameter_declaration.read(made, NodeParameters).transport == "raw"


@dataclass(frozen=True)
class Other:
    plain_number: float = 3.0
    bounded: int = setting(5, "a number between one and nine", low=1, high=9)


def test_any_dataclass_of_settings_becomes_parameters(context: Context) -> None:
    made = Node("other", context=context, cli_args=["--ros-args", "-p", "bounded:=7"])
    parameter_declaration.declare(made, Other)
    assert parameter_declaration.read(made, Other) == Other(plain_number=3.0, bounded=7)
    assert not made.set_parameters([Parameter("bounded", value=10)])[0].successful
    with pytest.raises(InvalidInput, match="plain_number nan: a finite number is valid"):
        parameter_declaration.read(made, Other, [Parameter("plain_number", value=math.nan)])


def test_settings_of_the_estimation_are_described_with_unit_and_range(
    context: Context,
) -> None:
    made = node(context)
    parameter_declaration.declare(made, EstimatorConfig)
    assert parameter_declaration.read(made, EstimatorConfig) == EstimatorConfig()
    name = "search.search_size"
    described = made.describe_parameter(name)
    assert described.description.endswith("[px]")
    (bounds,) = described.integer_range
    assert (bounds.from_value, bounds.to_value) == (112, 4096)


@pytest.mark.parametrize(
    ("settings", "argument", "field", "value", "name"),
    [
        (
            EstimatorConfig,
            "triples:=100",
            "hypothesis_count",
            100,
            "solver.hypothesis_count",
        ),
        (EstimatorConfig, "runtime:=onnx", "runtime", "onnx", "solver.runtime"),
        (TrackerConfig, "tracking.memory:=5.0", "max_age", 5.0, "tracking.max_age"),
    ],
)
def test_a_deprecated_name_is_used_with_one_warning(
    context: Context, settings: type, argument: str, field: str, value: object, name: str
) -> None:
    made = node(context, argument)
    old = argument.split(":=")[0]
    (warning,) = parameter_declaration.declare(made, settings)
    assert warning == (
        f"parameter '{old}' is now '{name}'; the old name goes with the next release"
    )
    assert getattr(parameter_declaration.read(made, settings), field) == value
    assert not made.has_parameter(old)
    assert parameter_declaration.unknown_overrides(made, NodeParameters, settings) == []


def test_the_new_name_wins_over_the_deprecated_name(context: Context) -> None:
    made = node(context, "triples:=100", "solver.hypothesis_count:=200")
    (warning,) = parameter_declaration.declare(made, EstimatorConfig)
    assert warning.endswith("the value of 'solver.hypothesis_count' is used")
    assert parameter_declaration.read(made, EstimatorConfig).hypothesis_count == 200


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("triples:=many", "parameter 'triples': .*INTEGER"),
        ("triples:=0", "parameter 'triples': .*Min: 1"),
    ],
)
def test_a_value_under_a_deprecated_name_is_checked(
    context: Context, argument: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        parameter_declaration.declare(node(context, argument), EstimatorConfig)


@pytest.mark.parametrize(
    ("argument", "nearest"),
    [
        ("modles:=[a/model]", "models"),
        ("max_age:=1.0", "tracking.max_age"),
        ("tracking.maxage:=1.0", "tracking.max_age"),
        ("hypothesis_count:=3", "solver.hypothesis_count"),
    ],
)
def test_a_misspelled_parameter_is_reported_with_the_nearest_valid_names(
    context: Context, argument: str, nearest: str
) -> None:
    settings = NodeParameters, TrackerConfig, EstimatorConfig
    made = node(context, argument)
    for kind in settings[1:]:
        parameter_declaration.declare(made, kind)
    name = argument.split(":=")[0]
    (warning,) = parameter_declaration.unknown_overrides(made, *settings)
    start = f"parameter '{name}' is unknown and has no effect; nearest: {nearest}"
    assert warning.startswith(start)


def test_a_name_that_resembles_no_parameter_is_reported_without_a_hint(
    context: Context,
) -> None:
    (warning,) = parameter_declaration.unknown_overrides(
        node(context, "qqq_zzz:=1"), NodeParameters
    )
    assert warning == "parameter 'qqq_zzz' is unknown and has no effect"


def test_the_parameters_of_ros_itself_are_not_reported(context: Context) -> None:
    made = node(
        context,
        "use_sim_time:=true",
        "start_type_description_service:=false",
        "qos_overrides./image.subscription.reliability:=reliable",
    )
    assert parameter_declaration.unknown_overrides(made, NodeParameters) == []


def test_a_node_shows_an_unknown_parameter_in_its_diagnostics(context: Context) -> None:
    made = _node("recorder", context, cli_args=["--ros-args", "-p", "view_angel:=9.0"])
    assert made.start()
    status = made._diagnose("recording", "cpu", {})
    assert "parameter 'view_angel' is unknown" in status.message
    assert "nearest: view_angle" in status.message
    made.close()
    made.destroy_node()


VALUES = (
    0,
    -1,
    7,
    0.0,
    0.5,
    -2.5,
    math.nan,
    math.inf,
    1e300,
    2**40,
    True,
    "",
    "cpu",
    "cuda:99",
    "a b",
    "/x",
    "raw",
    "mask",
    "..",
    ["plain"],
    ["", " "],
    [1, 2],
    [math.nan],
    [True],
    [b"1"],
)


@pytest.mark.parametrize("kind", ["estimator", "recorder"])
def test_a_thousand_random_sets_are_taken_or_refused_with_a_reason_and_the_node_stays_usable(
    context: Context, kind: str
) -> None:
    """One by one and all at once, before it is configured and while it is active."""
    made = _node(kind, context)
    known = sorted(made.get_parameters_by_prefix(""))
    random, taken, refused = Random(0), 0, 0
    for round in range(1000):
        if round == 800:
            made.set_parameters(_USABLE[kind])
            assert made.start()
        chosen = [
            Parameter(name, value=random.choice(VALUES))
            for name in random.sample(known, random.randint(1, 3))
        ]
        chosen = [item for item in chosen if item.name != "use_sim_time"]  # is rclpy's own
        together = random.random() < 0.3
        results = (
            [made.set_parameters_atomically(chosen)]
            if together
            else made.set_parameters(chosen)
        )
        for result in results:
            assert result.successful or len(result.reason) > 10
            taken, refused = taken + result.successful, refused + (not result.successful)
    assert taken > 50
    assert refused > 500
    assert made.trigger_deactivate() == made.trigger_cleanup() == SUCCESS
    assert made.set_parameters(_USABLE[kind])[0].successful
    assert made.start()
    made.close()
    made.destroy_node()


_USABLE = {
    "estimator": [
        Parameter("models", value=["plain"]),
        Parameter("categories", value=[""]),
        Parameter("device", value="cpu"),
        Parameter("rerun_folder", value=""),
    ],
    "recorder": [Parameter("record", value=False), Parameter("transport", value="raw")],
}


def _node(kind: str, context: Context, **options: Any) -> ManagedNode:
    from scripted_node import ScriptedEstimator, read
    from uns_pose_ros.nodes.estimator.estimator_node import EstimatorNode
    from uns_pose_ros.nodes.recorder.recorder_node import RecorderNode

    if kind == "recorder":
        return RecorderNode(context=context, **options)
    # answers like an Estimator
    return EstimatorNode(read, ScriptedEstimator, context=context, **options)  # type: ignore[arg-type]


def test_a_refused_value_is_named_with_what_is_valid(context: Context) -> None:
    made = _node("estimator", context)
    (result,) = made.set_parameters([Parameter("solver.score_threshold", value=math.nan)])
    assert "solver.score_threshold out of range Min: -1.0, Max: 0.9" in result.reason
    made.destroy_node()
