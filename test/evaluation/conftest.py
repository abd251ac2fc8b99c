"""The recorded bag that the tests of its figures and its results share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bag of `scripted_bag`, whose topic /truth has the pose of the object."""
    import bag_writer
    from scripted_bag import write_scripted_bag
    from uns_pose_ros.evaluation import bag_transforms

    monkeypatch.setitem(bag_writer.KINDS, "/truth", bag_transforms.POSE)
    return write_scripted_bag(tmp_path / "bag")
