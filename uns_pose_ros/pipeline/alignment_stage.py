"""The stage that aligns the videos of a category folder, by one of two methods, or adds some.

alignment.json stores its provenance, as the artifact of every stage does, and stays where it is
current. alignment.png shows it.
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
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Alignment, FeatureMesh, Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.alignment_record import PUBLISHED
from uns_pose_ros.io.video_folder import list_videos
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.pipeline.frame_axes import (
    ALIGNMENT,
    axes_record,
    describe_axes,
    keep_axes,
    propose_axes,
)
from uns_pose_ros.pipeline.provenance import (
    FileCache,
    contains_provenance,
    mesh_hash,
    stage_provenance,
)
from uns_pose_ros.pipeline.stage_progress import prefix_progress
from uns_pose_ros.visualization.alignment_figure import average_features, render_alignment

_LOG = logging.getLogger(__name__)
ALIGNMENT_IMAGE = "alignment.png"


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
