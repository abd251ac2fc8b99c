"""Named frames stay at their place of the object when a model is trained again or turned."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from small_model import one_triangle
from uns_pose_ros.alignment.canonical_axes import AxisNames
from uns_pose_ros.cli.frames_command import add_frame
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, rotation_from_vector, transform
from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.core.types import Alignment, CategoryModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.frames_record import FRAMES
from uns_pose_ros.io.writing.target_lock import TargetLock
from uns_pose_ros.pipeline import frame_axes, kept_frames, training_stage
from uns_pose_ros.training import category_training

PLACE = torch.tensor([0.4, -0.1, 0.2], dtype=torch.float64)
HANDLE = NamedFrame("handle", PLACE, torch.eye(3, dtype=torch.float64), 0.08)
MOVE = from_parts(
    rotation_from_vector(torch.tensor([0.3, -0.9, 1.4], dtype=torch.float64)),
    torch.tensor([0.02, -0.03, 0.01], dtype=torch.float64),
    1.1,
)


def poses(*angles: float) -> dict[str, list[list[float]]]:
    """A pose of one video for each turn about z, degrees."""
    turns = torch.tensor([[0.0, 0.0, angle] for angle in angles]).double().deg2rad()
    one = from_parts(rotation_from_vector(turns), torch.zeros(3, dtype=torch.float64))
    return {f"clip_{k}": pose.tolist() for k, pose in enumerate(one)}


def model_of(
    canon_from_obj: dict[str, list[list[float]]],
    inputs: dict[str, str],
    move: Tensor | None = None,
) -> CategoryModel:
    move = torch.eye(4, dtype=torch.float64) if move is None else move
    moved = {
        name: (move @ torch.tensor(pose).double()).tolist()
        for name, pose in canon_from_obj.items()
    }
    provenance = {"canon_from_obj": moved, "inputs": inputs}
    return one_triangle("mug", provenance=provenance)


def hashes(*digits: int) -> dict[str, str]:
    return {f"clip_{k}": f"{digit}" * 64 for k, digit in enumerate(digits)}


def test_frames_move_with_the_videos_to_another_canonical_frame(tmp_path: Path) -> None:
    old = replace(model_of(poses(0, 10, 20), hashes(1, 2, 3)), frames=(HANDLE,))
    artifacts.save_model(old, tmp_path)
    new = model_of(poses(0, 10, 20), hashes(1, 2, 3), MOVE)
    [frame] = kept_frames.keep_frames(new, tmp_path).frames
    torch.testing.assert_close(
        frame.position, transform(MOVE, PLACE[None])[0], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(frame.rotation, MOVE[:3, :3] / 1.1, atol=1e-5, rtol=0)
    assert frame.width == pytest.approx(0.088)


def test_a_video_that_was_flipped_does_not_turn_the_frames() -> None:
    old = model_of(poses(0, 10, 20), hashes(1, 2, 3))
    new = model_of(poses(0, 190, 20), hashes(1, 2, 3))
    turn = kept_frames.turn_since(old, new)
    assert turn is not None
    torch.testing.assert_close(turn, torch.eye(4).double(), atol=1e-9, rtol=0)


def test_changed_videos_count_only_where_they_agree() -> None:
    old = model_of(poses(0, 10, 20), hashes(1, 2, 3))
    again = kept_frames.turn_since(old, model_of(poses(0, 10, 20), hashes(4, 5, 6), MOVE))
    assert again is not None
    torch.testing.assert_close(again, MOVE, atol=1e-6, rtol=0)
    apart = model_of(poses(0, 100, 220), hashes(4, 5, 6))
    assert kept_frames.turn_since(old, apart) is None
    assert kept_frames.turn_since(old, model_of(poses(0), hashes(4))) is None
    assert kept_frames.turn_since(old, model_of({}, {})) is None


def test_frames_that_cannot_move_are_set_aside_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = replace(model_of(poses(0), hashes(1)), frames=(HANDLE,))
    artifacts.save_model(old, tmp_path)
    text = (tmp_path / FRAMES).read_text()
    new = kept_frames.keep_frames(model_of({}, {}), tmp_path)
    artifacts.save_model(new, tmp_path)
    assert "no video connects it to the model before" in caplog.text
    assert artifacts.load_model(tmp_path).frames == ()
    assert (tmp_path / kept_frames.SET_ASIDE).read_text() == text


def test_train_turns_and_keeps_the_frames(
    trucks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def train(
        category: str, videos: Any, meshes: Any, alignment: Alignment, *_: Any
    ) -> CategoryModel:
        trained.append(category)
        pairs = zip(alignment.videos, alignment.canon_from_obj.tolist(), strict=True)
        return one_triangle(category, provenance={"canon_from_obj": dict(pairs)})

    monkeypatch.setattr(category_training, "train_model", train)
    training_stage.train(trucks)
    folder = trucks / training_stage.MODEL
    (folder / FRAMES).write_text("frames: [{name: tip, position: [0.4, -0.1, 0.2]}]")
    frame_axes.name_axes(trucks, AxisNames("y", "x"))
    training_stage.train(trucks)
    [turned] = artifacts.load_model(folder).frames
    assert len(trained) == 1
    assert turned.position.tolist() == pytest.approx([0.4, -0.2, -0.1])

    training_stage.train(trucks, seed=1)
    [kept] = artifacts.load_model(folder).frames
    assert len(trained) == 2
    assert kept.position.tolist() == pytest.approx([0.4, -0.2, -0.1])
    torch.testing.assert_close(kept.rotation, turned.rotation)

    keep = training_stage.keep_frames

    def keep_while_another_adds(*arguments: Any) -> CategoryModel:
        with pytest.raises(InvalidInput, match="is at work here"):
            add_frame(folder, HANDLE)
        return keep(*arguments)

    with monkeypatch.context() as while_it_saves:
        while_it_saves.setattr(training_stage, "keep_frames", keep_while_another_adds)
        lock = TargetLock(folder)
        threading.Timer(0.3, lock.release).start()
        training_stage.train(trucks, seed=3)  # it waits for who edits the frames
    assert len(trained) == 3

    (folder / FRAMES).write_text("frames: [")
    with pytest.raises(InvalidInput, match=r"frames.yaml: not a valid list of frames"):
        training_stage.train(trucks, seed=2)
    assert len(trained) == 3
