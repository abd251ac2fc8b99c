"""Prepare the videos of a category: camera poses and masks where they have none.

Only results of `poses_and_masks`, marked by made.json, are made again, and only if their inputs or
settings changed. Given masks and poses are never touched. A folder appears whole, by a rename.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Progress
from uns_pose_ros.networks import u2net
from uns_pose_ros.pipeline.poses_and_masks.mask_preparation import ensure_masks
from uns_pose_ros.pipeline.poses_and_masks.pose_preparation import ensure_poses
from uns_pose_ros.pipeline.provenance import FileCache
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.mask_voting import MaskConfig


def prepare_videos(
    folders: list[Path],
    poses: SfmConfig = SfmConfig(),
    masks: MaskConfig = MaskConfig(),
    progress: Progress | None = None,
    files: FileCache | None = None,
) -> dict[str, list[str]]:
    """Find poses, then masks, of every video that lacks them.

    A video that fails does not stop the others.

    Args:
        folders: the videos.
        poses: settings of the poses.
        masks: settings of the masks.
        progress: is called with the step, the images done and all images.
        files: hashes that this run has computed already.

    Returns:
        By video, "poses" and "masks" if they were made now.

    Raises:
        InvalidInput: a video failed.
    """
    files = files or FileCache()
    load = cache(u2net.load_salience)  # once, and only if it is needed
    made, failures = dict[str, list[str]](), list[str]()
    for folder in folders:
        made[folder.name] = []
        try:
            if ensure_poses(folder, poses, progress, files):
                made[folder.name].append("poses")
            if ensure_masks(folder, load, masks, progress, files=files):
                made[folder.name].append("masks")
        except InvalidInput as error:
            failures.append(str(error))
    if failures:
        rest = f" (and {len(failures) - 1} more videos)" if len(failures) > 1 else ""
        raise InvalidInput(f"{failures[0]}{rest}")
    return made
