"""Images of meshes and poses, drawn with OpenCV alone, fast enough for every camera frame.

Images are (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.named_frames import NamedFrame, PlacedFrame
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate

RgbImage = NDArray[np.uint8]
Floats = NDArray[np.float64]

# RGB of x, y and z
AXIS_COLORS: tuple[tuple[int, int, int], ...] = (
    (230, 40, 40),
    (40, 190, 40),
    (50, 90, 255),
)
# pairs of corners; bit d of a corner's number is 0 at the lower end of axis d, 1 at the upper end
_BOX_EDGES = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]
# turns of hue between neighboring track ids: no two of the first dozen look alike
_GOLDEN_RATIO = 0.618034
_FRAME_LENGTH = 0.3  # of an axis of a named frame, in axes of the object
GRASP_COLOR = (255, 200, 0)
_OPACITY = 0.5  # of the template over the image
_NEAR = 1e-3  # of the object's distance: what is nearer, or behind the camera, is not drawn
_FAR_PX = 1 << 14  # px, greatest coordinate that OpenCV gets
_SHIFT = 4  # fractional bits of OpenCV's pixel coordinates


def draw_estimate(
    image: RgbImage | Tensor, camera: Camera, estimate: PoseEstimate, model: CategoryModel
) -> RgbImage:
    """A copy of the image with the template in its pose, its box, its axes and a caption.

    Named frames are small axes with their names; a dot marks those that the image shows. The color
    of the template shows the canonical position.
    """
    return draw_posed_mesh(image, camera, estimate, model.vertices, model.triangles)


def draw_posed_mesh(
    image: RgbImage | Tensor,
    camera: Camera,
    estimate: PoseEstimate,
    template_vertices: Tensor,
    template_triangles: Tensor,
) -> RgbImage:
    """What `draw_estimate` draws, for a template of vertices (V, 3) and triangles (T, 3).

    An estimate without a box of its own gets that of the template.
    """
    canvas = np.array(image, dtype=np.uint8)
    vertices = template_vertices.double().cpu().numpy()
    triangles = template_triangles.cpu().numpy()
    low, high = vertices.min(0), vertices.max(0)
    ends = low, high
    if estimate.center is not None:
        middle, half = estimate.center.numpy(), estimate.size.numpy() / 2
        ends = (middle - half) / estimate.scale, (middle + half) / estimate.scale
    corners = np.stack([np.where([c & 1, c & 2, c & 4], *ends[::-1]) for c in range(8)])
    reach = 0.6 * float((high - low).max())
    tips = np.concatenate([np.zeros((1, 3)), reach * np.eye(3)]) + (low + high) / 2
    pose = estimate.cam_from_canon.cpu().numpy()
    points = (
        np.concatenate([vertices, corners, tips]) * estimate.scale @ pose[:3, :3].T
        + pose[:3, 3]
    )
    pixels, visible = _project(points, camera)
    n, m = len(vertices), len(vertices) + 8
    colors = 255 * (vertices - low) / np.maximum(high - low, 1e-9)
    whole = visible[triangles].all(1)
    paint_triangles(canvas, points[:n], pixels[:n], triangles[whole], colors, _OPACITY)
    width = max(1, round(min(canvas.shape[:2]) / 300))
    for a, b in _BOX_EDGES:
        _line(canvas, pixels, visible, n + a, n + b, (255, 255, 255), width)
    for axis, color in enumerate(AXIS_COLORS):
        _line(canvas, pixels, visible, m, m + 1 + axis, color, 2 * width)
    if visible[n:m].any():
        corner = pixels[n:m][visible[n:m]].min(0)
        write_text(canvas, _caption(estimate), corner - [0, 4])
    for placed in estimate.frames:
        _draw_frame(canvas, camera, placed, _FRAME_LENGTH * reach * estimate.scale)
    return canvas


def _draw_frame(
    canvas: RgbImage, camera: Camera, placed: PlacedFrame, length: float
) -> None:
    """Draw a named frame: axes of a length, the opening of a grasp along y, and the name."""
    pose = placed.cam_from_frame.cpu().numpy()
    half = (placed.width or 0.0) / 2
    ends = np.concatenate(
        [np.zeros((1, 3)), length * np.eye(3), [[0.0, -half, 0.0], [0.0, half, 0.0]]]
    )
    pixels, visible = _project(ends @ pose[:3, :3].T + pose[:3, 3], camera)
    width = max(1, round(min(canvas.shape[:2]) / 300))
    if half:
        _line(canvas, pixels, visible, 4, 5, GRASP_COLOR, 3 * width)
    for axis, color in enumerate(AXIS_COLORS):
        _line(canvas, pixels, visible, 0, 1 + axis, color, width)
    if visible[0]:
        center = (round(float(pixels[0, 0])), round(float(pixels[0, 1])))
        thickness = -1 if placed.seen else 1
        cv2.circle(canvas, center, 2 * width, GRASP_COLOR, thickness, cv2.LINE_AA)
        write_text(canvas, placed.name, pixels[0] + [3 * width, -3 * width])


def track_color(track: int) -> tuple[float, float, float]:
    """The color of a track, RGB from 0 to 1."""
    return colorsys.hsv_to_rgb(track * _GOLDEN_RATIO % 1.0, 0.7, 1.0)


def _caption(estimate: PoseEstimate) -> str:
    size = " x ".join(f"{100 * s:.0f}" for s in estimate.size.tolist())
    return f"{estimate.category} {100 * estimate.score:.0f}%" + (
        f" {size} cm" if estimate.metric else ""
    )


def _project(points: Floats, camera: Camera) -> tuple[Floats, NDArray[np.bool_]]:
    """Project points through the camera and its lens.

    Args:
        points: (N, 3), camera frame.
        camera: the camera.

    Returns:
        Pixels (N, 2), and for each point whether it is in front of the camera and near the image.
    """
    ahead = points[:, 2] > _NEAR * max(float(np.abs(points).max()), 1e-9)
    safe = np.where(ahead[:, None], points, [0.0, 0.0, 1.0])
    pixels = cv2.projectPoints(
        safe,
        np.zeros(3),
        np.zeros(3),
        camera.matrix.cpu().numpy(),
        camera.distortion.cpu().numpy(),
    )[0]
    pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    return pixels, ahead & (np.abs(pixels) < _FAR_PX).all(1)


def paint_triangles(
    canvas: RgbImage,
    points: Floats,
    pixels: Floats,
    triangles: NDArray[np.int64],
    colors: Floats,
    opacity: float = 1.0,
) -> None:
    """Paint the triangles that face the camera onto the canvas, the far ones first.

    A triangle has one color, which is darker if the triangle is seen at a slant.

    Args:
        canvas: (H, W, 3), is changed.
        points: (V, 3) vertices, camera frame.
        pixels: (V, 2) vertices in the image.
        triangles: (T, 3) vertex indices.
        colors: (V, 3) RGB from 0 to 255.
        opacity: 0 to 1.
    """
    if not len(triangles):
        return
    corner = points[triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    ray = corner.mean(1)
    facing = -(normal * ray).sum(1) / np.maximum(
        np.linalg.norm(normal, axis=1) * np.linalg.norm(ray, axis=1), 1e-12
    )
    shown = np.nonzero(facing > 0)[0]
    shown = shown[np.argsort(-ray[shown, 2])]
    shade = colors[triangles[shown]].mean(1) * (0.55 + 0.45 * facing[shown, None])
    polygons = np.round(pixels[triangles[shown]] * (1 << _SHIFT)).astype(np.int32)
    layer = canvas.copy() if opacity < 1 else canvas
    for polygon, color in zip(polygons, shade.tolist(), strict=True):
        cv2.fillConvexPoly(layer, polygon, color, cv2.LINE_8, _SHIFT)
    if opacity < 1:
        cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0, dst=canvas)


def _line(
    canvas: RgbImage,
    pixels: Floats,
    visible: NDArray[np.bool_],
    a: int,
    b: int,
    color: tuple[int, int, int],
    width: int,
) -> None:
    if visible[a] and visible[b]:
        start, end = (
            tuple(int(x) for x in np.round(pixels[k] * (1 << _SHIFT))) for k in (a, b)
        )
        cv2.line(canvas, start, end, color, width, cv2.LINE_AA, _SHIFT)


def write_text(canvas: RgbImage, text: str, at: Floats) -> None:
    """Write a line of text on a dark background.

    Args:
        canvas: (H, W, 3), is changed.
        text: the line.
        at: (2,) px, lower left corner; the text is moved if it would leave the canvas.
    """
    height, width = canvas.shape[:2]
    scale = max(0.35, min(height, width) / 900)
    (length, rise), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x = int(np.clip(at[0], 2, max(2, width - length - 2)))
    y = int(np.clip(at[1], rise + 2, max(rise + 2, height - base - 1)))
    cv2.rectangle(
        canvas, (x - 2, y - rise - 2), (x + length + 2, y + base), (30, 30, 30), -1
    )
    cv2.putText(
        canvas,
        text,
        (x, y),
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        (255, 255, 255),
        1,
        cv2.LINE_AA,
    )


def draw_mesh(
    vertices: Tensor,
    triangles: Tensor,
    colors: Floats,
    azimuth: float,
    elevation: float,
    size: int = 200,
    span: float = 1.0,
    frames: Sequence[NamedFrame] = (),
) -> RgbImage:
    """Draw a mesh in canonical axes on white, in parallel projection about the origin, z up.

    Named frames are small axes with their names, also where the mesh hides them.

    Args:
        vertices: (V, 3), canonical frame.
        triangles: (T, 3) vertex indices.
        colors: (V, 3) RGB from 0 to 255.
        azimuth: degrees; 0: seen from +x, 90: seen from +y.
        elevation: degrees.
        size: px, side of the image.
        span: canonical units that fill the image.
        frames: named frames.
    """
    a, e = np.radians([azimuth, elevation])
    back = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    cam_from_canon = np.stack([right, np.cross(right, back), -back])
    distance = 1000 * span  # so far away that rays are parallel
    focal = size * distance / span
    canvas = np.full((size, size, 3), 255, np.uint8)

    def to_pixels(points: Floats) -> Floats:
        return points[:, :2] / points[:, 2:] * focal + (size - 1) / 2

    points = vertices.double().numpy() @ cam_from_canon.T + [0, 0, distance]
    axes = np.concatenate(
        [np.zeros((1, 3)), 0.45 * span * np.eye(3)]
    ) @ cam_from_canon.T + [0, 0, distance]
    ends, ahead = to_pixels(axes), np.ones(4, bool)
    for axis in (0, 1, 2):
        _line(canvas, ends, ahead, 0, 1 + axis, AXIS_COLORS[axis], 1)
    paint_triangles(canvas, points, to_pixels(points), triangles.numpy(), colors)
    for axis in (0, 1, 2):
        cv2.circle(
            canvas,
            (round(ends[1 + axis, 0]), round(ends[1 + axis, 1])),
            3,
            AXIS_COLORS[axis],
            -1,
            cv2.LINE_AA,
        )
    matrix = [[focal, 0.0, (size - 1) / 2], [0.0, focal, (size - 1) / 2], [0.0, 0.0, 1.0]]
    camera = Camera(torch.tensor(matrix, dtype=torch.float64), size, size)
    shift = np.array([0.0, 0.0, distance])
    view = from_parts(torch.from_numpy(cam_from_canon), torch.from_numpy(shift))
    for frame in frames:
        canon_from_frame = frame.canon_from_frame
        pose = view @ canon_from_frame
        placed = PlacedFrame(
            frame, frame.name, canon_from_frame, pose, None, True, frame.width
        )
        _draw_frame(canvas, camera, placed, 0.15 * span)
    return canvas


def highlight_mask(image: RgbImage, mask: NDArray[np.bool_]) -> RgbImage:
    """A copy of the image, darkened outside the mask, with the edge of the mask in yellow."""
    return draw_contour(
        np.where(mask[..., None], image, image // 2).astype(np.uint8), mask, (255, 220, 0)
    )


def draw_contour(
    image: RgbImage, mask: NDArray[np.bool_], color: tuple[int, int, int]
) -> RgbImage:
    """A copy of the image with the edge of the mask."""
    canvas = image.copy()
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(
        canvas, contours, -1, color, max(1, round(min(mask.shape) / 200)), cv2.LINE_AA
    )
    return canvas


def mesh_silhouette(
    vertices: Tensor, triangles: Tensor, camera: Camera, cam_from_obj: Tensor
) -> NDArray[np.bool_]:
    """The mask (H, W) of a mesh as the camera with its lens sees it.

    Args:
        vertices: (V, 3), obj frame.
        triangles: (T, 3) vertex indices.
        camera: the camera.
        cam_from_obj: (4, 4) pose.
    """
    pose = cam_from_obj.double().cpu().numpy()
    points = vertices.double().cpu().numpy() @ pose[:3, :3].T + pose[:3, 3]
    pixels, visible = _project(points, camera)
    corners = triangles.cpu().numpy()
    polygons = np.round(pixels[corners[visible[corners].all(1)]] * (1 << _SHIFT)).astype(
        np.int32
    )
    mask = np.zeros((camera.height, camera.width), np.uint8)
    for polygon in polygons:
        cv2.fillConvexPoly(mask, polygon, 1, cv2.LINE_8, _SHIFT)
    return mask > 0


def fit_into_square(image: RgbImage, size: int) -> RgbImage:
    """The image scaled into a white square of `size` px; its aspect ratio stays."""
    height, width = image.shape[:2]
    factor = size / max(height, width)
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    scaled = cv2.resize(
        image, small, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    )
    canvas = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - small[1]) // 2, (size - small[0]) // 2
    canvas[top : top + small[1], left : left + small[0]] = scaled
    return canvas
