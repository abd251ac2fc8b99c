"""Structure from motion: camera poses of a video from its images alone.

The steps are SIFT features, pairs by length of the video (all pairs, or neighbors and a coarse
net against drift) and incremental mapping. Where that leaves frames out, a relaxed attempt
follows, which takes more time and has lower thresholds. The relaxed attempt also computes all
poses at once, and registers the images again on which both ways disagree. Where the camera
jumps between consecutive images, a last attempt matches neighboring images only.
`colmap/sfm_attempt` runs one attempt.

EXIF's focal length is only a start value, and may describe another image: where its result is
doubtful, everything runs again without it, and the better result is kept.

Whole images are matched, because the surroundings carry the poses. On a turntable the
surroundings stand still and would contradict the object; there masks limit the features to the
object.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Progress, Video
from uns_pose_ros.reconstruction.capture_quality import filming_advice
from uns_pose_ros.reconstruction.colmap.feature_images import prepare_images
from uns_pose_ros.reconstruction.colmap.image_pairs import find_jump, match_neighbors
from uns_pose_ros.reconstruction.colmap.sfm_attempt import Poses, SfmTask, run_attempt
from uns_pose_ros.reconstruction.colmap_mapper import ATTEMPTS, Attempt, SfmConfig

# by which a refined focal length may differ from EXIF's, either way
_MAX_FOCAL_CHANGE = 1.2
_MIN_ERROR = 0.05  # px, reprojection error below which models are equally exact

_LOG = logging.getLogger(__name__)


def find_poses(
    video: Video,
    calibration: str = "guessed",
    masks: Path | None = None,
    config: SfmConfig = SfmConfig(),
    progress: Progress | None = None,
) -> Poses:
    """Compute the poses of as many frames as can be connected, by `ATTEMPTS`.

    Args:
        video: its frames need no poses.
        calibration: source of the frames' camera; the mapper refines a camera that is "guessed"
            or of "exif", any other is fixed. Where the result of "exif" is doubtful, the poses
            are computed again without it, and the better result is kept.
        masks: folder with <image name>.png, white where features may be; for turntables.
        config: sizes and thresholds.
        progress: called after each step.

    Raises:
        InvalidInput: too few frames are connected; the message gives the reason and how to film
            better.
    """
    show = progress or (lambda what, done, total: None)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="uns_pose_images_") as folder:
        shared = _shared_camera(video)
        images = prepare_images(video, shared, masks, config.size, Path(folder))
        task = SfmTask(video, images, images.camera, calibration, config, show)
        best, facts = _run_with_restart(task)
    if best is None or not _is_enough(best, task):
        registered = 0 if best is None else len(best.images)
        raise InvalidInput(
            f"{video.folder}: {registered} of {len(video.frames)} frames got a pose; "
            f"{filming_advice(len(video.frames), facts)}"
        )
    best.report["seconds"] = round(time.perf_counter() - start, 1)
    camera = images.enlarge_camera(best.camera) if task.refine_camera else shared
    return replace(best, camera=camera, seen=images.enlarge_pixels(best.seen))


def _run_with_restart(task: SfmTask) -> tuple[Poses | None, dict[str, Any]]:
    """The best model with or without a doubtful start, and facts that explain a failure."""
    best, facts = _run_attempts(task)
    doubt = _doubt_start(best, task)
    if doubt:
        camera = assumed_camera(task.camera.width, task.camera.height)
        without = replace(task, camera=camera, calibration="guessed")
        best = _keep_better(task, best, _run_attempts(without)[0], doubt)
    return best, facts


def _run_attempts(task: SfmTask) -> tuple[Poses | None, dict[str, Any]]:
    """The best model of `ATTEMPTS`, and facts that explain a failure."""
    best: Poses | None = None
    facts: dict[str, Any] = {}
    start = time.perf_counter()
    for attempt in ATTEMPTS:
        if attempt.relative_seconds > 1:
            _announce(attempt, best, task, time.perf_counter() - start)
        with tempfile.TemporaryDirectory(prefix="uns_pose_sfm_") as folder:
            poses, facts_now = run_attempt(task, attempt, Path(folder))
        # the facts of the plain attempt hold: the relaxed one finds matches in noise
        facts = facts or facts_now
        if poses is not None and (best is None or len(poses.images) >= len(best.images)):
            best = poses
        if best is not None and _is_good(best, task.video, task.config):
            break
    return _without_jump(best, task), facts


def _without_jump(best: Poses | None, task: SfmTask) -> Poses | None:
    """The poses, or ones of neighboring images' matches alone where the camera jumps.

    These are kept only if they have as many images and the camera does not jump. They may drift:
    nothing closes the loop.
    """
    jump = None if best is None else find_jump(best.images)
    if best is None or jump is None:
        return best
    _LOG.info(
        "%s: %s; an attempt starts that matches neighboring images only",
        task.video.folder,
        jump,
    )
    near = replace(task, config=match_neighbors(task.config, len(task.video.frames)))
    with tempfile.TemporaryDirectory(prefix="uns_pose_sfm_") as folder:
        again, _ = run_attempt(near, replace(ATTEMPTS[-1], name="neighbors"), Path(folder))
    if again is None or len(again.images) < len(best.images) or find_jump(again.images):
        return best
    return again


def _announce(
    attempt: Attempt, before: Poses | None, task: SfmTask, seconds: float
) -> None:
    """Log why a further attempt starts, and how long it will take.

    Args:
        attempt: that starts.
        before: the result of the attempts before it.
        task: the video.
        seconds: that they took.
    """
    total = len(task.video.frames)
    registered = 0 if before is None else len(before.images)
    reason = f"{registered} of {total} frames got a pose"
    if before is not None and registered >= task.config.wanted * total:
        reason = f"the poses leave errors of {before.error:.2f} px, {task.config.error} px is good"
    _LOG.info(
        "%s: %s; a %s attempt starts, about %.0f times as long as the plain one (%s h)",
        task.video.folder,
        reason,
        attempt.name,
        attempt.relative_seconds,
        timedelta(seconds=round(attempt.relative_seconds * seconds)),
    )


def _is_enough(poses: Poses, task: SfmTask) -> bool:
    return len(poses.images) >= max(3, task.config.least * len(task.video.frames))


def _doubt_start(poses: Poses | None, task: SfmTask) -> str:
    """Why the result may be wrong because EXIF's focal length is; "" where it is not doubted."""
    if task.calibration != "exif":
        return ""
    if poses is None or not _is_enough(poses, task):
        registered = 0 if poses is None else len(poses.images)
        return f"with it {registered} of {len(task.video.frames)} frames got a pose"
    change = _focal(poses.camera) / _focal(task.camera)
    if max(change, 1 / change) > _MAX_FOCAL_CHANGE:
        return f"it became {task.focal_px(poses.camera):.0f} px with the poses"
    if not _is_good(poses, task.video, task.config):
        return "its poses are doubtful"
    return ""


def _keep_better(
    task: SfmTask, first: Poses | None, without: Poses | None, doubt: str
) -> Poses | None:
    """The better of the results with and without EXIF's focal length; its report says which.

    The one with more registered images is better. With equally many, the one with more points per
    pixel of mean reprojection error is: a wrong focal length bends the rays, which loses points
    and leaves errors.
    """
    candidates = [poses for poses in (without, first) if poses is not None]
    if not candidates:
        return None
    best = max(candidates, key=_quality)
    start = (
        f"EXIF's focal length, {task.focal_px(task.camera):.0f} px, is doubtful: {doubt}"
    )
    kept = "with" if best is first else "without"
    _LOG.warning(
        "%s: %s; computed again without it, and the result %s it is kept: %.0f px, "
        "%d of %d frames",
        task.video.folder,
        start,
        kept,
        task.focal_px(best.camera),
        len(best.images),
        len(task.video.frames),
    )
    other = first if best is without else without
    restart = {
        "reason": start,
        "kept": f"{kept} exif",
        "other": None if other is None else other.report,
    }
    calibration = "exif" if best is first else "guessed"
    report = {**best.report, "calibration": calibration, "restart": restart}
    return replace(best, report=report)


def _quality(poses: Poses) -> tuple[int, float]:
    """What decides between two results, see `_keep_better`; more is better."""
    return len(poses.images), len(poses.points) / max(poses.error, _MIN_ERROR)


def _focal(camera: Camera) -> float:
    return float(camera.matrix[0, 0])


def _is_good(poses: Poses, video: Video, config: SfmConfig) -> bool:
    enough = len(poses.images) >= config.wanted * len(video.frames)
    return enough and poses.error <= config.error


def _shared_camera(video: Video) -> Camera:
    """The first frame's camera. InvalidInput where frames differ in size."""
    first = video.frames[0].camera
    for frame in video.frames:
        if (frame.camera.width, frame.camera.height) != (first.width, first.height):
            raise InvalidInput(
                f"{frame.image}: {frame.camera.width} x {frame.camera.height} px, the first "
                f"image has {first.width} x {first.height}; poses are found for images of one "
                "size"
            )
    return first
