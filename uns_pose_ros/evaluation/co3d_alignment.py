"""The alignment protocols of the literature on CO3D: pairs of videos, and the joint six frames.

pairs: every ordered pair of hand-labeled videos, as the paper counts them: the mean over the pairs
of each reference, then over the references, whose spread is given too. six frames: one frame of the
reference and five frames of the other video, as in zero-shot pose (Goodwin et al., ECCV 2022);
a model estimates each frame, and the five are joined by the known motion of the camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.geometry import (
    angle_between,
    nearest_equivalent,
    nearest_rotation,
    split_similarity,
)
from uns_pose_ros.core.types import (
    Alignment,
    CategoryModel,
    Frame,
    Progress,
    Symmetry,
    Video,
)
from uns_pose_ros.evaluation.metrics import ANGLES, MISSING, accuracies, symmetric_angle
from uns_pose_ros.evaluation.poses.pose_evaluation import EstimateImage
from uns_pose_ros.io.images import read_image

TARGET_FRAMES = 5
MOST_PAIRS = 100  # of a category in the protocol of six frames
_AGREE = 30.0  # degrees within which frames of a video agree


def evaluate_pairs(alignment: Alignment, labels: Mapping[str, Tensor]) -> dict[str, Any]:
    """Measure an alignment over all ordered pairs of labeled videos.

    Args:
        alignment: The alignment; videos that were left out of training count too.
        labels: Label rotations (3, 3) by video.

    Returns:
        videos, pairs, `accuracies` of all pairs, std: of the accuracies over the references, and
        symmetry_aware: accuracies up to the symmetry of the alignment.

    Raises:
        InvalidInput: Fewer than two aligned videos have labels.
    """
    names = [name for name in alignment.videos if name in labels]
    if len(names) < 2:
        raise InvalidInput(
            f"{len(names)} aligned videos have labels, 2 needed; aligned: "
            f"{shorten(alignment.videos)}"
        )
    index = torch.tensor([alignment.videos.index(name) for name in names])
    rotation = split_similarity(alignment.canon_from_obj[index])[0]
    truth = torch.stack([labels[name] for name in names])
    canon_from_label = rotation @ truth.mT
    count = len(names)
    a = canon_from_label[:, None].expand(count, count, 3, 3)  # of the reference
    plain = angle_between(a, canon_from_label[None])
    symmetric = symmetric_angle(a, canon_from_label[None], alignment.symmetry)
    others = ~torch.eye(count, dtype=torch.bool)
    by_reference = [accuracies(row[keep]) for row, keep in zip(plain, others, strict=True)]
    spread = {
        f"acc{angle}": float(
            torch.tensor([row[f"acc{angle}"] for row in by_reference]).std(correction=0)
        )
        for angle in ANGLES
    }
    return (
        {"videos": count, "pairs": count * (count - 1)}
        | accuracies(plain[others])
        | {"std": spread, "symmetry_aware": accuracies(symmetric[others])}
    )


def evaluate_six_frames(
    find: EstimateImage,
    model: CategoryModel,
    videos: Sequence[Video],
    labels: Mapping[str, Tensor],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model over pairs of one reference frame and five frames of another video.

    Args:
        find: Is called with an image and its camera.
        model: The category's model.
        videos: Labeled videos with camera poses, none of which the model was trained on.
        labels: Label rotations (3, 3) by video.
        progress: Is called with the step, the videos done and all videos.

    Returns:
        videos, pairs, `accuracies` and symmetry_aware; a video without any estimate is wrong.

    Raises:
        InvalidInput: There are fewer than two videos, or one has no frame with a pose.
    """
    if len(videos) < 2:
        raise InvalidInput(
            f"{len(videos)} labeled videos that the model was not trained on, 2 needed"
        )
    single, joint = list[Tensor | None](), list[Tensor | None]()
    for done, video in enumerate(videos, 1):
        frames = _spread(video)
        found = [_canon_from_obj(find, model, frame) for frame in frames]
        known = [rotation for rotation in found if rotation is not None]
        single.append(found[len(frames) // 2])
        joint.append(mean_of_most(torch.stack(known), model.symmetry) if known else None)
        if progress is not None:
            progress(f"evaluate six frames of {model.category}", done, len(videos))
    pairs = [
        (a, b) for a in range(len(videos)) for b in range(len(videos)) if a != b
    ]  # reference, other
    most = min(MOST_PAIRS, len(pairs))
    errors, symmetric = list[float](), list[float]()
    for k in range(most):
        a, b = pairs[k * len(pairs) // most]
        reference, other = single[a], joint[b]
        if reference is None or other is None:
            errors.append(MISSING)
            symmetric.append(MISSING)
            continue
        of_reference = reference @ labels[videos[a].name].T
        of_other = other @ labels[videos[b].name].T
        errors.append(float(angle_between(of_reference, of_other)))
        symmetric.append(float(symmetric_angle(of_reference, of_other, model.symmetry)))
    aware = accuracies(torch.tensor(symmetric, dtype=torch.float64))
    return (
        {"videos": len(videos), "pairs": most}
        | accuracies(torch.tensor(errors, dtype=torch.float64))
        | {"symmetry_aware": aware}
    )


def mean_of_most(rotations: Tensor, symmetry: Symmetry) -> Tensor:
    """The mean (3, 3) of those rotations (N, 3, 3), into the canonical frame, that agree.

    Each is first replaced by its equal under the symmetry that is nearest to the one that most
    others agree with.
    """
    near = symmetric_angle(rotations[:, None], rotations[None], symmetry) < _AGREE
    best = int(near.sum(1).argmax())
    equal = nearest_equivalent(
        rotations[near[best]].mT, rotations[best].T, symmetry.order, symmetry.axis
    )
    return nearest_rotation(equal.mean(0)).T


def _spread(video: Video) -> list[Frame]:
    """Frames with poses, evenly spread over a video."""
    usable = [frame for frame in video.frames if frame.cam_from_obj is not None]
    if not usable:
        raise InvalidInput(f"{video.folder}: no frame has a camera pose")
    count = min(TARGET_FRAMES, len(usable))
    return [usable[(2 * k + 1) * len(usable) // (2 * count)] for k in range(count)]


def _canon_from_obj(
    find: EstimateImage, model: CategoryModel, frame: Frame
) -> Tensor | None:
    """The rotation (3, 3) of the video's object that the estimate of a frame gives."""
    estimates = [
        one
        for one in find(read_image(frame.image), frame.camera)
        if one.category == model.category
    ]
    if not estimates:
        return None
    best = max(estimates, key=lambda one: one.score)
    assert frame.cam_from_obj is not None
    return best.cam_from_canon[:3, :3].T @ frame.cam_from_obj[:3, :3]
