"""Rooms and gardens to film in.

A textured floor, walls with pictures or a far photograph, furniture, a light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import skimage.data

from demo_models import Array, Library, Material, Triangles, faceted, joined, linear

# Photographs inside the scikit-image wheel whose documentation says CC0 or public domain.
PICTURES = ("astronaut", "chelsea", "coffee", "rocket")
PLAIN = {
    "brick": skimage.data.brick,
    "grass": skimage.data.grass,
    "gravel": skimage.data.gravel,
}
FURNITURE = (
    "bookcase",
    "cupboard",
    "plant",
    "decorativePlant",
    "verticalShelves",
    "televisionCabinet",
    "barrel",
    "crate",
    "electricGuitar",
    "radiator2",
    "oakTable",
    "desk",
    "couch2",
    "speaker3",
    "tableWithTablecloth",
    "fireExtinguisher",
)
WOODS = (
    "oakChair/oak.jpg",
    "chairWithCushion/Wood_013_COLOR.jpg",
    "antiqueChair/cherry.jpg",
    "televisionCabinet/wood9.jpg",
)
CLOTHS = (
    "chairWithCushion/Denim_001_COLOR.jpg",
    "couch2/Fabric_011_COLOR.jpg",
    "chair/tecido.jpg",
)


@dataclass(frozen=True)
class Scene:
    """All triangles, the object's first; lamp: a glowing disc; light and ambient: linear RGB."""

    triangles: Triangles
    object_triangles: int
    floor_half: float  # m, the floor reaches from -half to half
    lamp: Array  # (3,) m
    lamp_radius: float  # m
    light: Array  # (3,)
    ambient: Array  # (3,)
    sky: Array  # (3,) where no triangle is


def build(library: Library, name: str, random: np.random.Generator) -> Scene:
    """The named model at the origin, front along +x, in a random place (indoors seven times of
    ten).
    """
    target = library.load(name)
    indoors = random.random() < 0.7
    parts = _room(library, random) if indoors else _garden(random)
    turn = random.uniform(0, 2 * np.pi)
    around = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    around = around.astype(np.float32)
    shift = np.array([*random.uniform(-0.4, 0.4, 2), 0], np.float32)
    surroundings = joined(parts).moved(around, shift)
    warm = random.uniform(-0.08, 0.12)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    away, bearing = random.uniform(0.5, 1.6), random.uniform(0, 2 * np.pi)
    lamp = np.array([away * np.cos(bearing), away * np.sin(bearing), 2.4]) * (
        1.0 if indoors else 4.0
    )
    light = random.uniform(0.55, 0.8)
    return Scene(
        joined([target, surroundings]),
        len(target.corners),
        3.6 if indoors else 14.0,
        lamp.astype(np.float32),
        random.uniform(0.25, 0.5) if indoors else 0.6,
        (light * tint).astype(np.float32),
        ((1.05 - light) * np.ones(3)).astype(np.float32),
        np.array([0.75, 0.85, 1.0], np.float32),
    )


def _tile(texture: Array, tint: Array) -> Material:
    return Material(tint.astype(np.float32), (texture * tint).clip(0, 1).astype(np.float32))


def _grey(name: str, tint: Array) -> Material:
    image = linear(PLAIN[name]())
    image = image / image.mean() * 0.28
    return _tile(np.repeat(image[..., None], 3, 2), tint)


def _quad(
    origin: Array, a: Array, b: Array, repeat: tuple[float, float], material: Material
) -> Triangles:
    """The parallelogram origin, origin + a, origin + a + b, origin + b.

    The texture repeats along a and b.
    """
    p = np.stack([origin, origin + a, origin + a + b, origin + b])
    t = np.array([[0, 0], [repeat[0], 0], list(repeat), [0, repeat[1]]])
    return faceted(p[[[0, 1, 2], [0, 2, 3]]], t[[[0, 1, 2], [0, 2, 3]]], material)


def _floor(half: float, size: float, material: Material) -> Triangles:
    corner = np.array([-half, -half, 0.0])
    side = np.array([2 * half, 0, 0])
    return _quad(
        corner, side, np.roll(side, 1), (2 * half / size, 2 * half / size), material
    )


def _room(library: Library, random: np.random.Generator) -> list[Triangles]:
    half, height = 2.9, 2.7
    tint = random.uniform(0.7, 1.0, 3)
    if random.random() < 0.6:
        wood = library.texture("blendswap-cc-0/" + WOODS[random.integers(len(WOODS))])
        floor = _floor(
            half,
            random.uniform(0.9, 1.5),
            _tile(wood, np.full(3, random.uniform(0.6, 1.0))),
        )
    else:
        cloth = library.texture("blendswap-cc-0/" + CLOTHS[random.integers(len(CLOTHS))])
        floor = _floor(half, random.uniform(0.5, 0.9), _tile(cloth, tint))
    paint = 0.35 + 0.5 * random.uniform(0, 1, 3) ** 0.5
    bricks = _grey("brick", np.array([1.5, 0.9, 0.7]) * random.uniform(0.6, 1.3))
    brick_wall = random.integers(5)  # one wall, or none
    parts = [floor]
    for k in range(4):
        c, s = [(1, 0), (0, 1), (-1, 0), (0, -1)][k]
        inward, along = np.array([-c, -s, 0.0]), np.array([-s, c, 0.0])
        origin = -inward * half - along * half
        wall = bricks if k == brick_wall else Material(paint.astype(np.float32))
        parts.append(
            _quad(origin, 2 * half * along, np.array([0, 0, height]), (3.0, 1.5), wall)
        )
        parts += _on_wall(library, random, inward, along, half)
    return parts


def _on_wall(
    library: Library, random: np.random.Generator, inward: Array, along: Array, half: float
) -> list[Triangles]:
    """Two pictures on a wall and two pieces of furniture before it."""
    parts = []
    for side in (-1, 1):
        picture = linear(getattr(skimage.data, PICTURES[random.integers(len(PICTURES))])())
        wide = random.uniform(0.6, 1.3)
        tall = wide * picture.shape[0] / picture.shape[1]
        place = side * random.uniform(0.4, 1.7) - wide / 2
        origin = (
            -inward * (half - 0.02)
            + along * place
            + np.array([0, 0, random.uniform(0.9, 1.3)])
        )
        parts.append(
            _quad(
                origin + along * wide,
                -along * wide,
                np.array([0, 0, tall]),
                (1, 1),
                Material(np.ones(3), picture),
            )
        )
        piece = library.load(FURNITURE[random.integers(len(FURNITURE))])
        depth = float(np.abs(piece.corners[..., 0]).max())
        turn = np.stack([inward, np.cross([0, 0, 1.0], inward), [0, 0, 1.0]], 1)
        spot = -inward * (half - depth - 0.05) + along * side * random.uniform(0.5, 1.9)
        parts.append(piece.moved(turn.astype(np.float32), spot))
    return parts


def _garden(random: np.random.Generator) -> list[Triangles]:
    """Grass or gravel, and a photograph once around the horizon."""
    grass = random.random() < 0.6
    tint = np.array([0.75, 1.15, 0.45]) if grass else np.array([1.15, 1.05, 0.95])
    floor = _floor(
        14.0,
        random.uniform(0.8, 1.4),
        _grey("grass" if grass else "gravel", tint * random.uniform(0.8, 1.2)),
    )
    picture = (
        linear(skimage.data.rocket())
        if random.random() < 0.5
        else linear(skimage.data.coffee())
    )
    mirrored = Material(
        np.ones(3, np.float32), np.concatenate([picture, picture[:, ::-1]], 1)
    )
    angle = np.linspace(0, 2 * np.pi, 49)
    ring = 13.0 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    up = np.array([0, 0, 9.0])
    parts = [floor]
    for k in range(48):
        panel = _quad(ring[k], ring[k + 1] - ring[k], up, (1 / 16, 1), mirrored)
        parts.append(
            Triangles(
                panel.corners,
                panel.normals,
                panel.uv + np.array([k / 16, 0], np.float32),
                panel.material,
                panel.materials,
            )
        )
    return parts
