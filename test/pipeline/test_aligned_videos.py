"""The videos of a model's training are shown with their objects in the canonical frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from small_model import one_triangle
from synthetic import write_video
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, transform
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.ply import write_ply
from uns_pose_ros.pipeline.aligned_videos import find_aligned_videos

CANON_FROM_OBJ = from_parts(
    torch.eye(3, dtype=torch.float64),
    torch.tensor([0.1, 0.0, -0.2], dtype=torch.float64),
    0.5,
)
CORNERS = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
TRIANGLE = torch.tensor([[0, 1, 2]])


def model_of(*names: str, inputs: dict[str, str] | None = None) -> CategoryModel:
    poses = {name: CANON_FROM_OBJ.tolist() for name in names}
    provenance = {"canon_from_obj": poses, "inputs": inputs or {}}
    return one_triangle("truck", provenance=provenance)


def test_a_video_of_the_training_has_its_images_and_its_mesh_or_else_the_template(
    tmp_path: Path,
) -> None:
    for name in ("a", "other"):
        write_video(tmp_path / name, seed=1, views=4, size=48)
    model = model_of("a", "gone")
    videos = find_aligned_videos(tmp_path, model)
    assert list(videos) == ["a"]
    video = videos["a"]()
    assert len(video.image_names) == 4
    posed = video.read(3)
    assert posed.image.shape == (48, 48, 3) and posed.cam_from_obj.shape == (4, 4)
    torch.testing.assert_close(video.vertices, model.vertices.double())

    write_ply(tmp_path / "a" / artifacts.MESH, CORNERS, TRIANGLE)
    own = find_aligned_videos(tmp_path, model)["a"]().vertices
    torch.testing.assert_close(own, transform(CANON_FROM_OBJ, CORNERS.double()))


def test_a_video_whose_mesh_has_changed_since_the_training_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / name, seed=1, views=4, size=48)
        (tmp_path / name / artifacts.FEATURES).write_bytes(name.encode())
    same = artifacts.file_hash(tmp_path / "b" / artifacts.FEATURES)
    model = model_of("a", "b", inputs={"a": "0" * 64, "b": same})
    assert list(find_aligned_videos(tmp_path, model)) == ["b"]
    assert "the meshes of a have changed since the training" in caplog.text


def test_a_video_without_poses_is_refused_when_it_is_chosen(tmp_path: Path) -> None:
    write_video(tmp_path / "a", seed=1, views=4, size=48)
    for path in (tmp_path / "a" / "sparse").iterdir():
        path.unlink()
    with pytest.raises(InvalidInput, match="no camera poses"):
        find_aligned_videos(tmp_path, model_of("a"))["a"]()


def test_a_folder_without_the_videos_of_the_training_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts.save_model(model_of("a"), tmp_path / "model")
    words = ["frames", str(tmp_path / "model"), "--category", str(tmp_path)]
    assert main.main([*words[:2], "edit", *words[2:]]) == 2
    assert "no video of the model's training; the folder with a" in capsys.readouterr().err
    assert main.main(words) == 2
    assert "--category is valid with edit only" in capsys.readouterr().err
