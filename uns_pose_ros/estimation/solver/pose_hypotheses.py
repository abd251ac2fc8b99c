"""Pose hypotheses from triples of correspondences, and their scores.

All functions work on batches of crops and hypotheses. No value decides the shape of a tensor, so
that a device gets the work of a whole image and the processor does not wait for it.

A cell of a crop has a ray, given by its tangents (2,) in a camera that looks at the crop's center,
and the probabilities of its M most probable template vertices. A pose maps canonical units into
that camera, in object diameters: x = R X + T.

Source of the triples: Alter, "3-D pose from 3 points using weak-perspective", PAMI 1994.
`pose_refinement` is the next step.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

_MIN_LOG = -40.0  # logarithm of a likelihood that is negligible beside 1
# number of independent cells in an image, for the weights of poses against each other
INDEPENDENT_CELLS = 12.0
# diameters, smallest distance from the camera to the origin: the camera is outside the object
NEAREST = 0.6


@dataclass(frozen=True, eq=False)
class Correspondences:
    """P cells of each of B crops that may show the object, with their template vertices.

    Crops with fewer cells are padded at the end with cells of probability 0.
    """

    tangents: Tensor  # (B, P, 2) float32
    # (B, P, M) float32, probability of the vertex among all vertices and the background
    probability: Tensor
    vertex: Tensor  # (B, P, M) int64
    cell: Tensor  # (B,) float32, distance between neighboring cells, tangents

    @functools.cached_property
    def presence(self) -> Tensor:
        """(B, P) probability that the cell shows the object."""
        return self.probability.sum(-1)

    @functools.cached_property
    def count(self) -> Tensor:
        """(B,) int64, number of cells with a probability above 0."""
        return (self.presence > 0).sum(1)

    def subset(self, cells: int, vertices: int) -> Correspondences:
        """Choose cells evenly.

        Args:
            cells: Largest number of cells for each crop.
            vertices: Largest number of vertices for each cell; the most probable ones are kept.
        """
        cells = min(cells, self.tangents.shape[1])
        stride = ((self.count - 1) / max(cells - 1, 1)).clamp_min(1)
        order = torch.arange(cells, device=stride.device)
        chosen = (
            (order * stride[:, None])
            .round()
            .long()
            .clamp_max(self.tangents.shape[1] - 1)[..., None]
        )
        few = chosen.expand(-1, -1, min(vertices, self.vertex.shape[2]))
        tangents = self.tangents.gather(1, chosen.expand(-1, -1, 2))
        return Correspondences(
            tangents, self.probability.gather(1, few), self.vertex.gather(1, few), self.cell
        )


@dataclass(frozen=True, eq=False)
class Template:
    """A template mesh with a table of the vertices that are visible from each direction."""

    vertices: Tensor  # (V, 3) float32, canonical units
    directions: Tensor  # (D, 3) float32, unit, from the object to the camera
    visible: Tensor  # (D, V) bool
    center: Tensor  # (3,) of the whole object
    # length of the template, as a share of the longer side of an object in an image
    share: float = 1.0
    symmetry_order: int = 1
    symmetry_axis: Tensor = field(  # (3,) float32
        default_factory=lambda: torch.tensor([0.0, 0.0, 1.0])
    )

    @functools.cached_property
    def half_turns(self) -> Tensor:
        """Rotations (3, 3, 3) by 180 degrees about the principal axes."""
        centered = self.vertices - self.center
        axes = torch.linalg.eigh(
            centered.T @ centered
        ).eigenvectors.T  # (3, 3), one axis for each row
        return 2 * axes[:, :, None] * axes[:, None] - torch.eye(3, device=axes.device)

    @functools.cached_property
    def shown(self) -> Tensor:
        """(V, D) float32: `visible` with one row for each vertex."""
        return self.visible.T.float().contiguous()

    @functools.cached_property
    def monomials(self) -> Tensor:
        """(V, 13) monomials of each vertex X: 1, X, X X'."""
        outer = (self.vertices[:, :, None] * self.vertices[:, None]).flatten(1)
        return torch.cat([torch.ones_like(outer[:, :1]), self.vertices, outer], 1)

    @functools.cached_property
    def _center_along(self) -> Tensor:
        """(D,) position of the center along each direction."""
        return self.directions @ self.center

    def nearest_direction(self, rotation: Tensor, translation: Tensor) -> Tensor:
        """Return the rows (...) of `directions` nearest to a camera.

        Args:
            rotation: (..., 3, 3).
            translation: (..., 3), diameters.
        """
        away = (translation[..., None, :] @ rotation)[..., 0, :]  # R' T
        farness = away @ self.directions.T + self._center_along
        if farness.device.type == "cpu":  # NumPy takes a tenth of the time
            return torch.from_numpy(farness.detach().numpy().argmin(-1))
        return farness.argmin(-1)


@functools.lru_cache(maxsize=4)
def _random_numbers(count: int, device: torch.device) -> Tensor:
    """Return random numbers (2, count) from 0 to 1, the same for each call."""
    return torch.rand(2, count, generator=torch.Generator().manual_seed(0)).to(device)


def draw_triples(correspondences: Correspondences, count: int) -> tuple[Tensor, Tensor]:
    """Draw triples of correspondences, the same for each call.

    A cell is drawn with its presence, one of its vertices with its probability.

    Returns:
        Tangents (B, count, 3, 2) and vertices (B, count, 3).
    """
    where, which = _random_numbers(count * 3, correspondences.tangents.device)
    ladder = correspondences.presence.cumsum(1)
    place = torch.searchsorted(ladder, where * ladder[:, -1:]).clamp_(
        max=ladder.shape[1] - 1
    )[..., None]
    steps = correspondences.probability.gather(
        1, place.expand(-1, -1, correspondences.vertex.shape[2])
    ).cumsum(2)
    choice = (
        (steps < which[:, None] * steps[..., -1:]).sum(2).clamp_(max=steps.shape[2] - 1)
    )
    vertex = correspondences.vertex.flatten(1).gather(
        1, place[..., 0] * steps.shape[2] + choice
    )
    return correspondences.tangents.gather(1, place.expand(-1, -1, 2)).unflatten(
        1, (count, 3)
    ), vertex.unflatten(1, (count, 3))


def poses_from_triples(image: Tensor, model: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the two weak-perspective poses of each triple; they are mirror images in depth.

    Degenerate triples give poses that are not finite or whose matrices are not rotations.

    Let d0, d1 be the edges of the triple in the image and r0, r1 those in the model, and s the
    squared scale. The edges have heights h0, h1 over the image plane:

        (1)  h0^2 = s r00 - d00,  h1^2 = s r11 - d11,  h0 h1 = s r01 - d01
        (2)  a s^2 - b s + c = 0, from h0^2 h1^2 = (h0 h1)^2

    where r01 = r0 . r1 and so on. The larger root of (2) is the scale.

    Args:
        image: Tangents (B, N, 3, 2).
        model: Points (B, N, 3, 3) of the template.

    Returns:
        Rotations (B, 2 N, 3, 3) and translations (B, 2 N, 3), diameters.
    """
    d = image[..., 1:, :] - image[..., :1, :]  # (B, N, 2, 2)
    r = model[..., 1:, :] - model[..., :1, :]  # (B, N, 2, 3)
    d00, d01, d11 = _gram(d)
    r00, r01, r11 = _gram(r)
    a = r00 * r11 - r01 * r01
    b = r00 * d11 + r11 * d00 - 2 * r01 * d01
    c = d00 * d11 - d01 * d01
    s = (b + (b * b - 4 * a * c).clamp_min_(0).sqrt_()) / (2 * a)
    height = torch.stack([s * r00 - d00, s * r11 - d11], -1).clamp_min_(0).sqrt_()
    height[..., 1] *= torch.where(s * r01 < d01, -1.0, 1.0)
    scale = s.sqrt()[..., None]
    # (B, N, 2, 3), edges in the camera; those in the model are r
    edges = torch.cat([d, height[..., None]], -1) / scale[..., None]
    # the rotation maps r to the edges, and the normal of r to their normal
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


def leave_out_behind(rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out poses that are not valid, as far as no crop needs them as padding.

    Their number decides the shape of the result, which a device would have to wait for: only on
    the CPU.

    Args:
        rotation: (B, H, 3, 3).
        translation: (B, H, 3), diameters.
    """
    behind = ~(translation[..., 2] > NEAREST)
    most = max(1, int((~behind).sum(1).max()))
    order = behind.to(torch.uint8).argsort(stable=True, dim=1)[:, :most]
    return (
        rotation.take_along_dim(order[..., None, None], 1),
        translation.take_along_dim(order[..., None], 1),
    )


def _gram(edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the products e0.e0, e0.e1, e1.e1 (...) of two edges (..., 2, n)."""
    gram = edges @ edges.mT
    return gram[..., 0, 0], gram[..., 0, 1], gram[..., 1, 1]


def orthonormalize(matrix: Tensor) -> Tensor:
    """Apply Gram-Schmidt to the columns of nearly orthonormal matrices (..., 3, 3)."""
    x, y = matrix[..., 0], matrix[..., 1]
    x = x / x.norm(dim=-1, keepdim=True)
    y = y - (x * y).sum(-1, keepdim=True) * x
    y = y / y.norm(dim=-1, keepdim=True)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def score_hypotheses(
    correspondences: Correspondences,
    template: Template,
    rotation: Tensor,
    translation: Tensor,
    width: float,
    floor: float,
) -> Tensor:
    """Score many poses with few correspondences.

    Only the vertices of the correspondences are projected.

    Args:
        correspondences: Of B crops.
        template: The template.
        rotation: (B, H, 3, 3).
        translation: (B, H, 3), diameters.
        width: Standard deviation of a correspondence, cells.
        floor: Likelihood of a cell that a pose does not explain.

    Returns:
        `log_likelihood` (B, H); -inf for a pose that is not valid.
    """
    batch, many = rotation.shape[:2]
    vertex = correspondences.vertex.mT.flatten(
        1
    )  # (B, M P): sums over M are faster in this order
    direction = template.nearest_direction(rotation, translation)
    points = torch.baddbmm(
        translation.flatten(1)[..., None],
        rotation.flatten(1, 2),
        template.vertices[vertex].mT,
    )
    points = points.unflatten(1, (many, 3)).unflatten(
        3, correspondences.vertex.mT.shape[1:]
    )  # (B, H, 3, M, P)
    gap = (
        (points[:, :, :2] / points[:, :, 2:].clamp_min(1e-3))
        .sub_(correspondences.tangents.mT[:, None, :, None])
        .square_()
    )
    fit = gaussian_likelihood(
        gap[:, :, 0].add_(gap[:, :, 1]), width * correspondences.cell[:, None, None, None]
    )
    fit *= correspondences.probability.mT[:, None]
    seen = template.shown.index_select(0, vertex.flatten()).mT.reshape(
        -1, vertex.shape[1]
    )  # (D B, M P)
    row = direction * batch + torch.arange(batch, device=vertex.device)[:, None]
    fit *= seen.index_select(0, row.flatten()).view_as(fit)
    score = log_likelihood(fit.mT, correspondences.presence[:, None], floor)
    valid = (translation[..., 2] > NEAREST) & score.isfinite()
    return torch.where(valid, score, -torch.inf)


def gaussian_likelihood(square: Tensor, width: Tensor) -> Tensor:
    """Replace squared distances by a Gaussian of standard deviation `width`, in place."""
    # exp takes 100 times as long if its result is below the smallest normal number
    return square.mul_(-0.5 / width.square()).clamp_min_(_MIN_LOG).exp_()


def log_likelihood(fit: Tensor, presence: Tensor, floor: float) -> Tensor:
    """Compute the mean log likelihood of poses over cells, weighted with the presence.

    Args:
        fit: (..., P, M) probability of each vertex times the Gaussian of its distance, 0 to 1.
        presence: (..., P) probability that the cell shows the object.
        floor: Likelihood of a cell that the pose does not explain.

    Returns:
        (...) nats.
    """
    likely = (fit.sum(-1) / presence.clamp_min(1e-6)).clamp_max_(1)
    return (likely.add_(floor).log_() * presence).sum(-1) / presence.sum(-1).clamp_min(1e-6)


def rotation_nms(
    rotation: Tensor, score: Tensor, separation: float, most: int
) -> tuple[Tensor, Tensor]:
    """Select the rotations with the best scores, with a least angle between them.

    Args:
        rotation: (B, H, 3, 3).
        score: (B, H); -inf for rotations that are never selected.
        separation: Smallest angle between a rotation and each better one, degrees.
        most: Largest number of rotations for each crop.

    Returns:
        Indices (B, most), best first, and whether each of them is valid (B, most).
    """
    turns, free = rotation.flatten(2), score.clone()
    limit = 1 + 2 * math.cos(math.radians(separation))  # trace of the rotation between two
    crop = torch.arange(len(turns), device=turns.device)
    values, indices = [], []
    for _ in range(most):
        value, index = free.max(1)
        values.append(value)
        indices.append(index)
        best = turns[crop, index].unsqueeze_(2)
        free.masked_fill_(torch.bmm(turns, best).squeeze_(2) > limit, -torch.inf)
    return torch.stack(indices, 1), torch.stack(values, 1) > -torch.inf
