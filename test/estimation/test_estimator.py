"""The Estimator finds what is there, where it is, and nothing where nothing is."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from small_model import CLIP
from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.types import Camera, Frame
from uns_pose_ros.estimation.estimator import Estimator, EstimatorConfig
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.estimation.object_search import ObjectSearch
from uns_pose_ros.estimation.stream.expectation import box_iou
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks.dinov2 import load_backbone
from uns_pose_ros.training.training_views import load_background_images


@pytest.fixture(scope="module")
def estimator(chair_model: Path) -> Estimator:
    return Estimator(
        artifacts.load_model(chair_model),
        device="cpu",
        config=EstimatorConfig(score_threshold=0.0),
    )


@pytest.fixture(scope="module")
def frame() -> Frame:
    return load_video(CLIP).frames[4]


def test_the_same_image_gives_the_same_answer(estimator: Estimator, frame: Frame) -> None:
    image = read_image(frame.image)
    first, second = estimator(image, frame.camera), estimator(image.numpy(), frame.camera)
    assert len(first) == len(second) >= 1
    assert torch.equal(first[0].cam_from_canon, second[0].cam_from_canon)


def test_an_image_that_may_not_be_written_is_no_reason_for_a_warning(
    estimator: Estimator,
) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image.flags.writeable = False  # as those of messages and files are
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            estimator(image, assumed_camera(64, 48))
    finally:
        torch.set_warn_always(False)


def test_a_given_region_is_looked_at_and_the_rest_is_not(
    estimator: Estimator, frame: Frame
) -> None:
    image = read_image(frame.image)
    whole = estimator(image, frame.camera)[0]
    regions = torch.stack([whole.box, whole.box])
    answers = estimator(image, frame.camera, regions)
    assert len(answers) == 2
    assert (
        float(
            angle_between(answers[0].cam_from_canon[:3, :3], whole.cam_from_canon[:3, :3])
        )
        < 20
    )
    assert estimator(image, frame.camera, torch.zeros(0, 4)) == []


def test_the_other_poses_that_explain_the_picture_are_told_with_their_odds(
    estimator: Estimator, frame: Frame
) -> None:
    (best, *_) = estimator(read_image(frame.image), frame.camera)
    assert best.alternatives  # a chair of a few hundred pixels is never that certain
    weights = [mode.log_weight for mode in best.alternatives]
    assert weights == sorted(weights, reverse=True)
    assert -8 < weights[-1] <= weights[0] <= 0
    poses = torch.stack(
        [best.cam_from_canon, *(mode.cam_from_canon for mode in best.alternatives)]
    )[:, :3, :3]
    apart = angle_between(poses[:, None], poses[None]) + 180 * torch.eye(len(poses))
    assert float(apart.min()) > 20
    for mode in best.alternatives:  # however badly it fits
        assert mode.covariance is not None
        spread = torch.linalg.eigvalsh(mode.covariance)
        assert float(spread[0]) > 0 and float(spread[-1]) < 200


def test_moving_the_picture_inside_a_larger_one_moves_the_pose_with_it(
    estimator: Estimator, frame: Frame
) -> None:
    image = read_image(frame.image)
    height, width = image.shape[:2]
    wide = torch.full((height + 90, width + 160, 3), 127, dtype=torch.uint8)
    wide[40 : 40 + height, 130 : 130 + width] = image
    matrix = frame.camera.matrix.clone()
    matrix[:2, 2] += torch.tensor([130.0, 40.0])
    camera = Camera(matrix, width + 160, height + 90)
    box = estimator(image, frame.camera)[0].box
    before = estimator(image, frame.camera, box[None])[0]
    after = estimator(wide, camera, (box + torch.tensor([130.0, 40, 130, 40]))[None])[0]
    assert (
        float(angle_between(before.cam_from_canon[:3, :3], after.cam_from_canon[:3, :3]))
        < 10
    )
    assert torch.allclose(
        before.cam_from_canon[:3, 3], after.cam_from_canon[:3, 3], rtol=0.1, atol=0.05
    )


def test_nothing_is_found_where_nothing_is(chair_model: Path, frame: Frame) -> None:
    estimator = Estimator(artifacts.load_model(chair_model), device="cpu")
    camera = Camera(
        torch.tensor([[500.0, 0, 150], [0, 500, 100], [0, 0, 1]], dtype=torch.float64),
        300,
        200,
    )
    assert estimator(torch.full((200, 300, 3), 128, dtype=torch.uint8), camera) == []


def test_where_nothing_is_found_the_best_score_and_the_threshold_are_said(
    chair_model: Path, frame: Frame
) -> None:
    model = artifacts.load_model(chair_model)
    image, camera = read_image(frame.image), frame.camera
    once = EstimatorConfig(score_threshold=0.0, second_look=False)
    all_poses = Estimator(model, device="cpu", config=once)
    best = all_poses(image, camera)[0].score
    assert all_poses.best_rejected is None

    strict = Estimator(model, device="cpu", config=EstimatorConfig(score_threshold=0.9))
    assert strict(image, camera) == []
    assert strict.best_rejected == pytest.approx(best)
    expected = f"nothing found (best score {best:.2f}, threshold 0.90)"
    assert strict.describe_nothing() == expected

    assert strict(torch.full_like(image, 128), camera) == []
    assert strict.describe_nothing() == "nothing found (no region looks like an object)"


def test_an_object_that_the_second_look_does_not_confirm_keeps_its_first_pose(
    chair_model: Path, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = artifacts.load_model(chair_model)
    image, camera = read_image(frame.image), frame.camera
    once, twice = (
        Estimator(
            model,
            device="cpu",
            config=EstimatorConfig(score_threshold=0.0, second_look=looks),
        )
        for looks in (False, True)
    )
    poses = [one.cam_from_canon for one in once(image, camera)]
    looked = []

    def nothing(
        search: ObjectSearch, loaded: LoadedModel, boxes: Tensor, crops: object
    ) -> list[list[object]]:
        looked.append(boxes)
        return [[] for _ in boxes]

    monkeypatch.setattr(ObjectSearch, "estimate_boxes", nothing)
    again = [one.cam_from_canon for one in twice(image, camera)]
    assert looked and poses and len(poses) == len(again)
    assert all(torch.equal(*both) for both in zip(poses, again, strict=True))


def test_an_object_that_something_parts_is_found_as_one(
    chair_model: Path, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search is told the object's two halves as parts of their own.

    The answer is that of the whole box.
    """
    estimator = Estimator(
        artifacts.load_model(chair_model),
        device="cpu",
        config=EstimatorConfig(score_threshold=0.0),
    )
    image = read_image(frame.image)
    x0, y0, x1, y1 = estimator(image, frame.camera)[0].box.tolist()
    whole = estimator(image, frame.camera, torch.tensor([[x0, y0, x1, y1]]))[0]
    halves = [[x0, y0, x1, 0.6 * y0 + 0.4 * y1], [x0, 0.4 * y0 + 0.6 * y1, x1, y1]]
    monkeypatch.setattr(
        ObjectSearch,
        "_search_regions",
        lambda *_: [torch.tensor(halves, dtype=torch.float64)],
    )
    found = estimator(image, frame.camera)
    assert len(found) == 1
    assert box_iou(found[0].box, whole.box) > 0.7
    assert (
        float(angle_between(found[0].cam_from_canon[:3, :3], whole.cam_from_canon[:3, :3]))
        < 20
    )


def test_regions_are_answered_together_as_each_would_be_alone(
    estimator: Estimator, frame: Frame
) -> None:
    image = read_image(frame.image)
    whole = estimator(image, frame.camera)[0].box
    regions = torch.stack(
        [whole, torch.tensor([0.0, 0, 60, 60]), whole + torch.tensor([-20.0, -10, 20, 10])]
    )
    alone = [estimator(image, frame.camera, region[None]) for region in regions]
    answers = estimator(image, frame.camera, regions)
    assert len(answers) == sum(map(len, alone))
    for one in (found[0] for found in alone if found):
        other = min(answers, key=lambda answer: abs(answer.score - one.score))
        assert (
            float(angle_between(one.cam_from_canon[:3, :3], other.cam_from_canon[:3, :3]))
            < 3
        )
        assert other.score == pytest.approx(one.score, abs=0.03)
        assert torch.allclose(one.box, other.box, atol=3)


def test_the_covariance_is_one_and_grows_when_the_picture_is_covered(
    estimator: Estimator, frame: Frame
) -> None:
    image = read_image(frame.image)
    box = estimator(image, frame.camera)[0].box[None]
    seen = estimator(image, frame.camera, box)[0]
    assert seen.covariance is not None
    assert torch.allclose(seen.covariance, seen.covariance.T, atol=1e-9)
    assert bool((torch.linalg.eigvalsh(seen.covariance) > 0).all())
    hidden = image.clone()
    _, y0, _, y1 = seen.box.round().long().tolist()
    hidden[y0 : (y0 + y1) // 2] = torch.tensor(load_background_images()[0])[
        : (y0 + y1) // 2 - y0, : image.shape[1]
    ]
    half = estimator(hidden, frame.camera, box)[0]
    assert half.inliers < seen.inliers
    assert half.covariance is not None
    assert half.covariance.diagonal()[3:].sum() > seen.covariance.diagonal()[3:].sum()


@pytest.mark.parametrize("shape", [(0, 0, 3), (10, 10), (10, 10, 4)])
def test_what_is_not_a_picture_is_refused(
    estimator: Estimator, frame: Frame, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidInput, match="uint8 RGB"):
        estimator(torch.zeros(shape, dtype=torch.uint8), frame.camera)


def test_depth_of_another_size_than_the_picture_is_refused(
    estimator: Estimator, frame: Frame
) -> None:
    with pytest.raises(InvalidInput, match="depth of shape"):
        estimator(read_image(frame.image), frame.camera, depth=torch.ones(5, 5))


def test_a_model_of_another_version_is_refused(chair_model: Path) -> None:
    model = artifacts.load_model(chair_model)
    backbone = load_backbone(device="cpu")
    strange = replace(model, provenance={**model.provenance, "network": {"width": 7}})
    odd = replace(model, provenance={**model.provenance, "crop_size": 225})
    for broken in (strange, odd, replace(model, head={}), replace(model, provenance={})):
        with pytest.raises(InvalidInput, match="another version"):
            Estimator(broken, backbone, "cpu")
    with pytest.raises(InvalidInput, match="no model"):
        Estimator([], backbone, "cpu")
