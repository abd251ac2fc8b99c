"""The videos that a model was trained on, with their objects in the canonical frame."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.geometry import transform
from uns_pose_ros.core.types import CategoryModel, Frame
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.ply import read_ply
from uns_pose_ros.io.video_folder import load_video, read_frame
from uns_pose_ros.visualization.placed_images import PlacedVideo, PosedImage

_LOG = logging.getLogger(__name__)


def find_aligned_videos(
    category: Path, model: CategoryModel
) -> dict[str, Callable[[], PlacedVideo]]:
    """Find the videos of a model's training in a category folder.

    A video whose mesh is no longer that of the training is left out with a warning: its pose in
    the canonical frame may be another one.

    Returns:
        For every video that is there, by name, what loads it; a fault of it raises InvalidInput.
    """
    videos = dict[str, Callable[[], PlacedVideo]]()
    changed = list[str]()
    inputs = model.provenance.get("inputs")
    hashes = inputs if isinstance(inputs, Mapping) else {}
    for name, canon_from_obj in model.training_poses.items():
        folder = category / name
        if not (folder / "images").is_dir():
            continue
        features, trained = folder / artifacts.FEATURES, hashes.get(name)
        if trained and features.exists() and trained != artifacts.file_hash(features):
            changed.append(name)
            continue
        videos[name] = partial(_load, folder, canon_from_obj, model)
    if changed:
        _LOG.warning(
            "%s: the meshes of %s have changed since the training; their images are left out",
            category,
            shorten(changed),
        )
    return videos


def _load(folder: Path, canon_from_obj: Tensor, model: CategoryModel) -> PlacedVideo:
    """A video with its own surface, or with the template if it has no mesh."""
    frames = load_video(folder, need_masks=False).frames
    mesh = folder / artifacts.MESH
    if mesh.exists():
        vertices, triangles = read_ply(mesh)
        vertices = transform(canon_from_obj, vertices.double())
    else:
        vertices, triangles = model.vertices.double(), model.triangles
    names = [frame.name for frame in frames]
    return PlacedVideo(
        canon_from_obj, vertices, triangles, names, lambda number: _read(frames[number])
    )


def _read(frame: Frame) -> PosedImage:
    image, _, camera = read_frame(frame)
    if frame.cam_from_obj is None:
        raise InvalidInput(f"{frame.image}: it has no camera pose")
    return PosedImage(image.numpy(), camera, frame.cam_from_obj)
