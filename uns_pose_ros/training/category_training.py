"""Train a category model on aligned videos: random views, frozen features, a contrastive head.

Every training image gives several random views. The frozen backbone reads each view once. Its
tokens stay in memory together with the target of each cell: a point of the canonical frame, or no
object. The head learns from them alone.

Source: Sommer et al., CVPR 2024 (arXiv 2407.04384), section 3.3. Changed: the template is the
category's mean shape, targets spread over neighboring vertices and over the symmetry group,
the background has several features, videos weigh by their confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.alignment.template import find_mirror_plane, mean_shape
from uns_pose_ros.core.crops import mask_box
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import project, split_similarity, transform
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Progress, Video
from uns_pose_ros.io.checkpoint import Checkpoint
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.dinov2 import DinoV2
from uns_pose_ros.training.augmentation import Image
from uns_pose_ros.training.cross_fit import cross_fit
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.head_training import Curve, fit_head
from uns_pose_ros.training.instance_shapes import record_instances
from uns_pose_ros.training.training_views import TrainConfig, random_views

_COMPARED = 8  # approximate number of frames of a video that the template is compared with


def train_model(
    category: str,
    videos: Mapping[str, Video],
    meshes: Mapping[str, FeatureMesh],
    alignment: Alignment,
    backbone: DinoV2,
    config: TrainConfig = TrainConfig(),
    seed: int = 0,
    progress: Progress | None = None,
    backgrounds: Sequence[Image] = (),
    checkpoint: Checkpoint | None = None,
    context: DistributedContext = DistributedContext(),
    watch: Callable[[Curve], object] | None = None,
) -> CategoryModel:
    """Train a category model on the videos that the alignment kept, on the backbone's device.

    The frames of the videos need masks and poses.

    Args:
        category: Name of the category.
        videos: The videos by name.
        meshes: Their feature meshes by name.
        alignment: Their poses in the canonical frame.
        backbone: The frozen backbone.
        config: Settings.
        seed: Seed of the views and of the training.
        progress: Receives the views and steps that are done.
        backgrounds: Images (H, W, 3) RGB without the object, in addition to those of
            `load_background_images`.
        checkpoint: Where the work is kept, to continue after a kill.
        context: This process among those that train the model.
        watch: Receives the training's curve from time to time.

    Raises:
        InvalidInput: No given video was kept by the alignment.
    """
    rows = {
        name: i
        for i, name in enumerate(alignment.videos)
        if bool(alignment.kept[i]) and name in videos and name in meshes
    }
    if not rows:
        raise InvalidInput(
            f"none of the videos {', '.join(videos)} was kept by the alignment: nothing to train on"
        )
    index = list(rows.values())
    poses = alignment.canon_from_obj[index]
    confidence = alignment.confidence[index].clamp_min(0.05)
    shapes = [(meshes[name].vertices, meshes[name].triangles) for name in rows]
    vertices, triangles = mean_shape(shapes, poses, confidence, config.template)
    chosen = [videos[name] for name in rows]
    mirror = find_mirror_plane(vertices, [meshes[name] for name in rows], poses)
    views = random_views(
        chosen,
        shapes,
        poses,
        confidence,
        backbone,
        config,
        seed,
        progress,
        mirror,
        backgrounds,
        checkpoint,
        context,
    )
    device = next(backbone.parameters()).device
    head, curve = fit_head(
        views,
        vertices,
        alignment.symmetry,
        config,
        seed,
        progress,
        device,
        checkpoint,
        context,
        watch,
    )
    weights = {
        name: tensor.detach().cpu()
        for name, tensor in head.state_dict().items()
        if name not in ("vertex_features", "background_features")
    }
    metric = [
        float(1 / split_similarity(pose)[2])
        for name, pose in zip(rows, poses, strict=True)
        if videos[name].metric
    ]
    model = CategoryModel(
        category=category,
        vertices=vertices,
        triangles=triangles,
        vertex_features=torch.nn.functional.normalize(
            head.vertex_features.detach().float(), dim=-1
        ).cpu(),
        background_features=torch.nn.functional.normalize(
            head.background_features.detach().float(), dim=-1
        ).cpu(),
        head=weights,
        symmetry=alignment.symmetry,
        diameter=float(np.median(metric)) if metric else None,
        provenance={
            "network": asdict(config.network),
            "crop_size": config.size,
            "mirror": None if mirror is None else mirror.tolist(),
            "canon_from_obj": {
                name: pose.tolist() for name, pose in zip(rows, poses, strict=True)
            },
            "training": curve,
            "template_share": template_share(vertices, chosen, poses),
            "instances": record_instances(meshes, dict(zip(rows, poses, strict=True))),
        },
    )
    learned = cross_fit(views, model, chosen, backbone, config, seed, progress, backgrounds)
    return replace(model, provenance={**model.provenance, **learned})


def template_share(
    vertices: Tensor, videos: Sequence[Video], canon_from_obj: Tensor
) -> float:
    """Longer side of the template in an image over that of the object, at most 1.

    It is the lower quartile over some frames of each video. It is below 1 where the mean shape
    lacks thin parts.

    Args:
        vertices: Template vertices (V, 3), canon frame.
        videos: N videos.
        canon_from_obj: Poses (N, 4, 4) of the videos.
    """
    shares = []
    for video, pose in zip(videos, canon_from_obj, strict=True):
        frames = [
            frame for frame in video.frames if frame.mask and frame.cam_from_obj is not None
        ]
        for frame in frames[:: max(1, len(frames) // _COMPARED)]:
            _, mask, camera = read_frame(frame)
            assert mask is not None and frame.cam_from_obj is not None
            if not bool(mask.any()):
                continue
            box = mask_box(mask)
            points = transform(torch.linalg.inv(pose), vertices.double())
            pixels = project(camera.matrix, transform(frame.cam_from_obj, points))
            template_side = (pixels.amax(0) - pixels.amin(0)).max()
            object_side = (box[2:] - box[:2] + 1).max()
            shares.append(float(template_side / object_side))
    return min(float(np.quantile(shares, 0.25)), 1.0) if shares else 1.0
