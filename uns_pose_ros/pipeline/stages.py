"""The stages on a category folder: their inputs, their artifacts, and when they have nothing to do.

A stage stores its provenance in its artifact: settings, hashes of all files it read, version and
seed. It is skipped only if all of them are the same now. An artifact appears whole or not at all.
Therefore, a killed stage runs again; `reconstruct` continues with the first unfinished video.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.alignment import (
    category_alignment,
    incremental_alignment,
    published_alignment,
)
from uns_pose_ros.alignment.canonical_axes import AxisNames
from uns_pose_ros.alignment.category_alignment import AlignConfig
from uns_pose_ros.alignment.published_alignment import PublishedConfig
from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.core.device import choose_device, choose_precision
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.checkpoint import Checkpoint, drop_finished
from uns_pose_ros.io.image_metadata import read_upright
from uns_pose_ros.io.images import ENDINGS
from uns_pose_ros.io.schema.alignment_record import PUBLISHED
from uns_pose_ros.io.schema.frames_record import read_frames
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.io.writing.replacement import repair_folder
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.networks import pretrained_weights
from uns_pose_ros.networks.dinov2 import DinoV2, load_backbone
from uns_pose_ros.pipeline import preparation
from uns_pose_ros.pipeline.earlier_choices import choose_surfaces
from uns_pose_ros.pipeline.frame_axes import (
    ALIGNMENT,
    axes_record,
    describe_axes,
    keep_axes,
    propose_axes,
    turn_model,
)
from uns_pose_ros.pipeline.kept_frames import keep_frames
from uns_pose_ros.pipeline.provenance import (
    FileCache,
    contains_provenance,
    is_current,
    stage_provenance,
    video_inputs,
)
from uns_pose_ros.reconstruction import feature_mesh
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig, Surface
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.training import category_training
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.training_views import TrainConfig
from uns_pose_ros.visualization.alignment_figure import average_features, render_alignment
from uns_pose_ros.visualization.training_figure import plot_training

_LOG = logging.getLogger(__name__)
ALIGNMENT_IMAGE, MODEL, TRAINING = "alignment.png", "model", "training.png"
_MAX_BACKGROUNDS = 300
_PATIENCE = 30.0  # s that a trained model waits for who edits its frames
_BACKBONE = "dinov2_vits14"


def reconstruct(
    category: Path,
    patterns: str | None = None,
    config: ReconstructConfig = ReconstructConfig(),
    device: str = "auto",
    progress: Progress | None = None,
    sfm: SfmConfig = SfmConfig(),
    masks: MaskConfig = MaskConfig(),
    files: FileCache | None = None,
    surface: Surface | None = None,
) -> dict[str, bool]:
    """Give every video of a category its mesh.ply and features.safetensors.

    Missing camera poses and masks are found first. All videos are checked before the first mesh.

    Args:
        category: folder with one subfolder for each video.
        patterns: shell patterns of the videos, comma separated; None: all.
        config: settings of the reconstruction.
        device: auto, cpu, cuda or cuda:N.
        progress: is called with the step, the videos done and all videos.
        sfm: settings of the camera poses.
        masks: settings of the masks.
        files: hashes that this run has computed already.
        surface: hull, or alpha: an alpha shape of the points, see `build_feature_mesh`; None: that
            of the meshes that are there, at first hulls.

    Returns:
        For each video, whether its mesh was made now.

    Raises:
        InvalidInput: a video cannot be used; the message names the first.
    """
    files = files or FileCache()
    folders = list_videos(category, patterns)
    preparation.prepare_videos(folders, sfm, masks, progress, files)
    backbone_hash = files.hash(pretrained_weights.find(_BACKBONE))
    surfaces = choose_surfaces(folders, surface)
    wanted = {
        folder: stage_provenance(
            "reconstruct",
            _mesh_settings(config, surfaces[folder]),
            video_inputs(folder, files),
            seed=None,
            backbone=backbone_hash,
        )
        for folder in folders
    }
    missing = [
        folder
        for folder in folders
        if not is_current(folder / artifacts.FEATURES, wanted[folder])
    ]
    videos = {folder: load_video(folder) for folder in missing}
    if videos:
        backbone = _load_backbone(device)
    for folder, video in videos.items():
        with lock_target(folder):
            if video_inputs(folder, files) != wanted[folder]["inputs"]:
                raise InvalidInput(
                    f"{folder}: another process has changed images, masks or poses meanwhile; "
                    "run it again"
                )
            preparation.check_masks(video, masks)
            start = time.perf_counter()
            mesh = feature_mesh.build_feature_mesh(
                video,
                backbone,
                config,
                _prefixed(progress, "reconstruct "),
                surfaces[folder],
            )
            artifacts.save_feature_mesh(
                mesh,
                folder,
                {**wanted[folder], "seconds": round(time.perf_counter() - start, 2)},
            )
    return {folder.name: folder in videos for folder in folders}


def _mesh_settings(config: ReconstructConfig, surface: Surface) -> dict[str, Any]:
    """The settings of a mesh; those of hulls are as before there was a choice."""
    settings: dict[str, Any] = artifacts.plain(config)
    return settings if surface == "hull" else {**settings, "surface": surface}


def align(
    category: Path,
    patterns: str | None = None,
    config: AlignConfig = AlignConfig(),
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    cluster: Cluster | None = None,
    files: FileCache | None = None,
) -> tuple[Alignment, bool]:
    """Bring the videos to one canonical frame and write alignment.json.

    Args:
        category: folder with one subfolder for each video.
        patterns: shell patterns of the videos, comma separated; None: all.
        config: settings of the alignment.
        seed: seed of the random numbers.
        device: auto, cpu, cuda or cuda:N.
        progress: is called with the step, the pairs done and all pairs.
        cluster: aligns the pairs; None: this process does, on `device`.
        files: hashes that this run has computed already.

    Returns:
        The alignment, and whether it was made now.
    """
    files = files or FileCache()
    hashes = _meshes_to_align(category, patterns, files)
    wanted = stage_provenance("align", config, hashes, seed=seed)
    before = alignment_reference(category, files)

    def compute(meshes: Mapping[str, FeatureMesh]) -> Alignment:
        return category_alignment.align_videos(
            meshes, config, seed, _prefixed(progress, "align: "), device, cluster
        )

    alignment, made = _align_anew(category, hashes, wanted, compute, files)
    if made and before is not None:
        _LOG.warning(
            "%s: by consensus now; before, each video was aligned to %s by the published method",
            category / ALIGNMENT,
            before,
        )
    return alignment, made


def align_by_published_method(
    category: Path,
    reference: str,
    patterns: str | None = None,
    config: PublishedConfig = PublishedConfig(),
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    files: FileCache | None = None,
) -> tuple[Alignment, bool]:
    """Align every video to one reference by the published method and write alignment.json.

    Args:
        category: folder with one subfolder for each video.
        reference: name of the video that the others go to.
        patterns: shell patterns of the videos, comma separated; None: all.
        config: settings of the published method.
        seed: seed of the random numbers.
        device: auto, cpu, cuda or cuda:N.
        progress: is called with the step, the videos done and all videos.
        files: hashes that this run has computed already.

    Returns:
        The alignment, and whether it was made now.

    Raises:
        InvalidInput: the reference is none of the videos.
    """
    files = files or FileCache()
    names = [folder.name for folder in list_videos(category, patterns)]
    if reference not in names:
        raise InvalidInput(
            f"{category}: --reference {reference}: no such video; {shorten(names)} are valid"
        )
    hashes = _meshes_to_align(category, patterns, files)
    wanted = stage_provenance(
        "align", config, hashes, seed=seed, method=PUBLISHED, reference=reference
    )

    def compute(meshes: Mapping[str, FeatureMesh]) -> Alignment:
        return published_alignment.align_to_reference(
            meshes, reference, config, seed, _prefixed(progress, "align: "), device
        )

    return _align_anew(category, hashes, wanted, compute, files)


def alignment_reference(category: Path, files: FileCache) -> str | None:
    """The reference of an alignment by the published method; None: the videos agreed."""
    path = category / ALIGNMENT
    return files.alignment(path).reference if files.alignment_provenance(path) else None


def _meshes_to_align(
    category: Path, patterns: str | None, files: FileCache
) -> dict[str, str]:
    """SHA-256 of the features of at least two videos, by name."""
    folders = list_videos(category, patterns)
    if len(folders) < 2:
        raise InvalidInput(
            f"{category}: one video ({folders[0].name}), at least 2 are needed to align a category"
        )
    return {folder.name: _mesh_hash(folder, files) for folder in folders}


def _align_anew(
    category: Path,
    hashes: Mapping[str, str],
    wanted: Mapping[str, Any],
    compute: Callable[[Mapping[str, FeatureMesh]], Alignment],
    files: FileCache,
) -> tuple[Alignment, bool]:
    """Write the alignment that `compute` makes of the meshes, unless the file is current."""
    path = category / ALIGNMENT
    with lock_target(path):
        if contains_provenance(files.alignment_provenance(path), wanted):
            return files.alignment(path), False
        meshes = {name: artifacts.load_feature_mesh(category / name) for name in hashes}
        start = time.perf_counter()
        alignment = compute(meshes)
        record = {**wanted, "seconds": round(time.perf_counter() - start, 2)}
        kept = _with_axes_of_before(path, alignment, hashes, files)
        alignment, axes = kept or propose_axes(alignment, meshes)
        artifacts.save_alignment(alignment, path, {**record, "axes": axes})
        return alignment, True


def _with_axes_of_before(
    path: Path, alignment: Alignment, hashes: Mapping[str, str], files: FileCache
) -> tuple[Alignment, dict[str, Any]] | None:
    """Give a new alignment the axes that a person named for the one that it replaces."""
    axes = axes_record(path.parent, files)
    if axes is None or not AxisNames(axes["up"], axes["front"]).explicit:
        return None
    before = (files.alignment_provenance(path) or {}).get("inputs", {})
    unchanged = [name for name, value in hashes.items() if before.get(name) == value]
    kept = keep_axes(files.alignment(path), axes, alignment, unchanged)
    if kept is None:
        _LOG.warning(
            "%s: aligned anew from other meshes, so the names of its axes are gone; look at "
            "alignment.png and give --up and --front again",
            path,
        )
    return kept


def add_to_alignment(
    category: Path,
    patterns: str | None = None,
    config: AlignConfig = AlignConfig(),
    seed: int = 0,
    progress: Progress | None = None,
    files: FileCache | None = None,
) -> tuple[Alignment, bool]:
    """Place videos that alignment.json lacks, by a few pairs each; its other videos stay.

    Args:
        category: folder with one subfolder for each video.
        patterns: shell patterns of the videos, comma separated; None: all.
        config: settings of the alignment.
        seed: seed of the random numbers.
        progress: is called with the step, the pairs done and all pairs.
        files: hashes that this run has computed already.

    Returns:
        The alignment, and whether a video was added.
    """
    path = category / ALIGNMENT
    files = files or FileCache()
    with lock_target(path):
        alignment = files.alignment(path)
        provenance = files.alignment_provenance(path) or {}
        new = [
            folder
            for folder in list_videos(category, patterns)
            if folder.name not in alignment.videos
        ]
        if not new:
            return alignment, False
        if reference := alignment_reference(category, files):
            raise InvalidInput(
                f"{path}: made by the published method, which places no video by others: "
                f"`uns-pose align {category} --method published --reference {reference}` "
                "aligns all"
            )
        hashes = _aligned_meshes(
            category, [category / name for name in alignment.videos], alignment, files
        )
        inputs = {**hashes, **{folder.name: _mesh_hash(folder, files) for folder in new}}
        meshes = {name: artifacts.load_feature_mesh(category / name) for name in inputs}
        alignment = incremental_alignment.add_videos(
            alignment, meshes, config, seed, _prefixed(progress, "align: ")
        )
        artifacts.save_alignment(alignment, path, {**provenance, "inputs": inputs})
        return alignment, True


def draw_alignment(category: Path, files: FileCache | None = None) -> Path:
    """Draw all aligned meshes in the canonical frame into alignment.png; returns its path.

    An image that is newer than alignment.json stays.
    """
    path, image = category / ALIGNMENT, category / ALIGNMENT_IMAGE
    with lock_target(path):
        if image.exists() and image.stat().st_mtime_ns > path.stat().st_mtime_ns:
            return image
        files = files or FileCache()
        alignment = files.alignment(path)
        axes = describe_axes(category, files)
        skins = [
            average_features(artifacts.load_feature_mesh(category / name))
            for name in alignment.videos
        ]
        title = f"axes: {axes}"
        if reference := alignment_reference(category, files):
            title += f"; each video alone to {reference}, which gives no confidence"
        pixels = render_alignment(alignment, skins, title)
        with artifacts.atomic_write(image) as temporary:
            temporary.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
        return image


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
        **_aligned_meshes(category, folders, alignment, files),
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
        backbone=files.hash(pretrained_weights.find(_BACKBONE)),
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
    backbone = _load_backbone(device)
    background_images = [_read_background(path) for path in empty]
    training_progress = _prefixed(progress if context.rank == 0 else None, "train: ")
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
                artifacts.save_model(model, path)
        done = True
    finally:
        unfinished.close(done)
    return model, True


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


def _mesh_hash(folder: Path, files: FileCache) -> str:
    """SHA-256 of the features of a video.

    Raises InvalidInput if they are missing or do not belong to the files of the video.
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
    if found.get("inputs") != video_inputs(folder, files):
        raise InvalidInput(
            f"{folder}: images, masks or poses have changed since {path.name} was made; "
            f"{again} again"
        )
    return files.hash(path)


def _aligned_meshes(
    category: Path, folders: Sequence[Path], alignment: Alignment, files: FileCache
) -> dict[str, str]:
    """SHA-256 of the features of each video.

    Raises InvalidInput unless all videos are in the alignment with their present meshes.
    """
    path = category / ALIGNMENT
    again = f"`uns-pose align {category}` aligns them"
    if unknown := [
        folder.name for folder in folders if folder.name not in alignment.videos
    ]:
        raise InvalidInput(
            f"{path}: {shorten(unknown)} not aligned, only {shorten(alignment.videos)}; {again}"
        )
    hashes = {folder.name: _mesh_hash(folder, files) for folder in folders}
    aligned = (files.alignment_provenance(path) or {}).get("inputs", {})
    if changed := [name for name in hashes if aligned.get(name) != hashes[name]]:
        raise InvalidInput(
            f"{path}: the meshes of {shorten(changed)} have changed since they were aligned; "
            f"{again} again"
        )
    return hashes


def _load_backbone(device: str) -> DinoV2:
    """Load the backbone in the precision of the estimator on this machine."""
    return load_backbone(device=device, precision=choose_precision(choose_device(device)))


def _prefixed(progress: Progress | None, prefix: str) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(prefix + what, done, total)


def stage_seconds(
    category: Path, model: CategoryModel | None, files: FileCache | None = None
) -> dict[str, float]:
    """The time of alignment and training, by stage, if it is known."""
    files = files or FileCache()
    noted = {
        "align": (files.alignment_provenance(category / ALIGNMENT) or {}).get("seconds"),
        "train": None if model is None else model.provenance.get("seconds"),
    }
    return {
        stage: float(value)
        for stage, value in noted.items()
        if isinstance(value, int | float)
    }
