"""The judgment of an adapted model on images that it has not learned from.

They are compared with the poses that each of both models fuses of them: a model that only agrees
with itself does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import angle_between, nearest_equivalent
from uns_pose_ros.core.types import PoseEstimate, Symmetry
from uns_pose_ros.training.adaptation.resting_objects import (
    RestingObject,
    agree_on_rotation,
)

_SAME = 20.0  # degrees by which the fused poses of both models may differ
_PLACE = 1.0  # apparent diameters between an object and an estimate of it
_GAIN = 0.95  # of the mean error, if as many images as before are within 15 degrees
_CAP = 30.0  # degrees: larger errors are all wrong, and count as this in a mean


@dataclass(frozen=True)
class HeldOutFigures:
    """How single images agree with the fused pose of their object, degrees and percent."""

    images: int
    answered: float
    acc30: float
    acc15: float
    acc10: float
    median_deg: float
    mean_deg: float  # of errors that count as 30 degrees at most

    @staticmethod
    def of(errors: Sequence[float | None]) -> HeldOutFigures:
        """The figures of errors, degrees; None: no estimate, which is wrong."""
        values = torch.tensor(
            [180.0 if error is None else error for error in errors], dtype=torch.float64
        )
        return HeldOutFigures(
            images=len(errors),
            answered=100 * sum(error is not None for error in errors) / len(errors),
            acc30=100 * float((values < 30).double().mean()),
            acc15=100 * float((values < 15).double().mean()),
            acc10=100 * float((values < 10).double().mean()),
            median_deg=float(values.quantile(0.5)),
            mean_deg=float(values.clamp_max(_CAP).mean()),
        )

    def loses_to(self, before: HeldOutFigures) -> bool:
        """Whether fewer images have an answer, or one within 15 or 30 degrees."""
        return (
            self.acc30 < before.acc30
            or self.acc15 < before.acc15
            or self.answered < before.answered
        )


def nearest_estimate(
    thing: RestingObject, fixed_from_cam: Tensor, estimates: Sequence[PoseEstimate]
) -> PoseEstimate | None:
    """The estimate that lies in the image where an object at rest is; None: there is none."""
    where = thing.cam_from_canon(fixed_from_cam)[:3, 3]
    apparent = thing.scale / float(where.norm())

    def gap(estimate: PoseEstimate) -> float:
        place = estimate.cam_from_canon[:3, 3]
        return float((place / place.norm() - where / where.norm()).norm()) / apparent

    near = [one for one in estimates if gap(one) < _PLACE]
    return min(near, key=gap, default=None)


def rotation_errors(
    reference: Tensor, poses: Sequence[tuple[Tensor, PoseEstimate | None]]
) -> list[float | None]:
    """Errors, degrees, of estimates in their images; None where there is none.

    Args:
        reference: (3, 3) fixed_from_canon.
        poses: fixed_from_cam (4, 4) and the estimate of each image.
    """
    errors = list[float | None]()
    for fixed_from_cam, estimate in poses:
        if estimate is None:
            errors.append(None)
            continue
        seen = fixed_from_cam[:3, :3] @ estimate.cam_from_canon[:3, :3]
        errors.append(_apart(seen, reference, estimate.symmetry))
    return errors


def _apart(one: Tensor, other: Tensor, symmetry: Symmetry) -> float:
    """Degrees between two rotations, up to symmetry."""
    turned = nearest_equivalent(one, other, symmetry.order, symmetry.axis)
    return float(angle_between(turned, other))


@dataclass(frozen=True)
class Judgment:
    """Figures of the held-out images before and after, against the fused poses of both models."""

    before: tuple[
        HeldOutFigures, HeldOutFigures
    ]  # against those of the model before, and after
    after: tuple[HeldOutFigures, HeldOutFigures]
    reason: str  # why the adapted model is not kept; empty: it is

    @property
    def kept(self) -> bool:
        """Whether the adapted model is better."""
        return not self.reason


@dataclass(frozen=True, eq=False)
class HeldOutImage:
    """An image that shows an object and from which nothing was learned."""

    image: int  # number of the image
    fixed_from_cam: Tensor  # (4, 4) float64, m
    estimate: PoseEstimate | None  # of the model before


def judge(
    held_out: Sequence[tuple[RestingObject, Sequence[HeldOutImage]]],
    answers: Mapping[int, Sequence[PoseEstimate]],
) -> Judgment | str:
    """Compare the models on held-out images.

    Args:
        held_out: The objects, each with its held-out images.
        answers: For each image the estimates of the adapted model.

    Returns:
        The judgment, or why there is none.
    """
    before = list[float | None](), list[float | None]()
    after = list[float | None](), list[float | None]()
    reasons = set[str]()
    for thing, images in held_out:
        old = [(one.fixed_from_cam, one.estimate) for one in images]
        new = [
            (pose, nearest_estimate(thing, pose, answers[one.image]))
            for one, (pose, _) in zip(images, old, strict=True)
        ]
        own, other = _agreed(old), _agreed(new)
        if own is None or other is None:
            reasons.add("the held-out images do not agree on the rotation of an object")
            continue
        symmetry = next(one.symmetry for _, one in old if one is not None)
        if _apart(own, other, symmetry) > _SAME:
            reasons.add("the adapted model sees an object in another rotation")
        for k, reference in enumerate((own, other)):
            before[k].extend(rotation_errors(reference, old))
            after[k].extend(rotation_errors(reference, new))
    if not before[0]:
        return next(iter(reasons), "no image is held out")
    first = (HeldOutFigures.of(before[0]), HeldOutFigures.of(before[1]))
    last = (HeldOutFigures.of(after[0]), HeldOutFigures.of(after[1]))
    reason = "; ".join(sorted(reasons))
    if not reason and not _is_better(first, last):
        reason = "its held-out images are not better"
    return Judgment(first, last, reason)


def _is_better(
    before: tuple[HeldOutFigures, HeldOutFigures],
    after: tuple[HeldOutFigures, HeldOutFigures],
) -> bool:
    """Whether the adapted model loses against neither fused pose, and gains on their average.

    A model agrees best with the pose that it fused itself, so only the average of both compares
    mean errors.
    """
    if any(new.loses_to(old) for new, old in zip(after, before, strict=True)):
        return False
    gain = sum(one.acc15 for one in after) - sum(one.acc15 for one in before)
    errors, limit = (sum(one.mean_deg for one in part) for part in (after, before))
    return errors <= limit if gain > 0 else limit > 0 and errors <= _GAIN * limit


def _agreed(poses: Sequence[tuple[Tensor, PoseEstimate | None]]) -> Tensor | None:
    """The rotation (3, 3) on which the images with an estimate agree; None: there is none."""
    seen = [(pose, estimate) for pose, estimate in poses if estimate is not None]
    return agree_on_rotation(seen) if seen else None
