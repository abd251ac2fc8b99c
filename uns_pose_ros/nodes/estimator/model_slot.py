"""The models of the estimator node: read, warmed up, and replaced while the node runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.device_failover import FallbackEstimator, Make
from uns_pose_ros.io import artifacts
from uns_pose_ros.networks.runtime_choice import RuntimeChoice
from uns_pose_ros.nodes.estimator.estimator_parameters import NodeParameters
from uns_pose_ros.nodes.worker_thread import run_in_temporary_thread

ReadModels = Callable[[Sequence[str]], list[CategoryModel]]  # of folders


def read_models(folders: Sequence[str]) -> list[CategoryModel]:
    """Read the models of some folders; raises InvalidInput if one of them cannot be used."""
    if not folders:
        raise InvalidInput(
            "no model: set the parameter models to the folders that `uns-pose train` wrote, "
            "e.g. [mug/model]"
        )
    return [artifacts.load_model(Path(folder)) for folder in folders]


class ModelSlot:
    """Holds the estimator with the models in use; it is empty until `load`."""

    def __init__(self, read: ReadModels, make: Make) -> None:
        """Keep the functions that read models and make estimators."""
        self._read = read
        self._make = make
        self.estimator: FallbackEstimator | None = None

    @property
    def models(self) -> tuple[CategoryModel, ...]:
        """The models in use."""
        return () if self.estimator is None else self.estimator.models

    @property
    def categories(self) -> list[str]:
        """The category of each model in use."""
        return [model.category for model in self.models]

    @property
    def device(self) -> str:
        """Name of the device that computes."""
        return "none" if self.estimator is None else str(self.estimator.device)

    @property
    def runtime(self) -> RuntimeChoice | None:
        """The backbone's runtime and why it was taken; None: it is not known."""
        return None if self.estimator is None else self.estimator.runtime

    def load(self, settings: NodeParameters, config: EstimatorConfig) -> None:
        """Read the models of the settings and warm the estimator up.

        The slot is empty after an error.
        """
        self.estimator = None
        self.estimator = run_in_temporary_thread(
            lambda: self._warm_estimator(settings, config)
        )

    def prepare(self, settings: NodeParameters) -> FallbackEstimator:
        """Make an estimator with the models of the settings; the present one stays in use.

        Raises InvalidInput if the models cannot be used together.
        """
        estimator = self.estimator
        assert estimator is not None
        return run_in_temporary_thread(
            lambda: estimator.with_models(self._read_checked(settings))
        )

    def release(self) -> None:
        """Empty the slot."""
        self.estimator = None

    def _warm_estimator(
        self, settings: NodeParameters, config: EstimatorConfig
    ) -> FallbackEstimator:
        models = self._read_checked(settings)
        estimator = FallbackEstimator(models, settings.device, config, make=self._make)
        gray = np.full((480, 640, 3), 128, np.uint8)
        matrix = torch.tensor(
            [[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64
        )
        # the first call is slow: it allocates memory and loads kernels
        estimator(gray, Camera(matrix, 640, 480))
        return estimator

    def _read_checked(self, settings: NodeParameters) -> list[CategoryModel]:
        models = self._read(settings.model_folders)
        names = [model.category for model in models]
        if len(set(names)) < len(names):
            raise InvalidInput(
                f"two models are of one category, one each is valid: {', '.join(names)}"
            )
        check_categories(settings, names)
        return models


def check_categories(settings: NodeParameters, available: Sequence[str]) -> None:
    """Raise InvalidInput if the settings name a category that no model has.

    Args:
        settings: Settings of the node.
        available: The category of each model.
    """
    missing = [name for name in settings.wanted or () if name not in available]
    if missing:
        raise InvalidInput(
            f"categories {', '.join(missing)}: no model; {', '.join(available)} are valid, and "
            "none for all"
        )
