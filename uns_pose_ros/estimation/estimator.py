"""The Estimator: from one image to the poses of all instances of its categories.

Command line, node and evaluation use the same Estimator.

    image -> whole image through backbone and head -> cells that show a category -> boxes
        (without given regions)
    box -> crop through backbone and head -> probability of every template vertex in every cell
        -> `pose_solver` -> pose
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from uns_pose_ros.core.camera import undistort
from uns_pose_ros.core.crops import crop, square_around
from uns_pose_ros.core.device import choose_device, release_memory
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.depth.depth_refinement import use_depth
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.estimation.metric_scale import check_depth
from uns_pose_ros.estimation.regions import presence_regions, touching_objects
from uns_pose_ros.estimation.regions.touching_objects import HiddenCells, SolvedCrop
from uns_pose_ros.estimation.solver.pose_solver import solve
from uns_pose_ros.estimation.stream.expectation import (
    Expectation,
    ExpectedCrops,
    ExpectedObject,
    agrees,
    blank_boxes,
    box_iou,
    expected_crops,
    outside_boxes,
    project_box,
    region_of_box,
    whole_object_box,
)
from uns_pose_ros.networks.backbone_runtimes import Backbone, load_runtime, resolve_runtime
from uns_pose_ros.networks.dinov2 import PATCH, imagenet_normalize
from uns_pose_ros.networks.runtime_choice import RuntimeChoice

# log odds of an object below which a region of the whole image gets no look from near
_UNLIKE = -16.0


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
        if isinstance(image, np.ndarray) and not image.flags.writeable:
            image = (
                image.copy()
            )  # PyTorch warns of arrays that it could change, and must not
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
        if depth is not None:
            check_depth(depth.shape, pixels.shape)
        lens = camera
        if len(camera.distortion):
            pixels, _, camera = undistort(pixels.cpu(), None, camera)
        pixels = pixels.permute(2, 0, 1).to(self.device)
        self.best_rejected = None
        results: list[PoseEstimate] = []
        loaded_models = [
            loaded
            for loaded in self._loaded
            if categories is None or loaded.model.category in categories
        ]
        if regions is not None:
            answers = [
                [*chain(*self._estimate_boxes(loaded, pixels, camera, regions))]
                if len(regions)
                else []
                for loaded in loaded_models
            ]
        elif expected is not None:
            answers = self._follow(loaded_models, pixels, camera, expected)
        else:
            answers = [
                self._search_once(loaded, pixels, camera, box)
                for loaded, box in zip(
                    loaded_models, self._search_regions(pixels, loaded_models), strict=True
                )
            ]
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

    def _follow(
        self,
        loaded_models: Sequence[LoadedModel],
        pixels: Tensor,
        camera: Camera,
        expected: Expectation,
    ) -> list[list[PoseEstimate]]:
        """Estimate what a stream expects of an image, and search the rest if this is due.

        The whole image is also searched if an object is not where it is expected. What is found
        where an object is as expected is left out.
        """
        answers, sure = list[list[PoseEstimate]](), list[list[Tensor]]()
        doubted = list[bool]()
        for loaded in loaded_models:
            objects = expected.of_category(loaded.model.category)
            seen, boxes = self._estimate_expected(loaded, pixels, camera, objects)
            answers.append(seen)
            sure.append(boxes)
            doubted.append(len(boxes) < len(objects))
        if not (expected.search or any(doubted)):
            return [self._without_overlaps(seen) for seen in answers]
        regions = self._search_regions(pixels, loaded_models, sure)
        for k, loaded in enumerate(loaded_models):
            left = outside_boxes(regions[k], sure[k], self.config.crop_margin)
            if len(left):
                whole = expected.thorough or doubted[k]
                answers[k] += self._estimate_regions(loaded, pixels, camera, left, whole)
        return [self._without_overlaps(seen) for seen in answers]

    def _estimate_expected(
        self,
        loaded: LoadedModel,
        pixels: Tensor,
        camera: Camera,
        objects: Sequence[ExpectedObject],
    ) -> tuple[list[PoseEstimate], list[Tensor]]:
        """Estimate objects where they are expected.

        Returns:
            The estimates, and the boxes (4,) of the whole objects that are as expected.
        """
        shown = [(one, project_box(loaded.model, one.estimate, camera)) for one in objects]
        share = loaded.template.share
        cut = [(one, box, region_of_box(box, share, camera)) for one, box in shown]
        inside = [(one, box, region) for one, box, region in cut if region is not None]
        if not inside:
            return [], []
        regions = [region for _, _, region in inside]
        crops = expected_crops([one for one, _, _ in inside], regions)
        solved = self._estimate_boxes(loaded, pixels, camera, torch.stack(regions), crops)
        sure = [
            whole_object_box(estimate, camera)
            for (one, box, _), found in zip(inside, solved, strict=True)
            for estimate in found
            if agrees(one, box, estimate)
        ]
        return [estimate for found in solved for estimate in found], sure

    def _estimate_regions(
        self,
        loaded: LoadedModel,
        pixels: Tensor,
        camera: Camera,
        boxes: Tensor,
        unite: bool = True,
    ) -> list[PoseEstimate]:
        """Estimate the poses in the boxes (N, 4) of a search.

        Something in front of an object may divide it into several regions. So the solver also
        tries neighboring boxes as one object. The whole is kept if its score is at least the mean
        score of the parts, weighted with their areas. Of overlapping poses the best is kept.
        Without `unite`, each box is tried alone.
        """
        groups = (
            presence_regions.group_neighbors(boxes, self.config.merge_gap) if unite else []
        )
        wholes = [torch.cat([boxes[g, :2].amin(0), boxes[g, 2:].amax(0)]) for g in groups]
        solved = self._solve_crops(loaded, pixels, camera, torch.stack([*boxes, *wholes]))
        answers = [
            self._separate(loaded, pixels, camera, one) for one in solved[: len(boxes)]
        ]
        answers += [self._accept(loaded, one) for one in solved[len(boxes) :]]
        score = torch.tensor(
            [touching_objects.mean_score(one) for one in answers], dtype=torch.float64
        )
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        for whole, parts in enumerate(groups, len(boxes)):
            apart = (score[parts] * area[parts]).sum() / area[parts].sum()
            for k in parts if score[whole] >= apart else [whole]:
                answers[k] = []
        return self._without_overlaps(chain(*answers))[: self.config.max_instances]

    def _search_once(
        self, loaded: LoadedModel, pixels: Tensor, camera: Camera, boxes: Tensor
    ) -> list[PoseEstimate]:
        """Estimate the poses in the boxes (N, 4) of a search in a single image."""
        if not len(boxes):
            return []
        found = self._estimate_regions(loaded, pixels, camera, boxes)
        if self.config.second_look and found:
            found = self._without_overlaps(self._look_again(loaded, pixels, camera, found))
        return found

    def _look_again(
        self,
        loaded: LoadedModel,
        pixels: Tensor,
        camera: Camera,
        found: Sequence[PoseEstimate],
    ) -> list[PoseEstimate]:
        """Cut objects out around their poses, which join the hypotheses, and solve them again.

        What lies for the most part outside the image, or in the box of another one, stays as it
        is, and so does what the second look does not find good enough: under cover, most of the
        second crop may show something else.
        """
        kept, objects, regions = (
            list[PoseEstimate](),
            list[ExpectedObject](),
            list[Tensor](),
        )
        for one in found:
            box = project_box(loaded.model, one, camera)
            region = region_of_box(box, loaded.template.share, camera)
            others = (other.box for other in found if other is not one)
            if region is None or any(box_iou(region, other) > 0 for other in others):
                kept.append(one)
            else:
                objects.append(ExpectedObject(one, 0.0))
                regions.append(region)
        if not regions:
            return kept
        crops = expected_crops(objects, regions)
        solved = self._estimate_boxes(loaded, pixels, camera, torch.stack(regions), crops)
        looks = zip(objects, solved, strict=True)
        return [*kept, *chain(*(again or [first.estimate] for first, again in looks))]

    def _separate(
        self,
        loaded: LoadedModel,
        pixels: Tensor,
        camera: Camera,
        whole: SolvedCrop,
        rounds: int = 2,
    ) -> list[PoseEstimate]:
        """Estimate the objects of a solved region: one, or several that touch.

        Where much of the region lies beside its pose, the solver also tries each part by itself.
        A region below the model's own threshold shows none and is not divided, whatever the user's
        threshold is.
        """
        alone = self._accept(loaded, whole)
        estimate = whole.estimate
        if estimate is None or estimate.score < loaded.threshold or not rounds:
            return alone
        parts = touching_objects.divide_region(whole, loaded.model, camera, self.config)
        if not parts:
            return alone
        boxes, hidden = torch.stack([part.box for part in parts]), [p.others for p in parts]
        solved = self._solve_crops(loaded, pixels, camera, boxes, hidden=hidden)
        apart = [self._separate(loaded, pixels, camera, one, rounds - 1) for one in solved]
        return touching_objects.choose_division(
            alone, self._without_overlaps(chain(*apart))
        )

    def _without_overlaps(self, estimates: Iterable[PoseEstimate]) -> list[PoseEstimate]:
        """Return the estimates, best first, without those that overlap a better one."""
        kept: list[PoseEstimate] = []
        for estimate in sorted(estimates, key=lambda one: -one.score):
            if all(
                box_iou(estimate.box, better.box) < self.config.nms_iou for better in kept
            ):
                kept.append(estimate)
        return kept

    def _tokens(self, images: Tensor) -> Tensor:
        """Compute the tokens (B, h, w, L * C) of images (B, 3, H, W) with values 0..255."""
        return (
            self.backbone(imagenet_normalize(images), layers=self._loaded[0].layers)
            .permute(1, 2, 3, 0, 4)
            .flatten(3)
        )

    def _search_regions(
        self,
        pixels: Tensor,
        loaded_models: Sequence[LoadedModel],
        taken: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Search the objects of each model in an image.

        Args:
            pixels: (3, H, W) of the image.
            loaded_models: The models.
            taken: For each model boxes (4,), px, in which nothing is searched.

        Returns:
            For each model boxes (N, 4), px; the boxes with the most cells are first.
        """
        height, width = pixels.shape[1:]
        scale = self.config.search_size / max(height, width)
        rows, columns = (max(1, round(side * scale / PATCH)) for side in (height, width))
        size = (rows * PATCH, columns * PATCH)
        # on the CPU, resizing bytes is 7 times as fast as resizing floats
        source = pixels[None] if pixels.device.type == "cpu" else pixels[None].float()
        small = interpolate(
            source, size, mode="bilinear", antialias=True, align_corners=False
        )
        tokens = self._tokens(small)
        # px of a cell
        unit = torch.tensor(
            [width / (2 * columns), height / (2 * rows)] * 2, dtype=torch.float64
        )
        boxes = []
        for k, loaded in enumerate(loaded_models):
            presence = loaded.read(tokens)[1][0].float().cpu().numpy()
            if taken is not None:
                cells = [box / unit for box in taken[k]]
                presence = blank_boxes(presence, cells, self.config.crop_margin)
            regions = presence_regions.connected_boxes(presence, self.config)
            if self._threshold_of(loaded) > 0:
                odds = presence_regions.object_odds(
                    loaded.likeness(tokens)[0], presence, regions, loaded.calibration
                )
                regions = regions[odds > _UNLIKE]
            boxes.append(regions * unit)
        return boxes

    def _estimate_boxes(
        self,
        loaded: LoadedModel,
        pixels: Tensor,
        camera: Camera,
        boxes: Tensor,
        expected: ExpectedCrops | None = None,
    ) -> list[list[PoseEstimate]]:
        """Estimate the best pose in each box (N, 4); an empty list where none is good enough."""
        solved = self._solve_crops(loaded, pixels, camera, boxes, expected)
        return [self._accept(loaded, one) for one in solved]

    def _solve_crops(
        self,
        loaded: LoadedModel,
        pixels: Tensor,
        camera: Camera,
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
        probability, presence = loaded.read(tokens)
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

    def _threshold_of(self, loaded: LoadedModel) -> float:
        """The smallest score of an estimate of a model."""
        chosen = self.config.score_threshold
        return chosen if chosen >= 0 else loaded.threshold

    @property
    def threshold(self) -> float:
        """The smallest score of an estimate, over all models."""
        return min(map(self._threshold_of, self._loaded))

    def _accept(self, loaded: LoadedModel, solved: SolvedCrop) -> list[PoseEstimate]:
        """Return the estimate if its score is good enough; keep the best other score."""
        estimate = solved.estimate
        if estimate is not None and estimate.score >= self._threshold_of(loaded):
            return [estimate]
        if estimate is not None:
            self.best_rejected = max(estimate.score, self.best_rejected or 0.0)
        return []

    def describe_nothing(self) -> str:
        """Say why the last image has no estimate: one line for people."""
        if self.best_rejected is None:
            return "nothing found (no region looks like an object)"
        return (
            f"nothing found (best score {self.best_rejected:.2f}, threshold "
            f"{self.threshold:.2f})"
        )
