"""What the report shows of the videos themselves.

How they were filmed, their masks and hulls, and what features match.
"""

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
from uns_pose_ros.core.types import Alignment, FeatureMesh, Video
from uns_pose_ros.core.view_coverage import azimuth_gaps, azimuths
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.reconstruction.mask_voting import mask_iou
from uns_pose_ros.reporting.capture_check import DoctorConfig
from uns_pose_ros.visualization import drawing
from uns_pose_ros.visualization.alignment_figure import average_features, draw_mesh_views
from uns_pose_ros.visualization.drawing import Floats, RgbImage

_LIMITS = DoctorConfig()
_ABOVE = 80.0  # degrees of elevation from where on a view has no side
_SHOWN = 3  # frames of a video
_RING = 150  # px, side of the picture of the viewpoints
_HULL = (255, 60, 60)
_GREEN, _RED, _GREY = (40, 160, 60), (215, 60, 60), (225, 225, 225)


@dataclass(frozen=True, eq=False)
class VideoSummary:
    """One video as it was filmed and understood."""

    name: str
    views: int  # that made the mesh
    frames: int  # usable ones of the folder
    azimuths: Floats  # (F,) degrees of every view around the object
    elevations: Floats  # (F,) degrees above the plane in which the camera went
    gap: float  # degrees, the widest turn around the object without a view
    # median intersection over union of masks and hull in the frames that are shown
    overlap: float | None
    poses: str  # where they come from
    masks: str
    pictures: Sequence[RgbImage]  # frames with the outlines of mask (yellow) and hull (red)
    seconds: Mapping[str, float]  # by stage, where they were noted

    @property
    def warnings(self) -> list[str]:
        """What to film or mask differently; empty where nothing is wrong."""
        found = []
        if self.views < self.frames:
            found.append(f"{self.name}: {self.views} of {self.frames} frames were used")
        if self.gap > _LIMITS.gap:
            found.append(
                f"{self.name}: no view of {self.gap:.0f}° around the object; walk all around it"
            )
        if self.overlap is not None and self.overlap < _LIMITS.fit:
            found.append(
                f"{self.name}: masks and hull overlap by {self.overlap:.2f} only; look at its "
                "masks and poses"
            )
        return found


def summarize_video(
    video: Video, mesh: FeatureMesh, provenance: Mapping[str, Any]
) -> VideoSummary:
    """Everything of a video with masks and poses, and its mesh, whose provenance is given."""
    view_azimuths, elevations = viewpoints(mesh)
    record = _record(video.folder)
    pictures, overlaps = [], []
    chosen = sorted(
        {
            round(k)
            for k in np.linspace(0, len(video.frames) - 1, min(_SHOWN, len(video.frames)))
        }
    )
    for frame in (video.frames[k] for k in chosen):
        image: RgbImage = read_image(frame.image).numpy()
        if frame.cam_from_obj is not None:
            hull = drawing.mesh_silhouette(
                mesh.vertices, mesh.triangles, frame.camera, frame.cam_from_obj
            )
            if frame.mask is not None:
                mask = read_mask(frame.mask).numpy()
                overlaps.append(mask_iou(mask, hull) if mask.any() else 0.0)
                image = drawing.highlight_mask(image, mask)
            image = drawing.draw_contour(image, hull, _HULL)
        pictures.append(image)
    seconds = {"reconstruct": provenance.get("seconds")}
    seconds |= {
        stage: (record.get(key) or {}).get("seconds")
        for stage, key in (("poses", "poses"), ("masks", "masks"))
    }
    return VideoSummary(
        name=video.name,
        views=len(mesh.cameras_in_obj),
        frames=len(video.frames),
        azimuths=view_azimuths,
        elevations=elevations,
        gap=widest_gap(view_azimuths[elevations < _ABOVE]),
        overlap=float(np.median(overlaps)) if overlaps else None,
        poses="found" if "poses" in record else "given",
        masks="found" if "masks" in record else "given",
        pictures=pictures,
        seconds={
            name: float(value)
            for name, value in seconds.items()
            if isinstance(value, int | float)
        },
    )


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "video.json"
    try:
        record = read_json(path) if path.exists() else {}
    except InvalidInput:
        return {}
    record = record if isinstance(record, dict) else {}
    return {key: value for key, value in record.items() if isinstance(value, dict)}


def viewpoints(mesh: FeatureMesh) -> tuple[Floats, Floats]:
    """Azimuth and elevation (F,), degrees, of every view.

    About the axis that the camera went around, seen from the object.
    """
    poses = mesh.cameras_in_obj.double()
    eyes = -(poses[:, :3, :3].mT @ poses[:, :3, 3:])[..., 0]
    towards = eyes - mesh.vertices.double().mean(0)
    towards = towards / towards.norm(dim=1, keepdim=True).clamp_min(1e-9)
    spread = towards - towards.mean(0)
    basis = torch.linalg.eigh(
        spread.T @ spread
    ).eigenvectors  # ascending: the first is the direction they differ least in
    up = basis[:, 0] * torch.where((towards @ basis[:, 0]).mean() < 0, -1.0, 1.0)
    right = basis[:, 2]
    forward = torch.linalg.cross(up, right)
    elevation = torch.asin((towards @ up).clamp(-1, 1))
    return (
        azimuths((towards @ right).numpy(), (towards @ forward).numpy()),
        np.degrees(elevation.numpy()),
    )


def widest_gap(degrees: Floats) -> float:
    """The widest angle, degrees, between neighbors of azimuths (F,) within one turn.

    360 without any azimuth.
    """
    return float(azimuth_gaps(degrees)[1].max()) if len(degrees) else 360.0


def draw_viewpoints(facts: VideoSummary) -> RgbImage:
    """The viewpoints from above.

    Azimuth around, the higher the nearer to the middle; the gap in red where it is wide.
    """
    picture = np.full((_RING, _RING, 3), 255, np.uint8)
    middle, radius = _RING // 2, _RING // 2 - 10
    cv2.circle(picture, (middle, middle), radius, _GREY, 1, cv2.LINE_AA)
    cv2.circle(picture, (middle, middle), radius // 2, _GREY, 1, cv2.LINE_AA)
    azimuths_with_side = facts.azimuths[facts.elevations < _ABOVE]
    if len(azimuths_with_side) and facts.gap > _LIMITS.gap:
        starts, widths = azimuth_gaps(azimuths_with_side)
        start = starts[widths.argmax()]
        cv2.ellipse(
            picture,
            (middle, middle),
            (radius, radius),
            0,
            -start - facts.gap,
            -start,
            _RED,
            3,
            cv2.LINE_AA,
        )
    for azimuth, elevation in zip(
        np.radians(facts.azimuths), np.abs(facts.elevations), strict=True
    ):
        reach = radius * (1 - min(elevation, 90) / 90)
        at = (
            round(middle + reach * np.cos(azimuth)),
            round(middle - reach * np.sin(azimuth)),
        )
        cv2.circle(picture, at, 3, _GREEN, -1, cv2.LINE_AA)
    return picture


def choose_pair(
    alignment: Alignment, meshes: Mapping[str, FeatureMesh]
) -> tuple[str, str] | None:
    """The two kept videos with the highest and the lowest confidence.

    None where there are no two.
    """
    order = alignment.confidence.argsort(descending=True).tolist()
    kept = [
        alignment.videos[k]
        for k in order
        if bool(alignment.kept[k]) and alignment.videos[k] in meshes
    ]
    return (kept[0], kept[-1]) if len(kept) > 1 else None


def draw_correspondences(
    a: str, b: str, alignment: Alignment, meshes: Mapping[str, FeatureMesh]
) -> tuple[RgbImage, RgbImage]:
    """Both meshes in the canonical frame.

    A colored by position, every vertex of b as that of a whose features match it.
    """
    vertices = {name: canonical_vertices(name, alignment, meshes[name]) for name in (a, b)}
    colors = position_colors(vertices[a])
    skin_a, skin_b = average_features(meshes[a]), average_features(meshes[b])
    likeness = (
        torch.nn.functional.normalize(skin_b.features, dim=1)
        @ torch.nn.functional.normalize(skin_a.features, dim=1).T
    )
    matched = colors[likeness.argmax(1).numpy()]
    matched[(skin_b.features.norm(dim=1) == 0).numpy()] = 200.0  # seen by no view
    return (
        draw_mesh_views(vertices[a], meshes[a].triangles, colors),
        draw_mesh_views(vertices[b], meshes[b].triangles, matched),
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
