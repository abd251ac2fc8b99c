"""The estimator node as a process, with an estimator that answers by a script instead of by a
network.

A picture whose red is k holds k cars: car i is i diameters to the right of the optical axis, 3
diameters away. Its box of 40 px stands at 100 i px. Red 255 is a picture that breaks the
estimation. Where green is FLIPPED, the cars are turned by half a turn about their y; blue is their
roll about the optical axis in degrees (up to ROLLED). Where green is HIDDEN, the half turn is an
alternative of half the share; where it is HELD, the estimation lasts until the newest request is
one for the image of the stamp ASKED. In regions, one car stands in each. Depth is that of the cars'
origins: its median gives their size. Folders with "truck" in their name are of that category; with
"handle" in it, their cars have a handle. Folders named "size" give a model of 0.25 m. One with
"gpu" in its name pretends to be on a GPU where the device is auto: red FULL is too much for its
memory, and it is tried again after RETRY s. Where green is POSED, one car stands where the next
pixels say: `posed_pixels`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import signal
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vision_msgs.msg import Detection2DArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, PoseMode, Symmetry
from uns_pose_ros.estimation import device_failover
from uns_pose_ros.estimation.frame_placement import carry_frames
from uns_pose_ros.estimation.metric_scale import to_metres
from uns_pose_ros.nodes import managed_node
from uns_pose_ros.nodes.estimator import estimator_node
from uns_pose_ros.nodes.estimator.on_demand import pose_requests
from uns_pose_ros.nodes.estimator.on_demand.pose_requests import PoseRequests

FLIPPED, ROLLED, HIDDEN = 200, 180, 150
HELD, ASKED, HOLDS = 90, 1000, "held"  # green, s, and the line that is printed then
HANG = 100.0  # s after which a held estimation goes on without a request
POSED = 70
HALF_TURN = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
FULL, RETRY = 254, 1.0
PERIOD = 0.2  # s between two diagnostics, for which many tests wait
MEMORY = (
    1000.0  # s that images are kept for requests; a busy machine stands still for seconds
)
_PARENT_DEATH = 1  # the option of prctl; a crashed test's nodes would answer the next tests
GREY = 128  # of the picture that the node warms up with, which shows nothing
_asked = threading.Event()  # whether the newest request is for the image of ASKED
VERTICES = torch.tensor(
    [[-0.4, -0.2, -0.1], [0.4, -0.2, -0.1], [0.0, 0.2, -0.1], [0.0, 0.0, 0.1]]
)
TRIANGLES = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


HANDLE = NamedFrame(
    "handle",
    torch.tensor([0.4, 0.0, 0.1], dtype=torch.float64),
    torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64),
    0.2,
)


def car(
    diameter: float | None, category: str = "car", frames: tuple[NamedFrame, ...] = ()
) -> CategoryModel:
    unit = torch.nn.functional.normalize(torch.ones(4, 8), dim=1)
    return CategoryModel(
        category,
        VERTICES,
        TRIANGLES,
        unit,
        unit[:1],
        {},
        diameter=diameter,
        frames=frames,
    )


def posed_pixels(x: float, depth: float, yaw: float) -> np.ndarray:
    """Pixels (5, 3) uint8 that say where one car stands upright: m, m, rad.

    At yaw 0, the car's x points to the camera. Yaw turns it about its z, which points up.
    """
    numbers = np.array([x, depth, yaw], np.float32).view(np.uint8)
    return np.concatenate([[[1, POSED, 0]], numbers.reshape(4, 3)]).astype(np.uint8)


def posed_cam_from_canon(pixels: np.ndarray) -> torch.Tensor:
    """The pose (4, 4) that `posed_pixels` wrote."""
    x, depth, yaw = pixels[1:5].copy().reshape(-1).view(np.float32).astype(float)
    facing = torch.tensor([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]], dtype=torch.float64)
    up = torch.tensor([0.0, -yaw, 0.0], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation_from_vector(up) @ facing
    pose[:3, 3] = torch.tensor([x, 0.0, depth], dtype=torch.float64)
    return pose


class ScriptedEstimator:
    one_by_one = False
    best_rejected: float | None = None
    threshold = 0.22
    runtime = None

    def __init__(
        self,
        models: Sequence[CategoryModel],
        backbone: Any = None,
        device: str = "cpu",
        config: Any = None,
    ) -> None:
        self.models, self.backbone = tuple(models), backbone or object()
        self.config = config
        pretends = device == "auto" and any(model.category == "gpu_car" for model in models)
        self.device = torch.device("cuda" if pretends else "cpu")

    def __call__(
        self,
        image: np.ndarray,
        camera: Camera,
        regions: torch.Tensor | None = None,
        depth: np.ndarray | None = None,
        categories: Collection[str] | None = None,
        expected: object = None,  # a script looks everywhere
    ) -> list[PoseEstimate]:
        red, green, blue = (int(value) for value in image[0, 0])
        count = 0 if red == green == blue == GREY else red
        if count == 255:
            raise RuntimeError("scripted fault")
        if count == FULL:
            if self.device.type == "cuda":
                raise torch.cuda.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.00 GiB."
                )
            count = 1
        if green == HELD:
            print(HOLDS, flush=True)
            _asked.wait(HANG)
        turn = torch.eye(3, dtype=torch.float64)
        if green == FLIPPED:
            turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
        if blue <= ROLLED and blue != red:  # a grey picture rolls nothing
            turn = (
                rotation_from_vector(
                    torch.tensor([0.0, 0.0, np.radians(blue)], dtype=torch.float64)
                )
                @ turn
            )
        models = [
            model
            for model in self.models
            if categories is None or model.category in categories
        ]
        found = [
            self._estimate(model, i, turn)
            for model in models
            for i in range(count if regions is None else len(regions))
        ]
        if green == POSED:
            pose = posed_cam_from_canon(image[0])
            found = [dataclasses.replace(one, cam_from_canon=pose) for one in found[:1]]
        if green == HIDDEN:
            found = [
                dataclasses.replace(
                    one,
                    score=0.6,
                    alternatives=(PoseMode(one.cam_from_canon @ HALF_TURN, -0.7),),
                )
                for one in found
            ]
        if regions is not None:
            found = [
                dataclasses.replace(one, box=box)
                for one, box in zip(found, regions, strict=True)
            ]
        if depth is not None and np.isfinite(depth).any():
            found = [to_metres(one, float(np.nanmedian(depth)) / 3) for one in found]
        return found

    def _estimate(self, model: CategoryModel, i: int, turn: torch.Tensor) -> PoseEstimate:
        unit = model.diameter or 1.0
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = turn
        pose[:3, 3] = unit * torch.tensor([float(i), 0.0, 3.0])
        size = unit * torch.tensor([0.8, 0.4, 0.2], dtype=torch.float64)
        box = torch.tensor([100.0 * i, 100, 100.0 * i + 40, 140], dtype=torch.float64)
        metric = model.diameter is not None
        one = PoseEstimate(
            model.category, pose, unit, metric, size, 0.9, None, Symmetry(), 40, 1.0, box
        )
        return dataclasses.replace(one, frames=tuple(carry_frames(one, model.frames)))


def read(folders: Sequence[str]) -> list[CategoryModel]:
    names = [Path(folder).name for folder in folders]
    if not names or not all(name.startswith(("plain", "size")) for name in names):
        raise InvalidInput(f"{folders}: there is no model; plain or size are valid")
    return [
        car(
            0.25 if name.startswith("size") else None,
            _category(name),
            (HANDLE,) if "handle" in name else (),
        )
        for name in names
    ]


def _category(name: str) -> str:
    return next(
        (
            category
            for part, category in {"truck": "truck", "gpu": "gpu_car"}.items()
            if part in name
        ),
        "car",
    )


class _WatchedRequests(PoseRequests):
    """Ends the waiting of held estimations as soon as the request waits for the worker thread."""

    def _on_request(self, request: Detection2DArray) -> None:
        super()._on_request(request)
        if request.header.stamp.sec == ASKED:
            _asked.set()
        else:
            _asked.clear()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    device_failover.RETRY = RETRY
    managed_node.PERIOD = PERIOD
    pose_requests.MEMORY = MEMORY
    vars(estimator_node)["PoseRequests"] = _WatchedRequests
    # answers like an Estimator
    sys.exit(estimator_node.run_estimator(read, ScriptedEstimator))  # type: ignore[arg-type]
