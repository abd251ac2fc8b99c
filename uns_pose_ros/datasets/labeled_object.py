"""The record that all data sets are read to: one labeled object in one image.

The axes of an object are those of the package, x forward, y left, z up, whatever the data set uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import project, transform
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Symmetry
from uns_pose_ros.io.schema.constraints import check_rotation

_FAR = 1e6  # units of length of a data set, and px of a box


@dataclass(frozen=True, eq=False)
class LabeledObject:
    """One object in one image of a data set.

    Where the data set has boxes, the origin of the object's frame is the center of its box.
    """

    image: Path
    category: str  # by the data set's name
    camera: Camera
    box: Tensor  # (4,) float64: x0 y0 x1 y1 px in the image
    cam_from_object: Tensor  # (4, 4) float64, rigid; its length is m where metric
    extents: Tensor | None = None  # (3,) float64, of the box along the object's axes
    metric: bool = False  # lengths are meters
    # False: the focal length is a convention, and the principal point is where the object is seen
    calibrated: bool = True
    symmetry: Symmetry | None = None  # in the object's frame; None: the data set gives none
    # (G, 3, 3) float64 in the object's frame, the identity among them: rotations that leave the
    # object unchanged, beside those of `symmetry`; None: there are none
    turns: Tensor | None = None
    is_sphere: bool = False  # every rotation leaves the object unchanged
    occluded: bool = False
    truncated: bool = False
    difficult: bool = False
    film_frame: int | None = None  # number of the frame, where `image` is a film

    def __post_init__(self) -> None:
        if self.box.shape != (4,) or self.box.dtype != torch.float64:
            raise ValueError("a box is four numbers: x0 y0 x1 y1")
        x0, y0, x1, y1 = self.box.tolist()
        if not all(abs(edge) < _FAR for edge in (x0, y0, x1, y1)) or x0 >= x1 or y0 >= y1:
            raise ValueError(
                f"the box {x0:g} {y0:g} {x1:g} {y1:g} is empty; x0 < x1, y0 < y1 is valid"
            )
        pose = self.cam_from_object
        if pose.shape != (4, 4) or pose.dtype != torch.float64:
            raise ValueError("a pose is a matrix of 4 x 4")
        check_rotation(pose[:3, :3].tolist())
        distance = float(pose[:3, 3].norm())
        if not 0 < distance < _FAR or not float(pose[2, 3]) > 0:
            raise ValueError("the object is not in front of the camera")
        x, y, _ = (self.camera.matrix @ (pose[:3, 3] / pose[2, 3])).tolist()
        if not (abs(x) < _FAR and abs(y) < _FAR):
            raise ValueError(
                f"the object's origin is seen at {x:g}, {y:g} px, which is not near the image"
            )
        if self.extents is not None and not all(
            0 < side < _FAR for side in self.extents.tolist()
        ):
            raise ValueError("the box has a side that is not positive")

    @property
    def label(self) -> str:
        """Name of the image in messages."""
        number = "" if self.film_frame is None else f", frame {self.film_frame}"
        return f"{self.image.name}{number}"

    @property
    def is_symmetric(self) -> bool:
        """Whether the data set gives a rotation that leaves the object unchanged."""
        of_axis = self.symmetry is not None and self.symmetry.order != 1
        return of_axis or self.turns is not None or self.is_sphere

    @property
    def diameter(self) -> float | None:
        """Diagonal of the box; None: the data set has no boxes."""
        return None if self.extents is None else float(self.extents.norm())


@dataclass(frozen=True, eq=False)
class LabeledObjects:
    """The labeled objects of one category, and what was left out."""

    objects: tuple[LabeledObject, ...]
    left_out: LeftOut


def box_of_extents(camera: Camera, cam_from_object: Tensor, extents: Tensor) -> Tensor:
    """The box (4,) around the corners of an object's box in the image, px.

    Args:
        camera: The camera of the image.
        cam_from_object: (4, 4) pose; the origin is the center of the box.
        extents: (3,) of the box along the object's axes.

    Raises:
        ValueError: A corner is behind the camera.
    """
    signs = torch.tensor(list(product((-0.5, 0.5), repeat=3)), dtype=torch.float64)
    corners = transform(cam_from_object, signs * extents)
    if not float(corners[:, 2].min()) > 0:
        raise ValueError("a corner of the box is behind the camera")
    pixels = project(camera.matrix, corners)
    limits = torch.tensor([camera.width, camera.height], dtype=torch.float64) - 1
    low = torch.minimum(pixels.amin(0).clamp_min(0), limits)
    high = torch.minimum(pixels.amax(0).clamp_min(0), limits)
    return torch.cat([low, high])


def crop_around_origin(labeled: LabeledObject) -> Tensor:
    """The square (4,) around the true origin that holds the true box, px.

    The paper crops around the projected origin so that the true mask just fits.
    """
    origin = labeled.cam_from_object[:3, 3]
    pixel = labeled.camera.matrix @ (origin / origin[2])
    reach = torch.cat([pixel[:2] - labeled.box[:2], labeled.box[2:] - pixel[:2]])
    half = max(float(reach.max()), 1.0)
    return torch.cat([pixel[:2] - half, pixel[:2] + half])
