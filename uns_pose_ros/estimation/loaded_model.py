"""LoadedModel: the head, the template and the visibility table of a category model on a device."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from uns_pose_ros.core.device import compute_dtype
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import sphere
from uns_pose_ros.core.ray_casting import visible_from
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.estimation.score_calibration import ScoreCalibration
from uns_pose_ros.estimation.shapes.shape_prior import ShapePrior
from uns_pose_ros.estimation.solver.pose_hypotheses import Template
from uns_pose_ros.estimation.taught_head import TaughtHead, recognize
from uns_pose_ros.networks.coarse_rotation import CoarseRotation
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig
from uns_pose_ros.networks.dinov2 import PATCH

# order of a symmetry above which the equivalents of hypotheses are those of a continuous one
_LARGEST_ORDER = 36
_THRESHOLD = 0.22  # smallest score of an estimate of a model without a calibration


class LoadedModel:
    """A category model that is ready on a device."""

    def __init__(self, model: CategoryModel, device: torch.device, halved: bool) -> None:
        """Load a model.

        Args:
            model: The category model.
            device: The device of the head and the template.
            halved: True: the head computes in bfloat16.

        Raises:
            InvalidInput: The model's head does not fit its description.
        """
        self.model = model
        try:
            size = model.crop_size
            if size % PATCH or not PATCH <= size <= 1400:
                raise ValueError(f"crops of {size} px")
            share = model.template_share
            if not 0 < share <= 1:
                raise ValueError(f"a template share of {share}")
            known = {name.name for name in fields(NetworkConfig)}
            chosen: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v
                for k, v in model.network_settings.items()
                if k in known
            }
            config = NetworkConfig(**chosen)
            tokens = model.head["norm.weight"].shape[0]
            claimed = (config.width, config.features, config.clutter)
            there = (
                model.head["enter.bias"].shape[0],
                model.vertex_features.shape[1],
                len(model.background_features),
            )
            if claimed != there or not 0 <= config.blocks <= len(
                model.head
            ):  # before anything is allocated
                raise ValueError(
                    f"a head of {claimed} and {config.blocks} blocks is described, {there} is there"
                )
            head = Head(config, len(model.vertices), tokens)
            head.load(
                {
                    **model.head,
                    "vertex_features": model.vertex_features,
                    "background_features": model.background_features,
                }
            )
            self.taught = [
                TaughtHead(taught, config, len(model.vertices), tokens, device)
                for taught in model.taught
            ]
        except (LookupError, TypeError, ArithmeticError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidInput(
                f"model of {model.category}: its head is of another version ({reason}); train "
                "it again"
            ) from None
        self.calibration = ScoreCalibration.from_record(model.calibration, model.turn)
        self.threshold = (
            _THRESHOLD if self.calibration is None else self.calibration.threshold
        )
        self.shapes = ShapePrior.of(model)
        self.layers = config.layers
        self.crop_size = size
        self.head = head.eval().requires_grad_(False).to(device)
        self._tells_rotation = bool(head.rotation_precision.any())
        self._kind = compute_dtype("bf16" if halved else "fp32")
        for own in (self.head, *(taught.head for taught in self.taught)):
            for part in own.children():  # the vertex features stay as they are
                part.to(self._kind)
        # seen in the frame of the training, so that a turned model gives the same poses
        turn = model.turn.float()
        self._turn = turn.to(device)
        directions = sphere(400)
        visible = visible_from(model.vertices @ turn, model.triangles, directions)
        directions = directions @ turn.T
        vertices = model.vertices.to(device)
        # a model that does not know the spread learned from hypotheses without their equivalents
        record = model.calibration
        aware = record is None or "spread" in record["evidence"]
        order = model.symmetry.order if aware else 1
        self.template = Template(
            vertices,
            directions.to(device),
            visible.to(device),
            vertices.mean(0),
            share,
            order if order <= _LARGEST_ORDER else 0,
            model.symmetry.axis.float().to(device),
        )

    def likeness(self, tokens: Tensor) -> Tensor:
        """Log odds (B, h, w) that tokens (B, h, w, L * C) show an object of the category."""
        return self.head.likeness(tokens)

    def coarse_rotation(self, tokens: Tensor, presence: Tensor) -> CoarseRotation | None:
        """Tell the rotations of the objects in crops coarsely; None: the model cannot.

        Args:
            tokens: (B, h, w, L * C).
            presence: (B, 2h, 2w) probability that a cell shows the object.
        """
        if not self._tells_rotation:
            return None
        mean = self.head.coarse_rotation(tokens, avg_pool2d(presence[:, None], 2)[:, 0])
        return CoarseRotation(mean, self.head.rotation_precision, self._turn)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute correspondences from tokens (B, h, w, L * C).

        Returns:
            Probabilities (B, 2h, 2w, V) of the vertices, and presence (B, 2h, 2w) of the object.
        """
        return self._read(self.head, tokens)

    def read_crops(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute correspondences of crops, see `read`.

        Those that show an object that a recording has taught are read by its head.
        """
        probability, presence = self.read(tokens)
        if not self.taught:
            return probability, presence
        likeliest, is_taught = recognize(self.taught, tokens, presence)
        for number, taught in enumerate(self.taught):
            which = is_taught & (likeliest == number)
            if which.device.type != "cpu":  # nobody waits for the device to tell which ones
                own, there = self._read(taught.head, tokens)
                probability = torch.where(which[:, None, None, None], own, probability)
                presence = torch.where(which[:, None, None], there, presence)
            elif bool(which.any()):
                probability, presence = probability.clone(), presence.clone()
                probability[which], presence[which] = self._read(taught.head, tokens[which])
        return probability, presence

    def _read(self, head: Head, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits = head.logits(head(tokens.to(self._kind)))
        probability = logits.softmax(-1)[..., : len(self.template.vertices)]
        return probability, probability.sum(-1)
