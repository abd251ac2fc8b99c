"""The targets of random views are right, and a head learns from them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plain_views import plain_views
from synthetic import write_category
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, transform
from uns_pose_ros.core.types import Alignment, CategoryModel, Symmetry, Video
from uns_pose_ros.io.checkpoint import Checkpoint
from uns_pose_ros.io.video_folder import load_video, read_frame
from uns_pose_ros.networks.correspondence_head import STRIDE, Head, NetworkConfig
from uns_pose_ros.networks.dinov2 import load_backbone
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig, build_feature_mesh
from uns_pose_ros.reconstruction.visual_hull import HullConfig, carve_visual_hull
from uns_pose_ros.training import category_training
from uns_pose_ros.training.augmentation import AugmentConfig
from uns_pose_ros.training.category_training import template_share
from uns_pose_ros.training.head_training import fit_head
from uns_pose_ros.training.training_views import (
    TrainConfig,
    Views,
    grid_places,
    load_background_images,
    random_views,
)

STILL = AugmentConfig(
    near=(0.8, 0.8),
    far_probability=0.0,
    rotation=0.0,
    tilt=0.0,
    shift=0.0,
    background_probability=0.0,
    occlusion_probability=0.0,
    colour_probability=0.0,
    blur_probability=0.0,
    jpeg_probability=0.0,
)
CONFIG = TrainConfig(
    network=NetworkConfig(width=32, blocks=1, features=16, clutter=2),
    augment=STILL,
    size=112,
    views=1,
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    folder = tmp_path_factory.mktemp("trucks")
    write_category(folder, {"clip_01": 1}, views=10, size=128)
    return load_video(folder / "clip_01")


@pytest.fixture(scope="module")
def shape(video: Video) -> tuple[torch.Tensor, torch.Tensor]:
    frames = [read_frame(frame) for frame in video.frames]
    masks = [mask for _, mask, _ in frames if mask is not None]
    poses = torch.stack(
        [frame.cam_from_obj for frame in video.frames if frame.cam_from_obj is not None]
    )
    return carve_visual_hull(
        masks,
        torch.stack([camera.matrix for *_, camera in frames]),
        poses,
        HullConfig(resolution=40),
    )


def views_of(
    video: Video,
    shape: tuple[torch.Tensor, torch.Tensor],
    mirror: torch.Tensor | None = None,
) -> Views:
    ones = torch.ones(1, dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)[None]
    return random_views(
        [video], [shape], pose, ones, load_backbone(device="cpu"), CONFIG, mirror=mirror
    )


def test_the_share_of_a_template_that_lacks_half_of_the_object_is_measured(
    video: Video, shape: tuple[torch.Tensor, torch.Tensor]
) -> None:
    pose = from_parts(
        torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0.25
    )[None]
    canon = transform(pose[0], shape[0].double()).float()
    whole = template_share(canon, [video], pose)
    center = (canon.amin(0) + canon.amax(0)) / 2
    half = template_share(center + (canon - center) / 2, [video], pose)
    assert 0.9 < whole <= 1.0
    assert 0.4 < half < 0.55


def test_places_lie_in_the_middle_of_the_heads_answers() -> None:
    places = grid_places(112)
    assert places.shape == (256, 2)
    assert places[1].tolist() == [3 + STRIDE, 3]
    assert places[16].tolist() == [3, 3 + STRIDE]
    head = Head(CONFIG.network, 20, 3 * 384)
    assert head(torch.zeros(1, 8, 8, 3 * 384)).shape == (1, 16, 16, 16)
    assert head.logits(torch.ones(5, 16)).shape == (5, 22)


def test_canonical_points_project_to_the_places_that_show_them(
    video: Video, shape: tuple[torch.Tensor, torch.Tensor]
) -> None:
    views = views_of(video, shape)
    assert len(views) == len(video.frames) + 1  # one to watch the training by
    learned = views.canon[views.weight > 0]
    assert len(learned) == len(video.frames)
    for canon, frame in zip(learned, video.frames, strict=True):
        seen = canon[:, 0].isfinite()
        assert frame.cam_from_obj is not None
        rays = transform(frame.cam_from_obj, canon[seen].double())
        pixels = (rays / rays[:, 2:] @ frame.camera.matrix.T)[:, :2]
        places = grid_places(CONFIG.size)[seen]
        # without rotation and tilt the view is a scaled part of the image: one scale and one
        # shift explain all
        centered, expected = pixels - pixels.mean(0), places - places.mean(0)
        scale = (centered * expected).sum() / (centered * centered).sum()
        assert float((scale * centered - expected).norm(dim=-1).max()) < 0.5
        assert int(seen.sum()) > 50
        assert not bool((views.background[0] & views.canon[0][:, 0].isfinite()).any())


def assert_points_project_to_their_cells(views: Views) -> None:
    """The camera and the pose of each view map the points of its cells to the cells."""
    places = grid_places(CONFIG.size)
    for canon, crop_from_cam, pose in zip(
        views.canon, views.crop_from_cam, views.cam_from_canon, strict=True
    ):
        seen = canon[:, 0].isfinite()
        points = canon[seen].double() @ pose[:, :3].T + pose[:, 3]
        assert float(points[:, 2].min()) > 0
        assert torch.linalg.det(pose[:, :3]) == pytest.approx(1.0)
        pixels = points @ crop_from_cam.T
        gap = pixels[:, :2] / pixels[:, 2:] - places[seen]
        assert float(gap.norm(dim=1).max()) < 0.2  # the points are half precision


def test_flipped_views_show_the_reflected_points(
    video: Video, shape: tuple[torch.Tensor, torch.Tensor]
) -> None:
    mirror = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
    plain, mixed = views_of(video, shape), views_of(video, shape, mirror)
    side = CONFIG.size // STRIDE
    assert_points_project_to_their_cells(plain)
    assert_points_project_to_their_cells(mixed)
    flipped = 0
    for before, after in zip(plain.canon, mixed.canon, strict=True):
        if torch.equal(before.nan_to_num(9), after.nan_to_num(9)):
            continue
        flipped += 1
        back = (
            transform(mirror, after.double())
            .unflatten(0, (side, side))
            .flip(1)
            .flatten(0, 1)
        )
        assert torch.allclose(back.nan_to_num(9), before.double().nan_to_num(9), atol=1e-3)
    assert 0 < flipped < len(plain)


def test_a_head_learns_which_vertex_a_token_belongs_to() -> None:
    generator = torch.Generator().manual_seed(0)
    vertices = torch.rand(12, 3, generator=generator) - 0.5
    code = torch.randn(13, 3 * 384, generator=generator)
    which = torch.randint(13, (40, 8, 8), generator=generator)
    tokens = code[which]
    fine = which.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    points = torch.cat([vertices, torch.full((1, 3), torch.nan)])[fine]
    views = plain_views(tokens, points, fine == 12)
    config = TrainConfig(
        network=CONFIG.network,
        size=112,
        steps=150,
        batch=8,
        learning_rate=1e-2,
        spread=0.01,
    )
    head, curve = fit_head(views, vertices, Symmetry(), config)
    with torch.inference_mode():
        answer = head.logits(head(tokens[:8])).argmax(-1).flatten(1)
        likeness = head.likeness(tokens[:8])
    right = torch.where(fine[:8] == 12, answer >= 12, answer == fine[:8])
    assert float(right.float().mean()) > 0.8
    assert bool(((likeness > 1) == (which[:8] < 12)).all())
    assert bool(((likeness < -1) == (which[:8] == 12)).all())
    assert curve["object"][-1] < curve["object"][0]
    again, _ = fit_head(views, vertices, Symmetry(), config)
    assert torch.equal(head.vertex_features, again.vertex_features)


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_a_head_is_trained_in_the_precision_that_the_processor_is_fast_in(
    precision: str, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = list[torch.dtype]()

    def logits(head: Head, features: torch.Tensor) -> torch.Tensor:
        result = plain(head, features)
        computed.append(result.dtype)
        return result

    plain = Head.logits
    monkeypatch.setattr(Head, "logits", logits)
    monkeypatch.setattr(
        "uns_pose_ros.training.head_training.choose_precision", lambda device: precision
    )
    tokens, points = torch.randn(4, 8, 8, 3 * 384), torch.rand(4, 256, 3)
    views = plain_views(tokens, points, torch.zeros(4, 256, dtype=torch.bool))
    fit_head(
        views,
        torch.rand(12, 3),
        Symmetry(),
        TrainConfig(network=CONFIG.network, size=112, steps=2, batch=4),
    )
    assert set(computed) == {kind}


class KilledError(Exception):
    """Ends a training from inside."""


def test_a_killed_training_goes_on_where_it_was_and_ends_the_same(
    video: Video, tmp_path: Path
) -> None:
    backbone = load_backbone(device="cpu")
    mesh = build_feature_mesh(
        video, backbone, ReconstructConfig(hull=HullConfig(resolution=24), size=112)
    )
    one = torch.ones(1, dtype=torch.float64)
    alignment = Alignment(
        (video.name,),
        torch.eye(4, dtype=torch.float64)[None],
        one,
        torch.ones(1, dtype=torch.bool),
        one,
    )
    config = replace(CONFIG, steps=140, batch=4, views=4)
    given = (
        "truck",
        {
            video.name: video,
        },
        {video.name: mesh},
        alignment,
        backbone,
        config,
        0,
    )
    whole = category_training.train_model(*given)
    done: list[tuple[str, int]] = []

    def train(kill: tuple[str, int] | None) -> CategoryModel:
        """Train until the kill; a frame or step that was done before is not done again."""

        def progress(what: str, now: int, _: int) -> None:
            done.append((what, now))
            if (what, now) == kill:
                raise KilledError

        checkpoint = Checkpoint(tmp_path, {})
        try:
            return category_training.train_model(*given, progress, checkpoint=checkpoint)
        finally:
            checkpoint.close(done=False)

    for kill in (("random views", 7), ("training", 120)):
        with pytest.raises(KilledError):
            train(kill)
    again = train(None)
    assert done.count(("random views", len(video.frames))) == 1
    assert done.count(("training", 100)) == 1 and done.count(("training", 101)) == 2
    assert torch.equal(again.vertex_features, whole.vertex_features)
    assert all(torch.equal(again.head[name], tensor) for name, tensor in whole.head.items())
    assert again.provenance["training"] == whole.provenance["training"]


def test_a_checkpoint_of_version_0_1_0_is_resumed(tmp_path: Path) -> None:
    tokens = torch.randn(4, 8, 8, 3 * 384)
    background = torch.zeros(4, 256, dtype=torch.bool)
    views = plain_views(tokens, torch.rand(4, 256, 3), background)
    config = TrainConfig(network=CONFIG.network, size=112, steps=2, batch=4)
    vertices = torch.rand(12, 3)
    checkpoint = Checkpoint(tmp_path, {})
    head, curve = fit_head(views, vertices, Symmetry(), config, checkpoint=checkpoint)
    saved = checkpoint.load()
    assert saved is not None
    tensors, facts = saved
    tensors["head.bank"] = tensors.pop("head.vertex_features")
    tensors["head.clutter"] = tensors.pop("head.background_features")
    checkpoint.save(tensors, facts)
    done: list[int] = []
    resumed, curve_again = fit_head(
        views,
        vertices,
        Symmetry(),
        config,
        seed=1,
        progress=lambda what, now, total: done.append(now),
        checkpoint=checkpoint,
    )
    checkpoint.close(done=True)
    assert done == []  # both steps were done before
    assert curve_again == curve
    assert torch.equal(resumed.vertex_features, head.vertex_features)
    assert torch.equal(resumed.background_features, head.background_features)


SCRIPT = """
import sys
import torch
from torch import distributed
from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.training.head_training import fit_head
from uns_pose_ros.networks.correspondence_head import NetworkConfig
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.training_views import TrainConfig, Views
context, device = DistributedContext.from_environment("cpu")
generator = torch.Generator().manual_seed(context.rank)  # each has views of its own
vertices = torch.rand(12, 3, generator=torch.Generator().manual_seed(5))
which = torch.randint(12, (16, 8, 8), generator=generator)
code = torch.randn(12, 3 * 384, generator=torch.Generator().manual_seed(6))
fine = which.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
nowhere = torch.zeros_like(fine, dtype=torch.bool)
still = torch.eye(3, dtype=torch.float64).expand(16, 3, 3)
video, poses = torch.zeros(16, dtype=torch.int64), torch.cat([still, still[..., 2:]], 2)
cells = code[which].bfloat16(), vertices[fine].half(), nowhere, torch.ones(16)
views = Views(*cells, video, still, poses)
network = NetworkConfig(width=32, blocks=1, features=16, clutter=2)
config = TrainConfig(network=network, size=112, steps=40, batch=8, learning_rate=1e-2)
head, curve = fit_head(views, vertices, Symmetry(), config, context=context)
features = [torch.zeros_like(head.vertex_features) for _ in range(context.world)]
distributed.all_gather(features, head.vertex_features.detach())
if context.rank == 0:
    print(context.world, torch.equal(*features), curve["object"][-1] < 0.7 * curve["object"][0])
distributed.destroy_process_group()
"""


def test_two_processes_train_one_head(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.stdout.split() == ["2", "True", "True"], ended.stderr


def test_videos_that_the_alignment_left_out_are_not_trained_on(video: Video) -> None:
    backbone = load_backbone(device="cpu")
    mesh = build_feature_mesh(
        video, backbone, ReconstructConfig(hull=HullConfig(resolution=24), size=112)
    )
    one = torch.ones(1, dtype=torch.float64)
    alignment = Alignment(
        (video.name,),
        torch.eye(4, dtype=torch.float64)[None],
        one,
        torch.zeros(1, dtype=torch.bool),
        one,
    )
    with pytest.raises(InvalidInput, match="clip_01"):
        category_training.train_model(
            "truck", {video.name: video}, {video.name: mesh}, alignment, backbone, CONFIG
        )


def test_background_images_come_with_the_environment() -> None:
    images = load_background_images()
    assert len(images) >= 8
    assert all(image.ndim == 3 and image.shape[2] == 3 for image in images)
