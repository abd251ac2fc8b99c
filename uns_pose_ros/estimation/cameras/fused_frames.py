"""The named frames of an object that several cameras see: the best of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from uns_pose_ros.core.geometry import invert
from uns_pose_ros.core.named_frames import PlacedFrame
from uns_pose_ros.core.types import PoseEstimate

_SAME_PLACE = (
    0.15  # diameters by which a frame that a camera sees may lie off the fused pose
)


def fuse_frames(
    seen: Sequence[tuple[Tensor, PoseEstimate]], fused: PoseEstimate
) -> tuple[PlacedFrame, ...]:
    """Place the named frames of an object in the fixed frame.

    A frame lies where the camera with the least covariance sees it. Where no camera does, or only
    one whose own pose is another, the fused pose carries it.

    Args:
        seen: fixed_from_cam (4, 4) and the estimate with its frames of each camera, m.
        fused: The fused estimate in the fixed frame.
    """
    best: dict[str, tuple[tuple[bool, float], PlacedFrame]] = {}
    for fixed_from_cam, estimate in seen:
        for placed in estimate.frames:
            frame = _in_fixed(placed, fixed_from_cam, estimate, fused)
            trace = (
                float("inf")
                if placed.covariance is None
                else float(placed.covariance.trace())
            )
            rank = (not frame.seen, trace)
            if placed.name not in best or rank < best[placed.name][0]:
                best[placed.name] = (rank, frame)
    return tuple(frame for _, frame in best.values())


def _in_fixed(
    placed: PlacedFrame,
    fixed_from_cam: Tensor,
    estimate: PoseEstimate,
    fused: PoseEstimate,
) -> PlacedFrame:
    """A frame of one camera in the fixed frame, with the axes that the fused pose gives it."""
    carried = fused.cam_from_canon @ invert(estimate.cam_from_canon) @ placed.cam_from_frame
    place = (fixed_from_cam @ placed.cam_from_frame)[:3, 3]
    turn = fixed_from_cam[:3, :3]
    covariance = None if placed.covariance is None else turn @ placed.covariance @ turn.T
    away = float((place - carried[:3, 3]).norm())
    near = placed.seen and away <= _SAME_PLACE * float(fused.size.norm())
    if near:
        carried = carried.clone()
        carried[:3, 3] = place
    return replace(placed, cam_from_frame=carried, covariance=covariance, seen=near)
