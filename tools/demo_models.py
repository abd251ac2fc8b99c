"""Furniture models of Debian's package `sweethome3d-furniture` as coloured triangles, metres, in
the canonical frame.

Only the library BlendSwap-CC-0.sh3f is read: a zip of OBJ models with a catalogue of sizes and
authors, all of it CC0.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Material:
    """Colour (3,) linear RGB, and a texture (H, W, 3) linear RGB that takes its place.

    Gloss in [0, 1].
    """

    colour: Array
    texture: Array | None = None
    gloss: float = 0.0


@dataclass(frozen=True)
class Triangles:
    """A bag of triangles; `material` indexes `materials`."""

    corners: Array  # (T, 3, 3) m
    normals: Array  # (T, 3, 3) unit
    uv: Array  # (T, 3, 2) in texture sizes, v up
    material: NDArray[np.int64]  # (T,)
    materials: tuple[Material, ...]

    def moved(self, rotation: Array, translation: Array) -> Triangles:
        """The same triangles after x -> rotation @ x + translation."""
        turn = rotation.astype(np.float32).T
        moved = self.corners @ turn + translation.astype(np.float32)
        return Triangles(moved, self.normals @ turn, self.uv, self.material, self.materials)


def joined(parts: list[Triangles]) -> Triangles:
    """One bag of all parts, in order."""
    starts = np.cumsum([0] + [len(part.materials) for part in parts])
    return Triangles(
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.uv for part in parts]),
        np.concatenate(
            [part.material + start for part, start in zip(parts, starts[:-1], strict=True)]
        ),
        tuple(material for part in parts for material in part.materials),
    )


def linear(image: NDArray[np.uint8]) -> Array:
    """8 bit sRGB to linear light, by a plain gamma of 2.2."""
    return (image.astype(np.float32) / 255) ** np.float32(2.2)


def faceted(corners: Array, uv: Array, material: Material) -> Triangles:
    """Triangles of one material with flat normals."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return Triangles(
        corners.astype(np.float32),
        np.repeat(normal[:, None], 3, 1).astype(np.float32),
        uv.astype(np.float32),
        np.zeros(len(corners), np.int64),
        (material,),
    )


class Library:
    """The models of one .sh3f file, by the name of their folder."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise SystemExit(
                f"{path} is missing. Install it (apt-get install sweethome3d-furniture), or "
                "unpack the package "
                "(apt-get download sweethome3d-furniture && dpkg -x *.deb FOLDER) and name the "
                "file with --library"
            )
        self._zip = zipfile.ZipFile(path)
        text = self._zip.read("PluginFurnitureCatalog.properties").decode("latin-1")
        entries: dict[str, dict[str, str]] = {}
        for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\r?$", text, re.MULTILINE):
            entries.setdefault(number, {})[key] = value
        self._entries = {
            entry["model"].split("/")[-2]: entry
            for entry in entries.values()
            if "model" in entry
        }

    def author(self, name: str) -> str:
        """Who made the model, as the catalogue says."""
        return self._entries[name]["creator"]

    def source(self, name: str) -> str:
        """Address of the model at its origin, from the licence file beside it.

        That file must say CC0.
        """
        folder = str(Path(self._entries[name]["model"].lstrip("/")).parent)
        for file in self._zip.namelist():
            if file.startswith(folder + "/") and "license" in file.lower():
                text = self._zip.read(file).decode("utf-8", "replace")
                found = re.search(
                    r"https?://(?:www\.)?blendswap\.com/blends?/(?:view/)?\d+", text
                )
                if re.search(r"Creative Commons (CC-?)?Zero|CC-?0", text) and found:
                    return found[0]
        raise SystemExit(
            f"{name}: no licence file beside the model says CC0, so it cannot be used here"
        )

    def load(self, name: str) -> Triangles:
        """The model in metres, canonical frame (x forward, y left, z up), standing on z = 0 at the
        origin.
        """
        self.source(name)  # refuses a model without its CC0 licence
        entry = self._entries[name]
        path = entry["model"].lstrip("/")
        model = self._read_obj(path)
        # The file's frame: y up, +z front, so +x is the object's left. A cyclic permutation takes
        # it to canon.
        model = model.moved(
            np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], np.float32), np.zeros(3)
        )
        low, high = model.corners.min((0, 1)), model.corners.max((0, 1))
        size = (
            np.array(
                [float(entry[key]) for key in ("depth", "width", "height")], np.float32
            )
            / 100
        )
        middle = np.array([*(low + high)[:2] / 2, low[2]], np.float32)
        stretch = size / (high - low)
        normals = model.normals / stretch
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
        return Triangles(
            (model.corners - middle) * stretch,
            normals,
            model.uv,
            model.material,
            model.materials,
        )

    def texture(self, path: str) -> Array:
        """An image of the library, linear RGB (H, W, 3); transparent parts show white."""
        image = Image.open(io.BytesIO(self._zip.read(path))).convert("RGBA")
        image.thumbnail((1024, 1024))
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image)
        return linear(np.asarray(opaque.convert("RGB")))

    def _read_obj(self, path: str) -> Triangles:
        materials, index = self._read_mtl(path)
        values: dict[str, list[list[float]]] = {
            "v": [],
            "vt": [[0.0, 0.0]],
            "vn": [[0.0, 0.0, 0.0]],
        }
        faces: list[list[tuple[int, int, int]]] = []
        material: list[int] = []
        current = 0
        for line in self._zip.read(path).decode("latin-1").splitlines():
            word, *rest = line.split() or [""]
            if word in values:
                values[word].append([float(x) for x in rest[: 2 if word == "vt" else 3]])
            elif word == "usemtl":
                current = index.get(rest[0], 0)
            elif word == "f":
                corners = [
                    _corner(text, len(values["v"]), len(values["vt"]), len(values["vn"]))
                    for text in rest
                ]
                faces += [
                    [corners[0], corners[k], corners[k + 1]]
                    for k in range(1, len(corners) - 1)
                ]
                material += [current] * (len(corners) - 2)
        ids = np.array(faces)
        corners, uv, normals = (
            np.array(values[key], np.float32)[ids[..., k]]
            for k, key in enumerate(("v", "vt", "vn"))
        )
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        keep = np.linalg.norm(flat, axis=1) > 0
        if len(values["vn"]) == 1:
            normals = _smooth_normals(corners, flat)
        return Triangles(
            corners[keep], normals[keep], uv[keep], np.array(material)[keep], materials
        )

    def _read_mtl(self, path: str) -> tuple[tuple[Material, ...], dict[str, int]]:
        materials = [
            Material(np.full(3, 0.5, np.float32))
        ]  # of faces whose material the file does not define
        index: dict[str, int] = {}
        for line in self._zip.read(path[:-3] + "mtl").decode("latin-1").splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "newmtl":
                index[rest.strip()] = len(materials)
                materials.append(Material(np.full(3, 0.5, np.float32), None, 0.3))
            elif word == "Kd":
                # No real surface is blacker than about 2 %.
                colour = np.maximum(np.array(rest.split(), np.float32), 0.15) ** 2.2
                materials[-1] = Material(
                    colour.astype(np.float32), materials[-1].texture, 0.3
                )
            elif word == "map_Kd":
                texture = self.texture(str(Path(path).parent / rest.split()[-1]))
                materials[-1] = Material(materials[-1].colour, texture, 0.1)
        return tuple(materials), index


def _smooth_normals(corners: Array, flat: Array, crease: float = 40.0) -> Array:
    """Normals (T, 3, 3) at the corners (T, 3, 3).

    The sum of the faces there that differ by less than crease degrees.

    flat: (T, 3) the faces' normals, as long as twice their area.
    """
    place = np.unique(corners.reshape(-1, 3).round(3), axis=0, return_inverse=True)[
        1
    ].ravel()
    order = np.argsort(place, kind="stable")
    place, weighted = place[order], np.repeat(flat, 3, 0)[order]
    unit = weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-20)
    total = weighted.copy()
    for step in range(1, int(np.bincount(place).max())):
        here = np.flatnonzero(place[step:] == place[:-step])
        here = here[(unit[here] * unit[here + step]).sum(1) > np.cos(np.radians(crease))]
        total[here] += weighted[here + step]
        total[here + step] += weighted[here]
    result = np.empty_like(total)
    result[order] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)
    return result.reshape(corners.shape)


def _corner(text: str, points: int, textures: int, normals: int) -> tuple[int, int, int]:
    """Indices of v, vt, vn in "7/3/2".

    Absent ones are 0, a place of their own; negative ones count from the end.
    """
    parts = [int(part) if part else 0 for part in text.split("/")] + [0, 0]
    v = parts[0] - 1 if parts[0] > 0 else points + parts[0]
    return (
        v,
        parts[1] if parts[1] >= 0 else textures + parts[1],
        parts[2] if parts[2] >= 0 else normals + parts[2],
    )
