"""Markers and poses of the estimates in a bag, for viewers that do not show vision_msgs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.visualization.drawing import track_color

MARKERS = "visualization_msgs/msg/MarkerArray"
POSES = "geometry_msgs/msg/PoseArray"
_OPAQUE = 0.35  # of a box, so that its axes are seen
_ABOVE = 0.6  # of the size, how far the text is above the object


def box_markers(
    store: Any,
    header: Any,
    estimates: Sequence[PoseEstimate],
    tracks: Sequence[int],
    box_poses: Sequence[Any],
) -> Any:
    """A MarkerArray with box and label of every object; those of the image before go.

    Args:
        store: The types of the messages.
        header: Of the image.
        estimates: Of the image.
        tracks: Their ids.
        box_poses: Centers and axes of their boxes, as messages, m.
    """
    make = _marker_maker(store, header)
    markers = [make("", 0, action=3)]  # DELETEALL
    for estimate, track, pose in zip(estimates, tracks, box_poses, strict=True):
        color = (*track_color(track), _OPAQUE)
        size = estimate.size.tolist()
        markers.append(
            make(estimate.category, track, kind=1, pose=pose, scale=size, color=color)
        )
        position = pose.position
        point = store.types["geometry_msgs/msg/Point"]
        height = 0.15 * max(size)
        above = point(  # the camera's y points down
            x=position.x, y=position.y - _ABOVE * max(size) - height, z=position.z
        )
        markers.append(
            make(
                f"{estimate.category}/text",
                track,
                kind=9,
                pose=_upright(store, above),
                scale=[0.0, 0.0, height],
                color=(*color[:3], 1.0),
                text=f"{estimate.category} {track}  {estimate.score:.2f}",
            )
        )
    return store.types[MARKERS](markers=markers)


def pose_list_message(store: Any, header: Any, poses: Sequence[Any]) -> Any:
    """A PoseArray of poses in the frame of the header."""
    return store.types[POSES](header=header, poses=list(poses))


def _upright(store: Any, position: Any) -> Any:
    turn = store.types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
    return store.types["geometry_msgs/msg/Pose"](position=position, orientation=turn)


def _marker_maker(store: Any, header: Any) -> Callable[..., Any]:
    """A function that makes markers; what is not given is empty."""
    types = store.types
    zero = types["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0)
    no_time = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    no_image = types["sensor_msgs/msg/CompressedImage"](
        header=types["std_msgs/msg/Header"](stamp=no_time, frame_id=""),
        format="",
        data=np.zeros(0, np.uint8),
    )

    def make(
        namespace: str,
        number: int,
        *,
        kind: int = 0,
        action: int = 0,
        pose: Any = None,
        scale: Sequence[float] = (0.0, 0.0, 0.0),
        color: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        text: str = "",
    ) -> Any:
        return types["visualization_msgs/msg/Marker"](
            header=header,
            ns=namespace,
            id=number,
            type=kind,
            action=action,
            pose=_upright(store, zero) if pose is None else pose,
            scale=types["geometry_msgs/msg/Vector3"](
                **dict(zip("xyz", map(float, scale), strict=True))
            ),
            color=types["std_msgs/msg/ColorRGBA"](
                **dict(zip("rgba", map(float, color), strict=True))
            ),
            lifetime=types["builtin_interfaces/msg/Duration"](sec=0, nanosec=0),
            frame_locked=False,
            points=[],
            colors=[],
            texture_resource="",
            texture=no_image,
            uv_coordinates=[],
            text=text,
            mesh_resource="",
            mesh_file=types["visualization_msgs/msg/MeshFile"](
                filename="", data=np.zeros(0, np.uint8)
            ),
            mesh_use_embedded_materials=False,
        )

    return make
