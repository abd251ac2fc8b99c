"""U2-Net-P salient-object segmentation in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.networks import pretrained_weights

_SIDE = 320  # px, side of the network's input
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

# image (H, W, 3) RGB to the probability (H, W) of the object
Salience = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def load_salience(path: Path | None = None, threads: int = 0) -> Salience:
    """Load U2-Net-P from `path` (default: the cache) on the CPU.

    `threads` 0 leaves the number of threads to onnxruntime.

    Raises:
        InvalidInput: The weights are not fetched, or belong to another network.
    """
    path = pretrained_weights.find_intact("u2netp") if path is None else path
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    # onnxruntime has one exception class for each of its error codes
    except Exception as error:
        raise InvalidInput(
            f"{path}: not U2-Net-P in ONNX ({str(error).splitlines()[0]}); `uns-pose weights` "
            "fetches it"
        ) from None
    name = session.get_inputs()[0].name

    def salience(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(
            np.float32
        )
        pixels = (small / max(float(small.max()), 1.0) - _MEAN) / _DEVIATION
        (probability, *_) = session.run(
            None, {name: pixels.transpose(2, 0, 1)[None].astype(np.float32)}
        )
        return np.asarray(
            cv2.resize(probability[0, 0], (image.shape[1], image.shape[0])).clip(0, 1),
            np.float32,
        )

    return salience
