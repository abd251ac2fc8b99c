"""One image to the poses of all instances that its models know.

The same Estimator for command line, node and evaluation.

    image -> whole image through backbone and head -> cells that show a category -> boxes
        (unless regions are given)
    box -> crop through backbone and head -> probability of every template vertex in every cell
        -> `pose_solver` -> pose
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from uns_pose_ros.core.camera import undistort
from uns_pose_ros.core.crops import crop, square_around
from uns_pose_ros.core.device import choose_device, release_memory
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.estimation.metric_scale import scale_from_depth
from uns_pose_ros.estimation.pose_solver import solve
from uns_pose_ros.networks.backbone_runtimes import Backbone, load_runtime
from uns_pose_ros.networks.dinov2 import PATCH, normalise


class Estimator:
    """Finds the instances of its categories in an image."""

    def __init__(
        self,
        models: CategoryModel | Sequence[CategoryModel],
        backbone: Backbone | None = None,
        device: str = "auto",
        config: EstimatorConfig = EstimatorConfig(),
    ) -> None:
        """Several models share one backbone.

        Without one given, the cached weights are loaded into config's runtime.

        Raises InvalidInput.
        """
        self.models = (models,) if isinstance(models, CategoryModel) else tuple(models)
        if not self.models:
            raise InvalidInput("no model given: an estimator needs one at least")
        self.config = config
        # whether crops go through the network alone, as memory did not suffice for all of an image
        self.one_by_one = False
        if backbone is None:
            self.backbone, self.device = load_runtime(config.runtime, device)
        else:
            self.backbone, self.device = backbone, choose_device(device)
        halved = self.backbone.precision == "bf16"
        self._loaded = [LoadedModel(model, self.device, halved) for model in self.models]
        if len({runtime.layers for runtime in self._loaded}) > 1:
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
    ) -> list[PoseEstimate]:
        """Poses of all instances in image (H, W, 3) uint8 RGB, best first.

        regions: boxes (N, 4) x0 y0 x1 y1 in px around one object each; without them the objects are
        searched for. depth: (H, W) m of the same pixels, NaN where there is none: scales the poses
        of models that know no size (`measured`). categories: of those of the models, the ones that
        are looked for; None: all.
        """
        picture = torch.as_tensor(image)
        if (
            picture.ndim != 3
            or picture.shape[2] != 3
            or picture.dtype != torch.uint8
            or not picture.numel()
        ):
            raise InvalidInput(
                f"image of shape {tuple(picture.shape)}, {picture.dtype}: (height, width, 3) "
                "uint8 RGB is valid"
            )
        if depth is not None and depth.shape != picture.shape[:2]:
            raise InvalidInput(
                f"depth of shape {tuple(depth.shape)}: that of the image, "
                f"{tuple(picture.shape[:2])}, is valid"
            )
        lens = camera
        if len(camera.distortion):
            picture, _, camera = undistort(picture.cpu(), None, camera)
        picture = picture.permute(2, 0, 1).to(self.device)
        found: list[PoseEstimate] = []
        runtimes = [
            one
            for one in self._loaded
            if categories is None or one.model.category in categories
        ]
        boxes = (
            [regions] * len(runtimes)
            if regions is not None
            else self._search_regions(picture, runtimes)
        )
        for runtime, box in zip(runtimes, boxes, strict=True):
            if box is not None and len(box):
                estimates = (
                    self._estimate_boxes(runtime, picture, camera, box)
                    if regions is not None
                    else self._estimate_regions(runtime, picture, camera, box)
                )
                if depth is not None:
                    estimates = [
                        scale_from_depth(one, runtime.model, lens, np.asarray(depth))
                        for one in estimates
                    ]
                found += estimates
        return sorted(found, key=lambda estimate: -estimate.score)

    def _estimate_regions(
        self, runtime: LoadedModel, picture: Tensor, camera: Camera, boxes: Tensor
    ) -> list[PoseEstimate]:
        """The poses that explain the parts of an image in boxes (N, 4) best, those parts alone or
        some of them together.

        What stands before an object may part it, so that boxes near each other are tried as one
        too: the whole is believed where its score is above the parts' mean, the larger ones
        counting more. Of poses on each other the best is kept.
        """
        groups = group_neighbors(boxes, self.config.merge_gap)
        wholes = [torch.cat([boxes[g, :2].amin(0), boxes[g, 2:].amax(0)]) for g in groups]
        solved = self._solve_crops(runtime, picture, camera, torch.stack([*boxes, *wholes]))
        score = torch.tensor(
            [0.0 if one is None else one.score for one in solved], dtype=torch.float64
        )
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        for whole, parts in enumerate(groups, len(boxes)):
            apart = (score[parts] * area[parts]).sum() / area[parts].sum()
            for k in parts if score[whole] >= apart else [whole]:
                solved[k] = None
        kept: list[PoseEstimate] = []
        for estimate in sorted(
            (one for one in solved if one is not None), key=lambda one: -one.score
        ):
            if all(
                box_iou(estimate.box, better.box) < self.config.nms_iou for better in kept
            ):
                kept.append(estimate)
        return kept

    def _tokens(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) of 0..255 to (B, h, w, L * C)."""
        return (
            self.backbone(normalise(pictures), layers=self._loaded[0].layers)
            .permute(1, 2, 3, 0, 4)
            .flatten(3)
        )

    def _search_regions(
        self, picture: Tensor, runtimes: Sequence[LoadedModel]
    ) -> list[Tensor]:
        """Boxes (N, 4), px, of each runtime's objects in picture (3, H, W), those with the most
        places first.
        """
        height, width = picture.shape[1:]
        scale = self.config.search_size / max(height, width)
        rows, columns = (max(1, round(side * scale / PATCH)) for side in (height, width))
        size = (rows * PATCH, columns * PATCH)
        source = (
            picture[None] if picture.device.type == "cpu" else picture[None].float()
        )  # bytes: 7 times as fast there
        small = F.interpolate(
            source, size, mode="bilinear", antialias=True, align_corners=False
        )
        tokens = self._tokens(small)
        unit = torch.tensor(
            [width / (2 * columns), height / (2 * rows)] * 2, dtype=torch.float64
        )  # px a place
        return [
            self._region_boxes(runtime.read(tokens)[1][0].float().cpu().numpy()) * unit
            for runtime in runtimes
        ]

    def _region_boxes(self, presence: NDArray[np.float32]) -> Tensor:
        """Boxes (N, 4) float64 in places of the connected parts of a presence map (h, w)."""
        smooth = ndimage.uniform_filter(presence, 3, mode="nearest")
        label, count = ndimage.label(smooth > self.config.objectness_threshold)
        if not count:
            return torch.zeros(0, 4, dtype=torch.float64)
        mass = ndimage.sum_labels(presence, label, range(1, count + 1))
        order = [k for k in np.argsort(-mass) if mass[k] >= self.config.min_region_cells][
            : self.config.max_instances
        ]
        slices = ndimage.find_objects(label)
        boxes = [
            (slices[k][1].start, slices[k][0].start, slices[k][1].stop, slices[k][0].stop)
            for k in order
        ]
        return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)

    def _estimate_boxes(
        self, runtime: LoadedModel, picture: Tensor, camera: Camera, boxes: Tensor
    ) -> list[PoseEstimate]:
        """The best pose in each box (N, 4), where there is one."""
        return [
            one
            for one in self._solve_crops(runtime, picture, camera, boxes)
            if one is not None
        ]

    def _solve_crops(
        self, runtime: LoadedModel, picture: Tensor, camera: Camera, boxes: Tensor
    ) -> list[PoseEstimate | None]:
        """For each box (N, 4) its best pose, None where there is none that is good enough."""
        squares = square_around(boxes.double().cpu(), self.config.crop_margin)
        if not self.one_by_one:
            try:
                return self._solve_batch(runtime, picture, camera, squares)
            except torch.cuda.OutOfMemoryError:
                if len(squares) == 1:
                    raise
                self.one_by_one = True
            release_memory()  # only here: while an error is handled it holds the tensors
        return [
            one
            for square in squares
            for one in self._solve_batch(runtime, picture, camera, square[None])
        ]

    def _solve_batch(
        self, runtime: LoadedModel, picture: Tensor, camera: Camera, squares: Tensor
    ) -> list[PoseEstimate | None]:
        """Likewise for each square (N, 4), all at once."""
        crops, maps = crop(picture, squares, runtime.crop_size)
        probability, presence = runtime.read(self._tokens(crops))
        solved = solve(
            runtime.model,
            runtime.template,
            probability,
            presence,
            runtime.crop_size,
            maps,
            camera,
            self.config,
        )
        least = self.config.score_threshold
        return [
            estimate if estimate is not None and estimate.score >= least else None
            for estimate in solved
        ]


def box_iou(a: Tensor, b: Tensor) -> float:
    """Intersection over union of boxes (4,) x0 y0 x1 y1."""
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    shared = (high - low).clamp_min(0).prod()
    return float(
        shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared).clamp_min(1e-9)
    )


def group_neighbors(boxes: Tensor, reach: float) -> list[list[int]]:
    """Groups, of two at least, of boxes (N, 4) that are linked by gaps of at most `reach` of the
    larger one's longer side.
    """
    gap = (
        torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
        - torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    ).amax(-1)
    side = (boxes[:, 2:] - boxes[:, :2]).amax(-1)
    near = (gap <= reach * torch.maximum(side[:, None], side[None])).numpy()
    count, label = connected_components(near, directed=False)
    groups = [[int(k) for k in np.flatnonzero(label == number)] for number in range(count)]
    return [group for group in groups if len(group) > 1]
