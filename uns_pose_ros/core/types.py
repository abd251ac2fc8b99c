"""The nouns of the pipeline: frozen dataclasses of tensors that check themselves.

Frames: `cam` is the optical frame (x right, y down, z forward), `obj` one video's own frame,
`canon` the category's frame (diameter 1). `b_from_a` maps points of frame a into frame b; a
similarity is a (4, 4) matrix whose upper left block is scale * rotation. Pixel (0, 0) is the center
of the top left pixel, as in OpenCV and ROS.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.named_frames import NamedFrame, PlacedFrame

MAX_CAMERA_PX = 1e7  # of focal lengths and principal points, which no lens exceeds
MAX_DISTORTION = 1e9  # of a coefficient
MAX_ORDER = 3600  # of a symmetry; its rotations are enumerated
Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


def _check(
    tensor: Tensor,
    name: str,
    shape: tuple[int | None, ...],
    dtype: torch.dtype | None = None,
) -> None:
    fits = tensor.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, ({wanted}) needed")
    if dtype is not None and tensor.dtype != dtype:
        raise ValueError(f"{name} is {tensor.dtype}, {dtype} needed")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} holds values that are not finite")


def _check_indices(indices: Tensor, who: str, what: str, count: int) -> None:
    for index in (int(indices.min()), int(indices.max())) if indices.numel() else ():
        if not 0 <= index < count:
            raise ValueError(
                f"{'an' if who[0] in 'aeiou' else 'a'} {who} names {what} {index} of {count}"
            )


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera.

    Pinhole with OpenCV's distortion (k1 k2 p1 p2 [k3 [k4 k5 k6]]); no coefficients: rectified.
    """

    matrix: Tensor  # (3, 3) float64, px
    width: int  # px
    height: int  # px
    distortion: Tensor = field(
        default_factory=lambda: torch.zeros(0, dtype=torch.float64)
    )  # (D,) float64

    def __post_init__(self) -> None:
        _check(self.matrix, "camera matrix", (3, 3), torch.float64)
        _check(self.distortion, "distortion", (None,), torch.float64)
        if self.width < 1 or self.height < 1:
            raise ValueError(f"the camera's image is {self.width} x {self.height} px")
        if not (self.matrix[0, 0] > 0 and self.matrix[1, 1] > 0):
            raise InvalidInput(
                f"uncalibrated camera: focal lengths {self.matrix[0, 0]:g}, "
                f"{self.matrix[1, 1]:g} px; both must be positive"
            )
        for values, what, most in (
            (self.matrix, "matrix", MAX_CAMERA_PX),
            (self.distortion, "distortion", MAX_DISTORTION),
        ):
            if values.numel() and float(values.abs().max()) > most:
                raise InvalidInput(
                    f"a camera {what} with {values.abs().max():g}: at most {most:g} is valid"
                )


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a video, by path: pixels are read when they are needed."""

    name: str
    image: Path
    camera: Camera
    mask: Path | None = None
    cam_from_obj: Tensor | None = None  # (4, 4) float64, rigid

    def __post_init__(self) -> None:
        if self.cam_from_obj is not None:
            _check(self.cam_from_obj, "cam_from_obj", (4, 4), torch.float64)


@dataclass(frozen=True, eq=False)
class Video:
    """A video folder: its usable frames in order, with masks and poses where they are known."""

    folder: Path
    frames: tuple[Frame, ...]
    points: Tensor | None = None  # (N, 3) float64, obj frame
    metric: bool = False  # obj units are meters

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name


@dataclass(frozen=True, eq=False)
class FeatureMesh:
    """A coarse closed mesh; a vertex has one backbone feature for every view that sees it.

    Observations are a flat list sorted by vertex: observation k is the unit feature of vertex
    `vertex_index[k]` in view `view_index[k]`.
    """

    vertices: Tensor  # (V, 3) float32, obj frame, obj units
    triangles: Tensor  # (T, 3) int64, counter-clockwise seen from outside
    features: Tensor  # (M, C) float16, unit length
    vertex_index: Tensor  # (M,) int64, ascending
    view_index: Tensor  # (M,) int64, into cameras_in_obj
    cameras_in_obj: Tensor  # (F, 4, 4) float32, cam_from_obj of every view
    # (M, C) float16: the same observations in the left-right flipped image
    mirrored: Tensor | None = None

    def __post_init__(self) -> None:
        _check(self.vertices, "vertices", (None, 3), torch.float32)
        _check(self.triangles, "triangles", (None, 3), torch.int64)
        _check(self.features, "features", (None, None), torch.float16)
        _check(self.vertex_index, "vertex_index", (len(self.features),), torch.int64)
        _check(self.view_index, "view_index", (len(self.features),), torch.int64)
        _check(self.cameras_in_obj, "cameras_in_obj", (None, 4, 4), torch.float32)
        if self.mirrored is not None:
            _check(
                self.mirrored,
                "mirrored features",
                tuple(self.features.shape),
                torch.float16,
            )
        _check_indices(self.triangles, "triangle", "vertex", len(self.vertices))
        _check_indices(self.vertex_index, "observation", "vertex", len(self.vertices))
        _check_indices(self.view_index, "observation", "view", len(self.cameras_in_obj))

    @property
    def diameter(self) -> float:
        """Diagonal of the bounding box, obj units."""
        return float((self.vertices.amax(0) - self.vertices.amin(0)).norm())


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Rotations about one canonical axis that leave the category unchanged.

    Order 1 none, n >= 2 n-fold, 0 continuous.
    """

    order: int = 1
    axis: Tensor = field(
        default_factory=lambda: torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    )  # (3,) canon frame

    def __post_init__(self) -> None:
        _check(self.axis, "symmetry axis", (3,), torch.float64)
        if not 0 <= self.order <= MAX_ORDER:
            raise ValueError(
                f"symmetry order {self.order}: 0 (continuous), 1 (none) or n up to {MAX_ORDER} "
                "are valid"
            )
        if not float(self.axis.norm()) > 0:
            raise ValueError("the symmetry axis is zero")

    @property
    def name(self) -> str:
        """Name in figures: none, continuous, or C and the order."""
        return {0: "continuous", 1: "none"}.get(self.order, f"C{self.order}")


@dataclass(frozen=True, eq=False)
class Alignment:
    """The canonical frame of a category: one similarity and one confidence for each video."""

    videos: tuple[str, ...]
    canon_from_obj: Tensor  # (N, 4, 4) float64, similarity
    confidence: Tensor  # (N,) float64 in [0, 1]
    kept: Tensor  # (N,) bool, False: an outlier, left out of training
    residual: Tensor  # (N,) float64, median disagreement with the consensus, degrees
    symmetry: Symmetry = field(default_factory=Symmetry)
    # the video that every other one was aligned to by itself, as published; None: by consensus
    reference: str | None = None

    @property
    def is_measured(self) -> bool:
        """Whether confidence and residual were measured; without a consensus they say nothing."""
        return self.reference is None

    def __post_init__(self) -> None:
        n = len(self.videos)
        _check(self.canon_from_obj, "canon_from_obj", (n, 4, 4), torch.float64)
        _check(self.confidence, "confidence", (n,), torch.float64)
        _check(self.kept, "kept", (n,), torch.bool)
        _check(self.residual, "residual", (n,), torch.float64)


@dataclass(frozen=True, eq=False)
class TaughtObject:
    """What a recording has taught a model of a single object.

    A crop shows it where the mean of `weight` @ token + `bias` over the tokens of the crop's object
    is positive, see `training.adaptation.recognition_training`.
    """

    head: Mapping[str, Tensor]  # parameters of networks.Head, for crops that show it
    weight: (
        Tensor  # (L * 384,) float32, for tokens of L layers, each of mean 0 and variance 1
    )
    bias: Tensor  # (1,) float32

    def __post_init__(self) -> None:
        _check(self.weight, "weights that tell a taught object", (None,), torch.float32)
        _check(self.bias, "bias that tells a taught object", (1,), torch.float32)
        for name, tensor in self.head.items():
            _check(tensor, f"{name} of a taught head", tuple(tensor.shape))


@dataclass(frozen=True, eq=False)
class CategoryModel:
    """A trained category.

    Template mesh, one feature a template vertex, head weights, symmetry, size.
    """

    category: str
    vertices: Tensor  # (V, 3) float32, canon frame
    triangles: Tensor  # (T, 3) int64
    vertex_features: Tensor  # (V, D) float32, unit length
    background_features: Tensor  # (K, D) float32, unit length
    head: Mapping[str, Tensor]  # weights of network.Head
    symmetry: Symmetry = field(default_factory=Symmetry)
    diameter: float | None = None  # m of one canonical unit; None: scale unknown
    provenance: Mapping[str, object] = field(
        default_factory=dict
    )  # config, inputs' hashes, version, seed, calibration
    frames: tuple[NamedFrame, ...] = ()  # such as a handle or a grasp, see frames.yaml
    taught: tuple[TaughtObject, ...] = ()  # by recordings

    def __post_init__(self) -> None:
        _check(self.vertices, "template vertices", (None, 3), torch.float32)
        _check(self.triangles, "template triangles", (None, 3), torch.int64)
        _check(
            self.vertex_features,
            "vertex features",
            (len(self.vertices), None),
            torch.float32,
        )
        _check(
            self.background_features,
            "background features",
            (None, self.vertex_features.shape[1]),
            torch.float32,
        )
        for name, tensor in self.head.items():
            _check(tensor, f"head's {name}", tuple(tensor.shape))
        if self.diameter is not None and not 0 < self.diameter < math.inf:
            raise ValueError(
                f"diameter {self.diameter} m: a positive length, or None where it is unknown, "
                "is valid"
            )

    @property
    def network_settings(self) -> Mapping[str, object]:
        """The settings of the head, by the names of NetworkConfig; empty: not recorded."""
        return self._recorded("network")

    @property
    def crop_size(self) -> int:
        """The side of the crops that the head was trained on, px; 0: not recorded."""
        size = self.provenance.get("crop_size", 0)
        return size if isinstance(size, int) else 0

    @property
    def template_share(self) -> float:
        """The share of a silhouette that the template covers, in (0, 1]; models of 0.1.0: 1."""
        share = self.provenance.get("template_share", 1.0)
        return float(share) if isinstance(share, int | float) else 0.0

    @property
    def training_poses(self) -> dict[str, Tensor]:
        """canon_from_obj (4, 4) float64 of every video that the model was trained on."""
        poses = self._recorded("canon_from_obj")
        return {
            name: torch.tensor(pose, dtype=torch.float64) for name, pose in poses.items()
        }

    @functools.cached_property
    def instances(self) -> dict[str, Tensor]:
        """Outermost points (K, 3) float64 of every video's object, canon frame.

        Models of earlier versions have none.
        """
        return {
            name: torch.tensor(points, dtype=torch.float64)
            for name, points in self._recorded("instances").items()
        }

    @functools.cached_property
    def bounds(self) -> Tensor:
        """(2, 3) float64, lower and upper corner of the box of an average instance.

        It is the median over the instances of the training; without them, the template's box, which
        may lack thin parts.
        """
        shapes = list(self.instances.values()) or [self.vertices]
        sides = torch.stack([torch.stack([s.amin(0), s.amax(0)]) for s in shapes])
        return sides.double().quantile(0.5, dim=0)

    @property
    def center(self) -> Tensor:
        """(3,) float64, of the box of an average instance, canonical units."""
        return self.bounds.mean(0)

    @property
    def turn(self) -> Tensor:
        """(3, 3) float64, rotation of the canonical frame since the training; at first identity."""
        turn = self.provenance.get("turn", torch.eye(3).tolist())
        return torch.tensor(turn, dtype=torch.float64)

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        """How the evidence of a pose becomes a score; None: models of 0.1.0 have none."""
        return self._recorded("calibration") or None

    @property
    def training_curve(self) -> Mapping[str, Any]:
        """The curve of the training, as `fit_head` returns it; empty: not recorded."""
        return self._recorded("training")

    @property
    def left_out(self) -> Mapping[str, Any]:
        """What to expect, see `training.left_out`; empty: not measured."""
        return self._recorded("left_out")

    def _recorded(self, key: str) -> Mapping[str, Any]:
        record = self.provenance.get(key)
        return record if isinstance(record, Mapping) else {}

    @property
    def extents(self) -> Tensor:
        """(3,) float64, size of the box of an average instance, canonical units."""
        if self.instances:
            return self.bounds[1] - self.bounds[0]
        return (self.vertices.amax(0) - self.vertices.amin(0)).double()


@dataclass(frozen=True, eq=False)
class PoseMode:
    """Another pose that explains the same image of an instance, such as the flipped one.

    Units as in its PoseEstimate.
    """

    cam_from_canon: Tensor  # (4, 4) float64, rigid
    # natural log of its probability over that of the estimate's own pose; 0: as likely
    log_weight: float
    covariance: Tensor | None = None  # (6, 6) float64, as in PoseEstimate

    def __post_init__(self) -> None:
        _check(self.cam_from_canon, "cam_from_canon", (4, 4), torch.float64)
        if self.covariance is not None:
            _check(self.covariance, "covariance", (6, 6), torch.float64)
        if not math.isfinite(self.log_weight):
            raise ValueError(f"log weight {self.log_weight} of a pose is not finite")


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """One instance seen in one image.

    x_cam = R (scale * x_canon) + t with R, t the rotation and translation given.
    """

    category: str
    # (4, 4) float64, rigid; translation in m, or in object diameters where metric is False
    cam_from_canon: Tensor
    scale: float  # m (or diameters: 1) of one canonical unit
    metric: bool  # translation, scale and size are meters
    size: Tensor  # (3,) float64, extents along the canonical axes, m or diameters
    score: float  # in [0, 1]
    # (6, 6) float64: x y z, rotation about the camera's x y z; m^2 (or diameters^2), rad^2
    covariance: Tensor | None
    symmetry: Symmetry
    inliers: int  # correspondences that agree with the pose
    reprojection_error: float  # px, median over the inliers
    box: Tensor  # (4,) float64: x0 y0 x1 y1 px of the projected template
    alternatives: tuple[PoseMode, ...] = ()  # distinct other poses, likeliest first
    # (3, 3) float64, rad^2, part of the rotation's covariance: the pose may be wrong as a whole, or
    # hypotheses far away explain the image too; None: the covariance contains no doubt
    doubt: Tensor | None = None
    # (F,) float64, what the score was computed from, see `estimation.solver.pose_evidence`
    evidence: Tensor | None = None
    # (2, 3, 3) float64, rad^2, canonical axes: second moments of how hypotheses within 30 degrees
    # of the pose, and all others, are rotated against it, weighted by their scores; of the newest
    # image where several are fused; None: not known
    hypothesis_spread: Tensor | None = None
    frames: tuple[PlacedFrame, ...] = ()  # the model's named frames on this instance
    # "refined" by the depth at the object, or why not; empty: there was no depth
    depth_use: str = ""
    # (3,) float64, center of the box of `size` along the canonical axes, in its unit; None: that of
    # the template's box
    center: Tensor | None = None
    # (3,) float64, standard deviations of size; None: not known
    size_sigma: Tensor | None = None

    def __post_init__(self) -> None:
        _check(self.cam_from_canon, "cam_from_canon", (4, 4), torch.float64)
        _check(self.size, "size", (3,), torch.float64)
        _check(self.box, "box", (4,), torch.float64)
        for name in ("center", "size_sigma"):
            if (value := getattr(self, name)) is not None:
                _check(value, name, (3,), torch.float64)
        for name, shape in (("covariance", (6, 6)), ("hypothesis_spread", (2, 3, 3))):
            if (value := getattr(self, name)) is not None:
                _check(value, name, shape, torch.float64)
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"score {self.score} is outside [0, 1]")

    def box_pose(self, center: Tensor) -> Tensor:
        """Pose (4, 4) of the box in the camera: its center, and the canonical axes.

        Args:
            center: (3,) of the model's box, canonical units; for an estimate without a center.
        """
        middle = self.scale * center.double() if self.center is None else self.center
        pose = self.cam_from_canon.clone()
        pose[:3, 3] += pose[:3, :3] @ middle
        return pose
