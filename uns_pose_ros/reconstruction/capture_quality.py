"""Quality of a capture, from its images and its camera poses.

Turntables, missing texture, gaps around the object and wrong poses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.view_coverage import ViewCoverage, azimuth_gaps, azimuths

CONTRAST = 0.0067  # of a SIFT feature, at least
FEW_FEATURES = 250  # an image, median: with fewer, the poses have too little texture
_STILL = 0.004  # of the longer side: a keypoint that moves less stands still
_MATCHING_SIZE = 640  # px, longer side of the images that are matched
_MIN_STILL = 15  # matches


def is_turntable(images: Sequence[np.ndarray]) -> bool:
    """Whether the background of gray images (H, W) uint8 stands still: a turntable.

    Images a quarter of the video apart share only what did not move: half of their matches lie
    where they were.
    """
    detector = cv2.SIFT.create(nfeatures=800)
    matcher = cv2.BFMatcher(crossCheck=True)
    step = max(1, len(images) // 4)
    count = len(images) - step
    votes = []
    for k in range(0, count, max(1, count // 8)):
        points_a, features_a = _detect_small(detector, images[k])
        points_b, features_b = _detect_small(detector, images[k + step])
        if features_a is None or features_b is None:
            votes.append(False)
            continue
        matches = sorted(
            matcher.match(features_a, features_b), key=lambda match: match.distance
        )
        matches = matches[: max(20, len(matches) // 4)]
        motion = [
            np.subtract(points_a[m.queryIdx].pt, points_b[m.trainIdx].pt) for m in matches
        ]
        limit = max(1.5, _STILL * min(_MATCHING_SIZE, max(images[k].shape)))
        still = int((np.linalg.norm(motion, axis=1) < limit).sum()) if motion else 0
        votes.append(still >= _MIN_STILL and still > 0.5 * len(matches))
    return bool(votes) and sum(votes) > len(votes) / 2


def _detect_small(detector: Any, image: np.ndarray) -> tuple[Any, np.ndarray | None]:
    """Keypoints and descriptors of a gray image, shrunk where it is large."""
    scale = _MATCHING_SIZE / max(image.shape)
    small = cv2.resize(image, None, fx=scale, fy=scale) if scale < 1 else image
    points, features = detector.detectAndCompute(small, None)
    return points, features


def median_keypoints(images: Sequence[np.ndarray]) -> float:
    """Median number of keypoints in gray images (H, W) uint8.

    It is near the number that `find_poses` detects there.
    """
    # OpenCV divides the threshold by the layers of an octave
    detector = cv2.SIFT.create(contrastThreshold=3 * CONTRAST)
    return float(np.median([len(detector.detect(image, None)) for image in images]))


def azimuth_coverage(poses: Sequence[Tensor]) -> dict[str, float] | None:
    """Degrees that the cameras (4, 4) go around what they look at, and the largest gap.

    None where they do not look at a common place.
    """
    center = ViewCoverage(pose.numpy() for pose in poses).center
    if center is None:
        return None
    positions = np.stack([-(pose[:3, :3].T @ pose[:3, 3]).numpy() for pose in poses])
    offsets = positions - center
    # cameras are held level: their x axes lie across the axis that they go around
    sideways = np.stack([pose[0, :3].numpy() for pose in poses])
    up = np.linalg.eigh(sideways.T @ sideways)[1][:, 0]
    first = np.cross(up, [1.0, 0, 0] if abs(up[0]) < 0.9 else [0, 1.0, 0])
    first /= np.linalg.norm(first)
    degrees = azimuths(offsets @ first, offsets @ np.cross(up, first))
    gap = float(azimuth_gaps(degrees)[1].max())
    return {"covered_deg": round(360 - gap, 1), "largest_gap_deg": round(gap, 1)}


def consistent_frames(
    poses_a: Mapping[str, Tensor], poses_b: Mapping[str, Tensor], limit: float
) -> list[str]:
    """Names of the images whose rotation two sets of poses agree on.

    The frames of both sets differ by one rotation, and each image in both sets is a hypothesis
    of it. The hypothesis with the most inliers holds. Images that wrong matches have placed
    elsewhere are outliers.

    Args:
        poses_a: cam_from_obj (4, 4) by image name.
        poses_b: cam_from_obj (4, 4) by image name, in a frame of its own.
        limit: degrees up to which an image is an inlier.

    Returns:
        The names of the inliers, sorted.
    """
    names = sorted(poses_a.keys() & poses_b.keys())
    if not names:
        return []
    rotations = torch.stack(
        [poses_a[name][:3, :3].T @ poses_b[name][:3, :3] for name in names]
    )
    alike = angle_between(rotations[:, None], rotations[None]) < limit
    inliers = alike[alike.sum(1).argmax()].tolist()
    return [name for name, is_inlier in zip(names, inliers, strict=True) if is_inlier]


def filming_advice(frames: int, facts: Mapping[str, Any]) -> str:
    """Why too few of so many frames are connected, and how to film better.

    `facts` are those of an attempt of `find_poses`: features, pairs and models.
    """
    if facts["features"] < FEW_FEATURES:
        return (
            f"an image has {facts['features']:.0f} features, {FEW_FEATURES} are needed: put "
            "the object on something with a pattern (newspaper, a rug), in more light, and "
            "hold the camera still enough for sharp images"
        )
    if facts["pairs"] < frames:
        return (
            f"{facts['pairs']} pairs of images show the same things: walk slower, keep the "
            "object in the image, or import more frames (--frames)"
        )
    if not facts["models"]:
        return (
            "the images fit, but the camera hardly moved: walk around the object instead "
            "of turning on the spot"
        )
    return (
        f"they fall into {facts['models']} pieces that do not connect: film in one go without "
        "jumps, slower, with the surroundings of the object in the image"
    )
