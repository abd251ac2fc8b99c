"""The pixels of image messages by loops over the definitions, slow: the twin of `decode_image`."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

Color = tuple[float, float, float]
# positions of red, green and blue among the channels
ORDERS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "rgba": (0, 1, 2), "bgra": (2, 1, 0)}
OPENCV_ORDERS = {"UC1": (0, 0, 0), "UC3": (2, 1, 0), "UC4": (2, 1, 0)}


def slow_rgb(message: Any) -> np.ndarray:
    """(H, W, 3) RGB of 0..255, floats, of a message of any color encoding."""
    name = message.encoding
    height, width = message.height, message.width
    if name.startswith("bayer"):
        mosaic = [
            [_value(message, v, u, 1, 0, name.endswith("16")) for u in range(width)]
            for v in range(height)
        ]
        return np.array(_colors_of_mosaic(np.array(mosaic), name[6:10]))
    image = np.zeros((height, width, 3))
    for v in range(height):
        for u in range(width):
            image[v, u] = _color(message, v, u)
    return image


def _value(message: Any, v: int, u: int, channels: int, channel: int, wide: bool) -> float:
    """One channel of one pixel, 0..255."""
    data = bytes(message.data)
    size = 2 if wide else 1
    at = v * message.step + (u * channels + channel) * size
    if not wide:
        return data[at]
    (value,) = struct.unpack_from(">H" if message.is_bigendian else "<H", data, at)
    return round(value / 257)


def _color(message: Any, v: int, u: int) -> Color:
    name, data, step = message.encoding, bytes(message.data), message.step
    wide = "16" in name
    if name in ("mono8", "mono16"):
        gray = _value(message, v, u, 1, 0, wide)
        return gray, gray, gray
    if "UC" in name:
        order, channels = OPENCV_ORDERS[name.lstrip("0123456789")], int(name[-1])
        r, g, b = (_value(message, v, u, channels, k, wide) for k in order)
        return r, g, b
    if name.rstrip("0123456789") in ORDERS:
        kind = name.rstrip("0123456789")
        r, g, b = (_value(message, v, u, len(kind), k, wide) for k in ORDERS[kind])
        return r, g, b
    row = v * step
    pair = row + 4 * (u // 2)
    if name in ("yuv422", "uyvy"):
        return _rgb_of_yuv(data[row + 2 * u + 1], data[pair], data[pair + 2])
    if name in ("yuv422_yuy2", "yuyv"):
        return _rgb_of_yuv(data[row + 2 * u], data[pair + 1], data[pair + 3])
    if name == "nv24":
        at = message.height * step + v * 2 * step + 2 * u
        return _rgb_of_yuv(data[row + u], data[at], data[at + 1])
    at = (message.height + v // 2) * step + u // 2 * 2
    first, second = data[at], data[at + 1]
    if name == "nv21":
        first, second = second, first
    return _rgb_of_yuv(data[row + u], first, second)


def _rgb_of_yuv(y: int, u: int, v: int) -> Color:
    """BT.601 with 16..235 for gray."""
    gray = 255 / 219 * max(y - 16, 0)
    red, blue = 255 / 224 * 1.402 * (v - 128), 255 / 224 * 1.772 * (u - 128)
    green = -0.299 / 0.587 * red - 0.114 / 0.587 * blue
    r, g, b = (min(max(gray + c, 0.0), 255.0) for c in (red, green, blue))
    return r, g, b


def _colors_of_mosaic(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """Each missing color is the mean of its neighbors; the border has the colors inside of it."""
    height, width = mosaic.shape
    image = np.zeros((height, width, 3))
    for v in range(height):
        for u in range(width):
            row, column = min(max(v, 1), height - 2), min(max(u, 1), width - 2)
            for k, color in enumerate("rgb"):
                image[v, u, k] = _color_at(mosaic, pattern, row, column, color)
    return image


def _color_at(mosaic: np.ndarray, pattern: str, v: int, u: int, color: str) -> float:
    def has(row: int, column: int) -> bool:
        return pattern[2 * (row % 2) + column % 2] == color

    if has(v, u):
        return float(mosaic[v, u])
    near = [(v, u - 1), (v, u + 1), (v - 1, u), (v + 1, u)]
    corners = [(v + a, u + b) for a in (-1, 1) for b in (-1, 1)]
    values = [mosaic[at] for at in near if has(*at)]
    values = values or [mosaic[at] for at in corners if has(*at)]
    return float(np.mean(values))
