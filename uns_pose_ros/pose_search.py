"""From dense correspondences to poses: hypotheses from triples, their agreement with all places, refinement, uncertainty.

All of it is batched tensor arithmetic on one device. A place i of the picture has a ray, given by its tangents (2,) in a camera
that looks at the object, and for its M likeliest template vertices their probabilities. A pose maps canonical units into that
camera, in object diameters: x = R X + T.

Source of the triples: Alter, "3-D pose from 3 points using weak-perspective", PAMI 1994. The rest is expectation maximisation:
each place belongs to its likely vertices where they project close to it, or to nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.geometry import rotation_from_vector

_NOTHING = -40.0  # logarithm of what counts nothing beside 1
NEAREST = 0.6  # diameters from the camera to the origin: farther, so that the camera is outside the object


@dataclass(frozen=True, eq=False)
class Places:
    """P places of one picture that may show the object."""

    tangents: Tensor  # (P, 2) float32
    probability: Tensor  # (P, M) float32, of being the vertex, among all vertices and clutter
    vertex: Tensor  # (P, M) int64
    cell: float  # distance between neighbouring places, tangents

    @property
    def presence(self) -> Tensor:
        """(P,) probability that the place shows the object."""
        return self.probability.sum(1)

    def some(self, places: int, vertices: int) -> Places:
        """At most so many of the places, evenly chosen, with so many of the likeliest vertices each."""
        count = len(self.tangents)
        chosen = torch.linspace(0, count - 1, min(places, count), device=self.tangents.device).round().long()
        return Places(self.tangents[chosen], self.probability[chosen, :vertices], self.vertex[chosen, :vertices], self.cell)


@dataclass(frozen=True, eq=False)
class Template:
    """A template mesh with a table of what is visible from where."""

    vertices: Tensor  # (V, 3) float32, canonical units
    directions: Tensor  # (D, 3) float32, unit, from the object to the camera
    visible: Tensor  # (D, V) bool
    centre: Tensor  # (3,) of the whole object
    share: float = 1.0  # of an object's longer side in a picture that the template's reaches

    def part(self, vertices: Tensor) -> Template:
        """The template with only the vertices of these numbers (N,)."""
        return Template(self.vertices[vertices], self.directions, self.visible[:, vertices], self.centre, self.share)

    def seen_from(self, rotation: Tensor, translation: Tensor) -> Tensor:
        """(H, V) bool: what poses (H, 3, 3), (H, 3) show of the template, by the nearest of the table's directions."""
        towards = -(translation[:, None] @ rotation)[:, 0] - self.centre  # R' (-T) - c
        return self.visible[(towards @ self.directions.T).argmax(-1)]


def draw_triples(places: Places, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places (count, 3) and vertices (count, 3), drawn by presence and probability."""
    device = places.tangents.device
    uniform = torch.rand(2, count * 3, generator=generator).to(device)
    ladder = places.presence.cumsum(0)
    place = torch.searchsorted(ladder, uniform[0] * ladder[-1]).clamp_(max=len(ladder) - 1)
    steps = places.probability[place].cumsum(1)
    choice = (steps < uniform[1, :, None] * steps[:, -1:]).sum(1).clamp_(max=steps.shape[1] - 1)
    vertex = places.vertex[place, choice]
    return place.view(count, 3), vertex.view(count, 3)


def poses_from_triples(image: Tensor, model: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations (2 N, 3, 3) and translations (2 N, 3) of weak perspective through tangents (N, 3, 2) of points (N, 3, 3).

    Two solutions each, mirror images in depth. Degenerate triples give poses that are not finite.
    """
    d, r = image[:, 1:] - image[:, :1], model[:, 1:] - model[:, :1]  # (N, 2, 2), (N, 2, 3)
    d_square, r_square = (d * d).sum(-1), (r * r).sum(-1)
    d_dot, r_dot = (d[:, 0] * d[:, 1]).sum(-1), (r[:, 0] * r[:, 1]).sum(-1)
    # heights h over the image plane: h0^2 = s r00 - d00, h1^2 = s r11 - d11, h0 h1 = s r01 - d01 with s the squared scale
    a = r_square.prod(-1) - r_dot**2
    b = r_square[:, 0] * d_square[:, 1] + r_square[:, 1] * d_square[:, 0] - 2 * r_dot * d_dot
    c = d_square.prod(-1) - d_dot**2
    s = (b + (b * b - 4 * a * c).clamp_min(0).sqrt()) / (2 * a)
    height = (s[:, None] * r_square - d_square).clamp_min(0).sqrt()
    height[:, 1] = torch.where(s * r_dot - d_dot < 0, -height[:, 1], height[:, 1])
    scale = s.sqrt()
    rotations, translations = [], []
    frame = torch.linalg.inv_ex(_frame(r[:, 0], r[:, 1]))[0]
    for sign in (1.0, -1.0):
        edge = torch.cat([d, sign * height[..., None]], -1) / scale[:, None, None]
        rotation = _orthonormal(_frame(edge[:, 0], edge[:, 1]) @ frame)
        centre = (rotation @ model.mean(1)[..., None])[..., 0]
        at = image.mean(1)
        translations.append(torch.cat([at - scale[:, None] * centre[:, :2], torch.ones_like(at[:, :1])], 1) / scale[:, None])
        rotations.append(rotation)
    rotation, translation = torch.cat(rotations), torch.cat(translations)
    # weak perspective measures depth at the points, not at the origin of the canonical frame
    depth = (rotation @ model.mean(1).repeat(2, 1)[..., None])[:, 2, 0]
    translation = torch.cat([translation[:, :2], translation[:, 2:] - depth[:, None]], 1)
    return rotation, translation


def _frame(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b, torch.linalg.cross(a, b)], -1)


def _orthonormal(matrix: Tensor) -> Tensor:
    """Gram-Schmidt on the columns of nearly orthonormal matrices (N, 3, 3)."""
    x, y, _ = matrix.unbind(-1)
    x = x / x.norm(dim=-1, keepdim=True)
    y = y - (x * y).sum(-1, keepdim=True) * x
    y = y / y.norm(dim=-1, keepdim=True)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def project_template(template: Template, rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
    """Tangents (H, 2, V) of all vertices, and in the camera (H, 3, V), under poses (H, 3, 3), (H, 3)."""
    points = torch.addmm(translation.reshape(-1, 1), rotation.reshape(-1, 3), template.vertices.T).view(len(rotation), 3, -1)
    return points[:, :2] / points[:, 2:].clamp_min(1e-3), points


def kernel(places: Places, template: Template, rotation: Tensor, translation: Tensor, width: float) -> Tensor:
    """How well each place's vertices fit H poses, (H, P, M): probability times a Gaussian of `width` cells around the place.

    Vertices on the far side count nothing.
    """
    tangents, _ = project_template(template, rotation, translation)
    return _fit(places, torch.where(template.seen_from(rotation, translation)[:, None], tangents, 1e6), width)


def _fit(places: Places, tangents: Tensor, width: float) -> Tensor:
    """`kernel` of tangents (H, 2, V)."""
    flat = places.vertex.reshape(-1)
    x, y = (plane.index_select(1, flat).unflatten(1, places.vertex.shape) for plane in tangents.unbind(1))
    square = x.sub_(places.tangents[:, :1]).square_().add_(y.sub_(places.tangents[:, 1:]).square_())
    # exp of what is below the least normal number takes a hundred times as long
    exponent = square.mul_(-0.5 / (width * places.cell) ** 2).clamp_min_(_NOTHING)
    return exponent.exp_().mul_(places.probability)


def agreement(fit: Tensor, places: Places, floor: float) -> Tensor:
    """Mean log likelihood (H,), nats, over places by presence, of `kernel`'s values; what nothing explains costs log(floor)."""
    likely = (fit.sum(-1) / places.presence.clamp_min(1e-6)).clamp_max(1)
    return ((likely + floor).log() * places.presence).sum(-1) / places.presence.sum().clamp_min(1e-6)


def refine(
    places: Places, template: Template, rotation: Tensor, translation: Tensor, widths: tuple[float, ...], floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Poses after one Gauss-Newton step for each width (cells), full perspective, and the last information matrix (H, 6, 6).

    Its order is translation (diameters), rotation about the camera's axes (rad).
    """
    information, presence = torch.eye(6).expand(len(rotation), 6, 6), places.presence[:, None]
    for width in widths:
        tangents, points = project_template(template, rotation, translation)
        seen = template.seen_from(rotation, translation)[:, None]
        fit = _fit(places, torch.where(seen, tangents, 1e6), width)
        weight = fit / (fit.sum(-1, keepdim=True) + floor * presence)  # share of the place that is a vertex
        weight = weight * presence
        # gather each vertex's total weight and weighted mean place: sums over places are linear in the residual
        values = torch.stack([weight, weight * places.tangents[:, :1], weight * places.tangents[:, 1:]], 1).flatten(2)
        sums = torch.zeros(len(rotation), 3, len(template.vertices), device=rotation.device)
        sums.index_add_(2, places.vertex.reshape(-1), values)
        total = sums[:, :1]
        residual = sums[:, 1:] / total.clamp_min(1e-9) - tangents  # (H, 2, V)
        plain = _jacobian(tangents, points, translation)
        weighted = (plain * total[:, None]).flatten(2)
        information = weighted @ plain.flatten(2).mT
        gradient = (weighted @ residual.flatten(1)[..., None])[..., 0]
        damping = 1e-4 * torch.diagonal(information, dim1=-2, dim2=-1).clamp_min(1e-9)
        step = torch.linalg.solve_ex(information + torch.diag_embed(damping), gradient)[0]
        step = torch.nan_to_num(step)
        step = step * (0.5 / step[:, 3:].norm(dim=-1, keepdim=True).clamp_min(0.5))  # at most half a radian
        rotation = rotation_from_vector(step[:, 3:]) @ rotation
        translation = translation + step[:, :3]
        translation = torch.cat([translation[:, :2], translation[:, 2:].clamp_min(NEAREST)], 1)
    return rotation, translation, information


def _jacobian(tangents: Tensor, points: Tensor, translation: Tensor) -> Tensor:
    """(H, 6, 2, V): how tangents (H, 2, V) of points (H, 3, V) change with translation, and rotation about its end."""
    inverse = 1 / points[:, 2].clamp_min(1e-3)
    u, v = (tangents * inverse[:, None]).unbind(1)  # the motion along z
    x, y, z = (points - translation[..., None]).unbind(1)
    zero = torch.zeros_like(inverse)
    of_u = [inverse, zero, -u, -y * u, z * inverse + x * u, -y * inverse]
    of_v = [zero, inverse, -v, -z * inverse - y * v, x * v, x * inverse]
    return torch.stack([row for pair in zip(of_u, of_v, strict=True) for row in pair], 1).unflatten(1, (6, 2))


def half_turns(template: Template, rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
    """Poses (3 H, 3, 3), (3 H, 3): each given one after half a turn about each principal axis of the template."""
    centre = template.centre
    centred = template.vertices - centre
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.T  # (3, 3), a row an axis
    turns = 2 * axes[:, :, None] * axes[:, None] - torch.eye(3, device=axes.device)
    turned = rotation[:, None] @ turns
    moved = translation[:, None] + ((rotation[:, None] - turned) @ centre)
    return turned.flatten(0, 1), moved.flatten(0, 1)


def distinct(rotation: Tensor, score: Tensor, apart: float, most: int) -> Tensor:
    """Indices of the best-scored rotations (H, 3, 3), each `apart` degrees from the better ones, at most `most`."""
    turns, free = rotation.flatten(1).cpu().numpy(), score.cpu().numpy().copy()
    limit = 1 + 2 * math.cos(math.radians(apart))  # trace of what lies between them
    chosen: list[int] = []
    for _ in range(most):
        best = int(free.argmax())
        if chosen and not np.isfinite(free[best]):
            break
        chosen.append(best)
        free[turns @ turns[best] > limit] = -np.inf
    return torch.tensor(chosen, device=rotation.device)
