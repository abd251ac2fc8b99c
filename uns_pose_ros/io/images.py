"""Image and mask files decoded defensively, sizes bounded by their headers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput

_FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "WEBP",
    "TIFF",
)  # by content; of others some would start programs, as EPS does
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

MAX_PIXELS = 80_000_000  # of one image

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

LONGEST = 640  # px, longer side at which sharpness is measured: finer blur does no harm

Pixels = NDArray[np.uint8]


def read_image(path: Path) -> Tensor:
    """(H, W, 3) uint8 RGB as the file stores it: an EXIF orientation is ignored, as COLMAP does."""
    return torch.from_numpy(np.array(decode(path, "image").convert("RGB")))


def read_mask(path: Path) -> Tensor:
    """(H, W) bool, True on the object.

    Above half of the mask's brightest value, so 0/1, 0/255 and soft masks all work.
    """
    gray = np.array(decode(path, "mask").convert("L"))
    return torch.from_numpy(gray > gray.max() / 2)


def decode(path: Path, what: str, draft: bool = False) -> Image.Image:
    """The picture in a file with its metadata; `draft`: an eighth of its size where possible.

    InvalidInput names it.
    """
    file = open_image(path, what)
    try:
        if draft:
            file.draft("RGB", (1, 1))  # JPEG: an eighth of the size, several times faster
        file.load()
    except (OSError, SyntaxError, ValueError, IndexError) as error:
        raise InvalidInput(
            f"{path}: the {what} is broken ({str(error).splitlines()[0]})"
        ) from None
    return file


def sharpness(grey: np.ndarray) -> float:
    """How sharp a grey picture (H, W) is: variance of the Laplacian at `LONGEST` px.

    To compare pictures of one source only.
    """
    return float(cv2.Laplacian(shrunk(grey, LONGEST), cv2.CV_32F).var())


def shrunk(pixels: np.ndarray, longest: int) -> Pixels:
    """The picture (H, W) or (H, W, 3) with a longer side of `longest` px at most.

    One that is small enough is copied.
    """
    height, width = pixels.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return pixels.copy()
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )


def open_image(path: Path, what: str) -> ImageFile.ImageFile:
    """Open an image file and bound its size by its header; no pixel is decoded yet."""
    try:
        file = Image.open(path, formats=_FORMATS)
    except FileNotFoundError:
        raise InvalidInput(f"{path}: the {what} is not there") from None
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        reason = (
            "too large"
            if isinstance(error, Image.DecompressionBombError)
            else "broken or of unknown format"
        )
        raise InvalidInput(f"{path}: the {what} is {reason}; {_valid()}") from None
    if file.width * file.height > MAX_PIXELS:
        raise InvalidInput(
            f"{path}: the {what} claims {file.width} x {file.height} px; {_valid()}"
        )
    if file.mode not in _EIGHT_BIT:
        raise InvalidInput(f"{path}: the {what} has pixels of kind {file.mode}; {_valid()}")
    return file


def _valid() -> str:
    return (
        f"JPEG, PNG, BMP, WebP or TIFF of 8 bits and at most {MAX_PIXELS // 10**6} "
        "megapixels is valid"
    )
