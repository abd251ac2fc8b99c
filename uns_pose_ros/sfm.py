"""Structure from motion: camera poses of a video from its pictures alone. The only user of pycolmap.

SIFT, pairs by length (all, or neighbours and a coarse net against drift), incremental mapping; where that leaves frames out,
once more with features and thresholds that cost more and ask for less. Whole pictures are matched: the surroundings carry the
poses. On a turntable they stand still and would contradict the object; there the masks say what may be matched.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.colmap import SparseImage
from uns_pose_ros.datatypes import Camera, InvalidInput, Progress, Video
from uns_pose_ros.geometry import from_parts
from uns_pose_ros.orbit import Orbit

UNSURE = ("guessed", "exif")  # where a focal length is from that is only a start
_SEED = 0
_STILL = 0.004  # of the longer side: what moves less between two pictures stands still
_FOCAL = (0.5, 4.0)  # longer sides of the picture: between 90 and 14 degrees of view
_LINKED = 15  # matches that agree make a pair
FEW_FEATURES = 250  # a picture, median: below, there is too little to hold on to


@dataclass(frozen=True)
class SfmConfig:
    """How poses are found, and what counts as success."""

    features: int = 3000  # a picture, at most
    all_pairs: int = 60  # frames up to which every pair is matched
    overlap: int = 10  # neighbours that a frame of a longer video is matched with
    net: int = 6  # every so manieth frame of a longer video is matched with all others of them: closes the loop
    wanted: float = 0.9  # registered fraction below which there is a second, relaxed attempt
    least: float = 0.5  # registered fraction below which the video has failed
    error: float = 0.65  # px, mean reprojection error above which the plain attempt is not believed
    threads: int = -1  # -1: all


@dataclass(frozen=True)
class Attempt:
    """Thresholds of one attempt."""

    name: str
    peak: float  # contrast of a SIFT feature
    affine: bool  # affine shape and domain-size pooling: features that survive more change of view
    guided: bool  # matches again along the epipolar lines
    inliers: int  # that register a frame
    ratio: float  # of inliers among its matches
    start: int  # inliers of the first pair


ATTEMPTS = (Attempt("plain", 0.0067, False, False, 30, 0.25, 100), Attempt("relaxed", 0.004, True, True, 12, 0.12, 50))


@dataclass(frozen=True, eq=False)
class Poses:
    """What was found: a sparse model in an arbitrary frame and scale, and how good it is."""

    camera: Camera
    images: tuple[SparseImage, ...]
    points: Tensor  # (N, 3) float64, obj frame
    report: dict[str, Any]


def find_poses(
    video: Video,
    calibration: str = "guessed",
    masks: Path | None = None,
    config: SfmConfig = SfmConfig(),
    progress: Progress | None = None,
) -> Poses:
    """Poses of as many frames as can be connected, by `ATTEMPTS`.

    calibration: how much the frames' camera is to be believed: "guessed" and "exif" are refined, anything else is fixed.
    masks: folder with <image name>.png, white where features may be; for turntables. Raises InvalidInput where too few frames
    are connected, saying why and what to film differently.
    """
    camera = _one_camera(video)
    show = progress or (lambda what, done, total: None)
    best: Poses | None = None
    facts: dict[str, Any] = {}
    start = time.perf_counter()
    for number, attempt in enumerate(ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="uns_pose_sfm_") as folder:
            found, now = _attempt(video, camera, calibration, masks, attempt, config, Path(folder), show)
        facts = facts or now  # those of the plain attempt: the relaxed one finds matches in noise
        if found is not None and (best is None or len(found.images) >= len(best.images)):
            best = found
        if best is not None and _is_good(best, video, config):
            break
        show(f"{video.name}: poses, {attempt.name} attempt", number + 1, len(ATTEMPTS))
    registered = 0 if best is None else len(best.images)
    if best is None or registered < max(3, config.least * len(video.frames)):
        raise InvalidInput(f"{video.folder}: {registered} of {len(video.frames)} frames got a pose; {_advice(video, facts)}")
    best.report["seconds"] = round(time.perf_counter() - start, 1)
    return best


def _is_good(found: Poses, video: Video, config: SfmConfig) -> bool:
    return len(found.images) >= config.wanted * len(video.frames) and found.report["reprojection_error_px"] <= config.error


def stands_still(pictures: Sequence[np.ndarray]) -> bool:
    """Whether the background of grey pictures (H, W) uint8 stays where it is while the video goes on: a turntable.

    Pictures a quarter of the video apart share nothing but what did not move: half of their matches lie where they were.
    """
    detector, matcher = cv2.SIFT.create(nfeatures=800), cv2.BFMatcher(crossCheck=True)
    step = max(1, len(pictures) // 4)
    votes = []
    for k in range(0, len(pictures) - step, max(1, (len(pictures) - step) // 8)):
        pair = []
        for picture in (pictures[k], pictures[k + step]):
            scale = 640 / max(picture.shape)
            small = cv2.resize(picture, None, fx=scale, fy=scale) if scale < 1 else picture
            pair.append(detector.detectAndCompute(small, None))
        (points_a, a), (points_b, b) = pair
        if a is None or b is None:
            votes.append(False)
            continue
        matches = sorted(matcher.match(a, b), key=lambda match: match.distance)
        matches = matches[: max(20, len(matches) // 4)]
        way = [np.subtract(points_a[m.queryIdx].pt, points_b[m.trainIdx].pt) for m in matches]
        limit = max(1.5, _STILL * min(640, max(pictures[k].shape)))
        still = int((np.linalg.norm(way, axis=1) < limit).sum()) if way else 0
        votes.append(still >= 15 and still > 0.5 * len(matches))
    return bool(votes) and sum(votes) > len(votes) / 2


def features_in(pictures: Sequence[np.ndarray]) -> float:
    """Median number of features in grey pictures (H, W) uint8, about as many as `find_poses` will find there."""
    detector = cv2.SIFT.create(contrastThreshold=3 * ATTEMPTS[0].peak)  # OpenCV divides by the layers of an octave
    return float(np.median([len(detector.detect(picture, None)) for picture in pictures]))


def coverage(poses: Sequence[Tensor]) -> dict[str, float] | None:
    """How far the cameras (4, 4) go around what they look at: degrees, and the largest gap; None where they look nowhere."""
    centre = Orbit(pose.numpy() for pose in poses).centre
    if centre is None:
        return None
    places = np.stack([-(pose[:3, :3].T @ pose[:3, 3]).numpy() for pose in poses]) - centre
    # cameras are held level: their x axes lie across the axis that they go around
    sideways = np.stack([pose[0, :3].numpy() for pose in poses])
    up = np.linalg.eigh(sideways.T @ sideways)[1][:, 0]
    first = np.cross(up, [1.0, 0, 0] if abs(up[0]) < 0.9 else [0, 1.0, 0])
    first /= np.linalg.norm(first)
    angles = np.sort(np.degrees(np.arctan2(places @ np.cross(up, first), places @ first)))
    gap = float(np.diff(np.append(angles, angles[0] + 360)).max())
    return {"covered_deg": round(360 - gap, 1), "largest_gap_deg": round(gap, 1)}


def _one_camera(video: Video) -> Camera:
    first = video.frames[0].camera
    for frame in video.frames:
        if (frame.camera.width, frame.camera.height) != (first.width, first.height):
            raise InvalidInput(
                f"{frame.image}: {frame.camera.width} x {frame.camera.height} px, the first picture has "
                f"{first.width} x {first.height}; poses are found for pictures of one size"
            )
    return first


def _attempt(
    video: Video, camera: Camera, calibration: str, masks: Path | None, attempt: Attempt, config: SfmConfig, work: Path,
    show: Progress,
) -> tuple[Poses | None, dict[str, Any]]:  # fmt: skip
    """The largest model of one attempt, and facts for those that fail."""
    import pycolmap

    names = [frame.name for frame in video.frames]
    images, database = video.folder / "images", work / "database.db"
    refine = calibration in UNSURE
    steps = 3
    with _quiet(pycolmap):
        show(f"{video.name}: features ({attempt.name})", 0, steps)
        extraction = pycolmap.FeatureExtractionOptions()
        extraction.num_threads, extraction.use_gpu = config.threads, False
        extraction.sift.max_num_features, extraction.sift.peak_threshold = config.features, attempt.peak
        extraction.sift.estimate_affine_shape = extraction.sift.domain_size_pooling = attempt.affine
        pycolmap.extract_features(
            database, images, image_names=names, camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=_reader(pycolmap, camera, calibration, masks), extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )  # fmt: skip
        show(f"{video.name}: matches ({attempt.name})", 1, steps)
        matching = pycolmap.FeatureMatchingOptions()
        matching.num_threads, matching.use_gpu, matching.guided_matching = config.threads, False, attempt.guided
        pairs, verification = pycolmap.ImportedPairingOptions(), pycolmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = _SEED
        pairs.match_list_path = work / "pairs.txt"
        (work / "pairs.txt").write_text("".join(f"{names[i]} {names[j]}\n" for i, j in pairs_of(len(names), config)))
        pycolmap.match_image_pairs(
            database, matching_options=matching, pairing_options=pairs, verification_options=verification,
            device=pycolmap.Device.cpu,
        )  # fmt: skip
        show(f"{video.name}: poses ({attempt.name})", 2, steps)
        options = _mapping(pycolmap, attempt, refine, config)
        models = pycolmap.incremental_mapping(database, images, work, options)
        with pycolmap.Database.open(database) as opened:
            features = [opened.num_keypoints_for_image(image.image_id) for image in opened.read_all_images()]
            linked = sum(count >= _LINKED for count in opened.read_two_view_geometry_num_inliers()[1])
    models = {k: one for k, one in models.items() if _looks_at_something(one)}
    facts = {"features": float(np.median(features)) if features else 0.0, "pairs": int(linked), "models": len(models)}
    show(f"{video.name}: poses ({attempt.name})", 3, steps)
    if not models:
        return None, facts
    model = max(models.values(), key=lambda one: (one.num_reg_images(), one.num_points3D()))
    return _poses(model, video, camera, attempt, facts, not refine), facts


def _looks_at_something(model: Any) -> bool:
    """Whether the cameras look at a common place: a model of wrong matches does not."""
    views = []
    for image in model.images.values():
        if image.has_pose:
            views.append(np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]]))
    return len(views) >= 3 and Orbit(views).centre is not None


def _poses(model: Any, video: Video, camera: Camera, attempt: Attempt, facts: dict[str, Any], fixed: bool) -> Poses:
    found = []
    for image in model.images.values():
        if image.has_pose:
            rigid = image.cam_from_world()
            rotation = torch.tensor(rigid.rotation.matrix(), dtype=torch.float64)
            found.append(SparseImage(image.name, 1, from_parts(rotation, torch.tensor(rigid.translation, dtype=torch.float64))))
    found.sort(key=lambda one: one.name)
    points = [p.xyz for p in model.points3D.values() if p.track.length() >= 3 and p.error < 2]
    if not fixed:
        camera = _refined(next(iter(model.cameras.values())), camera)
    report = {
        "frames": len(video.frames),
        "registered": len(found),
        "registered_fraction": round(len(found) / len(video.frames), 3),
        "reprojection_error_px": round(float(model.compute_mean_reprojection_error()), 3),
        "points": len(points),
        "coverage": coverage([one.cam_from_obj for one in found]),
        "attempt": attempt.name,
        "features_median": facts["features"],
        "focal_px": round(float(camera.matrix[0, 0]), 2),
    }
    cloud = torch.tensor(np.array(points, dtype=np.float64).reshape(-1, 3))
    return Poses(camera, tuple(found), cloud, report)


def pairs_of(count: int, config: SfmConfig) -> list[tuple[int, int]]:
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


def _mapping(pycolmap: Any, attempt: Attempt, refine: bool, config: SfmConfig) -> Any:
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed, options.extract_colors = config.threads, _SEED, False
    options.ba_refine_focal_length = options.ba_refine_extra_params = refine
    options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = refine
    options.mapper.abs_pose_min_num_inliers = attempt.inliers
    options.mapper.abs_pose_min_inlier_ratio = attempt.ratio
    options.mapper.init_min_num_inliers = attempt.start
    options.min_focal_length_ratio, options.max_focal_length_ratio = _FOCAL  # else matches that are wrong bend it
    for part in (options.mapper, options.triangulation):
        part.min_focal_length_ratio, part.max_focal_length_ratio = _FOCAL
    options.min_model_size = 3
    return options


def _refined(found: Any, camera: Camera) -> Camera:
    """The camera that the mapper arrived at, from SIMPLE_RADIAL."""
    focal, cx, cy, k = (float(value) for value in found.params)
    matrix = torch.tensor([[focal, 0, cx - 0.5], [0, focal, cy - 0.5], [0, 0, 1]], dtype=torch.float64)
    return Camera(matrix, camera.width, camera.height, torch.tensor([k, 0, 0, 0], dtype=torch.float64))


def _advice(video: Video, facts: dict[str, Any]) -> str:
    """Why too few frames are connected, and what to film differently."""
    if facts["features"] < FEW_FEATURES:
        return (
            f"a picture has {facts['features']:.0f} features, {FEW_FEATURES} are needed: put the object on something with a "
            "pattern (newspaper, a rug), in more light, and hold the camera still enough for sharp pictures"
        )
    if facts["pairs"] < len(video.frames):
        return (
            f"{facts['pairs']} pairs of pictures show the same things: walk slower, keep the object in the picture, or import "
            "more frames (--frames)"
        )
    if not facts["models"]:
        return "the pictures fit, but the camera hardly moved: walk around the object instead of turning on the spot"
    return (
        f"they fall into {facts['models']} pieces that do not connect: film in one go without jumps, slower, with the "
        "surroundings of the object in the picture"
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
