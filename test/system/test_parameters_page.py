"""docs/parameters.md is the page that tools/write_parameters.py writes."""

from __future__ import annotations

import dataclasses

import pytest

import write_parameters
from uns_pose_ros.core.settings import parameter_name
from uns_pose_ros.nodes.estimator import estimator_parameters
from uns_pose_ros.nodes.fusion import fusion_parameters
from uns_pose_ros.nodes.recorder import recorder_parameters

NODES = [
    estimator_parameters.SETTINGS,
    recorder_parameters.SETTINGS,
    fusion_parameters.SETTINGS,
]


def test_the_committed_page_is_the_generated_page() -> None:
    assert write_parameters.PAGE.read_text() == write_parameters.page(), (
        "run: python tools/write_parameters.py"
    )


@pytest.mark.parametrize("settings", NODES)
def test_every_parameter_has_a_meaning_and_every_number_a_range(
    settings: tuple[type, ...],
) -> None:
    for kind in settings:
        for field in dataclasses.fields(kind):
            facts = field.metadata
            assert len(facts["text"]) > 10, field.name
            is_number = type(field.default) in (int, float)
            assert (facts["low"] is not None) == is_number, field.name


@pytest.mark.parametrize("settings", NODES)
def test_no_two_parameters_share_a_name_now_or_before(settings: tuple[type, ...]) -> None:
    fields = [field for kind in settings for field in dataclasses.fields(kind)]
    now = [parameter_name(field) for field in fields]
    before = [field.metadata["deprecated"] for field in fields]
    known = now + [name for name in before if name]
    assert len(known) == len(set(known))
