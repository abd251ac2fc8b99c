"""Views of an object whose pose is known: masks, targets, and what teaches nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bag_writer import CAMERA
from labeled_category import box_mesh
from streams import estimate, pose
from synthetic import truck
from uns_pose_ros.core.geometry import from_parts, transform
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import Camera, CategoryModel
from uns_pose_ros.networks.correspondence_head import NetworkConfig
from uns_pose_ros.networks.dinov2 import CHANNELS, PATCH
from uns_pose_ros.training.adaptation.pseudo_labels import (
    RecordedImage,
    join_views,
    make_video,
    silhouette,
    spare_border,
    view_config,
)
from uns_pose_ros.training.adaptation.resting_objects import RestingObject, Sighting
from uns_pose_ros.training.training_views import (
    TrainConfig,
    Views,
    grid_places,
    random_views,
)

SIZE = 0.4  # m
IN_CAM = pose((-115.0, 20.0, 30.0), (0.02, 0.0, 1.1))


class FlatTokens(nn.Module):
    """A backbone whose tokens are the mean colors of its patches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor, layers: tuple[int, ...]) -> Tensor:
        small = nn.functional.avg_pool2d(images, PATCH).permute(0, 2, 3, 1)
        tokens = small.repeat(1, 1, 1, CHANNELS // 3)
        return tokens[None].expand(len(layers), -1, -1, -1, -1)


def model() -> CategoryModel:
    vertices, triangles = box_mesh(truck(np.random.default_rng(0)))
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) / np.linalg.norm(high - low)
    unit = torch.nn.functional.normalize(torch.ones(len(vertices), 4), dim=1)
    record = {"network": {"layers": [5, 11], "width": 16, "blocks": 0, "features": 4}}
    return CategoryModel(
        "truck",
        torch.from_numpy(vertices).float(),
        torch.from_numpy(triangles.copy()),
        unit,
        unit[:1],
        {},
        provenance={**record, "crop_size": 112},
    )


def recorded(folder: Path, camera: Camera = CAMERA) -> dict[int, RecordedImage]:
    path = folder / "000000.png"
    image = np.random.default_rng(0).integers(0, 255, (camera.height, camera.width, 3))
    cv2.imwrite(str(path), image.astype(np.uint8))
    return {0: RecordedImage(path, camera)}


def resting(in_cam: Tensor = IN_CAM) -> RestingObject:
    """An object seen by one camera that stands somewhere in the fixed frame."""
    fixed_from_cam = pose((30.0, 40.0, -20.0), (1.0, -2.0, 0.5))
    found = estimate(in_cam, size=SIZE, category="truck")
    return RestingObject(
        fixed_from_cam @ in_cam, SIZE, (Sighting(0, 0, 0, found, fixed_from_cam),)
    )


def test_the_silhouette_is_what_rays_hit_also_through_a_lens() -> None:
    shape = model()
    points = transform(IN_CAM, SIZE * shape.vertices.double())
    drawn = silhouette(points, shape.triangles, CAMERA)
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width].reshape(2, -1)
    pixels = torch.from_numpy(np.stack([u, v, np.ones_like(u)], 1)).double()
    rays = (pixels @ torch.linalg.inv(CAMERA.matrix).T).float()
    depth, _, _ = cast_rays(torch.zeros(3), rays, points.float(), shape.triangles)
    hit = depth.isfinite().reshape(CAMERA.height, CAMERA.width).numpy()
    assert drawn is not None
    assert ((drawn > 0) & hit).sum() / ((drawn > 0) | hit).sum() > 0.85
    lens = replace(CAMERA, distortion=torch.tensor([-0.4, 0.1, 0.0, 0.0]).double())
    bent = silhouette(points, shape.triangles, lens)
    assert bent is not None and 0 < (bent > 0).sum() < (drawn > 0).sum()


def test_an_object_behind_the_camera_or_beside_the_image_has_no_silhouette() -> None:
    shape = model()
    for x, z in ((0.0, -1.0), (0.0, 0.1), (3.0, 1.0)):
        moved = pose((0.0, 0.0, 0.0), (x, 0.0, z))
        points = transform(moved, SIZE * shape.vertices.double())
        assert silhouette(points, shape.triangles, CAMERA) is None


def test_each_cell_of_a_view_learns_the_point_of_the_template_that_it_shows(
    tmp_path: Path,
) -> None:
    shape, thing = model(), resting()
    images = recorded(tmp_path)
    video = make_video(tmp_path / "object", thing, thing.sightings, images, shape)
    assert video.metric and len(video.frames) == 1
    config = view_config(shape, 3, TrainConfig())
    assert config.network == NetworkConfig(layers=(5, 11), width=16, blocks=0, features=4)
    views = random_views(
        [video],
        [(SIZE * shape.vertices, shape.triangles)],
        from_parts(torch.eye(3).double(), torch.zeros(3).double(), 1 / SIZE)[None],
        torch.ones(1, dtype=torch.float64),
        FlatTokens(),  # type: ignore[arg-type]
        config,
    )
    places = grid_places(config.size)
    for k in range(3):
        shown = views.canon[k, :, 0].isfinite()
        assert int(shown.sum()) > 10
        points = transform(
            torch.cat([views.cam_from_canon[k], torch.tensor([[0, 0, 0, 1.0]]).double()]),
            views.canon[k, shown].double(),
        )
        pixels = points @ views.crop_from_cam[k].T
        pixels = pixels[:, :2] / pixels[:, 2:]
        # the points are kept in half precision
        assert float((pixels - places[shown]).norm(dim=1).max()) < 1.0
        true = IN_CAM[:3, :3]
        assert torch.allclose(views.cam_from_canon[k, :, :3], true, atol=1e-6)


def views_of(shown: Tensor, weight: float) -> Views:
    """Views with nothing but the cells that show an object (N, P), and a weight."""
    count, cells = shown.shape
    return Views(
        torch.zeros(count, 1, 1, 4, dtype=torch.bfloat16),
        torch.full((count, cells, 3), torch.nan, dtype=torch.float16),
        ~shown,
        torch.full((count,), weight),
        torch.zeros(count, dtype=torch.int64),
        torch.eye(3).double().expand(count, -1, -1),
        torch.eye(4).double()[:3].expand(count, -1, -1),
    )


def test_cells_beside_the_silhouette_are_neither_object_nor_background() -> None:
    shown = torch.zeros(1, 16, 16, dtype=torch.bool)
    shown[0, 8, 8] = True
    views = spare_border(views_of(shown.flatten(1), 1.0))
    background = views.background.view(16, 16)
    assert not background[5:12, 5:12].any()
    assert int(background.sum()) == 16 * 16 - 7 * 7


def test_views_of_each_source_have_their_share_of_the_weight() -> None:
    shown = torch.zeros(8, 4, dtype=torch.bool)
    few, many = views_of(shown[:2], 1.0), views_of(shown, 0.5)
    joined = join_views([few, many], [0.3, 0.7])
    assert len(joined) == 10
    assert float(joined.weight[:2].sum()) == pytest.approx(0.3)
    assert float(joined.weight[2:].sum()) == pytest.approx(0.7)
