"""Selection of the images of a stream that are worth keeping.

They are well exposed, sharp and from a new viewpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.settings import setting
from uns_pose_ros.core.view_coverage import ViewCoverage
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.io.images import LONGEST, Pixels, sharpness

# reasons to reject an image
DARK = "too dark"
OVEREXPOSED = "overexposed"
BLURRED = "blurred"
SEEN = "same view as before"

_FLOW_LONGEST = 160  # px, of the image whose motion is measured
# correlation of an image with the next one, moved back by the flow, below which the flow is wrong
_ALIKE = 0.5
_FLAT = 2.0  # gray values, standard deviation of an image without contrast
_WHITE = 250  # gray value, from which on pixels hold no detail
_BRIGHT_PART = 95  # percentile of the gray values that counts as the bright parts
_RECENT = 30  # images with whose sharpness the next image is compared
_ENOUGH = 5  # recent images, before which no image is rejected as blurred


@dataclass(frozen=True)
class KeyframeConfig:
    """When an image is kept."""

    sharpness: float = setting(
        0.5,
        "smallest sharpness (variance of the Laplacian), as a share of the median of the recent "
        "images; an image below is blurred",
        low=0.0,
        high=1.0,
    )
    darkest: int = setting(
        40,
        "gray value that 5 % of the pixels must reach; otherwise the image is too dark",
        unit="gray values",
        low=0,
        high=100,
    )
    clipped: float = setting(
        0.7,
        "largest share of white pixels (gray value 250 and more); an image above is overexposed",
        low=0.05,
        high=1.0,
    )
    view_angle: float = setting(
        8.0,
        "smallest angle at the object to every kept view, if camera poses are known",
        unit="deg",
        low=0.0,
        high=45.0,
    )
    view_step: float = setting(
        0.1,
        "camera motion that counts as a new view until the position of the object is known",
        unit="m",
        low=0.0,
        high=10.0,
    )
    view_zoom: float = setting(
        0.3,
        "relative change of the distance that counts as a new view",
        low=0.0,
        high=100.0,
    )
    view_shift: float = setting(
        0.04,
        "mean optical flow since the last kept image that counts as a new view, as a share of "
        "the longer side, if camera poses are unknown",
        low=0.0,
        high=0.25,
    )


@dataclass(frozen=True, eq=False)
class FrameStats:
    """Measurements of one image."""

    small: Pixels  # (h, w) gray
    sharpness: float  # variance of the Laplacian
    bright: float  # gray value of the bright parts
    clipped: float  # share of white pixels


def measure_frame(photo: EncodedImage) -> FrameStats:
    """Measure an image. InvalidInput where it cannot be decoded."""
    gray = photo.gray(LONGEST)
    height, width = gray.shape
    factor = min(1.0, _FLOW_LONGEST / max(height, width))
    # optical flow needs some pixels in either direction
    size = max(16, round(width * factor)), max(16, round(height * factor))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )
    counts = np.bincount(small.ravel(), minlength=256)
    bright = float(np.searchsorted(np.cumsum(counts), _BRIGHT_PART / 100 * small.size))
    return FrameStats(
        small, sharpness(gray), bright, float(counts[_WHITE:].sum() / small.size)
    )


def mean_optical_flow(before: FrameStats, now: FrameStats) -> float:
    """Mean length of the optical flow between two images, as a share of the longer side.

    Infinite where no flow explains the change.
    """
    if before.small.shape != now.small.shape:
        return float("inf")
    dense: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = dense.calc(before.small, now.small, None)
    height, width = now.small.shape
    x, y = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    moved = cv2.remap(
        now.small,
        x + flow[..., 0],
        y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if _correlation(before.small, moved.astype(np.uint8, copy=False)) < _ALIKE:
        return float("inf")
    return float(np.hypot(flow[..., 0], flow[..., 1]).mean() / max(height, width))


def _correlation(a: Pixels, b: Pixels) -> float:
    """Correlation of two gray images, independent of their brightness and contrast.

    It is 1 for two images without contrast.
    """
    contrast = float(a.std()), float(b.std())
    if min(contrast) < _FLAT:
        return float(max(contrast) < _FLAT)
    return float(((a - a.mean()) * (b - b.mean())).mean() / (contrast[0] * contrast[1]))


class KeyframeChooser:
    """Judges the images of one stream in their order.

    An image with a pose must differ from all kept views, an image without from the last kept one.
    """

    def __init__(
        self,
        config: KeyframeConfig = KeyframeConfig(),
        views: Iterable[NDArray[np.float64]] = (),
    ) -> None:
        """Begin with the views, cam_from_obj (4, 4), of images that were kept before."""
        self._config = config
        self.orbit = ViewCoverage(views)
        self._last: FrameStats | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def rejection_reason(self, stats: FrameStats) -> str | None:
        """Why the quality of an image is too low, or None.

        Call it once for each image, because the next images are compared with it.
        """
        typical = float(np.median(self._recent)) if len(self._recent) >= _ENOUGH else 0.0
        if stats.bright < self._config.darkest:
            return DARK
        if stats.clipped > self._config.clipped:
            return OVEREXPOSED
        self._recent.append(stats.sharpness)
        return BLURRED if stats.sharpness < self._config.sharpness * typical else None

    def is_new_view(
        self, stats: FrameStats, cam_from_obj: NDArray[np.float64] | None = None
    ) -> bool:
        """Whether the image is from a new viewpoint.

        `cam_from_obj` (4, 4), lengths in m, is the camera's pose where it is known.
        """
        if cam_from_obj is not None:
            return self.orbit.is_new(
                cam_from_obj,
                self._config.view_angle,
                self._config.view_step,
                self._config.view_zoom,
            )
        return (
            self._last is None
            or mean_optical_flow(self._last, stats) >= self._config.view_shift
        )

    def keep(
        self, stats: FrameStats, cam_from_obj: NDArray[np.float64] | None = None
    ) -> None:
        """Remember an image that is kept, and its pose."""
        self._last = stats
        if cam_from_obj is not None:
            self.orbit.add(cam_from_obj)
