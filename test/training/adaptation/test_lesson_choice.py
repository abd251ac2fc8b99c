"""Of several objects, those are kept whose held-out images are better with what they taught."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from small_model import one_triangle
from streams import estimate, orbit, pose
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, TaughtObject
from uns_pose_ros.training.adaptation.judgment import HeldOutImage
from uns_pose_ros.training.adaptation.lesson_choice import (
    Choice,
    Lesson,
    choose_lessons,
)
from uns_pose_ros.training.adaptation.pseudo_labels import RecordedImage
from uns_pose_ros.training.adaptation.resting_objects import RestingObject

IMAGES = 6
PLACES = [pose((0.0, 0.0, 70.0), (x, 0.0, 0.0)) for x in (-0.15, 0.15)]
CAMERA = Camera(torch.eye(3, dtype=torch.float64), 8, 8)


class Scripted:
    """An estimator of two objects, each 20 degrees off until a lesson makes it `after`."""

    def __init__(self, model: CategoryModel, after: Sequence[float], extra: int) -> None:
        self.kept = {int(lesson.bias) for lesson in model.taught}
        self.after, self.extra = after, extra

    def __call__(self, image: np.ndarray, camera: Camera) -> list[PoseEstimate]:
        k = int(np.asarray(image)[0, 0, 0]) // 10
        return seen(
            k, [self.after[n] if n in self.kept else 20.0 for n in (0, 1)], self.extra
        )


def seen(k: int, errors: Sequence[float], extra: int = 0) -> list[PoseEstimate]:
    """Estimates of both objects in image k, about six axes in turns, and `extra` elsewhere."""
    turned = []
    for error in errors:
        x, y, z = (error * (-1) ** k * (k // 2 % 3 == axis) for axis in range(3))
        turned.append(pose((x, y, z), (0.0, 0.0, 0.0)))
    poses = [place @ turn for place, turn in zip(PLACES, turned, strict=True)]
    poses += [PLACES[0] @ pose((0.0, 0.0, 0.0), (0.0, 3.0, 0.0))] * extra
    return [estimate(orbit(IMAGES)[k] @ one) for one in poses]


def choose(tmp_path: Path, after: Sequence[float], extra: int = 0) -> Choice:
    images = {}
    for k in range(IMAGES):
        path = tmp_path / f"{k}.png"
        cv2.imwrite(str(path), np.full((8, 8, 3), 10 * k, np.uint8))
        images[k] = RecordedImage(path, CAMERA)
    things = [RestingObject(place, 0.2, ()) for place in PLACES]
    before = {k: seen(k, [20.0, 20.0]) for k in range(IMAGES)}
    lessons = [
        Lesson(
            TaughtObject({}, torch.zeros(4), torch.tensor([float(n)])),
            thing,
            [
                HeldOutImage(k, torch.linalg.inv(orbit(IMAGES)[k]), before[k][n])
                for k in range(IMAGES)
            ],
        )
        for n, thing in enumerate(things)
    ]
    return choose_lessons(
        one_triangle("mug"),
        lessons,
        things,
        before,
        images,
        lambda model: Scripted(model, after, extra),  # type: ignore[arg-type, return-value]
        lambda what, done, total: None,
    )


def test_what_makes_an_object_better_is_kept_and_the_rest_is_not(tmp_path: Path) -> None:
    choice = choose(tmp_path, [5.0, 20.0])
    assert choice.model is not None and not choice.reason
    assert [float(one.bias) for one in choice.model.taught] == [0.0]
    assert choice.not_better == {"its held-out images are not better": 1}
    assert choice.judgment is not None, "of the object that is kept"
    assert choice.judgment.before[0].images == IMAGES
    assert choice.judgment.before[0].acc15 == 0 and choice.judgment.after[0].acc15 == 100


def test_both_objects_are_kept_where_both_are_better(tmp_path: Path) -> None:
    choice = choose(tmp_path, [5.0, 6.0])
    assert choice.model is not None and len(choice.model.taught) == 2
    assert not choice.not_better
    assert choice.judgment is not None and choice.judgment.after[0].images == 2 * IMAGES


def test_nothing_is_kept_where_no_object_is_better(tmp_path: Path) -> None:
    choice = choose(tmp_path, [20.0, 20.0])
    assert choice.model is None
    assert choice.reason == "its held-out images are not better"
    assert choice.not_better == {choice.reason: 2}


@pytest.mark.parametrize("extra", [0, 1])
def test_nothing_is_kept_that_finds_more_where_no_object_is(
    tmp_path: Path, extra: int
) -> None:
    choice = choose(tmp_path, [5.0, 5.0], extra)
    assert choice.false == (0.0, extra)
    assert choice.reason == ("it finds more where no object is" if extra else "")
    assert (choice.model is None) == bool(extra)
