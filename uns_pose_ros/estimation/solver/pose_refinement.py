"""Refinement of poses by Gauss-Newton steps in an expectation maximization.

Each cell is assigned, with weights, to those of its vertices that project near it, or to none.
Tensors have hypotheses first and crops second: (H, B, ...). So all sums over the cells of one
vertex are one column of one table.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.solver.pose_hypotheses import (
    NEAREST,
    Correspondences,
    Template,
    gaussian_likelihood,
)
from uns_pose_ros.networks.coarse_rotation import CoarseRotation

_FAR = 1e6  # tangent of a vertex that is not visible


@dataclass(frozen=True, eq=False)
class Projection:
    """The template under H poses for each of B crops."""

    tangents: Tensor  # (H, 2, B, V)
    inverse: Tensor  # (H, 1, B, V), inverse depth, 1 / diameters
    seen: Tensor  # (H, 1, B, V) bool


def project_template(
    template: Template, rotation: Tensor, translation: Tensor
) -> Projection:
    """Project the template under poses (H, B, 3, 3), (H, B, 3)."""
    many, batch = rotation.shape[:2]
    offset = translation.mT.reshape(-1, 1)
    points = torch.addmm(
        offset, rotation.transpose(1, 2).reshape(-1, 3), template.vertices.T
    ).view(many, 3, batch, -1)
    inverse = points[:, 2:].clamp_min(1e-3).reciprocal_()
    direction = template.nearest_direction(rotation, translation)
    seen = template.visible.index_select(0, direction.flatten()).view(many, 1, batch, -1)
    return Projection(points[:, :2] * inverse, inverse, seen)


def correspondence_weights(
    correspondences: Correspondences,
    projection: Projection,
    width: float,
    flat: Tensor | None = None,
) -> Tensor:
    """Weight each vertex of each cell by its distance to the cell.

    Args:
        correspondences: Of B crops.
        projection: The template under H poses for each crop.
        width: Standard deviation of a correspondence, cells.
        flat: What `flat_indices` returns, if it is known.

    Returns:
        (H, B, P, M) probability times the Gaussian; 0 for vertices on the far side.
    """
    many = len(projection.tangents)
    tangents = torch.where(projection.seen, projection.tangents, _FAR).view(many * 2, -1)
    if flat is None:
        flat = flat_indices(correspondences, projection.tangents.shape[-1])
    gap = tangents.index_select(1, flat).view(many, 2, *correspondences.vertex.shape)
    gap = gap.sub_(correspondences.tangents.permute(2, 0, 1)[..., None]).square_()
    return gaussian_likelihood(
        gap[:, 0].add_(gap[:, 1]), width * correspondences.cell[:, None, None]
    ).mul_(correspondences.probability)


def flat_indices(correspondences: Correspondences, vertices: int) -> Tensor:
    """Return the indices (B P M,) of the vertices of all cells in a flat table (..., B V)."""
    vertex = correspondences.vertex
    if len(vertex) == 1:
        return vertex.flatten()
    start = vertices * torch.arange(len(vertex), device=vertex.device)
    return (vertex + start[:, None, None]).flatten()


def refine(
    correspondences: Correspondences,
    template: Template,
    rotation: Tensor,
    translation: Tensor,
    widths: tuple[float, ...],
    floor: float,
    coarse: CoarseRotation | None = None,
    pull: Tensor | None = None,
    stretch: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Refine poses in full perspective, with one Gauss-Newton step for each width.

    The steps of an expectation maximization are short and point the same way. Two steps that are
    stretched to 1.4 times their length arrive where three others do.

    Args:
        correspondences: Of B crops.
        template: The template.
        rotation: (H, B, 3, 3).
        translation: (H, B, 3), diameters.
        widths: Standard deviation of a correspondence in each step, cells.
        floor: Likelihood of a cell that a pose does not explain.
        coarse: Coarse rotations that pull the poses; None: nothing does.
        pull: (B,) weight of their log likelihood beside the squared distances, tangents.
        stretch: factor of the length of a step.

    Returns:
        The poses, and the last information matrix (H, B, 6, 6). Its order is translation
        (diameters), rotation about the camera's axes (rad).
    """
    many, batch = rotation.shape[:2]
    presence = correspondences.presence[..., None]  # (B, P, 1)
    one = torch.ones_like(presence)
    what = (
        torch.cat([one, correspondences.tangents], -1)
        .permute(2, 0, 1)[..., None]
        .contiguous()
    )  # (3, B, P, 1)
    at_least = floor * presence
    flat = flat_indices(correspondences, len(template.vertices))
    monomials = template.monomials
    information = torch.eye(6, device=rotation.device).expand(many, batch, 6, 6)
    for width in widths:
        seen = project_template(template, rotation, translation)
        fit = correspondence_weights(correspondences, seen, width, flat)
        weight = fit.mul_(
            presence / fit.sum(-1, keepdim=True).add_(at_least).clamp_min_(1e-30)
        )  # assignment of the cell to each vertex
        # the residuals are linear in the cells: the total weight and the weighted sum of the cells
        # of each vertex are sufficient
        sums = torch.zeros(many * 3, seen.tangents[0, 0].numel(), device=rotation.device)
        sums.index_add_(
            1,
            flat,
            (weight[:, None] * what).view(many * 3, -1),
        )
        moments = _moments(seen, sums.view(many, 3, batch, -1))  # (H, 7, B, V)
        gradient, information = _equations((moments @ monomials).transpose(1, 2), rotation)
        damped = information.clone()
        if coarse is not None and pull is not None:
            force, stiffness = coarse.normal_equations(rotation)
            gradient[..., 3:] += force * pull[:, None]
            damped[..., 3:, 3:] += stiffness * pull[:, None, None]
        damped.diagonal(dim1=-2, dim2=-1).mul_(1 + 1e-4).add_(1e-13)
        step = torch.linalg.solve_ex(damped, gradient)[0].nan_to_num_(0.0, 0.0, 0.0)
        step *= stretch
        angle = step[..., 3:].norm(dim=-1, keepdim=True)
        step *= 0.5 / angle.clamp_min_(0.5)  # at most half a radian
        rotation = _rotate(step[..., 3:], rotation)
        translation = translation + step[..., :3]
        translation[..., 2].clamp_min_(NEAREST)
    return rotation, translation, information


def cell_variance(cell: Tensor, config: EstimatorConfig) -> Tensor:
    """Variance (K,) of a correspondence, for cells (K,) of this size, tangents.

    Errors of neighboring cells are correlated: as if one cell in ten were independent.
    """
    return 10 * (config.correspondence_sigma_cells * cell).square()


def _moments(seen: Projection, sums: Tensor) -> Tensor:
    """Compute the moments of each vertex.

    Args:
        seen: The projection of the vertices.
        sums: (H, 3, B, V) weight of the vertex, and weighted sum of the tangents of its cells.

    Returns:
        (H, 7, B, V): force (3), and weight / depth^2 times 1, u, v, u^2 + v^2.
    """
    weight, uv, inverse = sums[:, :1], seen.tangents, seen.inverse
    force = torch.addcmul(sums[:, 1:], weight, uv, value=-1).mul_(inverse)
    stiff = weight * inverse.square()
    along = stiff * uv
    return torch.cat(
        [
            force,
            -(uv * force).sum(1, keepdim=True),
            stiff,
            along,
            (along * uv).sum(1, keepdim=True),
        ],
        1,
    )


def _equations(moments: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Assemble the normal equations.

    Args:
        moments: (H, B, 7, 13) moments of the template's monomials.
        rotation: (H, B, 3, 3).

    Returns:
        Gradient (H, B, 6) and information (H, B, 6, 6).
    """
    sums = moments[..., 0]
    first = moments[..., 1:4] @ rotation.mT
    second = moments[..., 3:, 4:].unflatten(-1, (3, 3))
    second = rotation[:, :, None] @ second @ rotation.mT[:, :, None]
    equations = torch.cat([sums, first.flatten(2), second.flatten(2)], -1) @ _assembly(
        rotation.device
    )
    return equations[..., :6], equations[..., 6:].unflatten(-1, (6, 6))


@functools.lru_cache(maxsize=4)
def _assembly(device: torch.device) -> Tensor:
    """Return the linear map (64, 42) from moments to gradient and information.

    The moments of a pose are (7), (7, 3) and (4, 3, 3), in the camera.

    A motion t, w moves a vertex at R X + T by t + w x R X and its tangents by [1 0 -u; 0 1 -v] /
    depth times that. With p = R X and L = [1; [p]x] the gradient is the sum of L f over the
    vertices' forces f, and the information is the sum of L Q L', where
    Q = s E_1 + s u E_u + s v E_v + s (u^2 + v^2) E_uv.
    """
    across = torch.zeros(3, 3, 3)  # [k] is the matrix of e_k x .
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        across[a, c, b], across[a, b, c] = 1.0, -1.0
    unit = torch.eye(3)
    outer = unit[:, None, :, None] * unit[None, :, None, :]  # [i, j] is e_i e_j'
    parts = torch.stack(
        [
            outer[0, 0] + outer[1, 1],
            -outer[0, 2] - outer[2, 0],
            -outer[1, 2] - outer[2, 1],
            outer[2, 2],
        ]
    )
    sums = torch.zeros(7, 42)
    first = torch.zeros(7, 3, 42)
    second = torch.zeros(4, 3, 3, 42)
    sums[:3, :3] = unit
    first[:3, :, 3:6] = across.permute(2, 0, 1)  # force j, monomial k: e_k x e_j
    for q, part in enumerate(parts):
        block = torch.zeros(6, 6)
        block[:3, :3] = part
        sums[3 + q, 6:] = block.flatten()
        for k in range(3):
            block = torch.zeros(6, 6)
            block[3:, :3] = across[k] @ part
            first[3 + q, k, 6:] = (block + block.T).flatten()
            for m in range(3):
                block = torch.zeros(6, 6)
                block[3:, 3:] = across[k] @ part @ across[m].T
                second[q, k, m, 6:] = block.flatten()
    return torch.cat([sums, first.flatten(0, 1), second.flatten(0, 2)]).to(device)


@functools.lru_cache(maxsize=4)
def _half_cross(device: torch.device) -> Tensor:
    """Return the map (3, 9) from a vector to half the matrix of its cross product."""
    x, y, z = torch.eye(3).mul(0.5)
    zero = torch.zeros(3)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).to(device)


def _rotate(vector: Tensor, rotation: Tensor) -> Tensor:
    """Rotate rotations (H, B, 3, 3) by vectors (H, B, 3) of at most half a radian.

    Cayley's map is exact to the third order.
    """
    cross = (vector @ _half_cross(vector.device)).unflatten(-1, (3, 3))
    factor = 2 / (1 + vector.square().sum(-1)[..., None, None] / 4)
    return rotation + factor * ((cross + cross @ cross) @ rotation)
