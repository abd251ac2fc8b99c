"""Messages of named frames: transforms below the object's frame, grasps and markers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from geometry_msgs.msg import Point, PoseArray, TransformStamped
from std_msgs.msg import ColorRGBA, Header
from torch import Tensor
from visualization_msgs.msg import Marker, MarkerArray

from uns_pose_ros.core.geometry import invert
from uns_pose_ros.core.named_frames import PlacedFrame
from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.nodes.message_conversions import (
    frame_name,
    pose_message,
    transform_message,
)
from uns_pose_ros.visualization.drawing import AXIS_COLORS, GRASP_COLOR

_LENGTH = 0.15  # of an axis, as a share of the object's longest side
_CARRIED = 0.4  # opacity of a frame that the pose alone carries
# namespace and id of a marker
MarkerKey = tuple[str, int]


def object_transforms(
    header: Header, prefix: str, estimates: Sequence[PoseEstimate], tracks: Sequence[int]
) -> list[TransformStamped]:
    """Transforms of estimates in meters, each followed by those of its named frames.

    Args:
        header: Of the image, or of the fixed frame.
        prefix: Text before every TF child frame.
        estimates: In meters.
        tracks: Number of each estimate.
    """
    transforms = []
    for estimate, track in zip(estimates, tracks, strict=True):
        child = frame_name(prefix, estimate, track)
        transforms.append(transform_message(header, child, estimate.cam_from_canon))
        transforms += frame_transforms(header, prefix, estimate, track)
    return transforms


def frame_transforms(
    header: Header, prefix: str, estimate: PoseEstimate, track: int
) -> list[TransformStamped]:
    """Transforms of the named frames of an estimate in meters, below the frame of the object."""
    parent = frame_name(prefix, estimate, track)
    canon_from_cam = invert(estimate.cam_from_canon)
    return [
        transform_message(
            Header(stamp=header.stamp, frame_id=parent),
            f"{parent}/{placed.name}",
            canon_from_cam @ placed.cam_from_frame,
        )
        for placed in estimate.frames
    ]


def grasp_array(
    header: Header, estimates: Sequence[PoseEstimate], only_seen: bool = False
) -> PoseArray:
    """The frames with a width of estimates in meters, in the order of estimates and frames.

    Args:
        header: Of the image.
        estimates: In meters.
        only_seen: Leave out the frames that the pose alone carries.
    """
    return PoseArray(
        header=header,
        poses=[
            pose_message(placed.cam_from_frame)
            for estimate in estimates
            for placed in estimate.frames
            if placed.width is not None and (placed.seen or not only_seen)
        ],
    )


def add_frame_markers(
    message: MarkerArray,
    header: Header,
    estimates: Sequence[PoseEstimate],
    tracks: Sequence[int],
    shown: set[MarkerKey],
) -> set[MarkerKey]:
    """Add axes and names of all named frames to a message; returns the markers that are shown then.

    A frame that the pose alone carries is transparent. Those of `shown` that are not seen now go.
    """
    markers = [
        marker
        for estimate, track in zip(estimates, tracks, strict=True)
        for placed in estimate.frames
        for marker in _markers(header, estimate, placed, track)
    ]
    now = {(marker.ns, marker.id) for marker in markers}
    message.markers += [
        Marker(header=header, ns=namespace, id=number, action=Marker.DELETE)
        for namespace, number in sorted(shown - now)
    ]
    message.markers += markers
    return now


def _markers(
    header: Header, estimate: PoseEstimate, placed: PlacedFrame, track: int
) -> list[Marker]:
    """Axes, with the opening of a grasp along y, and the name of a frame."""
    length = _LENGTH * float(estimate.size.max())
    alpha = 1.0 if placed.seen else _CARRIED
    namespace = f"{estimate.category}/{placed.name}"
    lines = Marker(header=header, ns=namespace, id=track, action=Marker.ADD)
    lines.type = Marker.LINE_LIST
    lines.pose = pose_message(placed.cam_from_frame)
    lines.scale.x = 0.1 * length
    zero = torch.zeros(3, dtype=torch.float64)
    unit = torch.eye(3, dtype=torch.float64)
    segments = [
        (zero, length * axis, color) for axis, color in zip(unit, AXIS_COLORS, strict=True)
    ]
    if placed.width is not None:
        half = placed.width / 2 * unit[1]
        segments.append((-half, half, GRASP_COLOR))
    for start, end, color in segments:
        lines.points += [_point(start), _point(end)]
        lines.colors += [_color(color, alpha)] * 2
    text = Marker(header=header, ns=f"{namespace}/text", id=track, action=Marker.ADD)
    text.type = Marker.TEXT_VIEW_FACING
    text.pose = pose_message(placed.cam_from_frame)
    text.scale.z = 0.5 * length
    text.color = _color((255, 255, 255), alpha)
    text.text = placed.name if placed.seen else f"{placed.name} (carried)"
    return [lines, text]


def _point(xyz: Tensor) -> Point:
    x, y, z = xyz.tolist()
    return Point(x=x, y=y, z=z)


def _color(rgb: tuple[int, int, int], alpha: float) -> ColorRGBA:
    r, g, b = (value / 255 for value in rgb)
    return ColorRGBA(r=r, g=g, b=b, a=alpha)
