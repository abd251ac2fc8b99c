"""Which images of a video are matched, and where the poses contradict the order of the images.

Things that stand in a room twice, such as two equal pictures on opposite walls, match across the
room. They turn a part of the cameras around the object. Consecutive images then lie far apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.io.colmap import SparseImage
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig

_JUMP = 60.0  # degrees between consecutive images, from which on a step can be a jump
_MEDIAN_STEPS = 5.0  # a jump is longer than so many median steps
_NEAR = 0.2  # of the images: neighbors on either side that show the same part of the room


@dataclass(frozen=True)
class Jump:
    """The largest step between consecutive images, where it is far larger than the others."""

    before: str  # image name
    after: str  # image name
    degrees: float

    def __str__(self) -> str:
        """As part of a sentence."""
        return f"the camera jumps by {self.degrees:.0f}° from {self.before} to {self.after}"


def find_jump(images: Sequence[SparseImage]) -> Jump | None:
    """Return the largest jump of the camera's rotation between images in the order of the film.

    Args:
        images: sorted by name; frames without a pose are missing.
    """
    if len(images) < 3:
        return None
    rotations = torch.stack([image.cam_from_obj[:3, :3] for image in images])
    steps = angle_between(rotations[:-1], rotations[1:])
    k = int(steps.argmax())
    if steps[k] < max(_JUMP, _MEDIAN_STEPS * float(steps.median())):
        return None
    return Jump(images[k].name, images[k + 1].name, float(steps[k]))


def match_neighbors(config: SfmConfig, count: int) -> SfmConfig:
    """Return the config with which images far apart in a video of `count` are not matched."""
    overlap = min(config.overlap, max(2, round(_NEAR * count)))
    return replace(config, all_pairs=0, overlap=overlap, net=count)


def select_pairs(count: int, config: SfmConfig) -> list[tuple[int, int]]:
    """Pairs of frames (i < j) that are matched, of a video of `count` frames."""
    if count <= config.all_pairs:
        return [(i, j) for j in range(count) for i in range(j)]
    net = range(0, count, config.net)
    near = {(i, j) for j in range(count) for i in range(max(0, j - config.overlap), j)}
    far = {(i, j) for j in net for i in net if i < j}
    return sorted(near | far)
