"""What a person who films an object sees: the image, the progress and a ring of azimuths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.view_coverage import ViewCoverage, gaps, way_to_gap
from uns_pose_ros.visualization.drawing import RgbImage, write_text

# RGB
SEEN = (60, 190, 75)
MISSING = (225, 60, 50)
UNKNOWN = (130, 130, 130)
HERE = (255, 255, 255)
_NEAR = 20.0  # degrees to the next gap, below which the camera has arrived there


@dataclass(frozen=True, eq=False)
class Coverage:
    """Azimuths around the object that have been seen, and the camera's position."""

    kept: int  # images
    # (SECTORS,) from azimuth 0 on, counter-clockwise from above; None: unknown
    covered: NDArray[np.bool_] | None
    azimuth: float | None  # of the camera, degrees; None: unknown
    elevations: tuple[float, float] | None  # lowest and highest of the kept views, degrees

    @staticmethod
    def of(
        orbit: ViewCoverage, kept: int, cam_from_obj: NDArray[np.float64] | None
    ) -> Coverage:
        """Coverage of kept views; `cam_from_obj` (4, 4) is the camera's present pose if known."""
        azimuth = None if cam_from_obj is None else orbit.azimuth(cam_from_obj)
        return Coverage(kept, orbit.covered(), azimuth, orbit.elevations())

    @property
    def percent(self) -> float | None:
        """Share of the azimuths that have been seen, percent; None: unknown."""
        return None if self.covered is None else 100 * float(self.covered.mean())

    def facts(self) -> dict[str, str]:
        """The coverage in words, for diagnostics."""
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
        """The next step of the person who films, in one line."""
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


def draw_guidance(image: RgbImage, coverage: Coverage, lines: Sequence[str]) -> RgbImage:
    """Draw the coverage ring and lines of text into a copy of an image (H, W, 3) uint8 RGB.

    The ring is in the lower right corner and shows the orbit from above, with the camera at the
    bottom: a gap on the ring's left is to the camera's left.
    """
    image = image.copy()
    height, width = image.shape[:2]
    radius = max(8, round(0.16 * min(height, width)))
    center = width - round(1.3 * radius), height - round(1.3 * radius)
    thick = max(3, radius // 3)
    covered = np.zeros(1, bool) if coverage.covered is None else coverage.covered
    step = 360 / len(covered)
    for sector, seen in enumerate(covered):
        color = UNKNOWN if coverage.covered is None else SEEN if seen else MISSING
        # azimuths grow counter-clockwise, OpenCV's angles clockwise from the right; the camera's
        # azimuth is at the bottom
        end = 90 - (sector * step - (coverage.azimuth or 0.0))
        cv2.ellipse(
            image,
            center,
            (radius, radius),
            0,
            end - step + 1,
            end - 1,
            color,
            -1,
            cv2.LINE_AA,
        )
    cv2.circle(image, center, radius - thick, (30, 30, 30), -1, cv2.LINE_AA)
    if coverage.azimuth is not None:
        cv2.circle(
            image,
            (center[0], center[1] + radius - thick // 2),
            max(2, thick // 3),
            HERE,
            -1,
            cv2.LINE_AA,
        )
    text = "?" if coverage.percent is None else f"{coverage.percent:.0f}%"
    _write_centered(image, text, center, radius)
    _, rise = cv2.getTextSize(
        "Ag", cv2.FONT_HERSHEY_SIMPLEX, max(0.35, min(height, width) / 900), 1
    )[0]
    for row, line in enumerate(lines):
        write_text(image, line, np.array([4.0, 4.0 + (row + 1) * 1.9 * rise]))
    return image


def _write_centered(
    image: RgbImage, text: str, center: tuple[int, int], radius: int
) -> None:
    scale = radius / 55
    (length, rise), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    at = center[0] - length // 2, center[1] + rise // 2
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, HERE, 1, cv2.LINE_AA)
