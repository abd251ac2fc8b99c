"""Camera poses of a video that has none, in meters where it has depth."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io import artifacts, depth_images
from uns_pose_ros.io.colmap import has_sparse, write_sparse
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.schema.video_record import read_video_record
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.io.writing.replacement import repair_folder
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.networks import mobile_sam, u2net
from uns_pose_ros.networks.u2net import Salience
from uns_pose_ros.pipeline.poses_and_masks.made_parts import (
    is_given,
    note_report,
    replace_made,
)
from uns_pose_ros.pipeline.provenance import (
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
from uns_pose_ros.reconstruction.prompted_segmentation import PromptedSegmenter
from uns_pose_ros.reconstruction.segmentation import Segmenter

# px, by which masks shrink where they say what may be matched: features reach beyond their middle
_EDGE = 3

_log = logging.getLogger(__name__)


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
        return note_report(folder, "poses", sparse)
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
    replace_made(
        sparse,
        wanted,
        report,
        lambda new: write_sparse(new, {1: found.camera}, found.images, found.points),
    )
    note_report(folder, "poses", sparse)
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


def _gray(image: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
