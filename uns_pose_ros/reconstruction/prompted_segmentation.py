"""Masks of an object that the user marks: points in one image, followed through the video.

From image to image the last mask, moved by the camera motion, prompts MobileSAM in the next one.
Where poses are known, `segmentation.find_masks` lets all images vote, and their common result
prompts each image once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Camera, Frame
from uns_pose_ros.core.view_coverage import ViewCoverage
from uns_pose_ros.io.artifacts import write_json
from uns_pose_ros.io.schema.decoding import describe, read_file
from uns_pose_ros.io.schema.person_records import PromptsRecord
from uns_pose_ros.networks.mobile_sam import SIDE
from uns_pose_ros.reconstruction.mask_correction import (
    CORNER,
    INSIDE,
    OUTSIDE,
    box_corners,
    deep_points,
)
from uns_pose_ros.reconstruction.mask_voting import MaskConfig, fuse_mask, mask_iou

FILE = "prompts.json"
_POINTS = 3  # prompts that a mask gives to the next image
_LOST = 0.3  # IoU with the expected mask below which the network's mask is rejected
_DOUBT = 0.6  # probability of the expected mask in that case


class PromptableNetwork(Protocol):
    """The interface of MobileSam."""

    def embed(self, image: NDArray[np.uint8], side: int = SIDE) -> Tensor:
        """Features of an image (H, W, 3), enlarged or shrunk to a side, px."""

    def masks(
        self, seen: Tensor, points: Tensor, kinds: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Mask logits of several hypotheses, and their expected IoU."""


@dataclass(frozen=True)
class Prompts:
    """Points in one image of a video, x y px.

    `points` are on the object, `background` beside it.
    """

    points: tuple[tuple[float, float], ...]
    background: tuple[tuple[float, float], ...] = ()
    frame: str = ""  # name of the image below images/; empty: the first


def read_prompts(folder: Path) -> Prompts | None:
    """Read a video's prompts.json; None where the file does not exist.

    Raises:
        InvalidInput: the file holds no prompts.
    """
    path = folder / FILE
    if not path.exists():
        return None
    data = read_file(path, "prompts")
    try:
        record = msgspec.json.decode(data, type=PromptsRecord)
    except (ValueError, RecursionError) as error:
        reason = describe(error, data)
        example = '{"points": [[x, y], …], "background": [], "frame": "000001.jpg"}, px'
        raise InvalidInput(f"{path}: not prompts ({reason}); valid is {example}") from None
    return Prompts(tuple(record.points), tuple(record.background), record.frame)


def write_prompts(folder: Path, prompts: Prompts) -> None:
    """Write a video's prompts.json."""
    write_json(
        folder / FILE,
        {
            "points": prompts.points,
            "background": prompts.background,
            "frame": prompts.frame,
        },
    )


class PromptedSegmenter:
    """Segments the prompted object, for one call of `segmentation.find_masks`."""

    def __init__(
        self,
        prompts: Prompts,
        network: PromptableNetwork,
        config: MaskConfig = MaskConfig(),
    ) -> None:
        self._prompts = prompts
        self._network = network
        self._config = config
        self._features = dict[int, Tensor]()  # float16, 2 MB an image

    def segment(
        self,
        frames: Sequence[Frame],
        read: Callable[[int], NDArray[np.uint8]],
        cameras: Sequence[Camera],
    ) -> list[NDArray[np.float32]]:
        """Segment from the prompted image to the last, then back to the first.

        Args:
            frames: F frames.
            read: returns the undistorted, shrunk image (h, w, 3) of a frame's number.
            cameras: F cameras of these images.

        Returns:
            F probabilities (h, w) of the object.

        Raises:
            InvalidInput: the points are not in the image.
        """
        start = _start(frames, self._prompts.frame)
        points, kinds = self._prompt_points(frames[start], cameras[start])
        move = _motion(frames, cameras)
        probabilities = {start: self._segment_prompted(start, read(start), points, kinds)}
        for step, end in ((1, len(frames)), (-1, -1)):
            for number in range(start + step, end, step):
                expected = move(probabilities[number - step] > 0.5, number - step, number)
                probabilities[number] = self._segment_expected(
                    number, read(number), expected
                )
        return [probabilities[number] for number in range(len(frames))]

    def refine(
        self,
        number: int,
        image: NDArray[np.uint8],
        first: NDArray[np.float32],
        votes: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Segment one image again, prompted by the first result and the vote together.

        Args:
            number: of its frame.
            image: (h, w, 3) uint8 RGB.
            first: the probability (h, w) of `segment`.
            votes: (h, w), the largest log-odds along the ray of every pixel.

        Returns:
            Probability (h, w).
        """
        return self._segment_expected(number, image, fuse_mask(first, votes, self._config))

    def _segment_expected(
        self, number: int, image: NDArray[np.uint8], expected: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Probability (h, w) of the object with an expected silhouette (h, w) in an image."""
        if not expected.any():
            return np.full(expected.shape, 1 - _DOUBT, np.float32)
        points, kinds = _prompts_of(expected)
        logits, _ = self._network.masks(
            self._embed(number, image), points, kinds, *image.shape[:2]
        )
        fits = [mask_iou(mask.numpy() > 0, expected) for mask in logits]
        best = int(np.argmax(fits))
        if fits[best] < _LOST:
            return np.where(expected, _DOUBT, 1 - _DOUBT).astype(np.float32)
        return logits[best].sigmoid().numpy()

    def _embed(self, number: int, image: NDArray[np.uint8]) -> Tensor:
        if number not in self._features:
            self._features[number] = self._network.embed(image)
        return self._features[number]

    def _segment_prompted(
        self, number: int, image: NDArray[np.uint8], points: Tensor, kinds: Tensor
    ) -> NDArray[np.float32]:
        """Probability (h, w) of the object at the prompts.

        One point may also mean a part of the object, several points are less ambiguous.
        """
        logits, expected = self._network.masks(
            self._embed(number, image), points, kinds, *image.shape[:2]
        )
        best = 0 if len(points) > 1 else 1 + int(expected[1:].argmax())
        return logits[best].sigmoid().numpy()

    def _prompt_points(self, frame: Frame, camera: Camera) -> tuple[Tensor, Tensor]:
        """The prompts in pixels of the shrunk image (N, 2), and their kinds (N,)."""
        places = np.array(
            [*self._prompts.points, *self._prompts.background], dtype=np.float64
        )
        whole = frame.camera
        if not ((places > -0.5) & (places < (whole.width - 0.5, whole.height - 0.5))).all():
            raise InvalidInput(
                f"{frame.image}: the points {places.tolist()} are not all in the image of "
                f"{whole.width} x {whole.height} px"
            )
        if bool(whole.distortion.any()):
            k = whole.matrix.numpy()
            places = np.asarray(
                cv2.undistortPoints(places[:, None], k, whole.distortion.numpy(), P=k)[
                    :, 0
                ],
                np.float64,
            )
        scale = np.array([camera.width / whole.width, camera.height / whole.height])
        kinds = [INSIDE] * len(self._prompts.points) + [OUTSIDE] * len(
            self._prompts.background
        )
        return torch.from_numpy((places + 0.5) * scale - 0.5), torch.tensor(kinds)


def _start(frames: Sequence[Frame], name: str) -> int:
    """Index of the prompted image."""
    names = [frame.name for frame in frames]
    if name and name not in names:
        raise InvalidInput(
            f"{FILE}: no usable image is called {name!r}; there are {shorten(names)}"
        )
    return names.index(name) if name else 0


def _motion(
    frames: Sequence[Frame], cameras: Sequence[Camera]
) -> Callable[[NDArray[np.bool_], int, int], NDArray[np.bool_]]:
    """A function that moves a mask from one image to another.

    It moves like a plane at the center of the orbit; without poses it stays where it is.
    """
    poses = [
        frame.cam_from_obj.numpy() for frame in frames if frame.cam_from_obj is not None
    ]
    center = ViewCoverage(poses).center if len(poses) == len(frames) else None

    def move(mask: NDArray[np.bool_], source: int, target: int) -> NDArray[np.bool_]:
        if center is None:
            return mask
        target_from_source = poses[target] @ np.linalg.inv(poses[source])
        depth = float(poses[source][2, :3] @ center + poses[source][2, 3])
        way = (
            target_from_source[:3, :3]
            + np.outer(target_from_source[:3, 3], [0, 0, 1]) / depth
        )
        between = (
            cameras[target].matrix.numpy()
            @ way
            @ np.linalg.inv(cameras[source].matrix.numpy())
        )
        size = (cameras[target].width, cameras[target].height)
        return np.asarray(
            cv2.warpPerspective(
                mask.astype(np.uint8), between, size, flags=cv2.INTER_NEAREST
            )
            > 0
        )

    return move


def _prompts_of(mask: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Prompts of a mask (h, w): points deep in it and the corners of its box, and their kinds."""
    points = deep_points(mask, _POINTS)
    return torch.tensor([*points, *box_corners(mask)], dtype=torch.float64), torch.tensor(
        [INSIDE] * len(points) + [CORNER, CORNER + 1]
    )
