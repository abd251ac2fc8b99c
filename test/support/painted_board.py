"""Images of a printed board of markers, painted by its homography, with known poses."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from streams import pose
from uns_pose_ros.core.types import Camera
from uns_pose_ros.evaluation.boards.board_page import draw_board
from uns_pose_ros.io.schema.board_record import BoardRecord

CAMERA = Camera(
    torch.tensor([[600.0, 0, 319.5], [0, 600.0, 239.5], [0, 0, 1]], dtype=torch.float64),
    640,
    480,
)
_FINER = 3  # the image is painted so many times larger, and made smaller


def board_view(record: BoardRecord, tilt: float, turn: float, distance: float) -> Tensor:
    """cam_from_board (4, 4) of a camera that looks at the middle of a board.

    Args:
        record: The board.
        tilt: Of the line of sight from the board's normal, degrees.
        turn: Of the camera about the normal, degrees.
        distance: To the middle, m.
    """
    width, height = record.size
    middle = pose((0.0, 0.0, 0.0), (-width / 2, -height / 2, 0.0))
    look = pose((0.0, 0.0, 0.0), (0.0, 0.0, distance)) @ pose(
        (tilt, 0.0, 0.0), (0.0, 0.0, 0.0)
    )
    return look @ pose((0.0, 0.0, turn), (0.0, 0.0, 0.0)) @ middle


def paint_board(
    record: BoardRecord, cam_from_board: Tensor, camera: Camera = CAMERA
) -> np.ndarray:
    """Paint a board on gray ground.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    drawn = draw_board(record, 150)
    edge = 20  # white paper around it, px of the drawing
    page = cv2.copyMakeBorder(drawn, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=255)
    per_px = record.size[0] / drawn.shape[1]
    board_from_page = np.array(
        [
            [per_px, 0, per_px * (0.5 - edge)],
            [0, per_px, per_px * (0.5 - edge)],
            [0, 0, 1],
        ]
    )
    plane = cam_from_board.numpy()[:3, [0, 1, 3]]
    finer = np.array(
        [[_FINER, 0, (_FINER - 1) / 2], [0, _FINER, (_FINER - 1) / 2], [0, 0, 1]]
    )
    homography = finer @ camera.matrix.numpy() @ plane @ board_from_page
    size = (_FINER * camera.width, _FINER * camera.height)
    large = cv2.warpPerspective(
        page, homography, size, flags=cv2.INTER_LINEAR, borderValue=128
    )
    small = cv2.resize(large, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    return np.repeat(small[..., None], 3, 2)
