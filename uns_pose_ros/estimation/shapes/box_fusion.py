"""The box of one object over the images of a stream."""

from __future__ import annotations

from dataclasses import replace

from uns_pose_ros.core.types import PoseEstimate

_LEAST_SHARE = 0.1  # share of the newest image at least: an object may be opened or filled


def fuse_box(before: PoseEstimate, now: PoseEstimate, images: int) -> PoseEstimate:
    """Give an estimate the mean of its box and that of the images before.

    Surer sides count more. Errors of images of one object are alike, so the standard deviations
    become no smaller than those of one image.

    Args:
        before: Of `images` images.
        now: Of the newest image.
        images: Number of images before.

    Returns:
        `now` with that box; as it is where one of the two has no box of its own.
    """
    if (
        before.center is None
        or before.size_sigma is None
        or now.center is None
        or now.size_sigma is None
    ):
        return now
    share = max(1 / (images + 1), _LEAST_SHARE)
    unit = now.scale / before.scale
    old, new = (before.size_sigma * unit).square(), now.size_sigma.square()
    part = share * old / (share * old + (1 - share) * new).clamp_min(1e-300)
    return replace(
        now,
        size=(1 - part) * before.size * unit + part * now.size,
        center=(1 - part) * before.center * unit + part * now.center,
        size_sigma=((1 - part) * old + part * new).sqrt(),
    )
