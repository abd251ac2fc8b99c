"""The outermost points of the shapes that a model was trained on."""

from __future__ import annotations

import torch

from uns_pose_ros.core.geometry import from_parts, random_rotations, sphere
from uns_pose_ros.training.instance_shapes import outermost_points


def test_the_outermost_points_have_the_bounds_of_the_shape_in_any_axes() -> None:
    generator = torch.Generator().manual_seed(2)
    shape = sphere(2000).double() * torch.tensor([0.2, 0.3, 0.5]).double()
    pose = from_parts(
        random_rotations(1, generator)[0], torch.tensor([1.0, 2, 3]).double(), 2.0
    )
    points = outermost_points(shape.float(), pose)
    assert len(points) <= 102
    whole = shape @ pose[:3, :3].T + pose[:3, 3]
    assert torch.allclose(points.amin(0), whole.amin(0), atol=1e-6)
    assert torch.allclose(points.amax(0), whole.amax(0), atol=1e-6)
    for turn in random_rotations(5, generator):
        kept, all_of_it = points @ turn.T, whole @ turn.T
        lost = (all_of_it.amax(0) - kept.amax(0)).abs()
        assert float(lost.max()) < 0.02 * float((whole.amax(0) - whole.amin(0)).norm())
