"""Summary of each video for the report: its viewpoints, masks, hull and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import transform
from uns_pose_ros.core.types import Alignment, FeatureMesh, Frame, Video
from uns_pose_ros.core.view_coverage import azimuth_gaps, azimuths
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.schema.video_record import VideoRecord, read_video_record
from uns_pose_ros.reconstruction.mask_voting import mask_iou
from uns_pose_ros.reporting.capture_check import DoctorConfig
from uns_pose_ros.visualization import drawing
from uns_pose_ros.visualization.alignment_figure import average_features, draw_mesh_views
from uns_pose_ros.visualization.drawing import Floats, RgbImage

_LIMITS = DoctorConfig()
_ABOVE = 80.0  # degrees, elevation from which a view has no meaningful azimuth
_SHOWN_FRAMES = 3  # of a video
_ALONG = 0.9  # cosine from which on two directions are nearly one
_RING = 150  # px, side of the image of the viewpoints
_HULL = (255, 60, 60)
_GREEN = (40, 160, 60)
_RED = (215, 60, 60)
_GRAY = (225, 225, 225)
_UNSEEN = 200.0  # gray of vertices that no view sees


@dataclass(frozen=True, eq=False)
class VideoSummary:
    """How one video was filmed, and what the pipeline made of it."""

    name: str
    views: int  # number of views that made the mesh
    frames: int  # number of usable frames in the folder
    azimuths: Floats  # (F,) degrees of every view around the object
    # (F,) degrees above the level plane of the up axis, else above that of the camera's path
    elevations: Floats
    gap: float  # degrees, the widest angle around the object without a view
    # median intersection over union of masks and hull
    overlap: float | None
    poses: str  # "given" by the user or "found" by the pipeline
    masks: str  # the same
    images: Sequence[RgbImage]  # frames with the outlines of mask (yellow) and hull (red)
    seconds: Mapping[str, float]  # by stage, if they were recorded
    captions: Sequence[str] = ()  # of the images
    worst: tuple[str, float] | None = (
        None  # the frame with the least overlap, and its overlap
    )

    @property
    def warnings(self) -> list[str]:
        """What to film or mask differently; empty if nothing is wrong."""
        lines = []
        if self.views < self.frames:
            lines.append(f"{self.name}: {self.views} of {self.frames} frames were used")
        if self.gap > _LIMITS.gap:
            lines.append(
                f"{self.name}: no view of {self.gap:.0f}° around the object; walk all around it"
            )
        if self.overlap is not None and self.overlap < _LIMITS.fit:
            lines.append(
                f"{self.name}: masks and hull overlap by {self.overlap:.2f} only; look at its "
                "masks and poses"
            )
        elif self.worst is not None and self.worst[1] < _LIMITS.fit:
            lines.append(
                f"{self.name}: the mask of {self.worst[0]} and the hull overlap by "
                f"{self.worst[1]:.2f} only; the worst masks are shown below"
            )
        return lines


def summarize_video(
    video: Video,
    mesh: FeatureMesh,
    provenance: Mapping[str, Any],
    up: Tensor | None = None,
) -> VideoSummary:
    """Summarize a video for the report.

    Args:
        video: with masks and poses.
        mesh: the mesh that was made from the video.
        provenance: of the mesh.
        up: (3,) the direction up, obj frame; None: across the plane in which the camera moved.
    """
    view_azimuths, elevations = viewpoints(mesh, up)
    record = _record(video.folder)
    overlaps = mask_overlaps(video, mesh)
    worst = min(overlaps, key=lambda k: overlaps[k], default=None)
    shown = choose_frames(overlaps, len(video.frames))
    return VideoSummary(
        name=video.name,
        views=len(mesh.cameras_in_obj),
        frames=len(video.frames),
        azimuths=view_azimuths,
        elevations=elevations,
        gap=widest_gap(view_azimuths[elevations < _ABOVE]),
        overlap=float(np.median(list(overlaps.values()))) if overlaps else None,
        poses="given" if record.poses is None else "found",
        masks="given" if record.masks is None else "found",
        images=[_draw_frame(video.frames[k], mesh) for k in shown],
        captions=[_frame_caption(video, k, overlaps.get(k)) for k in shown],
        worst=None if worst is None else (video.frames[worst].name, overlaps[worst]),
        seconds=_stage_seconds(record, provenance),
    )


def mask_overlaps(video: Video, mesh: FeatureMesh) -> dict[int, float]:
    """Intersection over union of mask and hull in every frame that has both, by number."""
    overlaps = {}
    for k, frame in enumerate(video.frames):
        if frame.cam_from_obj is None or frame.mask is None:
            continue
        mask = read_mask(frame.mask).numpy()
        hull = drawing.mesh_silhouette(
            mesh.vertices, mesh.triangles, frame.camera, frame.cam_from_obj
        )
        overlaps[k] = mask_iou(mask, hull) if mask.any() else 0.0
    return overlaps


def choose_frames(overlaps: Mapping[int, float], count: int) -> list[int]:
    """Numbers of the frames that are shown: the worst masks first, then a usual one.

    Without overlaps they are evenly spread over the `count` frames.
    """
    if not overlaps:
        few = min(_SHOWN_FRAMES, count)
        return sorted({round(number) for number in np.linspace(0, count - 1, few)})
    ranked = sorted(overlaps, key=lambda k: overlaps[k])
    return list(dict.fromkeys([*ranked[: _SHOWN_FRAMES - 1], ranked[len(ranked) // 2]]))


def _draw_frame(frame: Frame, mesh: FeatureMesh) -> RgbImage:
    """The image of a frame with the outlines of mask and hull."""
    image: RgbImage = read_image(frame.image).numpy()
    if frame.cam_from_obj is None:
        return image
    hull = drawing.mesh_silhouette(
        mesh.vertices, mesh.triangles, frame.camera, frame.cam_from_obj
    )
    if frame.mask is not None:
        image = drawing.highlight_mask(image, read_mask(frame.mask).numpy())
    return drawing.draw_contour(image, hull, _HULL)


def _frame_caption(video: Video, number: int, overlap: float | None) -> str:
    name = video.frames[number].name
    return name if overlap is None else f"{name}, overlap {overlap:.2f}"


def _stage_seconds(record: VideoRecord, provenance: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each stage, if they were recorded."""
    seconds = {
        "reconstruct": provenance.get("seconds"),
        "poses": record.poses and record.poses.seconds,
        "masks": record.masks and record.masks.seconds,
    }
    return {
        stage: float(value)
        for stage, value in seconds.items()
        if isinstance(value, int | float)
    }


def _record(folder: Path) -> VideoRecord:
    """What a folder's video.json says; nothing if the file cannot be used."""
    try:
        return read_video_record(folder)
    except InvalidInput:
        return VideoRecord()


def viewpoints(mesh: FeatureMesh, up: Tensor | None = None) -> tuple[Floats, Floats]:
    """Azimuth and elevation (F,), degrees, of every view, seen from the object.

    The vertical axis is `up` (3,), obj frame, else the axis that the camera moved around.
    """
    poses = mesh.cameras_in_obj.double()
    eyes = -(poses[:, :3, :3].mT @ poses[:, :3, 3:])[..., 0]
    towards = eyes - mesh.vertices.double().mean(0)
    towards = towards / towards.norm(dim=1, keepdim=True).clamp_min(1e-9)
    spread = towards - towards.mean(0)
    # eigenvectors in ascending order: the views differ least along the first
    basis = torch.linalg.eigh(spread.T @ spread).eigenvectors
    right = basis[:, 2]
    if up is None:
        up = basis[:, 0] * torch.where((towards @ basis[:, 0]).mean() < 0, -1.0, 1.0)
    else:
        up = up.double() / up.double().norm()
        beside = basis[:, 1] if abs(float(right @ up)) > _ALONG else right
        right = torch.nn.functional.normalize(beside - (beside @ up) * up, dim=0)
    forward = torch.linalg.cross(up, right)
    elevation = torch.asin((towards @ up).clamp(-1, 1))
    return (
        azimuths((towards @ right).numpy(), (towards @ forward).numpy()),
        np.degrees(elevation.numpy()),
    )


def widest_gap(degrees: Floats) -> float:
    """The widest angle, degrees, between neighboring azimuths (F,); 360 without any azimuth."""
    return float(azimuth_gaps(degrees)[1].max()) if len(degrees) else 360.0


def draw_viewpoints(video: VideoSummary) -> RgbImage:
    """Draw the viewpoints as seen from above.

    A higher viewpoint is nearer to the center. A wide gap is red.
    """
    image = np.full((_RING, _RING, 3), 255, np.uint8)
    middle = _RING // 2
    radius = middle - 10
    center = (middle, middle)
    cv2.circle(image, center, radius, _GRAY, 1, cv2.LINE_AA)
    cv2.circle(image, center, radius // 2, _GRAY, 1, cv2.LINE_AA)
    sideways = video.azimuths[video.elevations < _ABOVE]
    if len(sideways) and video.gap > _LIMITS.gap:
        starts, widths = azimuth_gaps(sideways)
        end = -float(starts[widths.argmax()])
        begin = end - video.gap
        cv2.ellipse(image, center, (radius, radius), 0, begin, end, _RED, 3, cv2.LINE_AA)
    elevations = np.abs(video.elevations)
    for azimuth, elevation in zip(np.radians(video.azimuths), elevations, strict=True):
        reach = radius * (1 - min(elevation, 90) / 90)
        x = round(middle + reach * np.cos(azimuth))
        y = round(middle - reach * np.sin(azimuth))
        cv2.circle(image, (x, y), 3, _GREEN, -1, cv2.LINE_AA)
    return image


def choose_pair(
    alignment: Alignment, meshes: Mapping[str, FeatureMesh]
) -> tuple[str, str] | None:
    """The kept videos with the highest and the lowest confidence; None if fewer than two exist.

    The reference of a published alignment is the first.
    """
    order = alignment.confidence.argsort(descending=True, stable=True).tolist()
    order.sort(key=lambda k: alignment.videos[k] != alignment.reference)
    kept = [
        alignment.videos[k]
        for k in order
        if bool(alignment.kept[k]) and alignment.videos[k] in meshes
    ]
    return (kept[0], kept[-1]) if len(kept) > 1 else None


def draw_correspondences(
    first: str, second: str, alignment: Alignment, meshes: Mapping[str, FeatureMesh]
) -> tuple[RgbImage, RgbImage]:
    """Draw two meshes in the canonical frame so that matching vertices have one color.

    Args:
        first: name of the video whose vertices are colored by position.
        second: name of the video whose vertices have the color of the vertex of `first` with the
            most similar feature.
        alignment: of the category.
        meshes: by video.

    Returns:
        The images of the two meshes.
    """
    vertices = {
        name: canonical_vertices(name, alignment, meshes[name]) for name in (first, second)
    }
    colors = position_colors(vertices[first])
    features = {name: average_features(meshes[name]).features for name in (first, second)}
    unit = {
        name: torch.nn.functional.normalize(rows, dim=1) for name, rows in features.items()
    }
    similarity = unit[second] @ unit[first].T
    matched = colors[similarity.argmax(1).numpy()]
    unseen = features[second].norm(dim=1) == 0
    matched[unseen.numpy()] = _UNSEEN
    return (
        draw_mesh_views(vertices[first], meshes[first].triangles, colors),
        draw_mesh_views(vertices[second], meshes[second].triangles, matched),
    )


def canonical_vertices(name: str, alignment: Alignment, mesh: FeatureMesh) -> Tensor:
    """Vertices (V, 3) float64 of a video's mesh in the canonical frame."""
    return transform(
        alignment.canon_from_obj[alignment.videos.index(name)], mesh.vertices.double()
    )


def position_colors(vertices: Tensor) -> Floats:
    """Colors (V, 3) RGB 0..255 of canonical positions."""
    colors: NDArray[np.float64] = np.clip(255 * (vertices.double().numpy() + 0.5), 0, 255)
    return colors
