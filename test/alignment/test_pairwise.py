"""Pairs of feature meshes: the fast energies against exact ones, modes, and known poses."""

from __future__ import annotations

import math

import pytest
import torch

from synthetic_meshes import feature_mesh, moved
from uns_pose_ros.alignment.mesh_batch import (
    MeshBatch,
    ShapeConfig,
    build_mesh_batch,
    reflect,
)
from uns_pose_ros.alignment.pairwise import (
    PairConfig,
    align_pairs,
    closeness,
    cycle_weights,
    draw_hypotheses,
    energies,
    exact_energies,
    exact_feature_distances,
    feature_distances,
    find_modes,
    view_likeness,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    invert,
    random_rotations,
    rotation_from_vector,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import FeatureMesh

CONFIG = PairConfig()


@pytest.fixture(scope="module")
def made() -> list[tuple[FeatureMesh, torch.Tensor]]:
    return [feature_mesh(seed) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def shapes(made: list[tuple[FeatureMesh, torch.Tensor]]) -> MeshBatch:
    return build_mesh_batch({str(k): mesh for k, (mesh, _) in enumerate(made)})


@pytest.fixture(scope="module")
def true_b_from_a(
    made: list[tuple[FeatureMesh, torch.Tensor]], shapes: MeshBatch
) -> torch.Tensor:
    """The pose (4, 4) between the shape frames of the first two meshes."""
    canon_from_shape = torch.stack([pose for _, pose in made]) @ torch.linalg.inv(
        shapes.shape_from_obj
    )
    return invert(canon_from_shape[1]) @ canon_from_shape[0]


def random_poses(near: torch.Tensor, count: int, degrees: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    vector = torch.randn(count, 3, generator=generator, dtype=torch.float64) * math.radians(
        degrees
    )
    shift = torch.randn(count, 3, generator=generator, dtype=torch.float64) * 0.05
    return from_parts(rotation_from_vector(vector), shift) @ near


def test_the_fast_energies_rank_poses_as_the_exact_ones_do(
    shapes: MeshBatch, true_b_from_a: torch.Tensor
) -> None:
    a, b = shapes.take(torch.tensor([0])), shapes.take(torch.tensor([1]))
    distances = feature_distances(a, b)
    _, _, weight_a, weight_b = cycle_weights(distances, a.points, b.points, CONFIG.tau)
    distances = torch.where(
        distances.isfinite(), distances, distances[distances.isfinite()].mean()
    )
    poses = random_poses(true_b_from_a, 300, 60.0).float()
    fast = energies(poses[None], a, b, distances, (weight_a, weight_b), CONFIG)[0]
    exact = exact_energies(
        poses,
        a.points[0],
        b.points[0],
        distances[0],
        (weight_a[0], weight_b[0]),
        CONFIG.alpha,
    )
    torch.testing.assert_close(fast, exact, atol=0.02, rtol=0.0)
    assert float(torch.corrcoef(torch.stack([fast, exact]))[0, 1]) > 0.999


def test_screening_on_fewer_vertices_hardly_changes_the_energies(
    shapes: MeshBatch, true_b_from_a: torch.Tensor
) -> None:
    a, b = shapes.take(torch.tensor([0])), shapes.take(torch.tensor([1]))
    distances = feature_distances(a, b)
    _, _, *weights = cycle_weights(distances, a.points, b.points, CONFIG.tau)
    distances = torch.where(
        distances.isfinite(), distances, distances[distances.isfinite()].mean()
    )
    poses = random_poses(true_b_from_a, 300, 60.0).float()[None]
    full = energies(poses, a, b, distances, weights, CONFIG)
    rough = energies(poses, a, b, distances, weights, CONFIG, vertices=64)
    assert float(torch.corrcoef(torch.cat([full, rough]))[0, 1]) > 0.99


def test_the_exact_energy_of_equal_meshes_is_their_feature_distance() -> None:
    points = torch.eye(4, 3, dtype=torch.float64)
    distances = torch.full((4, 4), 0.5, dtype=torch.float64)
    weights = (torch.ones(4, dtype=torch.float64),) * 2
    shifted = from_parts(
        torch.eye(3, dtype=torch.float64),
        torch.tensor([0.0, 0.0, 0.1], dtype=torch.float64),
    )
    poses = torch.stack([torch.eye(4, dtype=torch.float64), shifted])
    expected = torch.tensor([0.2 * 0.5, 0.2 * 0.5 + 0.8 * 0.1], dtype=torch.float64)
    torch.testing.assert_close(
        exact_energies(poses, points, points, distances, weights, 0.2),
        expected,
        atol=1e-6,
        rtol=0.0,
    )


def test_with_as_many_clusters_as_views_the_distances_are_those_of_all_views(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    # the mean feature is taken away in shapes: do the same for the slow twin
    meshes = [mesh for mesh, _ in made[:2]]
    mean = torch.cat([mesh.features for mesh in meshes]).double().mean(0).float()
    centered = [
        FeatureMesh(
            **{
                **vars(mesh),
                "features": torch.nn.functional.normalize(
                    mesh.features.float() - mean, dim=-1
                ).half(),
            }
        )
        for mesh in meshes
    ]
    exact = exact_feature_distances(*centered)
    shapes = build_mesh_batch({"a": meshes[0], "b": meshes[1]}, ShapeConfig(clusters=16))
    fast = feature_distances(
        shapes.take(torch.tensor([0])), shapes.take(torch.tensor([1]))
    )[0]
    assert torch.equal(fast.isfinite(), exact.isfinite())
    finite = exact.isfinite()
    torch.testing.assert_close(fast[finite], exact[finite], atol=5e-3, rtol=0.0)


def test_a_correspondence_whose_cycle_does_not_close_loses_weight() -> None:
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    distances = torch.tensor(
        [[[0.0, 1, 1], [1, 0.1, 1], [1, 0.2, 1]]]
    )  # the last of a takes what the second has
    to_b, to_a, weight_a, weight_b = cycle_weights(distances, points, points, tau=0.9)
    assert to_b.tolist() == [[0, 1, 1]]
    assert to_a.tolist() == [[0, 1, 0]]
    broken = math.exp(-math.sqrt(2) / 0.9)
    torch.testing.assert_close(
        weight_a, 3 / (2 + broken) * torch.tensor([[1.0, 1.0, broken]])
    )
    assert float(weight_b.mean()) == pytest.approx(1.0)


def test_hypotheses_of_right_correspondences_are_the_similarity() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, 50, 3, generator=generator, dtype=torch.float64)
    truth = from_parts(
        random_rotations(1, generator)[0],
        torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64),
        1.3,
    )
    same, even = torch.arange(50)[None], torch.ones(1, 50)
    uniform = torch.rand(40, 4, generator=generator, dtype=torch.float64)
    drawn = draw_hypotheses(a, transform(truth, a), same, same, even, even, uniform)[0]
    good = drawn[(drawn - truth).abs().amax((1, 2)) < 1e-6]
    assert (
        len(good) >= 36
    )  # a few draws hold one vertex twice and leave the turn about a line open


def test_two_clusters_of_hypotheses_are_two_modes_and_never_their_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    jitter = rotation_from_vector(
        torch.randn(60, 3, generator=generator, dtype=torch.float64) * math.radians(3)
    )
    rotation = torch.cat([jitter[:30], jitter[30:] @ half_turn])
    energy = torch.cat([torch.full((30,), 0.30), torch.full((30,), 0.31)])
    modes, lowest = find_modes(
        from_parts(rotation, torch.zeros(60, 3, dtype=torch.float64))[None],
        energy[None],
        CONFIG,
    )
    rotation = split_similarity(modes[0, :2])[0]
    assert float(angle_between(rotation[0], torch.eye(3, dtype=torch.float64))) < 2
    assert float(angle_between(rotation[1], half_turn)) < 2
    torch.testing.assert_close(
        lowest[0, :2], torch.tensor([0.30, 0.31], dtype=torch.float64), atol=1e-6, rtol=0.0
    )
    assert not bool(lowest[0, 2:].isfinite().any())


def test_closeness_is_one_half_at_its_width() -> None:
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    turned = rotation_from_vector(
        torch.deg2rad(torch.tensor([[0.0], [12.0], [180.0]], dtype=torch.float64)) * axis
    )
    near = closeness(turned, torch.eye(3, dtype=torch.float64), 12.0)
    assert near[:2].tolist() == pytest.approx([1.0, 0.5])
    assert float(near[2]) < 0.02


def test_the_best_mode_of_a_pair_is_its_true_pose(
    shapes: MeshBatch, true_b_from_a: torch.Tensor
) -> None:
    modes = align_pairs(shapes, torch.tensor([[0, 1]]), CONFIG)
    rotation, translation, scale = split_similarity(modes.b_from_a[0, 0])
    true_rotation, true_translation, true_scale = split_similarity(true_b_from_a)
    assert float(angle_between(rotation, true_rotation)) < 5
    assert float((translation - true_translation).norm()) < 0.05
    assert float(scale / true_scale) == pytest.approx(1.0, abs=0.05)
    there = modes.energy[0].isfinite()  # of the modes that there are
    assert int(modes.likeness[0][there].argmax()) == 0


def test_a_pairs_modes_do_not_depend_on_its_company(shapes: MeshBatch) -> None:
    alone = align_pairs(shapes, torch.tensor([[0, 2]]), CONFIG)
    together = align_pairs(shapes, torch.tensor([[0, 1], [0, 2], [2, 1]]), CONFIG)
    for name, tensor in vars(alone).items():
        torch.testing.assert_close(vars(together)[name][1:2], tensor, msg=name)


def test_what_was_seen_from_one_side_only_says_nothing_of_the_other() -> None:
    front, _ = feature_mesh(0, azimuths=(-60.0, 60.0))
    back, pose = feature_mesh(1, azimuths=(120.0, 240.0))
    around, other = feature_mesh(2)
    shapes = build_mesh_batch({"front": front, "back": back, "around": around})
    canon_from_shape = torch.stack(
        [feature_mesh(0, azimuths=(-60.0, 60.0))[1], pose, other]
    )
    canon_from_shape = canon_from_shape @ torch.linalg.inv(shapes.shape_from_obj)
    overlaps = []
    for a, b in ((0, 1), (0, 2)):
        b_from_a = (invert(canon_from_shape[b]) @ canon_from_shape[a])[None, None]
        _, overlap = view_likeness(
            b_from_a,
            shapes.take(torch.tensor([a])),
            shapes.take(torch.tensor([b])),
            CONFIG.view_width,
        )
        overlaps.append(float(overlap))
    assert overlaps[0] < 0.3 < overlaps[1]


def test_shapes_do_not_depend_on_the_obj_frame(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    generator = torch.Generator().manual_seed(3)
    new_from_obj = from_parts(
        random_rotations(1, generator)[0],
        torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64),
        2.5,
    )
    shapes = build_mesh_batch(
        {"here": made[0][0], "there": moved(made[0][0], new_from_obj)}
    )
    torch.testing.assert_close(shapes.points[1], shapes.points[0], atol=1e-4, rtol=0.0)
    for name in (
        "features",
        "direction",
        "share",
    ):  # a view between two clusters may fall to either
        here, there = vars(shapes)[name].flatten(2)
        assert int(((here - there).abs().amax(1) > 1e-2).sum()) <= 0.02 * len(here), name


def test_the_mirrored_twin_of_a_twin_is_the_video_itself(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    mesh = made[0][0]
    twice = reflect(reflect(mesh))
    for name, tensor in vars(mesh).items():
        torch.testing.assert_close(vars(twice)[name], tensor, msg=name)
    rotation = reflect(mesh).cameras_in_obj[:, :3, :3]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(len(rotation)))


def test_a_mesh_without_mirrored_features_has_no_twin(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    with pytest.raises(InvalidInput, match="mirrored"):
        reflect(FeatureMesh(**{**vars(made[0][0]), "mirrored": None}))


def test_a_mesh_without_features_or_extent_is_named(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    mesh = made[0][0]
    empty = FeatureMesh(
        mesh.vertices,
        mesh.triangles,
        mesh.features[:0],
        mesh.vertex_index[:0],
        mesh.view_index[:0],
        mesh.cameras_in_obj,
    )
    with pytest.raises(
        InvalidInput, match=r"dark: 200 vertices .* 0 of them with features"
    ):
        build_mesh_batch({"bright": mesh, "dark": empty})
    point = FeatureMesh(**{**vars(mesh), "vertices": torch.zeros_like(mesh.vertices)})
    with pytest.raises(InvalidInput, match="over 0 units"):
        build_mesh_batch({"point": point})
