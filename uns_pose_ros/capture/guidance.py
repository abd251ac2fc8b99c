"""What somebody who films an object is shown.

The image, what was kept, and a ring of the azimuths seen and missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.view_coverage import Orbit, gaps, way_to_gap
from uns_pose_ros.visualization.drawing import Picture, write

SEEN, MISSING, UNKNOWN, HERE = (
    (60, 190, 75),
    (225, 60, 50),
    (130, 130, 130),
    (255, 255, 255),
)  # RGB
_NEAR = 20.0  # degrees to the next gap below which the camera is as good as there


@dataclass(frozen=True, eq=False)
class Coverage:
    """Which azimuths about the object have been seen, and where the camera is now."""

    kept: int  # images
    # (SECTORS,) from azimuth 0 on, counter-clockwise from above; None: unknown
    covered: NDArray[np.bool_] | None
    azimuth: float | None  # of the camera, degrees; None: unknown
    elevations: tuple[float, float] | None  # lowest and highest of the kept views, degrees

    @staticmethod
    def of(orbit: Orbit, kept: int, cam_from_obj: NDArray[np.float64] | None) -> Coverage:
        """Of kept views, with the camera's present pose (4, 4) where it is known."""
        azimuth = None if cam_from_obj is None else orbit.azimuth(cam_from_obj)
        return Coverage(kept, orbit.covered(), azimuth, orbit.elevations())

    @property
    def percent(self) -> float | None:
        """Of the azimuths seen; None: unknown."""
        return None if self.covered is None else 100 * float(self.covered.mean())

    def facts(self) -> dict[str, str]:
        """Coverage as words, for diagnostics."""
        if self.covered is None or self.elevations is None:
            return {"coverage": "unknown", "missing azimuths": "unknown"}
        runs = (
            ", ".join(f"{start:.0f}..{end:.0f} deg" for start, end in gaps(self.covered))
            or "none"
        )
        elevations = "{:.0f}..{:.0f} deg".format(*self.elevations)
        return {
            "coverage": f"{self.percent:.0f} %",
            "missing azimuths": runs,
            "elevations": elevations,
        }

    def advice(self) -> str:
        """What to do next, in one line."""
        if self.covered is None:
            return "coverage unknown"
        if self.covered.all():
            return "all around: stop, or film another height"
        way = None if self.azimuth is None else way_to_gap(self.covered, self.azimuth)
        if way is None:
            return f"{self.percent:.0f} % of the azimuths"
        if abs(way) < _NEAR:
            return f"{self.percent:.0f} %: go on, {'right' if way > 0 else 'left'}"
        return (
            f"{self.percent:.0f} %: next gap {abs(way):.0f} deg to the "
            f"{'right' if way > 0 else 'left'}"
        )


def draw_guidance(picture: Picture, coverage: Coverage, lines: Sequence[str]) -> Picture:
    """A copy of the image (H, W, 3) uint8 RGB with the coverage ring in its lower right corner
    and lines of text on top.

    The ring is the orbit seen from above with the camera at the bottom: what is missing on its left
    is to the camera's left.
    """
    picture = picture.copy()
    height, width = picture.shape[:2]
    radius = max(8, round(0.16 * min(height, width)))
    centre = width - round(1.3 * radius), height - round(1.3 * radius)
    thick = max(3, radius // 3)
    covered = np.zeros(1, bool) if coverage.covered is None else coverage.covered
    step = 360 / len(covered)
    for sector, seen in enumerate(covered):
        colour = UNKNOWN if coverage.covered is None else SEEN if seen else MISSING
        # azimuths grow counter-clockwise, OpenCV's angles clockwise from the right; the camera's
        # azimuth is at the bottom
        end = 90 - (sector * step - (coverage.azimuth or 0.0))
        cv2.ellipse(
            picture,
            centre,
            (radius, radius),
            0,
            end - step + 1,
            end - 1,
            colour,
            -1,
            cv2.LINE_AA,
        )
    cv2.circle(picture, centre, radius - thick, (30, 30, 30), -1, cv2.LINE_AA)
    if coverage.azimuth is not None:
        cv2.circle(
            picture,
            (centre[0], centre[1] + radius - thick // 2),
            max(2, thick // 3),
            HERE,
            -1,
            cv2.LINE_AA,
        )
    text = "?" if coverage.percent is None else f"{coverage.percent:.0f}%"
    _centred(picture, text, centre, radius)
    _, rise = cv2.getTextSize(
        "Ag", cv2.FONT_HERSHEY_SIMPLEX, max(0.35, min(height, width) / 900), 1
    )[0]
    for row, line in enumerate(lines):
        write(picture, line, np.array([4.0, 4.0 + (row + 1) * 1.9 * rise]))
    return picture


def _centred(picture: Picture, text: str, centre: tuple[int, int], radius: int) -> None:
    scale = radius / 55
    (length, rise), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    at = centre[0] - length // 2, centre[1] + rise // 2
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, HERE, 1, cv2.LINE_AA)
