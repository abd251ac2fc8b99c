"""Transforms, projection, similarity fits and distances on SO(3).

Everything is batched over leading dimensions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def transform(b_from_a: Tensor, points: Tensor) -> Tensor:
    """Map points (..., N, 3) from frame a to b by (..., 4, 4) matrices, rigid or similarity."""
    return points @ b_from_a[..., :3, :3].transpose(-1, -2) + b_from_a[..., None, :3, 3]


def from_parts(
    rotation: Tensor, translation: Tensor, scale: Tensor | float = 1.0
) -> Tensor:
    """(..., 4, 4) matrix of x -> scale * rotation @ x + translation.

    Rotation (..., 3, 3), translation (..., 3), scale (...)
    """
    scale = torch.as_tensor(scale, dtype=rotation.dtype, device=rotation.device)
    batch = (
        rotation[..., 0, 0] + translation[..., 0] + scale
    ).shape  # torch.broadcast_shapes imports sympy, for seconds
    matrix = torch.zeros(*batch, 4, 4, dtype=rotation.dtype, device=rotation.device)
    matrix[..., :3, :3] = rotation * scale[..., None, None]
    matrix[..., :3, 3] = translation
    matrix[..., 3, 3] = 1
    return matrix


def split_similarity(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotation (..., 3, 3), translation (..., 3) and scale (...) of similarities (..., 4, 4)."""
    scale = torch.linalg.det(matrix[..., :3, :3]).clamp_min(1e-30) ** (1 / 3)
    return matrix[..., :3, :3] / scale[..., None, None], matrix[..., :3, 3], scale


def invert(matrix: Tensor) -> Tensor:
    """Inverse of similarities (..., 4, 4)."""
    rotation, translation, scale = split_similarity(matrix)
    back = rotation.transpose(-1, -2)
    return from_parts(
        back, -(back @ translation[..., None])[..., 0] / scale[..., None], 1 / scale
    )


def project(matrix: Tensor, points: Tensor) -> Tensor:
    """Project points (..., N, 3) in the camera frame to pixels (..., N, 2), without distortion.

    The camera matrix is (..., 3, 3).
    """
    uvw = points @ matrix.transpose(-1, -2)
    return uvw[..., :2] / uvw[..., 2:].clamp_min(1e-9)


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Angle in degrees (...) of the rotation that takes a (..., 3, 3) to b (..., 3, 3).

    Exact also for small angles.
    """
    chord = torch.linalg.matrix_norm(a - b) / (2 * 2**0.5)
    return torch.rad2deg(2 * torch.asin(chord.clamp(max=1.0)))


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation (..., 3, 3) nearest to a matrix (..., 3, 3) in Frobenius norm."""
    u, _, vh = torch.linalg.svd(matrix)
    sign = torch.ones_like(matrix[..., 0])
    sign[..., 2] = torch.sign(torch.linalg.det(u @ vh))
    return u @ (sign[..., None] * vh)


def rotation_from_vector(vector: Tensor) -> Tensor:
    """Rotation (..., 3, 3) of rotation vectors (..., 3), radians (exponential map)."""
    zero = torch.zeros_like(vector[..., 0])
    x, y, z = vector.unbind(-1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    angle = vector.norm(dim=-1)[..., None, None]
    first, second = (
        torch.sinc(angle / math.pi),
        torch.sinc(angle / (2 * math.pi)).square() / 2,
    )  # Rodrigues, exact at 0 too
    return (
        torch.eye(3, dtype=vector.dtype, device=vector.device)
        + first * cross
        + second * (cross @ cross)
    )


def vector_from_rotation(rotation: Tensor) -> Tensor:
    """Rotation vectors (..., 3), radians, of rotations (..., 3, 3): their logarithm.

    A vector is at most half a turn long.
    """
    w, axis = matrix_to_quaternion(rotation).split([1, 3], -1)
    sine = axis.norm(dim=-1, keepdim=True)
    return axis * torch.where(
        sine > 1e-9, 2 * torch.atan2(sine, w) / sine.clamp_min(1e-9), 2 / w
    )


def fit_similarity(
    source: Tensor, target: Tensor, weight: Tensor | None = None, with_scale: bool = True
) -> Tensor:
    """Fit the similarity between two sets of points by least squares (Umeyama, PAMI 1991).

    Args:
        source: Points (..., N, 3).
        target: Points (..., N, 3).
        weight: Weights (..., N); None: all points weigh the same.
        with_scale: Fit the scale too.

    Returns:
        target_from_source (..., 4, 4); its scale is 0 if all points are equal.
    """
    if weight is None:
        weight = torch.ones_like(source[..., 0])
    weight = (weight / weight.sum(-1, keepdim=True).clamp_min(1e-30))[..., None]
    source_mean, target_mean = (weight * source).sum(-2), (weight * target).sum(-2)
    a, b = source - source_mean[..., None, :], target - target_mean[..., None, :]
    u, s, vh = torch.linalg.svd((weight * b).transpose(-1, -2) @ a)
    sign = torch.ones_like(s)
    sign[..., 2] = torch.sign(torch.linalg.det(u) * torch.linalg.det(vh))
    rotation = u @ (sign[..., None] * vh)
    scale = torch.ones_like(s[..., 0])
    if with_scale:
        scale = (s * sign).sum(-1) / (weight * a * a).sum((-1, -2)).clamp_min(1e-30)
    translation = (
        target_mean - scale[..., None] * (rotation @ source_mean[..., None])[..., 0]
    )
    return from_parts(rotation, translation, scale)


def random_rotations(count: int, generator: torch.Generator) -> Tensor:
    """Rotations (count, 3, 3) float64, uniform on SO(3)."""
    return quaternion_to_matrix(
        torch.randn(count, 4, generator=generator, dtype=torch.float64)
    )


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Rotations (..., 3, 3) of quaternions (..., 4), w x y z, of any length but zero."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - z * w),
        2 * (x * z + y * w),
        2 * (x * y + z * w),
        1 - 2 * (x * x + z * z),
        2 * (y * z - x * w),
        2 * (x * z - y * w),
        2 * (y * z + x * w),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions (..., 4) in the order w x y z with w >= 0 of rotations (..., 3, 3).

    Each of the four products of the quaternion with one of its entries is read off the matrix; the
    longest is exact.
    """
    r = rotation.flatten(-2)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = r.unbind(-1)
    rows = [
        1 + xx + yy + zz,
        zy - yz,
        xz - zx,
        yx - xy,
        zy - yz,
        1 + xx - yy - zz,
        xy + yx,
        xz + zx,
        xz - zx,
        xy + yx,
        1 - xx + yy - zz,
        yz + zy,
        yx - xy,
        xz + zx,
        yz + zy,
        1 - xx - yy + zz,
    ]
    candidates = torch.stack(rows, -1).unflatten(-1, (4, 4))
    best = candidates.norm(dim=-1).argmax(-1)
    quaternion = torch.take_along_dim(candidates, best[..., None, None], -2)[..., 0, :]
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def symmetry_rotations(order: int, axis: Tensor, steps: int = 36) -> Tensor:
    """The group's rotations (G, 3, 3) about axis (3,).

    A continuous one (order 0) is sampled in `steps` equal turns.
    """
    count = steps if order == 0 else max(order, 1)
    turns = torch.arange(count, dtype=axis.dtype, device=axis.device) * (
        2 * torch.pi / count
    )
    return rotation_from_vector(turns[:, None] * (axis / axis.norm()))


def look_at_rotation(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rotations (N, 3, 3) that rotate directions (N, 3) onto z."""
    z = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    z0, z1, z2 = z.T
    zero, steep = np.zeros_like(z0), np.abs(z1) > 0.9
    # the cross product of y, or of -z, with the direction; np.cross takes ten times as long
    x = np.stack(
        [np.where(steep, z1, z2), np.where(steep, -z0, zero), np.where(steep, zero, -z0)], 1
    )
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x0, x1, x2 = x.T
    y = np.stack([z1 * x2 - z2 * x1, z2 * x0 - z0 * x2, z0 * x1 - z1 * x0], 1)
    return np.stack([x, y, z], 1)


def nearest_equivalent(
    rotation: Tensor, wanted: Tensor, order: int, axis: Tensor
) -> Tensor:
    """The rotations that are nearest to others, among those that symmetry makes equal.

    For a continuous symmetry, the turn about the axis that maximizes the trace is exact.

    Args:
        rotation: Rotations (..., 3, 3) from the canonical frame.
        wanted: Rotations (..., 3, 3) to be near to.
        order: Order of the symmetry.
        axis: Axis (3,) of the symmetry.

    Returns:
        Rotations (..., 3, 3) from the canonical frame.
    """
    if order == 1:
        return rotation.expand((rotation + wanted).shape)
    if order == 0:
        unit = axis / axis.norm()
        between = rotation.transpose(-1, -2) @ wanted
        skew = between - between.transpose(-1, -2)
        sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1) @ unit
        cosine = between.diagonal(dim1=-2, dim2=-1).sum(-1) - (between @ unit) @ unit
        return rotation @ rotation_from_vector(torch.atan2(sine, cosine)[..., None] * unit)
    turned = rotation[..., None, :, :] @ symmetry_rotations(order, axis)
    best = angle_between(turned, wanted[..., None, :, :]).argmin(-1)
    turned = turned.expand(*best.shape, *turned.shape[-3:])
    return torch.take_along_dim(turned, best[..., None, None, None], -3)[..., 0, :, :]


def sphere(count: int) -> Tensor:
    """Unit vectors (count, 3) spread evenly over the sphere (golden spiral)."""
    step = torch.arange(count, dtype=torch.float32) + 0.5
    return golden_spiral(1 - 2 * step / count)


def golden_spiral(height: Tensor) -> Tensor:
    """Unit vectors (N, 3) at heights z (N,), each turned about z by the golden angle from the last.

    Evenly spaced heights spread the vectors evenly (a Fibonacci lattice).
    """
    step = torch.arange(len(height), dtype=height.dtype) + 0.5
    azimuth = step * (torch.pi * (3 - 5**0.5))
    radius = (1 - height * height).sqrt()
    return torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), height], -1)
