import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from synthetic import write_video
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    random_rotations,
    rotation_from_vector,
)
from uns_pose_ros.core.types import Alignment, Camera, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.evaluation import metrics
from uns_pose_ros.io.video_folder import load_video

NAMES = ("a", "b", "c", "d")
Z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
X = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def turn(axis: Tensor, degrees: float) -> Tensor:
    return rotation_from_vector(axis * math.radians(degrees))


def rotations(count: int, seed: int = 0) -> Tensor:
    return random_rotations(count, torch.Generator().manual_seed(seed))


def alignment_of(
    canon_from_obj: Tensor | list[Tensor], symmetry: Symmetry | None = None
) -> Alignment:
    n = len(canon_from_obj)
    ones = torch.ones(n, dtype=torch.float64)
    matrix = from_parts(
        torch.stack(list(canon_from_obj)),
        torch.randn(n, 3, dtype=torch.float64),
        ones * 0.3,
    )
    return Alignment(NAMES[:n], matrix, ones, ones.bool(), ones, symmetry or Symmetry())


def model_of(
    canon_from_obj: dict[str, Tensor], symmetry: Symmetry | None = None
) -> CategoryModel:
    trained = {
        name: from_parts(r, torch.ones(3, dtype=torch.float64), 2.0).tolist()
        for name, r in canon_from_obj.items()
    }
    return CategoryModel(
        category="mug",
        vertices=torch.eye(3),
        triangles=torch.tensor([[0, 1, 2]]),
        vertex_features=torch.eye(3),
        background_features=torch.eye(3),
        head={},
        symmetry=symmetry or Symmetry(),
        provenance={"canon_from_obj": trained},
    )


def estimate_of(
    rotation: Tensor, score: float = 0.5, category: str = "mug"
) -> PoseEstimate:
    pose = from_parts(rotation, torch.tensor([0.0, 0, 2], dtype=torch.float64))
    size = torch.ones(3, dtype=torch.float64)
    return PoseEstimate(
        category,
        pose,
        1.0,
        False,
        size,
        score,
        None,
        Symmetry(),
        9,
        1.0,
        torch.zeros(4, dtype=torch.float64),
    )


def test_a_perfect_alignment_in_another_frame_is_right_everywhere() -> None:
    labels, frame = rotations(4), rotations(1, seed=5)[0]
    result = metrics.evaluate_alignment(
        alignment_of(frame @ labels), dict(zip(NAMES, labels, strict=True))
    )
    assert (result["videos"], result["pairs"]) == (4, 6)
    assert [result[k] for k in ("acc30", "acc15", "acc10")] == [100, 100, 100]
    assert result["median_deg"] == pytest.approx(0, abs=1e-4)


def test_pair_errors_are_the_angles_between_the_videos_own_errors() -> None:
    labels = rotations(3)
    errors = [0.0, 12.0, 32.0]  # about one axis: pairs are off by 12, 32 and 20 degrees
    aligned = [turn(Z, e) @ r for e, r in zip(errors, labels, strict=True)]
    result = metrics.evaluate_alignment(
        alignment_of(aligned), dict(zip(NAMES, labels, strict=False))
    )
    assert (
        result["acc30"] == pytest.approx(200 / 3)
        and result["acc15"] == pytest.approx(100 / 3)
        and result["acc10"] == 0
    )
    assert result["median_deg"] == pytest.approx(20)


def test_a_half_turn_is_wrong_unless_the_category_has_it() -> None:
    labels = rotations(2)
    named = dict(zip(NAMES, labels, strict=False))
    flipped = [labels[0], turn(Z, 180) @ labels[1]]
    result = metrics.evaluate_alignment(alignment_of(flipped, Symmetry(2, Z)), named)
    assert result["acc30"] == 0 and result["symmetry_aware"]["acc10"] == 100
    assert (
        metrics.evaluate_alignment(alignment_of(flipped, Symmetry(2, X)), named)[
            "symmetry_aware"
        ]["acc30"]
        == 0
    )


def test_a_continuous_symmetry_forgives_any_turn_about_its_axis_and_only_that() -> None:
    b = rotations(5)
    a = turn(Z, 73.3) @ b
    assert float(metrics.symmetric_angle(a, b, Symmetry(0, Z)).max()) < 1e-5
    tilted = turn(Z, 41) @ turn(X, 20) @ b
    assert metrics.symmetric_angle(tilted, b, Symmetry(0, Z)).tolist() == pytest.approx(
        [20] * 5
    )


def test_the_continuous_symmetry_is_the_limit_of_many_turns() -> None:
    a, b = rotations(20, seed=1), rotations(20, seed=2)
    exact = metrics.symmetric_angle(a, b, Symmetry(0, Z))
    assert torch.allclose(exact, metrics.symmetric_angle(a, b, Symmetry(2000, Z)), atol=0.1)


def test_only_labeled_and_chosen_videos_count() -> None:
    labels = rotations(4)
    named = dict(zip(NAMES[:3], labels[:3], strict=True))
    assert metrics.evaluate_alignment(alignment_of(labels), named)["pairs"] == 3
    assert (
        metrics.evaluate_alignment(alignment_of(labels), named, ["a", "b", "d"])["pairs"]
        == 1
    )
    with pytest.raises(InvalidInput, match="1 aligned videos have labels, 2 needed"):
        metrics.evaluate_alignment(alignment_of(labels), named, ["a", "d"])


def write_labels(path: Path, record: object) -> Path:
    path.write_text(json.dumps(record))
    return path


def test_labels_of_an_unknown_video_are_refused_by_name(tmp_path: Path) -> None:
    path = write_labels(
        tmp_path / "labels.json",
        {"a": {"canon_from_obj": torch.eye(3).tolist()}, "typo": {}},
    )
    with pytest.raises(
        InvalidInput, match="labels for unknown videos: typo; there are a, b"
    ):
        metrics.load_labels(path, ["a", "b"])


@pytest.mark.parametrize(
    "label",
    [
        {},
        [],
        None,
        {"canon_from_obj": [[1, 0], [0, 1]]},
        {"canon_from_obj": "x"},
        {"canon_from_obj": [[1, 2, 3]] * 3},
    ]
    + [
        {"canon_from_obj": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]},
        {"canon_from_obj": [[1e300] * 3] * 3},
    ],
)
def test_a_label_that_is_no_rotation_is_refused(tmp_path: Path, label: object) -> None:
    refusal = "the label of a has no 3x3 rotation|not a valid JSON file"  # NaN is not JSON
    with pytest.raises(InvalidInput, match=refusal):
        metrics.load_labels(write_labels(tmp_path / "labels.json", {"a": label}), ["a"])


def test_a_label_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    label = {"canon_from_obj": [[float("nan")] * 3] * 3}
    with pytest.raises(InvalidInput, match="not a valid JSON file"):
        metrics.load_labels(write_labels(tmp_path / "labels.json", {"a": label}), ["a"])


@pytest.mark.parametrize("record", [{}, [1]])
def test_a_labels_file_without_labels_is_refused(tmp_path: Path, record: object) -> None:
    with pytest.raises(InvalidInput, match="is needed"):
        metrics.load_labels(write_labels(tmp_path / "labels.json", record), ["a"])


def test_the_frame_between_model_and_labels_ignores_flipped_training_videos() -> None:
    labels, label_from_canon = rotations(5), rotations(1, seed=3)[0]
    noise = [turn(X, e) for e in (3, -3, 0, 0, 0)]
    trained = [n @ label_from_canon.T @ r for n, r in zip(noise, labels, strict=True)]
    trained[2:4] = [turn(Z, 180) @ r for r in trained[2:4]]
    names = [f"v{i}" for i in range(5)]
    fit = metrics.fit_label_from_canon(
        model_of(dict(zip(names, trained, strict=True))),
        dict(zip(names, labels, strict=True)),
    )
    assert float(angle_between(fit, label_from_canon)) < 0.1


def test_equivalent_training_videos_of_a_symmetric_category_agree() -> None:
    labels, label_from_canon = rotations(4), rotations(1, seed=3)[0]
    turns = [0, 180, 180, 0]
    trained = {
        n: turn(Z, t) @ label_from_canon.T @ r
        for n, t, r in zip(NAMES, turns, labels, strict=True)
    }
    fit = metrics.fit_label_from_canon(
        model_of(trained, Symmetry(2, Z)), dict(zip(NAMES, labels, strict=True))
    )
    assert float(metrics.symmetric_angle(fit.T, label_from_canon.T, Symmetry(2, Z))) < 1e-4


def test_a_model_trained_on_unlabeled_videos_cannot_be_compared() -> None:
    with pytest.raises(
        InvalidInput,
        match="none of the videos that the model was trained on has a label: a",
    ):
        metrics.fit_label_from_canon(
            model_of({"a": torch.eye(3, dtype=torch.float64)}), {"b": torch.eye(3).double()}
        )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truck") / "a"
    write_video(folder, seed=4, views=4, size=32)
    return folder


def test_poses_are_compared_in_the_labels_frame_and_the_best_score_counts(
    clip: Path,
) -> None:
    video = load_video(clip)
    label, label_from_canon = rotations(2, seed=7)
    model = model_of({"a": label_from_canon.T @ label}, Symmetry(2, Z))
    errors = iter([5.0, 20.0, 180.0])
    poses = iter([frame.cam_from_obj for frame in video.frames])

    def estimate(image: Tensor, camera: Camera) -> list[PoseEstimate]:
        pose = next(poses)
        assert pose is not None and image.shape == (32, 32, 3) and camera.width == 32
        error = next(errors, None)
        if error is None:
            return []
        right = pose[:3, :3] @ label.T @ label_from_canon
        wrong = estimate_of(turn(X, 90) @ right, score=0.2)
        return [
            wrong,
            estimate_of(right @ turn(Z, error), score=0.9 if error < 100 else 0.6),
            estimate_of(right, 1.0, "shoe"),
        ]

    results = metrics.evaluate_poses(estimate, model, [video], {"a": label})
    assert [r.error for r in results] == pytest.approx([5, 20, 180, 180], abs=1e-4)
    assert [r.symmetric_error for r in results] == pytest.approx([5, 20, 0, 180], abs=1e-4)
    figures = metrics.summarize_poses(results)
    assert (figures["images"], figures["estimated"]) == (4, 3)
    assert [figures[k] for k in ("acc30", "acc15", "acc10")] == [50, 25, 25] and figures[
        "median_deg"
    ] == pytest.approx(100)
    assert figures["symmetry_aware"]["acc30"] == 75 and figures["auroc"] == 1.0
    assert figures["answered"] == 75


def test_without_an_answer_the_best_pose_below_the_threshold_counts_for_the_score(
    clip: Path,
) -> None:
    video = load_video(clip)
    label, label_from_canon = rotations(2, seed=7)
    model = model_of({"a": label_from_canon.T @ label}, Symmetry())
    right = [
        frame.cam_from_obj[:3, :3] @ label.T @ label_from_canon
        for frame in video.frames
        if frame.cam_from_obj is not None
    ]
    answers = iter([[estimate_of(right[0], 0.5)], [], [], []])
    rejected = iter(
        [[], *([estimate_of(right[k] @ turn(X, 90), s)] for k, s in ((2, 0.1), (3, 0.7)))]
    )

    def estimate(image: Tensor, camera: Camera) -> list[PoseEstimate]:
        return next(answers)

    def without_threshold(image: Tensor, camera: Camera) -> list[PoseEstimate]:
        return next(rejected)

    results = metrics.evaluate_poses(
        estimate, model, [video], {"a": label}, without_threshold=without_threshold
    )
    assert [result.rejected for result in results[:2]] == [None, (0.0, 180.0)]
    figures = metrics.summarize_poses(results)
    assert figures["answered"] == 25
    assert (figures["acc30"], figures["wrong"]) == (25, 3)
    assert figures["auroc"] == pytest.approx(2 / 3)  # one wrong pose scores higher


def test_a_place_that_is_a_tenth_of_a_diameter_off_is_said_to_be_whatever_the_unit() -> (
    None
):
    """A camera 4 m from an object of 2 m, 30 degrees above it.

    The estimate is in diameters of another instance.
    """
    template, obj = (
        torch.tensor([[0.0, 0, 0], [1, 0, 0]]),
        torch.tensor([[5.0, 0, 0], [7, 0, 0]]),
    )
    model = replace(
        model_of({}),
        vertices=template,
        triangles=torch.zeros(0, 3, dtype=torch.int64),
        vertex_features=torch.eye(3)[:2],
    )
    label = turn(Z, 40)
    towards = label.T @ torch.tensor(
        [math.cos(math.radians(30)), 0, math.sin(math.radians(30))], dtype=torch.float64
    )
    forward = -towards
    aside = torch.linalg.cross(label.T @ Z, forward)
    aside = aside / aside.norm()
    rotation = torch.stack([aside, torch.linalg.cross(forward, aside), forward])
    place = metrics.ObjectExtent.of(obj)
    pose = from_parts(
        rotation, torch.tensor([0.0, 0, 4], dtype=torch.float64) - rotation @ place.center
    )
    canon = torch.tensor([0.5, 0, 0], dtype=torch.float64)  # the template's middle
    translation = torch.tensor([0.06, 0, 2.08], dtype=torch.float64) - rotation @ canon
    estimate = replace(
        estimate_of(rotation),
        cam_from_canon=from_parts(rotation, 3 * translation),
        scale=3.0,
    )
    plain = metrics.ImageResult("a", "1", estimate, 0.0, 0.0, 0.1)
    result = metrics.add_translation_error(plain, model, pose, label, place)
    assert (result.shift, result.aside) == pytest.approx((0.1, 0.06), abs=1e-6)
    assert (result.distance, result.elevation) == pytest.approx((2.0, 30.0), abs=1e-6)
    unknown = metrics.add_translation_error(
        plain, model, from_parts(rotation, rotation @ (-4 * towards)), label, None
    )
    assert (unknown.shift, unknown.distance) == (
        None,
        None,
    ) and unknown.elevation == pytest.approx(30.0)


def test_what_scores_are_worth_and_where_the_errors_lie() -> None:
    def result(score: float, error: float, distance: float) -> metrics.ImageResult:
        return metrics.ImageResult(
            "a",
            "1",
            estimate_of(torch.eye(3).double(), score),
            error,
            error,
            0.1,
            distance=distance,
        )

    results = [
        result(0.95, 3, 0.5),
        result(1.0, 40, 2.5),
        result(0.31, 100, 2.5),
        result(0.39, 20, 9.0),
    ]
    figures = metrics.summarize_poses(results)
    low, high = (
        {"from": 0.3, "count": 2, "acc30": 50.0},
        {"from": 0.9, "count": 2, "acc30": 50.0},
    )
    assert figures["score"] == [low, high]
    near, middle, far = figures["by"]["distance"]
    assert (near["from"], near["to"], near["acc30"]) == (None, 1.0, 100)
    assert (middle["from"], middle["to"], middle["images"], middle["acc30"]) == (
        2.0,
        3.0,
        2,
        0,
    )
    assert (far["from"], far["to"], far["acc15"]) == (5.0, None, 0)
    assert figures["by"]["elevation"] == [] and figures["shift_diameters"] is None


def test_a_true_rotation_is_inside_the_region_that_the_covariance_gives_it_and_no_farther() -> (
    None
):
    true = rotations(1, seed=3)[0]
    covariance = torch.diag(
        torch.tensor([1.0, 1, 1, 0.04, 0.01, 0.01], dtype=torch.float64)
    )  # x may be off twice as far
    reach = math.degrees(math.sqrt(7.815) * 0.1)  # 16 degrees about y

    def inside(off: Tensor, symmetry: Symmetry = Symmetry()) -> bool | None:
        return metrics.is_in_confidence_region(
            replace(estimate_of(off @ true), covariance=covariance, symmetry=symmetry), true
        )

    y = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert inside(turn(y, reach * 0.99)) and not inside(turn(y, reach * 1.01))
    assert inside(turn(X, reach * 1.99)) and not inside(turn(X, reach * 2.01))
    assert not inside(true @ turn(Z, 180) @ true.T)
    assert inside(true @ turn(Z, 180) @ true.T, Symmetry(2, Z))
    assert metrics.is_in_confidence_region(estimate_of(true), true) is None


def test_a_video_without_a_label_cannot_be_evaluated(clip: Path) -> None:
    model = model_of({"b": torch.eye(3, dtype=torch.float64)})
    with pytest.raises(InvalidInput, match="no labels for a; there are labels for b"):
        metrics.evaluate_poses(
            lambda image, camera: [],
            model,
            [load_video(clip)],
            {"b": torch.eye(3).double()},
        )


def test_auroc_is_the_share_of_right_and_wrong_pairs_in_order() -> None:
    assert metrics.auroc([(0.9, 0), (0.4, 10), (0.5, 90), (0.4, 170)]) == pytest.approx(
        2.5 / 4
    )
    assert metrics.auroc([(0.9, 0), (0.4, 10)]) is None


def test_accuracies_are_percents_below_the_angle() -> None:
    figures = metrics.accuracies(
        torch.tensor([0.0, 9.9, 10.0, 29.9, 30.0], dtype=torch.float64)
    )
    assert figures == {
        "acc30": 80,
        "acc15": pytest.approx(60),
        "acc10": 40,
        "median_deg": 10,
    }
