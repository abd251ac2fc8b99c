"""The stage that trains a model on the aligned videos of a category folder, into model/.

It has nothing to do where the model is current, and only turns it where nothing but the axes of the
alignment changed. A killed training continues.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Alignment, CategoryModel, Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.checkpoint import Checkpoint, drop_finished
from uns_pose_ros.io.image_metadata import read_upright
from uns_pose_ros.io.images import ENDINGS
from uns_pose_ros.io.schema.frames_record import read_frames
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.io.writing.replacement import repair_folder
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.networks import pretrained_weights
from uns_pose_ros.pipeline.alignment_stage import aligned_meshes
from uns_pose_ros.pipeline.frame_axes import ALIGNMENT, turn_model
from uns_pose_ros.pipeline.kept_frames import keep_frames
from uns_pose_ros.pipeline.provenance import (
    FileCache,
    contains_provenance,
    is_current,
    stage_provenance,
)
from uns_pose_ros.pipeline.reconstruction_stage import BACKBONE, load_stage_backbone
from uns_pose_ros.pipeline.stage_progress import prefix_progress
from uns_pose_ros.training import category_training
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.training_views import TrainConfig
from uns_pose_ros.visualization.training_figure import plot_training

_LOG = logging.getLogger(__name__)
MODEL, TRAINING = "model", "training.png"
_MAX_BACKGROUNDS = 300
_PATIENCE = 30.0  # s that a trained model waits for who edits its frames


def train(
    category: Path,
    patterns: str | None = None,
    config: TrainConfig = TrainConfig(),
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    backgrounds: Path | None = None,
    files: FileCache | None = None,
) -> tuple[CategoryModel, bool]:
    """Train a model on the aligned videos and write model/.

    After a kill, the training continues. The processes that torchrun starts train together.
    CATEGORY/training.png shows the progress.

    Args:
        category: folder with one subfolder for each video.
        patterns: shell patterns of the videos, comma separated; None: all aligned ones.
        config: settings of the training.
        seed: seed of the random numbers.
        device: auto, cpu, cuda or cuda:N.
        progress: is called with the step, the parts done and all parts.
        backgrounds: folder of images without the object, searched with its subfolders.
        files: hashes that this run has computed already.

    Returns:
        The model, and whether it was made now.
    """
    files = files or FileCache()
    folders = list_videos(category, patterns)
    alignment = files.alignment(category / ALIGNMENT)
    # a video added since is not an error: it is not part of the alignment
    if patterns is None:
        folders = [folder for folder in folders if folder.name in alignment.videos]
    inputs = {
        ALIGNMENT: files.hash(category / ALIGNMENT),
        **aligned_meshes(category, folders, alignment, files),
    }
    empty = [] if backgrounds is None else _background_paths(backgrounds)
    if backgrounds is not None:  # names and no paths, which would tell of this machine
        inputs |= {
            f"backgrounds/{path.relative_to(backgrounds).as_posix()}": files.hash(path)
            for path in empty
        }
    path = category / MODEL
    wanted = stage_provenance(
        "train",
        config,
        inputs,
        seed=seed,
        backbone=files.hash(pretrained_weights.find(BACKBONE)),
    )
    if is_current(path / artifacts.MODEL, wanted):
        _drop_training_state(path, wanted)
        return artifacts.load_model(path), False
    turned = _turned_model(path, wanted, alignment)
    if turned is not None:
        return turned, True
    read_frames(path)  # a fault is said before the training, not after it
    videos = {folder.name: load_video(folder) for folder in folders}
    meshes = {folder.name: artifacts.load_feature_mesh(folder) for folder in folders}
    context, device = DistributedContext.from_environment(device)
    backbone = load_stage_backbone(device)
    background_images = [_read_background(path) for path in empty]
    training_progress = prefix_progress(progress if context.rank == 0 else None, "train: ")
    start = time.perf_counter()
    unfinished = Checkpoint(
        category / f".{MODEL}-{context.rank}", {**wanted, "world": context.world}
    )
    done = False
    try:
        model = category_training.train_model(
            category.resolve().name,
            videos,
            meshes,
            alignment,
            backbone,
            config,
            seed,
            training_progress,
            background_images,
            unfinished,
            context,
            partial(draw_training, category) if context.rank == 0 else None,
        )
        spent = {"seconds": round(time.perf_counter() - start, 2)}
        model = replace(model, provenance={**model.provenance, **wanted, **spent})
        if context.rank == 0:
            # a frame that is defined now would be lost
            with lock_target(path, _PATIENCE):
                model = keep_frames(model, path)
                _warn_of_lessons(path)
                artifacts.save_model(model, path)
        done = True
    finally:
        unfinished.close(done)
    return model, True


def _warn_of_lessons(path: Path) -> None:
    """Say that a new model does not know what recordings taught the model before."""
    with suppress(InvalidInput):
        if taught := len(artifacts.load_model(path).taught):
            _LOG.warning(
                "%s: the new model does not know what recordings taught the model before of %d "
                "object(s); call `uns-pose adapt` again",
                path,
                taught,
            )


def _rank_and_world() -> tuple[int, int]:
    """The number of this process among those that torchrun started, and their count."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _drop_training_state(model: Path, wanted: Mapping[str, object]) -> None:
    """Delete what a process left that was killed after it had saved its model."""
    rank, world = _rank_and_world()
    drop_finished(model.with_name(f".{MODEL}-{rank}"), {**wanted, "world": world})
    if rank == 0:
        with suppress(InvalidInput), lock_target(model):
            repair_folder(model)


def _turned_model(
    path: Path, wanted: Mapping[str, Any], alignment: Alignment
) -> CategoryModel | None:
    """Turn the model of a folder, where only the axes of the alignment changed since; or None."""

    def without_alignment(record: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {k: v for k, v in record["inputs"].items() if k != ALIGNMENT}
        return {**record, "inputs": inputs}

    before = artifacts.provenance_of(path / artifacts.MODEL)
    if before is None or not isinstance(before.get("inputs"), Mapping):
        return None
    if not contains_provenance(without_alignment(before), without_alignment(wanted)):
        return None
    is_first = _rank_and_world()[0] == 0
    with lock_target(path, _PATIENCE) if is_first else nullcontext():
        turned = turn_model(artifacts.load_model(path), alignment)
        if turned is None:
            return None
        turned = replace(turned, provenance={**turned.provenance, **wanted})
        if is_first:
            artifacts.save_model(turned, path)
            _LOG.info("%s: turned to the new axes, without training", path)
    return turned


def draw_training(category: Path, curve: Mapping[str, Sequence[float]]) -> Path:
    """Plot the curve of a training so far into training.png; returns its path."""
    figure = plot_training(curve)
    with artifacts.atomic_write(category / TRAINING) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return category / TRAINING


def _background_paths(folder: Path) -> list[Path]:
    """Images in a folder without masks/, at most _MAX_BACKGROUNDS of them, evenly chosen.

    Raises InvalidInput if the folder has none.
    """
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in ENDINGS and path.parent.name not in ("masks", "depth")
    ]
    if not paths:
        raise InvalidInput(
            f"{folder}: no image ({', '.join(ENDINGS)}) in it or its subfolders"
        )
    return paths[:: -(-len(paths) // _MAX_BACKGROUNDS)]


def _read_background(path: Path) -> NDArray[np.uint8]:
    """Read an image (H, W, 3) RGB, made smaller if its longer side exceeds 512 px."""
    image = read_upright(path).pixels
    factor = min(1.0, 512 / max(image.shape[:2]))
    return np.asarray(
        cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA),
        np.uint8,
    )
