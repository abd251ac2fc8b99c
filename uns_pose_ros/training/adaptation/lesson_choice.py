"""The choice of what a model keeps of what the objects of a recording have taught.

An object is kept if its held-out images are better with what it taught.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from uns_pose_ros.core.types import CategoryModel, PoseEstimate, Progress, TaughtObject
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.io.images import read_image
from uns_pose_ros.training.adaptation.judgment import (
    HeldOutImage,
    Judgment,
    judge,
    nearest_estimate,
)
from uns_pose_ros.training.adaptation.pseudo_labels import RecordedImage
from uns_pose_ros.training.adaptation.resting_objects import RestingObject

_MORE_FALSE = 0.02  # estimates an image that are of no object and may be added


@dataclass(frozen=True, eq=False)
class Lesson:
    """What an object has taught, and the images that judge it."""

    learned: TaughtObject
    thing: RestingObject
    held_out: Sequence[HeldOutImage]


@dataclass(frozen=True, eq=False)
class Choice:
    """What is kept, and how held-out images were before and are now."""

    model: CategoryModel | None  # with what is kept; None: nothing is
    judgment: Judgment | None  # of what is kept, or of everything
    false: tuple[float, float]  # estimates an image that are of no object
    not_better: Mapping[str, int]  # objects that are not kept, by reason
    reason: str  # why nothing is kept; empty: something is


def choose_lessons(
    model: CategoryModel,
    lessons: Sequence[Lesson],
    objects: Sequence[RestingObject],
    before: Mapping[int, Sequence[PoseEstimate]],
    images: Mapping[int, RecordedImage],
    load: Callable[[CategoryModel], Estimator],
    progress: Progress,
) -> Choice:
    """Leave out what does not make held-out images better, until all that is left does.

    Args:
        model: The model before.
        lessons: At least one.
        objects: All objects of the recording.
        before: Estimates of the model before in each image.
        images: The images.
        load: Makes an estimator.
        progress: Receives the number of images that are estimated.
    """
    not_better = Counter[str]()
    while True:
        taught = (*model.taught, *(lesson.learned for lesson in lessons))
        adapted = replace(model, taught=taught)
        estimator = load(adapted)
        poses = {one.image: one.fixed_from_cam for part in lessons for one in part.held_out}
        answers = dict[int, list[PoseEstimate]]()
        for done, number in enumerate(sorted(poses), 1):
            image = images[number]
            answers[number] = estimator(read_image(image.path), image.camera)
            progress("judging", done, len(poses))
        reasons = [_reason(_judge([lesson], answers)) for lesson in lessons]
        not_better.update(filter(None, reasons))
        kept = [lesson for lesson, why in zip(lessons, reasons, strict=True) if not why]
        if not kept or len(kept) == len(lessons):
            break
        lessons = kept
    first, now = (
        float(np.mean([_of_nothing(objects, pose, found[k]) for k, pose in poses.items()]))
        for found in (before, answers)
    )
    reason = ""
    if not kept:
        reason = "; ".join(sorted(not_better))
    elif now > first + _MORE_FALSE:
        reason = "it finds more where no object is"
    judgment = _judge(lessons, answers)
    return Choice(
        model=None if reason else adapted,
        judgment=judgment if isinstance(judgment, Judgment) else None,
        false=(first, now),
        not_better=not_better,
        reason=reason,
    )


def _judge(
    lessons: Sequence[Lesson], answers: Mapping[int, Sequence[PoseEstimate]]
) -> Judgment | str:
    return judge([(lesson.thing, lesson.held_out) for lesson in lessons], answers)


def _reason(judgment: Judgment | str) -> str:
    return judgment if isinstance(judgment, str) else judgment.reason


def _of_nothing(
    objects: Sequence[RestingObject],
    fixed_from_cam: Tensor,
    estimates: Sequence[PoseEstimate],
) -> int:
    """How many estimates of an image are of none of the objects."""
    matched = {id(nearest_estimate(thing, fixed_from_cam, estimates)) for thing in objects}
    return sum(id(one) not in matched for one in estimates)
