"""Types and checks that the records share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from uns_pose_ros.core.types import MAX_ORDER
from uns_pose_ros.io.given_files import is_entry_name, stays_inside

Share = Annotated[float, Meta(ge=0, le=1)]
Angle = Annotated[float, Meta(ge=0, le=180.001)]  # degrees
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Bounded = Annotated[float, Meta(ge=-1e9, le=1e9)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Pixels = Annotated[int, Meta(ge=1, le=100_000)]
Label = Annotated[str, Meta(max_length=1000)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Order = Annotated[int, Meta(ge=0, le=MAX_ORDER)]
Triple = Annotated[list[Bounded], Meta(min_length=3, max_length=3)]
Rows3 = Annotated[list[Triple], Meta(min_length=3, max_length=3)]
Quadruple = Annotated[list[Bounded], Meta(min_length=4, max_length=4)]
Rows4 = Annotated[list[Quadruple], Meta(min_length=4, max_length=4)]
Json = dict[str, Any]  # free, but not nested too deeply

_ORTHONORMAL = 1e-3  # by which an entry of R R^T may differ
_SCALES = (1e-9, 1e9)


def check_rotation(
    rows: Sequence[Sequence[float]], scale: float = 1.0, most: float = _ORTHONORMAL
) -> None:
    """ValueError unless 3 x 3 rows are a rotation times a scale.

    An entry of R R^T may differ by `most`.
    """
    for i in range(3):
        for j in range(3):
            product = sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / scale**2
            if not abs(product - (i == j)) <= most:
                raise ValueError("a rotation has orthonormal rows, this matrix has others")
    if not _determinant(rows) > 0:
        raise ValueError("a rotation is needed, this matrix is a reflection")


def check_covariance(rows: Sequence[Sequence[float]]) -> None:
    """ValueError unless 3 x 3 rows are symmetric and positive definite."""
    (a, b, c), (d, e, f), (g, h, i) = rows
    if max(abs(b - d), abs(c - g), abs(f - h)) > _ORTHONORMAL * max(a, e, i):
        raise ValueError("a covariance is symmetric, this matrix is not")
    if not (a > 0 and a * e - b * d > 0 and _determinant(rows) > 0):
        raise ValueError("a covariance is positive definite, this matrix is not")


def check_similarity(rows: Sequence[Sequence[float]]) -> None:
    """ValueError unless 4 x 4 rows are rotation times scale, translation, and 0 0 0 1."""
    inner = [row[:3] for row in rows[:3]]
    if list(rows[3]) != [0, 0, 0, 1]:
        raise ValueError("the last row of a similarity is 0 0 0 1")
    volume = _determinant(inner)
    scale = math.copysign(abs(volume) ** (1 / 3), volume)
    if scale < 0:
        raise ValueError("a rotation is needed, this matrix is a reflection")
    if not _SCALES[0] <= scale <= _SCALES[1]:
        raise ValueError(f"scale {scale:g}: {_SCALES[0]:g} to {_SCALES[1]:g} is valid")
    check_rotation(inner, scale)


def check_rigid(rows: Sequence[Sequence[float]], most: float = _ORTHONORMAL) -> None:
    """ValueError unless 4 x 4 rows are rotation, translation, and 0 0 0 1."""
    if list(rows[3]) != [0, 0, 0, 1]:
        raise ValueError("the last row of a pose is 0 0 0 1")
    check_rotation([row[:3] for row in rows[:3]], most=most)


def check_entry_name(name: str) -> None:
    """ValueError unless a name is that of one entry of a folder."""
    if not is_entry_name(name):
        raise ValueError(f"{name[:200]!r}: the name of a folder, such as clip_01, is valid")


def check_path_name(name: str) -> None:
    """ValueError unless a name stays below its folder."""
    if not stays_inside(name):
        raise ValueError(f"{name[:200]!r}: a path below images/ is valid")


def _determinant(m: Sequence[Sequence[float]]) -> float:
    (a, b, c), (d, e, f), (g, h, i) = m
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
