"""Structure from motion: camera poses of a video from its images alone.

The steps are SIFT features, pairs by length of the video (all pairs, or neighbors and a coarse
net against drift) and incremental mapping. Where that leaves frames out, a relaxed attempt
follows, which takes more time and has lower thresholds. The relaxed attempt also computes all
poses at once, and registers the images again on which both ways disagree. Where the camera
jumps between consecutive images, a last attempt matches neighboring images only.

EXIF's focal length is only a start value, and may describe another image: where its result is
doubtful, everything runs again without it, and the better result is kept.

Features are read in copies of at most `SfmConfig.size` px, and all errors in px are px of these.

Whole images are matched, because the surroundings carry the poses. On a turntable the
surroundings stand still and would contradict the object; there masks limit the features to the
object.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Progress, Video
from uns_pose_ros.io.colmap import SparseImage
from uns_pose_ros.io.writing.replacement import check_room
from uns_pose_ros.reconstruction.capture_quality import azimuth_coverage, filming_advice
from uns_pose_ros.reconstruction.colmap.colmap_cameras import (
    UNSURE,
    reader_options,
    refined_camera,
)
from uns_pose_ros.reconstruction.colmap.image_pairs import (
    find_jump,
    match_neighbors,
    select_pairs,
)
from uns_pose_ros.reconstruction.colmap_mapper import (
    ATTEMPTS,
    DISPUTED,
    Attempt,
    ColmapMapper,
    SfmConfig,
    choose_model,
    extraction_options,
    image_pose,
    matching_options,
    registered_poses,
    silence_colmap,
    verification_options,
)
from uns_pose_ros.reconstruction.feature_images import FeatureImages, prepare_images

_MIN_PAIR_INLIERS = 15  # matches that agree make a pair
# features and matches are computed in several calls, so that the progress is known between them
_IMAGES_PER_CORE = 4
_PAIRS_AT_A_TIME = 300
_FIRST_CAMERA = 1  # number in the database of the camera that all images share
# by which a refined focal length may differ from EXIF's, either way
_MAX_FOCAL_CHANGE = 1.2
_MIN_ERROR = 0.05  # px, reprojection error below which models are equally exact
_ROOM = 400  # bytes of the database for a feature; on a full disk COLMAP ends the process

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Poses:
    """A sparse model in an arbitrary frame and scale, and its quality."""

    camera: Camera
    images: tuple[SparseImage, ...]
    points: Tensor  # (N, 3) float64, obj frame
    report: dict[str, Any]
    # px, mean reprojection error before observations with large errors were left out
    error: float = 0.0
    # by image name, the points that it sees (n, 3): u v px, z
    seen: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Task:
    """The video of which poses are wanted."""

    video: Video
    images: FeatureImages
    camera: Camera  # of these images
    calibration: str
    config: SfmConfig
    progress: Progress

    @property
    def refine_camera(self) -> bool:
        return self.calibration in UNSURE

    @property
    def is_shrunk(self) -> bool:
        return self.images.enlargement > 1

    def focal_px(self, camera: Camera) -> float:
        """The focal length of a camera of the images that are read, in px of the video."""
        return float(camera.matrix[0, 0]) * self.images.enlargement


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
        task = _Task(video, images, images.camera, calibration, config, show)
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


def _run_with_restart(task: _Task) -> tuple[Poses | None, dict[str, Any]]:
    """The best model with or without a doubtful start, and facts that explain a failure."""
    best, facts = _run_attempts(task)
    doubt = _doubt_start(best, task)
    if doubt:
        camera = assumed_camera(task.camera.width, task.camera.height)
        without = replace(task, camera=camera, calibration="guessed")
        best = _keep_better(task, best, _run_attempts(without)[0], doubt)
    return best, facts


def _run_attempts(task: _Task) -> tuple[Poses | None, dict[str, Any]]:
    """The best model of `ATTEMPTS`, and facts that explain a failure."""
    best: Poses | None = None
    facts: dict[str, Any] = {}
    start = time.perf_counter()
    for attempt in ATTEMPTS:
        if attempt.relative_seconds > 1:
            _announce(attempt, best, task, time.perf_counter() - start)
        with tempfile.TemporaryDirectory(prefix="uns_pose_sfm_") as folder:
            poses, facts_now = _run_attempt(task, attempt, Path(folder))
        # the facts of the plain attempt hold: the relaxed one finds matches in noise
        facts = facts or facts_now
        if poses is not None and (best is None or len(poses.images) >= len(best.images)):
            best = poses
        if best is not None and _is_good(best, task.video, task.config):
            break
    return _without_jump(best, task), facts


def _without_jump(best: Poses | None, task: _Task) -> Poses | None:
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
        again, _ = _run_attempt(near, replace(ATTEMPTS[-1], name="neighbors"), Path(folder))
    if again is None or len(again.images) < len(best.images) or find_jump(again.images):
        return best
    return again


def _announce(attempt: Attempt, before: Poses | None, task: _Task, seconds: float) -> None:
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


def _is_enough(poses: Poses, task: _Task) -> bool:
    return len(poses.images) >= max(3, task.config.least * len(task.video.frames))


def _doubt_start(poses: Poses | None, task: _Task) -> str:
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
    task: _Task, first: Poses | None, without: Poses | None, doubt: str
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


def _run_attempt(
    task: _Task, attempt: Attempt, work: Path
) -> tuple[Poses | None, dict[str, Any]]:
    """The best model of one attempt, and facts that explain a failure."""
    images = task.images.images
    database = work / "database.db"
    check_room(work, len(task.video.frames) * task.config.features * _ROOM)
    with silence_colmap():
        _extract_features(task, attempt, images, database)
        _match_features(task, attempt, work, database)
        total = len(task.video.frames)
        mapper = ColmapMapper(
            database=database,
            images=images,
            work=work,
            attempt=attempt,
            refine_camera=task.refine_camera,
            config=task.config,
            progress=lambda what, done: _show(task, attempt, what, done, total),
        )
        models = mapper.map_images()
        facts = {**_database_facts(database), "models": len(models)}
        _show(task, attempt, "poses", total, total)
        if not models:
            return None, facts
        best = choose_model(models, task.config.least * total)
        model = best.model
        if best.agreement >= DISPUTED:
            model = mapper.find_principal_point(model)
    poses = _to_poses(model, task, attempt, facts)
    if best.agreed is not None:
        poses.report["agreed"] = best.agreed
    if best.agreement < DISPUTED:
        poses.report["doubt"] = (
            f"two ways to compute them agree on {best.agreed} of {len(poses.images)} images"
        )
    return replace(poses, error=best.error), facts


def _show(task: _Task, attempt: Attempt, what: str, done: int, total: int) -> None:
    task.progress(f"{task.video.name}: {what} ({attempt.name})", min(done, total), total)


def _extract_features(task: _Task, attempt: Attempt, images: Path, database: Path) -> None:
    """Write the SIFT features of every frame into the database, some images at a time."""
    import pycolmap

    names = [frame.name for frame in task.video.frames]
    cores = task.config.threads if task.config.threads > 0 else os.cpu_count() or 1
    size = _IMAGES_PER_CORE * cores
    options = reader_options(task.camera, task.calibration, task.images.masks)
    for first in range(0, len(names), size):
        _show(task, attempt, "features", first, len(names))
        pycolmap.extract_features(
            database,
            images,
            image_names=names[first : first + size],
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=options,
            extraction_options=extraction_options(attempt, task.config),
            device=pycolmap.Device.cpu,
        )
        with pycolmap.Database.open(database) as opened:
            if opened.exists_camera(_FIRST_CAMERA):  # else no image could be read yet
                options.existing_camera_id = _FIRST_CAMERA
    _show(task, attempt, "features", len(names), len(names))


def _match_features(task: _Task, attempt: Attempt, work: Path, database: Path) -> None:
    """Write the matches of the selected pairs into the database, some pairs at a time."""
    import pycolmap

    names = [frame.name for frame in task.video.frames]
    pairs = select_pairs(len(names), task.config)
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = work / "pairs.txt"
    for first in range(0, len(pairs), _PAIRS_AT_A_TIME):
        _show(task, attempt, "matches", first, len(pairs))
        some = pairs[first : first + _PAIRS_AT_A_TIME]
        lines = "".join(f"{names[i]} {names[j]}\n" for i, j in some)
        (work / "pairs.txt").write_text(lines)
        pycolmap.match_image_pairs(
            database,
            matching_options=matching_options(attempt, task.config),
            pairing_options=pairing,
            verification_options=verification_options(),
            device=pycolmap.Device.cpu,
        )
    _show(task, attempt, "matches", len(pairs), len(pairs))


def _database_facts(database: Path) -> dict[str, Any]:
    """Median number of features of an image, and number of pairs that match."""
    import pycolmap

    with pycolmap.Database.open(database) as opened:
        features = [
            opened.num_keypoints_for_image(image.image_id)
            for image in opened.read_all_images()
        ]
        inliers = opened.read_two_view_geometry_num_inliers()[1]
    pairs = sum(count >= _MIN_PAIR_INLIERS for count in inliers)
    return {
        "features": float(np.median(features)) if features else 0.0,
        "pairs": int(pairs),
    }


def _to_poses(model: Any, task: _Task, attempt: Attempt, facts: dict[str, Any]) -> Poses:
    """Poses, points and report of a pycolmap model."""
    images = [SparseImage(name, 1, pose) for name, pose in registered_poses(model).items()]
    images.sort(key=lambda image: image.name)
    points = {
        number: point.xyz
        for number, point in model.points3D.items()
        if point.track.length() >= 3 and point.error < 2
    }
    camera = task.camera
    if task.refine_camera:
        camera = refined_camera(next(iter(model.cameras.values())), camera)
    total = len(task.video.frames)
    report = {
        "frames": total,
        "registered": len(images),
        "registered_fraction": round(len(images) / total, 3),
        "reprojection_error_px": round(float(model.compute_mean_reprojection_error()), 3),
        "points": len(points),
        "coverage": azimuth_coverage([image.cam_from_obj for image in images]),
        "attempt": attempt.name,
        "features_median": facts["features"],
        "focal_start_px": round(task.focal_px(task.camera), 2),
        "focal_px": round(task.focal_px(camera), 2),
        **(
            {"read_px": max(task.camera.width, task.camera.height)}
            if task.is_shrunk
            else {}
        ),
    }
    coordinates = np.array(list(points.values()), dtype=np.float64).reshape(-1, 3)
    seen = {
        image.name: _visible_points(image, points)
        for image in model.images.values()
        if image.has_pose
    }
    return Poses(camera, tuple(images), torch.tensor(coordinates), report, seen=seen)


def _visible_points(image: Any, points: Mapping[int, np.ndarray]) -> np.ndarray:
    """The points that an image observes (n, 3): u v px, and z in its camera."""
    observed = [
        point
        for point in image.points2D
        if point.has_point3D() and point.point3D_id in points
    ]
    positions = np.array([points[point.point3D_id] for point in observed]).reshape(-1, 3)
    pixels = np.array([point.xy for point in observed]).reshape(-1, 2) - 0.5
    pose = image_pose(image).numpy()
    return np.column_stack([pixels, positions @ pose[2, :3] + pose[2, 3]])
