"""The published alignment against a slow, literal twin, and what it does with videos."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from synthetic_meshes import category_of, feature_mesh, moved
from uns_pose_ros.alignment.mesh_batch import shape_frame
from uns_pose_ros.alignment.published_alignment import (
    Partners,
    PublishedConfig,
    align_published,
    align_to_reference,
    all_view_distances,
    draw_uniformly,
    find_partners,
    published_energies,
    rigid_exponential,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    invert,
    random_rotations,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import FeatureMesh


def thinned(mesh: FeatureMesh, vertices: int, unseen: int = 2) -> FeatureMesh:
    """The first vertices of a mesh; the last `unseen` of them without features."""
    kept = mesh.vertex_index < vertices - unseen
    return FeatureMesh(
        vertices=mesh.vertices[:vertices],
        triangles=mesh.triangles,
        features=mesh.features[kept],
        vertex_index=mesh.vertex_index[kept],
        view_index=mesh.view_index[kept],
        cameras_in_obj=mesh.cameras_in_obj,
    )


@pytest.fixture(scope="module")
def pair() -> tuple[FeatureMesh, FeatureMesh]:
    return thinned(feature_mesh(0)[0], 18), thinned(feature_mesh(1)[0], 15)


class Twin:
    """Section 3 of the paper, one vertex at a time."""

    def __init__(self, a: FeatureMesh, b: FeatureMesh, tau: float) -> None:
        self.a, self.b = (unit_points(mesh).numpy() for mesh in (a, b))
        views_a, views_b = (self._views(mesh) for mesh in (a, b))
        self.distances = np.array(
            [[self._distance(x, y) for y in views_b] for x in views_a]
        )
        self.to_b = [int(np.argmin(row)) for row in self.distances]
        self.to_a = [int(np.argmin(column)) for column in self.distances.T]
        self.weights = []
        for i in range(len(self.a)):
            back = self.to_a[self.to_b[i]]
            self.weights.append(self._weight(self.a[i], self.a[back], views_a[i], tau))
        for j in range(len(self.b)):
            back = self.to_b[self.to_a[j]]
            self.weights.append(self._weight(self.b[j], self.b[back], views_b[j], tau))
        mean = sum(self.weights) / len(self.weights)
        self.weights = [weight / mean for weight in self.weights]

    @staticmethod
    def _views(mesh: FeatureMesh) -> list[list[np.ndarray]]:
        views: list[list[np.ndarray]] = [[] for _ in mesh.vertices]
        for vertex, feature in zip(mesh.vertex_index, mesh.features, strict=True):
            row = feature.double().numpy()
            views[int(vertex)].append(row / np.linalg.norm(row))
        return views

    @staticmethod
    def _distance(x: list[np.ndarray], y: list[np.ndarray]) -> float:
        if not x or not y:
            return math.inf
        there = np.mean([min(np.linalg.norm(p - q) for q in y) for p in x])
        back = np.mean([min(np.linalg.norm(p - q) for p in x) for q in y])
        return float(there + back) / 2

    @staticmethod
    def _weight(
        start: np.ndarray, end: np.ndarray, views: list[np.ndarray], tau: float
    ) -> float:
        return math.exp(-float(np.linalg.norm(start - end)) / tau) if views else 0.0

    def energy(self, b_from_a: np.ndarray, alpha: float) -> float:
        moved = [b_from_a[:3, :3] @ point + b_from_a[:3, 3] for point in self.a]
        costs = []
        for i, point in enumerate(moved):
            near = min(np.linalg.norm(point - other) for other in self.b)
            partner = np.linalg.norm(point - self.b[self.to_b[i]])
            costs.append((1 - alpha) * near + alpha * partner)
        for j, point in enumerate(self.b):
            near = min(np.linalg.norm(point - other) for other in moved)
            partner = np.linalg.norm(point - moved[self.to_a[j]])
            costs.append((1 - alpha) * near + alpha * partner)
        total = sum(w * cost for w, cost in zip(self.weights, costs, strict=True))
        return float(total / len(costs))


@pytest.fixture(scope="module")
def twin(pair: tuple[FeatureMesh, FeatureMesh]) -> Twin:
    return Twin(*pair, 0.9)


def unit_points(mesh: FeatureMesh) -> torch.Tensor:
    return transform(shape_frame(mesh.vertices), mesh.vertices.double())


def parts(a: FeatureMesh, b: FeatureMesh) -> tuple[torch.Tensor, torch.Tensor, Partners]:
    points = (unit_points(a).float(), unit_points(b).float())
    return *points, find_partners(all_view_distances(a, b), *points, 0.9)


def test_the_distances_are_those_of_all_views(
    pair: tuple[FeatureMesh, FeatureMesh], twin: Twin
) -> None:
    found = all_view_distances(*pair)
    expected = torch.from_numpy(twin.distances).float()
    assert torch.equal(found.isinf(), expected.isinf())
    assert bool(found.isinf().any())
    finite = found.isfinite()
    torch.testing.assert_close(found[finite], expected[finite], atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_partners_weights_and_energies_equal_the_slow_twin(
    pair: tuple[FeatureMesh, FeatureMesh], twin: Twin, alpha: float
) -> None:
    a, b, partners = parts(*pair)
    seen_a, seen_b = partners.weight_a > 0, partners.weight_b > 0
    assert partners.to_b[seen_a].tolist() == np.array(twin.to_b)[seen_a.numpy()].tolist()
    assert partners.to_a[seen_b].tolist() == np.array(twin.to_a)[seen_b.numpy()].tolist()
    weights = torch.cat([partners.weight_a, partners.weight_b])
    torch.testing.assert_close(weights, torch.tensor(twin.weights), atol=1e-5, rtol=0.0)
    drawn = draw_uniformly(a, b, partners, 40, seed=3)
    energies = published_energies(drawn, a, b, partners, alpha)
    expected = [twin.energy(pose.double().numpy(), alpha) for pose in drawn]
    torch.testing.assert_close(energies, torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_the_appearance_term_is_a_distance_in_space_to_a_fixed_partner() -> None:
    points = torch.eye(4, 3)
    swapped = torch.tensor([1, 0, 2, 3])  # by features; no pose changes it
    partners = Partners(swapped, swapped, torch.ones(4), torch.ones(4))
    shifted = from_parts(torch.eye(3), torch.tensor([0.0, 0.0, 0.1]))
    poses = torch.stack([torch.eye(4), shifted])
    apart = torch.tensor([2 * 2**0.5 / 4, (2 * 2.01**0.5 + 2 * 0.1) / 4])
    near = torch.tensor([0.0, 0.1])
    torch.testing.assert_close(
        published_energies(poses, points, points, partners, 0.2), 0.8 * near + 0.2 * apart
    )


def test_hypotheses_are_drawn_uniformly_from_the_vertices_that_are_seen() -> None:
    a = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 1, 5, 3, 4])
    weight = torch.tensor([5.0, 0.1, 0.1, 0.1, 0.7, 0.0])  # weights must not count
    b = torch.empty(6, 3)
    b[order] = 2 * a + 1
    drawn = draw_uniformly(a, b, Partners(order, order, weight, weight), 500, seed=0)
    expected = from_parts(torch.eye(3), torch.ones(3), 2.0).expand(500, 4, 4)
    torch.testing.assert_close(drawn, expected, atol=1e-3, rtol=0.0)
    b[order[0]] += 5  # one of the five that are seen: in four of five sets of four
    wrong = draw_uniformly(a, b, Partners(order, order, weight, weight), 500, seed=0)
    share = float(((wrong - expected).abs().amax((1, 2)) > 0.1).float().mean())
    assert share == pytest.approx(0.8, abs=0.06)


def test_four_partners_that_are_one_vertex_give_a_shift() -> None:
    points = torch.eye(4, 3)
    same = torch.zeros(4, dtype=torch.int64)
    drawn = draw_uniformly(
        points, points, Partners(same, same, torch.ones(4), torch.ones(4)), 3, 0
    )
    expected = from_parts(torch.eye(3), points[0]).expand(3, 4, 4)
    torch.testing.assert_close(drawn, expected)


def test_the_least_energy_wins_as_in_the_slow_twin(
    pair: tuple[FeatureMesh, FeatureMesh], twin: Twin
) -> None:
    a, b, partners = parts(*pair)
    drawn = draw_uniformly(a, b, partners, 60, seed=7)
    best = min(drawn, key=lambda pose: twin.energy(pose.double().numpy(), 0.2))
    units = [shape_frame(mesh.vertices) for mesh in pair]
    expected = invert(units[1]) @ best.double() @ units[0]
    found = align_published(*pair, PublishedConfig(hypotheses=60), seed=7)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_steps_of_adam_equal_those_of_a_twin_with_numeric_gradients(
    pair: tuple[FeatureMesh, FeatureMesh], twin: Twin
) -> None:
    a, b, partners = parts(*pair)
    settings = PublishedConfig(hypotheses=30, steps=3)
    drawn = draw_uniformly(a, b, partners, 30, seed=1)
    energy = published_energies(drawn, a, b, partners, 0.2)
    pose = drawn[energy.argmin()].double().numpy()
    first, second = np.zeros(6), np.zeros(6)
    for step in range(1, settings.steps + 1):
        gradient = np.zeros(6)
        for k in range(6):
            for sign in (1, -1):
                twist = torch.zeros(6, dtype=torch.float64)
                twist[k] = sign * 1e-6
                nudged = pose @ rigid_exponential(twist).numpy()
                gradient[k] += sign * twin.energy(nudged, 0.2) / 2e-6
        first = 0.4 * first + 0.6 * gradient
        second = 0.6 * second + 0.4 * gradient**2
        move = first / (1 - 0.4**step) / (np.sqrt(second / (1 - 0.6**step)) + 1e-8)
        pose = pose @ rigid_exponential(torch.from_numpy(-0.02 * move)).numpy()
    units = [shape_frame(mesh.vertices) for mesh in pair]
    expected = invert(units[1]) @ torch.from_numpy(pose) @ units[0]
    found = align_published(*pair, settings, seed=1)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)


def test_steps_of_adam_lower_the_energy_and_keep_the_scale() -> None:
    a, b = feature_mesh(0)[0], feature_mesh(2)[0]
    units = [shape_frame(mesh.vertices) for mesh in (a, b)]
    points_a, points_b, partners = parts(a, b)
    poses = [
        units[1]
        @ align_published(a, b, PublishedConfig(hypotheses=200, steps=steps))
        @ invert(units[0])
        for steps in (0, 20)
    ]
    scales = split_similarity(torch.stack(poses))[2]
    torch.testing.assert_close(scales[1], scales[0], atol=1e-5, rtol=0.0)
    energy = published_energies(
        torch.stack(poses).float(), points_a, points_b, partners, 0.2
    )
    assert float(energy[1]) < float(energy[0])


def test_every_video_goes_to_the_reference_and_does_not_depend_on_the_others() -> None:
    meshes, truths = category_of([0, 1, 2, 3])
    config = PublishedConfig(hypotheses=300)
    alignment = align_to_reference(meshes, "video_2", config, device="cpu")
    alone = align_to_reference(
        {name: meshes[name] for name in ("video_3", "video_2")},
        "video_2",
        config,
        device="cpu",
    )
    torch.testing.assert_close(alone.canon_from_obj[0], alignment.canon_from_obj[3])
    assert bool(alignment.kept.all())
    rotations = split_similarity(alignment.canon_from_obj)[0]
    turned = rotations @ torch.stack([truths[name].mT for name in alignment.videos])
    assert float(angle_between(turned, turned[2]).max()) < 15
    box = transform(alignment.canon_from_obj[2], meshes["video_2"].vertices.double())
    assert float((box.amax(0) - box.amin(0)).norm()) == pytest.approx(1.0)
    torch.testing.assert_close(box.amax(0), -box.amin(0))


def test_the_published_alignment_does_not_depend_on_the_obj_frames() -> None:
    meshes, _ = category_of([0, 1])
    new_from_obj = from_parts(
        random_rotations(1, torch.Generator().manual_seed(3))[0],
        torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64),
        2.5,
    )
    there = {**meshes, "video_1": moved(meshes["video_1"], new_from_obj)}
    config = PublishedConfig(hypotheses=200)
    poses = [
        align_to_reference(some, "video_0", config, device="cpu").canon_from_obj[1]
        for some in (meshes, there)
    ]
    torch.testing.assert_close(poses[1] @ new_from_obj, poses[0], atol=1e-3, rtol=0.0)


def test_a_reference_that_is_no_video_is_refused_with_the_names_of_the_videos() -> None:
    meshes, _ = category_of([0, 1])
    with pytest.raises(InvalidInput) as refused:
        align_to_reference(meshes, "video_7")
    assert str(refused.value) == (
        "--reference video_7: no such video here; video_0, video_1 are valid"
    )


def test_a_mesh_that_hardly_anything_sees_is_named() -> None:
    meshes, _ = category_of([0, 1])
    few = replace(thinned(meshes["video_1"], 5, unseen=2), mirrored=None)
    with pytest.raises(InvalidInput, match="video_1: 5 vertices .* 3 of them with feat"):
        align_to_reference({**meshes, "video_1": few}, "video_0")


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", 1.1), ("tau", 0.0), ("hypotheses", 0), ("steps", -1), ("alpha", math.nan)],
)
def test_settings_outside_their_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"{name} .*is valid"):
        PublishedConfig(**{name: value})  # type: ignore[arg-type]
