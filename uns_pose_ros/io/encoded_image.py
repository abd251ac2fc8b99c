"""An image as a camera delivers it (pixels, JPEG or PNG) and as a video folder keeps it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.images import MAX_PIXELS, Pixels, shrunk

_ENDINGS = {"JPEG": ".jpg", "PNG": ".png"}


@dataclass(frozen=True, eq=False)
class Photo:
    """One picture.

    `pixels` (H, W, 3) uint8 RGB, or `file`, the bytes of a whole JPEG or PNG file.
    """

    width: int  # px
    height: int  # px
    pixels: Pixels | None = None
    file: bytes | None = None
    ending: str = ""  # of the file: .jpg or .png

    @staticmethod
    def of_pixels(pixels: Pixels) -> Photo:
        """A photo of pixels (H, W, 3) uint8 RGB."""
        return Photo(pixels.shape[1], pixels.shape[0], pixels)

    @staticmethod
    def of_file(data: bytes) -> Photo:
        """A photo of a JPEG or PNG file; InvalidInput where it is something else."""
        image = _opened(data)
        return Photo(
            image.width, image.height, file=data, ending=_ENDINGS[str(image.format)]
        )

    def grey(self, longest: int) -> Pixels:
        """(h, w) uint8 grey, its longer side scaled down to `longest` px.

        InvalidInput where a file is broken.
        """
        if self.pixels is not None:
            return cv2.cvtColor(self.preview(longest), cv2.COLOR_RGB2GRAY).astype(
                np.uint8, copy=False
            )
        return shrunk(self._decoded("L", longest), longest)

    def preview(self, longest: int) -> Pixels:
        """(h, w, 3) uint8 RGB, scaled down likewise; a picture that is small enough is copied."""
        return shrunk(
            self._decoded("RGB", longest) if self.pixels is None else self.pixels, longest
        )

    def encoded(self, ending: str, quality: int) -> tuple[bytes, str]:
        """The bytes of a file and its ending.

        A file as it came, pixels as `ending` says; quality 1..100 of a JPEG.
        """
        if self.file is not None:
            return self.file, self.ending
        options = (
            [cv2.IMWRITE_JPEG_QUALITY, quality]
            if ending == ".jpg"
            else [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        assert self.pixels is not None
        _, data = cv2.imencode(
            ending, cv2.cvtColor(self.pixels, cv2.COLOR_RGB2BGR), options
        )
        return data.tobytes(), ending

    def _decoded(self, mode: str, longest: int) -> Pixels:
        """The file's pixels; all of a JPEG is read, but only as finely as needed."""
        assert self.file is not None
        image = _opened(self.file)
        try:
            image.draft(mode, (min(longest, self.width), min(longest, self.height)))
            return np.array(image.convert(mode))
        except (OSError, SyntaxError, ValueError, IndexError) as error:
            raise InvalidInput(
                f"compressed image is broken ({str(error).splitlines()[0]})"
            ) from None


def _opened(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=list(_ENDINGS))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InvalidInput(
            f"compressed image of {len(data)} bytes is broken or neither JPEG nor PNG"
        ) from None
    if image.mode not in ("L", "RGB") or image.width * image.height > MAX_PIXELS:
        raise InvalidInput(
            f"compressed image of {image.width} x {image.height} px {image.mode}: 8-bit grey "
            "or RGB of at most "
            f"{MAX_PIXELS // 10**6} megapixels is valid"
        )
    return image
