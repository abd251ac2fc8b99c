"""The Estimator: from one image to the poses of all instances of its categories.

Command line, node and evaluation use the same Estimator.

    image -> `object_search` -> boxes (without given regions)
    box -> crop through backbone and head -> probability of every template vertex in every cell
        -> `pose_solver` -> pose
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.camera import undistort
from uns_pose_ros.core.crops import crop, square_around
from uns_pose_ros.core.device import choose_device, release_memory
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.depth.depth_refinement import use_depth
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.estimation.metric_scale import check_depth
from uns_pose_ros.estimation.object_search import ObjectSearch, score_threshold
from uns_pose_ros.estimation.regions import touching_objects
from uns_pose_ros.estimation.regions.touching_objects import HiddenCells, SolvedCrop
from uns_pose_ros.estimation.solver.pose_solver import solve
from uns_pose_ros.estimation.stream.expectation import Expectation, ExpectedCrops
from uns_pose_ros.networks.backbone_runtimes import Backbone, load_runtime, resolve_runtime
from uns_pose_ros.networks.dinov2 import imagenet_normalize
from uns_pose_ros.networks.runtime_choice import RuntimeChoice


class Estimator:
    """Estimates the poses of all instances of its categories in an image."""

    def __init__(
        self,
        models: CategoryModel | Sequence[CategoryModel],
        backbone: Backbone | None = None,
        device: str = "auto",
        config: EstimatorConfig = EstimatorConfig(),
    ) -> None:
        """Put the models on a device; several models share one backbone.

        Args:
            models: One model or several models.
            backbone: None: the cached weights are loaded into the runtime of `config`.
            device: auto, cpu, cuda or cuda:N.
            config: Settings of search and solver.

        Raises:
            InvalidInput: The models cannot be used.
        """
        self.models = (models,) if isinstance(models, CategoryModel) else tuple(models)
        if not self.models:
            raise InvalidInput("no model given: an estimator needs one at least")
        self.config = config
        # True after all crops of an image needed too much memory: crops are estimated one by one
        self.one_by_one = False
        # best score below the threshold in the last image; None: there was no such pose
        self.best_rejected: float | None = None
        # the backbone's runtime and why it was taken; None: the backbone was given
        self.runtime: RuntimeChoice | None = None
        if backbone is None:
            self.runtime = resolve_runtime(config.runtime, device)
            patient = config.runtime == "auto"
            self.backbone, self.device = load_runtime(self.runtime.name, device, patient)
        else:
            self.backbone, self.device = backbone, choose_device(device)
        halved = self.backbone.precision == "bf16"
        self._loaded = [LoadedModel(model, self.device, halved) for model in self.models]
        if len({loaded.layers for loaded in self._loaded}) > 1:
            raise InvalidInput(
                "the models read different layers of the backbone: train them with the same version"
            )

    @torch.inference_mode()
    def __call__(
        self,
        image: Tensor | NDArray[np.uint8],
        camera: Camera,
        regions: Tensor | None = None,
        depth: Tensor | NDArray[np.float32] | None = None,
        categories: Collection[str] | None = None,
        expected: Expectation | None = None,
    ) -> list[PoseEstimate]:
        """Estimate the poses of all instances in an image.

        Args:
            image: (H, W, 3) uint8 RGB.
            camera: Camera of the image.
            regions: Boxes (N, 4) x0 y0 x1 y1 in px around one object each; None: the estimator
                searches the objects.
            depth: (H, W) m of the same pixels, NaN for unknown. It refines the poses, and scales
                those of models without a size (`use_depth`).
            categories: Categories that are searched, of those of the models; None: all.
            expected: What a stream expects of the image; None: the image is a single one. Regions
                that are given come first.

        Returns:
            The estimates, best first.

        Raises:
            InvalidInput: The image or the depth has a wrong shape or type.
        """
        pixels = _check_image(image)
        if depth is not None:
            check_depth(depth.shape, pixels.shape)
        lens = camera
        if len(camera.distortion):
            pixels, _, camera = undistort(pixels.cpu(), None, camera)
        pixels = pixels.permute(2, 0, 1).to(self.device)
        self.best_rejected = None
        search = ObjectSearch(
            pixels,
            camera,
            self.config,
            self._tokens,
            partial(self._solve_crops, pixels, camera),
        )
        loaded_models = [
            loaded
            for loaded in self._loaded
            if categories is None or loaded.model.category in categories
        ]
        if regions is not None:
            answers = [
                [*chain(*search.estimate_boxes(loaded, regions))] if len(regions) else []
                for loaded in loaded_models
            ]
        elif expected is not None:
            answers = search.follow(loaded_models, expected)
        else:
            answers = search.search(loaded_models)
        self.best_rejected = search.best_rejected
        results: list[PoseEstimate] = []
        for loaded, estimates in zip(loaded_models, answers, strict=True):
            if depth is not None:
                estimates = [
                    use_depth(
                        one,
                        loaded.model,
                        lens,
                        np.asarray(depth),
                        self.config.depth_refinement,
                    )
                    for one in estimates
                ]
            results += estimates
        return sorted(results, key=lambda estimate: -estimate.score)

    def without_threshold(
        self,
        image: Tensor | NDArray[np.uint8],
        camera: Camera,
        regions: Tensor | None = None,
    ) -> list[PoseEstimate]:
        """Estimate an image like a call, but return the poses with low scores too."""
        config = self.config
        self.config = replace(config, score_threshold=0.0)
        try:
            return self(image, camera, regions)
        finally:
            self.config = config

    def _tokens(self, images: Tensor) -> Tensor:
        """Compute the tokens (B, h, w, L * C) of images (B, 3, H, W) with values 0..255."""
        return (
            self.backbone(imagenet_normalize(images), layers=self._loaded[0].layers)
            .permute(1, 2, 3, 0, 4)
            .flatten(3)
        )

    def _solve_crops(
        self,
        pixels: Tensor,
        camera: Camera,
        loaded: LoadedModel,
        boxes: Tensor,
        expected: ExpectedCrops | None = None,
        hidden: Sequence[HiddenCells] = (),
    ) -> list[SolvedCrop]:
        """Estimate the best pose in each box (N, 4), without the hidden cells."""
        squares = square_around(boxes.double().cpu(), self.config.crop_margin)
        if not self.one_by_one:
            try:
                return self._solve_batch(loaded, pixels, camera, squares, expected, hidden)
            except torch.cuda.OutOfMemoryError:
                if len(squares) == 1:
                    raise
                self.one_by_one = True
            release_memory()  # not inside `except`: the error would still hold the tensors
        return [
            one
            for k in range(len(squares))
            for one in self._solve_batch(
                loaded,
                pixels,
                camera,
                squares[k : k + 1],
                None if expected is None else expected[k : k + 1],
                hidden[k : k + 1],
            )
        ]

    def _solve_batch(
        self,
        loaded: LoadedModel,
        pixels: Tensor,
        camera: Camera,
        squares: Tensor,
        expected: ExpectedCrops | None = None,
        hidden: Sequence[HiddenCells] = (),
    ) -> list[SolvedCrop]:
        """Estimate the best pose in each square (N, 4), in one batch."""
        crops, maps = crop(pixels, squares, loaded.crop_size)
        tokens = self._tokens(crops)
        probability, presence = loaded.read_crops(tokens)
        presence = touching_objects.hide_cells(presence, maps, hidden)
        solved = solve(
            loaded.model,
            loaded.template,
            probability,
            presence,
            loaded.crop_size,
            maps,
            camera,
            self.config,
            loaded.calibration,
            expected,
            loaded.shapes,
            loaded.likeness(tokens),
            loaded.coarse_rotation(tokens, presence),
        )
        return [SolvedCrop(*one) for one in zip(solved, presence, maps, strict=True)]

    @property
    def threshold(self) -> float:
        """The smallest score of an estimate, over all models."""
        return min(score_threshold(loaded, self.config) for loaded in self._loaded)

    def describe_nothing(self) -> str:
        """Say why the last image has no estimate: one line for people."""
        if self.best_rejected is None:
            return "nothing found (no region looks like an object)"
        return (
            f"nothing found (best score {self.best_rejected:.2f}, threshold "
            f"{self.threshold:.2f})"
        )


def _check_image(image: Tensor | NDArray[np.uint8]) -> Tensor:
    """Return an image (H, W, 3) uint8 as a tensor; raises InvalidInput if it is none."""
    if isinstance(image, np.ndarray) and not image.flags.writeable:
        image = image.copy()  # PyTorch warns of arrays that it could change, and must not
    pixels = torch.as_tensor(image)
    if (
        pixels.ndim != 3
        or pixels.shape[2] != 3
        or pixels.dtype != torch.uint8
        or not pixels.numel()
    ):
        raise InvalidInput(
            f"image of shape {tuple(pixels.shape)}, {pixels.dtype}: (height, width, 3) "
            "uint8 RGB is valid"
        )
    return pixels
