"""The node counts what depth did for its objects."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")

from streams import estimate, pose
from uns_pose_ros.estimation.depth.depth_refinement import NO_FIT, REFINED
from uns_pose_ros.nodes.diagnostics import OK, WARN
from uns_pose_ros.nodes.estimator.estimation_worker import EstimationWorker


def test_objects_are_counted_by_what_depth_did_over_all_images() -> None:
    notes, conditions = dict[str, int](), list[tuple[Any, ...]]()
    worker: Any = object.__new__(EstimationWorker)
    worker._diagnostics = SimpleNamespace(
        note=notes.update, condition=lambda *given: conditions.append(given)
    )
    worker._depth_uses = Counter()
    found = estimate(pose((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
    unscaled = replace(found, metric=False, depth_use=NO_FIT)
    worker._note_depth([replace(found, depth_use=REFINED), unscaled])
    worker._note_depth([replace(found, depth_use=REFINED)])
    assert notes == {f"depth: {REFINED}": 2, f"depth: {NO_FIT}": 1}
    assert [level for _, level, _ in conditions] == [WARN, OK]
    assert "depth says nothing of 1 of 2 objects" in conditions[0][2]
