"""How a video was filmed, as its images and its camera poses tell it.

Turntables, too little pattern, gaps, wrong poses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.view_coverage import Orbit

CONTRAST = 0.0067  # of a SIFT feature, at least
FEW_FEATURES = 250  # an image, median: below, there is too little to hold on to
_STILL = 0.004  # of the longer side: what moves less between two images stands still


def is_turntable(pictures: Sequence[np.ndarray]) -> bool:
    """Whether the background of grey images (H, W) uint8 stays where it is while the video goes
    on: a turntable.

    Images a quarter of the video apart share nothing but what did not move: half of their matches
    lie where they were.
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
        way = [
            np.subtract(points_a[m.queryIdx].pt, points_b[m.trainIdx].pt) for m in matches
        ]
        limit = max(1.5, _STILL * min(640, max(pictures[k].shape)))
        still = int((np.linalg.norm(way, axis=1) < limit).sum()) if way else 0
        votes.append(still >= 15 and still > 0.5 * len(matches))
    return bool(votes) and sum(votes) > len(votes) / 2


def median_keypoints(pictures: Sequence[np.ndarray]) -> float:
    """Median number of features in grey images (H, W) uint8, about as many as `find_poses` will
    find there.
    """
    detector = cv2.SIFT.create(
        contrastThreshold=3 * CONTRAST
    )  # OpenCV divides by the layers of an octave
    return float(np.median([len(detector.detect(picture, None)) for picture in pictures]))


def azimuth_coverage(poses: Sequence[Tensor]) -> dict[str, float] | None:
    """How far the cameras (4, 4) go around what they look at.

    Degrees, and the largest gap; None where they look nowhere.
    """
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


def consistent_frames(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], limit: float
) -> list[str]:
    """Names of the images that two sets of poses, cam_from_obj (4, 4) by name and each in its
    own frame, turn alike.

    The frames differ by one rotation, and each image that both know proposes it; the proposal
    that most of them share within `limit` degrees holds. Images that matches of the wrong wall
    have put elsewhere are not among them.
    """
    names = sorted(one.keys() & other.keys())
    if not names:
        return []
    turns = torch.stack([one[name][:3, :3].T @ other[name][:3, :3] for name in names])
    alike = angle_between(turns[:, None], turns[None]) < limit
    return [
        name
        for name, good in zip(names, alike[alike.sum(1).argmax()].tolist(), strict=True)
        if good
    ]


def filming_advice(frames: int, facts: Mapping[str, Any]) -> str:
    """Why too few frames of so many are connected, and what to film differently; facts.

    Those of `sfm.find_poses`.
    """
    if facts["features"] < FEW_FEATURES:
        return (
            f"an image has {facts['features']:.0f} features, {FEW_FEATURES} are needed: put "
            "the object on something with a "
            "pattern (newspaper, a rug), in more light, and hold the camera still enough for "
            "sharp images"
        )
    if facts["pairs"] < frames:
        return (
            f"{facts['pairs']} pairs of images show the same things: walk slower, keep the "
            "object in the image, or import "
            "more frames (--frames)"
        )
    if not facts["models"]:
        return (
            "the images fit, but the camera hardly moved: walk around the object instead "
            "of turning on the spot"
        )
    return (
        f"they fall into {facts['models']} pieces that do not connect: film in one go without "
        "jumps, slower, with the "
        "surroundings of the object in the image"
    )
