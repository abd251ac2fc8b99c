"""FallbackEstimator: an estimator that continues on the CPU after its device fails."""

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
from uns_pose_ros.estimation.stream.expectation import Expectation
from uns_pose_ros.networks.backbone_runtimes import Backbone
from uns_pose_ros.networks.runtime_choice import RuntimeChoice

RETRY = 60.0  # s between two trials of a device that has failed
# makes an Estimator from the arguments of its constructor
Make = Callable[[Sequence[CategoryModel], Backbone | None, str, EstimatorConfig], Estimator]


class FallbackEstimator:
    """An Estimator that survives the errors of its device.

    If the device is out of memory, the cache is released, and the objects of an image are
    estimated one by one. If this does not help, or if the device has failed, the CPU takes over.
    Every RETRY seconds, the next image tries the device again.
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
        """Make the first estimator.

        Args:
            models: The category models.
            device: auto, cpu, cuda or cuda:N.
            config: Settings of the estimator.
            backbone: The backbone of another estimator on this device; None: it is loaded.
            make: Makes estimators.
            clock: Returns the time in seconds.

        Raises:
            InvalidInput: The models or the device cannot be used.
        """
        self.models = tuple(models)
        self._name, self._config, self._make, self._clock = device, config, make, clock
        self._fault, self._due = "", 0.0
        # estimator on the CPU; kept after its first use
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
        """The device of the next image."""
        return self._working.device

    @property
    def runtime(self) -> RuntimeChoice | None:
        """The backbone's runtime and why it was taken; None: the backbone was given."""
        return self._working.runtime

    @property
    def fault(self) -> str:
        """The fault of the device; empty if it has none."""
        if not self._fault and self._working.one_by_one:
            return (
                f"{self.device} is {OUT_OF_MEMORY}: the objects of an image are estimated "
                "one by one"
            )
        return self._fault

    @property
    def best_rejected(self) -> float | None:
        """Best score below the threshold in the last image; None: there was no such pose."""
        return self._working.best_rejected

    @property
    def threshold(self) -> float:
        """The smallest score of an estimate, over all models."""
        return self._working.threshold

    def configure(self, config: EstimatorConfig) -> None:
        """Use other settings from the next image on; the runtime of the backbone stays.

        Call it from the thread that estimates.
        """
        config = replace(config, runtime=self._config.runtime)
        if config == self._config:
            return
        self._config = config
        for estimator in (self._working, self._spare):
            if estimator is not None:
                estimator.config = replace(config, runtime=estimator.config.runtime)

    def with_models(self, models: Sequence[CategoryModel]) -> FallbackEstimator:
        """Make an estimator for other models; raises InvalidInput if they cannot be used.

        Both share one backbone, unless the CPU works in place of the device.
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
        expected: Expectation | None = None,
    ) -> list[PoseEstimate]:
        """Estimate as `Estimator` does."""
        if self.fault and self._clock() >= self._due:
            self._retry_device()
        fault, crowded = "", self._working.one_by_one
        # after the first error, the cache of earlier images is released: this may be sufficient
        for _ in range(2):
            try:
                estimates = self._working(
                    image, camera, regions, depth, categories, expected
                )
            except RuntimeError as error:
                fault = trouble_of(error) or ""
                if not fault or self.device.type == "cpu":
                    raise
            else:
                if self._working.one_by_one and not crowded:
                    self._due = self._clock() + RETRY
                return estimates
            release_memory()
            if fault != OUT_OF_MEMORY:
                break
        self._switch_to_cpu(str(self.device), fault)
        return self._working(image, camera, regions, depth, categories, expected)

    def _switch_to_cpu(self, device: str, fault: str) -> None:
        """Use the CPU from now on."""
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
        """Try the device again, or all objects of an image in one batch, with the next image."""
        self._due = self._clock() + RETRY
        if not self._fault:
            self._working.one_by_one = False
            return
        try:
            working = self._make(self.models, None, self._name, self._config)
        except InvalidInput:  # the device does not exist any more
            return
        except RuntimeError as error:
            if trouble_of(error) is None:
                raise
            return
        # auto chooses the CPU if no other device exists
        if working.device.type != "cpu":
            self._working, self._fault = working, ""
