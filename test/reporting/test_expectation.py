"""What a model's own videos say, in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from uns_pose_ros.core.types import CategoryModel, Symmetry
from uns_pose_ros.reporting.expectation import describe_expectation


def model(videos: dict[str, float], **figures: Any) -> CategoryModel:
    record = {
        "images": 40,
        "answered": 95.0,
        "acc30": 90.0,
        "acc15": 70.0,
        "acc10": 40.0,
        "median_deg": 11.0,
        "region95": 96.0,
        "videos": videos,
    } | figures
    return CategoryModel(
        category="mug",
        vertices=torch.rand(4, 3),
        triangles=torch.zeros(0, 3, dtype=torch.int64),
        vertex_features=torch.rand(4, 8),
        background_features=torch.rand(2, 8),
        head={},
        symmetry=Symmetry(),
        diameter=None,
        provenance={"left_out": record} if videos else {},
    )


SIX = {f"clip_{k}": 90.0 for k in range(6)}


def test_the_figures_of_the_videos_themselves_are_said() -> None:
    (line,) = describe_expectation(model(SIX))
    for part in ("90 ± 0 % within 30°", "40 % within 10°", "median 11.0°", "95 % answered"):
        assert part in line
    assert "region holds in 96 %" in line


def test_instances_that_differ_make_the_estimate_unsure() -> None:
    shares = {"clip_1": 100.0, "clip_2": 60.0, "clip_3": 80.0, "clip_4": 0.0}
    assert "60 ± 22 % within 30°" in describe_expectation(model(shares, acc30=60.0))[0]
    two = {"clip_1": 100.0, "clip_2": 60.0}
    assert "±" not in describe_expectation(model(two))[0]


@pytest.mark.parametrize("missing", ["median_deg", "region95"])
def test_what_is_not_measured_is_left_out(missing: str) -> None:
    (line,) = describe_expectation(model(SIX, **{missing: None}))
    assert "None" not in line
    assert ("median" if missing == "median_deg" else "region") not in line


def test_a_video_that_is_much_weaker_than_the_others_is_named() -> None:
    lines = describe_expectation(model({**SIX, "clip_3": 20.0}))
    assert "weakest: clip_3, 20 % within 30°" in lines[1]


def test_with_few_videos_more_instances_help_most() -> None:
    lines = describe_expectation(model({"a": 90.0, "b": 80.0, "c": 85.0}))
    assert "learned from 3 videos: more instances help most" in lines[1]
    assert "a low one, since a head of it learned from 1 of them" in lines[1]


def test_a_model_without_figures_says_nothing() -> None:
    assert describe_expectation(model({})) == []
