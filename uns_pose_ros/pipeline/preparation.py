"""Camera poses and masks of videos that have none.

Only results of this module, marked by made.json, are made again, and only if their inputs or
settings changed. Given masks and poses are never touched. A folder appears whole, by a rename.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from msgspec import convert

from uns_pose_ros.core.camera import undistort_mask
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Progress, Video
from uns_pose_ros.io import artifacts, depth_images
from uns_pose_ros.io.colmap import has_sparse, write_sparse
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.schema.decoding import describe, read_record
from uns_pose_ros.io.schema.made_record import MadeRecord
from uns_pose_ros.io.schema.video_record import (
    VIDEO_RECORD,
    MasksReport,
    PosesReport,
    read_video_entries,
    read_video_record,
)
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.io.writing.replacement import repair_folder, replace_folder
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.networks import mobile_sam, pretrained_weights, u2net
from uns_pose_ros.networks.u2net import Salience
from uns_pose_ros.pipeline.provenance import (
    MADE,
    FileCache,
    folder_hashes,
    is_current_folder,
    stage_provenance,
)
from uns_pose_ros.reconstruction import (
    capture_quality,
    depth_scale,
    prompted_segmentation,
    structure_from_motion,
)
from uns_pose_ros.reconstruction import segmentation as masking
from uns_pose_ros.reconstruction.colmap.sfm_attempt import Poses
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.hull_of_others import MaskFit, bad_masks, judge_masks
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.reconstruction.prompted_segmentation import (
    PromptableNetwork,
    PromptedSegmenter,
)
from uns_pose_ros.reconstruction.segmentation import Segmenter

# px, by which masks shrink where they say what may be matched: features reach beyond their middle
_EDGE = 3

_log = logging.getLogger(__name__)


def is_given(folder: Path) -> bool:
    """Whether a folder masks/ or sparse/ has content that this program did not make."""
    return folder.is_dir() and any(folder.iterdir()) and not (folder / MADE).exists()


def ensure_poses(
    folder: Path,
    config: SfmConfig = SfmConfig(),
    progress: Progress | None = None,
    files: FileCache | None = None,
) -> bool:
    """Give a video without camera poses its sparse/.

    The poses are in meters if the video has depth.

    Args:
        folder: the video.
        config: settings of the poses.
        progress: is called with the step, the images done and all images.
        files: hashes that this run has computed already.

    Returns:
        Whether the poses were made now.

    Raises:
        InvalidInput: the poses cannot be found, or another process works on the video.
        DiskError: the disk refuses sparse/.
    """
    with lock_target(folder):
        return _ensure_poses(folder, config, progress, files)


def _ensure_poses(
    folder: Path, config: SfmConfig, progress: Progress | None, files: FileCache | None
) -> bool:
    sparse = folder / "sparse"
    repair_folder(sparse)
    if is_given(sparse):
        if not has_sparse(sparse):
            raise InvalidInput(
                f"{sparse}: no COLMAP model in it; cameras, images and points3D as .txt or "
                ".bin are needed"
            )
        return False
    files = files or FileCache()
    record = read_video_record(folder)
    calibration = str((record.camera or {}).get("from", "guessed"))
    inputs = {
        **folder_hashes(folder, "images", files),
        **folder_hashes(folder, "depth", files),
        "camera": record.camera,
    }
    wanted = stage_provenance("sfm", config, inputs)
    if is_current_folder(sparse, wanted):
        return _note(folder, "poses", sparse)
    start, video = (
        time.perf_counter(),
        load_video(folder, need_masks=False, need_poses=False),
    )
    turntable = capture_quality.is_turntable(
        [_gray(read_image(frame.image).numpy()) for frame in video.frames]
    )
    with tempfile.TemporaryDirectory(prefix="uns_pose_masks_") as temporary:
        allowed = _matchable(folder, Path(temporary), progress) if turntable else None
        found = _to_meters(
            folder,
            structure_from_motion.find_poses(video, calibration, allowed, config, progress),
        )
    seconds = round(time.perf_counter() - start, 2)
    report = {
        "calibration": calibration,
        **found.report,
        "turntable": turntable,
        "seconds": seconds,
    }
    if found.report["registered"] < config.wanted * len(video.frames):
        _log.warning(
            "%s: %d of %d frames got a pose; walk slower, with the surroundings in the image",
            folder,
            found.report["registered"],
            len(video.frames),
        )
    if doubt := found.report.get("doubt"):
        _log.warning("%s: the camera poses are doubtful: %s", folder, doubt)
    _replace(
        sparse,
        wanted,
        report,
        lambda new: write_sparse(new, {1: found.camera}, found.images, found.points),
    )
    _note(folder, "poses", sparse)
    return True


def _to_meters(folder: Path, found: Poses) -> Poses:
    """Scale poses and points to meters by the depth of the images that have it.

    They stay as they are if the depth does not give a scale.
    """
    paths = {
        image.name: depth_images.depth_path(folder, image.name) for image in found.images
    }
    there = {name: path for name, path in paths.items() if path.exists()}
    if not there:
        return found
    size = (found.camera.width, found.camera.height)
    meters = depth_scale.metres_per_unit(
        (found.seen[name], depth_images.read_depth(path, size))
        for name, path in there.items()
    )
    report = {**found.report, "metres": artifacts.plain(meters)}
    if meters.unit_m is None:
        _log.warning(
            "%s: depth gives no scale: of %d observations of points where it was measured %d "
            "agree; the video has no metric scale",
            folder,
            meters.observations,
            meters.agreeing,
        )
        return replace(found, report=report)
    images = []
    for image in found.images:
        pose = image.cam_from_obj.clone()
        pose[:3, 3] *= meters.unit_m
        images.append(replace(image, cam_from_obj=pose))
    return replace(
        found,
        images=tuple(images),
        points=found.points * meters.unit_m,
        seen={},
        report=report,
    )


def ensure_masks(
    folder: Path,
    load: Callable[[], Salience],
    config: MaskConfig = MaskConfig(),
    progress: Progress | None = None,
    load_segmenter: Callable[[], PromptableNetwork] | None = None,
    files: FileCache | None = None,
) -> bool:
    """Give a video without masks its masks/, fused if the video has poses.

    Args:
        folder: the video.
        load: loads the network of salient objects, if it is needed.
        config: settings of the masks.
        progress: is called with the step, the images done and all images.
        load_segmenter: loads the network for prompts and for masks in doubt; None: MobileSAM.
        files: hashes that this run has computed already.

    Returns:
        Whether the masks were made now.

    Raises:
        InvalidInput: the masks cannot be found, or another process works on the video.
        DiskError: the disk refuses masks/.
    """
    with lock_target(folder):
        return _ensure_masks(folder, load, config, progress, load_segmenter, files)


def _ensure_masks(
    folder: Path,
    load: Callable[[], Salience],
    config: MaskConfig,
    progress: Progress | None,
    load_segmenter: Callable[[], PromptableNetwork] | None,
    files: FileCache | None,
) -> bool:
    target = folder / "masks"
    repair_folder(folder / "sparse")
    repair_folder(target)
    if is_given(target):
        return False
    files = files or FileCache()
    inputs = {
        **folder_hashes(folder, "images", files),
        **folder_hashes(folder, "sparse", files),
    }
    prompts = prompted_segmentation.read_prompts(folder)
    network = "u2netp" if prompts is None else mobile_sam.NAME
    wanted = {
        **stage_provenance("mask", config, inputs),
        "network": files.hash(pretrained_weights.find(network)),
    }
    if prompts is not None:
        wanted["prompts"] = artifacts.plain(prompts)
    mender = pretrained_weights.cache_folder() / f"{mobile_sam.NAME}.safetensors"
    mends = prompts is not None or mender.is_file()
    if prompts is None and mends:
        wanted["mended_by"] = files.hash(mender)
    if is_current_folder(target, wanted):
        return _note(folder, "masks", target)
    video = load_video(folder, need_masks=False, need_poses=has_sparse(folder / "sparse"))
    start = time.perf_counter()
    load_network = cache(load_segmenter or mobile_sam.load_sam)
    how: Salience | Segmenter = (
        load() if prompts is None else PromptedSegmenter(prompts, load_network(), config)
    )

    def load_mender() -> PromptableNetwork | None:
        return load_network() if mends else None

    found = masking.find_masks(video, how, config, progress, load_mender)
    if found.mended and not mends:
        _log.warning(
            "%s: %d masks were cut where the other images see no object; `uns-pose weights %s` "
            "fetches the network that segments them again",
            folder,
            len(found.mended),
            mobile_sam.NAME,
        )
    report = {
        **masking.summarize_masks(found, config),
        "seconds": round(time.perf_counter() - start, 2),
    }
    if not found.fits:
        _log.warning(
            "%s: without camera poses the masks of single images stay as they are", folder
        )

    def write(new: Path) -> None:
        for frame in video.frames:
            path = new / f"{frame.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = (
                masking.distort_mask(found.masks[frame.name], frame.camera).astype(np.uint8)
                * 255
            )
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    _replace(target, wanted, report, write)
    _note(folder, "masks", target)
    return True


def prepare_videos(
    folders: list[Path],
    poses: SfmConfig = SfmConfig(),
    masks: MaskConfig = MaskConfig(),
    progress: Progress | None = None,
    files: FileCache | None = None,
) -> dict[str, list[str]]:
    """Find poses, then masks, of every video that lacks them.

    A video that fails does not stop the others.

    Args:
        folders: the videos.
        poses: settings of the poses.
        masks: settings of the masks.
        progress: is called with the step, the images done and all images.
        files: hashes that this run has computed already.

    Returns:
        By video, "poses" and "masks" if they were made now.

    Raises:
        InvalidInput: a video failed.
    """
    files = files or FileCache()
    load = cache(u2net.load_salience)  # once, and only if it is needed
    made, failures = dict[str, list[str]](), list[str]()
    for folder in folders:
        made[folder.name] = []
        try:
            if ensure_poses(folder, poses, progress, files):
                made[folder.name].append("poses")
            if ensure_masks(folder, load, masks, progress, files=files):
                made[folder.name].append("masks")
        except InvalidInput as error:
            failures.append(str(error))
    if failures:
        rest = f" (and {len(failures) - 1} more videos)" if len(failures) > 1 else ""
        raise InvalidInput(f"{failures[0]}{rest}")
    return made


def check_masks(video: Video, config: MaskConfig = MaskConfig()) -> list[str]:
    """Names of the frames whose masks do not fit the hull of the other masks.

    One warning names them. Another one says where most masks do not: camera poses that are wrong
    do that.
    """
    fits = mask_fits(video)
    bad = bad_masks(fits, config)
    usual = statistics.median(fit.overlap for fit in fits.values()) if fits else 1.0
    if usual < config.agreed:
        _log.warning(
            "%s: the camera poses are doubtful: most masks overlap the hull of the others by %.2f, "
            "at least %.2f is usual",
            video.folder,
            usual,
            config.agreed,
        )
    if bad:
        _log.warning(
            "%s: %d of %d masks do not fit the others (overlap with their hull down to %.2f): %s",
            video.folder,
            len(bad),
            len(fits),
            min(fits[name].overlap for name in bad),
            shorten(bad),
        )
    return bad


def mask_fits(video: Video) -> dict[str, MaskFit]:
    """How each mask fits the silhouette of the hull of the other masks.

    The result is empty if no hull exists.
    """
    masks, matrices, poses = dict[str, np.ndarray](), [], []
    for frame in video.frames:
        if frame.mask is None or frame.cam_from_obj is None:
            continue
        mask = undistort_mask(read_mask(frame.mask), frame.camera)
        masks[frame.name] = mask.numpy()
        matrices.append(frame.camera.matrix)
        poses.append(frame.cam_from_obj)
    if not masks:
        return {}
    return judge_masks(masks, torch.stack(matrices), torch.stack(poses))


def _matchable(folder: Path, temporary: Path, progress: Progress | None) -> Path:
    """Write masks of the object on a turntable, slightly smaller than the object.

    They are the given masks, else those of single images.
    """
    video = load_video(folder, need_masks=is_given(folder / "masks"), need_poses=False)
    given = [frame.mask for frame in video.frames if frame.mask is not None]
    if is_given(folder / "masks") and len(given) == len(video.frames):
        found = {
            f.name: cv2.imread(str(f.mask), cv2.IMREAD_GRAYSCALE) for f in video.frames
        }
        pixels = {
            name: np.asarray(mask) > np.asarray(mask).max() / 2
            for name, mask in found.items()
        }
    else:
        prompts = prompted_segmentation.read_prompts(folder)
        how: Salience | Segmenter = (
            u2net.load_salience()
            if prompts is None
            else PromptedSegmenter(prompts, mobile_sam.load_sam())
        )
        pixels = masking.find_masks(video, how, progress=progress).masks
    kernel = np.ones((2 * _EDGE + 1, 2 * _EDGE + 1), np.uint8)
    for name, mask in pixels.items():
        path = temporary / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        smaller = cv2.erode(mask.astype(np.uint8) * 255, kernel)
        path.write_bytes(cv2.imencode(".png", smaller)[1].tobytes())
    return temporary


def _replace(
    target: Path,
    provenance: Mapping[str, Any],
    report: Mapping[str, Any],
    write: Callable[[Path], None],
) -> None:
    """Replace `target` by a new folder, with made.json in it."""
    with replace_folder(target) as new:
        write(new)
        artifacts.write_json(
            new / MADE,
            {"provenance": artifacts.plain(provenance), "report": artifacts.plain(report)},
        )


def _note(folder: Path, key: str, target: Path) -> bool:
    """Copy the report of new poses or masks into video.json.

    Returns False, for callers that made nothing now.
    """
    report = read_record(target / MADE, MadeRecord, "record").report
    try:
        convert(report, PosesReport if key == "poses" else MasksReport)
    except ValueError as error:
        raise InvalidInput(
            f"{target / MADE}: not a valid report of {key} ({describe(error)})"
        ) from None
    entries = read_video_entries(folder)
    before = entries.get(key)
    if before != report:
        metric = read_video_record(folder).metric
        if key == "poses" and (
            "metres" in report or "metres" in (before or {})
        ):  # depth says so, nobody else
            metric = (report.get("metres") or {}).get("unit_m") is not None
        artifacts.write_json(
            folder / VIDEO_RECORD, {**entries, "metric": metric, key: report}
        )
    return False


def _gray(image: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
