"""Images and the poses found in them as a 3D scene in a browser.

The scene shows camera and image, and template and frame of each object.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import matrix_to_quaternion
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.visualization.drawing import track_color

TemplateMesh: TypeAlias = tuple[
    Tensor, Tensor
]  # a category's vertices (V, 3) float, canon frame, and triangles (T, 3) int

_LONGEST = 640  # px, of the longer side of the images that are shown
_NEAR = 0.25  # of the distance of the nearest object, where the image stands
_NOWHERE = 4.0  # that distance where there is no object


@dataclass(frozen=True, eq=False)
class Scene:
    """One image and the poses found in it."""

    name: str
    image: NDArray[np.uint8]  # (h, w, 3) RGB
    camera: Camera  # of the full image, which may be larger
    estimates: tuple[PoseEstimate, ...]
    tracks: tuple[int, ...]  # of the estimates


def make_scene(
    name: str,
    image: NDArray[np.uint8],
    camera: Camera,
    estimates: Sequence[PoseEstimate],
    tracks: Sequence[int],
) -> Scene:
    """Make a scene with a small copy of the image, because many scenes are held at once.

    Args:
        name: title of the scene.
        image: (H, W, 3) RGB.
        camera: the camera of the full image.
        estimates: the poses.
        tracks: track id of each estimate.
    """
    scale = min(1.0, _LONGEST / max(image.shape[:2]))
    small = np.asarray(
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA),
        dtype=np.uint8,
    )
    return Scene(name, small, camera, tuple(estimates), tuple(tracks))


def template_meshes(models: Sequence[CategoryModel]) -> dict[str, TemplateMesh]:
    """The template of each model by category."""
    return {model.category: (model.vertices, model.triangles) for model in models}


class Viewer:
    """Serves scenes, of which a slider chooses one, in the frame of their camera.

    The axes are x right, y down, z forward.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        shapes: Mapping[str, TemplateMesh],
        host: str = "127.0.0.1",
        port: int = 8080,
    ) -> None:
        """Start the server.

        Args:
            scenes: the scenes of the slider.
            shapes: template of each category that is shown.
            host: address to serve; 0.0.0.0 lets other machines connect.
            port: port to serve; the next free one if it is in use.

        Raises:
            InvalidInput: there is no scene.
        """
        import viser

        if not scenes:
            raise InvalidInput("there is no image to show")
        self._scenes, self._shapes = scenes, shapes
        # browsers open connections ahead and may close them unused, each of which would be told
        # with a traceback
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
        self._server = viser.ViserServer(host=host, port=port, verbose=False)
        self._server.scene.set_up_direction("-y")
        far = next((_nearest(one) for one in scenes if one.estimates), _NOWHERE)
        self._server.initial_camera.position = (
            0.9 * far,
            -0.6 * far,
            -0.2 * far,
        )  # from above, aside and behind the camera
        self._server.initial_camera.look_at = (0.0, 0.0, 0.7 * far)
        self._text = self._server.gui.add_markdown("")
        if len(scenes) > 1:
            slider = self._server.gui.add_slider("image", 0, len(scenes) - 1, 1, 0)
            slider.on_update(lambda event: self.show(int(slider.value)))
        self._handles: dict[str, Any] = {}
        self.show(0)

    @property
    def port(self) -> int:
        """The port that the server uses."""
        return int(self._server.get_port())

    @property
    def nodes(self) -> Mapping[str, Any]:
        """The nodes of the scene now, by name."""
        return self._handles

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def show(self, number: int) -> None:
        """Show the scene with this number."""
        self.put(self._scenes[number])

    def put(self, new: Scene) -> None:
        """Show a scene, which need not be one of the scenes of the slider."""
        with self._server.atomic():
            for handle in self._handles.values():
                handle.remove()
            self._handles = self._camera(new)
            for estimate, track in zip(new.estimates, new.tracks, strict=True):
                self._handles |= self._object(estimate, track)
            self._text.content = "\n\n".join(
                [f"**{new.name}**", *map(_pose_text, new.estimates, new.tracks)]
            )

    def _camera(self, new: Scene) -> dict[str, Any]:
        fov = 2 * math.atan(new.camera.height / (2 * float(new.camera.matrix[1, 1])))
        frustum = self._server.scene.add_camera_frustum(
            "/camera",
            fov,
            new.camera.width / new.camera.height,
            scale=_NEAR * _nearest(new),
            image=new.image,
        )
        return {"/camera": frustum}

    def _object(self, estimate: PoseEstimate, track: int) -> dict[str, Any]:
        scene, (corners, triangles), name = (
            self._server.scene,
            self._shapes[estimate.category],
            f"/{estimate.category}_{track}",
        )
        pose = estimate.cam_from_canon
        frame = scene.add_frame(
            name,
            axes_length=0.5 * estimate.scale,
            axes_radius=0.01 * estimate.scale,
            position=pose[:3, 3].numpy(),
            wxyz=matrix_to_quaternion(pose[:3, :3]).numpy(),
        )
        red, green, blue = (round(255 * part) for part in track_color(track))
        vertices = (corners * estimate.scale).numpy()
        template = scene.add_mesh_simple(
            f"{name}/template",
            vertices,
            triangles.numpy(),
            color=(red, green, blue),
            opacity=0.7,
            side="double",
            flat_shading=True,
        )
        label = scene.add_label(
            f"{name}/label", f"{estimate.category} {track}  {estimate.score:.2f}"
        )
        return {
            f"{name}/label": label,
            f"{name}/template": template,
            name: frame,
        }  # leaves first: removed in this order


def _nearest(new: Scene) -> float:
    return min(
        (float(estimate.cam_from_canon[2, 3]) for estimate in new.estimates),
        default=_NOWHERE,
    )


def _pose_text(estimate: PoseEstimate, track: int) -> str:
    x, y, z = estimate.cam_from_canon[:3, 3].tolist()
    return (
        f"{estimate.category} {track}: score {estimate.score:.2f}, at {x:.2f} {y:.2f} {z:.2f} "
        + ("m" if estimate.metric else "diameters")
    )
