"""An image as a camera delivers it (pixels, JPEG or PNG) and as a video folder keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ImageFile

from uns_pose_ros.io.images import (
    Pixels,
    decode_rgb,
    guarded_decoding,
    is_heif,
    open_file,
    shrunk,
)

# files that are kept as they are; MPO is a JPEG with previews behind it
_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png"}
# Pillow reads MPO by its reader of JPEG
_KEPT_FORMATS = ("JPEG", "PNG")
_FORMATS = (*_KEPT_FORMATS, "BMP", "WEBP", "TIFF")


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """One image: either its pixels, or the bytes of a whole JPEG or PNG file."""

    width: int  # px
    height: int  # px
    pixels: Pixels | None = None  # (H, W, 3) uint8 RGB
    file: bytes | None = None
    ending: str = ""  # of the file: .jpg or .png

    @staticmethod
    def of_pixels(pixels: Pixels) -> EncodedImage:
        """Wrap pixels (H, W, 3) uint8 RGB."""
        return EncodedImage(pixels.shape[1], pixels.shape[0], pixels)

    @staticmethod
    def of_file(data: bytes, label: str = "") -> EncodedImage:
        """Wrap the bytes of an image file.

        A JPEG or PNG file of 8-bit gray or RGB is kept as it is. Other files are decoded to pixels.

        Args:
            data: The bytes.
            label: The words for the image in error messages.

        Returns:
            The image; the pixels of a kept file are not decoded yet.

        Raises:
            InvalidInput: The data are no image.
        """
        label = label or f"a compressed image of {len(data)} bytes"
        if is_heif(data):
            return EncodedImage.of_pixels(decode_rgb(data, label))
        image = open_file(data, label, _FORMATS)
        ending = _ENDINGS.get(str(image.format))
        if ending is None or image.mode not in ("L", "RGB") or ";16" in str(image.tile):
            return EncodedImage.of_pixels(decode_rgb(data, label))
        return EncodedImage(image.width, image.height, file=data, ending=ending)

    def gray(self, longest: int) -> Pixels:
        """Return (h, w) uint8 gray, scaled down to a longer side of at most `longest` px.

        Raises InvalidInput if the file is broken.
        """
        if self.pixels is not None:
            gray = cv2.cvtColor(self.preview(longest), cv2.COLOR_RGB2GRAY)
            return gray.astype(np.uint8, copy=False)
        return shrunk(self._decode("L", longest), longest)

    def preview(self, longest: int) -> Pixels:
        """Return (h, w, 3) uint8 RGB, scaled down to a longer side of at most `longest` px.

        An image that is small enough is copied. Raises InvalidInput if the file is broken.
        """
        pixels = self._decode("RGB", longest) if self.pixels is None else self.pixels
        return shrunk(pixels, longest)

    def encoded(self, ending: str, quality: int) -> tuple[bytes, str]:
        """Encode the image unless it is a file already.

        Args:
            ending: The format of an image that came as pixels: .jpg or .png.
            quality: Quality of a JPEG, 1..100.

        Returns:
            The bytes of the file, and its ending.
        """
        if self.file is not None:
            return self.file, self.ending
        assert self.pixels is not None
        # OpenCV writes PNG twice as fast by its own setting as with any level of compression
        options = [cv2.IMWRITE_JPEG_QUALITY, quality] if ending == ".jpg" else []
        bgr = cv2.cvtColor(self.pixels, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(ending, bgr, options)
        return data.tobytes(), ending

    def _decode(self, mode: str, longest: int) -> Pixels:
        """Decode the file; all of a JPEG is read, but only as finely as needed."""
        assert self.file is not None
        label = f"a compressed image of {len(self.file)} bytes"
        image: ImageFile.ImageFile = open_file(self.file, label, _KEPT_FORMATS)
        with guarded_decoding(label):
            image.draft(mode, (min(longest, self.width), min(longest, self.height)))
            return np.array(image.convert(mode))
