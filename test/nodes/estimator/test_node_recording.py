"""The estimator node records images and objects for the viewer rerun."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("rclpy")

from local_estimator import make_node, send
from rerun_reading import image_sizes, read_rerun
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.nodes.estimator import estimator_node

if TYPE_CHECKING:
    from rclpy.context import Context


def test_every_image_is_recorded_until_the_node_is_cleaned_up(
    ros_context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    added: list[tuple[int, list[int]]] = []
    closed: list[bool] = []

    def begin(folder: Path, models: Any) -> Any:
        assert folder == tmp_path
        return SimpleNamespace(
            path=folder / "a.rrd",
            set_models=lambda models: None,
            add=lambda stamp, image, camera, poses, tracks: added.append(
                (stamp, [*tracks])
            ),
            close=lambda: closed.append(True),
        )

    monkeypatch.setattr(estimator_node, "check_rerun", lambda: None)
    monkeypatch.setattr(estimator_node, "RerunRecording", SimpleNamespace(in_folder=begin))
    node = make_node(ros_context, "-p", f"rerun_folder:={tmp_path}")
    send(node, 2, 5.0)
    send(node, 0, 5.5)
    assert [stamp for stamp, _ in added] == [5 * 10**9, 5_500_000_000]
    assert added[0][1] == [0, 1]
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert closed == [True]
    node.destroy_node()


def test_the_recording_of_the_node_has_its_images_objects_and_stamps(
    ros_context: Context, tmp_path: Path
) -> None:
    pytest.importorskip("rerun")
    node = make_node(ros_context, "-p", f"rerun_folder:={tmp_path}")
    send(node, 2, 5.0)
    send(node, 0, 5.5)
    node.trigger_deactivate()
    node.trigger_cleanup()
    node.destroy_node()
    [path] = tmp_path.glob("*.rrd")
    rows = read_rerun(path)
    assert image_sizes(rows) == [(640, 480), (640, 480)]
    stamps = [stamp for stamp, _ in rows["/camera:EncodedImage:blob"]]
    assert stamps == [5 * 10**9, 5_500_000_000]
    boxes = {name: value for name, value in rows.items() if name.endswith(":half_sizes")}
    assert len(boxes) == 2
    assert all([stamp for stamp, _ in value] == [5 * 10**9] for value in boxes.values())


def test_without_the_package_the_node_is_not_configured(
    ros_context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise InvalidInput("a rerun recording needs rerun-sdk")

    monkeypatch.setattr(estimator_node, "check_rerun", refuse)
    node = make_node(ros_context, "-p", f"rerun_folder:={tmp_path}", active=False)
    assert not node.start()
    node.destroy_node()
