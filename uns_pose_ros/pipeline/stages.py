"""The stages on a category folder: what each reads and makes, and when it has nothing to do.

A stage leaves its provenance in what it makes: config, hashes of every file it read, version and
seed. It is skipped only where all of them are what they would be now. Artifacts appear whole or not
at all, so a killed stage is run again; `reconstruct` goes on with the first video that it did not
finish.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import uns_pose_ros
from uns_pose_ros.alignment import category_alignment, incremental_alignment
from uns_pose_ros.alignment.canonical_axes import AUTO, AxisNames, nearest_axis, reorient
from uns_pose_ros.alignment.category_alignment import AlignConfig
from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.core.device import choose_device, choose_precision
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Alignment, CategoryModel, Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.checkpoint import Checkpoint
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.networks import pretrained_weights
from uns_pose_ros.networks.dinov2 import DinoV2, load_backbone
from uns_pose_ros.pipeline import preparation
from uns_pose_ros.reconstruction import feature_mesh
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.training import category_training
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.training_views import TrainConfig
from uns_pose_ros.visualization.alignment_figure import average_features, render_alignment
from uns_pose_ros.visualization.training_figure import plot_training

_LOG = logging.getLogger(__name__)
ALIGNMENT, ALIGNMENT_IMAGE, MODEL, TRAINING = (
    "alignment.json",
    "alignment.png",
    "model",
    "training.png",
)
_SOURCES = (
    "images",
    "masks",
    "sparse",
    "video.json",
)  # of a video: what people or other programs put there
_PICTURES, _MOST = (".jpg", ".jpeg", ".png"), 300  # of backgrounds
_BACKBONE = "dinov2_vits14"


def reconstruct(
    category: Path,
    patterns: str | None = None,
    config: ReconstructConfig = ReconstructConfig(),
    device: str = "auto",
    progress: Progress | None = None,
    sfm: SfmConfig = SfmConfig(),
    masks: MaskConfig = MaskConfig(),
) -> dict[str, bool]:
    """Give every video of a category (those that `patterns` name) its mesh.ply and
    features.safetensors.

    Camera poses and masks that a video lacks are found first. Returns for each video whether its
    mesh was made now (False: it was there already). All videos are checked before the first mesh is
    made. Raises InvalidInput naming the first that cannot be used.
    """
    folders = list_videos(category, patterns)
    preparation.prepare_videos(folders, sfm, masks, progress)
    backbone_hash = artifacts.file_hash(pretrained_weights.find(_BACKBONE))
    wanted = {
        folder: _provenance(
            "reconstruct", config, video_inputs(folder), None, backbone_hash
        )
        for folder in folders
    }
    missing = [
        folder
        for folder in folders
        if not is_made(folder / artifacts.FEATURES, wanted[folder])
    ]
    videos = {folder: load_video(folder) for folder in missing}
    if videos:
        backbone = _load_backbone(device)
    for folder, video in videos.items():
        preparation.check_masks(video, masks)
        start = time.perf_counter()
        mesh = feature_mesh.build_feature_mesh(
            video, backbone, config, _prefixed(progress, "reconstruct ")
        )
        artifacts.save_feature_mesh(
            mesh,
            folder,
            {**wanted[folder], "seconds": round(time.perf_counter() - start, 2)},
        )
    return {folder.name: folder in videos for folder in folders}


def align(
    category: Path,
    patterns: str | None = None,
    config: AlignConfig = AlignConfig(),
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> tuple[Alignment, bool]:
    """Bring the videos to one canonical frame: alignment.json.

    Second: whether it was made now, or was there already.

    cluster: where the pairs are aligned; None: here, on `device`.
    """
    folders = list_videos(category, patterns)
    if len(folders) < 2:
        raise InvalidInput(
            f"{category}: one video ({folders[0].name}), at least 2 are needed to align a category"
        )
    path = category / ALIGNMENT
    wanted = _provenance(
        "align", config, {folder.name: _mesh_hash(folder) for folder in folders}, seed
    )
    if is_made(path, wanted):
        return artifacts.load_alignment(path), False
    meshes = {folder.name: artifacts.load_feature_mesh(folder) for folder in folders}
    start = time.perf_counter()
    alignment = category_alignment.align_videos(
        meshes, config, seed, _prefixed(progress, "align: "), device, cluster
    )
    if axes_as_computed(category) is not None:
        _LOG.warning(
            "%s: aligned anew, so its axes have no names any more; give --up and --front again",
            path,
        )
    artifacts.save_alignment(
        alignment, path, {**wanted, "seconds": round(time.perf_counter() - start, 2)}
    )
    return alignment, True


def add_to_alignment(
    category: Path,
    patterns: str | None = None,
    config: AlignConfig = AlignConfig(),
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Alignment, bool]:
    """Place videos that alignment.json lacks by a few pairs each; what it holds stays.

    Second: whether there were any.
    """
    path = category / ALIGNMENT
    alignment, provenance = (
        artifacts.load_alignment(path),
        artifacts.provenance_of(path) or {},
    )
    new = [
        folder
        for folder in list_videos(category, patterns)
        if folder.name not in alignment.videos
    ]
    if not new:
        return alignment, False
    hashes = _aligned_meshes(
        category, [category / name for name in alignment.videos], alignment
    )
    inputs = {**hashes, **{folder.name: _mesh_hash(folder) for folder in new}}
    meshes = {name: artifacts.load_feature_mesh(category / name) for name in inputs}
    alignment = incremental_alignment.add_videos(
        alignment, meshes, config, seed, _prefixed(progress, "align: ")
    )
    artifacts.save_alignment(alignment, path, {**provenance, "inputs": inputs})
    return alignment, True


def name_axes(category: Path, names: AxisNames) -> tuple[Alignment, bool]:
    """Re-express alignment.json in the frame that is named; what is not said stays.

    Second: whether that changed anything.

    Names are of the frame as it was computed, so the same names give the same frame however often
    they are said. The file's provenance stays: it is not aligned again, but it has changed, and a
    model trained before is not current any more.
    """
    path = category / ALIGNMENT
    alignment, provenance = (
        artifacts.load_alignment(path),
        artifacts.provenance_of(path) or {},
    )
    before = provenance.get(
        "axes", {"up": None, "front": None, "named_from_computed": torch.eye(3).tolist()}
    )
    names = AxisNames(names.up or before["up"], names.front or before["front"])
    if names == AxisNames(before["up"], before["front"]):
        return alignment, False
    computed = reorient(
        alignment, torch.tensor(before["named_from_computed"], dtype=torch.float64).T
    )
    folders = [
        category / name
        for name, kept in zip(alignment.videos, alignment.kept, strict=True)
        if kept
    ]
    meshes = (
        {folder.name: artifacts.load_feature_mesh(folder) for folder in folders}
        if names.up == AUTO
        else {}
    )
    named_from_computed = names.rotation(meshes, computed)
    axes = {
        "up": names.up,
        "front": names.front,
        "named_from_computed": named_from_computed.tolist(),
    }
    named = reorient(computed, named_from_computed)
    artifacts.save_alignment(named, path, {**provenance, "axes": axes})
    return named, True


def axes_as_computed(category: Path) -> dict[str, str] | None:
    """The axes of the computed frame that are nearest to those of alignment.json ("x".

    "-y", …); None: nobody named any.
    """
    axes = (artifacts.provenance_of(category / ALIGNMENT) or {}).get("axes")
    if axes is None:
        return None
    return {
        axis: nearest_axis(torch.tensor(row))
        for axis, row in zip("xyz", axes["named_from_computed"], strict=True)
    }


def draw_alignment(category: Path) -> Path:
    """Make alignment.png, all aligned meshes in the canonical frame, unless it is newer than
    alignment.json; its path.
    """
    path, picture = category / ALIGNMENT, category / ALIGNMENT_IMAGE
    if picture.exists() and picture.stat().st_mtime_ns > path.stat().st_mtime_ns:
        return picture
    alignment, axes = artifacts.load_alignment(path), axes_as_computed(category)
    skins = [
        average_features(artifacts.load_feature_mesh(category / name))
        for name in alignment.videos
    ]
    note = "axes as computed" + (
        ""
        if axes is None
        else ": " + ", ".join(f"{new} was {old}" for new, old in axes.items())
    )
    pixels = render_alignment(alignment, skins, note)
    with artifacts.atomic_write(picture) as temporary:
        temporary.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return picture


def train(
    category: Path,
    patterns: str | None = None,
    config: TrainConfig = TrainConfig(),
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    backgrounds: Path | None = None,
) -> tuple[CategoryModel, bool]:
    """Train on the aligned videos: model/.

    Second: whether it was made now, or was there already.

    backgrounds: folder of pictures without the object, searched with its subfolders. After a kill
    it goes on where it was. The processes that torchrun starts train together.
    CATEGORY/training.png shows how it goes.
    """
    folders = list_videos(category, patterns)
    alignment = artifacts.load_alignment(category / ALIGNMENT)
    # a video added since is not an error: it is not part of the alignment
    if patterns is None:
        folders = [folder for folder in folders if folder.name in alignment.videos]
    inputs = {
        ALIGNMENT: artifacts.file_hash(category / ALIGNMENT),
        **_aligned_meshes(category, folders, alignment),
    }
    empty = [] if backgrounds is None else _pictures(backgrounds)
    inputs |= {str(path): artifacts.file_hash(path) for path in empty}
    path = category / MODEL
    wanted = _provenance(
        "train",
        config,
        inputs,
        seed,
        artifacts.file_hash(pretrained_weights.find(_BACKBONE)),
    )
    if is_made(path / artifacts.MODEL, wanted):
        return artifacts.load_model(path), False
    videos = {folder.name: load_video(folder) for folder in folders}
    meshes = {folder.name: artifacts.load_feature_mesh(folder) for folder in folders}
    context, device = DistributedContext.from_environment(device)
    backbone = _load_backbone(device)
    pictures = [_small(path) for path in empty]
    told, start = (
        _prefixed(progress if context.rank == 0 else None, "train: "),
        time.perf_counter(),
    )
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
            told,
            pictures,
            unfinished,
            context,
            partial(draw_training, category) if context.rank == 0 else None,
        )
        spent = {"seconds": round(time.perf_counter() - start, 2)}
        model = replace(model, provenance={**model.provenance, **wanted, **spent})
        if context.rank == 0:
            artifacts.save_model(model, path)
        done = True
    finally:
        unfinished.close(done)
    return model, True


def draw_training(category: Path, curve: Mapping[str, Sequence[float]]) -> Path:
    """Make training.png of a training's curve so far; its path."""
    figure = plot_training(curve)
    with artifacts.atomic_write(category / TRAINING) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return category / TRAINING


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, masks aside, at most _MOST of them, evenly chosen.

    InvalidInput where there are none.
    """
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _PICTURES and path.parent.name != "masks"
    ]
    if not paths:
        raise InvalidInput(
            f"{folder}: no picture ({', '.join(_PICTURES)}) in it or its subfolders"
        )
    return paths[:: -(-len(paths) // _MOST)]


def _small(path: Path) -> NDArray[np.uint8]:
    """A picture (H, W, 3) RGB with a longer side of 512 px at most."""
    image = read_image(path).numpy()
    factor = min(1.0, 512 / max(image.shape[:2]))
    return np.asarray(
        cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA),
        np.uint8,
    )


def video_inputs(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a video consists of, by its path in the folder."""
    files: list[Path] = []
    for source in (folder / name for name in _SOURCES):
        files += (
            [source]
            if source.is_file()
            else [path for path in source.rglob("*") if path.is_file()]
        )
    return {
        path.relative_to(folder).as_posix(): artifacts.file_hash(path)
        for path in sorted(files)
    }


def is_made(path: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a whole artifact is there whose provenance has everything that is `wanted`."""
    found = artifacts.provenance_of(path)
    return found is not None and all(
        name in found and found[name] == value for name, value in wanted.items()
    )


def _provenance(
    stage: str, config: Any, inputs: Any, seed: int | None, backbone: str | None = None
) -> dict[str, Any]:
    """What a stage's artifact carries, as JSON types."""
    version, settings = uns_pose_ros.__version__, artifacts.plain(config)
    record = {
        "stage": stage,
        "version": version,
        "seed": seed,
        "config": settings,
        "inputs": inputs,
    }
    return record if backbone is None else {**record, "backbone": backbone}


def _mesh_hash(folder: Path) -> str:
    """SHA-256 of a video's features.

    InvalidInput where they are missing or no longer belong to the video's files.
    """
    path = folder / artifacts.FEATURES
    again = f"`uns-pose reconstruct {folder.parent}` makes it"
    if not path.exists():
        raise InvalidInput(f"{path}: not there; {again}")
    found = artifacts.provenance_of(path)
    if found is None:
        raise InvalidInput(
            f"{path}: broken, or not made for the {artifacts.MESH} beside it; {again} again"
        )
    if found.get("inputs") != video_inputs(folder):
        raise InvalidInput(
            f"{folder}: images, masks or poses have changed since {path.name} was made; "
            f"{again} again"
        )
    return artifacts.file_hash(path)


def _aligned_meshes(
    category: Path, folders: Sequence[Path], alignment: Alignment
) -> dict[str, str]:
    """SHA-256 of each video's features.

    InvalidInput unless all are part of the alignment, with the meshes it was made from.
    """
    path = category / ALIGNMENT
    again = f"`uns-pose align {category}` aligns them"
    if unknown := [
        folder.name for folder in folders if folder.name not in alignment.videos
    ]:
        raise InvalidInput(
            f"{path}: {shorten(unknown)} not aligned, only {shorten(alignment.videos)}; {again}"
        )
    hashes = {folder.name: _mesh_hash(folder) for folder in folders}
    aligned = (artifacts.provenance_of(path) or {}).get("inputs", {})
    if changed := [name for name in hashes if aligned.get(name) != hashes[name]]:
        raise InvalidInput(
            f"{path}: the meshes of {shorten(changed)} have changed since they were aligned; "
            f"{again} again"
        )
    return hashes


def _load_backbone(device: str) -> DinoV2:
    """The backbone in the precision in which the estimator will run it on this machine."""
    return load_backbone(device=device, precision=choose_precision(choose_device(device)))


def _prefixed(progress: Progress | None, prefix: str) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(prefix + what, done, total)


def stage_seconds(category: Path, model: CategoryModel | None) -> dict[str, float]:
    """What aligning and training took, by stage, where it was noted."""
    noted = {
        "align": (artifacts.provenance_of(category / ALIGNMENT) or {}).get("seconds"),
        "train": None if model is None else model.provenance.get("seconds"),
    }
    return {
        stage: float(value)
        for stage, value in noted.items()
        if isinstance(value, int | float)
    }
