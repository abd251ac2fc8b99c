"""An estimator that does not give up with its device.

The processor goes on until the device works again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.device import OUT_OF_MEMORY, release_memory, trouble_of
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.estimator import Estimator, EstimatorConfig
from uns_pose_ros.networks.backbone_runtimes import Backbone

RETRY = 60.0  # s after which a device that failed is tried again
Make = Callable[
    [Sequence[CategoryModel], Backbone | None, str, EstimatorConfig], Estimator
]  # as Estimator is made


class FallbackEstimator:
    """Answers like the Estimator that it makes, and outlives the errors of its device.

    Out of memory: its cache is given back and the objects of a picture are looked at one by one.
    Where that does not help, or the device has failed, the processor takes over; the device is
    tried again, with a picture, every RETRY seconds.
    """

    def __init__(
        self,
        models: Sequence[CategoryModel],
        device: str = "auto",
        config: EstimatorConfig = EstimatorConfig(),
        backbone: Backbone | None = None,
        make: Make = Estimator,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """backbone.

        Of an estimator on this device; make: what makes estimators; clock: tells seconds. Raises
        InvalidInput.
        """
        self.models = tuple(models)
        self._name, self._config, self._make, self._clock = device, config, make, clock
        self._fault, self._due = "", 0.0
        # on the processor, kept once it has been needed
        self._spare: Estimator | None = None
        try:
            self._working = make(self.models, backbone, device, config)
        except RuntimeError as error:
            fault = trouble_of(error)
            if fault is None:
                raise
            self._switch_to_cpu(device, fault)

    @property
    def device(self) -> torch.device:
        """Where the next picture goes."""
        return self._working.device

    @property
    def fault(self) -> str:
        """What is wrong with the device, empty where nothing is."""
        if not self._fault and self._working.one_by_one:
            return (
                f"{self.device} is {OUT_OF_MEMORY}: the objects of a picture are looked at "
                "one by one"
            )
        return self._fault

    def with_models(self, models: Sequence[CategoryModel]) -> FallbackEstimator:
        """One for other models.

        It shares this one's backbone where that is on the device it should be. Raises InvalidInput.
        """
        backbone = None if self._fault else self._working.backbone
        return FallbackEstimator(
            models, self._name, self._config, backbone, self._make, self._clock
        )

    def __call__(
        self,
        image: Tensor | NDArray[np.uint8],
        camera: Camera,
        regions: Tensor | None = None,
        depth: Tensor | NDArray[np.float32] | None = None,
        categories: Collection[str] | None = None,
    ) -> list[PoseEstimate]:
        """As Estimator's."""
        if self.fault and self._clock() >= self._due:
            self._retry_device()
        fault, crowded = "", self._working.one_by_one
        for _ in range(
            2
        ):  # what other pictures left in the cache may be all that was missing
            try:
                found = self._working(image, camera, regions, depth, categories)
            except RuntimeError as error:
                fault = trouble_of(error) or ""
                if not fault or self.device.type == "cpu":
                    raise
            else:
                if self._working.one_by_one and not crowded:
                    self._due = self._clock() + RETRY
                return found
            release_memory()
            if fault != OUT_OF_MEMORY:
                break
        self._switch_to_cpu(str(self.device), fault)
        return self._working(image, camera, regions, depth, categories)

    def _switch_to_cpu(self, device: str, fault: str) -> None:
        """Let the processor work from now on."""
        self._fault = (
            f"{device}: {fault}; the processor works in its place, it is tried "
            f"again every {RETRY:.0f} s"
        )
        self._due = self._clock() + RETRY
        if self._spare is None:
            fitting = (
                "torch" if self._config.runtime == "torch-compile" else self._config.runtime
            )
            self._spare = self._make(
                self.models, None, "cpu", replace(self._config, runtime=fitting)
            )
        self._working = self._spare
        release_memory()

    def _retry_device(self) -> None:
        """Let the device work again, or all objects of a picture at once.

        The next picture shows whether it can.
        """
        self._due = self._clock() + RETRY
        if not self._fault:
            self._working.one_by_one = False
            return
        try:
            working = self._make(self.models, None, self._name, self._config)
        except InvalidInput:  # it is not there any more
            return
        except RuntimeError as error:
            if trouble_of(error) is None:
                raise
            return
        # auto chooses the processor where there is no other device
        if working.device.type != "cpu":
            self._working, self._fault = working, ""
