"""Image and mask files, read defensively: every size is bounded by the header before decoding."""

from __future__ import annotations

import importlib
import io
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from uns_pose_ros.core.errors import DiskError, InvalidInput
from uns_pose_ros.io.given_files import require_regular

# Pillow recognizes them by content; readers of other formats, such as EPS, would start programs
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# Pillow raises these for broken files
BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)

MAX_PIXELS = 80_000_000  # of one image
VALID = (
    f"JPEG, PNG, BMP, WebP or TIFF of 8 or 16 bits and at most {MAX_PIXELS // 10**6} megapixels "
    "is valid"
)

_PLAIN_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp")
ENDINGS = (*_PLAIN_ENDINGS, ".tif", ".tiff", ".heic", ".heif", ".hif")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_HEIF_READERS = ("pillow_heif", "pi_heif")  # both are Pillow plugins
HEIF_REMEDY = (
    "HEIC is read where pillow-heif is installed: pip install 'uns_pose_ros[heic]'"
)
_DNG_VERSION = 50706  # TIFF tag of a camera's raw image

FEW_BITS = "few bits"  # entry of `Image.info`: whether values of 16 bits have a few only
_FEW = 2**14
_MOST_OF_BORDER = 0.75
_MOST_LABELS = 32  # of a mask: more values are a soft mask

LONGEST = 640  # px, longer side at which sharpness is measured: finer blur does no harm

Pixels = NDArray[np.uint8]
NaturalKey = tuple[tuple[tuple[int, int, str], ...], ...]

# 8-bit values of all 16-bit values
_TO_EIGHT_BITS = np.rint(np.arange(65536) / 257).astype(np.uint8)


def natural_order(name: str) -> tuple[NaturalKey, str]:
    """A key that sorts names as people count: frame1, frame2, frame10.

    Folders are compared before the names in them, and letters without their case.
    """
    parts = []
    for part in name.split("/"):
        pieces = re.split(r"([0-9]+)", part.casefold())
        parts.append(tuple(_order_of_piece(piece) for piece in pieces if piece))
    return tuple(parts), name


def _order_of_piece(piece: str) -> tuple[int, int, str]:
    """Numbers come before words, and are compared by value: the length decides first."""
    if not piece[0].isdecimal():
        return 1, 0, piece
    digits = piece.lstrip("0")
    return 0, len(digits), digits


def is_image_file(path: Path) -> bool:
    """Whether a file is an image by its ending, or by its content if it has no ending.

    A number is no ending: `frame.0001`.
    """
    ending = path.suffix.lower()
    if ending in ENDINGS:
        return True
    return (not ending or ending[1:].isdecimal()) and _image_kind(_head(path)) is not None


def is_heif(source: Path | bytes) -> bool:
    """Whether the content is HEIC or HEIF, whatever the ending."""
    head = _head(source) if isinstance(source, Path) else bytes(source[:16])
    return _image_kind(head) == "HEIF"


def find_heif_reader() -> str | None:
    """The installed package that reads HEIC; Pillow knows the format afterwards."""
    for name in _HEIF_READERS:
        try:
            importlib.import_module(name).register_heif_opener()
        except (ImportError, AttributeError):
            continue
        return name
    return None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


def _image_kind(head: bytes) -> str | None:
    """The format of a file by its first 16 bytes; None if it is no image."""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "HEIF"
    starts = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
    }
    for start, kind in starts.items():
        if head.startswith(start):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0" else None


def read_image(path: Path) -> Tensor:
    """Read an image file as (H, W, 3) uint8 RGB; an EXIF orientation is ignored, as in COLMAP."""
    return torch.from_numpy(np.array(decode(path, "image").convert("RGB")))


def read_mask(path: Path) -> Tensor:
    """Read a mask file as (H, W) bool, True on the object.

    The object is above half of the mask's brightest value, so 0/1, 0/255 and soft masks all work.
    """
    gray = decode_mask(path)
    return torch.from_numpy(gray > gray.max() / 2)


def decode_mask(path: Path) -> Pixels:
    """Decode a mask file as (H, W) uint8, bright on the object.

    The object is every label but 0, of label numbers and of colors, or what is opaque in an image
    that was cut out. The label 255 beside others marks doubtful borders, which are no object.

    Raises InvalidInput if the file is missing, broken or too large.
    """
    image = decode(path, "mask")
    with guarded_decoding(f"{path}: the mask"):
        return _object_of(image)


def _object_of(image: Image.Image) -> Pixels:
    """A decoded mask as (H, W) uint8, bright on the object."""
    if is_transparent(image):
        return np.array(image.convert("RGBA").getchannel("A"))
    if image.mode in ("1", "L"):
        return _join_labels(np.array(image.convert("L")))
    rgb = np.array(image.convert("RGB"))
    if (rgb == rgb[..., :1]).all():
        return _join_labels(rgb[..., 0].copy())
    packed = rgb.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    if len(np.unique(packed)) <= _MOST_LABELS:
        return np.where(packed > 0, 255, 0).astype(np.uint8)
    return rgb.max(-1)


def fills_border(mask: np.ndarray) -> bool:
    """Whether a mask (H, W) is bright along most of its border, and darker inside.

    The object of such a mask is probably what is dark.
    """
    bright = mask > 0 if mask.dtype == bool else mask > mask.max() / 2
    edges = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    return bool(edges.mean() >= _MOST_OF_BORDER and edges.mean() > bright.mean() + 0.005)


def is_transparent(image: Image.Image) -> bool:
    """Whether a decoded image has a pixel that is not opaque."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return bool((alpha < 255).any())


def _join_labels(gray: Pixels) -> Pixels:
    """Small label numbers as 0 and 255; other masks as they are."""
    counts = np.bincount(gray.ravel(), minlength=256)
    labels = int(counts[1:_MOST_LABELS].sum())
    rest = int(counts[_MOST_LABELS:255].sum())
    if rest or labels <= counts[255] or not labels:
        return gray
    return np.where((gray > 0) & (gray < 255), 255, 0).astype(np.uint8)


def decode_rgb(data: bytes, label: str) -> Pixels:
    """Decode the bytes of an image file.

    Args:
        data: JPEG, PNG, BMP, WebP or TIFF of 8 or 16 bits.
        label: The words for the image in error messages.

    Returns:
        (H, W, 3) uint8 RGB; alpha is dropped, and 16 bits become 8 by `to_eight_bits`.

    Raises:
        InvalidInput: The data are broken, cut off, too large or of another format.
    """
    file = open_file(data, label, _FORMATS)
    _check_bits(file, label)
    return np.array(_load(file, data, label).convert("RGB"))


def decode(path: Path, what: str, draft: bool = False) -> Image.Image:
    """Decode an image file.

    Args:
        path: The file.
        what: The kind of image, for error messages.
        draft: Decode a JPEG at an eighth of its size, which is several times faster.

    Returns:
        The image with its metadata; 16 bits become 8 by `to_eight_bits`.

    Raises:
        InvalidInput: The file is missing, broken or too large.
    """
    file = open_image(path, what)
    if draft:
        with guarded_decoding(f"{path}: the {what}"):
            file.draft("RGB", (1, 1))
    return _load(file, path, f"{path}: the {what}", what == "mask")


def to_eight_bits(values: NDArray[np.uint16]) -> Pixels:
    """Scale 16-bit values to 8 bits by the full range: 65535 becomes 255, so v / 257, rounded."""
    return _TO_EIGHT_BITS[values]


def sharpness(gray: np.ndarray) -> float:
    """Sharpness of a gray image (H, W): variance of the Laplacian at `LONGEST` px.

    Only values of images from one source are comparable.
    """
    return float(cv2.Laplacian(shrunk(gray, LONGEST), cv2.CV_32F).var())


def shrunk(pixels: np.ndarray, longest: int) -> Pixels:
    """Scale an image (H, W) or (H, W, 3) down to a longer side of at most `longest` px.

    An image that is small enough is copied.
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
    label = f"{path}: the {what}"
    file = open_file(path, label, _FORMATS)
    _check_bits(file, label)
    return file


def open_file(
    source: Path | bytes, label: str, formats: Sequence[str], valid: str = VALID
) -> ImageFile.ImageFile:
    """Open an image and bound its size by its header; no pixel is decoded yet.

    Args:
        source: A file, or the bytes of a file.
        label: The words for the image in error messages.
        formats: Pillow's names of the formats that are accepted.
        valid: The end of error messages.

    Returns:
        Pillow's file; its pixels may have any number of bits.

    Raises:
        InvalidInput: The file is missing, of another format or too large.
    """
    if isinstance(source, Path):
        require_regular(source)  # a FIFO would block for ever
    if formats is _FORMATS and is_heif(source):
        if find_heif_reader() is None:
            raise InvalidInput(f"{label} is a HEIC file; {HEIF_REMEDY}")
        formats = ("HEIF",)
    try:
        file = Image.open(
            source if isinstance(source, Path) else io.BytesIO(source),
            formats=tuple(formats),
        )
    except FileNotFoundError:
        raise InvalidInput(f"{label} is not there") from None
    except Image.DecompressionBombError:
        raise InvalidInput(f"{label} is too large; {valid}") from None
    except (UnidentifiedImageError, *BROKEN) as error:
        if isinstance(error, OSError) and (
            line := DiskError.of(error, Path(label), "read")
        ):
            raise line from None
        raise InvalidInput(f"{label} is broken or of unknown format; {valid}") from None
    if file.width * file.height > MAX_PIXELS:
        raise InvalidInput(f"{label} claims {file.width} x {file.height} px; {valid}")
    return file


@contextmanager
def guarded_decoding(label: str) -> Iterator[None]:
    """Turn what Pillow raises for a broken file into InvalidInput of one line."""
    try:
        yield
    except InvalidInput:
        raise
    except BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(" <")[0]
        raise InvalidInput(f"{label} is broken ({reason})") from None


def _has_sixteen_bits(file: ImageFile.ImageFile) -> bool:
    """Whether the channels of a file that is not decoded yet have 16 bits."""
    return file.format in ("PNG", "TIFF") and ";16" in str(file.tile)


def _check_bits(file: ImageFile.ImageFile, label: str) -> None:
    if file.format == "TIFF" and _DNG_VERSION in getattr(file, "tag_v2", {}):
        raise InvalidInput(f"{label} is a camera's raw image (DNG); {VALID}")
    if file.mode not in _EIGHT_BIT and not _has_sixteen_bits(file):
        raise InvalidInput(f"{label} has pixels of kind {file.mode}; {VALID}")


def _load(
    file: ImageFile.ImageFile, source: Path | bytes, label: str, as_labels: bool = False
) -> Image.Image:
    """Decode the pixels of an open file, with 8 bits a channel; small labels keep their numbers."""
    sixteen_bits = _has_sixteen_bits(file)
    with guarded_decoding(label):
        file.load()  # unlike OpenCV, Pillow notices that the end is missing
        if not sixteen_bits:
            return file
        # Pillow cuts the lower 8 bits of colors off, OpenCV keeps all
        data = source.read_bytes() if isinstance(source, Path) else source
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None or values.dtype != np.uint16:
            raise ValueError("its 16-bit values cannot be decoded")
        if as_labels and values.max() < 256:
            pixels = values.astype(np.uint8)
        else:
            pixels = to_eight_bits(values.astype(np.uint16, copy=False))
        if pixels.ndim == 3:
            pixels = np.ascontiguousarray(pixels[..., 2::-1])
        image = Image.fromarray(pixels)
        image.info = dict(file.info) | {FEW_BITS: values.max() < _FEW}
        return image
