"""What videos tell of a model that a head has not learned from: its score, and what to expect.

Two heads learn from one half of the videos each. Each of them estimates random views of the other
half, whose poses the alignment knows, and scenes without the object. What they got right and wrong
teaches the covariance of the category, and what an object is. Whole images of the other half tell
what to expect of new instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Progress, Video
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.estimation.solver.pose_solver import solve
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.correspondence_head import Head
from uns_pose_ros.networks.dinov2 import DinoV2
from uns_pose_ros.training.augmentation import Image, empty_scene
from uns_pose_ros.training.head_training import fit_head
from uns_pose_ros.training.left_out import (
    LeftOutImage,
    error_and_fit,
    estimate_left_out,
    summarize_left_out,
)
from uns_pose_ros.training.score_training import HeldOut, calibrate
from uns_pose_ros.training.training_views import (
    TrainConfig,
    Views,
    load_background_images,
)

_STEPS = 0.4  # steps of such a head, as a share of those of the model's own
_SHARE = 0.5  # views of each step, likewise
_MOST = 600  # views with an object that are estimated, of both halves
_SCENES = 100  # scenes without the object, for each head
_FILLED = 0.15  # share of the cells of such a view that show the object, as in crops
_BATCH = 8
_VIEWS_PER_SCENE = 8


def cross_fit(
    views: Views,
    model: CategoryModel,
    videos: Sequence[Video],
    backbone: DinoV2,
    config: TrainConfig,
    seed: int = 0,
    progress: Progress | None = None,
    backgrounds: Sequence[Image] = (),
) -> dict[str, Any]:
    """Calibrate a model, and measure what to expect of it.

    Args:
        views: The views of the training.
        model: The trained model, whose template is used.
        videos: The videos that the views were drawn from, which are those of
            `model.training_poses`.
        backbone: The frozen backbone.
        config: Settings of the training.
        seed: Seed of the heads and the scenes.
        progress: Receives, for each half, the steps of the training that are done, then the views,
            scenes and images that are estimated.
        backgrounds: Images (H, W, 3) RGB without the object.

    Returns:
        Entries of the model's provenance: `calibration`, not if the poses of held-out views are all
        wrong, and `left_out`; nothing if there are fewer than two videos or no scenes.
    """
    gathered = estimate_halves(
        views, model, videos, backbone, config, seed, progress, backgrounds
    )
    if gathered is None:
        return {}
    held_out, images = gathered
    calibration = calibrate(held_out)
    threshold = LoadedModel(model, torch.device("cpu"), False).threshold
    figures = summarize_left_out(images, calibration, threshold)
    if calibration is None:
        return {"left_out": figures}
    return {"calibration": calibration.to_record(), "left_out": figures}


def estimate_halves(
    views: Views,
    model: CategoryModel,
    videos: Sequence[Video],
    backbone: DinoV2,
    config: TrainConfig,
    seed: int = 0,
    progress: Progress | None = None,
    backgrounds: Sequence[Image] = (),
) -> tuple[HeldOut, list[LeftOutImage]] | None:
    """Estimate the views and images of each half of the videos with a head of the other half.

    See `cross_fit` for the arguments; None if there are fewer than two videos or no scenes.
    """
    numbers = views.video.unique().tolist()
    count = min(config.scenes, len(views) // _VIEWS_PER_SCENE)
    if len(numbers) < 2 or not count:
        return None
    brief = replace(
        config,
        steps=max(1, round(_STEPS * config.steps)),
        batch=max(1, round(_SHARE * config.batch)),
    )
    parts = []
    images = []
    named = list(model.training_poses.items())
    for half, held in enumerate((numbers[::2], numbers[1::2])):
        show = None if progress is None else _part(progress, half)
        left_out = torch.isin(views.video, torch.tensor(held, device=views.video.device))
        head, _ = fit_head(
            replace(views, weight=torch.where(left_out, 0.0, views.weight)),
            model.vertices,
            model.symmetry,
            brief,
            seed,
            show,
            views.tokens.device,
        )
        share = views.canon[..., 0].isfinite().float().mean(1)
        chosen = (left_out & (share >= _FILLED)).nonzero()[:, 0]
        chosen = chosen[:: max(1, 2 * len(chosen) // _MOST)]
        scenes = _empty_scenes([videos[k] for k in held], count, seed, backgrounds, config)
        taught = _with_head(model, head)
        # a scene counts by the first look, which is enough for an answer
        once, twice = (
            _free_estimator(taught, backbone, views.tokens.device, second_look)
            for second_look in (False, True)
        )
        parts.append(estimate_held_out(views, chosen, scenes, taught, once, config, show))
        unseen = {named[k][0]: (videos[k], named[k][1]) for k in held}
        images += estimate_left_out(twice, unseen, model.symmetry, count, show)
    return HeldOut.join(parts), images


def _free_estimator(
    model: CategoryModel, backbone: DinoV2, device: torch.device, second_look: bool
) -> Estimator:
    """An estimator without threshold, whose covariances are those of the fit alone.

    It tries no region in parts: without a threshold, it would try all that is no object.
    """
    settings = EstimatorConfig(
        shape_variation_deg=0.0,
        score_threshold=0.0,
        touching_share=1.0,
        second_look=second_look,
    )
    return Estimator(model, backbone, str(device), settings)


def _part(progress: Progress, half: int) -> Progress:
    """Report the progress of one half with its number before each step."""
    return lambda what, done, total: progress(f"score {half + 1} of 2: {what}", done, total)


def _with_head(model: CategoryModel, head: Head) -> CategoryModel:
    """The model with another head."""
    weights = {name: tensor.detach().cpu() for name, tensor in head.state_dict().items()}
    vertices, background = (
        normalize(weights.pop(name).float(), dim=-1)
        for name in ("vertex_features", "background_features")
    )
    return replace(
        model, head=weights, vertex_features=vertices, background_features=background
    )


def _empty_scenes(
    videos: Sequence[Video],
    count: int,
    seed: int,
    backgrounds: Sequence[Image],
    config: TrainConfig,
) -> list[Image]:
    """Draw scenes without the object, beside the object of the videos or elsewhere."""
    rng = np.random.default_rng([seed, len(videos), 3])
    photographs = [*load_background_images(), *backgrounds]
    frames = [frame for video in videos for frame in video.frames if frame.mask]
    scenes = []
    for _ in range(count):
        image, mask, _ = read_frame(frames[int(rng.integers(len(frames)))])
        assert mask is not None
        scenes.append(
            empty_scene(image.numpy(), mask.numpy(), rng, photographs, config.augment)
        )
    return scenes


@torch.inference_mode()
def estimate_held_out(
    views: Views,
    chosen: Tensor,
    scenes: Sequence[Image],
    model: CategoryModel,
    estimator: Estimator,
    config: TrainConfig,
    progress: Progress | None = None,
) -> HeldOut:
    """Estimate some views, and scenes, with a head that has not learned from them.

    Args:
        views: All views.
        chosen: (K,) int64, the views that are estimated.
        scenes: Images (H, W, 3) RGB without the object.
        model: The model with the head.
        estimator: The estimator of the scenes, which uses the same model.
        config: Settings of the training.
        progress: Receives the views, then the scenes that are estimated.
    """
    show = progress or (lambda what, done, total: None)
    device = views.tokens.device
    loaded = LoadedModel(model, device, estimator.backbone.precision == "bf16")
    camera = Camera(torch.eye(3, dtype=torch.float64), config.size, config.size)
    estimates: list[tuple[int, PoseEstimate]] = []
    done = 0
    for part in chosen.split(_BATCH):
        tokens = views.tokens[part].float()
        probability, presence = loaded.read(tokens)
        crop_from_cam = views.crop_from_cam[part].cpu()
        solved = solve(
            model,
            loaded.template,
            probability,
            presence,
            config.size,
            crop_from_cam,
            camera,
            estimator.config,
            likeness=loaded.likeness(tokens),
            coarse=loaded.coarse_rotation(tokens, presence),
        )
        estimates += [
            (row, one)
            for row, one in zip(part.tolist(), solved, strict=True)
            if one is not None
        ]
        done += len(part)
        show("views", done, len(chosen))
    evidence, errors = [torch.zeros(0, len(EVIDENCE))], [torch.zeros(0, 3)]
    fits, spreads = [torch.zeros(0, 3, 3)], [torch.zeros(0, 2, 3, 3)]
    symmetry = model.symmetry
    for row, estimate in estimates:
        true = views.cam_from_canon[row, :, :3].cpu()
        error, fit = error_and_fit(estimate, true, symmetry)
        assert estimate.evidence is not None and estimate.hypothesis_spread is not None
        evidence.append(estimate.evidence[None])
        spreads.append(estimate.hypothesis_spread[None])
        errors.append(error[None])
        fits.append(fit[None])
    false = []
    for number, scene in enumerate(scenes, 1):
        height, width = scene.shape[:2]
        matrix = torch.tensor(
            [[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], dtype=torch.float64
        )
        found = estimator(scene, Camera(matrix, width, height))
        facts = [one.evidence for one in found if one.evidence is not None]
        false.append(torch.stack(facts) if facts else torch.zeros(0, len(EVIDENCE)))
        show("scenes", number, len(scenes))
    return HeldOut(
        torch.cat(evidence).double(),
        torch.cat(errors).double(),
        torch.cat(fits).double(),
        torch.cat(spreads).double(),
        [scene.double() for scene in false],
    )
