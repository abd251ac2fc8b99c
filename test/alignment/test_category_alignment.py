"""Many videos in one canonical frame: flips, outliers, half orbits, symmetry, added videos."""

from __future__ import annotations

import math

import pytest
import torch

from synthetic_meshes import category_of, feature_mesh, moved
from uns_pose_ros.alignment.canonical_axes import (
    frame_of,
    named_axis,
    nearest_axis,
    propose_up,
    reorient,
)
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category_alignment import align_videos
from uns_pose_ros.alignment.half_turns import resolve_half_turns, turn_matrices
from uns_pose_ros.alignment.incremental_alignment import add_videos
from uns_pose_ros.alignment.rotation_synchronization import (
    Edges,
    agreement_shares,
    synchronize,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    random_rotations,
    rotation_from_vector,
    split_similarity,
)
from uns_pose_ros.core.types import Alignment, FeatureMesh
from uns_pose_ros.evaluation.rotation_labels import evaluate_alignment

CONFIG = AlignConfig()


HALF_TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


def worst(rotation: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest error in degrees of a relative rotation between any two videos (N, 3, 3)."""
    offset = rotation @ truth.mT
    return float(angle_between(offset[:, None], offset[None]).max())


def noisy_edges(truth: torch.Tensor, flipped: float, outlier: int) -> Edges:
    """All pairs of videos (N, 3, 3) with 2 degrees of noise about each axis.

    A share `flipped` of them is half a turn off in the first mode and right in the second. The
    pairs of the outlier have random rotations.
    """
    generator = torch.Generator().manual_seed(7)
    pairs = torch.combinations(torch.arange(len(truth)))
    a, b = pairs.T
    vector = torch.randn(
        len(pairs), 3, generator=generator, dtype=torch.float64
    ) * math.radians(2)
    right = truth[a].mT @ rotation_from_vector(vector) @ truth[b]
    wrong = truth[a].mT @ HALF_TURN @ rotation_from_vector(vector) @ truth[b]
    flip = torch.rand(len(pairs), generator=generator) < flipped
    first = torch.where(flip[:, None, None], wrong, right)
    lost = (a == outlier) | (b == outlier)
    first[lost] = random_rotations(int(lost.sum()), generator)
    second = torch.where(flip[:, None, None], right, wrong)
    weight = torch.tensor([1.0, 0.6], dtype=torch.float64).repeat(len(pairs), 1)
    weight[lost, 1] = 0
    none = torch.zeros(len(pairs), dtype=torch.bool)
    return Edges(len(truth), a, b, none, torch.stack([first, second], 1), weight)


def test_flips_are_outvoted_and_not_averaged_in() -> None:
    truth = random_rotations(10, torch.Generator().manual_seed(0))
    edges = noisy_edges(truth, flipped=0.2, outlier=-1)
    rotation = synchronize(edges).canon_from_video
    assert worst(rotation, truth) < 8


def test_an_outlier_video_has_the_lowest_agreement_and_spoils_no_other() -> None:
    truth = random_rotations(8, torch.Generator().manual_seed(1))
    edges = noisy_edges(truth, flipped=0.2, outlier=3)
    consensus = synchronize(edges)
    others = torch.arange(8) != 3
    assert worst(consensus.canon_from_video[others], truth[others]) < 8
    share = agreement_shares(edges, consensus)
    assert float(share[3]) < 0.5 * float(share[others].min())


def test_a_consensus_of_exact_votes_is_exact() -> None:
    truth = random_rotations(5, torch.Generator().manual_seed(2))
    a, b = torch.combinations(torch.arange(5)).T
    exact = (truth[a].mT @ truth[b])[:, None]
    weight = torch.ones(len(a), 1, dtype=torch.float64)
    edges = Edges(5, a, b, torch.zeros(len(a), dtype=torch.bool), exact, weight)
    consensus = synchronize(edges)
    assert worst(consensus.canon_from_video, truth) < 1e-4
    torch.testing.assert_close(consensus.nearness, torch.ones(len(a), dtype=torch.float64))


def test_mirrored_votes_join_what_no_plain_vote_joins() -> None:
    # two groups of videos that only meet through mirrored twins
    truth = random_rotations(6, torch.Generator().manual_seed(3))
    reflection = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
    plain = [(a, b) for a in range(6) for b in range(a + 1, 6) if (a < 3) == (b < 3)]
    twins = [(a, b) for a in range(6) for b in range(a, 6)]
    a, b = torch.tensor(plain + twins).T
    mirrored = torch.arange(len(a)) >= len(plain)
    between = torch.where(
        mirrored[:, None, None], reflection, torch.eye(3, dtype=torch.float64)
    )
    weight = torch.ones(len(a), 1, dtype=torch.float64)
    edges = Edges(6, a, b, mirrored, (truth[a].mT @ between @ truth[b])[:, None], weight)
    rotation = synchronize(edges).canon_from_video
    assert worst(rotation, truth) < 1


@pytest.mark.parametrize("turned", [(), (2,), (0, 4)])
def test_half_turns_are_found_from_the_evidence_of_all_pairs(
    turned: tuple[int, ...],
) -> None:
    # evidence for relative turn 3 where one of a pair is turned and the other is not
    a, b = torch.combinations(torch.arange(6)).T
    state = torch.zeros(6, dtype=torch.int64)
    state[list(turned)] = 3
    evidence = torch.full((len(a), 4), -1.0, dtype=torch.float64)
    evidence[torch.arange(len(a)), state[a] ^ state[b]] = 1.0
    chosen = resolve_half_turns(
        6, a, b, torch.zeros(len(a), dtype=torch.bool), evidence
    ).video
    assert len(set((chosen ^ state).tolist())) == 1  # up to one turn of everything


def test_the_turns_are_a_group() -> None:
    turns = turn_matrices()
    for i in range(4):
        for j in range(4):
            assert torch.equal(turns[i] @ turns[j], turns[i ^ j])


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, FeatureMesh], dict[str, torch.Tensor], Alignment]:
    meshes, labels = category_of(range(5))
    return meshes, labels, align_videos(meshes, CONFIG, device="cpu")


def test_videos_of_full_orbits_align(
    whole: tuple[dict[str, FeatureMesh], dict[str, torch.Tensor], Alignment],
) -> None:
    meshes, labels, alignment = whole
    figures = evaluate_alignment(alignment, labels)
    assert figures["acc10"] == 100 and figures["pairs"] == 10
    assert bool(alignment.kept.all()) and float(alignment.confidence.min()) > 0.8
    assert alignment.symmetry.name == "none"
    scale = split_similarity(alignment.canon_from_obj)[2]
    sizes = torch.stack(
        [meshes[name].diameter * s for name, s in zip(alignment.videos, scale, strict=True)]
    )
    assert float(sizes.max() / sizes.min()) < 1.2 and float(sizes.mean()) == pytest.approx(
        1.0, abs=0.25
    )


def test_order_names_and_obj_frames_change_nothing(
    whole: tuple[dict[str, FeatureMesh], dict[str, torch.Tensor], Alignment],
) -> None:
    meshes, _, alignment = whole
    generator = torch.Generator().manual_seed(4)
    new_from_obj = {
        name: from_parts(
            rotation, torch.randn(3, generator=generator, dtype=torch.float64), 0.3 + k
        )
        for k, (name, rotation) in enumerate(
            zip(meshes, random_rotations(len(meshes), generator), strict=True)
        )
    }
    shuffled = {
        f"renamed_{name}": moved(meshes[name], new_from_obj[name])
        for name in reversed(list(meshes))
    }
    again = align_videos(shuffled, CONFIG, device="cpu")
    for k, name in enumerate(alignment.videos):
        other = again.videos.index(f"renamed_{name}")
        canon_from_obj = again.canon_from_obj[other] @ new_from_obj[name]
        torch.testing.assert_close(
            canon_from_obj, alignment.canon_from_obj[k], atol=5e-3, rtol=0.0
        )
        torch.testing.assert_close(
            again.confidence[other], alignment.confidence[k], atol=1e-2, rtol=0.0
        )


def test_an_added_video_joins_and_changes_no_other(
    whole: tuple[dict[str, FeatureMesh], dict[str, torch.Tensor], Alignment],
) -> None:
    meshes, labels, alignment = whole
    late, pose = feature_mesh(11)
    steps: list[tuple[str, int, int]] = []
    longer = add_videos(
        alignment,
        {**meshes, "late": late},
        CONFIG,
        progress=lambda *step: steps.append(step),
    )
    assert longer.videos == (*alignment.videos, "late") and steps == [("videos", 1, 1)]
    assert torch.equal(longer.canon_from_obj[:5], alignment.canon_from_obj)
    figures = evaluate_alignment(longer, {**labels, "late": split_similarity(pose)[0]})
    assert figures["acc10"] == 100
    assert (
        float(longer.confidence[5]) > 0.8
        and bool(longer.kept[5])
        and float(longer.residual[5]) < 8
    )
    size = split_similarity(longer.canon_from_obj[5])[2] * late.diameter
    assert float(size) == pytest.approx(1.0, abs=0.25)


def test_nothing_to_add_changes_nothing(
    whole: tuple[dict[str, FeatureMesh], dict[str, torch.Tensor], Alignment],
) -> None:
    meshes, _, alignment = whole
    assert add_videos(alignment, meshes, CONFIG) is alignment
    with pytest.raises(InvalidInput, match="none of the aligned videos"):
        add_videos(alignment, {"late": feature_mesh(11)[0]}, CONFIG)


def test_a_video_of_something_else_is_left_out() -> None:
    meshes, labels = category_of(range(4))
    meshes["stranger"] = feature_mesh(20, category=9)[0]
    alignment = align_videos(meshes, CONFIG, device="cpu")
    assert alignment.kept.tolist() == [True] * 4 + [False], alignment.confidence
    assert evaluate_alignment(alignment, labels)["acc10"] == 100


def test_videos_of_half_orbits_align() -> None:
    meshes: dict[str, FeatureMesh] = {}
    labels: dict[str, torch.Tensor] = {}
    for seed, start in enumerate((0.0, 150.0, 80.0, 220.0, 300.0)):
        more = category_of([seed], azimuths=(start, start + 180.0))
        meshes |= more[0]
        labels |= more[1]
    alignment = align_videos(meshes, CONFIG, device="cpu")
    assert evaluate_alignment(alignment, labels)["acc15"] == 100


def test_two_videos_align() -> None:
    meshes, labels = category_of([0, 1])
    assert (
        evaluate_alignment(align_videos(meshes, CONFIG, device="cpu"), labels)["acc10"]
        == 100
    )


def test_one_video_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1 video given, at least 2"):
        align_videos({"alone": feature_mesh(0)[0]}, CONFIG, device="cpu")


@pytest.mark.parametrize(("order", "name"), [(2, "C2"), (4, "C4"), (0, "continuous")])
def test_the_symmetry_of_a_category_is_found(order: int, name: str) -> None:
    meshes, labels = category_of(range(4), order=order)
    alignment = align_videos(meshes, CONFIG, device="cpu")
    assert alignment.symmetry.name == name
    rotations = split_similarity(alignment.canon_from_obj)[0]
    for rotation, video in zip(rotations, alignment.videos, strict=True):
        axis = (
            rotation @ labels[video].T @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        )
        assert abs(float(axis @ alignment.symmetry.axis)) > math.cos(math.radians(5))
    assert evaluate_alignment(alignment, labels)["symmetry_aware"]["acc10"] == 100


def test_up_is_proposed_from_level_cameras(
    whole: tuple[dict[str, FeatureMesh], dict[str, torch.Tensor], Alignment],
) -> None:
    meshes, labels, alignment = whole
    rotation = split_similarity(alignment.canon_from_obj[0])[0]
    true_up = (
        rotation
        @ labels[alignment.videos[0]].T
        @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    )
    assert float(propose_up(meshes, alignment) @ true_up) > math.cos(math.radians(5))


def test_axes_are_named_without_recomputing(
    whole: tuple[dict[str, FeatureMesh], dict[str, torch.Tensor], Alignment],
) -> None:
    alignment = whole[2]
    turned = reorient(alignment, frame_of(named_axis("-y"), named_axis("x")))
    new_from_old = (
        split_similarity(turned.canon_from_obj[0])[0]
        @ split_similarity(alignment.canon_from_obj[0])[0].T
    )
    torch.testing.assert_close(new_from_old @ named_axis("-y"), named_axis("z"))
    torch.testing.assert_close(new_from_old @ named_axis("x"), named_axis("x"))
    assert float(torch.linalg.det(new_from_old)) == pytest.approx(1.0)
    assert torch.equal(turned.confidence, alignment.confidence)
    back = reorient(turned, new_from_old.T)
    torch.testing.assert_close(back.canon_from_obj, alignment.canon_from_obj)


def test_axes_that_make_no_frame_are_refused() -> None:
    with pytest.raises(InvalidInput, match="across each other"):
        frame_of(named_axis("z"), named_axis("-z"))
    with pytest.raises(InvalidInput, match="axis 'up': x, -x"):
        named_axis("up")
    assert nearest_axis(torch.tensor([0.1, -0.9, 0.2])) == "-y"


def test_an_added_video_of_something_else_is_left_out(
    whole: tuple[dict[str, FeatureMesh], dict[str, torch.Tensor], Alignment],
) -> None:
    meshes, _, alignment = whole
    longer = add_videos(
        alignment, {**meshes, "stranger": feature_mesh(20, category=9)[0]}, CONFIG
    )
    assert not bool(longer.kept[5]), longer.confidence
