"""FoundationPose's reference views: color, depth, mask and pose of the camera for each object.

The layout that `bundlesdf/run_nerf.py` of https://github.com/NVlabs/FoundationPose reads
(`ref_views_16/ob_0000001/`). Depth is in mm, poses and the model are in m.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from uns_pose_ros.exports.formats.bop_format import encode_mask
from uns_pose_ros.exports.formats.depth_rendering import render_depth
from uns_pose_ros.exports.formats.written_files import WrittenFiles
from uns_pose_ros.exports.label_set import LabelScene, Matrix, ObjectInstance
from uns_pose_ros.exports.label_views import ImageView, LabelRenderer
from uns_pose_ros.exports.work_ahead import work_ahead
from uns_pose_ros.io.depth_images import Depth, encode_depth
from uns_pose_ros.io.encoded_image import EncodedImage

_FOLDERS = ("rgb", "depth_enhanced", "mask", "cam_in_ob")
_MOST_MM = 65535  # of 16 bits


def write_foundationpose(
    folder: Path, renderer: LabelRenderer, written: WrittenFiles
) -> dict[str, int]:
    """Write ob_0000001/ and so on, with a model in model/model.obj.

    An image whose camera differs from the first one is left out, because an object has one K.txt.

    Returns:
        How many depth images were measured, and how many were rendered from the model.
    """
    counts = {"measured": 0, "rendered": 0}
    for number, instance in enumerate(renderer.labels.instances):
        place = folder / f"ob_{number + 1:07d}"
        for name in (*_FOLDERS, "model"):
            (place / name).mkdir(parents=True)
        _write_obj(place / "model" / "model.obj", instance)
        count = 0
        views = _views_of_one_camera(number, renderer)
        writing = work_ahead(partial(_write_view, place), enumerate(views))
        for (k, (scene, view)), kind in writing:
            counts[kind.result()] += 1
            if k == 0:
                write_matrix(place / "K.txt", view.camera.matrix.numpy())
            written.note(place / "rgb" / f"{k:07d}.png", scene, view)
            count = k + 1
        frames = "".join(f"- {k}\n" for k in range(count)) or "[]\n"
        (place / "select_frames.yml").write_text(frames, encoding="ascii")
    return counts


def _views_of_one_camera(
    number: int, renderer: LabelRenderer
) -> Iterator[tuple[LabelScene, ImageView]]:
    first: ImageView | None = None
    for scene in renderer.labels.scenes_of(number):
        for view in renderer.views(scene):
            first = first or view
            if _same_camera(first, view):
                yield scene, view
            else:
                name = f"{scene.name}/{view.frame.name}"
                renderer.leave_out(view, "images of another camera than the first", name)


def _write_view(place: Path, numbered: tuple[int, tuple[LabelScene, ImageView]]) -> str:
    """Write the four files of an image; returns whether its depth is measured or rendered."""
    number, (_, view) = numbered
    name, (shown,) = f"{number:07d}", view.objects
    color = view.file
    if view.ending != ".png":
        color, _ = EncodedImage.of_pixels(view.pixels).encoded(".png", 0)
    depth, kind = view.measured_depth(), "measured"
    if depth is None:
        depth, kind = in_millimeters(render_depth(shown)), "rendered"
    (place / "rgb" / f"{name}.png").write_bytes(color)
    (place / "depth_enhanced" / f"{name}.png").write_bytes(encode_depth(depth))
    (place / "mask" / f"{name}.png").write_bytes(encode_mask(shown.visible))
    pose = np.asarray(np.linalg.inv(shown.label.cam_from_model), np.float64)
    write_matrix(place / "cam_in_ob" / f"{name}.txt", pose)
    return kind


def _same_camera(first: ImageView, other: ImageView) -> bool:
    sizes = [(view.camera.width, view.camera.height) for view in (first, other)]
    matrices = [view.camera.matrix for view in (first, other)]
    return sizes[0] == sizes[1] and bool((matrices[0] - matrices[1]).abs().max() < 1e-6)


def in_millimeters(depth: Matrix) -> Depth:
    """Depth (H, W) in m as 16-bit mm; 0 where there is none, or where it is too far."""
    millimeters = np.rint(1000 * depth)
    return np.where(millimeters <= _MOST_MM, millimeters, 0).astype(np.uint16)


def write_matrix(path: Path, matrix: Matrix) -> None:
    """A matrix as text that `numpy.loadtxt` reads."""
    np.savetxt(path, matrix, fmt="%.10f")


def _write_obj(path: Path, instance: ObjectInstance) -> None:
    """A mesh as a Wavefront file."""
    path.write_text("".join(_obj_lines(instance)), encoding="ascii")


def _obj_lines(instance: ObjectInstance) -> Iterable[str]:
    for x, y, z in instance.vertices.tolist():
        yield f"v {x:.9g} {y:.9g} {z:.9g}\n"
    for a, b, c in (instance.triangles + 1).tolist():
        yield f"f {a} {b} {c}\n"
