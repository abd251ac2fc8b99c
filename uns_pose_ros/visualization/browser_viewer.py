"""Images and the poses found in them as a 3D scene in a browser.

The scene shows camera and image, and template and frame of each object. The panel beside it shows
the image with the poses drawn in.
"""

from __future__ import annotations

import html
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.camera import resize_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import invert, matrix_to_quaternion
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.visualization.drawing import draw_posed_mesh, track_color
from uns_pose_ros.visualization.page_guard import PageGuard

# a category's vertices (V, 3) float, canon frame, and triangles (T, 3) int
TemplateMesh: TypeAlias = tuple[Tensor, Tensor]

_LONGEST = 640  # px, longer side of the images that are shown
_IMAGE_DISTANCE = 0.25  # of the image from the camera, in distances of the nearest object
_DEFAULT_DISTANCE = 4.0  # of the nearest object, in a scene without objects


@dataclass(frozen=True, eq=False)
class Scene:
    """One image and the poses found in it."""

    name: str
    image: NDArray[np.uint8]  # (h, w, 3) RGB
    camera: Camera  # of the full image, which may be larger
    estimates: tuple[PoseEstimate, ...]
    tracks: tuple[int, ...]  # of the estimates
    note: str = ""  # shown below the title
    drawn: bool = False  # the image has the poses drawn in already


def make_scene(
    name: str,
    image: NDArray[np.uint8],
    camera: Camera,
    estimates: Sequence[PoseEstimate],
    tracks: Sequence[int],
    note: str = "",
    drawn: bool = False,
) -> Scene:
    """Make a scene with a small copy of the image, because many scenes are held at once.

    Args:
        name: title of the scene.
        image: (H, W, 3) RGB.
        camera: the camera of the full image.
        estimates: the poses.
        tracks: track id of each estimate.
        note: line below the title.
        drawn: whether the image has the poses drawn in already.
    """
    scale = min(1.0, _LONGEST / max(image.shape[:2]))
    small = np.asarray(
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA),
        dtype=np.uint8,
    )
    return Scene(name, small, camera, tuple(estimates), tuple(tracks), note, drawn)


def template_meshes(models: Sequence[CategoryModel]) -> dict[str, TemplateMesh]:
    """The template of each model by category."""
    return {model.category: (model.vertices, model.triangles) for model in models}


class Viewer:
    """Serves scenes in the frame of their camera: x right, y down, z forward.

    A slider of the page selects the scene.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        meshes: Mapping[str, TemplateMesh],
        host: str = "127.0.0.1",
        port: int = 8080,
    ) -> None:
        """Start the server and show the first scene.

        Args:
            scenes: the scenes that the slider selects.
            meshes: the template of every category that will be shown.
            host: address to serve; 0.0.0.0 lets other machines connect.
            port: port to serve; if it is in use, the next free one.

        Raises:
            InvalidInput: `scenes` is empty.
        """
        import viser

        if not scenes:
            raise InvalidInput("no image to show")
        self._scenes = scenes
        self._meshes = meshes
        # browsers open connections in advance and may close them unused; the server would log a
        # traceback for each of them
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
        self._host, self._guard = host, PageGuard()
        with self._guard.applied():
            self._server = viser.ViserServer(host=host, port=port, verbose=False)
        self._server.scene.set_up_direction("-y")
        distances = [_nearest(scene) for scene in scenes if scene.estimates]
        self._look_from_above(distances[0] if distances else _DEFAULT_DISTANCE)
        self._text = self._server.gui.add_html("")
        self._panel = self._server.gui.add_image(scenes[0].image, format="jpeg")
        if len(scenes) > 1:
            slider = self._server.gui.add_slider("image", 0, len(scenes) - 1, 1, 0)
            slider.on_update(lambda event: self.show(int(slider.value)))
        self._handles: dict[str, Any] = {}
        self.show(0)

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self._server.get_port())

    @property
    def address(self) -> str:
        """Address of the page, with the token without which it is not shown."""
        return f"http://{self._host}:{self.port}/?token={self._guard.token}"

    @property
    def nodes(self) -> Mapping[str, Any]:
        """What the browser shows now, by name."""
        return self._handles

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def show(self, number: int) -> None:
        """Show scene `number` instead of the current one."""
        self.put(self._scenes[number])

    def put(self, scene: Scene) -> None:
        """Show a scene instead of the current one; it need not be a scene of the slider."""
        with self._server.atomic():
            for handle in self._handles.values():
                handle.remove()
            self._handles = self._add_camera(scene)
            for estimate, track in zip(scene.estimates, scene.tracks, strict=True):
                self._handles |= self._add_object(estimate, track)
            lines = [scene.note] if scene.note else []
            lines += map(_describe, scene.estimates, scene.tracks)
            self._text.content = _page_text(scene.name, lines)
            self._panel.image = self._draw(scene)

    def _draw(self, scene: Scene) -> NDArray[np.uint8]:
        """The image (h, w, 3) of a scene with its poses drawn in."""
        image = scene.image
        if scene.drawn:
            return image
        camera = resize_camera(scene.camera, image.shape[1], image.shape[0])
        for estimate in reversed(scene.estimates):  # the best on top
            image = draw_posed_mesh(
                image, camera, estimate, *self._meshes[estimate.category]
            )
        return image

    def _look_from_above(self, distance: float) -> None:
        """Place the viewer's camera above, beside and behind the recorded camera."""
        camera = self._server.initial_camera
        camera.position = (1.1 * distance, -0.7 * distance, -0.1 * distance)
        camera.look_at = (0.0, 0.0, 0.7 * distance)

    def _add_camera(self, scene: Scene) -> dict[str, Any]:
        camera = scene.camera
        frustum = self._server.scene.add_camera_frustum(
            "/camera",
            2 * math.atan(camera.height / (2 * float(camera.matrix[1, 1]))),
            camera.width / camera.height,
            scale=_IMAGE_DISTANCE * _nearest(scene),
            image=scene.image,
        )
        return {"/camera": frustum}

    def _add_object(self, estimate: PoseEstimate, track: int) -> dict[str, Any]:
        name = f"/object_{track}"  # a category's name may hold what viser reads as a path
        pose = estimate.cam_from_canon
        frame = self._server.scene.add_frame(
            name,
            axes_length=0.5 * estimate.scale,
            axes_radius=0.01 * estimate.scale,
            position=pose[:3, 3].numpy(),
            wxyz=matrix_to_quaternion(pose[:3, :3]).numpy(),
        )
        red, green, blue = (round(255 * part) for part in track_color(track))
        vertices, triangles = self._meshes[estimate.category]
        template = self._server.scene.add_mesh_simple(
            f"{name}/template",
            (vertices * estimate.scale).numpy(),
            triangles.numpy(),
            color=(red, green, blue),
            opacity=0.7,
            side="double",
            flat_shading=True,
        )
        text = f"{estimate.category} {track}  {estimate.score:.2f}"
        label = self._server.scene.add_label(f"{name}/label", text)
        # children first: the handles are removed in this order
        return {
            **self._add_named_frames(estimate, name),
            f"{name}/label": label,
            f"{name}/template": template,
            name: frame,
        }

    def _add_named_frames(self, estimate: PoseEstimate, parent: str) -> dict[str, Any]:
        """Add the named frames of an estimate below its object."""
        handles: dict[str, Any] = {}
        canon_from_cam = invert(estimate.cam_from_canon)
        for number, placed in enumerate(estimate.frames):
            name = f"{parent}/frame_{number}"
            pose = canon_from_cam @ placed.cam_from_frame
            axes = self._server.scene.add_frame(
                name,
                axes_length=0.15 * estimate.scale,
                axes_radius=0.005 * estimate.scale,
                position=pose[:3, 3].numpy(),
                wxyz=matrix_to_quaternion(pose[:3, :3]).numpy(),
            )
            text = placed.name if placed.seen else f"{placed.name} (carried)"
            label = self._server.scene.add_label(f"{name}/label", text)
            handles |= {f"{name}/label": label, name: axes}
        return handles


def _nearest(scene: Scene) -> float:
    """Depth of the nearest object."""
    depths = [float(estimate.cam_from_canon[2, 3]) for estimate in scene.estimates]
    return min(depths, default=_DEFAULT_DISTANCE)


def _page_text(title: str, lines: Sequence[str]) -> str:
    """HTML of a title and lines; names of files and categories are text, whatever they hold."""
    body = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return f'<div style="padding:0 0.75em"><b>{html.escape(title)}</b>{body}</div>'


def _describe(estimate: PoseEstimate, track: int) -> str:
    x, y, z = estimate.cam_from_canon[:3, 3].tolist()
    unit = "m" if estimate.metric else "diameters"
    return (
        f"{estimate.category} {track}: score {estimate.score:.2f}, at {x:.2f} {y:.2f} {z:.2f} "
        f"{unit}"
    )
