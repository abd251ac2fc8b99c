"""ROS parameters are made from dataclasses and refuse what is not valid, over a real node."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest

pytest.importorskip("rclpy")
import rclpy
from rclpy.context import Context
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.estimation.estimator import EstimatorConfig
from uns_pose_ros.nodes import parameter_declaration
from uns_pose_ros.nodes.estimator.estimator_parameters import NodeParameters
from uns_pose_ros.nodes.managed_node import SUCCESS, ManagedNode
from uns_pose_ros.nodes.parameter_declaration import setting


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
    plain_number: int = 3
    bounded: int = setting(5, "a number between one and nine", 1, 9)


def test_any_dataclass_of_settings_becomes_parameters(context: Context) -> None:
    made = Node("other", context=context, cli_args=["--ros-args", "-p", "bounded:=7"])
    parameter_declaration.declare(made, Other)
    assert parameter_declaration.read(made, Other) == Other(plain_number=3, bounded=7)
    assert not made.set_parameters([Parameter("bounded", value=10)])[0].successful


def test_settings_of_the_estimation_are_described_by_their_comments(
    context: Context,
) -> None:
    made = node(context)
    parameter_declaration.declare(made, EstimatorConfig)
    assert parameter_declaration.read(made, EstimatorConfig) == EstimatorConfig()
    described = {
        name: made.describe_parameter(name).description
        for name in parameter_declaration.names(EstimatorConfig)
    }
    assert described["score_threshold"] == "estimates below are not returned"
    assert [
        name for name, text in described.items() if text == name.replace("_", " ")
    ] == []


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
        chosen = [one for one in chosen if one.name != "use_sim_time"]  # is rclpy's own
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
    "estimator": [Parameter("models", value=["plain"]), Parameter("device", value="cpu")],
    "recorder": [Parameter("record", value=False), Parameter("transport", value="raw")],
}


def _node(kind: str, context: Context) -> ManagedNode:
    from scripted_node import ScriptedEstimator, read
    from uns_pose_ros.nodes.estimator.estimator_node import EstimatorNode
    from uns_pose_ros.nodes.recorder.recorder_node import RecorderNode

    if kind == "recorder":
        return RecorderNode(context=context)
    # answers like an Estimator
    return EstimatorNode(read, ScriptedEstimator, context=context)  # type: ignore[arg-type]


def test_a_refused_value_is_named_with_what_is_valid(context: Context) -> None:
    made = _node("estimator", context)
    (result,) = made.set_parameters([Parameter("score_threshold", value=math.nan)])
    assert result.reason == "score_threshold nan: a finite number is valid"
    made.destroy_node()
