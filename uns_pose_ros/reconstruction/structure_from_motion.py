"""Structure from motion: camera poses of a video from its images alone.

The only user of pycolmap.

SIFT, pairs by length (all, or neighbors and a coarse net against drift), incremental mapping;
where that leaves frames out, once more with features and thresholds that cost more and ask for
less. There all poses are found at once too; what both ways disagree on is added again to what they
agree on. Whole images are matched: the surroundings carry the poses. On a turntable they stand
still and would contradict the object; there the masks say what may be matched.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.types import Camera, Progress, Video
from uns_pose_ros.core.view_coverage import Orbit
from uns_pose_ros.io.colmap import SparseImage
from uns_pose_ros.reconstruction.capture_quality import (
    CONTRAST,
    azimuth_coverage,
    consistent_frames,
    filming_advice,
)
from uns_pose_ros.reconstruction.colmap_mapper import Attempt, SfmConfig

UNSURE = ("guessed", "exif")  # where a focal length is from that is only a start
_SEED = 0
_FOCAL = (0.5, 4.0)  # longer sides of the image: between 90 and 14 degrees of view
_DOUBT, _WRONG = (
    0.5,
    2.0,
)  # px, reprojection errors from which on observations count less, and not at all
_NARROW = (
    1.5  # degrees between the rays to a point, below which it says nothing of its depth
)
_SAME = 2.0  # degrees by which two models may turn an image differently
_STEPS = 50  # of the last adjustment
_LINKED = 15  # matches that agree make a pair


ATTEMPTS = (
    Attempt("plain", CONTRAST, False, False, 30, 0.25, 100, False),
    Attempt("relaxed", 0.004, True, True, 12, 0.12, 50, True),
)


@dataclass(frozen=True, eq=False)
class Poses:
    """What was found: a sparse model in an arbitrary frame and scale, and how good it is."""

    camera: Camera
    images: tuple[SparseImage, ...]
    points: Tensor  # (N, 3) float64, obj frame
    report: dict[str, Any]
    # px, mean reprojection error before observations that are far off were left out
    error: float = 0.0
    seen: Mapping[str, np.ndarray] = field(
        default_factory=dict
    )  # by image name, points that it sees (n, 3): u v px, z


def find_poses(
    video: Video,
    calibration: str = "guessed",
    masks: Path | None = None,
    config: SfmConfig = SfmConfig(),
    progress: Progress | None = None,
) -> Poses:
    """Poses of as many frames as can be connected, by `ATTEMPTS`.

    calibration: how much the frames' camera is to be believed: "guessed" and "exif" are refined,
    anything else is fixed. masks: folder with <image name>.png, white where features may be; for
    turntables. Raises InvalidInput where too few frames are connected, saying why and what to film
    differently.
    """
    camera = _one_camera(video)
    show = progress or (lambda what, done, total: None)
    best: Poses | None = None
    facts: dict[str, Any] = {}
    start = time.perf_counter()
    for number, attempt in enumerate(ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="uns_pose_sfm_") as folder:
            found, now = _attempt(
                video, camera, calibration, masks, attempt, config, Path(folder), show
            )
        facts = (
            facts or now
        )  # those of the plain attempt: the relaxed one finds matches in noise
        if found is not None and (best is None or len(found.images) >= len(best.images)):
            best = found
        if best is not None and _is_good(best, video, config):
            break
        show(f"{video.name}: poses, {attempt.name} attempt", number + 1, len(ATTEMPTS))
    registered = 0 if best is None else len(best.images)
    if best is None or registered < max(3, config.least * len(video.frames)):
        raise InvalidInput(
            f"{video.folder}: {registered} of {len(video.frames)} frames got a pose; "
            f"{filming_advice(len(video.frames), facts)}"
        )
    best.report["seconds"] = round(time.perf_counter() - start, 1)
    return best


def _is_good(found: Poses, video: Video, config: SfmConfig) -> bool:
    return (
        len(found.images) >= config.wanted * len(video.frames)
        and found.error <= config.error
    )


def _one_camera(video: Video) -> Camera:
    first = video.frames[0].camera
    for frame in video.frames:
        if (frame.camera.width, frame.camera.height) != (first.width, first.height):
            raise InvalidInput(
                f"{frame.image}: {frame.camera.width} x {frame.camera.height} px, the first "
                "image has "
                f"{first.width} x {first.height}; poses are found for images of one size"
            )
    return first


def _attempt(
    video: Video,
    camera: Camera,
    calibration: str,
    masks: Path | None,
    attempt: Attempt,
    config: SfmConfig,
    work: Path,
    show: Progress,
) -> tuple[Poses | None, dict[str, Any]]:
    """The best model of one attempt, and facts for those that fail."""
    import pycolmap

    names = [frame.name for frame in video.frames]
    images, database = video.folder / "images", work / "database.db"
    refine = calibration in UNSURE
    steps = 3
    with _quiet(pycolmap):
        show(f"{video.name}: features ({attempt.name})", 0, steps)
        extraction = pycolmap.FeatureExtractionOptions()
        extraction.num_threads, extraction.use_gpu = config.threads, False
        extraction.sift.max_num_features, extraction.sift.peak_threshold = (
            config.features,
            attempt.peak,
        )
        extraction.sift.estimate_affine_shape = extraction.sift.domain_size_pooling = (
            attempt.affine
        )
        pycolmap.extract_features(
            database,
            images,
            image_names=names,
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=_reader(pycolmap, camera, calibration, masks),
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
        show(f"{video.name}: matches ({attempt.name})", 1, steps)
        matching = pycolmap.FeatureMatchingOptions()
        matching.num_threads, matching.use_gpu, matching.guided_matching = (
            config.threads,
            False,
            attempt.guided,
        )
        pairs, verification = (
            pycolmap.ImportedPairingOptions(),
            pycolmap.TwoViewGeometryOptions(),
        )
        verification.ransac.random_seed = _SEED
        pairs.match_list_path = work / "pairs.txt"
        (work / "pairs.txt").write_text(
            "".join(f"{names[i]} {names[j]}\n" for i, j in select_pairs(len(names), config))
        )
        pycolmap.match_image_pairs(
            database,
            matching_options=matching,
            pairing_options=pairs,
            verification_options=verification,
            device=pycolmap.Device.cpu,
        )
        show(f"{video.name}: poses ({attempt.name})", 2, steps)
        mapper = _Mapper(pycolmap, database, images, work, attempt, refine, config)
        models = mapper.models()
        with pycolmap.Database.open(database) as opened:
            features = [
                opened.num_keypoints_for_image(image.image_id)
                for image in opened.read_all_images()
            ]
            linked = sum(
                count >= _LINKED for count in opened.read_two_view_geometry_num_inliers()[1]
            )
    facts = {
        "features": float(np.median(features)) if features else 0.0,
        "pairs": int(linked),
        "models": len(models),
    }
    show(f"{video.name}: poses ({attempt.name})", 3, steps)
    if not models:
        return None, facts
    model, error = max(
        models,
        key=lambda pair: (pair[0].num_reg_images(), pair[0].compute_num_observations()),
    )
    return replace(
        _poses(model, video, camera, attempt, facts, not refine), error=error
    ), facts


def _looks_at_something(model: Any) -> bool:
    """Whether the cameras look at a common place: a model of wrong matches does not."""
    views = []
    for image in model.images.values():
        if image.has_pose:
            views.append(_pose(image).numpy())
    return len(views) >= 3 and Orbit(views).centre is not None


def _pose(image: Any) -> Tensor:
    """cam_from_obj (4, 4) of a registered image."""
    rigid = image.cam_from_world()
    rotation, translation = rigid.rotation.matrix(), rigid.translation
    return from_parts(
        torch.tensor(rotation, dtype=torch.float64),
        torch.tensor(translation, dtype=torch.float64),
    )


def _poses(
    model: Any,
    video: Video,
    camera: Camera,
    attempt: Attempt,
    facts: dict[str, Any],
    fixed: bool,
) -> Poses:
    found = []
    for image in model.images.values():
        if image.has_pose:
            found.append(SparseImage(image.name, 1, _pose(image)))
    found.sort(key=lambda one: one.name)
    good = {
        number: p.xyz
        for number, p in model.points3D.items()
        if p.track.length() >= 3 and p.error < 2
    }
    if not fixed:
        camera = _refined(next(iter(model.cameras.values())), camera)
    report = {
        "frames": len(video.frames),
        "registered": len(found),
        "registered_fraction": round(len(found) / len(video.frames), 3),
        "reprojection_error_px": round(float(model.compute_mean_reprojection_error()), 3),
        "points": len(good),
        "coverage": azimuth_coverage([one.cam_from_obj for one in found]),
        "attempt": attempt.name,
        "features_median": facts["features"],
        "focal_px": round(float(camera.matrix[0, 0]), 2),
    }
    cloud = torch.tensor(np.array(list(good.values()), dtype=np.float64).reshape(-1, 3))
    seen = {
        image.name: _seen(image, good) for image in model.images.values() if image.has_pose
    }
    return Poses(camera, tuple(found), cloud, report, seen=seen)


def _seen(image: Any, points: Mapping[int, np.ndarray]) -> np.ndarray:
    """Those of the points that an image sees (n, 3): where, u v px, and z in its camera."""
    found = [
        point
        for point in image.points2D
        if point.has_point3D() and point.point3D_id in points
    ]
    places = np.array([points[point.point3D_id] for point in found]).reshape(-1, 3)
    pixels = np.array([point.xy for point in found]).reshape(-1, 2) - 0.5
    pose = _pose(image).numpy()
    return np.column_stack([pixels, places @ pose[2, :3] + pose[2, 3]])


def select_pairs(count: int, config: SfmConfig) -> list[tuple[int, int]]:
    """Pairs of frames (i < j) that are matched."""
    if count <= config.all_pairs:
        return [(i, j) for j in range(count) for i in range(j)]
    net = range(0, count, config.net)
    pairs = {(i, j) for j in range(count) for i in range(max(0, j - config.overlap), j)} | {
        (i, j) for j in net for i in net if i < j
    }
    return sorted(pairs)


def _reader(pycolmap: Any, camera: Camera, calibration: str, masks: Path | None) -> Any:
    """What COLMAP is told of the camera; pixel centres are at half pixels there."""
    options = pycolmap.ImageReaderOptions()
    (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
    cx, cy = cx + 0.5, cy + 0.5
    k = camera.distortion.tolist()
    if calibration in UNSURE:
        options.camera_model = "SIMPLE_RADIAL"
        options.default_focal_length_factor = fx / max(camera.width, camera.height)
        values = [fx, cx, cy, 0.0] if calibration == "exif" else []
    elif any(k):
        options.camera_model = "FULL_OPENCV" if any(k[4:]) else "OPENCV"
        values = [fx, fy, cx, cy, *(k + [0.0] * 8)[: 8 if any(k[4:]) else 4]]
    else:
        options.camera_model, values = "PINHOLE", [fx, fy, cx, cy]
    options.camera_params = ",".join(map(repr, values))
    if masks is not None:
        options.mask_path = masks
    return options


@dataclass(frozen=True)
class _Mapper:
    """Makes models of the matches of one attempt."""

    pycolmap: Any
    database: Path
    images: Path
    work: Path
    attempt: Attempt
    refine: bool  # the camera too
    config: SfmConfig

    def models(self) -> list[tuple[Any, float]]:
        """Polished models that look at something, each with its mean reprojection error (px)
        before that.
        """
        found = [self._polished(self._incremental())]
        if self.attempt.use_global_mapper:
            options = self._global_options()
            made = self.pycolmap.global_mapping(
                self.database, self.images, self.work, options
            )
            found += [self._polished(made)]
            found += self._reregister_disputed(
                [pair[0] for pair in found if pair is not None]
            )
        return [pair for pair in found if pair is not None]

    def _reregister_disputed(self, models: list[Any]) -> list[tuple[Any, float] | None]:
        """Both models without the images that they turn differently, which are then added again
        to what both agree on.

        Matches of another wall's bricks are few against those of the right one, once what they
        built is gone.
        """
        if len(models) < 2:
            return []
        poses = [
            {image.name: _pose(image) for image in model.images.values() if image.has_pose}
            for model in models
        ]
        good = set(consistent_frames(poses[0], poses[1], _SAME))
        if len(good) < 3 or all(good == known.keys() for known in poses):
            return []
        found = []
        for number, model in enumerate(models):
            pruned = self.pycolmap.Reconstruction(model)
            for image in list(pruned.images.values()):
                if image.has_pose and image.name not in good:
                    pruned.deregister_frame(image.frame_id)
            self._polish(pruned)
            folder = self.work / f"pruned_{number}"
            folder.mkdir()
            pruned.write(folder)
            found.append(self._polished(self._incremental(folder)))
        return found

    def _incremental(self, start: Path | None = None) -> dict[int, Any]:
        options = self._incremental_options()
        if start is None:
            return dict(
                self.pycolmap.incremental_mapping(
                    self.database, self.images, self.work, options
                )
            )
        return dict(
            self.pycolmap.incremental_mapping(
                self.database, self.images, self.work, options, input_path=start
            )
        )

    def _polished(self, models: Mapping[int, Any]) -> tuple[Any, float] | None:
        """The largest model that looks at something, polished."""
        good = [model for model in models.values() if _looks_at_something(model)]
        if not good:
            return None
        model = max(good, key=lambda one: (one.num_reg_images(), one.num_points3D()))
        error = float(model.compute_mean_reprojection_error())
        self._polish(model)
        return (model, error) if _looks_at_something(model) else None

    def _polish(self, model: Any) -> None:
        """Adjust a model once more, doubting large errors.

        Matches that are only nearly right bend the poses otherwise.
        """
        options = self.pycolmap.BundleAdjustmentOptions()
        self._adjust(options)
        options.ceres.loss_function_type = self.pycolmap.LossFunctionType.CAUCHY
        options.ceres.loss_function_scale = _DOUBT
        options.ceres.solver_options.max_num_iterations = _STEPS
        everything = self.pycolmap.BundleAdjustmentConfig()
        for image in model.images.values():
            if image.has_pose:
                everything.add_image(image.image_id)
        everything.fix_gauge(self.pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        for _ in range(
            2
        ):  # pycolmap.bundle_adjustment does the same, but cannot be kept quiet
            self.pycolmap.create_default_bundle_adjuster(options, everything, model).solve()
            self.pycolmap.ObservationManager(model).filter_all_points3D(_WRONG, _NARROW)

    def _adjust(self, options: Any) -> None:
        options.refine_focal_length = options.refine_extra_params = self.refine
        options.refine_principal_point = options.print_summary = False
        options.ceres.use_gpu, options.ceres.solver_options.num_threads = (
            False,
            self.config.threads,
        )

    def _incremental_options(self) -> Any:
        attempt, options = self.attempt, self.pycolmap.IncrementalPipelineOptions()
        options.num_threads, options.random_seed, options.extract_colors = (
            self.config.threads,
            _SEED,
            False,
        )
        options.ba_refine_focal_length = options.ba_refine_extra_params = self.refine
        options.mapper.abs_pose_refine_focal_length = (
            options.mapper.abs_pose_refine_extra_params
        ) = self.refine
        options.mapper.abs_pose_min_num_inliers = attempt.inliers
        options.mapper.abs_pose_min_inlier_ratio = attempt.ratio
        options.mapper.init_min_num_inliers = attempt.start
        options.min_focal_length_ratio, options.max_focal_length_ratio = (
            _FOCAL  # else matches that are wrong bend it
        )
        for part in (options.mapper, options.triangulation):
            part.min_focal_length_ratio, part.max_focal_length_ratio = _FOCAL
        options.min_model_size = 3
        return options

    def _global_options(self) -> Any:
        options = self.pycolmap.GlobalPipelineOptions()
        options.num_threads = options.mapper.num_threads = self.config.threads
        options.random_seed = options.mapper.random_seed = _SEED
        options.min_model_size = 3
        options.mapper.global_positioning.use_gpu = False
        self._adjust(options.mapper.bundle_adjustment)
        return options


def _refined(found: Any, camera: Camera) -> Camera:
    """The camera that the mapper arrived at, from SIMPLE_RADIAL."""
    focal, cx, cy, k = (float(value) for value in found.params)
    matrix = torch.tensor(
        [[focal, 0, cx - 0.5], [0, focal, cy - 0.5], [0, 0, 1]], dtype=torch.float64
    )
    return Camera(
        matrix, camera.width, camera.height, torch.tensor([k, 0, 0, 0], dtype=torch.float64)
    )


@contextlib.contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """COLMAP's own log is for its developers."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
