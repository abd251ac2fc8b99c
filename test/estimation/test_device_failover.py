"""When a device runs out of memory or fails the estimates go on.

With the errors of torch, from a stand-in for the device.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scripted_node import car
from small_model import CLIP
from uns_pose_ros.core.device import OUT_OF_MEMORY, trouble_of
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.device_failover import RETRY, FallbackEstimator
from uns_pose_ros.estimation.estimator import Estimator, EstimatorConfig
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks.dinov2 import DinoV2, load_backbone

FULL = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
LOST = [
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError(
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    ),
    RuntimeError(
        "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously "
        "reported"
    ),
]
if hasattr(torch, "AcceleratorError"):
    LOST.append(torch.AcceleratorError("CUDA error: unspecified launch failure"))
IMAGE = np.zeros((48, 64, 3), np.uint8)
CAMERA = Camera(
    torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]], dtype=torch.float64), 64, 48
)


class World:
    """A machine whose GPU raises `making` when an estimator is made on it, `working` with the next
    images.
    """

    def __init__(self) -> None:
        self.making: Exception | None = None
        self.working: list[
            Exception | None
        ] = []  # of the next images on the GPU, in turn; none: it works
        self.gone = False  # auto finds the processor only
        self.seconds = 0.0
        self.made: list[str] = []
        self.looked: list[str] = []
        self.runtimes: list[str] = []

    def make(
        self,
        models: Sequence[CategoryModel],
        backbone: Any,
        device: str,
        config: EstimatorConfig,
    ) -> Estimator:
        on_gpu = device != "cpu" and not self.gone
        self.made.append("cuda" if on_gpu else "cpu")
        self.runtimes.append(config.runtime)
        if on_gpu and self.making is not None:
            raise self.making
        # answers like an Estimator
        return StandIn(self, torch.device(self.made[-1]))  # type: ignore[return-value]

    def estimator(self, **settings: Any) -> FallbackEstimator:
        return FallbackEstimator(
            [car(0.2)], make=self.make, clock=lambda: self.seconds, **settings
        )


class StandIn:
    one_by_one = False

    def __init__(self, world: World, device: torch.device) -> None:
        self.device, self.backbone, self._world = device, object(), world

    def __call__(
        self,
        image: Any,
        camera: Camera,
        regions: Any,
        depth: Any,
        categories: Collection[str] | None,
        expected: object,
    ) -> list[PoseEstimate]:
        self._world.looked.append(self.device.type)
        error = (
            self._world.working.pop(0)
            if self.device.type == "cuda" and self._world.working
            else None
        )
        if error is not None:
            raise error
        return []


@pytest.mark.parametrize("error", LOST, ids=lambda error: str(error)[:30])
def test_a_lost_device_is_left_for_the_processor_which_answers_the_same_picture(
    error: Exception,
) -> None:
    world = World()
    world.working = [None, error]
    find = world.estimator()
    assert find(IMAGE, CAMERA) == find(IMAGE, CAMERA) == find(IMAGE, CAMERA) == []
    assert world.looked == ["cuda", "cuda", "cpu", "cpu"]
    assert find.device.type == "cpu"
    assert find.fault.startswith(f"cuda: the device failed ({str(error).splitlines()[0]}")
    assert "the processor works in its place, it is tried again every 60 s" in find.fault


def test_the_device_is_tried_again_after_a_minute_and_used_once_it_works() -> None:
    world = World()
    find = world.estimator()
    world.working = [LOST[0]]
    find(IMAGE, CAMERA)
    world.making = LOST[0]
    world.seconds = RETRY - 1
    find(IMAGE, CAMERA)
    assert world.made == ["cuda", "cpu"]
    world.seconds = RETRY
    find(IMAGE, CAMERA)  # tried: it cannot even be loaded
    assert (world.made, find.device.type) == (["cuda", "cpu", "cuda"], "cpu")
    world.making, world.seconds = None, 2 * RETRY
    world.working = [LOST[0]]
    find(
        IMAGE, CAMERA
    )  # it loads and fails with the image; the processor's estimator is still there
    assert (world.made, find.device.type) == (["cuda", "cpu", "cuda", "cuda"], "cpu")
    world.seconds = 3 * RETRY
    find(IMAGE, CAMERA)
    assert (find.device.type, find.fault) == ("cuda", "")
    assert world.looked == ["cuda", "cpu", "cpu", "cpu", "cuda", "cpu", "cuda"]


def test_out_of_memory_is_tried_again_with_an_empty_cache_before_the_processor_takes_over() -> (
    None
):
    world = World()
    find = world.estimator(device="cuda:1", config=EstimatorConfig(runtime="torch-compile"))
    world.working = [FULL]
    find(IMAGE, CAMERA)
    assert (world.looked, find.fault) == (["cuda", "cuda"], "")
    world.working = [FULL, FULL]
    find(IMAGE, CAMERA)
    assert world.looked[2:] == ["cuda", "cuda", "cpu"]
    assert OUT_OF_MEMORY in find.fault
    assert world.runtimes == [
        "torch-compile",
        "torch",
    ]  # the processor does not know the former


def test_a_device_that_cannot_even_be_loaded_leaves_the_work_to_the_processor() -> None:
    world = World()
    world.making = FULL
    find = world.estimator(device="cuda")
    assert find.device.type == "cpu"
    assert find.fault.startswith("cuda: out of memory")
    world.making = None
    other = find.with_models([car(0.3), car(0.2, "truck")])
    assert (other.device.type, [model.category for model in other.models]) == (
        "cuda",
        ["car", "truck"],
    )


def test_a_device_that_is_gone_is_not_taken_for_one_that_works_again() -> None:
    world = World()
    find = world.estimator()
    world.working, world.gone = [LOST[0]], True
    find(IMAGE, CAMERA)
    world.seconds = RETRY
    find(IMAGE, CAMERA)
    assert world.made == ["cuda", "cpu", "cpu"]
    assert "the device failed" in find.fault


def test_a_fault_that_is_not_the_devices_is_not_hidden() -> None:
    world = World()
    world.making = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        world.estimator()
    world.making = None
    find = world.estimator()
    world.working = [ValueError("no image"), RuntimeError("shapes do not fit")]
    with pytest.raises(ValueError, match="no image"):
        find(IMAGE, CAMERA)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        find(IMAGE, CAMERA)
    assert (world.made, find.fault) == (["cuda", "cuda"], "")
    assert (
        trouble_of(
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        )
        is None
    )


class Narrow:
    """The backbone with memory for one crop at a time, or for so many as `room` says."""

    precision = "fp32"

    def __init__(self, network: DinoV2) -> None:
        self._network, self.room, self.batches = network, 1, list[int]()

    def __call__(self, images: Tensor, layers: Sequence[int]) -> Tensor:
        self.batches.append(len(images))
        if len(images) > self.room:
            raise FULL
        return self._network(images, layers=layers)


def test_with_little_memory_objects_are_looked_at_one_by_one_with_the_same_answer(
    chair_model: Path,
) -> None:
    frame, seconds = load_video(CLIP).frames[4], [0.0]
    image, model = read_image(frame.image), artifacts.load_model(chair_model)
    narrow, config = (
        Narrow(load_backbone(device="cpu", precision="fp32")),
        EstimatorConfig(score_threshold=0.0),
    )
    # a protocol
    find = FallbackEstimator([model], "cpu", config, narrow, clock=lambda: seconds[0])  # type: ignore[arg-type]
    height, width = image.shape[:2]
    box = torch.tensor([0.2 * width, 0.1 * height, 0.8 * width, 0.9 * height])
    regions = torch.stack([box, box * 0.9])
    alone = find(image, frame.camera, regions)
    assert narrow.batches == [2, 1, 1]
    assert (
        find.fault
        == "cpu is out of memory: the objects of an image are estimated one by one"
    )
    find(image, frame.camera, regions)
    assert narrow.batches[3:] == [1, 1]  # it is remembered
    seconds[0], narrow.room = RETRY, 9
    together = find(image, frame.camera, regions)
    assert (narrow.batches[5:], find.fault) == ([2], "")
    assert len(alone) == len(together) == 2
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one.cam_from_canon, other.cam_from_canon, atol=1e-3)


def test_only_the_categories_asked_for_are_looked_for(chair_model: Path) -> None:
    frame, model = load_video(CLIP).frames[4], artifacts.load_model(chair_model)
    find = FallbackEstimator([model], "cpu", EstimatorConfig(score_threshold=0.0))
    image = read_image(frame.image)
    assert {one.category for one in find(image, frame.camera, categories=["chair"])} == {
        "chair"
    }
    assert find(image, frame.camera, categories=["table"]) == []
    with pytest.raises(InvalidInput, match="no model given"):
        find.with_models([])
