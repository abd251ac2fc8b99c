"""Messages of bags, read without ROS: pictures, cameras and transforms. Nothing here trusts what a message says of itself."""

from __future__ import annotations

import bisect
import io
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uns_pose_ros.datatypes import Camera, InvalidInput
from uns_pose_ros.draft import fitted
from uns_pose_ros.geometry import from_parts, invert, quaternion_to_matrix, rotation_from_vector, vector_from_rotation
from uns_pose_ros.video import MAX_PIXELS

IMAGE, COMPRESSED, CAMERA_INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
TF = "tf2_msgs/msg/TFMessage"
_MAX_SIDE = 16384  # px
# encoding: channels of 8 bits, OpenCV's conversion to RGB (None: it is RGB)
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
}
_DISTORTIONS = ("", "plumb_bob", "rational_polynomial")  # distortion models that OpenCV's eight coefficients hold


def picture(message: Any, kind: str) -> tuple[np.ndarray, bytes | None]:
    """RGB (H, W, 3) uint8 of an Image or CompressedImage, and its JPEG file where it is one. Errors: InvalidInput."""
    if kind == COMPRESSED:
        data = bytes(message.data)
        try:
            file = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{file.width} x {file.height} px")
            image = np.array(file.convert("RGB"))  # unlike OpenCV, this notices that the end is missing
        except (OSError, SyntaxError, ValueError, IndexError, Image.DecompressionBombError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].partition(" <")[0]
            raise InvalidInput(f"a compressed picture of {len(data)} bytes cannot be decoded ({reason})") from None
        return image, data if file.format == "JPEG" else None
    if message.encoding not in _ENCODINGS:
        raise InvalidInput(f"image encoding {message.encoding!r} is no picture of 8 bits; valid are {', '.join(_ENCODINGS)}")
    channels, conversion = _ENCODINGS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * channels
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE and step >= row and len(message.data) >= step * height):
        raise InvalidInput(
            f"an image of {width} x {height} px {message.encoding} with step {step} has {len(message.data)} bytes"
        )
    pixels = np.asarray(message.data, np.uint8)[: step * height].reshape(height, step)[:, :row]
    pixels = np.ascontiguousarray(pixels.reshape(height, width, channels) if channels > 1 else pixels)
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion), None


def camera_of(info: Any, width: int, height: int, rectified: bool) -> Camera:
    """The camera of pictures of width x height px, from a CameraInfo: P where they are rectified, else K and D (REP-104).

    K and P describe the full image; region of interest and binning are applied, then a resize of the picture.
    """
    values = np.asarray(info.p if rectified else info.k, float).reshape(3, -1)[:, :3].copy()
    if not (np.isfinite(values).all() and values[0, 0] > 0 and values[1, 1] > 0):
        raise InvalidInput(
            "camera_info is not calibrated (its focal length is 0); calibrate the camera, or give --camera K.json"
        )
    coefficients = [] if rectified else [float(x) for x in info.d]
    if not np.isfinite(coefficients).all():
        raise InvalidInput("camera_info holds distortion coefficients that are not finite")
    if any(coefficients) and (info.distortion_model not in _DISTORTIONS or len(coefficients) not in (4, 5, 8)):
        raise InvalidInput(
            f"distortion model {info.distortion_model!r} with {len(coefficients)} coefficients is not supported; "
            "plumb_bob (4 or 5) and rational_polynomial (8) are: record rectified images instead"
        )
    distortion = torch.tensor(coefficients if any(coefficients) else [], dtype=torch.float64)
    seen_width, seen_height = int(info.width) or width, int(info.height) or height
    if (seen_width, seen_height) != (width, height):
        roi = info.roi
        if roi.width and roi.height:
            values[0, 2] -= roi.x_offset
            values[1, 2] -= roi.y_offset
            seen_width, seen_height = int(roi.width), int(roi.height)
        bins = [max(int(info.binning_x), 1), max(int(info.binning_y), 1)]
        if bins != [1, 1]:
            values[0] /= bins[0]
            values[1] /= bins[1]
            seen_width, seen_height = seen_width // bins[0], seen_height // bins[1]
    return fitted(Camera(torch.from_numpy(values), seen_width, seen_height, distortion), width, height)


def seconds(stamp: Any) -> float:
    return int(stamp.sec) + 1e-9 * int(stamp.nanosec)


@dataclass
class Transforms:
    """The tree of frames over time, from /tf and /tf_static."""

    gap: float = 0.5  # s, longest time between two transforms that is bridged
    _parents: dict[str, str] = field(default_factory=dict)
    _moving: dict[str, list[tuple[float, Tensor]]] = field(default_factory=lambda: defaultdict(list))
    _static: dict[str, Tensor] = field(default_factory=dict)

    def add(self, message: Any, static: bool) -> None:
        """Take the transforms of a TFMessage; those that are no rigid transforms are ignored, as tf2 does."""
        for one in message.transforms:
            r, t = one.transform.rotation, one.transform.translation
            quaternion = torch.tensor([r.w, r.x, r.y, r.z], dtype=torch.float64)
            translation = torch.tensor([t.x, t.y, t.z], dtype=torch.float64)
            good = (
                bool(torch.isfinite(quaternion).all() and torch.isfinite(translation).all()) and float(quaternion.norm()) > 0.5
            )
            child = one.child_frame_id.lstrip("/")
            if not good or not child:
                continue
            parent_from_child = from_parts(quaternion_to_matrix(quaternion), translation)
            self._parents[child] = one.header.frame_id.lstrip("/")
            if static:
                self._static[child] = parent_from_child
            else:
                self._moving[child].append((seconds(one.header.stamp), parent_from_child))

    def sort(self) -> None:
        """To be called once all messages are in."""
        for samples in self._moving.values():
            samples.sort(key=lambda sample: sample[0])

    @property
    def frames(self) -> list[str]:
        return sorted({*self._parents, *self._parents.values()})

    def lookup(self, target: str, source: str, time: float) -> Tensor:
        """target_from_source (4, 4) at a time in s. InvalidInput says what is missing."""
        up, down = self._chain(target.lstrip("/"), time), self._chain(source.lstrip("/"), time)
        common = next((frame for frame in down if frame in up), None)
        if common is None:
            raise InvalidInput(
                f"no transforms connect {source!r} with {target!r}; there are {', '.join(self.frames) or 'none'}"
            )
        return invert(up[common]) @ down[common]

    def _chain(self, frame: str, time: float) -> dict[str, Tensor]:
        """ancestor_from_frame of the frame itself and all its ancestors, nearest first."""
        chain = {frame: torch.eye(4, dtype=torch.float64)}
        here = frame
        while here in self._parents and self._parents[here] not in chain:
            chain[self._parents[here]] = self._at(here, time) @ chain[here]
            here = self._parents[here]
        return chain

    def _at(self, child: str, time: float) -> Tensor:
        """parent_from_child (4, 4) at a time, between the two samples around it."""
        if child not in self._moving:
            return self._static[child]
        samples = self._moving[child]
        after = bisect.bisect_left(samples, time, key=lambda sample: sample[0])
        if after < len(samples) and samples[after][0] == time:
            return samples[after][1]
        if after in (0, len(samples)):
            raise InvalidInput(
                f"{child!r} has no transform at {time:.3f} s, only from {samples[0][0]:.3f} to {samples[-1][0]:.3f}"
            )
        (t0, a), (t1, b) = samples[after - 1], samples[after]
        if t1 - t0 > self.gap:
            raise InvalidInput(f"{child!r} has no transform for {t1 - t0:.1f} s around {time:.3f} s; {self.gap} s are bridged")
        part = (time - t0) / (t1 - t0)
        turn = a[:3, :3] @ rotation_from_vector(part * vector_from_rotation(a[:3, :3].T @ b[:3, :3]))
        return from_parts(turn, (1 - part) * a[:3, 3] + part * b[:3, 3])
