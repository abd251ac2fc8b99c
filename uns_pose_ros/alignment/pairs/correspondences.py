"""Correspondences of two feature meshes, and pose hypotheses through four of them each."""

from __future__ import annotations

import torch
from torch import Tensor

from uns_pose_ros.alignment.mesh_batch import MeshBatch
from uns_pose_ros.core.geometry import fit_similarity
from uns_pose_ros.core.types import FeatureMesh


def feature_distances(a: MeshBatch, b: MeshBatch) -> Tensor:
    """Feature distances (B, V, W) of all vertices of B pairs of meshes.

    The distance is the mean over the views of one vertex of the distance to the nearest view of the
    other, averaged over both directions. It is inf if either vertex has no view.

    Memory: 4 * B * (V K)**2 bytes, 16 MB for a pair with the defaults.
    """
    # (B, K, V, C): maxima over other dimensions than the last are fast
    ours = a.features.transpose(1, 2)
    theirs = b.features.transpose(1, 2)
    likeness = ours.flatten(1, 2) @ theirs.flatten(1, 2).mT
    likeness = likeness.unflatten(2, theirs.shape[1:3]).unflatten(
        1, ours.shape[1:3]
    )  # (B, K, V, L, W)
    to_b = _chord(likeness.amax(3)).mul_(a.share.mT[..., None]).sum(1)
    to_a = _chord(likeness.amax(1)).mul_(b.share.mT[:, None]).sum(2)
    return ((to_b + to_a) / 2).masked_fill_(
        ~(a.seen[:, :, None] & b.seen[:, None]), torch.inf
    )


def exact_feature_distances(a: FeatureMesh, b: FeatureMesh) -> Tensor:
    """Distances (V, W) as `feature_distances`, from all views: slow, the reference for tests.

    Memory: 4 * M * (M + V + W) bytes.
    """
    likeness = a.features.float() @ b.features.float().T
    sums = []
    for mesh, other, matrix in ((a, b, likeness), (b, a, likeness.T)):
        best = matrix.new_full((len(matrix), len(other.vertices)), -torch.inf)
        best.scatter_reduce_(1, other.vertex_index.expand(len(matrix), -1), matrix, "amax")
        views = torch.bincount(mesh.vertex_index, minlength=len(mesh.vertices))
        total = matrix.new_zeros(len(mesh.vertices), len(other.vertices)).index_add_(
            0, mesh.vertex_index, _chord(best)
        )
        sums.append(torch.where(views[:, None] > 0, total / views[:, None], torch.inf))
    return (sums[0] + sums[1].T) / 2


def _chord(cosine: Tensor) -> Tensor:
    """Distance of unit vectors from their cosine; inf for -inf, which stands for no vector."""
    return (2 - 2 * cosine).clamp_min_(0).sqrt_()


def cycle_weights(
    distances: Tensor, a: Tensor, b: Tensor, tau: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Correspondences by nearest feature, weighted by how well each closes its cycle.

    A cycle goes from a point to its correspondence and from there back to a point of the first
    mesh. A weight decreases with the distance between the first and the last point.

    Args:
        distances: Feature distances (B, V, W).
        a: Points (B, V, 3) of the first meshes, diameter 1.
        b: Points (B, W, 3) of the second meshes, diameter 1.
        tau: Diameters, the distance at which a weight is 1/e.

    Returns:
        The correspondences (B, V) into b and (B, W) into a, and their weights (B, V) and (B, W),
        mean 1 over the points that have features and 0 elsewhere.
    """
    to_b, to_a = distances.argmin(2), distances.argmin(1)
    weights = []
    for points, forward, backward, axis in ((a, to_b, to_a, 2), (b, to_a, to_b, 1)):
        returned = torch.take_along_dim(points, backward.gather(1, forward)[..., None], 1)
        weight = torch.exp(-(points - returned).norm(dim=-1) / tau)
        weight = weight * distances.amin(axis).isfinite()
        weights.append(
            weight
            / weight.sum(1, keepdim=True).clamp_min(1e-9)
            * (weight > 0).sum(1, keepdim=True)
        )
    return to_b, to_a, weights[0], weights[1]


def draw_hypotheses(
    a: Tensor,
    b: Tensor,
    to_b: Tensor,
    to_a: Tensor,
    weight_a: Tensor,
    weight_b: Tensor,
    uniform: Tensor,
) -> Tensor:
    """Draw hypotheses b_from_a (B, H, 4, 4), each a similarity through four correspondences.

    The first half starts from vertices of a, the second half from vertices of b.

    Args:
        a: Points (B, V, 3) of the first meshes.
        b: Points (B, W, 3) of the second meshes.
        to_b: Correspondences (B, V) into b.
        to_a: Correspondences (B, W) into a.
        weight_a: Weights (B, V) with which vertices of a are drawn.
        weight_b: Weights (B, W) with which vertices of b are drawn.
        uniform: Uniform random numbers (H, 4).
    """
    half = len(uniform) // 2
    picks = []
    for weight, numbers in ((weight_a, uniform[:half]), (weight_b, uniform[half:])):
        ladder = weight.double().cumsum(1)
        wanted = numbers.reshape(1, -1).to(ladder) * ladder[:, -1:]
        picks.append(torch.searchsorted(ladder, wanted).clamp_(max=weight.shape[1] - 1))
    from_a = torch.cat([picks[0], to_a.gather(1, picks[1])], 1)
    from_b = torch.cat([to_b.gather(1, picks[0]), picks[1]], 1)
    source = torch.take_along_dim(a, from_a[..., None], 1).unflatten(1, (-1, 4))
    target = torch.take_along_dim(b, from_b[..., None], 1).unflatten(1, (-1, 4))
    return fit_similarity(source, target)
