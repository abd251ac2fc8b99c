"""Messages of estimates: transform, detection, pose and markers; camera_info as JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion, TransformStamped, Vector3
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import ColorRGBA, Header
from torch import Tensor
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker, MarkerArray

from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.fusion import pose_modes
from uns_pose_ros.io.ros.ros_messages import nanoseconds
from uns_pose_ros.nodes.ros_compat import quaternion_xyzw
from uns_pose_ros.visualization.drawing import track_color

NO_TRACK = -1  # id of a detection that answers a request
_FAINT = 0.05  # score below which an alternative is not drawn


def info_record(info: CameraInfo) -> dict[str, Any]:
    """The fields of a camera_info message as JSON types, without its stamp."""
    roi = {
        name: int(getattr(info.roi, name))
        for name in ("x_offset", "y_offset", "width", "height")
    }
    matrices = {
        name: [float(value) for value in getattr(info, name)]
        for name in ("d", "k", "r", "p")
    }
    return {
        "frame_id": info.header.frame_id,
        "width": info.width,
        "height": info.height,
        "distortion_model": info.distortion_model,
        **matrices,
        "binning_x": info.binning_x,
        "binning_y": info.binning_y,
        "roi": {**roi, "do_rectify": bool(info.roi.do_rectify)},
    }


def camera_info_message(header: Header, camera: Camera) -> CameraInfo:
    """The camera_info of a camera, for images that are not rectified."""
    coefficients = camera.distortion.tolist()
    is_long = any(coefficients[5:])
    message = CameraInfo(header=header, width=camera.width, height=camera.height)
    message.distortion_model = "rational_polynomial" if is_long else "plumb_bob"
    message.d = [*coefficients, *[0.0] * 8][: 8 if is_long else 5]
    message.k = camera.matrix.flatten().tolist()
    message.r = np.eye(3).flatten().tolist()
    message.p = np.column_stack([camera.matrix.numpy(), np.zeros(3)]).flatten().tolist()
    return message


def frame_name(prefix: str, estimate: PoseEstimate, track: int) -> str:
    """TF child frame of an object."""
    return f"{prefix}{estimate.category}_{track}"


def transform_message(
    header: Header, child: str, cam_from_canon: Tensor
) -> TransformStamped:
    """A rigid transform (4, 4) from the child frame to the header's frame."""
    pose = pose_message(cam_from_canon)
    message = TransformStamped(header=header, child_frame_id=child)
    message.transform.translation = Vector3(
        x=pose.position.x, y=pose.position.y, z=pose.position.z
    )
    message.transform.rotation = pose.orientation
    return message


def pose_message(cam_from_canon: Tensor) -> Pose:
    """A rigid transform (4, 4) as a pose."""
    matrix = cam_from_canon.detach().cpu().double().numpy()
    x, y, z, w = quaternion_xyzw(matrix[:3, :3])
    return Pose(position=_point(matrix[:3, 3]), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _point(xyz: np.ndarray) -> Point:
    return Point(x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def pose_array(header: Header, estimates: Sequence[PoseEstimate]) -> PoseArray:
    """The poses of estimates."""
    return PoseArray(
        header=header,
        poses=[pose_message(estimate.cam_from_canon) for estimate in estimates],
    )


def detection_array(
    header: Header,
    estimates: Sequence[PoseEstimate],
    tracks: Sequence[int],
    centers: Sequence[Tensor],
) -> Detection3DArray:
    """Detections of estimates in meters; `centers`: (3,) of every model's box, canonical units.

    Every pose that an estimate holds possible is a hypothesis with its score, the best first. The
    hypothesis' pose is that of the canonical frame, the box's pose that of the box's center. The
    box is that of the best hypothesis. An unknown covariance is -1 throughout.
    """
    message = Detection3DArray(header=header)
    for estimate, track, center in zip(estimates, tracks, centers, strict=True):
        results = [
            _hypothesis(estimate.category, *mode)
            for mode in pose_modes.ranked_modes(estimate)
        ]
        detection = Detection3D(header=header, results=results, id=str(track))
        detection.bbox.center = pose_message(estimate.box_pose(center))
        detection.bbox.size = Vector3(
            **dict(zip("xyz", estimate.size.tolist(), strict=True))
        )
        message.detections.append(detection)
    return message


def _hypothesis(
    category: str, pose: Tensor, score: float, covariance: Tensor | None
) -> ObjectHypothesisWithPose:
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id = category
    result.hypothesis.score = float(score)
    result.pose.pose = pose_message(pose)
    values = torch.full((36,), -1.0) if covariance is None else covariance.flatten()
    result.pose.covariance = [float(value) for value in values]
    return result


def answers_request(message: Detection3DArray) -> bool:
    """Whether detections answer a request, and are not those of the stream of images."""
    if not message.detections:
        return not message.header.frame_id
    return all(detection.id == str(NO_TRACK) for detection in message.detections)


def is_usable_detection(detection: Detection3D) -> bool:
    """Whether a detection has a pose, a track number and a stamp, as the estimator gives them."""
    if not detection.results or nanoseconds(detection.header.stamp) < 0:
        return False
    result = detection.results[0]
    position, turn = result.pose.pose.position, result.pose.pose.orientation
    length = float(np.linalg.norm([turn.x, turn.y, turn.z, turn.w]))
    numbers = [position.x, position.y, position.z, result.hypothesis.score]
    digits = detection.id.removeprefix("-")
    return (
        digits.isdecimal()
        and len(digits) < 20
        and bool(np.isfinite(numbers).all())
        and 1e-6 < length < 1e6
    )


def mesh_points(model: CategoryModel) -> list[Point]:
    """Corners of the template's triangles, canonical units: what a TRIANGLE_LIST marker takes.

    Slow: keep the result.
    """
    return [
        _point(corner)
        for corner in model.vertices[model.triangles.flatten()].double().numpy()
    ]


def marker_array(
    header: Header,
    estimates: Sequence[PoseEstimate],
    tracks: Sequence[int],
    meshes: dict[str, list[Point]],
    shown: dict[int, str],
    fanned: Collection[int] = (),
) -> MarkerArray:
    """Template and label of every object, ids stable by track.

    An object with a box of its own has its edges too, one with alternatives has a fan beside
    them. Those of `shown` (track -> category) not seen
    now go, and the fans of `fanned` (tracks) that are not seen now.
    """
    message = MarkerArray()
    fans = {
        track
        for estimate, track in zip(estimates, tracks, strict=True)
        if has_fan(estimate)
    }
    message.markers += [
        _marker(header, f"{shown[track]}/alternatives", track, Marker.DELETE)
        for track in sorted(set(fanned) - fans)
        if track in shown
    ]
    for track, category in shown.items():
        if track not in tracks:
            message.markers += [
                _marker(header, f"{category}{part}", track, Marker.DELETE)
                for part in ("", "/text", "/box")
            ]
    for estimate, track in zip(estimates, tracks, strict=True):
        mesh = _marker(header, estimate.category, track, Marker.ADD)
        mesh.type = Marker.TRIANGLE_LIST
        mesh.pose = pose_message(estimate.cam_from_canon)
        mesh.scale = Vector3(
            x=float(estimate.scale), y=float(estimate.scale), z=float(estimate.scale)
        )
        mesh.color = _color(track, 0.6)
        mesh.points = meshes[estimate.category]
        text = _marker(header, f"{estimate.category}/text", track, Marker.ADD)
        text.type = Marker.TEXT_VIEW_FACING
        height = 0.15 * float(estimate.size.max())
        above = (
            estimate.cam_from_canon[:3, 3]
            - torch.tensor([0.0, 0.6 * float(estimate.size.max()) + height, 0.0]).double()
        )
        text.pose.position = _point(above.numpy())  # the camera's y points down
        text.scale.z = height
        text.color = _color(track, 1.0)
        text.text = f"{estimate.category} {track}  {estimate.score:.2f}"
        message.markers += [mesh, text]
        if estimate.center is not None:
            message.markers.append(_box_lines(header, estimate, track))
        if track in fans:
            message.markers.append(_fan(header, estimate, track))
    return message


def _box_lines(header: Header, estimate: PoseEstimate, track: int) -> Marker:
    """The edges of the box of an instance."""
    assert estimate.center is not None
    lines = _marker(header, f"{estimate.category}/box", track, Marker.ADD)
    lines.type = Marker.LINE_LIST
    lines.pose = pose_message(estimate.box_pose(estimate.center))
    lines.scale.x = 0.01 * float(estimate.size.max())
    lines.color = _color(track, 1.0)
    half = estimate.size.numpy() / 2
    corners = [half * np.where([c & 1, c & 2, c & 4], 1.0, -1.0) for c in range(8)]
    lines.points = [
        _point(corners[end])
        for c in range(8)
        for side in (1, 2, 4)
        if not c & side
        for end in (c, c | side)
    ]
    return lines


def has_fan(estimate: PoseEstimate) -> bool:
    """Whether a viewer shows a fan: some alternative is likely enough."""
    return len(pose_modes.ranked_modes(estimate, _FAINT)) > 1


def _fan(header: Header, estimate: PoseEstimate, track: int) -> Marker:
    """Thin arrows from the object's origin, one for each pose that is possible.

    An arrow points along the canonical axis that tells the poses apart, x where it does. It is the
    more opaque, the likelier its pose is.
    """
    modes = pose_modes.ranked_modes(estimate, _FAINT)
    rotations = torch.stack([pose[:3, :3] for pose, _, _ in modes])
    away = (1 - (rotations * rotations[:1]).sum(1)).amax(0)  # (3,), 1 - cos of each axis
    axis = int((away >= away.max() / 2).int().argmax())
    side = (axis + 1) % 3
    length = float(estimate.size.max())
    fan = _marker(header, f"{estimate.category}/alternatives", track, Marker.ADD)
    fan.type = Marker.LINE_LIST
    fan.scale.x = 0.02 * length
    fan.pose.orientation.w = 1.0
    for pose, score, _ in modes:
        start = pose[:3, 3]
        tip = start + length * pose[:3, axis]
        back = tip - 0.15 * length * pose[:3, axis]
        barb = 0.08 * length * pose[:3, side]
        color = _color(track, 0.2 + 0.8 * score / max(modes[0][1], _FAINT))
        for ends in ((start, tip), (back + barb, tip), (back - barb, tip)):
            fan.points += [_point(end.numpy()) for end in ends]
            fan.colors += [color, color]
    return fan


def _marker(header: Header, namespace: str, track: int, action: int) -> Marker:
    return Marker(header=header, ns=namespace, id=track, action=action)


def _color(track: int, alpha: float) -> ColorRGBA:
    r, g, b = track_color(track)
    return ColorRGBA(r=r, g=g, b=b, a=alpha)
