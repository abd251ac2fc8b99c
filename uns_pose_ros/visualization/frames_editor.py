"""Named frames of a category, defined in a browser on its template.

A click on the template places a frame there, with x into the surface. The frame can be dragged. A
button saves it. The page uses canonical axes and units: z is up, one unit is the object's diameter.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Sequence
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

_COLOR = (150, 170, 200)  # of the template
_LENGTH = 0.12  # of a saved frame's axes, diameters
_HELP = "Click on the object to place a frame. Drag its arrows and rings. Save it."

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
    ) -> None:
        """Start the server and show the template with its frames.

        Args:
            model: The category's model.
            save: Is called with a frame that the person saves.
            delete: Is called with the name of a frame that the person deletes.
            host: Address to serve; 0.0.0.0 lets other machines connect.
            port: Port to serve; if it is in use, the next free one.
        """
        import viser

        self._model, self._save, self._delete = model, save, delete
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
        self._host, self._guard = host, PageGuard()
        with self._guard.applied():
            self._server = viser.ViserServer(host=host, port=port, verbose=False)
        scene, gui = self._server.scene, self._server.gui
        scene.set_up_direction("+z")
        self._server.initial_camera.position = (0.9, -0.675, 0.525)
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
        self._name = gui.add_text("name", "handle")
        self._follow = gui.add_dropdown("follow", FOLLOWS)
        self._width = gui.add_number(
            "width", 0.0, min=0.0, max=10.0, step=0.005, hint="0: no grasp"
        )
        gui.add_button("save").on_click(lambda _: self.store())
        gui.add_button("delete").on_click(lambda _: self.discard())
        self._shown: dict[str, Any] = {}
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
        start = torch.tensor(origin, dtype=torch.float64)
        ray = torch.tensor(direction, dtype=torch.float64)
        vertices = self._model.vertices.double()
        distance, triangle, _ = cast_rays(start, ray[None], vertices, self._model.triangles)
        if not bool(distance.isfinite()):
            return
        a, b, c = vertices[self._model.triangles[int(triangle)]]
        inwards = torch.linalg.cross(c - a, b - a)
        rotation = axes_from(inwards, None)
        self._gizmo.position = (start + float(distance) * ray).numpy()
        self._gizmo.wxyz = matrix_to_quaternion(rotation).numpy()
        self._gizmo.visible = True
        self.say("Placed, not saved.")

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
            for frame in frames:
                path = f"/frame_{frame.name}"
                axes = self._server.scene.add_frame(
                    path,
                    axes_length=_LENGTH,
                    axes_radius=0.05 * _LENGTH,
                    position=frame.position.numpy(),
                    wxyz=matrix_to_quaternion(frame.rotation).numpy(),
                )
                label = self._server.scene.add_label(f"{path}/label", frame.name)
                # children first: the handles are removed in this order
                self._shown |= {f"{path}/label": label, path: axes}
