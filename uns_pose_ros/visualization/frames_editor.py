"""Named frames of a category, defined in a browser on its template or on images of its videos.

A click on the template places a frame there, with x into the surface. A click on an image places
it where the ray of the pixel meets the surface of this video's object. The frame can be dragged. A
button saves it. The page uses canonical axes and units: z is up, one unit is the object's diameter.
"""

from __future__ import annotations

import html
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import matrix_to_quaternion, quaternion_to_matrix
from uns_pose_ros.core.named_frames import FOLLOWS, NamedFrame, axes_from
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.visualization.page_guard import PageGuard
from uns_pose_ros.visualization.placed_images import ImagePlane, PlacedVideo

_COLOR = (150, 170, 200)  # of the template
_LENGTH = 0.12  # of a saved frame's axes, diameters
_HELP = (
    "Click on the object to place a frame, or on a saved frame to move it. Drag its arrows and "
    "rings. Save it."
)
_TEMPLATE = "template"  # what is shown when it is not an image
_MARGIN = 1.15  # of a view around an image
_VIEW = (0.9, -0.675, 0.525)  # place of the viewer who looks at the template

# saves a frame, or deletes that of a name; returns all frames that are there then
Save = Callable[[NamedFrame], Sequence[NamedFrame]]
Delete = Callable[[str], Sequence[NamedFrame]]


class FramesEditor:
    """Serves a page on which a person places named frames."""

    def __init__(
        self,
        model: CategoryModel,
        save: Save,
        delete: Delete,
        host: str = "127.0.0.1",
        port: int = 8080,
        videos: Mapping[str, Callable[[], PlacedVideo]] | None = None,
    ) -> None:
        """Start the server and show the template with its frames.

        Args:
            model: The category's model.
            save: Is called with a frame that the person saves.
            delete: Is called with the name of a frame that the person deletes.
            host: Address to serve; 0.0.0.0 lets other machines connect.
            port: Port to serve; if it is in use, the next free one.
            videos: What loads each video whose images can be clicked on, by the video's name.
        """
        import viser

        self._model, self._save, self._delete = model, save, delete
        self._videos = dict(videos or {})
        self._loaded: tuple[str, PlacedVideo] | None = None
        self._plane: ImagePlane | None = None
        self._pixels: Any = None  # the image in the scene
        self._setting = False  # whether the fields are being set, not by a person
        self._current = _TEMPLATE, 0  # what is shown, and the number of the image
        self._turn = threading.RLock()  # the page's events come in several threads
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
        self._host, self._guard = host, PageGuard()
        with self._guard.applied():
            self._server = viser.ViserServer(host=host, port=port, verbose=False)
        scene, gui = self._server.scene, self._server.gui
        scene.set_up_direction("+z")
        gui.main_panel.dock_right()  # beside the view, not upon the image
        self._server.initial_camera.position = _VIEW
        self._server.initial_camera.look_at = (0.0, 0.0, 0.0)
        self._template = scene.add_mesh_simple(
            "/template",
            model.vertices.numpy(),
            model.triangles.numpy(),
            color=_COLOR,
            side="double",
            flat_shading=True,
        )
        self._template.on_click(
            lambda event: self.place(event.ray_origin, event.ray_direction)
        )
        self._gizmo = scene.add_transform_controls("/placed", scale=0.25, visible=False)
        self._text = gui.add_html("")
        self._add_video_fields()
        self._name: Any = gui.add_text("name", "handle")
        self._follow: Any = gui.add_dropdown("follow", FOLLOWS)
        self._width: Any = gui.add_number(
            "width", 0.0, min=0.0, max=10.0, step=0.005, hint="0: no grasp"
        )
        gui.add_button("save").on_click(lambda _: self.store())
        gui.add_button("delete").on_click(lambda _: self.discard())
        self._shown: dict[str, Any] = {}
        self._frames: dict[str, NamedFrame] = {}
        self._show(model.frames)
        self.say(_HELP)

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self._server.get_port())

    @property
    def address(self) -> str:
        """Address of the page, with the token without which it is not shown."""
        return f"http://{self._host}:{self.port}/?token={self._guard.token}"

    @property
    def placed(self) -> Tensor | None:
        """(3,) float64, position of the frame that is not saved yet; None: nothing is placed."""
        if not self._gizmo.visible:
            return None
        return torch.tensor(np.asarray(self._gizmo.position), dtype=torch.float64)

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def say(self, line: str) -> None:
        """Show a line above the fields."""
        self._text.content = f'<p style="padding:0 0.75em">{html.escape(line)}</p>'

    def place(self, origin: Sequence[float], direction: Sequence[float]) -> None:
        """Place the frame where a ray meets the template: x into the surface, z as up as it can be.

        Args:
            origin: (3,) of the ray, canonical frame.
            direction: (3,).
        """
        vertices, triangles = self._model.vertices.double(), self._model.triangles
        start = torch.tensor(origin, dtype=torch.float64)
        ray = torch.tensor(direction, dtype=torch.float64)
        self._place(start, ray, vertices, triangles)

    def place_in_image(self, origin: Sequence[float], direction: Sequence[float]) -> None:
        """Place the frame where the pixel that a ray meets shows the object of the video.

        Args:
            origin: (3,) of the viewer's ray, canonical frame.
            direction: (3,).
        """
        with self._turn:
            if self._plane is None or self._loaded is None:
                return
            video = self._loaded[1]
            ray = self._plane.ray_through(
                torch.tensor(origin, dtype=torch.float64),
                torch.tensor(direction, dtype=torch.float64),
            )
            if ray is None or not self._place(
                self._plane.place, ray, video.vertices, video.triangles
            ):
                self.say("The surface of the object is not there.")

    def show_template(self) -> None:
        """Show the template instead of an image."""
        with self._turn:
            self._remove_image()
            self._current, self._template.visible = (_TEMPLATE, 0), True
            for client in self._server.get_clients().values():
                with client.atomic():
                    client.camera.up_direction = (0.0, 0.0, 1.0)
                    client.camera.position = _VIEW
                    client.camera.look_at = (0.0, 0.0, 0.0)
                    client.camera.fov = self._server.initial_camera.fov

    def show_image(self, name: str, number: int) -> None:
        """Show an image behind the frames, from the place of its camera.

        Args:
            name: Of the video.
            number: Of the image, from 0; one that is too large means the last.
        """
        with self._turn:
            try:
                if self._loaded is None or self._loaded[0] != name:
                    self.say(f"Loads {name} …")
                    self._loaded = name, self._videos[name]()
                video = self._loaded[1]
                number = min(number, len(video.image_names) - 1)
                plane = ImagePlane.behind(video.read(number), video)
            except (InvalidInput, OSError) as error:
                self.say(f"Not shown: {error}")
                return
            with self._server.atomic():
                self._remove_image()
                self._plane, self._current = plane, (name, number)
                self._template.visible = False
                width, height = plane.size
                self._pixels = self._server.scene.add_image(
                    "/image",
                    plane.image,
                    width,
                    height,
                    format="jpeg",
                    jpeg_quality=90,
                    position=plane.center.numpy(),
                    wxyz=matrix_to_quaternion(plane.rotation).numpy(),
                )
            self._pixels.on_click(
                lambda event: self.place_in_image(event.ray_origin, event.ray_direction)
            )
            self._set_fields(name, number, len(video.image_names))
            self.say(f"{name}/{video.image_names[number]}. {_HELP}")
            self.look_through_camera()

    def look_through_camera(self) -> None:
        """Move every viewer to the place of the camera of the image that is shown."""
        for client in self._server.get_clients().values():
            self._look(client)

    def pick(self, name: str) -> None:
        """Take up a saved frame, to move it."""
        frame = self._frames[name]
        self._name.value, self._follow.value = name, frame.follow
        self._width.value = frame.width or 0.0
        self._put(frame.position, frame.rotation)
        self.say(f"Move {name} and save it.")

    def _add_video_fields(self) -> None:
        """Add the fields that choose an image, if there are videos."""
        if not self._videos:
            return
        gui = self._server.gui
        self._source: Any = gui.add_dropdown("show", (_TEMPLATE, *self._videos))
        self._number: Any = gui.add_slider("image", 1, 2, 1, 1)
        self._source.on_update(lambda _: self._choose(True))
        self._number.on_update(lambda _: self._choose(False))
        gui.add_button("view of the camera").on_click(lambda _: self.look_through_camera())
        self._server.on_client_connect(self._look)

    def _choose(self, first: bool) -> None:
        """Show what the fields name, or the first image of the video that they name."""
        with self._turn:
            if self._setting:
                return
            wanted = self._source.value, 0 if first else int(self._number.value) - 1
            if wanted == self._current:
                return
            if wanted[0] == _TEMPLATE:
                self.show_template()
            else:
                self.show_image(*wanted)

    def _set_fields(self, name: str, number: int, count: int) -> None:
        """Let the fields name what is shown: an image of `count` images."""
        self._setting = True
        self._source.value = name
        self._number.max = max(count, 2)
        self._number.value = number + 1
        self._setting = False

    def _look(self, client: Any) -> None:
        """Move a viewer to the place of the camera of the image that is shown, if one is."""
        with self._turn:
            if self._plane is None:
                return
            camera, plane = client.camera, self._plane
            aspect = camera.image_width / max(camera.image_height, 1)
            with client.atomic():
                camera.up_direction = (-plane.rotation[:, 1]).numpy()
                camera.position = plane.place.numpy()
                camera.look_at = plane.middle.numpy()
                camera.fov = min(_MARGIN * plane.view_angle(aspect), 3.0)

    def _remove_image(self) -> None:
        if self._pixels is not None:
            self._pixels.remove()
        self._pixels, self._plane = None, None

    def _place(
        self, start: Tensor, ray: Tensor, vertices: Tensor, triangles: Tensor
    ) -> bool:
        """Place the frame where a ray (3,) meets a mesh; returns whether it does."""
        distance, triangle, _ = cast_rays(start, ray[None], vertices, triangles)
        if not bool(distance.isfinite()):
            return False
        a, b, c = vertices[triangles[int(triangle)]]
        across = torch.linalg.cross(c - a, b - a)
        inwards = across if float(across @ ray) > 0 else -across
        self._put(start + float(distance) * ray, axes_from(inwards, None))
        self.say("Placed, not saved.")
        return True

    def _put(self, position: Tensor, rotation: Tensor) -> None:
        self._gizmo.position = position.numpy()
        self._gizmo.wxyz = matrix_to_quaternion(rotation).numpy()
        self._gizmo.visible = True

    def store(self) -> None:
        """Save the frame that is placed under the name in the field."""
        position = self.placed
        if position is None:
            self.say(f"Nothing is placed. {_HELP}")
            return
        turn = torch.tensor(np.asarray(self._gizmo.wxyz), dtype=torch.float64)
        width = float(self._width.value)
        try:
            frame = NamedFrame(
                self._name.value,
                position,
                quaternion_to_matrix(turn),
                width or None,
                self._follow.value,
            )
            if saved := self._frames.get(frame.name):
                frame = replace(frame, prefer=saved.prefer)
            self._show(self._save(frame))
        except (ValueError, OSError) as error:
            self.say(f"Not saved: {error}")
            return
        self._gizmo.visible = False
        self.say(f"Saved {frame.name}. {_HELP}")

    def discard(self) -> None:
        """Delete the saved frame whose name is in the field."""
        name = self._name.value
        try:
            self._show(self._delete(name))
        except (InvalidInput, OSError) as error:
            self.say(f"Not deleted: {error}")
            return
        self.say(f"Deleted {name}. {_HELP}")

    def _show(self, frames: Sequence[NamedFrame]) -> None:
        """Show saved frames instead of those that are shown."""
        with self._server.atomic():
            for handle in self._shown.values():
                handle.remove()
            self._shown = {}
            self._frames = {frame.name: frame for frame in frames}
            for frame in frames:
                path = f"/frame_{frame.name}"
                axes = self._server.scene.add_frame(
                    path,
                    axes_length=_LENGTH,
                    axes_radius=0.05 * _LENGTH,
                    position=frame.position.numpy(),
                    wxyz=matrix_to_quaternion(frame.rotation).numpy(),
                )
                axes.on_click(partial(self._pick_clicked, frame.name))
                label = self._server.scene.add_label(f"{path}/label", frame.name)
                # children first: the handles are removed in this order
                self._shown |= {f"{path}/label": label, path: axes}

    def _pick_clicked(self, name: str, _: object) -> None:
        self.pick(name)
