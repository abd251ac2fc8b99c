"""One attempt at structure from motion: features, matches, a model, and its poses.

Features are read in copies of at most `SfmConfig.size` px, and all errors in px are px of these.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.types import Camera, Progress, Video
from uns_pose_ros.io.colmap import SparseImage
from uns_pose_ros.io.writing.replacement import check_room
from uns_pose_ros.reconstruction.capture_quality import azimuth_coverage
from uns_pose_ros.reconstruction.colmap.colmap_cameras import (
    UNSURE,
    reader_options,
    refined_camera,
)
from uns_pose_ros.reconstruction.colmap.colmap_options import (
    extraction_options,
    matching_options,
    silence_colmap,
    verification_options,
)
from uns_pose_ros.reconstruction.colmap.feature_images import FeatureImages
from uns_pose_ros.reconstruction.colmap.image_pairs import select_pairs
from uns_pose_ros.reconstruction.colmap_mapper import (
    DISPUTED,
    Attempt,
    ColmapMapper,
    SfmConfig,
    choose_model,
    image_pose,
    registered_poses,
)

_MIN_PAIR_INLIERS = 15  # matches that agree make a pair
# features and matches are computed in several calls, so that the progress is known between them
_IMAGES_PER_CORE = 4
_PAIRS_AT_A_TIME = 300
_SAMPLE = 5  # images that decide whether all are enlarged
_FIRST_CAMERA = 1  # number in the database of the camera that all images share
_ROOM = 400  # bytes of the database for a feature; on a full disk COLMAP ends the process


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
class SfmTask:
    """The video of which poses are wanted."""

    video: Video
    images: FeatureImages
    camera: Camera  # of these images
    calibration: str
    config: SfmConfig
    progress: Progress

    @property
    def refine_camera(self) -> bool:
        """Whether the mapper refines the camera with the poses."""
        return self.calibration in UNSURE

    @property
    def is_shrunk(self) -> bool:
        """Whether the images that are read are smaller than those of the video."""
        return self.images.enlargement > 1

    def focal_px(self, camera: Camera) -> float:
        """The focal length of a camera of the images that are read, in px of the video."""
        return float(camera.matrix[0, 0]) * self.images.enlargement


def run_attempt(
    task: SfmTask, attempt: Attempt, work: Path
) -> tuple[Poses | None, dict[str, Any]]:
    """The best model of one attempt, and facts that explain a failure."""
    images = task.images.images
    database = work / "database.db"
    check_room(work, len(task.video.frames) * task.config.features * _ROOM)
    with silence_colmap():
        _extract_features(task, attempt, database)
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


def _show(task: SfmTask, attempt: Attempt, what: str, done: int, total: int) -> None:
    task.progress(f"{task.video.name}: {what} ({attempt.name})", min(done, total), total)


def _extract_features(task: SfmTask, attempt: Attempt, database: Path) -> None:
    """Write the SIFT features of every frame into the database, some images at a time."""
    names = [frame.name for frame in task.video.frames]
    cores = task.config.threads if task.config.threads > 0 else os.cpu_count() or 1
    size = _IMAGES_PER_CORE * cores
    _show(task, attempt, "features", 0, len(names))
    doubled = _needs_doubling(task, attempt, database.with_name("sample.db"))
    for first in range(0, len(names), size):
        some = names[first : first + size]
        _extract(task, attempt, some, database, doubled)
        _show(task, attempt, "features", first + len(some), len(names))


def _needs_doubling(task: SfmTask, attempt: Attempt, database: Path) -> bool:
    """Whether images have fewer features than are kept of each, so that small ones matter.

    Of more features COLMAP keeps the largest. Those that only enlarged images have are then left
    out again.
    """
    frames = task.video.frames
    step = max(1, len(frames) // _SAMPLE)
    names = [frame.name for frame in frames[step // 2 :: step][:_SAMPLE]]
    _extract(task, attempt, names, database, doubled=False)
    return _median_features(database) < task.config.features


def _extract(
    task: SfmTask, attempt: Attempt, names: list[str], database: Path, doubled: bool
) -> None:
    """Write the SIFT features of some images into the database."""
    import pycolmap

    options = reader_options(task.camera, task.calibration, task.images.masks)
    with pycolmap.Database.open(database) as opened:
        if opened.exists_camera(_FIRST_CAMERA):  # else no image could be read yet
            options.existing_camera_id = _FIRST_CAMERA
    pycolmap.extract_features(
        database,
        task.images.images,
        image_names=names,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=options,
        extraction_options=extraction_options(attempt, task.config, doubled),
        device=pycolmap.Device.cpu,
    )


def _match_features(task: SfmTask, attempt: Attempt, work: Path, database: Path) -> None:
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
        inliers = opened.read_two_view_geometry_num_inliers()[1]
    pairs = sum(count >= _MIN_PAIR_INLIERS for count in inliers)
    return {"features": _median_features(database), "pairs": int(pairs)}


def _median_features(database: Path) -> float:
    """Median number of features of an image; 0 without images."""
    import pycolmap

    with pycolmap.Database.open(database) as opened:
        features = [
            opened.num_keypoints_for_image(image.image_id)
            for image in opened.read_all_images()
        ]
    return float(np.median(features)) if features else 0.0


def _to_poses(model: Any, task: SfmTask, attempt: Attempt, facts: dict[str, Any]) -> Poses:
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
