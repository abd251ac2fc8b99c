"""Which masks of a video do not fit the hull of its others, and whether its poses are to blame."""

from __future__ import annotations

import logging
import statistics

import numpy as np
import torch

from uns_pose_ros.core.camera import undistort_mask
from uns_pose_ros.core.errors import shorten
from uns_pose_ros.core.types import Video
from uns_pose_ros.io.images import read_mask
from uns_pose_ros.reconstruction.hull_of_others import MaskFit, bad_masks, judge_masks
from uns_pose_ros.reconstruction.mask_voting import MaskConfig

_log = logging.getLogger(__name__)


def check_masks(video: Video, config: MaskConfig = MaskConfig()) -> list[str]:
    """Names of the frames whose masks do not fit the hull of the other masks.

    One warning names them. Another one says where most masks do not: camera poses that are wrong
    do that.
    """
    fits = mask_fits(video)
    bad = bad_masks(fits, config)
    usual = statistics.median(fit.overlap for fit in fits.values()) if fits else 1.0
    if usual < config.agreed:
        _log.warning(
            "%s: the camera poses are doubtful: most masks overlap the hull of the others by %.2f, "
            "at least %.2f is usual",
            video.folder,
            usual,
            config.agreed,
        )
    if bad:
        _log.warning(
            "%s: %d of %d masks do not fit the others (overlap with their hull down to %.2f): %s",
            video.folder,
            len(bad),
            len(fits),
            min(fits[name].overlap for name in bad),
            shorten(bad),
        )
    return bad


def mask_fits(video: Video) -> dict[str, MaskFit]:
    """How each mask fits the silhouette of the hull of the other masks.

    The result is empty if no hull exists.
    """
    masks, matrices, poses = dict[str, np.ndarray](), [], []
    for frame in video.frames:
        if frame.mask is None or frame.cam_from_obj is None:
            continue
        mask = undistort_mask(read_mask(frame.mask), frame.camera)
        masks[frame.name] = mask.numpy()
        matrices.append(frame.camera.matrix)
        poses.append(frame.cam_from_obj)
    if not masks:
        return {}
    return judge_masks(masks, torch.stack(matrices), torch.stack(poses))
