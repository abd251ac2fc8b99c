"""A small ray caster.

Textures, one soft lamp with shadows, ambient occlusion; anti-aliased, with motion blur.

Needs `embreex` (pip). Every sample of a pixel has its own place in the pixel and its own moment of
the exposure.
"""

from __future__ import annotations

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from demo_models import Array
from demo_scene import Scene

OCCLUSION_REACH = 0.6  # m; nearer surfaces hide the ambient light
NUDGE = 1e-3  # m, off the surface before a second ray starts


class Renderer:
    """Renders one scene; the light on its floor is computed once."""

    def __init__(
        self,
        scene: Scene,
        random: np.random.Generator,
        floor_cells: int = 300,
        floor_samples: int = 12,
    ) -> None:
        self.scene, self.random = scene, random
        self._tree = EmbreeScene()
        TriangleMesh(self._tree, np.ascontiguousarray(scene.triangles.corners, np.float32))
        self._reach = min(scene.floor_half, 2.5)
        self._floor = self._light_floor(floor_cells, floor_samples)

    def frame(
        self, matrix: Array, poses: Array, width: int, height: int, grid: int
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Linear image (H, W, 3) and object mask (H, W).

        matrix (3, 3) px, pixel (0, 0) centred at (0, 0); poses (grid * grid, 4, 4) cam_from_canon,
        one for each sample of the exposure. The mask holds the pixels that the object covers by
        half.
        """
        image, cover = np.zeros((height * width, 3)), np.zeros(height * width)
        v, u = (x.ravel() for x in np.mgrid[:height, :width])
        inverse = np.linalg.inv(matrix)
        for k, pose in enumerate(poses):
            jitter = self.random.uniform(0, 1, (2, len(u)))
            du = (k % grid + jitter[0]) / grid - 0.5
            dv = (k // grid + jitter[1]) / grid - 0.5
            rays = np.stack([u + du, v + dv, np.ones(len(u))], 1) @ inverse.T @ pose[:3, :3]
            rays = (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)
            eye = np.repeat((-pose[:3, :3].T @ pose[:3, 3])[None], len(u), 0).astype(
                np.float32
            )
            colour, inside = self._trace(eye, rays)
            image += colour
            cover += inside
        return (image / len(poses)).reshape(height, width, 3), (cover / len(poses)).reshape(
            height, width
        ) >= 0.5

    def visible(self, eye: Array, points: Array) -> NDArray[np.bool_]:
        """Which points (N, 3) on surfaces are seen from eye (3,)."""
        towards = points - eye
        length = np.linalg.norm(towards, axis=1)
        hit = self._cast(np.repeat(eye[None], len(points), 0), towards / length[:, None])
        return np.asarray(hit["tfar"] > length - 2e-3)

    def _cast(self, origins: Array, directions: Array) -> dict[str, NDArray]:
        result = self._tree.run(
            np.ascontiguousarray(origins, np.float32),
            np.ascontiguousarray(directions, np.float32),
            output=1,
        )
        return {key: np.asarray(value) for key, value in result.items()}

    def _free(
        self, origins: Array, directions: Array, reach: Array | float
    ) -> NDArray[np.bool_]:
        """Whether nothing is within reach (m) along the unit directions (N, 3)."""
        hit = self._cast(origins, directions)
        return np.asarray((hit["primID"] < 0) | (hit["tfar"] > reach))

    def _trace(self, eye: Array, rays: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Colours (N, 3) and whether the object was hit (N,)."""
        soup, scene = self.scene.triangles, self.scene
        hit = self._cast(eye, rays)
        found = hit["primID"] >= 0
        colour = np.tile(scene.sky, (len(rays), 1))
        triangle = hit["primID"][found]
        weight = np.stack([1 - hit["u"] - hit["v"], hit["u"], hit["v"]], 1)[found].astype(
            np.float32
        )[..., None]
        point = (soup.corners[triangle] * weight).sum(1)
        normal = (soup.normals[triangle] * weight).sum(1)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        normal *= -np.sign((normal * rays[found]).sum(1, keepdims=True) - 1e-12)
        albedo, gloss = self._surface(triangle, (soup.uv[triangle] * weight).sum(1))
        target = triangle < scene.object_triangles
        lit, open_ = self._exposure(point, normal, target)
        towards = scene.lamp - point
        towards /= np.linalg.norm(towards, axis=1, keepdims=True)
        direct = lit * np.maximum((normal * towards).sum(1), 0)
        half = towards - rays[found]
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        shine = gloss * lit * np.maximum((normal * half).sum(1), 0) ** 40 * 0.4
        # Light from above is brighter than light from the floor.
        ambient = open_ * (0.75 + 0.25 * normal[:, 2])
        light = direct[:, None] * scene.light * 1.5 + ambient[:, None] * scene.ambient
        colour[found] = albedo * light + shine[:, None] * scene.light
        inside = np.zeros(len(rays), bool)
        inside[found] = target
        return colour, inside

    def _surface(self, triangle: NDArray[np.int64], uv: Array) -> tuple[Array, Array]:
        """Colour (N, 3) and gloss (N,) of the hit materials.

        Textures repeat and are read bilinearly.
        """
        soup = self.scene.triangles
        albedo, gloss = (
            np.zeros((len(triangle), 3), np.float32),
            np.zeros(len(triangle), np.float32),
        )
        material = soup.material[triangle]
        for k in np.unique(material):
            here, surface = material == k, soup.materials[k]
            gloss[here] = surface.gloss
            albedo[here] = (
                surface.colour
                if surface.texture is None
                else _sample(surface.texture, uv[here])
            )
        return albedo, gloss

    def _exposure(
        self, point: Array, normal: Array, target: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """Direct and ambient visibility (N,), (N,) in [0, 1].

        One ray each on the object, the table on the floor.
        """
        lit, open_ = np.ones(len(point)), np.ones(len(point))
        lit[target], open_[target] = self._sampled_light(point[target], normal[target])
        ground = (
            (point[:, 2] < 1e-3) & (np.abs(point[:, :2]).max(1) < self._reach) & ~target
        )
        cell = (point[ground, :2] / self._reach + 1) / 2 * len(self._floor) - 0.5
        table = _bilinear(self._floor, cell[:, 0], cell[:, 1])
        lit[ground], open_[ground] = table[:, 0], table[:, 1]
        return lit, open_

    def _sampled_light(
        self, point: Array, normal: Array, rounds: int = 4
    ) -> tuple[Array, Array]:
        """Direct and ambient visibility (N,), (N,) of points (N, 3) by `rounds` rays each, spread
        by the R2 sequence.
        """
        start = point + normal * NUDGE
        lit, open_ = np.zeros(len(point)), np.zeros(len(point))
        shift = self.random.uniform(0, 1, (2, 2, len(point)))
        for k in range(rounds):
            step = k * np.array([0.7548776662, 0.5698402910])[:, None]
            towards = (
                self.scene.lamp
                + _on_sphere((shift[0] + step) % 1) * self.scene.lamp_radius
                - start
            )
            length = np.linalg.norm(towards, axis=1)
            lit += self._free(start, towards / length[:, None], length)
            cosine = normal + _on_sphere((shift[1] + step) % 1)
            cosine /= np.maximum(np.linalg.norm(cosine, axis=1, keepdims=True), 1e-9)
            open_ += self._free(start, cosine, OCCLUSION_REACH)
        return lit / rounds, open_ / rounds

    def _light_floor(self, cells: int, samples: int) -> Array:
        """(cells, cells, 2) direct and ambient visibility over x, y in [-reach, reach]."""
        axis = ((np.arange(cells) + 0.5) / cells * 2 - 1) * self._reach
        x, y = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
        point = np.stack([x, y, 0 * x], 1)
        up = np.repeat([[0.0, 0.0, 1.0]], len(point), 0)
        total = np.zeros((len(point), 2))
        for _ in range(samples):
            total += np.stack(self._sampled_light(point, up), 1)
        return (total / samples).reshape(cells, cells, 2)


def _on_sphere(place: Array) -> Array:
    """Unit vectors (N, 3), uniform for places (2, N) uniform in the unit square."""
    z, angle = 2 * place[0] - 1, 2 * np.pi * place[1]
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), z], 1)


def _sample(texture: Array, uv: Array) -> Array:
    height, width = texture.shape[:2]
    return _bilinear(texture, (1 - uv[:, 1] % 1) * height - 0.5, uv[:, 0] % 1 * width - 0.5)


def _bilinear(table: Array, row: Array, column: Array) -> Array:
    """Values (N, C) of a table (H, W, C) at fractional places; it repeats."""
    i, j = np.floor(row).astype(int), np.floor(column).astype(int)
    a, b = (row - i)[:, None], (column - j)[:, None]
    h, w = table.shape[:2]
    i, j, k, m = i % h, j % w, (i + 1) % h, (j + 1) % w
    upper = table[i, j] * (1 - b) + table[i, m] * b
    return np.asarray(upper * (1 - a) + (table[k, j] * (1 - b) + table[k, m] * b) * a)
