"""The search for the objects of an image: which crops are solved, and which poses are kept.

    image -> presence of each category in its cells -> boxes -> poses in their crops
        -> a second look, division of objects that touch, union of objects that something parts

A stream names where its objects are expected; the rest of the image is then searched if it is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from uns_pose_ros.core.types import Camera, PoseEstimate
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.estimation.regions import presence_regions, touching_objects
from uns_pose_ros.estimation.regions.touching_objects import HiddenCells, SolvedCrop
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
from uns_pose_ros.networks.dinov2 import PATCH

# log odds of an object below which a region of the whole image gets no look from near
_UNLIKE = -16.0


class SolveCrops(Protocol):
    """Estimates the best pose in each of some boxes (N, 4) px of one image."""

    def __call__(
        self,
        loaded: LoadedModel,
        boxes: Tensor,
        expected: ExpectedCrops | None = None,
        hidden: Sequence[HiddenCells] = (),
    ) -> list[SolvedCrop]:
        """Solve the crops around the boxes, without the hidden cells."""
        ...


def score_threshold(loaded: LoadedModel, config: EstimatorConfig) -> float:
    """The smallest score of an estimate of a model."""
    return config.score_threshold if config.score_threshold >= 0 else loaded.threshold


class ObjectSearch:
    """The search for the objects of one image."""

    def __init__(
        self,
        pixels: Tensor,
        camera: Camera,
        config: EstimatorConfig,
        tokens: Callable[[Tensor], Tensor],
        solve: SolveCrops,
    ) -> None:
        """Take an image.

        Args:
            pixels: (3, H, W) uint8, on the device.
            camera: Camera of the image, without distortion.
            config: Settings of search and solver.
            tokens: Computes the tokens (B, h, w, L * C) of images (B, 3, H, W), values 0..255.
            solve: Estimates the best pose in boxes of this image.
        """
        self._pixels, self._camera, self._config = pixels, camera, config
        self._tokens, self._solve = tokens, solve
        # best score below the threshold; None: there was no such pose
        self.best_rejected: float | None = None

    def estimate_boxes(
        self,
        loaded: LoadedModel,
        boxes: Tensor,
        expected: ExpectedCrops | None = None,
    ) -> list[list[PoseEstimate]]:
        """Estimate the best pose in each box (N, 4); an empty list where none is good enough."""
        solved = self._solve(loaded, boxes, expected)
        return [self._accept(loaded, one) for one in solved]

    def search(self, loaded_models: Sequence[LoadedModel]) -> list[list[PoseEstimate]]:
        """Search the whole image, a single one, for the objects of each model."""
        regions = self._search_regions(loaded_models)
        return [
            self._search_once(loaded, boxes)
            for loaded, boxes in zip(loaded_models, regions, strict=True)
        ]

    def follow(
        self,
        loaded_models: Sequence[LoadedModel],
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
            seen, boxes = self._estimate_expected(loaded, objects)
            answers.append(seen)
            sure.append(boxes)
            doubted.append(len(boxes) < len(objects))
        if not (expected.search or any(doubted)):
            return [self._without_overlaps(seen) for seen in answers]
        regions = self._search_regions(loaded_models, sure)
        for k, loaded in enumerate(loaded_models):
            left = outside_boxes(regions[k], sure[k], self._config.crop_margin)
            if len(left):
                whole = expected.thorough or doubted[k]
                answers[k] += self._estimate_regions(loaded, left, whole)
        return [self._without_overlaps(seen) for seen in answers]

    def _estimate_expected(
        self,
        loaded: LoadedModel,
        objects: Sequence[ExpectedObject],
    ) -> tuple[list[PoseEstimate], list[Tensor]]:
        """Estimate objects where they are expected.

        Returns:
            The estimates, and the boxes (4,) of the whole objects that are as expected.
        """
        shown = [
            (one, project_box(loaded.model, one.estimate, self._camera)) for one in objects
        ]
        share = loaded.template.share
        cut = [(one, box, region_of_box(box, share, self._camera)) for one, box in shown]
        inside = [(one, box, region) for one, box, region in cut if region is not None]
        if not inside:
            return [], []
        regions = [region for _, _, region in inside]
        crops = expected_crops([one for one, _, _ in inside], regions)
        solved = self.estimate_boxes(loaded, torch.stack(regions), crops)
        sure = [
            whole_object_box(estimate, self._camera)
            for (one, box, _), found in zip(inside, solved, strict=True)
            for estimate in found
            if agrees(one, box, estimate)
        ]
        return [estimate for found in solved for estimate in found], sure

    def _estimate_regions(
        self,
        loaded: LoadedModel,
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
            presence_regions.group_neighbors(boxes, self._config.merge_gap) if unite else []
        )
        wholes = [torch.cat([boxes[g, :2].amin(0), boxes[g, 2:].amax(0)]) for g in groups]
        solved = self._solve(loaded, torch.stack([*boxes, *wholes]))
        answers = [self._separate(loaded, one) for one in solved[: len(boxes)]]
        answers += [self._accept(loaded, one) for one in solved[len(boxes) :]]
        score = torch.tensor(
            [touching_objects.mean_score(one) for one in answers], dtype=torch.float64
        )
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        for whole, parts in enumerate(groups, len(boxes)):
            apart = (score[parts] * area[parts]).sum() / area[parts].sum()
            for k in parts if score[whole] >= apart else [whole]:
                answers[k] = []
        return self._without_overlaps(chain(*answers))[: self._config.max_instances]

    def _search_once(self, loaded: LoadedModel, boxes: Tensor) -> list[PoseEstimate]:
        """Estimate the poses in the boxes (N, 4) of a search in a single image."""
        if not len(boxes):
            return []
        found = self._estimate_regions(loaded, boxes)
        if self._config.second_look and found:
            found = self._without_overlaps(self._look_again(loaded, found))
        return found

    def _look_again(
        self,
        loaded: LoadedModel,
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
            box = project_box(loaded.model, one, self._camera)
            region = region_of_box(box, loaded.template.share, self._camera)
            others = (other.box for other in found if other is not one)
            if region is None or any(box_iou(region, other) > 0 for other in others):
                kept.append(one)
            else:
                objects.append(ExpectedObject(one, 0.0))
                regions.append(region)
        if not regions:
            return kept
        crops = expected_crops(objects, regions)
        solved = self.estimate_boxes(loaded, torch.stack(regions), crops)
        looks = zip(objects, solved, strict=True)
        return [*kept, *chain(*(again or [first.estimate] for first, again in looks))]

    def _separate(
        self,
        loaded: LoadedModel,
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
        parts = touching_objects.divide_region(
            whole, loaded.model, self._camera, self._config
        )
        if not parts:
            return alone
        boxes, hidden = torch.stack([part.box for part in parts]), [p.others for p in parts]
        solved = self._solve(loaded, boxes, hidden=hidden)
        apart = [self._separate(loaded, one, rounds - 1) for one in solved]
        return touching_objects.choose_division(
            alone, self._without_overlaps(chain(*apart))
        )

    def _without_overlaps(self, estimates: Iterable[PoseEstimate]) -> list[PoseEstimate]:
        """Return the estimates, best first, without those that overlap a better one."""
        kept: list[PoseEstimate] = []
        for estimate in sorted(estimates, key=lambda one: -one.score):
            if all(
                box_iou(estimate.box, better.box) < self._config.nms_iou for better in kept
            ):
                kept.append(estimate)
        return kept

    def _search_regions(
        self,
        loaded_models: Sequence[LoadedModel],
        taken: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Search the objects of each model in an image.

        Args:
            loaded_models: The models.
            taken: For each model boxes (4,), px, in which nothing is searched.

        Returns:
            For each model boxes (N, 4), px; the boxes with the most cells are first.
        """
        height, width = self._pixels.shape[1:]
        scale = self._config.search_size / max(height, width)
        rows, columns = (max(1, round(side * scale / PATCH)) for side in (height, width))
        size = (rows * PATCH, columns * PATCH)
        # on the CPU, resizing bytes is 7 times as fast as resizing floats
        source = self._pixels[None]
        if self._pixels.device.type != "cpu":
            source = source.float()
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
                presence = blank_boxes(presence, cells, self._config.crop_margin)
            regions = presence_regions.connected_boxes(presence, self._config)
            if score_threshold(loaded, self._config) > 0:
                odds = presence_regions.object_odds(
                    loaded.likeness(tokens)[0], presence, regions, loaded.calibration
                )
                regions = regions[odds > _UNLIKE]
            boxes.append(regions * unit)
        return boxes

    def _accept(self, loaded: LoadedModel, solved: SolvedCrop) -> list[PoseEstimate]:
        """Return the estimate if its score is good enough; keep the best other score."""
        estimate = solved.estimate
        if estimate is not None and estimate.score >= score_threshold(loaded, self._config):
            return [estimate]
        if estimate is not None:
            self.best_rejected = max(estimate.score, self.best_rejected or 0.0)
        return []
