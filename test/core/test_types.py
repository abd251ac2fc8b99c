from pathlib import Path

import pytest
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import (
    Alignment,
    Camera,
    FeatureMesh,
    PoseEstimate,
    Symmetry,
    Video,
)

MATRIX = torch.tensor([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]], dtype=torch.float64)


def feature_mesh(**changes: torch.Tensor) -> FeatureMesh:
    index = torch.zeros(5, dtype=torch.int64)
    features = torch.ones(5, 8, dtype=torch.float16)
    parts = {
        "vertices": torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 2]]),
        "triangles": torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
        "features": features,
        "mirrored": features,
        "vertex_index": index,
        "view_index": index,
        "cameras_in_obj": torch.eye(4)[None],
    }
    return FeatureMesh(**(parts | changes))


def estimate(**changes: object) -> PoseEstimate:
    parts: dict[str, object] = {
        "category": "mug",
        "cam_from_canon": torch.eye(4, dtype=torch.float64),
        "scale": 1.0,
        "metric": False,
        "size": torch.ones(3, dtype=torch.float64),
        "score": 0.5,
        "covariance": None,
        "symmetry": Symmetry(),
        "inliers": 10,
        "reprojection_error": 1.0,
        "box": torch.zeros(4, dtype=torch.float64),
    }
    return PoseEstimate(**(parts | changes))  # type: ignore[arg-type]


def test_a_camera_of_the_wrong_shape_says_which_shape_is_needed() -> None:
    with pytest.raises(
        ValueError, match=r"camera matrix has shape \(4, 4\), \(3, 3\) needed"
    ):
        Camera(torch.eye(4, dtype=torch.float64), 640, 480)


def test_an_uncalibrated_camera_is_the_users_mistake() -> None:
    with pytest.raises(InvalidInput, match="uncalibrated camera: focal lengths 0, 0 px"):
        Camera(torch.zeros(3, 3, dtype=torch.float64), 640, 480)


def test_a_camera_that_no_lens_has_is_refused_wherever_it_comes_from() -> None:
    far = MATRIX.clone()
    far[0, 2] = -2e7
    with pytest.raises(InvalidInput, match=r"matrix with 2e\+07: at most 1e\+07 is valid"):
        Camera(far, 640, 480)
    with pytest.raises(InvalidInput, match=r"distortion with 1e\+38: at most 1e\+09"):
        Camera(MATRIX, 640, 480, torch.tensor([0.1, -1e38, 0, 0], dtype=torch.float64))


def test_a_camera_refuses_values_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Camera(MATRIX * float("nan"), 640, 480)


def test_single_precision_intrinsics_are_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"camera matrix is torch.float32, torch.float64 needed"
    ):
        Camera(MATRIX.float(), 640, 480)


def test_a_video_is_called_like_its_folder() -> None:
    assert Video(Path("mug/clip_01"), ()).name == "clip_01"


def test_the_diameter_of_a_mesh_is_the_diagonal_of_its_box() -> None:
    assert feature_mesh().diameter == pytest.approx(3.0)


def test_a_mesh_refuses_triangles_and_observations_of_vertices_it_lacks() -> None:
    with pytest.raises(ValueError, match="a triangle names vertex 4 of 4"):
        feature_mesh(triangles=torch.tensor([[0, 1, 4]]))
    with pytest.raises(ValueError, match="an observation names vertex 4 of 4"):
        feature_mesh(vertex_index=torch.tensor([0, 0, 0, 0, 4]))


@pytest.mark.parametrize(
    ("order", "name"), [(0, "continuous"), (1, "none"), (2, "C2"), (6, "C6")]
)
def test_a_symmetry_is_named_by_its_order(order: int, name: str) -> None:
    assert Symmetry(order).name == name


def test_an_alignment_needs_one_entry_a_video() -> None:
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="canon_from_obj has shape"):
        Alignment(("a", "b"), torch.eye(4, dtype=torch.float64)[None], one, one.bool(), one)


def test_a_score_outside_zero_and_one_is_refused() -> None:
    assert estimate(score=1.0).score == 1.0
    with pytest.raises(ValueError, match="score 1.5"):
        estimate(score=1.5)


def test_a_covariance_is_six_by_six() -> None:
    with pytest.raises(ValueError, match="covariance has shape"):
        estimate(covariance=torch.eye(3, dtype=torch.float64))
