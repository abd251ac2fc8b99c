"""Refinement of a pose by the depth at the object: robust point-to-plane on the visible side.

An image tells rotation and translation in diameters; depth tells scale and distance. The state is
the logarithm of the scale about the camera, which leaves the image as it is, a shift and a turn.
The image's covariance and the variation of sizes are the prior, the distances between measured
points and the template's planes on the same rays are the data. Far distances lose their weight
(Geman-McClure), since instances differ from the template and things stand before them. So depth
turns an object only as far as it says more of the rotation than the image.

If few points fit in the end, the pose stays as it was.

Source: Chen and Medioni, Image and Vision Computing 1992 (point-to-plane). Changed: projective
association, a scale, the prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.geometry import (
    from_parts,
    rotation_from_vector,
    vector_from_rotation,
)
from uns_pose_ros.core.ray_casting import cast_rays, vertex_normals
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, PoseMode
from uns_pose_ros.estimation.frame_placement import refit_frames
from uns_pose_ros.estimation.metric_scale import scale_from_depth

# what `PoseEstimate.depth_use` says
REFINED = "refined"
TOO_FEW = "too few points with depth on the object"
NO_FIT = "depth that does not fit the template"
CONTRADICTS = "depth that contradicts the size or the rotation"

_GRID = 18  # rays along the longer side of the object's box
_LEAST = 30  # points
# widths of the weight in each step, diameters: the first ones find points that are farther off
_WIDTHS = (0.12, 0.08, 0.05, 0.05)
_GATE = 0.4  # diameters along the ray, from which on a point is not of the object
_NOISE = 0.05  # diameters, standard deviation of a point from the template's plane
_INDEPENDENT = 12  # points: errors of the template's shape are alike for neighbors
_SIZES = (
    0.25  # standard deviation of the logarithm of an instance's size, where one is known
)
_ANY_SIZE = 3.0  # the same, where none is known
_FITS = 0.06  # diameters: a point this near fits
_SHARE = 0.5  # smallest share of the points with depth that fit
_MOST_TURN = math.radians(25)
_MOST_FACTOR = 2.0  # of the size that the model knows
_FLOOR = 1e-8  # smallest variance of the prior, diameters^2 or rad^2


@dataclass(frozen=True, eq=False)
class _Rays:
    """Rays through the object's box, with what was measured along them."""

    direction: Tensor  # (N, 3) float64, z is 1
    depth: Tensor  # (N,) m; nan: nothing measured


@dataclass(frozen=True, eq=False)
class _State:
    """A pose while it is refined."""

    rotation: Tensor  # (3, 3)
    translation: Tensor  # (3,) m
    scale: float  # m

    def moved(self, step: Tensor, grown: float) -> _State:
        """The state after a step (7,): logarithm of the scale, shift in the prior's unit, turn.

        `grown` is the scale over that of the prior.
        """
        factor = math.exp(float(step[0]))
        return _State(
            rotation_from_vector(step[4:]) @ self.rotation,
            factor * (self.translation + grown * step[1:4]),
            factor * self.scale,
        )


def use_depth(
    estimate: PoseEstimate,
    model: CategoryModel,
    camera: Camera,
    depth: NDArray[np.float32],
    refine: bool = True,
) -> PoseEstimate:
    """Refine an estimate with the depth at the object, and convert it to meters.

    Args:
        estimate: The estimate.
        model: Its category model.
        camera: Camera of the depth.
        depth: (H, W) m, NaN for unknown.
        refine: False: depth only gives the scale of models that know no size.

    Returns:
        The refined estimate. If the depth does not fit, what `scale_from_depth` returns, with the
        reason in `depth_use`.
    """
    scaled = scale_from_depth(estimate, model, camera, depth)
    if not refine:
        return scaled
    rays = _rays_with_depth(estimate, camera, depth)
    if len(rays.direction) < _LEAST:
        return replace(scaled, depth_use=TOO_FEW)
    if not scaled.metric:
        return replace(scaled, depth_use=NO_FIT)
    start = _State(
        scaled.cam_from_canon[:3, :3], scaled.cam_from_canon[:3, 3], scaled.scale
    )
    prior = _prior(scaled, _SIZES if estimate.metric else _ANY_SIZE)
    answer = _solve(start, prior, model, rays)
    if isinstance(answer, str):
        return replace(scaled, depth_use=answer)
    state, covariance = answer
    turn = vector_from_rotation(state.rotation @ start.rotation.T)
    factor = state.scale / scaled.scale
    too_large = estimate.metric and abs(math.log(factor)) > math.log(_MOST_FACTOR)
    if too_large or float(turn.norm()) > _MOST_TURN:
        return replace(scaled, depth_use=CONTRADICTS)
    return _apply(scaled, state, covariance)


def _rays_with_depth(
    estimate: PoseEstimate, camera: Camera, depth: NDArray[np.float32]
) -> _Rays:
    """Rays on a grid over the object's box in the image, where something was measured."""
    corner, other = estimate.box.clamp_min(-0.5).split(2)
    limit = torch.tensor([camera.width - 0.5, camera.height - 0.5], dtype=torch.float64)
    size = torch.minimum(other, limit) - corner
    if not bool((size > 1).all()):
        return _Rays(torch.zeros(0, 3).double(), torch.zeros(0).double())
    counts = [
        max(3, min(round(float(side)), round(float(side) / float(size.max()) * _GRID)))
        for side in size
    ]
    grid = torch.cartesian_prod(
        *((torch.arange(count) + 0.5) / count for count in counts)
    ).double()
    pinhole = corner + grid * size
    rays = torch.cat([pinhole, torch.ones(len(grid), 1).double()], 1)
    rays = rays @ torch.linalg.inv(camera.matrix).T
    zero = np.zeros(3)
    shown, _ = cv2.projectPoints(
        rays.numpy(), zero, zero, camera.matrix.numpy(), camera.distortion.numpy()
    )
    columns, rows = np.rint(shown[:, 0]).astype(np.int64).T
    inside = (
        (columns >= 0) & (columns < depth.shape[1]) & (rows >= 0) & (rows < depth.shape[0])
    )
    measured = np.full(len(rays), np.nan)
    measured[inside] = depth[rows[inside], columns[inside]]
    good = np.isfinite(measured) & (measured > 0)
    return _Rays(rays[torch.from_numpy(good)], torch.from_numpy(measured[good]))


def _prior(estimate: PoseEstimate, sizes: float) -> Tensor:
    """Information (7, 7) of the logarithm of the scale, the translation and the rotation."""
    if estimate.covariance is None:
        away = float(estimate.cam_from_canon[:3, 3].norm())
        sigma = [0.02 * away, 0.02 * away, 0.1 * away, *[math.radians(10)] * 3]
        covariance = torch.diag(torch.tensor(sigma, dtype=torch.float64) ** 2)
    else:
        covariance = estimate.covariance.clone()
        if estimate.doubt is not None:  # it is of other poses, far away
            covariance[3:, 3:] -= estimate.doubt
    unit = torch.tensor([estimate.scale] * 3 + [1.0] * 3, dtype=torch.float64)
    values, axes = torch.linalg.eigh(covariance / unit / unit[:, None])
    information = axes @ torch.diag(1 / values.clamp_min(_FLOOR)) @ axes.T
    size = torch.tensor([[1 / sizes**2]], dtype=torch.float64)
    return torch.block_diag(size, information / unit / unit[:, None])


def _solve(
    start: _State, prior: Tensor, model: CategoryModel, rays: _Rays
) -> tuple[_State, Tensor] | str:
    """The refined pose and its covariance (6, 6), or why there is none."""
    normals = vertex_normals(model.vertices, model.triangles)
    first = _consensus(start, model, normals, rays)
    if first is None:
        return NO_FIT
    state = start.moved(torch.tensor([first, 0, 0, 0, 0, 0, 0]).double(), 1.0)
    away = torch.zeros(7, dtype=torch.float64)  # of the state from the start
    away[0] = first
    information = prior
    for width in _WIDTHS:
        points, planes, gap = _residuals(state, model, normals, rays)
        residual = (planes * gap).sum(1)
        near = gap.norm(dim=1) < _GATE * state.scale
        if int(near.sum()) < _LEAST:
            return TOO_FEW
        weight = 1 / (1 + (residual / (width * state.scale)).square()).square() * near
        weight *= min(1.0, _INDEPENDENT / float(weight.sum().clamp_min(1e-9)))
        weight /= (_NOISE * state.scale) ** 2
        grown = state.scale / start.scale
        lever = torch.linalg.cross(points - state.translation, planes)
        slope = torch.cat([(planes * points).sum(1, True), grown * planes, lever], 1)
        information = slope.T @ (weight[:, None] * slope) + prior
        gradient = slope.T @ (weight * residual) - prior @ away
        step = torch.linalg.solve(information, gradient)
        state = state.moved(step, grown)
        away = away + step
    _, planes, gap = _residuals(state, model, normals, rays)
    fits = int(((planes * gap).sum(1).abs() < _FITS * state.scale).sum())
    if fits < _LEAST:
        return TOO_FEW
    if fits < _SHARE * len(gap):
        return NO_FIT
    lift = torch.zeros(6, 7, dtype=torch.float64)
    lift[:3, 0], lift[3:, 4:] = state.translation, torch.eye(3).double()
    lift[:3, 1:4] = state.scale / start.scale * torch.eye(3).double()
    return state, lift @ torch.linalg.inv(information) @ lift.T


def _consensus(
    state: _State, model: CategoryModel, normals: Tensor, rays: _Rays
) -> float | None:
    """Logarithm of the scale about the camera on which most rays agree; None: they do not."""
    points, _, gap = _residuals(state, model, normals, rays)
    ratio = (1 + gap[:, 2] / points[:, 2]).log().sort().values
    if len(ratio) < _LEAST:
        return None
    width = _GATE / 2 * state.scale / float(points[:, 2].median())
    end = torch.searchsorted(ratio, ratio + width, right=True)
    count = end - torch.arange(len(ratio))
    best = int(count.argmax())
    if int(count[best]) < max(_LEAST, _SHARE / 2 * len(ratio)):
        return None
    return float(ratio[best : int(end[best])].median())


def _residuals(
    state: _State, model: CategoryModel, normals: Tensor, rays: _Rays
) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the template on the rays that hit it, their normals, and what was measured there.

    Returns:
        Points (M, 3), unit normals (M, 3), and (M, 3) from each point to the measured one; all in
        the camera, m.
    """
    canon_from_cam = state.rotation.T / state.scale
    origin = -canon_from_cam @ state.translation
    directions = rays.direction @ canon_from_cam.T
    first, second, third = model.vertices[model.triangles].unbind(1)
    outwards = torch.linalg.cross(second - first, third - first)
    faces = model.triangles[((origin.float() - first) * outwards).sum(1) > 0]
    if not len(faces):
        nothing = torch.zeros(0, 3, dtype=torch.float64)
        return nothing, nothing, nothing
    depth, triangle, shares = cast_rays(
        origin.float(), directions.float(), model.vertices, faces
    )
    hit = depth.isfinite()
    points = rays.direction[hit] * depth[hit, None].double()
    corners = normals[faces[triangle[hit]]]
    outward = (shares[hit, :, None] * corners).sum(1).double() @ state.rotation.T
    outward = torch.nn.functional.normalize(outward, dim=1)
    gap = rays.direction[hit] * (rays.depth[hit, None] - depth[hit, None].double())
    return points, outward, gap


def _apply(estimate: PoseEstimate, state: _State, covariance: Tensor) -> PoseEstimate:
    """The estimate with a refined pose; the scale of all that belongs to it follows."""
    factor = state.scale / estimate.scale
    doubt = estimate.doubt
    if doubt is not None:
        covariance = covariance.clone()
        covariance[3:, 3:] += doubt
    unit = torch.tensor([factor] * 3 + [1.0] * 3, dtype=torch.float64)
    others = []
    for mode in estimate.alternatives:
        pose, spread = mode.cam_from_canon.clone(), mode.covariance
        pose[:3, 3] *= factor
        others.append(
            PoseMode(
                pose,
                mode.log_weight,
                None if spread is None else spread * unit * unit[:, None],
            )
        )
    before = replace(
        estimate, frames=tuple(frame.scaled(factor) for frame in estimate.frames)
    )
    after = replace(
        before,
        cam_from_canon=from_parts(state.rotation, state.translation),
        scale=state.scale,
        size=estimate.size * factor,
        center=None if estimate.center is None else estimate.center * factor,
        size_sigma=None if estimate.size_sigma is None else estimate.size_sigma * factor,
        covariance=None if estimate.covariance is None else covariance,
        alternatives=tuple(others),
        depth_use=REFINED,
    )
    return replace(after, frames=refit_frames(before, after))
