"""From dense correspondences to poses.

Hypotheses from triples of them, and how well they agree with all of them.

All of it is batched over crops and hypotheses, in tensors whose shapes no value decides, so that a
device is given the work of a whole picture without being waited for. A place of a crop has a ray,
given by its tangents (2,) in a camera that looks at the crop's centre, and for its M likeliest
template vertices their probabilities. A pose maps canonical units into that camera, in object
diameters: x = R X + T.

Source of the triples: Alter, "3-D pose from 3 points using weak-perspective", PAMI 1994.
`refinement` is what follows.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

_NOTHING = -40.0  # logarithm of what counts nothing beside 1
# diameters from the camera to the origin: farther, so that the camera is outside the object
NEAREST = 0.6


@dataclass(frozen=True, eq=False)
class Places:
    """P places of each of B crops that may show the object.

    What fills up the shorter lists comes last, with no probability.
    """

    tangents: Tensor  # (B, P, 2) float32
    # (B, P, M) float32, of being the vertex, among all vertices and clutter
    probability: Tensor
    vertex: Tensor  # (B, P, M) int64
    cell: Tensor  # (B,) float32, distance between neighbouring places, tangents

    @functools.cached_property
    def presence(self) -> Tensor:
        """(B, P) probability that the place shows the object."""
        return self.probability.sum(-1)

    @functools.cached_property
    def count(self) -> Tensor:
        """(B,) int64, places with any probability."""
        return (self.presence > 0).sum(1)

    def some(self, places: int, vertices: int) -> Places:
        """At most so many of the places, evenly chosen, with so many of the likeliest vertices
        each.
        """
        places = min(places, self.tangents.shape[1])
        stride = ((self.count - 1) / max(places - 1, 1)).clamp_min(1)
        order = torch.arange(places, device=stride.device)
        chosen = (
            (order * stride[:, None])
            .round()
            .long()
            .clamp_max(self.tangents.shape[1] - 1)[..., None]
        )
        few = chosen.expand(-1, -1, min(vertices, self.vertex.shape[2]))
        tangents = self.tangents.gather(1, chosen.expand(-1, -1, 2))
        return Places(
            tangents, self.probability.gather(1, few), self.vertex.gather(1, few), self.cell
        )


@dataclass(frozen=True, eq=False)
class Template:
    """A template mesh with a table of what is visible from where."""

    vertices: Tensor  # (V, 3) float32, canonical units
    directions: Tensor  # (D, 3) float32, unit, from the object to the camera
    visible: Tensor  # (D, V) bool
    centre: Tensor  # (3,) of the whole object
    # of an object's longer side in a picture that the template's reaches
    share: float = 1.0

    @functools.cached_property
    def half_turns(self) -> Tensor:
        """Rotations (3, 3, 3) by 180 degrees about its principal axes."""
        centred = self.vertices - self.centre
        axes = torch.linalg.eigh(
            centred.T @ centred
        ).eigenvectors.T  # (3, 3), a row an axis
        return 2 * axes[:, :, None] * axes[:, None] - torch.eye(3, device=axes.device)

    @functools.cached_property
    def shown(self) -> Tensor:
        """(V, D) float32: `visible`, a row a vertex."""
        return self.visible.T.float().contiguous()

    def nearest_direction(self, rotation: Tensor, translation: Tensor) -> Tensor:
        """Rows (...) of the table from which a camera sees it under poses (..., 3, 3), (..., 3)."""
        towards = (
            -(translation[..., None, :] @ rotation)[..., 0, :] - self.centre
        )  # R' (-T) - c
        return (towards @ self.directions.T).argmax(-1)


@functools.lru_cache(maxsize=4)
def _chances(count: int, device: torch.device) -> Tensor:
    """(2, count) of 0..1, the same each time."""
    return torch.rand(2, count, generator=torch.Generator().manual_seed(0)).to(device)


def draw_triples(places: Places, count: int) -> tuple[Tensor, Tensor]:
    """Tangents (B, count, 3, 2) and vertices (B, count, 3) of triples drawn by presence and
    probability, the same each time.
    """
    where, which = _chances(count * 3, places.tangents.device)
    ladder = places.presence.cumsum(1)
    place = torch.searchsorted(ladder, where * ladder[:, -1:]).clamp_(
        max=ladder.shape[1] - 1
    )[..., None]
    steps = places.probability.gather(
        1, place.expand(-1, -1, places.vertex.shape[2])
    ).cumsum(2)
    choice = (
        (steps < which[:, None] * steps[..., -1:]).sum(2).clamp_(max=steps.shape[2] - 1)
    )
    vertex = places.vertex.flatten(1).gather(1, place[..., 0] * steps.shape[2] + choice)
    return places.tangents.gather(1, place.expand(-1, -1, 2)).unflatten(
        1, (count, 3)
    ), vertex.unflatten(1, (count, 3))


def poses_from_triples(image: Tensor, model: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations (B, 2 N, 3, 3) and translations (B, 2 N, 3) of weak perspective through tangents
    (B, N, 3, 2) of points (B, N, 3, 3).

    Two solutions each, mirror images in depth. Degenerate triples give poses that are not finite,
    or no rotations.
    """
    d, r = (
        image[..., 1:, :] - image[..., :1, :],
        model[..., 1:, :] - model[..., :1, :],
    )  # (B, N, 2, 2), (B, N, 2, 3)
    (d00, d01, d11), (r00, r01, r11) = (
        (gram[..., 0, 0], gram[..., 0, 1], gram[..., 1, 1]) for gram in (d @ d.mT, r @ r.mT)
    )
    # heights h over the image plane: h0^2 = s r00 - d00, h1^2 = s r11 - d11, h0 h1 = s r01 - d01
    # with s the squared scale
    a = r00 * r11 - r01 * r01
    b = r00 * d11 + r11 * d00 - 2 * r01 * d01
    c = d00 * d11 - d01 * d01
    s = (b + (b * b - 4 * a * c).clamp_min_(0).sqrt_()) / (2 * a)
    height = torch.stack([s * r00 - d00, s * r11 - d11], -1).clamp_min_(0).sqrt_()
    height[..., 1] *= torch.where(s * r01 < d01, -1.0, 1.0)
    scale = s.sqrt()[..., None]
    edges = (
        torch.cat([d, height[..., None]], -1) / scale[..., None]
    )  # (B, N, 2, 3) in the camera, those of r in the model
    # what maps the one pair of edges to the other, and their normals to each other
    inverse = (
        torch.stack([r11, -r01, -r01, r00], -1).unflatten(-1, (2, 2)) / a[..., None, None]
    )
    flat = edges.mT @ (inverse @ r)
    normal = torch.linalg.cross(edges[..., 0, :], edges[..., 1, :])[..., None]
    flipped = (
        normal
        * (torch.linalg.cross(r[..., 0, :], r[..., 1, :]) / a[..., None])[..., None, :]
    )
    mirror = flat.new_tensor([1.0, 1.0, -1.0])[:, None]
    rotation = torch.stack(
        [flat + flipped, (flat - flipped) * mirror], 1
    )  # (B, 2, N, 3, 3)
    middle, at = model.mean(-2), image.mean(-2)
    # weak perspective measures depth at the points, not at the origin of the canonical frame
    offset = torch.cat([at, torch.ones_like(scale)], -1)[:, None] / scale[:, None]
    translation = offset - (rotation @ middle[:, None, ..., None])[..., 0]
    return rotation.flatten(1, 2), translation.flatten(1, 2)


def orthonormal(matrix: Tensor) -> Tensor:
    """Gram-Schmidt on the columns of nearly orthonormal matrices (..., 3, 3)."""
    x, y = matrix[..., 0], matrix[..., 1]
    x = x / x.norm(dim=-1, keepdim=True)
    y = y - (x * y).sum(-1, keepdim=True) * x
    y = y / y.norm(dim=-1, keepdim=True)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def rate(
    places: Places,
    template: Template,
    rotation: Tensor,
    translation: Tensor,
    width: float,
    floor: float,
) -> Tensor:
    """`agreement` (B, H) of many poses (B, H, 3, 3), (B, H, 3) with few places.

    -inf where the pose is none.

    What the vertices of the places project to is computed for them alone.
    """
    batch, many = rotation.shape[:2]
    vertex = places.vertex.mT.flatten(1)  # (B, M P): sums over M are faster so
    direction = template.nearest_direction(rotation, translation)
    points = torch.baddbmm(
        translation.flatten(1)[..., None],
        rotation.flatten(1, 2),
        template.vertices[vertex].mT,
    )
    points = points.unflatten(1, (many, 3)).unflatten(
        3, places.vertex.mT.shape[1:]
    )  # (B, H, 3, M, P)
    gap = (
        (points[:, :, :2] / points[:, :, 2:].clamp_min(1e-3))
        .sub_(places.tangents.mT[:, None, :, None])
        .square_()
    )
    fit = nearness(
        gap[:, :, 0].add_(gap[:, :, 1]), width * places.cell[:, None, None, None]
    )
    fit *= places.probability.mT[:, None]
    seen = template.shown.index_select(0, vertex.flatten()).mT.reshape(
        -1, vertex.shape[1]
    )  # (D B, M P)
    row = direction * batch + torch.arange(batch, device=vertex.device)[:, None]
    fit *= seen.index_select(0, row.flatten()).view_as(fit)
    score = agreement(fit.mT, places.presence[:, None], floor)
    sound = (translation[..., 2] > NEAREST) & score.isfinite()
    return torch.where(sound, score, -torch.inf)


def nearness(square: Tensor, width: Tensor) -> Tensor:
    """A Gaussian of squared distances, in their place."""
    # exp of what is below the least normal number takes a hundred times as long
    return square.mul_(-0.5 / width.square()).clamp_min_(_NOTHING).exp_()


def agreement(fit: Tensor, presence: Tensor, floor: float) -> Tensor:
    """Mean log likelihood (...), nats, of fits (..., P, M) over places by presence (..., P).

    A fit is a vertex' probability times how near it projects, 0 to 1; what nothing explains costs
    log(floor).
    """
    likely = (fit.sum(-1) / presence.clamp_min(1e-6)).clamp_max_(1)
    return (likely.add_(floor).log_() * presence).sum(-1) / presence.sum(-1).clamp_min(1e-6)


def distinct(
    rotation: Tensor, score: Tensor, apart: float, most: int
) -> tuple[Tensor, Tensor]:
    """Indices (B, most) of the best-scored of rotations (B, H, 3, 3), each `apart` degrees from
    the better ones.

    Beside them whether they are (B, most): where nothing is left, and of those with a score of
    -inf, none is.
    """
    turns, free = rotation.flatten(2), score.clone()
    limit = 1 + 2 * math.cos(math.radians(apart))  # trace of what lies between them
    values, indices = [], []
    for _ in range(most):
        value, index = free.max(1, keepdim=True)
        values.append(value)
        indices.append(index)
        best = torch.take_along_dim(turns, index[..., None], 1)
        free.masked_fill_((turns @ best.mT)[..., 0] > limit, -torch.inf)
    return torch.cat(indices, 1), torch.cat(values, 1) > -torch.inf
