"""The pose of a board of markers in an image: the truth where there is no motion capture.

The board's origin is the corner of the printed page at the upper left, x points to the right along
the rows, y down the page, and z into the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, from_parts
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.schema.board_record import BoardRecord, read_board_record

_DICTIONARIES = {"charuco": "DICT_5X5_250", "apriltag": "DICT_APRILTAG_36h11"}
_FEWEST = 6  # corners by which a pose is known
_LARGEST_ERROR = 2.0  # px, root mean square of the corners
_SAME = 3.0  # degrees between two poses that make no difference
_CLEAR = 1.5  # ratio of the errors by which one of two poses is the right one
_ROUND = 0.05  # px, error of the corners that is always there

NOT_SEEN = "the board is not seen"
TOO_FEW = f"fewer than {_FEWEST} corners of the board are seen"
BAD_FIT = f"the corners of the board fit no pose within {_LARGEST_ERROR:g} px"
AMBIGUOUS = "two poses of the board fit equally: it is too far or too flat"


class TruthBoard:
    """Finds one board of markers in images."""

    def __init__(self, record: BoardRecord, name: str = "board") -> None:
        """Make the board.

        Args:
            record: Its description.
            name: Of the file, for messages.

        Raises:
            InvalidInput: The dictionary is not known or has too few markers, or OpenCV is too old.
        """
        self.record = record
        self._board = make_board(record, name)
        self._detector: Any = (
            cv2.aruco.CharucoDetector(self._board)
            if record.kind == "charuco"
            else cv2.aruco.ArucoDetector(self._board.getDictionary(), _refined())
        )
        offset = np.eye(4) if record.board_from_object is None else record.board_from_object
        self.board_from_object = torch.tensor(np.array(offset), dtype=torch.float64)

    def find(self, image: NDArray[np.uint8], camera: Camera) -> Tensor | str:
        """Find the board in an image.

        Args:
            image: (H, W, 3) uint8 RGB.
            camera: Camera of the image.

        Returns:
            cam_from_object (4, 4) float64, m, or why it is not known.
        """
        points, pixels = self._corners(
            np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        )
        if not len(points):
            return NOT_SEEN
        if len(points) < _FEWEST or np.linalg.matrix_rank(points[1:] - points[:1]) < 2:
            return TOO_FEW
        pose = board_pose(points, pixels, camera)
        return pose if isinstance(pose, str) else pose @ self.board_from_object

    def _corners(
        self, gray: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners (n, 3) on the board, m, and in the image (n, 2), px."""
        if self.record.kind == "charuco":
            pixels, ids, _, _ = self._detector.detectBoard(gray)
            if ids is None or not len(ids):
                return np.zeros((0, 3)), np.zeros((0, 2))
            points = np.array(self._board.getChessboardCorners())[np.ravel(ids)]
        else:
            markers, ids, _ = self._detector.detectMarkers(gray)
            if ids is None or not len(ids):
                return np.zeros((0, 3)), np.zeros((0, 2))
            points, pixels = self._board.matchImagePoints(markers, ids)
            if points is None:
                return np.zeros((0, 3)), np.zeros((0, 2))
        return np.reshape(points, (-1, 3)).astype(float), np.reshape(
            pixels, (-1, 2)
        ).astype(float)


def board_pose(
    points: NDArray[np.float64], pixels: NDArray[np.float64], camera: Camera
) -> Tensor | str:
    """Fit the pose of flat points.

    Args:
        points: (n, 3) on the board, z is 0, m.
        pixels: (n, 2) in the image.
        camera: Camera of the image.

    Returns:
        cam_from_board (4, 4) float64, or why it is not known.
    """
    matrix, distortion = camera.matrix.numpy(), camera.distortion.numpy()
    _, turns, shifts, _ = cv2.solvePnPGeneric(
        points, pixels, matrix, distortion, flags=cv2.SOLVEPNP_IPPE
    )
    poses, errors = list[Tensor](), list[float]()
    for start, place in zip(turns, shifts, strict=True):
        turn, shift = cv2.solvePnPRefineLM(points, pixels, matrix, distortion, start, place)
        shown, _ = cv2.projectPoints(points, turn, shift, matrix, distortion)
        error = float(np.sqrt(np.square(shown[:, 0] - pixels).sum(1).mean()))
        rotation = torch.from_numpy(cv2.Rodrigues(turn)[0])
        poses.append(from_parts(rotation, torch.from_numpy(np.ravel(shift))))
        errors.append(error if float(shift[2, 0]) > 0 else np.inf)
    best = int(np.argmin(errors))
    if not errors[best] <= _LARGEST_ERROR:
        return BAD_FIT
    for other, error in zip(poses, errors, strict=True):
        apart = float(angle_between(other[:3, :3], poses[best][:3, :3]))
        if apart > _SAME and error < _CLEAR * max(errors[best], _ROUND):
            return AMBIGUOUS
    return poses[best]


def make_board(record: BoardRecord, name: str = "board") -> Any:
    """OpenCV's board of a description; `name`: of the file, for messages."""
    if not hasattr(cv2, "aruco") or not hasattr(cv2.aruco, "CharucoDetector"):
        raise InvalidInput(
            f"{name}: OpenCV {cv2.__version__} finds no boards of markers: 4.7 or later is valid"
        )
    wanted = record.dictionary or _DICTIONARIES[record.kind]
    number = getattr(cv2.aruco, wanted, None) if wanted.startswith("DICT_") else None
    if not isinstance(number, int):
        raise InvalidInput(
            f"{name}: dictionary {wanted[:80]!r}: one of OpenCV, such as "
            f"{' or '.join(_DICTIONARIES.values())}, is valid"
        )
    dictionary = cv2.aruco.getPredefinedDictionary(number)
    columns, rows = record.squares
    needed = columns * rows // 2 if record.kind == "charuco" else columns * rows
    if needed > len(dictionary.bytesList):
        raise InvalidInput(
            f"{name}: {columns} x {rows} squares need {needed} markers, {wanted} has "
            f"{len(dictionary.bytesList)}"
        )
    if record.kind == "apriltag":
        return cv2.aruco.GridBoard(
            (columns, rows), record.square, record.tag_gap, dictionary
        )
    board = cv2.aruco.CharucoBoard(
        (columns, rows), record.square, record.marker_side, dictionary
    )
    board.setLegacyPattern(record.legacy)
    return board


def read_truth_board(path: Path) -> TruthBoard:
    """Read the description of a board; InvalidInput says what is wrong of it."""
    return TruthBoard(read_board_record(path), str(path))


def _refined() -> Any:
    """Parameters of the detector with corners of less than a pixel."""
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    return parameters
