"""Views around an object by their camera poses alone.

The orbit's center, which views are new, which azimuths are missing.

The object's own frame has z up (REP-103: odom, map, base_link). Azimuths are degrees in [0, 360)
about that axis through the center, 0 along x, growing counter-clockwise seen from above: for
somebody who walks facing the object, to the right.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SECTORS = 24  # of the coverage ring
_SPREAD = (
    np.sin(np.radians(5.0)) ** 2
)  # of the optical axes, below which they are too parallel to meet anywhere
_VIEWS = 3  # below which there is no telling where they meet


class ViewCoverage:
    """The kept views of one video and where they look."""

    def __init__(self, views: Iterable[Floats] = ()) -> None:
        """views: cam_from_obj (4, 4), rigid, of what has been kept before."""
        self._places = np.zeros((0, 3))
        self._rotations = np.zeros((0, 3, 3))  # obj_from_cam
        self.center: Floats | None = None  # (3,) obj frame; None: the views do not tell yet
        for view in views:
            self.add(view)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, cam_from_obj: Floats) -> None:
        """Keep a view (4, 4)."""
        rotation, place = _pose(cam_from_obj)
        self._rotations = np.concatenate([self._rotations, rotation[None]])
        self._places = np.concatenate([self._places, place[None]])
        self.center = _meeting_point(self._places, self._rotations[:, :, 2])

    def is_new(self, cam_from_obj: Floats, angle: float, step: float, zoom: float) -> bool:
        """Whether no kept view is like this one (4, 4).

        About the known center, views differ by `angle` degrees between their directions or by the
        factor 1 + `zoom` of their distances; while it is not known, by `angle` degrees of the
        camera's turn or `step` (obj units) of its way.
        """
        if not len(self):
            return True
        rotation, place = _pose(cam_from_obj)
        if self.center is None:
            turn = np.einsum(
                "kij,ij->k", self._rotations, rotation
            )  # trace of the turn from each to this one
            alike = np.arccos(np.clip((turn - 1) / 2, -1, 1)) < np.radians(angle)
            return not bool(
                (alike & (np.linalg.norm(self._places - place, axis=1) < step)).any()
            )
        here, there = place - self.center, self._places - self.center
        near, far = np.linalg.norm(here), np.linalg.norm(there, axis=1)
        cosine = np.clip(there @ here / np.maximum(near * far, 1e-12), -1, 1)
        ratio = np.maximum(near, far) / np.maximum(np.minimum(near, far), 1e-12)
        return not bool(
            ((np.arccos(cosine) < np.radians(angle)) & (ratio < 1 + zoom)).any()
        )

    def azimuth(self, cam_from_obj: Floats) -> float | None:
        """Of a view (4, 4), degrees; None while the center is not known."""
        if self.center is None:
            return None
        return float(_azimuths(_pose(cam_from_obj)[1][None] - self.center)[0])

    def covered(self) -> NDArray[np.bool_] | None:
        """(SECTORS,) whether a kept view stands in each sector, the first from azimuth 0.

        None while there is no center.
        """
        if self.center is None:
            return None
        sectors = np.zeros(SECTORS, bool)
        sectors[(_azimuths(self._places - self.center) // (360 / SECTORS)).astype(int)] = (
            True
        )
        return sectors

    def elevations(self) -> tuple[float, float] | None:
        """Lowest and highest elevation of the kept views, degrees above the center.

        None while there is no center.
        """
        if self.center is None:
            return None
        offset = self._places - self.center
        degrees = np.degrees(np.arctan2(offset[:, 2], np.hypot(offset[:, 0], offset[:, 1])))
        return float(degrees.min()), float(degrees.max())


def gaps(covered: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Runs of sectors that are not covered, as azimuths (from, to) in degrees.

    One across 0 ends above 360.
    """
    if covered.all():
        return []
    width = 360 / len(covered)
    if not covered.any():
        return [(0.0, 360.0)]
    found: list[tuple[float, float]] = []
    first = int(
        np.argmax(covered)
    )  # a run never starts before a covered sector and ends behind it
    for k in (np.arange(len(covered)) + first) % len(covered):
        if covered[k]:
            continue
        if found and (found[-1][1] - k * width) % 360 == 0:
            found[-1] = (found[-1][0], found[-1][1] + width)
        else:
            found.append((k * width, (k + 1) * width))
    return found


def azimuths(x: Floats, y: Floats) -> Floats:
    """Degrees (N,) in [0, 360) of directions with the components x and y in the ground plane."""
    degrees = np.degrees(np.arctan2(y, x)) % 360
    return np.where(degrees >= 360, 0.0, degrees)  # -1e-15 % 360 is 360


def azimuth_gaps(degrees: Floats) -> tuple[Floats, Floats]:
    """Angles between neighbors on the circle.

    Args:
        degrees: azimuths (N,), N > 0, all within one turn.

    Returns:
        Azimuths (N,) at which the gaps begin, ascending, and their widths (N,), degrees.
    """
    ordered = np.sort(degrees)
    return ordered, np.diff(np.append(ordered, ordered[0] + 360))


def way_to_gap(covered: NDArray[np.bool_], azimuth: float) -> float | None:
    """Signed degrees from an azimuth to the middle of the nearest sector not covered, positive.

    To the right; None: none.
    """
    middles = (np.nonzero(~covered)[0] + 0.5) * (360 / len(covered))
    if not len(middles):
        return None
    ways = (middles - azimuth + 180) % 360 - 180
    return float(ways[np.abs(ways).argmin()])


def _pose(cam_from_obj: Floats) -> tuple[Floats, Floats]:
    """obj_from_cam's rotation (3, 3) and the camera's place (3,), obj frame."""
    rotation = cam_from_obj[:3, :3].T
    return rotation, -rotation @ cam_from_obj[:3, 3]


def _azimuths(offsets: Floats) -> Floats:
    """Azimuths (N,), degrees, of positions (N, 3) relative to the center."""
    return azimuths(offsets[:, 0], offsets[:, 1])


def _meeting_point(places: Floats, axes: Floats) -> Floats | None:
    """(3,) nearest to all lines through places (N, 3) along unit axes (N, 3), in front of them.

    None where they do not tell.
    """
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    total = across.sum(0)
    if len(places) < _VIEWS or np.linalg.eigvalsh(total)[0] / len(places) < _SPREAD:
        return None
    point = np.linalg.solve(total, np.einsum("nij,nj->i", across, places))
    depths = ((point - places) * axes).sum(1)
    return point if np.median(depths) > 0 else None
