"""Poses moved to where they explain a crop best.

Gauss-Newton steps of an expectation maximisation.

Each place belongs to its likely vertices where they project close to it, or to nothing. Hypotheses
come first and crops second here: (H, B, ...), so that what a vertex of any crop gives and takes is
one column of one table.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from uns_pose_ros.estimation.pose_hypotheses import NEAREST, Places, Template, nearness

_FAR = 1e6  # tangent of what is not seen


@dataclass(frozen=True, eq=False)
class Projection:
    """The template under H poses for each of B crops."""

    tangents: Tensor  # (H, 2, B, V)
    inverse: Tensor  # (H, 1, B, V), of the depth, 1 / diameters
    seen: Tensor  # (H, 1, B, V) bool


def project(template: Template, rotation: Tensor, translation: Tensor) -> Projection:
    """Poses (H, B, 3, 3), (H, B, 3)."""
    many, batch = rotation.shape[:2]
    offset = translation.mT.reshape(-1, 1)
    points = torch.addmm(
        offset, rotation.transpose(1, 2).reshape(-1, 3), template.vertices.T
    ).view(many, 3, batch, -1)
    inverse = points[:, 2:].clamp_min(1e-3).reciprocal_()
    direction = template.nearest_direction(rotation, translation)
    seen = template.visible.index_select(0, direction.flatten()).view(many, 1, batch, -1)
    return Projection(points[:, :2] * inverse, inverse, seen)


def kernel(places: Places, projection: Projection, width: float) -> Tensor:
    """How well each place's vertices fit, (H, B, P, M).

    Probability times a Gaussian of `width` cells around the place.

    Vertices on the far side count nothing.
    """
    many = len(projection.tangents)
    tangents = torch.where(projection.seen, projection.tangents, _FAR).view(many * 2, -1)
    gap = tangents.index_select(1, columns(places, projection)).view(
        many, 2, *places.vertex.shape
    )
    gap = gap.sub_(places.tangents.permute(2, 0, 1)[..., None]).square_()
    return nearness(gap[:, 0].add_(gap[:, 1]), width * places.cell[:, None, None]).mul_(
        places.probability
    )


def columns(places: Places, projection: Projection) -> Tensor:
    """(B P M,) where a place's vertices stand in a table of the vertices of all crops, (..., B, V)
    flat.
    """
    batch, vertices = projection.tangents.shape[2:]
    return (
        places.vertex
        + vertices * torch.arange(batch, device=places.vertex.device)[:, None, None]
    ).flatten()


def refine(
    places: Places,
    template: Template,
    rotation: Tensor,
    translation: Tensor,
    widths: tuple[float, ...],
    floor: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Poses (H, B, 3, 3), (H, B, 3) after one step for each width (cells), full perspective, and
    the last information matrix (H, B, 6, 6).

    Its order is translation (diameters), rotation about the camera's axes (rad).
    """
    many, batch = rotation.shape[:2]
    presence = places.presence[..., None]  # (B, P, 1)
    one = torch.ones_like(presence)
    what = (
        torch.cat([one, places.tangents], -1).permute(2, 0, 1)[..., None].contiguous()
    )  # (3, B, P, 1)
    monomials = _monomials(template.vertices)
    information = torch.eye(6, device=rotation.device).expand(many, batch, 6, 6)
    for width in widths:
        seen = project(template, rotation, translation)
        fit = kernel(places, seen, width)
        weight = fit.mul_(
            presence / (fit.sum(-1, keepdim=True) + floor * presence).clamp_min_(1e-30)
        )  # of the place
        # each vertex's total weight and weighted sum of places: all that the residuals, linear in
        # the places, need
        sums = torch.zeros(many * 3, seen.tangents[0, 0].numel(), device=rotation.device)
        sums.index_add_(
            1, columns(places, seen), (weight[:, None] * what).view(many * 3, -1)
        )
        moments = _moments(seen, sums.view(many, 3, batch, -1))  # (H, 7, B, V)
        gradient, information = _equations((moments @ monomials).transpose(1, 2), rotation)
        damped = information.clone()
        damped.diagonal(dim1=-2, dim2=-1).mul_(1 + 1e-4).add_(1e-13)
        step = torch.linalg.solve_ex(damped, gradient)[0].nan_to_num_(0.0, 0.0, 0.0)
        step *= 0.5 / step[..., 3:].norm(dim=-1, keepdim=True).clamp_min_(
            0.5
        )  # at most half a radian
        rotation, translation = (
            _turned(step[..., 3:], rotation),
            translation + step[..., :3],
        )
        translation[..., 2].clamp_min_(NEAREST)
    return rotation, translation, information


def _moments(seen: Projection, sums: Tensor) -> Tensor:
    """(H, 7, B, V) of each vertex: its force (3), weight / depth^2 times 1, u, v, u^2 + v^2.

    sums (H, 3, B, V): its weight, and its weight times where it is said to be.
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
    """Gradient (H, B, 6) and information (H, B, 6, 6) of moments (H, B, 7, 13) of the template's
    monomials.
    """
    sums, first, second = (
        moments[..., 0],
        moments[..., 1:4] @ rotation.mT,
        moments[..., 3:, 4:].unflatten(-1, (3, 3)),
    )
    second = rotation[:, :, None] @ second @ rotation.mT[:, :, None]
    equations = torch.cat([sums, first.flatten(2), second.flatten(2)], -1) @ _assembly(
        rotation.device
    )
    return equations[..., :6], equations[..., 6:].unflatten(-1, (6, 6))


def _monomials(vertices: Tensor) -> Tensor:
    """(V, 13) of each vertex X: 1, X, X X'."""
    return torch.cat(
        [
            torch.ones_like(vertices[:, :1]),
            vertices,
            (vertices[:, :, None] * vertices[:, None]).flatten(1),
        ],
        1,
    )


@functools.lru_cache(maxsize=4)
def _assembly(device: torch.device) -> Tensor:
    """(64, 42).

    The linear map from a pose's moments, (7), (7, 3) and (4, 3, 3) in the camera, to gradient and
    information.

    A motion t, w moves a vertex at R X + T by t + w x R X and its tangents by [1 0 -u; 0 1 -v] /
    depth times that. So with p = R X and L = [1; [p]x] the gradient is the sum of L f over the
    vertices' forces f, and the information that of L Q L', with Q = s E_1 + s u E_u + s v E_v + s
    (u^2 + v^2) E_uv.
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
    sums, first, second = (
        torch.zeros(7, 42),
        torch.zeros(7, 3, 42),
        torch.zeros(4, 3, 3, 42),
    )
    sums[:3, :3] = unit
    first[:3, :, 3:6] = across.permute(2, 0, 1)  # of force j and place k: e_k x e_j
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
    """(3, 9): half a vector to the matrix of the cross product with it."""
    x, y, z = torch.eye(3).mul(0.5)
    zero = torch.zeros(3)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).to(device)


def _turned(vector: Tensor, rotation: Tensor) -> Tensor:
    """Rotations (H, B, 3, 3) turned by vectors (H, B, 3) of at most half a radian.

    Cayley's map, exact to the third order.
    """
    cross = (vector @ _half_cross(vector.device)).unflatten(-1, (3, 3))
    factor = 2 / (1 + vector.square().sum(-1)[..., None, None] / 4)
    return rotation + factor * ((cross + cross @ cross) @ rotation)
