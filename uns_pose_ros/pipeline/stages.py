"""The stages that reconstruct and align the videos of a category folder.

Their inputs, their artifacts, and when they have nothing to do; `training_stage` comes after them.

A stage stores its provenance in its artifact: settings, hashes of all files it read, version and
seed. It is skipped only if all of them are the same now. An artifact appears whole or not at all.
Therefore, a killed stage runs again; `reconstruct` continues with the first unfinished video.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from uns_pose_ros.alignment import (
    category_alignment,
    incremental_alignment,
    published_alignment,
)
from uns_pose_ros.alignment.canonical_axes import AxisNames
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.published_alignment import PublishedConfig
from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.core.device import choose_device, choose_precision
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.alignment_record import PUBLISHED
from uns_pose_ros.io.video_folder import list_videos, load_video
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
)
from uns_pose_ros.pipeline.poses_and_masks import mask_check
from uns_pose_ros.pipeline.provenance import (
    FileCache,
    contains_provenance,
    is_current,
    mesh_hash,
    stage_provenance,
    video_inputs,
)
from uns_pose_ros.reconstruction import feature_mesh
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig, Surface
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.visualization.alignment_figure import average_features, render_alignment

_LOG = logging.getLogger(__name__)
ALIGNMENT_IMAGE = "alignment.png"
BACKBONE = "dinov2_vits14"


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
    backbone_hash = files.hash(pretrained_weights.find(BACKBONE))
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
        backbone = load_stage_backbone(device)
    for folder, video in videos.items():
        with lock_target(folder):
            if video_inputs(folder, files) != wanted[folder]["inputs"]:
                raise InvalidInput(
                    f"{folder}: another process has changed images, masks or poses meanwhile; "
                    "run it again"
                )
            mask_check.check_masks(video, masks)
            start = time.perf_counter()
            mesh = feature_mesh.build_feature_mesh(
                video,
                backbone,
                config,
                prefix_progress(progress, "reconstruct "),
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
            meshes, config, seed, prefix_progress(progress, "align: "), device, cluster
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
            meshes, reference, config, seed, prefix_progress(progress, "align: "), device
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
    return {folder.name: mesh_hash(folder, files) for folder in folders}


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
        hashes = aligned_meshes(
            category, [category / name for name in alignment.videos], alignment, files
        )
        inputs = {**hashes, **{folder.name: mesh_hash(folder, files) for folder in new}}
        meshes = {name: artifacts.load_feature_mesh(category / name) for name in inputs}
        alignment = incremental_alignment.add_videos(
            alignment, meshes, config, seed, prefix_progress(progress, "align: ")
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


def aligned_meshes(
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
    hashes = {folder.name: mesh_hash(folder, files) for folder in folders}
    aligned = (files.alignment_provenance(path) or {}).get("inputs", {})
    if changed := [name for name in hashes if aligned.get(name) != hashes[name]]:
        raise InvalidInput(
            f"{path}: the meshes of {shorten(changed)} have changed since they were aligned; "
            f"{again} again"
        )
    return hashes


def load_stage_backbone(device: str) -> DinoV2:
    """Load the backbone in the precision of the estimator on this machine."""
    return load_backbone(device=device, precision=choose_precision(choose_device(device)))


def prefix_progress(progress: Progress | None, prefix: str) -> Progress | None:
    """Report progress with the name of the stage before each step."""
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
